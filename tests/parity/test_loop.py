"""Our training loop beside PaddleSeg's own: the same losses, learning rates, weights, statistics and averages."""

import numpy as np
import paddle
import pytest

from paddle_rt.checkpoint import read_state_dict
from paddle_rt.config import build, load_config
from paddle_rt.paddleseg import loop as paddleseg_loop
from paddle_rt.tasks.segmentation.task import SegmentationTask
from paddle_rt.training import TrainOptions, loop
from tests.helpers import NORMALIZE_HALF, TINY, relative_error, tiny_config

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


def double(dataset: paddle.io.Dataset) -> paddle.io.Dataset:
    """Make a data set give images of Paddle's default type."""
    transforms = dataset.transforms

    def transform(data: dict) -> dict:
        data = transforms(data)
        return {**data, "img": data["img"].astype(paddle.get_default_dtype())}

    dataset.transforms = transform
    return dataset


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


@pytest.mark.parametrize("case", CASES)
def test_twenty_iterations_are_paddlesegs(case, tmp_path, in_double_precision, seen):
    scenes = {"type": "StreetScenes", "num_samples": 9, "height": 64, "width": 128, "transforms": [NORMALIZE_HALF]}
    path = tiny_config(
        tmp_path,
        iters=ITERS,
        batch_size=2,
        train_dataset={**scenes, "mode": "train"},
        model={**TINY, "drop_path_rate": 0.2, "type": "RTFormer"},
        **CASES[case],
    )
    results, histories = [], []
    for name, module in (("theirs", paddleseg_loop), ("ours", loop)):
        options = TrainOptions(str(tmp_path / name), "cpu", seed=1, use_ema=True, log_iters=7, save_interval=ITERS)
        module.train(load_config(path), options)
        histories.append(np.array(seen))
        seen.clear()
        folder = tmp_path / name / f"iter_{ITERS}"
        results.append([read_state_dict(folder / file) for file in ("model.pdparams", "ema_model.pdparams")])
    assert histories[0].shape == (ITERS, 3)
    assert (histories[0][:, 2] == histories[1][:, 2]).all(), "learning rates differ"
    errors = {"losses": relative_error(histories[1][:, :2], histories[0][:, :2])}
    for what, theirs, ours in zip(("weights and statistics", "moving average"), *results, strict=True):
        assert list(theirs) == list(ours)
        errors[what] = max(relative_error(ours[name], theirs[name]) for name in theirs)
    print(case, errors)
    assert all(error < 1e-12 for error in errors.values()), errors
