"""How label files probably stand for classes, guessed from the values that they hold."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from paddle_rt.analysis.files import PairFacts
from paddle_rt.analysis.findings import MOST_FILES, NONSENSE, STOPS, Finding, listed
from paddle_rt.imaging.label_format import LabelFormat, colour_code, colour_of

IGNORED = 255
MOST_COLOURS = 256
_GAPS = 2  # a file whose numbers reach further than twice their number holds no classes counted from 0


@dataclass
class Guess:
    """A guess.

    Args:
        labels: How the files stand for classes.
        fix: The keys of type Dataset that say so; none where the values are the classes.
        findings: What is wrong with files that nobody has described.
    """

    labels: LabelFormat
    fix: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def guess_format(facts: Sequence[PairFacts], labels: LabelFormat | None) -> Guess:
    """Guess how files stand for classes.

    Args:
        facts: What was found in the labels.
        labels: How they are said to stand for classes, if anybody has said it.
    """
    read = [one for one in facts if one.label_size is not None]
    coloured = [one for one in read if one.is_coloured]
    if coloured and len(coloured) == len(read):
        return _guess_palette(coloured, labels)
    values: Counter[int] = Counter()
    for one in read:
        if not one.is_coloured:
            values.update(one.values)
    label_map = _guess_map(sorted(values))
    if label_map is None:
        highest = max((value for value in values if value != IGNORED), default=0)
        return Guess(LabelFormat(max(highest + 1, 2)))
    number = max(label for label in label_map.values() if label != IGNORED) + 1
    fix = {"num_classes": number, "label_map": label_map}
    if labels is not None:
        return Guess(LabelFormat(number), fix)
    message = (
        f"the labels hold the values {listed(sorted(values))}, which are not classes counted from 0; give the data "
        f"sets num_classes: {number} and label_map: {label_map}"
    )
    code = "binary_masks" if sorted(values) == [0, IGNORED] else "scattered_values"
    return Guess(LabelFormat(number, label_map=label_map), fix, [Finding(NONSENSE, code, "", message, fix=fix)])


def _guess_palette(coloured: Sequence[PairFacts], labels: LabelFormat | None) -> Guess:
    """Take the colours as classes: black first, then by their number of pixels."""
    pixels: Counter[int] = Counter()
    for one in coloured:
        pixels.update(one.values)
    if len(pixels) > MOST_COLOURS or any(one.more_values for one in coloured):
        return Guess(LabelFormat(2))
    colours = sorted(map(colour_of, pixels), key=lambda colour: (any(colour), -pixels[colour_code(colour)], colour))
    palette = [list(colour) for colour in colours]
    fix = {"num_classes": len(colours), "palette": palette}
    if labels is not None:
        return Guess(labels, fix)
    message = (
        f"{len(coloured)} labels are coloured, not class numbers, such as {coloured[0].label}; give the data sets "
        f"num_classes: {len(colours)} and palette: {palette}, in the order of the classes"
    )
    files = [one.label for one in coloured[:MOST_FILES]]
    finding = Finding(STOPS, "coloured_masks", "", message, len(coloured), files, fix)
    return Guess(LabelFormat(len(colours), palette=palette), fix, [finding])


def _guess_map(values: list[int]) -> dict[int, int] | None:
    """Return a map of values that are no classes counted from 0; 255 is ignored unless it is one of scaled ones."""
    classes = [value for value in values if value != IGNORED]
    if not classes or classes[-1] < max(_GAPS * len(classes), 2) and values != [0, IGNORED]:
        return None
    if IGNORED in values and _is_scaled(values):
        classes = values
    return {value: number for number, value in enumerate(classes)} | (
        {IGNORED: IGNORED} if IGNORED in values and IGNORED not in classes else {}
    )


def _is_scaled(values: list[int]) -> bool:
    """Return whether values from 0 to 255 are evenly spaced, such as 0, 127, 255."""
    steps = [b - a for a, b in zip(values, values[1:], strict=False)]
    return values[0] == 0 and max(steps) - min(steps) <= 1
