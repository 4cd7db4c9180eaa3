"""What one image and its label hold, looked at in processes of their own."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import cv2
import numpy as np
from PIL import Image

from paddle_rt.errors import UserError
from paddle_rt.imaging import read_image
from paddle_rt.imaging.duplicates import thumbnail
from paddle_rt.imaging.label_format import read_colours
from paddle_rt.imaging.labels import count_values, decode_label
from paddle_rt.parallel import map_on_all_cores

Pair = Sequence[str | None]
MOST_VALUES = 1000  # of a label; what has more is no label
_MODES = {  # Pillow's names
    "1": "1 channel of 1 bit", "L": "1 channel of 8 bits", "P": "indexed colours",
    "LA": "1 channel of 8 bits and alpha",
    "RGB": "3 channels of 8 bits", "RGBA": "3 channels of 8 bits and alpha", "CMYK": "4 channels of 8 bits (CMYK)",
    "I;16": "1 channel of 16 bits", "I;16B": "1 channel of 16 bits", "I": "1 channel of 32 bits",
    "F": "1 channel of floating point numbers",
}  # fmt: skip


@dataclass
class PairFacts:
    """What was found in an image and its label.

    Args:
        image: The image's file.
        label: The label's file, or None.
        image_error: Why the image cannot be read, or None.
        label_error: Why the label cannot be read, or None.
        said: What the libraries that decode files complained of.
        size: Height and width of the image.
        label_size: Height and width of the label.
        mode: Channels and depth of the image's file, in words.
        label_mode: The same of the label's file.
        sums: The sum of each channel, RGB from 0 to 1.
        squares: The sum of the squares of each channel.
        thumbnail: As `paddle_rt.imaging.duplicates.thumbnail` makes it.
        values: Number of pixels of each value of the label; of a coloured one, of each colour by `colour_code`.
        is_coloured: Whether the values are colours.
        more_values: How many further values it holds beyond `MOST_VALUES`.
    """

    image: str
    label: str | None
    image_error: str | None = None
    label_error: str | None = None
    said: list[str] = field(default_factory=list)
    size: tuple[int, int] | None = None
    label_size: tuple[int, int] | None = None
    mode: str = ""
    label_mode: str = ""
    sums: np.ndarray | None = None
    squares: np.ndarray | None = None
    thumbnail: np.ndarray | None = None
    values: dict[int, int] = field(default_factory=dict)
    is_coloured: bool = False
    more_values: int = 0


def look_at(
    pairs: Sequence[Pair], channels: int, has_palette: bool, num_workers: int | None = None, description: str = "look"
) -> list[PairFacts]:
    """Look at images and their labels, in several processes where there are many, with a progress bar.

    Args:
        pairs: (image, label) files; a label may be None.
        channels: As what the images are read: 3, 1 or 4.
        has_palette: Whether the labels are to be read as colours.
        num_workers: Processes; None for one a core.
        description: What the progress bar says.

    Returns:
        What was found, in the order of the pairs.

    Raises:
        InternalError: A process was ended from outside.
    """
    look = partial(look_at_pair, channels=channels, has_palette=has_palette)
    return list(map_on_all_cores(look, pairs, description, "img", num_workers))


def look_at_pair(pair: Pair, channels: int, has_palette: bool) -> PairFacts:
    """Look at an image and its label; see `look_at`."""
    facts = PairFacts(*pair)
    with _collected(facts.said):
        try:
            _look_at_image(facts, read_image(facts.image, channels))
        except UserError as error:
            facts.image_error = str(error)
        facts.mode = _mode(facts.image)
        if facts.label is not None:
            try:
                _look_at_label(facts, has_palette)
            except UserError as error:
                facts.label_error = str(error)
            facts.label_mode = _mode(facts.label)
    return facts


def _look_at_image(facts: PairFacts, image: np.ndarray) -> None:
    facts.size = image.shape[:2]
    mean, deviation = (part.ravel()[2::-1] / 255 for part in cv2.meanStdDev(image))
    pixels = image.shape[0] * image.shape[1]
    facts.sums, facts.squares = mean * pixels, (deviation**2 + mean**2) * pixels
    facts.thumbnail = thumbnail(image)


def _look_at_label(facts: PairFacts, has_palette: bool) -> None:
    values = None if has_palette else decode_label(facts.label)
    facts.is_coloured = values is None or values.ndim == 3
    if facts.is_coloured:
        values = read_colours(facts.label)
    elif values.dtype.kind == "f":
        raise UserError(f"{facts.label}: labels must be whole numbers, but this image has {values.dtype}")
    facts.label_size = values.shape
    if values.dtype == np.uint8:
        counts = count_values(values)
        present = np.flatnonzero(counts)
        counts = counts[present]
    else:
        present, counts = np.unique(values, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:MOST_VALUES]
    facts.values = dict(zip(present[most].tolist(), counts[most].tolist(), strict=True))
    facts.more_values = len(present) - len(most)


def _mode(path: str) -> str:
    """Return channels and depth of a file, or nothing where Pillow does not know it."""
    try:
        with Image.open(path) as image:
            mode = _MODES.get(image.mode, image.mode)
            # Pillow cuts colours of 16 bits down to 8, and says so in the mode of the file's data alone.
            layout = image.tile[0][3] if image.tile else ""  # RGB;16B, or a tuple that begins with it
            layout = layout[0] if isinstance(layout, tuple) else layout
            return mode.replace("8 bits", "16 bits") if ";16" in str(layout) else mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return ""


@contextlib.contextmanager
def _collected(lines: list[str]) -> Iterator[None]:
    """Collect what the readers of images warn of in a block."""
    logger, handler = logging.getLogger("paddle_rt.imaging"), logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    before, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
