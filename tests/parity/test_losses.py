"""Our losses beside PaddleSeg's own, corrected where they fail or are wrong: values and gradients in float64.

PaddleSeg's compute masks, weights and the gradient of the Lovász extension in float32 always, here in float64.
"""

import numpy as np
import paddle
import pytest
from paddleseg.models import losses as theirs
from paddleseg.models.losses import focal_loss, lovasz_loss

from paddle_rt.paddleseg.patching import patched
from paddle_rt.tasks.segmentation import losses as ours
from tests.helpers import relative_error

CLASSES, SIZE = 5, 24
WEIGHTS = [0.5, 1.0, 2.0, 3.0, 0.25]
DOUBLE = {"'float32'": "'float64'"}


class CrossEntropyLoss(theirs.CrossEntropyLoss):
    """Without the mixing of float and integer tensors that Paddle 3 refuses; as corrected in PaddleSeg 2.9."""

    _post_process_loss = patched(
        theirs.CrossEntropyLoss._post_process_loss,
        {
            "mask * coef": "mask * coef.astype(mask.dtype)",
            "label * mask": "label * (label != self.ignore_index).astype(label.dtype)",
            "coef = paddle.sum(_one_hot * self.weight, axis=-1)": (
                "coef = paddle.sum(_one_hot * self.weight, axis=-1) if self.avg_non_ignore else paddle.ones_like(label)"
            ),
            **DOUBLE,
        },
    )


class OhemCrossEntropyLoss(theirs.OhemCrossEntropyLoss):
    """Without the mixing of float and integer tensors that Paddle 3 refuses."""

    forward = patched(
        theirs.OhemCrossEntropyLoss.forward,
        {"prob + (1 - valid_mask)": "prob + (1 - valid_mask).astype(prob.dtype)", **DOUBLE},
    )


class DiceLoss(theirs.DiceLoss):
    forward = patched(theirs.DiceLoss.forward, DOUBLE)


class FocalLoss(theirs.FocalLoss):
    forward = patched(theirs.FocalLoss.forward, DOUBLE)


class MultiClassFocalLoss(focal_loss.MultiClassFocalLoss):
    forward = patched(focal_loss.MultiClassFocalLoss.forward, DOUBLE)


REFERENCE = {
    loss.__name__: loss for loss in (CrossEntropyLoss, OhemCrossEntropyLoss, DiceLoss, FocalLoss, MultiClassFocalLoss)
}


@pytest.fixture(autouse=True)
def lovasz_in_double_precision(monkeypatch):
    monkeypatch.setattr(lovasz_loss, "lovasz_grad", patched(lovasz_loss.lovasz_grad, DOUBLE))


def case(name: str, channels: int = CLASSES, binary: bool = False, **arguments: object) -> tuple:
    return name, channels, binary, arguments


CASES = {
    "ce": case("CrossEntropyLoss"),
    "ce_weight": case("CrossEntropyLoss", weight=WEIGHTS),
    "ce_all": case("CrossEntropyLoss", avg_non_ignore=False),
    "ce_weight_all": case("CrossEntropyLoss", weight=WEIGHTS, avg_non_ignore=False),
    "ce_top": case("CrossEntropyLoss", top_k_percent_pixels=0.3),
    "ce_weight_top": case("CrossEntropyLoss", weight=WEIGHTS, top_k_percent_pixels=0.3),
    "ce_ignore_4": case("CrossEntropyLoss", ignore_index=4),
    "ohem": case("OhemCrossEntropyLoss", min_kept=100),
    "ohem_threshold": case("OhemCrossEntropyLoss", min_kept=5, thresh=0.2),
    "ohem_keeps_all": case("OhemCrossEntropyLoss"),
    "ohem_0": case("OhemCrossEntropyLoss", min_kept=0),
    "dice": case("DiceLoss"),
    "dice_weight": case("DiceLoss", weight=WEIGHTS, smooth=0.1),
    "lovasz": case("LovaszSoftmaxLoss"),
    "lovasz_all": case("LovaszSoftmaxLoss", classes="all"),
    "lovasz_list": case("LovaszSoftmaxLoss", classes=[1, 3]),
    "lovasz_one": case("LovaszSoftmaxLoss", classes=[2]),
    "hinge": case("LovaszHingeLoss", 1, True),
    "hinge_2": case("LovaszHingeLoss", 2, True),
    "bce": case("BCELoss", 1, True),
    "bce_classes": case("BCELoss"),
    "bce_dynamic": case("BCELoss", weight="dynamic"),
    "bce_pos_dynamic": case("BCELoss", pos_weight="dynamic"),
    "bce_pos": case("BCELoss", 1, True, pos_weight=2.5),
    "focal": case("FocalLoss", 2, True),
    "focal_gamma": case("FocalLoss", 2, True, alpha=0.6, gamma=1.5),
    "multi_focal": case("MultiClassFocalLoss", num_class=CLASSES),
    "multi_focal_gamma": case("MultiClassFocalLoss", num_class=CLASSES, alpha=0.7, gamma=3.0),
    "bootstrapped": case("BootstrappedCrossEntropyLoss", min_K=50, loss_th=0.3),
    "bootstrapped_least": case("BootstrappedCrossEntropyLoss", min_K=50, loss_th=30.0),
    "bootstrapped_weight": case("BootstrappedCrossEntropyLoss", min_K=50, loss_th=0.3, weight=WEIGHTS),
}
EDGES = ("none", "a third", "one image")


def inputs(channels: int, binary: bool, ignored: str, ignore_index: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    logits = 3 * rng.standard_normal([2, channels, SIZE, SIZE]).astype(dtype)
    labels = rng.integers(0, 2 if binary else CLASSES, [2, SIZE, SIZE])
    labels[labels == ignore_index] = 0
    if ignored == "a third":
        labels[:, : SIZE // 3] = ignore_index
    if ignored == "one image":
        labels[1] = ignore_index
    return logits, labels


def run(loss, logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Return value, gradient and the labels afterwards."""
    x, y = paddle.to_tensor(logits, stop_gradient=False), paddle.to_tensor(labels)
    value = loss(x, y)
    assert value.shape == []
    value.backward()
    return float(value), x.grad.numpy(), y.numpy()


@pytest.mark.parametrize("ignored", EDGES)
@pytest.mark.parametrize("name", CASES)
def test_loss_is_paddlesegs(name, ignored):
    kind, channels, binary, arguments = CASES[name]
    their_loss = REFERENCE.get(kind) or getattr(theirs, kind)
    their_loss = their_loss(**arguments)
    if arguments.get("weight") is WEIGHTS and kind != "DiceLoss":
        their_loss.weight = paddle.to_tensor(WEIGHTS, dtype="float64")
    if "dynamic" in arguments.values() and ignored != "none":
        pytest.skip("PaddleSeg's dynamic weights count ignored pixels")
    our_loss = getattr(ours, kind)(**arguments)
    dtype = "float32" if kind == "BCELoss" else "float64"  # PaddleSeg's binary labels are always float32
    logits, labels = inputs(channels, binary, ignored, arguments.get("ignore_index", 255), dtype)
    value, gradient, after = run(our_loss, logits, labels)
    assert np.array_equal(after, labels), "the loss wrote to the labels"
    expected, expected_gradient, _ = run(their_loss, logits, labels)
    errors = abs(value - expected) / abs(expected), relative_error(gradient, expected_gradient)
    print(f"{name}, {ignored} ignored, {dtype}: value {errors[0]:.1e}, gradient {errors[1]:.1e}")
    assert max(errors) < (1e-9 if dtype == "float64" else 1e-6)
