"""What the readers of all formats give: samples whose labels any process can draw, and the names of the classes."""

import json
import os
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from paddle_rt.errors import UserError, shown, unknown
from paddle_rt.files import check_plain_file
from paddle_rt.imaging.read_write import is_image, walk_files

IGNORED = 255  # the label of pixels that are neither trained nor scored
MOST_CLASSES = 255
BACKGROUND = "background"  # the name of class 0 where pixels without a shape are a class
_BACKGROUND_NAMES = (BACKGROUND, "_background_", "__background__")
_IGNORED_NAMES = ("__ignore__", "_ignore_")  # LabelMe's
_MOST_BYTES = 2**32
_FARTHEST = 1e6  # pixels; beyond this a coordinate is a fault


class Drawn(NamedTuple):
    """The labels of an image.

    Args:
        labels: Class numbers, uint8 [H, W].
        overlap: Number of pixels that shapes of different classes share.
        without_area: Number of shapes that were left out since they have no area.
    """

    labels: np.ndarray
    overlap: int = 0
    without_area: int = 0


class Region(NamedTuple):
    """The pixels of one shape: a mask at a place, and its class."""

    top: int
    left: int
    mask: np.ndarray
    value: int


@dataclass(frozen=True)
class Sample:
    """An image and a way to its labels.

    Args:
        image: The file of the image, or of the annotations that it is embedded in.
        draw: Returns the labels for an image of a size (height, width); can be sent to another process.
        split: The split that the source itself puts the image in, if it does.
        embedded: Returns the bytes of the image where the annotations hold it.
    """

    image: str
    draw: Callable[[tuple[int, int]], Drawn]
    split: str | None = None
    embedded: Callable[[], bytes] | None = None


@dataclass(frozen=True)
class Source:
    """What a reader found.

    Args:
        samples: The images.
        names: Names of the classes, in the order of their numbers.
        root: The folder that the names of the images are relative to.
        notes: What a user should know, a line each.
        colours: RGB colours of the classes, where the source has them.
    """

    samples: Sequence[Sample]
    names: Sequence[str]
    root: str
    notes: Sequence[str] = ()
    colours: Sequence[tuple[int, int, int]] | None = None


@dataclass(frozen=True)
class Options:
    """How annotations are read, whatever their format.

    Args:
        image_folders: Where images are looked for that are not beside the annotations; the images of masks.
        classes: Names of the classes in the order of their numbers; empty to take all that the annotations have.
        unlabelled: What pixels without a shape are: "background", which is class 0 then, or "ignore".
        by_area: Smaller shapes lie on top, instead of later ones.
        palette: The file of the colours and the names of coloured masks.
    """

    image_folders: Sequence[str] = ()
    classes: Sequence[str] = ()
    unlabelled: str = BACKGROUND
    by_area: bool = False
    palette: str | None = None


@dataclass(frozen=True)
class Classes:
    """The classes of a source.

    Args:
        names: Names in the order of the class numbers.
        numbers: The label of every name that shapes may have; several names may have one label.
        unlabelled: The label of pixels without a shape.
    """

    names: Sequence[str]
    numbers: Mapping[str, int]
    unlabelled: int

    def number(self, name: str, where: str) -> int:
        """Return the label of a name.

        Raises:
            UserError: It is none of the classes.
        """
        if name not in self.numbers:
            raise unknown("class", name, self.numbers, where)
        return self.numbers[name]


def clean_name(name: Any, where: str) -> str:
    """Return the name of a class without blanks around it, in the one Unicode form that all systems share.

    Raises:
        UserError: It is no text, empty, or holds a line break.
    """
    cleaned = unicodedata.normalize("NFC", name).strip() if isinstance(name, str) else ""
    if not cleaned or len(cleaned.splitlines()) != 1:
        raise UserError(f"{where}: the name of a class must be a text on one line, got {shown(name)}")
    return cleaned


def is_ignored_name(name: str) -> bool:
    """Return whether a name stands for pixels that are neither trained nor scored, as LabelMe writes it."""
    return name.lower() in _IGNORED_NAMES


def number_classes(found: Iterable[str], options: Options) -> Classes:
    """Give each class its number.

    Args:
        found: Names in the annotations, see `clean_name`; their order counts where the options list none.
        options: What the user wants.

    Raises:
        UserError: There are no classes or too many of them, or one was found that is not given.
    """
    found, given, has_background = list(dict.fromkeys(found)), options.classes, options.unlabelled == BACKGROUND
    background = [name for name in (*given, *found) if name.lower() in _BACKGROUND_NAMES]
    special = {*_IGNORED_NAMES, *(background if has_background else ())}
    names = [name for name in (given or found) if name not in special]
    if given:
        for name in found:
            if name not in given and name not in special:
                raise unknown("class", name, given, "--classes does not list a class of the annotations")
    if not names:
        raise UserError("the annotations hold no class; annotate at least one shape, or check that this is the format")
    names = [BACKGROUND, *names] if has_background else names
    if len(names) > MOST_CLASSES:
        raise UserError(f"there are {len(names)} classes; labels of 8 bits have room for {MOST_CLASSES}")
    numbers = {name: number for number, name in enumerate(names)}
    numbers |= dict.fromkeys(_IGNORED_NAMES, IGNORED) | (dict.fromkeys(background, 0) if has_background else {})
    return Classes(names, numbers, 0 if has_background else IGNORED)


def paint(size: tuple[int, int], regions: Iterable[Region], unlabelled: int, by_area: bool) -> tuple[np.ndarray, int]:
    """Paint shapes over each other.

    Args:
        size: Height and width of the image.
        regions: Shapes in the order in which they were drawn; a later one lies on top.
        unlabelled: The label of pixels without a shape.
        by_area: Paint in the order of their area instead, so that no shape is hidden by a larger one.

    Returns:
        The labels and the number of pixels that shapes of different classes share.
    """
    labels, painted = np.full(size, unlabelled, np.uint8), np.zeros(size, bool)
    shared = np.zeros(size, bool)
    if by_area:
        regions = sorted(regions, key=lambda region: -np.count_nonzero(region.mask))
    for top, left, mask, value in regions:
        place = slice(top, top + mask.shape[0]), slice(left, left + mask.shape[1])
        shared[place] |= mask & painted[place] & (labels[place] != value)
        np.copyto(labels[place], value, where=mask)
        painted[place] |= mask
    return labels, int(np.count_nonzero(shared))


class Pencil:
    """Draws shapes with Pillow, as LabelMe does, and hands out the pixels of each.

    Args:
        size: Height and width of the image.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.canvas = Image.new("L", size[::-1])

    def region(self, draw: Callable[[Image.Image], None], value: int) -> Region | None:
        """Return what a function draws in 1 on an image of zeros, or None where that is nothing."""
        draw(self.canvas)
        box = self.canvas.getbbox()
        if box is None:
            return None
        mask = np.array(self.canvas.crop(box)).astype(bool)
        self.canvas.paste(0, box)
        return Region(box[1], box[0], mask, value)


def check_points(points: Any, where: str) -> list[tuple[float, float]]:
    """Return points as pairs of numbers.

    Raises:
        UserError: They are no list of pairs, or a number is not finite or far outside of any image.
    """
    try:
        array = np.array(points, np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim != 2 or array.shape[1] != 2:
        raise UserError(f"{where}: points must be a list of [x, y], got {shown(points)}")
    if not (np.abs(array) <= _FARTHEST).all():  # false for NaN too
        raise UserError(f"{where}: a point lies at {shown(array.flat[np.argmax(~(np.abs(array.flat) <= _FARTHEST))])}")
    return [(x, y) for x, y in array.tolist()]


def read_json(path: str | os.PathLike, keys: Collection[str], what: str) -> dict[str, Any]:
    """Read a JSON file that holds a mapping with some keys.

    Raises:
        UserError: It cannot be read, is no JSON, or is no such mapping.
    """
    data = check_plain_file(path, what, _MOST_BYTES).read_bytes()
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text; expected {what}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({' '.join(str(error).split())}); expected {what}") from error
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise UserError(f"{path} has no {missing[0]!r}; expected {what} with the keys {', '.join(keys)}")
    return content


def require_folder(path: str, flag: str) -> str:
    """Return the name of a folder.

    Raises:
        UserError: There is none.
    """
    if not os.path.isdir(path):
        raise UserError(f"{flag}: no folder {path}" if not os.path.exists(path) else f"{flag}: {path} is no folder")
    return path


def walk_images(folder: str) -> list[str]:
    """Return the images in a folder at any depth, in no order."""
    return [file for file in walk_files(folder) if is_image(file)]


def find_image(name: str, folders: Sequence[str], where: str) -> str:
    """Return the file of an image by the name that annotations give it.

    Args:
        name: A path, with the slashes of any system; where it leads nowhere its last part is looked for alone.
        folders: Where to look, the first of them first.
        where: What a message begins with.

    Raises:
        UserError: There is no such file.
    """
    path = Path(name.replace("\\", "/"))
    for folder in folders:
        for candidate in (os.path.join(folder, path), os.path.join(folder, path.name)):
            if os.path.isfile(candidate) and is_image(candidate):
                return os.path.normpath(candidate)
    raise UserError(f"{where}: no image {shown(name)} in {' or '.join(folders)}; name its folder by --images")


def split_names(number: int) -> list[str | None]:
    """Return the split that each of several inputs is, or no split for a single one."""
    return [None] if number == 1 else ["train", "val", "test"][:number]
