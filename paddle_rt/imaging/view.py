"""Views of labels: colours over an image, contours, legends, heat maps of confidence, and the flags for them."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from paddle_rt.errors import FlagError, unknown
from paddle_rt.imaging.draw import as_bgr, color_table, overlay
from paddle_rt.imaging.labels import count_values
from paddle_rt.imaging.text import draw_texts, drawable_name, text_width
from paddle_rt.kinds import flag, number, whole

POLYGON_FORMATS = ("coco", "labelme")
_LONGEST_NAME = 28  # characters of a class's name in a legend


@dataclass(frozen=True)
class View:
    """How labels are shown, and what is written beside their images.

    Args:
        names: The names of the classes.
        palette: RGB colours, uint8 [num_classes, 3].
        opacity: Weight of the colours over the image, from 0 to 1.
        classes: The classes that are shown, counted in legends and written as polygons; None for all.
        contours: Whether the borders of regions are drawn in the full colours.
        legend: Whether a panel names the classes of the image and their shares.
        side_by_side: Whether the image itself stands on the left.
        confidence: Whether heat maps of the confidence are written.
        polygons: Formats in which regions are written as polygons.
        min_area: Regions of fewer pixels are not written as polygons.
    """

    names: Sequence[str]
    palette: np.ndarray
    opacity: float = 0.4
    classes: Sequence[int] | None = None
    contours: bool = False
    legend: bool = False
    side_by_side: bool = False
    confidence: bool = False
    polygons: Sequence[str] = ()
    min_area: int = 16

    @property
    def shown(self) -> np.ndarray:
        """Whether each of the 256 values of a label is shown. Shape: bool [256]."""
        shown = np.zeros(256, bool)
        shown[list(range(len(self.palette)) if self.classes is None else self.classes)] = True
        return shown

    def draw(self, image: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Draw labels over an image.

        Args:
            image: The image, uint8: grey, BGR, or BGR and a fourth channel.
            labels: Class numbers, uint8.

        Returns:
            The view, uint8 BGR; wider than the image where a panel or the image itself stands beside it.

        Shape: image [H, W] or [H, W, C] and labels [H, W] to [H, W + ..., 3].
        """
        plain, view = as_bgr(image), overlay(image, labels, self.palette, 1 - self.opacity)
        if self.classes is not None:
            view = np.where(self.shown[labels][..., np.newaxis], view, plain)
        if self.contours:
            border = _borders(labels) & self.shown[labels]
            view[border] = color_table(self.palette)[:, ::-1][labels[border]]
        parts = [plain] * self.side_by_side + [view]
        if self.legend:
            parts.append(self._legend(labels))
        return np.hstack(parts) if len(parts) > 1 else view

    def _legend(self, labels: np.ndarray) -> np.ndarray:
        """Return a white panel with the classes of an image; its width follows from the image's height alone."""
        counts = count_values(labels) * self.shown
        order = np.argsort(-counts, kind="stable")
        entries = [
            (int(label), f"{short_name(self.names[label], int(label))} {100 * counts[label] / labels.size:.1f} %")
            for label in order[: (counts > 0).sum()]
        ]
        names = [f"{short_name(name, number)} 100.0 %" for number, name in enumerate(self.names)]
        return legend_panel(labels.shape[0], entries, self.palette, names)

    def heat_map(self, confidence: np.ndarray) -> np.ndarray:
        """Colour confidences from 0, dark blue, to 1, yellow; with `legend` a scale stands on the right.

        Shape: [H, W] to uint8 BGR [H, W + ..., 3].
        """
        values = np.round(np.clip(confidence, 0, 1) * 255).astype(np.uint8)
        image = cv2.applyColorMap(values, cv2.COLORMAP_VIRIDIS)
        return np.hstack([image, _scale_panel(image.shape[0])]) if self.legend else image


def add_view_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of views to a tool that writes the labels of images."""
    group = parser.add_argument_group("views of labels (segmentation)")
    add = group.add_argument
    add("--opacity", type=flag(number(0, 1)), default=0.4, help="weight of the colours over the image")
    add("--classes", nargs="+", metavar="NAME", help="show these classes alone, by name or number")
    add("--contours", action="store_true", help="draw the borders of regions; alone with --opacity 0")
    add("--legend", action="store_true", help="add a panel with the classes of the image and their shares")
    add("--side_by_side", action="store_true", help="add the image itself on the left")
    add("--confidence", action="store_true", help="also write the softmax of the labels as heat maps, confidence/*.png")
    add(
        "--polygons",
        nargs="+",
        choices=POLYGON_FORMATS,
        default=[],
        help="also write the regions of images as polygons: coco_annotations.json for all, or labelme/*.json",
    )
    add("--min_area", type=flag(whole(1)), default=16, help="regions of fewer pixels are no polygons")


def view_of_flags(arguments: argparse.Namespace, names: Sequence[str], palette: np.ndarray) -> View:
    """Return the view that the flags of a tool ask for.

    Args:
        arguments: Values of the flags that `add_view_flags` added.
        names: The names of the classes.
        palette: RGB colours, uint8 [num_classes, 3].

    Raises:
        FlagError: There is no class of a name.
    """
    classes = arguments.classes and [_class_number(text, names) for text in arguments.classes]
    keys = ("opacity", "contours", "legend", "side_by_side", "confidence", "polygons", "min_area")
    return View(names, palette, classes=classes, **{key: getattr(arguments, key) for key in keys})


def given_flags(arguments: argparse.Namespace) -> list[str]:
    """Return the flags of views that have other values than their defaults, for tools that may have no labels."""
    parser = argparse.ArgumentParser()
    add_view_flags(parser)
    defaults = vars(parser.parse_args([]))
    return [f"--{key}" for key, value in defaults.items() if getattr(arguments, key) != value]


def legend_height(lines: int, size: int) -> int:
    """Return how tall a legend has to be for so many lines in letters of a height."""
    return lines * round(1.6 * size) + size // 2


def legend_panel(
    height: int,
    entries: Sequence[tuple[int, str]],
    palette: np.ndarray,
    widest: Sequence[str],
    size: int | None = None,
) -> np.ndarray:
    """Return a white panel with a line for each class: a box of its colour and a text.

    Args:
        height: Of the panel.
        entries: The class and the text of each line; those that do not fit are counted in the last line.
        palette: RGB colours, uint8 [num_classes, 3].
        widest: Texts that the panel has to be wide enough for.
        size: The height of the letters; None for one that follows from the panel's.

    Returns:
        The panel, uint8 BGR [height, width, 3].
    """
    size = size or int(np.clip(height / 30, 10, 36))
    step = round(1.6 * size)
    rows = max((height - size // 2) // step, 1)
    width = 3 * size + max((text_width(text, size) for text in widest), default=0)
    panel = np.full((height, width, 3), 255, np.uint8)
    cut = entries if len(entries) <= rows else entries[: rows - 1]
    texts = [(2 * size, row * step + step // 2 + size // 4, text) for row, (_, text) in enumerate(cut)]
    if len(cut) < len(entries):
        texts.append((2 * size, len(cut) * step + step // 2 + size // 4, f"and {len(entries) - len(cut)} more"))
    colours = color_table(palette)[:, ::-1]
    for (_, y, _), (label, _) in zip(texts, cut, strict=False):
        box = (size // 2, y - size // 2), (size // 2 + size, y + size // 2)
        cv2.rectangle(panel, *box, colours[label].tolist(), -1)
        cv2.rectangle(panel, *box, (128, 128, 128), 1)
    return draw_texts(panel, texts, size)


def _class_number(text: str, names: Sequence[str]) -> int:
    if text in names:
        return list(names).index(text)
    if text.isascii() and text.isdigit() and int(text) < len(names):
        return int(text)
    raise FlagError(str(unknown("class", text, names, "--classes")))


def short_name(name: str, number: int) -> str:
    """Return the name of a class as images show it: cut where it is long, its number where no font can write it."""
    name = drawable_name(name, number)
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 2]}.."


def _borders(labels: np.ndarray) -> np.ndarray:
    """Return where two classes meet, as lines that are thick enough to be seen. Shape: [H, W] to bool [H, W]."""
    border = np.zeros(labels.shape, np.uint8)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    border[:, 1:] |= across
    border[:, :-1] |= across
    border[1:] |= down
    border[:-1] |= down
    reach = round(min(labels.shape) / 600)  # pixels on each side beside the first
    return cv2.dilate(border, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)).astype(bool)


def _scale_panel(height: int) -> np.ndarray:
    size = int(np.clip(height / 30, 10, 36))
    panel = np.full((height, 2 * size + 2 * size + text_width("0.00", size), 3), 255, np.uint8)
    top, bottom = size, max(height - size, size + 1)
    ramp = np.round(np.linspace(255, 0, bottom - top)).astype(np.uint8)
    panel[top:bottom, size : 2 * size] = cv2.applyColorMap(ramp[:, np.newaxis], cv2.COLORMAP_VIRIDIS)
    steps = [index / 4 for index in range(5)]
    texts = [(round(2.5 * size), round(bottom - value * (bottom - top)), f"{value:.2f}") for value in steps]
    return draw_texts(panel, texts, size)
