"""How label files probably stand for classes, guessed from the values that they hold."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from paddle_rt.analysis.files import PairFacts
from paddle_rt.analysis.findings import MOST_FILES, NONSENSE, STOPS, Finding, counted, listed
from paddle_rt.imaging.label_format import LabelFormat, colour_code, colour_of

IGNORED = 255
MOST_COLOURS = 256
NEAR = 16  # grey levels from black or white, as compression and soft edges leave them
LEAST_NEAR = 0.95  # the share of the pixels of black and white masks that are so near
_MANY, _RARE = 8, 0.005  # colours, most of which have such a share of the pixels, may be mixed from the others
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
    is_coloured = bool(coloured) and len(coloured) == len(read)
    values: Counter[int] = Counter()
    for one in read:
        if one.is_coloured == is_coloured:
            values.update(one.values)
    if (
        labels is not None
        and is_coloured == (labels.palette is not None)
        and values.keys() <= labels.value_classes.keys()
    ):
        return Guess(labels)
    return _guess_palette(coloured, values, labels) if is_coloured else _guess_numbers(values, labels)


def _guess_numbers(pixels: Counter[int], labels: LabelFormat | None) -> Guess:
    values = sorted(pixels)
    if _are_black_and_white(pixels):
        message = (
            f"the labels are black and white with {len(values) - 2} grey levels of soft edges or compression; make "
            "class numbers of them: paddle-rt prepare_data --format binary_masks"
        )
        halves = LabelFormat(2, label_map={value: int(value >= 128) for value in range(256)})
        return Guess(labels or halves, findings=[Finding(NONSENSE, "binary_masks", "", message)])
    label_map = _guess_map(values)
    if label_map is None:
        highest = max((value for value in values if value != IGNORED), default=0)
        return Guess(labels or LabelFormat(max(highest + 1, 2)))
    number = max(label for label in label_map.values() if label != IGNORED) + 1
    fix = {"num_classes": number, "label_map": label_map}
    if labels is not None:
        return Guess(labels, fix)
    message = (
        f"the labels hold the values {listed(values)}, which are not classes counted from 0; give the data sets "
        f"num_classes: {number} and label_map: {label_map}"
    )
    code = "binary_masks" if values == [0, IGNORED] else "scattered_values"
    return Guess(LabelFormat(number, label_map=label_map), fix, [Finding(NONSENSE, code, "", message, fix=fix)])


def _are_black_and_white(pixels: Counter[int]) -> bool:
    """Return whether values are those of masks of 0 and 255 whose edges are soft."""
    black = sum(number for value, number in pixels.items() if value <= NEAR)
    white = sum(number for value, number in pixels.items() if IGNORED - NEAR <= value <= IGNORED)
    is_grey = len(pixels) > 3 and any(128 <= value < IGNORED for value in pixels)  # class numbers leave these out
    return is_grey and black + white >= LEAST_NEAR * pixels.total() and min(black, white) >= 0.01 * pixels.total()


def _guess_palette(coloured: Sequence[PairFacts], pixels: Counter[int], labels: LabelFormat | None) -> Guess:
    if len(pixels) > MOST_COLOURS or any(one.more_values for one in coloured):
        return Guess(labels or LabelFormat(2))
    if labels is not None and labels.palette is not None:
        known = [list(colour) for colour in labels.palette]
        more = [list(colour_of(code)) for code in sorted(pixels) if list(colour_of(code)) not in known]
        return Guess(labels, {"palette": known + more})
    number, palette = _order_colours(pixels)
    fix = {"num_classes": number, "palette": palette}
    if labels is not None:
        return Guess(labels, fix)
    number_of = counted(len(coloured), "label is", "labels are")
    message = (
        f"{number_of} coloured, not class numbers, such as {coloured[0].label}; give the data sets "
        f"num_classes: {number} and palette: {palette}, in the order of the classes"
    )
    rare = sum(count < _RARE * pixels.total() for count in pixels.values())
    if number > _MANY and 2 * rare > number:
        message += f"; if the {rare} rarest of these colours are mixed at soft edges, save the masks without smoothing"
    files = [one.label for one in coloured[:MOST_FILES]]
    finding = Finding(STOPS, "coloured_masks", "", message, len(coloured), files, fix=fix)
    return Guess(LabelFormat(number, palette=palette), fix, [finding])


def _order_colours(pixels: Counter[int]) -> tuple[int, list[list[int]]]:
    """Return the number of classes and a palette: black first, then by the number of pixels.

    Grey values that were saved as colours keep the order of their numbers.
    """
    colours = [list(colour_of(code)) for code in pixels]
    if any(len(set(colour)) > 1 for colour in colours):
        colours.sort(key=lambda colour: (any(colour), -pixels[colour_code(colour)], colour))
        return len(colours), colours
    values = sorted(red for red, _, _ in colours)
    plain = {value: value for value in range(max((value for value in values if value != IGNORED), default=0) + 1)}
    classes = _guess_map(values) or plain
    order = sorted(classes, key=lambda value: (classes[value] == IGNORED, classes[value]))
    more = [IGNORED] if IGNORED in values and IGNORED not in order else []
    return sum(label != IGNORED for label in classes.values()), [[value] * 3 for value in [*order, *more]]


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
