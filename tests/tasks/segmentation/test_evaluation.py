"""Scores: the confusion matrix is a loop over pixels, and augmentation at test time changes what it should."""

import json

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_rt.config import build_task, load_config
from paddle_rt.errors import UserError
from paddle_rt.tasks.segmentation import metrics
from paddle_rt.tasks.segmentation.evaluate import evaluate, summarize
from paddle_rt.tasks.segmentation.tta import Augmentation, from_test_config, predict_logits, restore
from tests.helpers import NORMALIZE_HALF, TINY, randomize, relative_error, tiny_config


@pytest.fixture(scope="module")
def model():
    from paddle_rt.models.rtformer import RTFormer

    network = RTFormer(19, **TINY)
    randomize(network)
    return network


def scenes(folder, *transforms, **changes):
    """Tiny street scenes; `transforms` come before the normalisation."""
    val = {"type": "StreetScenes", "mode": "val", "num_samples": 3, "height": 36, "width": 64, **changes}
    config = load_config(tiny_config(folder, val_dataset={**val, "transforms": [*transforms, NORMALIZE_HALF]}))
    return build_task(config).build_data("val")


def test_batch_and_workers_change_nothing(model, tmp_path):
    dataset = scenes(tmp_path)
    one = evaluate(model, dataset)
    assert one.sum() == (3 * 36 * 64) and (evaluate(model, dataset, batch_size=2, num_workers=1) == one).all()


def test_images_of_unequal_sizes_in_a_batch(model, tmp_path):
    small, large = scenes(tmp_path, num_samples=1), scenes(tmp_path, num_samples=1, height=64)

    class Both(paddle.io.Dataset):
        num_classes, ignore_index = 19, 255

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> dict:
            return (small, large)[index][0]

    expected = evaluate(model, small) + evaluate(model, large)
    np.testing.assert_array_equal(evaluate(model, Both(), batch_size=2), expected)


class OneImage(paddle.io.Dataset):
    """An image of 32x64 with a given label."""

    num_classes, ignore_index = 19, 255

    def __init__(self, label: np.ndarray, trans_info: list | None = None) -> None:
        self.item = {"img": np.zeros([3, 32, 64], "float32"), "label": label, "trans_info": trans_info or []}

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict:
        return self.item


def test_label_out_of_range(model):
    with pytest.raises(UserError, match=r"label holds \[19, 200\], expected classes 0 to 18 or 255"):
        evaluate(model, OneImage(np.array([[19, 200] * 32] * 32)[None]))


def test_a_network_that_gives_nan(model):
    """As with a variance below 0, which no check of the weights alone refuses."""

    class Broken(paddle.nn.Layer):
        def forward(self, images):
            return [logits * float("nan") for logits in model(images)]

    with pytest.raises(UserError, match="the network gives NaN"):
        evaluate(Broken(), OneImage(np.zeros([1, 32, 64], "int64")))


def test_label_of_another_size(model):
    with pytest.raises(UserError, match="differ in size"):
        evaluate(model, OneImage(np.zeros([1, 32, 63], "int64")))


def test_transform_that_cannot_be_undone(model):
    with pytest.raises(UserError, match="cannot undo the transform 'rotate'"):
        evaluate(model, OneImage(np.zeros([1, 32, 64], "int64"), [("rotate", (32, 64))]))


def test_no_labelled_pixel(model):
    confusion = evaluate(model, OneImage(np.full([1, 32, 64], 255)))
    with pytest.raises(UserError, match="no pixel to score"):
        metrics.scores(confusion)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_confusion_matrix_is_a_loop_over_pixels(num_classes, seed, pixels):
    rng = np.random.default_rng(seed)
    prediction = rng.integers(0, num_classes, pixels)
    label = rng.choice([*range(num_classes), 255], pixels)
    expected = np.zeros([num_classes, num_classes], np.int64)
    for true, guess in zip(label, prediction, strict=True):
        if true != 255:
            expected[true, guess] += 1
    np.testing.assert_array_equal(metrics.confusion_matrix(prediction, label, num_classes), expected)


@pytest.mark.parametrize("prediction, label, message", [
    ([0, 1], [0], "differ in size"),
    ([0, 1], [0, 2], r"label holds \[2\], expected classes 0 to 1 or 255"),
    ([0, 1], [0, -1], r"label holds \[-1\]"),
    ([0, 2], [0, 1], r"prediction holds \[2\]"),
])  # fmt: skip
def test_confusion_matrix_refuses(prediction, label, message):
    with pytest.raises(UserError, match=message):
        metrics.confusion_matrix(np.array(prediction), np.array(label), 2)


# Class 2 occurs nowhere; classes 0 and 1: IoU 3/4 and 2/3.
COUNTS = np.array([[3, 0, 0], [1, 2, 0], [0, 0, 0]])


@pytest.mark.parametrize("rule, mean", [("exclude", 17 / 24), ("zero", 17 / 36), ("one", 29 / 36)])
def test_rules_for_an_absent_class(rule, mean):
    result = metrics.scores(COUNTS, rule)
    assert result["mIoU"] == pytest.approx(mean, abs=1e-12)
    assert result["Acc"] == pytest.approx(5 / 6) and result["Kappa"] == pytest.approx(2 / 3)
    np.testing.assert_allclose(result["class_precision"], [3 / 4, 1, 0])
    np.testing.assert_allclose(result["class_recall"], [1, 2 / 3, 0])
    assert ("  -" in metrics.table(result, ["road", "car", "bus"]).splitlines()[-1]) == (rule == "exclude")


def test_unknown_rule_is_named():
    with pytest.raises(UserError, match="unknown rule for absent classes 'excluded', did you mean 'exclude'"):
        metrics.scores(COUNTS, "excluded")


def test_scores_of_a_confusion_matrix():
    found = summarize(COUNTS, 1, ["road", "car", "bus"])
    assert found.best == found.values["mIoU"] == pytest.approx(17 / 24)
    assert found.summary == "[EVAL] #Images: 1 mIoU: 0.7083 Acc: 0.8333 Kappa: 0.6667 Dice: 0.8286"
    assert found.details[0].startswith("[EVAL] Classes:\nclass") and "bus         -" in found.details[0]
    assert found.details[1] == "[EVAL] Neither in the labels nor predicted, left out of the mean: bus"
    report = json.loads(json.dumps(found.report))
    assert report["images"] == 1 and report["confusion_matrix"] == COUNTS.tolist()
    assert report["mIoU"] == pytest.approx(17 / 24) and report["absent_class"] == "exclude"
    assert report["classes"][2] == {"name": "bus", "iou": None, "precision": 0, "recall": 0}


@pytest.mark.parametrize("arguments, message", [
    (dict(aug_eval=True, scales=[]), "scales must be positive"),
    (dict(aug_eval=True, scales=[1, 0]), "scales must be positive"),
    (dict(aug_eval=True, scales=float("nan")), "scales must be positive"),
    (dict(aug_eval=True, scales="big"), "scales must be positive"),
    (dict(is_slide=True), "needs both crop_size and stride"),
    (dict(is_slide=True, crop_size=[4, 4], stride=[5, 4]), "leaves gaps"),
    (dict(is_slide=True, crop_size=[4], stride=[4]), "two positive numbers"),
    (dict(is_slide=True, crop_size=4, stride=4), "two positive numbers"),
    (dict(is_slide=True, crop_size=[4, 0], stride=[4, 4]), "two positive numbers"),
    (dict(is_slide=True, crop_size=[4, 4.5], stride=[4, 4]), "two positive numbers"),
])  # fmt: skip
def test_test_config_refuses(arguments, message):
    with pytest.raises(UserError, match=message):
        from_test_config(arguments)


def test_flips_and_windows_of_a_model_that_does_not_care(rng):
    """A model that works pixel by pixel gives the same logits however it is run."""
    images = paddle.to_tensor(rng.standard_normal([2, 3, 20, 28]).astype("float32"))
    augmentation = Augmentation(flip_horizontal=True, flip_vertical=True, crop_size=(13, 9), stride=(5, 4))
    error = relative_error(predict_logits(lambda x: [2 * x], images, augmentation).numpy(), 2 * images.numpy())
    assert error < 1e-6, f"relative error {error:.1e}"


def test_restore_goes_back_step_by_step():
    logits = paddle.arange(16, dtype="float32").reshape([1, 1, 4, 4])
    back = restore(logits, [("resize", (6, 4)), ("padding", (3, 2))])
    assert back.shape == [1, 1, 6, 4]
    expected = paddle.nn.functional.interpolate(logits[:, :, :3, :2], [6, 4], mode="bilinear")
    assert (back == expected).all()
