"""Folders of images with folders of masks: in colours, of two values, or of class numbers."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np

from paddle_rt.analysis.guess import LEAST_NEAR, NEAR
from paddle_rt.errors import UserError, shown
from paddle_rt.imaging.folders import pair_folders, require_pairs
from paddle_rt.imaging.label_format import LabelFormat, read_colours
from paddle_rt.imaging.labels import check_labels, read_values
from paddle_rt.imaging.lists import read_lines
from paddle_rt.parallel import map_on_all_cores
from paddle_rt.tasks.segmentation.prepare.samples import (
    BACKGROUND,
    IGNORED,
    MOST_CLASSES,
    Drawn,
    Options,
    Sample,
    Source,
    clean_name,
    is_ignored_name,
    split_names,
)

_FOREGROUND = "foreground"
_SHOWN = 20
_Colour = tuple[int, int, int]


def read_colour_masks(folders: Sequence[str], options: Options) -> Source:
    """Pair images with coloured masks, whose palette file names the class of each colour.

    Raises:
        UserError: A file has no counterpart, or there is no palette; the message shows the colours that were found.
    """
    pairs = _pairs(folders, options)
    if options.palette is None:
        raise _no_palette([label for _, label, _ in pairs])
    if options.classes:
        raise UserError("--classes and --palette both name the classes; leave --classes out")
    colours, names = zip(*read_palette(options.palette), strict=True)
    classes = list(dict.fromkeys(name for name in names if not is_ignored_name(name)))
    numbers = [IGNORED if is_ignored_name(name) else classes.index(name) for name in names]
    label_format = LabelFormat(len(classes), IGNORED, dict(enumerate(numbers)), palette=colours)
    first = [colours[numbers.index(number)] for number in range(len(classes))]
    return _source(pairs, partial(_draw_colours, label_format), classes, colours=first)


def read_palette(path: str | os.PathLike) -> list[tuple[_Colour, str]]:
    """Read the colours of classes: three numbers (red, green, blue) or #RRGGBB and a name a line, in any order.

    So are CamVid's label_colors.txt and CVAT's labelmap.txt. Lines that begin with "# " are comments. Several colours
    may have one name; the name __ignore__ is that of pixels that do not count.

    Raises:
        UserError: The file cannot be read, a line has no colour or no name, or a colour stands there twice.
    """
    found: dict[_Colour, str] = {}
    for number, line in read_lines(path):
        where = f"{path}, line {number}"
        if line.startswith("# "):
            continue
        hexadecimal = re.search("#([0-9a-fA-F]{6})(?![0-9a-fA-F])", line)
        three = re.search(r"(?<!\d)(\d{1,3})\s*[,;\s]\s*(\d{1,3})\s*[,;\s]\s*(\d{1,3})(?!\d)", line)
        match = hexadecimal or three
        colour = tuple(bytes.fromhex(match[1]) if hexadecimal else map(int, match.groups())) if match else ()
        name = (line[: match.start()] + line[match.end() :]).strip(" \t,;:()[]=") if match else ""
        if not name or max(colour) > 255:
            raise UserError(f"{where}: expected a colour of three numbers up to 255 and a name, got {shown(line)}")
        if colour in found:
            raise UserError(f"{where}: the colour {colour} has a name already, {found[colour]!r}")
        found[colour] = clean_name(name, where)
    if not any(not is_ignored_name(name) for name in found.values()):
        raise UserError(f"{path} names no class")
    return list(found.items())


def read_binary_masks(folders: Sequence[str], options: Options) -> Source:
    """Pair images with masks in which 0 or black is the background and one other value or colour is the class.

    Raises:
        UserError: A file has no counterpart, or there are more than two names of classes.
    """
    names = list(options.classes) or [_FOREGROUND]
    if len(names) > 2:
        raise UserError(f"binary masks have two classes, but --classes names {len(names)}")
    names = names if len(names) == 2 else [BACKGROUND, *names]
    return _source(_pairs(folders, options), _draw_binary, names)


def read_class_masks(folders: Sequence[str], options: Options) -> Source:
    """Pair images with masks of class numbers, grey or indexed; 255 is not labelled.

    Without names of classes there are as many as the highest number says.

    Raises:
        UserError: A file has no counterpart, a mask is in colour, or its values are no class numbers.
    """
    pairs, names = _pairs(folders, options), list(options.classes)
    if not names:
        found = map_on_all_cores(_values, [label for _, label, _ in pairs], "read the masks")
        values = sorted({value for part in found for value in part})
        classes = [value for value in values if value != IGNORED]
        if values == [0, IGNORED] or len(classes) > 1 and max(classes) >= 4 * len(classes):
            raise UserError(
                f"the masks hold the values {', '.join(map(str, values[:_SHOWN]))}, which leave large gaps; masks of 0 "
                f"and 255 are --format binary_masks, and grey levels that stand for classes are --format color_masks "
                "with a palette of them; --classes names all classes of masks that use few of their numbers"
            )
        if not classes or max(classes) >= MOST_CLASSES:
            raise UserError(f"the masks hold the values {values[0]} to {values[-1]}; class numbers go from 0 to 254")
        names = [f"class {number}" for number in range(max(classes) + 1)]
    return _source(pairs, partial(_draw_classes, len(names)), names)


_Pair = tuple[str, str, str | None]


def _pairs(folders: Sequence[str], options: Options) -> list[_Pair]:
    """Return image, mask and split of each pair."""
    if len(options.image_folders) != len(folders):
        raise UserError(
            f"masks need --images with a folder of images for each folder of --input, got {len(options.image_folders)} "
            f"for {len(folders)}"
        )
    pairs: list[_Pair] = []
    for images, labels, split in zip(options.image_folders, folders, split_names(len(folders)), strict=True):
        pairs += [(*pair, split) for pair in require_pairs(pair_folders(images, labels), images, labels)]
    return pairs


def _source(
    pairs: Sequence[_Pair], draw: partial, names: Sequence[str], colours: Sequence[_Colour] | None = None
) -> Source:
    samples = [Sample(image, partial(draw, label), split) for image, label, split in pairs]
    root = os.path.commonpath([os.path.dirname(os.path.abspath(image)) for image, _, _ in pairs])
    return Source(samples, names, root, colours=colours)


def _check_size(labels: np.ndarray, file: str, size: tuple[int, int]) -> np.ndarray:
    if labels.shape != size:
        raise UserError(f"{file} is {labels.shape[::-1]}, but its image is {size[::-1]} (width, height)")
    return labels


def _draw_colours(label_format: LabelFormat, file: str, size: tuple[int, int]) -> Drawn:
    return Drawn(_check_size(label_format.read(file), file, size))


def _draw_classes(number: int, file: str, size: tuple[int, int]) -> Drawn:
    labels = _check_size(_read_numbers(file), file, size)
    check_labels(labels, number, IGNORED, file)
    return Drawn(labels.astype(np.uint8))


def _draw_binary(file: str, size: tuple[int, int]) -> Drawn:
    try:
        values = grey = read_values(file)
    except UserError:  # it is in colour, or cannot be read, which the next line says
        values = read_colours(file) & 0xFFFFFF
        grey = np.mean([values >> shift & 255 for shift in (0, 8, 16)], 0)
    present = np.unique(_check_size(values, file, size))
    if len(present[present != 0]) <= 1:
        return Drawn((values != 0).astype(np.uint8))
    # Soft edges have levels in between; a mask of 0, 1 and 255 has classes, and pixels that are not labelled.
    is_void = len(present) == 3 and grey[grey > 0].min() <= NEAR and not file.lower().endswith((".jpg", ".jpeg"))
    if is_void or np.mean((grey <= NEAR) | (grey >= 255 - NEAR)) < LEAST_NEAR:
        raise UserError(
            f"{file} holds {len(present)} values, such as {', '.join(map(str, present[:5]))}; a binary mask has 0 and "
            "one other, or is black and white but for soft edges; --format class_masks and color_masks take several"
        )
    return Drawn((grey >= 128).astype(np.uint8))


def _values(file: str) -> list[int]:
    return np.unique(_read_numbers(file)).tolist()


def _read_numbers(file: str) -> np.ndarray:
    """Read class numbers, also where each of them was saved as a colour of three equal channels."""
    try:
        return read_values(file)
    except UserError:
        colours = read_colours(file) & 0xFFFFFF
        numbers = colours & 0xFF
        if (colours != numbers * 0x010101).any():
            raise
        return numbers


def _no_palette(files: Sequence[str]) -> UserError:
    """Say which colours a few masks have, as a palette file would list them."""
    counts: Counter[int] = Counter()
    step = max(1, len(files) // _SHOWN)
    for file in files[::step][:_SHOWN]:
        codes, numbers = np.unique(read_colours(file) & 0xFFFFFF, return_counts=True)
        counts.update(dict(zip(codes.tolist(), numbers.tolist(), strict=True)))
    lines = [" ".join(map(str, code.to_bytes(3, "big"))) + f" name{place}"
             for place, (code, _) in enumerate(counts.most_common(_SHOWN))]  # fmt: skip
    return UserError(
        f"color_masks need --palette, a file with red, green, blue and a name a line; {len(counts)} colours were found",
        "\n".join(lines),
    )
