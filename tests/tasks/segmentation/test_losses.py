"""Every loss that a config may name beside PaddleSeg's formula in plain NumPy: values, gradients, untouched labels.

The formulas are written so that they also take complex numbers: the imaginary part that a step of 1e-30 along the
imaginary axis leaves in the result is the exact derivative.
"""

from collections.abc import Callable

import numpy as np
import paddle
import pytest

from paddle_rt.tasks.segmentation import losses as ours
from paddle_rt.tasks.segmentation.task import SegmentationTask
from tests.helpers import message, relative_error

CLASSES, HEIGHT, WIDTH = 4, 4, 3
WEIGHTS = [0.5, 1.0, 2.0, 0.25]
Formula = Callable[..., complex]

# The logarithm and the sine of NumPy take complex numbers; comparisons look at real parts.


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.real.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def one_hot(labels: np.ndarray, ignored: int, classes: int) -> np.ndarray:
    """[B, H, W] to [B, C, H, W], all 0 where a pixel is ignored."""
    return np.stack([(labels == number) & (labels != ignored) for number in range(classes)], axis=1).astype(float)


def pixel_entropy(x: np.ndarray, labels: np.ndarray, ignored: int, weight: list | None = None) -> np.ndarray:
    weight = np.ones(x.shape[1]) if weight is None else np.array(weight)
    return -(np.log(softmax(x)) * one_hot(labels, ignored, x.shape[1]) * weight[:, None, None]).sum(axis=1)


def cross_entropy(x, labels, ignored, weight=None, top_k_percent_pixels=1.0, avg_non_ignore=True):
    loss = pixel_entropy(x, labels, ignored, weight).ravel()
    share = np.ones(loss.shape)
    if avg_non_ignore:
        table = np.ones(x.shape[1]) if weight is None else np.array(weight)
        share = (one_hot(labels, ignored, x.shape[1]) * table[:, None, None]).sum(axis=1).ravel()
    hardest = np.argsort(-loss.real)[: int(top_k_percent_pixels * loss.size)]
    return loss[hardest].mean() / (share[hardest].mean() + 1e-8)


def ohem(x, labels, ignored, thresh=0.7, min_kept=10000):
    valid = labels != ignored
    probability = (softmax(x) * one_hot(labels, ignored, x.shape[1])).sum(axis=1).real
    kept = valid
    if 0 < min_kept < valid.sum():
        threshold = max(thresh, np.sort(probability[valid])[min_kept - 1])
        kept = valid & (probability < threshold)
    loss = pixel_entropy(x, labels, ignored) * kept
    return loss.mean() / (kept.mean() + 1e-5)


def dice(x, labels, ignored, weight=None, smooth=1.0):
    weight = np.ones(x.shape[1]) if weight is None else np.array(weight)
    truth, valid = one_hot(labels, ignored, x.shape[1]), (labels != ignored)[:, None]
    guess = softmax(x) * valid
    both, either = (guess * truth).sum(axis=(2, 3)), (guess + truth).sum(axis=(2, 3))
    return ((1 - (2 * both + smooth) / (either + smooth + 1e-8)).mean(axis=0) * weight).mean()


def lovasz(errors: np.ndarray, values: np.ndarray, truth: np.ndarray) -> complex:
    order = np.argsort(-errors.real, kind="stable")
    truth, values = truth[order], values[order]
    intersection, union = truth.sum() - np.cumsum(truth), truth.sum() + np.cumsum(1 - truth)
    return (values * np.diff(1 - intersection / union, prepend=0)).sum()


def lovasz_softmax(x, labels, ignored, classes="present"):
    valid = labels != ignored
    if not valid.any():
        return 0.0
    probability, found = np.moveaxis(softmax(x), 1, -1)[valid], []
    for number in range(x.shape[1]) if isinstance(classes, str) else classes:
        truth = (labels[valid] == number).astype(float)
        if classes != "present" or truth.any():
            errors = np.where(truth == 1, 1 - probability[:, number], probability[:, number])
            found.append(lovasz(errors, errors, truth))
    return np.mean(found)


def lovasz_hinge(x, labels, ignored):
    valid = labels != ignored
    if x.shape[1] == 2:
        probability = softmax(x)[:, 1]
        logits = np.log(probability + 1e-9 / (1 - probability + 1e-9))[valid]
    else:
        logits = x[:, 0][valid]
    errors = 1 - logits * (2 * labels[valid] - 1)
    return lovasz(errors, np.where(errors.real > 0, errors, 0), labels[valid].astype(float)) if valid.any() else 0.0


def binary_truth(x, labels, ignored):
    return (
        one_hot(labels, ignored, 2)[:, 1:]
        if x.shape[1] == 1
        else one_hot(np.where(labels == ignored, 0, labels), -1, x.shape[1])
    )


def bce(x, labels, ignored, weight=None, pos_weight=None):
    truth, valid = binary_truth(x, labels, ignored), (labels != ignored)[:, None]
    valid_all = np.broadcast_to(valid, truth.shape)
    total = valid_all.sum() + 1e-10
    positive, negative = 2 * (1 - truth)[valid_all].sum() / total, 2 * truth[valid_all].sum() / total
    factor = positive if pos_weight == "dynamic" else 1.0 if pos_weight is None else pos_weight
    loss = factor * truth * np.log(1 + np.exp(-x)) + (1 - truth) * np.log(1 + np.exp(x))
    loss = loss * (positive * truth + negative * (1 - truth)) if weight == "dynamic" else loss
    return (loss * valid).mean() / (valid.mean() + 1e-10)


def focal(x, labels, ignored, alpha=0.25, gamma=2.0):
    truth, valid = one_hot(np.where(labels == ignored, 0, labels), -1, 2), (labels != ignored)[:, None]
    probability = 1 / (1 + np.exp(-x))
    true = np.where(truth == 1, probability, 1 - probability)
    loss = -np.where(truth == 1, alpha, 1 - alpha) * (1 - true) ** gamma * np.log(true)
    return (loss * valid).sum() / (2 * valid.sum() + 1e-10)


def multi_class_focal(x, labels, ignored, num_class, alpha=1.0, gamma=2.0):
    valid = labels != ignored
    entropy = np.where(valid, pixel_entropy(x, labels, ignored), 1.0)
    loss = alpha * (1 - np.exp(-entropy)) ** gamma * entropy * valid
    return loss.mean() / (valid.mean() + 1e-10)


def bootstrapped(x, labels, ignored, min_K, loss_th, weight=None):  # noqa: N803  PaddleSeg's name
    losses = []
    for loss, valid in zip(pixel_entropy(x, labels, ignored, weight), labels != ignored, strict=True):
        loss = loss[valid]
        loss = loss[np.argsort(-loss.real)]
        above = loss[loss.real > loss_th]
        kept = above if len(above) > min_K else loss[:min_K]
        losses.append(kept.mean() if len(kept) else 0.0)
    return np.mean(losses)


CASES: dict[str, tuple[str, Formula, int, dict]] = {
    "ce": ("CrossEntropyLoss", cross_entropy, CLASSES, {}),
    "ce_weight": ("CrossEntropyLoss", cross_entropy, CLASSES, {"weight": WEIGHTS}),
    "ce_all": ("CrossEntropyLoss", cross_entropy, CLASSES, {"avg_non_ignore": False}),
    "ce_weight_all": ("CrossEntropyLoss", cross_entropy, CLASSES, {"weight": WEIGHTS, "avg_non_ignore": False}),
    "ce_top": ("CrossEntropyLoss", cross_entropy, CLASSES, {"top_k_percent_pixels": 0.4}),
    "ce_weight_top": ("CrossEntropyLoss", cross_entropy, CLASSES, {"weight": WEIGHTS, "top_k_percent_pixels": 0.4}),
    "ohem": ("OhemCrossEntropyLoss", ohem, CLASSES, {"min_kept": 8, "thresh": 0.3}),
    "ohem_all": ("OhemCrossEntropyLoss", ohem, CLASSES, {}),
    "ohem_0": ("OhemCrossEntropyLoss", ohem, CLASSES, {"min_kept": 0}),
    "dice": ("DiceLoss", dice, CLASSES, {}),
    "dice_weight": ("DiceLoss", dice, CLASSES, {"weight": WEIGHTS, "smooth": 0.1}),
    "lovasz": ("LovaszSoftmaxLoss", lovasz_softmax, CLASSES, {}),
    "lovasz_all": ("LovaszSoftmaxLoss", lovasz_softmax, CLASSES, {"classes": "all"}),
    "lovasz_list": ("LovaszSoftmaxLoss", lovasz_softmax, CLASSES, {"classes": [1, 3]}),
    "hinge_1": ("LovaszHingeLoss", lovasz_hinge, 1, {}),
    "hinge_2": ("LovaszHingeLoss", lovasz_hinge, 2, {}),
    "bce_1": ("BCELoss", bce, 1, {}),
    "bce": ("BCELoss", bce, CLASSES, {}),
    "bce_dynamic": ("BCELoss", bce, CLASSES, {"weight": "dynamic"}),
    "bce_pos": ("BCELoss", bce, CLASSES, {"pos_weight": 3}),
    "bce_both_dynamic": ("BCELoss", bce, 1, {"weight": "dynamic", "pos_weight": "dynamic"}),
    "focal": ("FocalLoss", focal, 2, {}),
    "focal_root": ("FocalLoss", focal, 2, {"alpha": 0.6, "gamma": 0.5}),
    "multi_focal": ("MultiClassFocalLoss", multi_class_focal, CLASSES, {"num_class": CLASSES}),
    "multi_focal_root": ("MultiClassFocalLoss", multi_class_focal, CLASSES, {"num_class": CLASSES, "gamma": 0.5}),
    "bootstrapped": ("BootstrappedCrossEntropyLoss", bootstrapped, CLASSES, {"min_K": 3, "loss_th": 1.0}),
    "bootstrapped_few": ("BootstrappedCrossEntropyLoss", bootstrapped, CLASSES, {"min_K": 10, "loss_th": 1.0}),
    "bootstrapped_weight": (
        "BootstrappedCrossEntropyLoss",
        bootstrapped,
        CLASSES,
        {"min_K": 3, "loss_th": 1.0, "weight": WEIGHTS},
    ),
}
IGNORED = {"none": 0, "half": HEIGHT // 2 * WIDTH, "most": (HEIGHT - 1) * WIDTH, "all": HEIGHT * WIDTH}
SETTINGS = [(name, share, 255) for name in CASES for share in IGNORED] + [(name, "half", 0) for name in ("ce", "dice")]


def inputs(channels: int, share: str, ignore_index: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(len(share))
    logits = 2 * rng.standard_normal([2, channels, HEIGHT, WIDTH])
    labels = rng.integers(0, max(channels, 2), [2, HEIGHT, WIDTH])
    labels.reshape(2, -1)[:, : IGNORED[share]] = ignore_index
    return logits, labels


def numpy_gradient(formula: Formula, logits: np.ndarray) -> np.ndarray:
    gradient = np.empty(logits.shape)
    for place in np.ndindex(*logits.shape):
        moved = logits.astype(complex)
        moved[place] += 1e-30j
        gradient[place] = np.imag(formula(moved)) / 1e-30
    return gradient


@pytest.mark.parametrize(("name", "share", "ignore_index"), SETTINGS)
def test_loss_is_the_formula(name: str, share: str, ignore_index: int) -> None:
    kind, formula, channels, arguments = CASES[name]
    logits, labels = inputs(channels, share, ignore_index)

    def reference(x: np.ndarray) -> complex:
        return formula(x, labels, ignore_index, **arguments)

    value, gradient = float(np.real(reference(logits))), numpy_gradient(reference, logits)
    loss = getattr(ours, kind)(ignore_index=ignore_index, **arguments)
    for dtype, limit in (("float64", 1e-9), ("float32", 1e-5)):
        x, y = paddle.to_tensor(logits.astype(dtype), stop_gradient=False), paddle.to_tensor(labels)
        result = loss(x, y)
        result.backward()
        assert result.shape == [] and np.array_equal(y.numpy(), labels), "the loss wrote to the labels"
        if share == "all":
            errors = abs(float(result)), float(np.abs(x.grad.numpy()).max())
            assert max(errors) < 1e-7, errors
            continue
        errors = abs(float(result) - value) / abs(value), relative_error(x.grad.numpy(), gradient)
        print(f"{name}, {share} ignored, {dtype}: value {errors[0]:.1e}, gradient {errors[1]:.1e}")
        assert max(errors) < limit


MIXTURES = [("DiceLoss", "CrossEntropyLoss"), ("CrossEntropyLoss", "DiceLoss"), ("LovaszSoftmaxLoss", "BCELoss")]
FORMULAS = {"DiceLoss": dice, "CrossEntropyLoss": cross_entropy, "LovaszSoftmaxLoss": lovasz_softmax, "BCELoss": bce}


@pytest.mark.parametrize("share", ["none", "half", "all"])
@pytest.mark.parametrize("mixed", MIXTURES)
@pytest.mark.parametrize("heads", [1, 2])
def test_losses_of_a_config(heads: int, mixed: tuple[str, str], share: str) -> None:
    """MixedLoss for each head, and one loss for each, through the function that training calls."""
    coefficients = [1.0, 0.4][:heads]
    parts = [{"type": name, "ignore_index": 255} for name in mixed]
    types = {
        "mixed": [{"type": "MixedLoss", "losses": parts, "coef": [0.7, 0.3]}] * heads,
        "one each": parts[:heads],
    }
    outputs = [inputs(CLASSES, share, 255)[0] + number for number in range(heads)]
    outputs[-1] *= 0.5
    labels = inputs(CLASSES, share, 255)[1]
    for way, sections in types.items():
        task = SegmentationTask(
            {
                "loss": {"types": sections, "coef": coefficients},
                "model": {"num_classes": CLASSES},
                "train_dataset": {"type": "Dataset"},
            }
        )
        weights = [(name, w) for name, w in zip(mixed, (0.7, 0.3), strict=True)]

        def reference(number: int, x: np.ndarray, way: str = way, weights: list = weights) -> list:
            used = weights if way == "mixed" else [(mixed[number], 1.0)]
            return [coefficients[number] * w * FORMULAS[name](x, labels, 255) for name, w in used]

        tensors = [paddle.to_tensor(output, stop_gradient=False) for output in outputs]
        batch = {"label": paddle.to_tensor(labels.astype(np.uint8))}
        values = task.losses(tensors, batch)
        sum(values).backward()
        expected = [np.real(value) for number, output in enumerate(outputs) for value in reference(number, output)]
        error = float(np.abs(np.array([float(value) for value in values]) - expected).max())
        print(f"{way}, {heads} heads, {mixed}, {share} ignored: value {error:.1e}")
        assert error < (1e-7 if share == "all" else 1e-9)
        assert np.array_equal(batch["label"].numpy(), labels), "a loss wrote to the labels"
        for number, (tensor, output) in enumerate(zip(tensors, outputs, strict=True)):
            gradient = numpy_gradient(lambda x, number=number: sum(reference(number, x)), output)
            error = float(np.abs(tensor.grad.numpy() - gradient).max())
            print(f"  gradient of head {number}: {error:.1e}")
            assert error < 1e-9


@pytest.mark.parametrize("mixed", [False, True])
def test_edges_are_learned_where_pixels_are_labelled(mixed: bool) -> None:
    section = {"type": "BCELoss", "edge_label": True, "weight": "dynamic"}
    types = [{"type": "MixedLoss", "losses": [section], "coef": [0.5]}] if mixed else [section]
    config = {"loss": {"types": types, "coef": [1]}, "model": {"num_classes": 2}, "train_dataset": {"type": "Dataset"}}
    logits, labels = inputs(1, "half", 255)
    edges = np.random.default_rng(5).integers(0, 2, labels.shape)
    batch = {"label": paddle.to_tensor(labels), "edge": paddle.to_tensor(edges[:, None])}
    (value,) = SegmentationTask(config).losses([paddle.to_tensor(logits)], batch)
    expected = bce(logits, np.where(labels == 255, 255, edges), 255, weight="dynamic") * (0.5 if mixed else 1)
    print(f"mixed {mixed}: {abs(float(value) - expected):.1e}")
    assert abs(float(value) - expected) < 1e-9
    assert "needs a train_dataset with edge: True" in message(
        SegmentationTask(config).losses, [paddle.to_tensor(logits)], {"label": batch["label"]}
    )


def test_losses_refuse_what_does_not_fit() -> None:
    logits, labels = paddle.zeros([1, 3, 2, 2]), paddle.zeros([1, 2, 2], "int64")
    for loss in (
        ours.CrossEntropyLoss(weight=WEIGHTS),
        ours.DiceLoss(weight=WEIGHTS),
        ours.BootstrappedCrossEntropyLoss(2, 1.0, weight=WEIGHTS),
    ):
        assert "4 class weights, but the network has 3 classes" in message(loss, logits, labels)
    assert "LovaszSoftmaxLoss takes more" in message(ours.LovaszHingeLoss(), logits, labels)
    assert "MultiClassFocalLoss takes more" in message(ours.FocalLoss(), logits, labels)
    assert "there are 3 classes" in message(ours.LovaszSoftmaxLoss(classes=[3]), logits, labels)
    assert "give 'present'" in message(ours.LovaszSoftmaxLoss, classes=[])
    assert "give a number or 'dynamic'" in message(ours.BCELoss, pos_weight="x")
    assert "in one list" in message(ours.MixedLoss, [ours.MixedLoss([], [])], [1])
