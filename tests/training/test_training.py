"""Training: equal to PaddleSeg's, and what the tools promise about checkpoints."""

import importlib

import numpy as np
import paddle
import pytest

from paddle_rt.checkpoint import read_state_dict
from paddle_rt.config import load_config
from paddle_rt.training import train as engine
from tests.helpers import TINY, randomize, relative_error, tiny_config

ITERS = 5
SMALL = {**TINY, "drop_path_rate": 0.0, "type": "RTFormer"}


@pytest.fixture
def losses(monkeypatch) -> list[list[float]]:
    """Collects the losses of every iteration of PaddleSeg's loop."""
    loop = importlib.import_module("paddleseg.core.train")
    seen, original = [], loop.loss_computation

    def recorded(*args, **kwargs):
        result = original(*args, **kwargs)
        seen.append([float(loss) for loss in result])
        return result

    monkeypatch.setattr(loop, "loss_computation", recorded)
    return seen


class Cast(paddle.io.Dataset):
    """A dataset whose images have Paddle's default type."""

    def __init__(self, dataset) -> None:
        self.dataset, self.file_list = dataset, dataset.file_list

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        item = self.dataset[index]
        return {**item, "img": item["img"].astype(paddle.get_default_dtype())}


def train_twice(tmp_path, losses, monkeypatch, **changes) -> tuple[np.ndarray, np.ndarray, dict, dict]:
    """Losses and final weights of PaddleSeg's model and of ours, from one state on one seed."""
    config = tiny_config(tmp_path, **changes)
    start = load_config(config).dic["model"]
    from paddle_rt.models.rtformer import RTFormer

    model = RTFormer(19, **{k: v for k, v in start.items() if k != "type"})
    randomize(model)
    paddle.save(model.state_dict(), str(tmp_path / "start.pdparams"))

    def build(builder, part: str, original=engine.build):
        return Cast(original(builder, part)) if part == "train_dataset" else original(builder, part)

    monkeypatch.setattr(engine, "build", build)
    results = []
    for name in ("PaddleSegRTFormer", "RTFormer"):
        losses.clear()
        opts = [f"model.type={name}", f"model.pretrained={tmp_path / 'start.pdparams'}"]
        engine.train(load_config(config, opts), str(tmp_path / name), "cpu", seed=1, log_iters=1)
        results += [np.array(losses), read_state_dict(tmp_path / name / f"iter_{ITERS}")]
    return results[0], results[2], results[1], results[3]


@pytest.mark.parametrize("precision, limit", [("float64", 1e-9), ("float32", 1e-5)])
def test_five_iterations_are_paddlesegs(precision, limit, tmp_path, losses, monkeypatch):
    """With the release's AdamW in float64. In float32 with momentum instead: Adam scales a gradient that is nothing but
    rounding noise (of a bias before a BatchNorm, whose true gradient is zero) up to its full step, so that two runs of
    PaddleSeg's own model on other machines part after three iterations as well."""
    momentum = {"type": "SGD", "momentum": 0.9, "weight_decay": 1e-4}
    changes = {} if precision == "float64" else {"optimizer": momentum}
    paddle.set_default_dtype(precision)
    try:
        theirs, ours, their_weights, our_weights = train_twice(tmp_path, losses, monkeypatch, **changes)
    finally:
        paddle.set_default_dtype("float32")
    loss_error = float(np.abs(ours / theirs - 1).max())
    names = sorted(their_weights)
    assert names == sorted(our_weights) and theirs.shape == (ITERS, 2)
    flat = [np.concatenate([weights[n].ravel() for n in names]) for weights in (our_weights, their_weights)]
    weight_error = relative_error(*flat)
    print(f"{precision}: losses {loss_error:.1e}, weights {weight_error:.1e}")
    assert loss_error < limit, f"losses: relative error {loss_error:.1e}"
    assert weight_error < limit, f"weights: relative error {weight_error:.1e}"


def test_processes_of_a_launch_share_the_cores(monkeypatch):
    monkeypatch.delenv("PADDLE_TRAINER_ENDPOINTS", raising=False)
    assert engine.local_processes() == 1
    monkeypatch.setenv("PADDLE_CURRENT_ENDPOINT", "10.0.0.1:6071")
    monkeypatch.setenv("PADDLE_TRAINER_ENDPOINTS", "10.0.0.1:6070,10.0.0.1:6071,10.0.0.2:6070")
    assert engine.local_processes() == 2
