"""Scores of a segmentation from one confusion matrix."""

import numpy as np

from paddle_rt.errors import UserError, unknown

# What a class counts in the mean IoU that neither labels nor predictions hold. "exclude" leaves it out of the mean and
# shows nan, as most papers do; "zero" is the rule of PaddleSeg up to 2.8.0; "one" is that of PaddleSeg 2.9 and later.
# They agree where no class is absent, as on the full validation sets that papers report.
ABSENT_CLASS_RULES = {"exclude": np.nan, "zero": 0.0, "one": 1.0}


def confusion_matrix(
    prediction: np.ndarray, label: np.ndarray, num_classes: int, ignore_index: int = 255
) -> np.ndarray:
    """Count pixels by true and predicted class in one pass.

    Args:
        prediction: Class of every pixel, 0 to num_classes - 1.
        label: True class of every pixel, or ignore_index.
        num_classes: Number of classes C.
        ignore_index: Pixels of this label do not count.

    Returns:
        int64 [C, C]: rows are true classes, columns predicted ones.

    Shape: prediction and label of any one shape.

    Raises:
        UserError: The shapes differ, or a value is out of range.
    """
    if prediction.shape != label.shape:
        raise UserError(f"prediction {prediction.shape} and label {label.shape} differ in size")
    counted = label != ignore_index
    truth, guess = label[counted].astype(np.int64), prediction[counted].astype(np.int64)
    for name, values in (("label", truth), ("prediction", guess)):
        if values.size and not 0 <= values.min() <= values.max() < num_classes:
            wrong = np.unique(values[(values < 0) | (values >= num_classes)])[:5].tolist()
            expected = f"classes 0 to {num_classes - 1} or {ignore_index} (ignored)"
            raise UserError(f"{name} holds {wrong}, expected {expected}")
    return np.bincount(truth * num_classes + guess, minlength=num_classes**2).reshape(num_classes, num_classes)


def flicker(
    predictions: tuple[np.ndarray, np.ndarray], labels: tuple[np.ndarray, np.ndarray], ignore_index: int = 255
) -> tuple[int, int]:
    """Count the pixels of two successive frames whose predicted class changes although the true one does not.

    A pixel whose true class differs between the frames, because the camera or something in front of it moved, does not
    count, and neither does one that is ignored in either frame. A network that is always wrong in the same way does
    not flicker: the share says nothing without the mIoU beside it.

    Args:
        predictions: Predicted classes of the two frames.
        labels: True classes of the two frames.
        ignore_index: Pixels of this label do not count.

    Returns:
        The number of pixels whose prediction changes although the true class stays, and the number of pixels whose
        true class stays. Their ratio over all pairs of frames is the flicker share.

    Shape: all of one shape.

    Raises:
        UserError: The shapes differ.
    """
    shapes = {array.shape for array in (*predictions, *labels)}
    if len(shapes) > 1:
        raise UserError(f"two frames and their labels must have one size, got {sorted(shapes)}")
    steady = (labels[0] == labels[1]) & (labels[0] != ignore_index)
    return int(np.count_nonzero((predictions[0] != predictions[1]) & steady)), int(np.count_nonzero(steady))


def scores(confusion: np.ndarray, absent: str = "exclude") -> dict[str, float | np.ndarray]:
    """Scores as PaddleSeg defines them.

    Args:
        confusion: [C, C], rows true and columns predicted.
        absent: What a class counts that occurs in neither; one of `ABSENT_CLASS_RULES`.

    Returns:
        mIoU, Acc (pixel accuracy), Kappa and Dice as numbers; class_iou, class_precision and class_recall as float64
        [C]. An absent class has IoU and Dice by `absent` (nan for "exclude") and precision and recall 0. The mean IoU
        is nan where every class is left out.

    Raises:
        UserError: `absent` is unknown, or no pixel was counted.
    """
    if absent not in ABSENT_CLASS_RULES:
        raise unknown("rule for absent classes", absent, ABSENT_CLASS_RULES)
    total = confusion.sum()
    if total == 0:
        raise UserError("no pixel to score: every label is the ignored value")
    hit = np.diag(confusion).astype(np.float64)
    predicted, true = confusion.sum(0), confusion.sum(1)
    union = predicted + true - hit
    class_iou, dice = (
        np.divide(part, whole, out=np.full_like(hit, ABSENT_CLASS_RULES[absent]), where=union > 0)
        for part, whole in ((hit, union), (2 * hit, predicted + true))
    )
    counted = class_iou[~np.isnan(class_iou)]
    accuracy = hit.sum() / total
    chance = (predicted / total * (true / total)).sum()
    return {
        "mIoU": float(counted.mean()) if counted.size else float("nan"),
        "Acc": float(accuracy),
        "Kappa": float((accuracy - chance) / (1 - chance)) if chance < 1 else 1.0,
        "Dice": float(np.nanmean(dice)),
        "class_iou": class_iou,
        "class_precision": np.divide(hit, predicted, out=np.zeros_like(hit), where=predicted > 0),
        "class_recall": np.divide(hit, true, out=np.zeros_like(hit), where=true > 0),
    }


def table(result: dict[str, float | np.ndarray], names: list[str]) -> str:
    """Format the scores of each class, a line a class; an absent class shows a dash.

    Args:
        result: What `scores` returned.
        names: Names of the classes.
    """
    width = max(len("class"), *map(len, names))
    lines = [f"{'class':{width}}     IoU  precision  recall"]
    columns = zip(names, result["class_iou"], result["class_precision"], result["class_recall"], strict=True)
    for name, iou, precision, recall in columns:
        shown = "     -" if np.isnan(iou) else f"{iou:6.4f}"
        lines.append(f"{name:{width}}  {shown}     {precision:6.4f}  {recall:6.4f}")
    return "\n".join(lines)
