"""Scores of a classification: top-1, top-5, and the confusion of classes."""

from collections.abc import Sequence

import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.tasks.base import Scores

_CONFUSIONS = 5  # pairs of classes that the log names


def count(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, int]:
    """Count images by true and predicted class, and those whose class is among the five most likely ones.

    Args:
        logits: [B, C].
        labels: True classes, int [B].

    Returns:
        int64 [C, C], whose rows are true classes and whose columns predicted ones, and the number of hits.
    """
    classes = logits.shape[1]
    order = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    confusion = np.bincount(labels * classes + order[:, 0], minlength=classes**2).reshape(classes, classes)
    return confusion, int((order == labels[:, np.newaxis]).sum())


def summarize(confusion: np.ndarray, hits: int, names: Sequence[str]) -> Scores:
    """Turn counts into scores, with a table of classes.

    Args:
        confusion: [C, C], rows true and columns predicted.
        hits: Images whose class is among the five most likely ones.
        names: Names of the classes.

    Raises:
        UserError: No image was counted.
    """
    images = int(confusion.sum())
    if images == 0:
        raise UserError("no image to score")
    right, true, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    values = {"top1": float(right.sum() / images), "top5": hits / images}
    recall, precision = (np.divide(right, n, out=np.full(len(right), np.nan), where=n > 0) for n in (true, predicted))
    classes = [
        {"name": name, "images": int(n), "top1": _number(r), "precision": _number(p)}
        for name, n, r, p in zip(names, true, recall, precision, strict=True)
    ]
    report = {"images": images, **values, "classes": classes, "confusion_matrix": confusion.tolist()}
    width = max(len("class"), *map(len, names))
    lines = [f"{'class':{width}}  images    top1  precision"]
    for row in classes:
        shown = [f"{row[key]:6.4f}" if row[key] is not None else "     -" for key in ("top1", "precision")]
        lines.append(f"{row['name']:{width}}  {row['images']:6}  {shown[0]}     {shown[1]}")
    details = ["[EVAL] Classes:\n" + "\n".join(lines)]
    mixed = confusion - np.diag(right)
    pairs = np.argsort(-mixed, axis=None, kind="stable")[:_CONFUSIONS]
    found = [(int(mixed.flat[pair]), *divmod(int(pair), len(names))) for pair in pairs if mixed.flat[pair] > 0]
    if found:
        listed = ", ".join(f"{names[true]} as {names[guess]} {number}" for number, true, guess in found)
        details.append(f"[EVAL] Most often confused: {listed}")
    shown = " ".join(f"{name}: {value:.4f}" for name, value in values.items())
    return Scores(values, "top1", f"[EVAL] #Images: {images} {shown}", details, report)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
