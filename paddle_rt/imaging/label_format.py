"""How the pixels of label files stand for classes, so that no file has to be rewritten."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.imaging.labels import check_labels, count_values, label_type, read_values
from paddle_rt.imaging.read_write import read_image

_OPAQUE = 0xFF000000  # the alpha channel that OpenCV adds; a colour is one number 0xFFRRGGBB
_SHOWN = 10  # values or colours in a message


@dataclass(frozen=True)
class LabelFormat:
    """From the values or colours of label files to classes.

    Without `label_map`, `reduce_zero_label` and `palette` the values are the classes. Whatever the format says nothing
    about is refused where it is read; `ignore_index` stays what it is unless `label_map` names it.

    Args:
        num_classes: The classes are 0 to `num_classes` - 1.
        ignore_index: The label of pixels that do not count.
        label_map: The class, or `ignore_index`, of each value of a file; with `palette` of each position in it.
        reduce_zero_label: Value 0 is not labelled, and class c is stored as c + 1, as in ADE20K.
        palette: RGB colours of coloured masks. Without `label_map` the first `num_classes` colours are the classes, and
            any further colours are not labelled.

    Raises:
        UserError: The arguments contradict each other.
    """

    num_classes: int
    ignore_index: int = 255
    label_map: Mapping[int, int] | None = None
    reduce_zero_label: bool = False
    palette: Sequence[Sequence[int]] | None = None

    def __post_init__(self) -> None:
        if self.label_map is not None and self.reduce_zero_label:
            raise UserError("label_map and reduce_zero_label are both given; write the shift by one into label_map")
        for value, label in (self.label_map or {}).items():
            if not 0 <= label < self.num_classes and label != self.ignore_index:
                raise UserError(
                    f"label_map gives {value} the class {label}, but classes are 0 to {self.num_classes - 1}, and "
                    f"{self.ignore_index} is ignored"
                )
        if self.palette is not None:
            self._check_palette(list(map(tuple, self.palette)))

    def _check_palette(self, colours: list[tuple[int, ...]]) -> None:
        twice = [colour for colour in colours if colours.count(colour) > 1]
        if twice:
            raise UserError(f"palette names the colour {twice[0]} twice")
        least = self.num_classes + self.reduce_zero_label
        if self.label_map is None and len(colours) < least:
            raise UserError(f"palette has {len(colours)} colours, expected one for each of {least} labels")
        beyond = [value for value in self.label_map or {} if value >= len(colours)]
        if beyond:
            raise UserError(f"label_map names position {beyond[0]} of palette, which has {len(colours)} colours from 0")

    @property
    def is_plain(self) -> bool:
        """Whether the values of the files are the classes."""
        return self.label_map is None and not self.reduce_zero_label and self.palette is None

    @cached_property
    def classes(self) -> dict[int, int]:
        """The class, or `ignore_index`, of each value that a file may hold; with `palette` of each position in it."""
        shift = int(self.reduce_zero_label)
        known = {} if self.palette is not None else {self.ignore_index: self.ignore_index}
        if self.label_map is not None:
            return {**known, **self.label_map}
        known |= dict.fromkeys(range(len(self.palette or ())), self.ignore_index)
        known |= {0: self.ignore_index} if shift else {}
        return known | {label + shift: label for label in range(self.num_classes) if label != self.ignore_index}

    @property
    def value_classes(self) -> dict[int, int]:
        """The class, or `ignore_index`, of each value that a file may hold; with `palette` of each `colour_code`."""
        if self.palette is None:
            return self.classes
        return {colour_code(self.palette[position]): label for position, label in self.classes.items()}

    def class_colours(self) -> np.ndarray | None:
        """Return the colour of each class in the masks, uint8 RGB [num_classes, 3], or None where a class has none."""
        positions = {label: value for value, label in reversed(self.classes.items())}
        if self.palette is None or not positions.keys() >= set(range(self.num_classes)):
            return None
        return np.array([self.palette[positions[label]] for label in range(self.num_classes)], np.uint8)

    def read(self, path: str | os.PathLike[str]) -> np.ndarray:
        """Read a label file.

        Returns:
            Classes and `ignore_index` [H, W], bytes where they fit.

        Raises:
            UserError: The file cannot be read, or holds a value or a colour that the format says nothing about.
        """
        values = read_values(path) if self.palette is None else read_colours(path)
        kind = label_type(self.num_classes, self.ignore_index)
        if self.is_plain:
            check_labels(values, self.num_classes, self.ignore_index, str(path))
            return values.astype(kind)
        limits = np.iinfo(values.dtype)
        known = [value for value in sorted(self.value_classes) if limits.min <= value <= limits.max]
        known = np.array(known, values.dtype)
        classes = np.array([self.value_classes[value] for value in known.tolist()], kind)
        if values.dtype == np.uint8:  # a table takes a third of the time
            table = np.zeros(256, kind)
            table[known] = classes
            labels, wrong = table[values], np.setdiff1d(np.flatnonzero(count_values(values)), known)
        else:
            places = np.searchsorted(known, values).clip(max=len(known) - 1)
            labels, wrong = classes[places], np.unique(values[known[places] != values])
        if wrong.size:
            raise UserError(f"{path}: {self._unknown(wrong.tolist(), path)}")
        return labels

    def _unknown(self, values: list[int], path: str | os.PathLike[str]) -> str:
        """Say which values or colours of a file the format says nothing about."""
        if self.palette is None:
            name = "label_map" if self.label_map is not None else "reduce_zero_label"
            known = _listed(sorted(self.classes))
            return f"{name} says nothing of the label values {_listed(values)}; it has the values {known}"
        lossy = " (JPEG keeps no exact colours)" if os.fspath(path).lower().endswith((".jpg", ".jpeg")) else ""
        colours = _listed([colour_of(value) for value in values])
        where = "palette" if self.label_map is None else "palette and label_map"
        advice = "add them"
        if len(values) > _SHOWN:
            advice = "add them, or save the masks as PNG without soft edges if they are mixed from those"
        return (
            f"the colours {colours} (red, green, blue) are none of the {len(self.classes)} in {where}{lossy}; {advice}"
        )


def read_colours(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an image as one number for the colour of each pixel, see `colour_code`. Shape: uint32 [H, W].

    Raises:
        UserError: As for `read_image`.
    """
    return cv2.cvtColor(read_image(path), cv2.COLOR_BGR2BGRA).view(np.uint32)[..., 0]


def colour_code(colour: Sequence[int]) -> int:
    """Return the number that stands for an RGB colour."""
    return _OPAQUE | int.from_bytes(bytes(colour), "big")


def colour_of(code: int) -> tuple[int, int, int]:
    """Return the RGB colour that a number stands for."""
    red, green, blue = (code & ~_OPAQUE).to_bytes(3, "big")
    return red, green, blue


def _listed(values: list) -> str:
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(map(str, values[:_SHOWN])) + more
