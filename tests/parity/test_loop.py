"""Our training loop beside PaddleSeg's own: the same losses, learning rates, weights, statistics and averages."""

import pathlib

import numpy as np
import paddle
import pytest

from paddle_rt.checkpoint import read_state_dict
from paddle_rt.config import build, load_config
from paddle_rt.paddleseg import loop as paddleseg_loop
from paddle_rt.tasks.segmentation.task import SegmentationTask
from paddle_rt.training import TrainOptions, loop
from tests.helpers import NORMALIZE_HALF, ROOT, TINY, launch_two_processes, relative_error, tiny_config
from tests.parity.train_in_double_precision import double

ITERS = 20
WARM_UP = {
    "type": "PolynomialDecay",
    "learning_rate": 1e-3,
    "end_lr": 0,
    "power": 0.9,
    "warmup_iters": 5,
    "warmup_start_lr": 1e-5,
}
ADAMW = {
    "type": "AdamW",
    "weight_decay": 0.0125,
    "custom_cfg": [{"name": "seghead", "lr_mult": 10.0}, {"name": "norm", "weight_decay_mult": 0.0}],
    "grad_clip_cfg": {"name": "ClipGradByGlobalNorm", "clip_norm": 5.0},
}
MOMENTUM = {"type": "SGD", "momentum": 0.9, "weight_decay": 1e-4}
OHEM = {"types": [{"type": "OhemCrossEntropyLoss", "min_kept": 2000}], "coef": [1, 0.4]}
CASES = {
    "AdamW, groups, warm-up, clipping": dict(optimizer=ADAMW, lr_scheduler=WARM_UP),
    "momentum, OHEM": dict(optimizer=MOMENTUM, loss=OHEM),
    "to_static_training": dict(to_static_training=True),
}


@pytest.fixture
def in_double_precision(monkeypatch):
    original = SegmentationTask.build_data
    monkeypatch.setattr(SegmentationTask, "build_data", lambda self, split: double(original(self, split)))
    paddle.set_default_dtype("float64")
    yield
    paddle.set_default_dtype("float32")


@pytest.fixture
def seen(monkeypatch) -> list[list[float]]:
    """Collect the losses and the learning rate of every iteration of either loop."""
    rows, optimizers, losses = [], [], SegmentationTask.losses

    def build_optimizer(*arguments):
        optimizers.append(build.build_optimizer(*arguments))
        return optimizers[-1]

    def recorded(self, outputs, batch):
        result = losses(self, outputs, batch)
        rows.append([*map(float, result), optimizers[-1].get_lr()])
        return result

    monkeypatch.setattr(SegmentationTask, "losses", recorded)
    for module in (loop, paddleseg_loop):
        monkeypatch.setattr(module, "build_optimizer", build_optimizer)
    return rows


def config(folder: pathlib.Path, **changes: object) -> str:
    scenes = {"type": "StreetScenes", "num_samples": 9, "height": 64, "width": 128, "transforms": [NORMALIZE_HALF]}
    return tiny_config(
        folder,
        iters=ITERS,
        batch_size=2,
        train_dataset={**scenes, "mode": "train"},
        model={**TINY, "drop_path_rate": 0.2, "type": "RTFormer"},
        **changes,
    )


def weight_errors(theirs: pathlib.Path, ours: pathlib.Path) -> dict[str, float]:
    """Return the largest relative error of any weight, of the network and of the moving average."""
    errors = {}
    for file in ("model.pdparams", "ema_model.pdparams"):
        their_state, our_state = (read_state_dict(folder / f"iter_{ITERS}" / file) for folder in (theirs, ours))
        assert list(their_state) == list(our_state)
        errors[file] = max(relative_error(our_state[name], their_state[name]) for name in their_state)
    return errors


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow if case == "to_static_training" else ()) for case in CASES]
)
def test_twenty_iterations_are_paddlesegs(case, tmp_path, in_double_precision, seen):
    path, histories = config(tmp_path, **CASES[case]), []
    for name, module in (("theirs", paddleseg_loop), ("ours", loop)):
        options = TrainOptions(str(tmp_path / name), "cpu", seed=1, use_ema=True, log_iters=7, save_interval=ITERS)
        module.train(load_config(path), options)
        histories.append(np.array(seen))
        seen.clear()
    assert histories[0].shape == (ITERS, 3)
    assert (histories[0][:, 2] == histories[1][:, 2]).all(), "learning rates differ"
    errors = {"losses": relative_error(histories[1][:, :2], histories[0][:, :2])}
    errors.update(weight_errors(tmp_path / "theirs", tmp_path / "ours"))
    print(case, errors)
    assert all(error < 1e-12 for error in errors.values()), errors


@pytest.mark.slow
def test_two_processes_train_as_paddlesegs_do(tmp_path):
    path = config(tmp_path, **CASES["AdamW, groups, warm-up, clipping"])
    for name in ("paddleseg", "paddle_rt"):
        script = ROOT / "tests" / "parity" / "train_in_double_precision.py"
        launch_two_processes(tmp_path / f"log_{name}", script, path, tmp_path / name, name, ITERS)
    errors = weight_errors(tmp_path / "paddleseg", tmp_path / "paddle_rt")
    print("two processes", errors)
    assert all(error < 1e-12 for error in errors.values()), errors
