"""What the training loop promises beside equality with PaddleSeg's and exact resume."""

import json
import math

import numpy as np
import paddle
import pytest

from paddle_rt.errors import UserError
from paddle_rt.models.base import Network
from paddle_rt.run_logs import METRICS, read_metrics
from paddle_rt.tasks.base import Scores
from paddle_rt.training import TrainOptions, fit
from tests.helpers import relative_error
from tests.training.run_toy import parts, run
from tests.training.toy import BrightnessNetwork, BrightnessTask


class Linear(Network):
    """A network without BatchNorm and dropout: [B, 3, 8, 8] to [B, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.head = paddle.nn.Linear(192, 1)

    def forward(self, images):
        return [self.head(images.flatten(1))]


def options(folder, **changes) -> TrainOptions:
    return TrainOptions(**{"save_dir": str(folder), "device": "cpu", "seed": 1, "save_interval": 5, **changes})


def test_accumulation_is_the_larger_batch(tmp_path):
    weights = []
    paddle.set_default_dtype("float64")
    try:
        for batch_size, accumulate in ((4, 1), (2, 2), (1, 4)):
            with paddle.utils.unique_name.guard():
                paddle.seed(1)
                trained = parts(Linear(), samples=11)
                folder = tmp_path / str(accumulate)
                folder.mkdir()
                fit(trained, options(folder, accumulate=accumulate), 12, batch_size)
                weights.append(trained.network.head.weight.numpy())
    finally:
        paddle.set_default_dtype("float32")
    errors = [relative_error(other, weights[0]) for other in weights[1:]]
    print(errors)
    assert max(errors) < 1e-12, errors


def test_metrics_and_files(tmp_path):
    run(10, options(tmp_path, log_iters=3, use_vdl=True))
    lines = read_metrics(tmp_path / METRICS)
    assert [line["iter"] for line in lines if line["kind"] == "train"] == [3, 6, 9]
    scored = [line for line in lines if line["kind"] == "eval"]
    assert [line["iter"] for line in scored] == [5, 10] and all(0 < line["Closeness"] <= 1 for line in scored)
    keys = {"loss", "losses", "lr", "grad_norm", "batch_cost", "reader_cost", "ips", "epoch"}
    assert keys < lines[0].keys() and lines[0]["loss"] == pytest.approx(sum(lines[0]["losses"]))
    names = {path.name.split(".")[0] for path in tmp_path.iterdir()}
    assert names == {"iter_5", "iter_10", "best_model", "metrics", "vdlrecords"}
    states = paddle.load(str(tmp_path / "best_model" / "model.pdstates"))
    assert states["Closeness"] == max(line["Closeness"] for line in scored)


def test_metrics_of_a_killed_run_are_cut_at_the_checkpoint(tmp_path):
    run(5, options(tmp_path, log_iters=1))
    with (tmp_path / METRICS).open("a") as file:
        file.write(json.dumps({"kind": "train", "iter": 6, "loss": 1.0}) + '\n{"kind": "tra')
    run(10, options(tmp_path, log_iters=1, resume_model="auto"))
    trained = [line["iter"] for line in read_metrics(tmp_path / METRICS) if line["kind"] == "train"]
    assert trained == list(range(1, 11))


def test_the_log_ends_with_scores_and_the_best_model(tmp_path, caplog):
    caplog.set_level("INFO", logger="paddle_rt")
    run(10, options(tmp_path, log_iters=5))
    line = next(text for text in caplog.messages if text.startswith("[TRAIN]"))
    assert line.startswith("[TRAIN] epoch: 1, iter: 5/10, loss: ") and "samples/sec, grad_norm: " in line
    assert " | ETA 00:00:0" in line
    table, place = caplog.messages[-2:]
    assert table.splitlines()[1].split() == ["iter", "model", "Closeness"] and len(table.splitlines()) == 4
    assert str(tmp_path / "best_model") in place


class Scripted(BrightnessTask):
    """Scores that a test prescribes."""

    scores: list[float]

    def evaluate(self, network, dataset, num_workers=0):
        network.eval()
        return Scores({"Closeness": self.scores.pop(0)}, "Closeness")


@pytest.mark.parametrize(
    "scores, last", [([0.5, 0.4, 0.5, 0.3, 0.9], 4), ([0.5, 0.6, 0.5, 0.6, 0.7], 5), ([0.5, 0.4, 0.4, 0.9, 0.9], 3)]
)
def test_early_stopping_counts_evaluations_below_the_best(scores, last, tmp_path):
    """An equal score neither counts nor starts the count anew."""
    with paddle.utils.unique_name.guard():
        trained = parts(BrightnessNetwork())
        task = Scripted({})
        task.scores = list(scores)
        state = fit(
            type(trained)(trained.network, trained.optimizer, task, trained.train_data, trained.val_data),
            options(tmp_path, save_interval=1, early_stop_intervals=2),
            5,
            2,
        )
    assert state.progress.iteration == last and (tmp_path / f"iter_{last}").is_dir()


class Exploding(BrightnessTask):
    """A loss that is not finite from an iteration on, or whose gradients are not."""

    mode = "loss"
    calls = 0

    def losses(self, outputs, batch):
        self.calls += 1
        loss = super().losses(outputs, batch)[0]
        if self.calls < 4:
            return [loss]
        if self.mode == "loss":
            return [loss * math.nan]
        return [paddle.sqrt(loss * 0.0)]  # 0, with gradients that are not finite


@pytest.mark.parametrize("mode", ["loss", "gradients"])
def test_what_is_not_finite_is_named_with_its_iteration(mode, tmp_path):
    with paddle.utils.unique_name.guard():
        trained = parts(BrightnessNetwork())
        task = Exploding({})
        task.mode = mode
        trained = type(trained)(trained.network, trained.optimizer, task, trained.train_data)
        with pytest.raises(UserError, match=f"{mode} is nan at iteration 4"):
            fit(trained, options(tmp_path, save_interval=2), 10, 2)
    assert all(bool(value.isfinite().all()) for value in trained.network.parameters())
    assert [path.name for path in tmp_path.glob("iter_*")] == ["iter_2"]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_is_refused_on_a_cpu(precision, tmp_path):
    with pytest.raises(UserError, match="does nothing in Paddle on a CPU"):
        run(5, options(tmp_path, precision=precision))


def test_a_data_set_smaller_than_an_iteration(tmp_path):
    with pytest.raises(UserError, match="has 11 images, fewer than one iteration takes"):
        run(5, options(tmp_path, accumulate=6))


@pytest.mark.parametrize(
    "text, message",
    [("batch_rang=[1,2]", "batch_range"), ("batch_range=[2,2]", "increasing"), ("state=TPU", "state"), ("x", "x")],
)
def test_profiler_options(text, message, tmp_path):
    with pytest.raises(UserError, match=message):
        run(5, options(tmp_path, profiler_options=text))


def test_the_profiler_ends_the_run_and_writes_below_its_folder(tmp_path):
    state = run(20, options(tmp_path, profiler_options="batch_range=[1,3];state=CPU"))
    assert state.progress.iteration == 3
    assert any(path.suffix == ".json" for path in (tmp_path / "profile").rglob("*"))


def test_checkpoints_are_pruned(tmp_path):
    run(20, options(tmp_path, keep_checkpoint_max=2, save_interval=4))
    assert sorted(path.name for path in tmp_path.glob("iter_*")) == ["iter_16", "iter_20"]


def test_augmentation_depends_on_seed_epoch_and_index_alone():
    from paddle_rt.training.order import SeededSamples
    from tests.training.toy import BrightnessData

    one, other = (SeededSamples(BrightnessData(4), seed=7) for _ in range(2))
    np.random.seed(1)
    first = [one[0, i]["img"] for i in range(4)]
    drawn = np.random.rand()
    second = [other[0, i]["img"] for i in reversed(range(4))][::-1]
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert not (one[1, 0]["img"] == first[0]).all()
    assert not (SeededSamples(BrightnessData(4), seed=8)[0, 0]["img"] == first[0]).all()
    np.random.seed(1)
    assert np.random.rand() == drawn, "reading samples changes the generator of the process"
