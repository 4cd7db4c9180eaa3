"""Colour labels and blend them with images."""

from collections.abc import Sequence

import cv2
import numpy as np


def color_table(palette: np.ndarray) -> np.ndarray:
    """Return the RGB colour of each of the 256 values of a label, black from the palette's end on.

    Shape: palette [N, 3] to [256, 3].
    """
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette[:256]
    return table


def colorize(labels: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Return the image of the labels' colours, uint8 BGR.

    Args:
        labels: Class numbers, uint8.
        palette: RGB colours, uint8; numbers from N on (255, not labelled) become black.

    Shape: labels [H, W] and palette [N, 3] to [H, W, 3].
    """
    return color_table(palette)[:, ::-1][labels]


def overlay(image: np.ndarray, labels: np.ndarray, palette: np.ndarray, weight: float = 0.6) -> np.ndarray:
    """Blend an image with the colours of its labels; pixels that are not labelled keep the image's colour.

    Args:
        image: The image, uint8: grey, BGR, or BGR and a fourth channel, which the result does not show.
        labels: Class numbers, uint8.
        palette: RGB colours, uint8.
        weight: Weight of the image in the sum; 0.6 as in PaddleSeg.

    Returns:
        The blended image, uint8 BGR.

    Shape: image [H, W] or [H, W, C], labels [H, W] and palette [N, 3] to [H, W, 3].
    """
    channels = 1 if image.ndim == 2 else image.shape[2]
    colours = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if channels == 1 else np.ascontiguousarray(image[..., :3])
    mixed = cv2.addWeighted(colours, weight, colorize(labels, palette), 1 - weight, 0)
    return np.where((labels < len(palette))[..., None], mixed, colours)


def caption(image: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """Write lines of text into the upper left corner of an image, the first one the largest.

    Args:
        image: The image, uint8 BGR.
        lines: The text; what is not ASCII becomes a question mark, since OpenCV has no letters for it.

    Returns:
        The image with the text, uint8 BGR.

    Shape: [H, W, 3] to the same.
    """
    image, bottom = image.copy(), 0
    for number, line in enumerate(lines):
        scale = max(image.shape[1] / 640, 0.3) * (1.0 if number == 0 else 0.7)
        text = line.encode("ascii", "replace").decode()
        (_, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        bottom += height + base
        for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):  # white letters with a dark edge
            place = (max(base // 2, 2), bottom)
            cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness, cv2.LINE_AA)
    return image
