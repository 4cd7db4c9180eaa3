"""Which samples an epoch visits: each once, or as often as weights say, and the same in every run and process."""

import numpy as np
import paddle
import pytest

from paddle_rt.training.order import SeededSamples
from tests.training.run_toy import run
from tests.training.test_resume import ITERS, options
from tests.training.toy import BrightnessTask


class Numbers(paddle.io.Dataset):
    """Its items are their indices, and a random number."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, float(np.random.rand())


def epoch_of(samples: SeededSamples, epoch: int) -> list[tuple[int, float]]:
    return [samples[epoch, place] for place in range(len(samples))]


@pytest.mark.parametrize("repeats", [1, 3])
def test_samples_are_drawn_as_often_as_their_weights_say(repeats):
    weights = np.array([0.5, 0.25, 0.1, 0.0, 0.15])
    drawn = SeededSamples(Numbers(5), 7, repeats, weights)
    assert len(drawn) == 5 * repeats
    for epoch in range(4):
        counts = np.bincount([index for index, _ in epoch_of(drawn, epoch)], minlength=5)
        expected = weights * len(drawn)
        assert (np.abs(counts - expected) < 1).all() and counts[3] == 0, counts
    many = np.bincount([index for epoch in range(60) for index, _ in epoch_of(drawn, epoch)], minlength=5)
    error = np.abs(many / many.sum() - weights).max()
    print(f"largest error of a share over 60 epochs {error:.1e}")
    assert error < 0.03


def test_a_draw_depends_on_the_seed_and_the_epoch_alone():
    weights = np.full(40, 1 / 40) + np.linspace(0, 0.01, 40)
    one, other, third = (SeededSamples(Numbers(40), seed, weights=weights) for seed in (1, 1, 2))
    later = epoch_of(one, 3)
    assert epoch_of(one, 0) != later and epoch_of(other, 3) == later != epoch_of(third, 3)
    numbers = [number for _, number in later]
    assert len(set(numbers)) == len(numbers)  # an image that is drawn twice is augmented twice
    plain = SeededSamples(Numbers(40), 1)
    assert [index for index, _ in epoch_of(plain, 3)] == list(range(40))


def test_a_run_with_weights_that_is_resumed_is_the_whole_run(tmp_path, monkeypatch):
    run(ITERS, options(tmp_path / "plain"))
    monkeypatch.setattr(BrightnessTask, "sample_weights", lambda self, data: np.arange(1.0, len(data) + 1))
    run(ITERS, options(tmp_path / "whole"))
    run(13, options(tmp_path / "parts", save_interval=13))
    run(ITERS, options(tmp_path / "parts", resume_model=str(tmp_path / "parts/iter_13")))
    weights = [(tmp_path / name / "iter_20/model.pdparams").read_bytes() for name in ("plain", "whole", "parts")]
    assert weights[1] == weights[2] != weights[0]


def test_another_sampler_is_named_at_a_resume(tmp_path, monkeypatch, caplog):
    run(5, options(tmp_path))
    monkeypatch.setattr(BrightnessTask, "__init__", lambda self, config: setattr(self, "config", {"sampler": "mine"}))
    monkeypatch.setattr(BrightnessTask, "sample_weights", lambda self, data: np.ones(len(data)))
    caplog.set_level("WARNING", logger="paddle_rt")
    run(10, options(tmp_path, resume_model="auto"))
    assert "sampler is mine, was None" in caplog.text
