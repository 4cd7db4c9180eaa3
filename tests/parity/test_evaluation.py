"""Scores equal those of PaddleSeg's own evaluation."""

import warnings

import numpy as np
import paddle
import pytest
from paddleseg.core import evaluate as paddleseg_evaluate
from paddleseg.utils import metrics as paddleseg_metrics

from paddle_rt.config import build_task, load_config
from paddle_rt.models.rtformer import RTFormer
from paddle_rt.paddleseg.patching import patched
from paddle_rt.tasks.segmentation import metrics
from paddle_rt.tasks.segmentation.evaluate import evaluate
from paddle_rt.tasks.segmentation.tta import from_test_config
from tests.helpers import NORMALIZE_HALF, TINY, randomize, tiny_config


@pytest.fixture(scope="module")
def network() -> RTFormer:
    built = RTFormer(19, **TINY)
    randomize(built)
    return built


@pytest.fixture(autouse=True)
def sums_without_a_dimension(monkeypatch) -> None:
    """PaddleSeg concatenates sums, which have no dimension since Paddle 2.5."""
    areas = ("pred_area", "label_area", "intersect_area")
    exchanges = {f"paddle.concat({area})": f"paddle.stack({area})" for area in areas}
    fixed = patched(paddleseg_metrics.calculate_area, exchanges)
    monkeypatch.setattr(paddleseg_metrics, "calculate_area", fixed)


def scenes(folder, *transforms) -> paddle.io.Dataset:
    """Tiny street scenes; `transforms` come before the normalisation."""
    val = {"type": "StreetScenes", "mode": "val", "num_samples": 3, "height": 36, "width": 64}
    config = load_config(tiny_config(folder, val_dataset={**val, "transforms": [*transforms, NORMALIZE_HALF]}))
    return build_task(config).build_data("val")


CASES = {
    "plain": ({}, []),
    "flips": (dict(aug_eval=True, flip_horizontal=True, flip_vertical=True), []),
    "scales": (dict(aug_eval=True, scales=[0.75, 1.0, 1.5], flip_horizontal=True), []),
    "one_scale": (dict(aug_eval=True, scales=1.25), []),
    "flips_without_aug": (dict(scales=[0.5], flip_horizontal=True), []),
    "slide": (dict(is_slide=True, crop_size=[40, 24], stride=[17, 13]), []),
    "slide_larger_than_image": (dict(is_slide=True, crop_size=[80, 24], stride=[80, 24]), []),
    "slide_and_scales": (
        dict(is_slide=True, crop_size=[32, 32], stride=[20, 20], aug_eval=True, scales=[1.0, 1.5]),
        [],
    ),
    "resize": ({}, [{"type": "Resize", "target_size": [48, 40]}]),
    "resize_and_flip": (dict(aug_eval=True, flip_horizontal=True), [{"type": "ResizeByLong", "long_size": 50}]),
    "padding": ({}, [{"type": "Padding", "target_size": [80, 48]}]),
    "resize_and_padding": ({}, [{"type": "LimitLong", "max_long": 50}, {"type": "Padding", "target_size": [60, 60]}]),
}


@pytest.mark.parametrize("case", CASES)
def test_scores_are_paddlesegs(case, network, tmp_path):
    test_config, transforms = CASES[case]
    dataset = scenes(tmp_path, *transforms)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = paddleseg_evaluate(network, dataset, num_workers=0, print_detail=False, **test_config)
    # An absent class counts 0 in PaddleSeg 2.8.0.
    ours = metrics.scores(evaluate(network, dataset, from_test_config(test_config)), absent="zero")
    for name, expected in zip(("mIoU", "Acc", "class_iou", "class_precision", "Kappa"), theirs, strict=True):
        error = float(np.max(np.abs(ours[name] - np.asarray(expected))))
        print(f"{case}: {name} {error:.1e}")
        assert error < 1e-7, f"{case}: {name} differs by {error:.1e}"
