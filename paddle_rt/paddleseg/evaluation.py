"""Faults of PaddleSeg's metrics, prediction and transforms."""

import importlib
from typing import Any

import numpy as np

from paddle_rt.paddleseg.patching import contains, mend

ABSENT_CLASS_RULES = {"exclude": np.nan, "zero": 0.0, "one": 1.0}


def fix_calculate_area() -> bool:
    """Evaluation fails at the first image.

    Symptom: `ValueError: (InvalidArgument) The axis is expected to be in range of [0, 0), but got 0`.
    Cause: since Paddle 2.5 a sum has no dimension and cannot be concatenated; PaddleSeg issues 3408, 3454, 3556.
    Mended upstream in PR 3256. Here the loop over classes also gives way to one pass.
    """
    metrics = importlib.import_module("paddleseg.utils.metrics")
    if not contains(metrics.calculate_area, "paddle.concat(pred_area)"):
        return False
    metrics.calculate_area = calculate_area
    return True


def calculate_area(pred: Any, label: Any, num_classes: int, ignore_index: int = 255) -> tuple[Any, Any, Any]:
    """Count the pixels of each class in one pass, with PaddleSeg's signature and PaddleSeg's numbers.

    Args:
        pred: Integer tensor of predicted classes.
        label: Integer tensor of true classes.
        num_classes: Number of classes; any other value counts nowhere.
        ignore_index: Label of pixels whose prediction does not count.

    Returns:
        int64 tensors [num_classes] on the device of `label`: pixels where both agree, predicted and labelled pixels.

    Shape: `pred` and `label` [B, H, W] or [B, 1, H, W].

    Raises:
        ValueError: The shapes differ.
    """
    import paddle

    pred, label = (x.squeeze(1) if x.ndim == 4 else x for x in (pred, label))
    if pred.shape != label.shape:
        raise ValueError(f"predictions {pred.shape} and labels {label.shape} differ in shape")
    label, pred = label.flatten().astype("int64"), pred.flatten().astype("int64")
    # A confusion matrix with one more row and column, for what is no class.
    size, other = num_classes + 1, paddle.full([], num_classes, dtype="int64")
    row = paddle.where((label >= 0) & (label < num_classes), label, other)
    column = paddle.where((pred >= 0) & (pred < num_classes) & (label != ignore_index), pred, other)
    matrix = paddle.bincount(row * size + column, minlength=size * size).reshape([size, size])
    areas = matrix.diagonal(), matrix.sum(axis=0), matrix.sum(axis=1)
    return tuple(area[:-1].contiguous() for area in areas)  # all_gather refuses views


def absent_class_mean_iou(
    intersect_area: Any, pred_area: Any, label_area: Any, absent: str = "exclude"
) -> tuple[np.ndarray, float]:
    """Mean IoU, with a choice of what a class counts that neither labels nor predictions hold.

    Args:
        intersect_area: Pixels of each class where labels and predictions agree; a tensor or an array.
        pred_area: Predicted pixels of each class.
        label_area: Labelled pixels of each class.
        absent: "exclude" leaves such a class out of the mean and shows it as nan, like most papers do; "zero" is
            the rule of PaddleSeg up to 2.8.0; "one" is that of PaddleSeg 2.9 and later. They agree where no class is
            absent, as on the full validation sets that papers report.

    Returns:
        IoU of each class, and their mean (nan where every class is left out).
    """
    intersect, pred, label = (np.asarray(area, dtype="int64") for area in (intersect_area, pred_area, label_area))
    union = pred + label - intersect
    class_iou = np.where(union > 0, intersect / np.maximum(union, 1), ABSENT_CLASS_RULES[absent])
    counted = class_iou[~np.isnan(class_iou)]
    return class_iou, float(counted.mean()) if counted.size else float("nan")


def fix_mean_iou_absent_class(absent: str) -> bool:
    """The mean IoU depends on PaddleSeg's version where a class is absent from labels and predictions.

    Symptom: the same model scores .438 with PaddleSeg 2.8.0 and .772 with 2.9 on a part of a data set.
    Cause: such a class counts as IoU 0 up to 2.8.0 and as 1 since PR 3513; see `absent_class_mean_iou`.

    Args:
        absent: The rule to follow; a package that follows it already is left alone.
    """
    import paddle

    metrics = importlib.import_module("paddleseg.utils.metrics")
    one_absent = paddle.to_tensor([1, 0], dtype="int64", place=paddle.CPUPlace())
    counts_as = metrics.mean_iou(one_absent, one_absent, one_absent)[0][1]
    if np.array_equal(counts_as, ABSENT_CLASS_RULES[absent], equal_nan=True):
        return False

    def mean_iou(intersect_area: Any, pred_area: Any, label_area: Any) -> tuple[np.ndarray, float]:
        return absent_class_mean_iou(intersect_area, pred_area, label_area, absent)

    metrics.mean_iou = mean_iou
    return True


def fix_predict_one_pixel_wide() -> bool:
    """Prediction fails for an image that is one pixel high or wide.

    Symptom: `IndexError: tuple index out of range`. Cause: all axes of length one are dropped from the prediction,
    instead of batch and channel alone. Not reported, open upstream.
    """
    predict = importlib.import_module("paddleseg.core.predict").predict
    return mend(predict, {"paddle.squeeze(pred)": "paddle.squeeze(pred, axis=[0, 1])"})


def fix_random_padding_crop() -> bool:
    """RandomPaddingCrop with `category_max_ratio` below 1 destroys the image.

    Symptom: the image becomes the crop of its label, one channel, or stays uncropped beside a cropped label.
    Cause: the crop of the label is assigned to the image; PaddleSeg issue 3605. Mended upstream in PR 3548.
    """
    crop = importlib.import_module("paddleseg.transforms.transforms").RandomPaddingCrop
    exchanges = {
        "data['img'] = seg_temp": "pass",
        "data['img'] = functional.crop(data['img'], crop_coordinates)": "pass",
        "data.get('gt_fields', [])": "['img', *data.get('gt_fields', [])]",
    }
    return mend(crop.__call__, exchanges)


FIXES = (fix_calculate_area, fix_predict_one_pixel_wide, fix_random_padding_crop)
