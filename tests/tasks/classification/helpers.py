"""What the tests of classification share."""

import pathlib

import cv2
import numpy as np
import yaml

from tests.helpers import NORMALIZE

NORMALIZE_IMAGE = {**NORMALIZE, "type": "NormalizeImage"}
TRAIN = [{"type": "RandCropImage", "size": 32}, {"type": "RandFlipImage"}, NORMALIZE_IMAGE]
VAL = [{"type": "ResizeImage", "size": 32}, NORMALIZE_IMAGE]
MIX = [{"type": "MixupOperator", "prob": 0.5}, {"type": "CutmixOperator", "alpha": 1.0, "prob": 0.5}]


def content(**changes: object) -> dict:
    """Return a config for the stand-in network on tiny rendered objects, with top-level keys replaced or added."""
    objects = {"type": "StreetObjects", "size": 40}
    return {
        "task": "classification",
        "batch_size": 4,
        "iters": 6,
        "train_dataset": {**objects, "num_samples": 24, "transforms": TRAIN, "batch_transform_ops": MIX},
        "val_dataset": {**objects, "num_samples": 24, "mode": "val", "transforms": VAL},
        "model": {"type": "StandIn"},
        "optimizer": {"type": "AdamW", "weight_decay": 0.05, "one_dim_param_no_weight_decay": True},
        "lr_scheduler": {
            "type": "CosineAnnealingDecay",
            "learning_rate": 0.01,
            "warmup_iters": 2,
            "warmup_start_lr": 0.0,
        },
        "loss": {"types": [{"type": "CELoss", "epsilon": 0.1}], "coef": [1]},
        **changes,
    }


def write_config(folder: pathlib.Path, **changes: object) -> str:
    """Write `content` to a file and return its path."""
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump(content(**changes)))
    return str(path)


def class_folders(root: pathlib.Path, names: tuple[str, ...] = ("a", "b"), images: int = 2) -> pathlib.Path:
    """Write class folders of noise images for the modes "train" and "val", and return the root."""
    rng = np.random.default_rng(0)
    for mode in ("train", "val"):
        for name in names:
            (root / mode / name).mkdir(parents=True)
            for number in range(images):
                image = rng.integers(0, 256, (40, 48, 3), np.uint8)
                cv2.imwrite(str(root / mode / name / f"{number}.png"), image)
    return root
