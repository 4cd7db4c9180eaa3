"""What a person looks for where a network seems to learn nothing, from its confusion matrix."""

from collections.abc import Sequence

import numpy as np

_EVERYWHERE = 0.999  # share of the predictions
_SHOWN = 5  # classes in a line


def find_faults(confusion: np.ndarray, names: Sequence[str]) -> list[str]:
    """Return a line for each thing that a person would look into.

    Args:
        confusion: Pixels [C, C]; rows are true classes, columns predicted ones.
        names: The names of the classes.
    """
    total, true, predicted = confusion.sum(), confusion.sum(axis=1), confusion.sum(axis=0)
    if not total:
        return []
    classes, main = np.flatnonzero(true), int(predicted.argmax())
    if len(classes) == 1:
        return [f"every labelled pixel is {names[classes[0]]}, so these scores tell no classes apart"]
    if predicted[main] > _EVERYWHERE * total:
        return [
            f"{_percent(predicted[main] / total)} of the pixels are predicted as {names[main]}, which "
            f"{_percent(true[main] / total)} of them are; the network tells no classes apart yet"
        ]
    missed = [label for label in classes if not confusion[label, label]]
    if not missed:
        return []
    missed.sort(key=lambda label: -true[label])
    shown = ", ".join(f"{names[label]} ({_percent(true[label] / total)} of the pixels)" for label in missed[:_SHOWN])
    more = f" and {len(missed) - _SHOWN} more" if len(missed) > _SHOWN else ""
    return [
        f"{len(missed)} of {len(classes)} classes have recall 0: {shown}{more}; for rare classes there are class "
        "weights, focal loss and sampler: class_balanced, see docs/training.md"
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
