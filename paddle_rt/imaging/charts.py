"""Charts of a segmentation's scores, drawn with NumPy, OpenCV and Pillow alone."""

from collections.abc import Sequence

import cv2
import numpy as np

from paddle_rt.imaging.text import draw_texts, text_width
from paddle_rt.imaging.view import legend_height, legend_panel, short_name

_EMPTY = (225, 225, 225)  # BGR of the row of a class that no label holds
_DARKEST = (110, 60, 20)  # BGR of 100 %
_TILE = (240, 320)  # height and width that an image of a sheet has to fit into
_LETTERS = 14  # pixels
_TITLE = "% of the pixels of each true class (row) by predicted class (column)"


def confusion_chart(confusion: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Draw a confusion matrix: each row in percent of its sum, the darker the more, with the names of the classes.

    Args:
        confusion: Pixels; rows are true classes, columns predicted ones.
        names: The names of the classes.

    Returns:
        The chart, uint8 BGR.

    Shape: [C, C] to [H, W, 3].
    """
    count = len(names)
    cell = 44 if count <= 30 else 26 if count <= 64 else 18
    size = min(cell // 3 + 1, 14) if cell > 18 else 12
    sums = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(sums, 1)
    colours = 255 + shares[..., np.newaxis] * (np.array(_DARKEST) - 255)
    colours = np.where(sums[..., np.newaxis] > 0, colours, _EMPTY).astype(np.uint8)
    grid = cv2.resize(colours, (count * cell, count * cell), interpolation=cv2.INTER_NEAREST)
    grid[::cell] = grid[:, ::cell] = (200, 200, 200)
    if cell > 18:
        for dark, colour in ((False, (0, 0, 0)), (True, (255, 255, 255))):
            chosen = np.argwhere((shares >= 0.005) & ((shares > 0.5) == dark))
            places = [(int((x + 0.5) * cell), int((y + 0.5) * cell), f"{100 * shares[y, x]:.0f}") for y, x in chosen]
            grid = draw_texts(grid, places, size, colour, "mm")
    shown = [short_name(name, number) for number, name in enumerate(names)]
    margin = max(text_width(name, size) for name in shown) + 12
    left = np.full((count * cell, margin, 3), 255, np.uint8)
    places = [(margin - 6, number * cell + cell // 2, name) for number, name in enumerate(shown)]
    left = draw_texts(left, places, size, anchor="rm")
    top = np.full((count * cell, margin, 3), 255, np.uint8)
    places = [(margin - 6, (count - 1 - number) * cell + cell // 2, name) for number, name in enumerate(shown)]
    top = np.rot90(draw_texts(top, places, size, anchor="rm"), -1)  # turned, so that the names are read downwards
    corner = np.full((margin, margin, 3), 255, np.uint8)
    chart = np.vstack([np.hstack([corner, top]), np.hstack([left, grid])])
    width = max(chart.shape[1], text_width(_TITLE, _LETTERS) + 16)
    chart = cv2.copyMakeBorder(chart, 30, 8, 0, width - chart.shape[1] + 8, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    return draw_texts(chart, [(8, 16, _TITLE)], _LETTERS)


def contact_sheet(
    tiles: Sequence[tuple[str, Sequence[np.ndarray]]],
    classes: Sequence[int],
    names: Sequence[str],
    palette: np.ndarray,
    columns: int = 2,
    heads: Sequence[str] = (),
) -> np.ndarray:
    """Arrange images on one sheet, with a legend of classes on the right.

    Args:
        tiles: For each a caption, and images uint8 BGR [H, W, 3] that stand beside each other; as many for each tile.
        classes: The classes of the legend.
        names: The names of all classes.
        palette: Their RGB colours, uint8 [num_classes, 3].
        columns: Tiles in a row.
        heads: What stands above each image of the tiles in the first row.

    Returns:
        The sheet, uint8 BGR.
    """
    height, width = _TILE
    shapes = [image.shape for _, images in tiles for image in images]
    size = (min(height, max(max(round(shape[0] * width / shape[1]), 1) for shape in shapes)), width)
    drawn = []
    for caption, images in tiles:
        row = np.hstack([_fitted(image, size) for image in images])
        strip = np.full((26, row.shape[1], 3), 255, np.uint8)
        drawn.append(np.vstack([draw_texts(strip, [(4, 14, _cut(caption, row.shape[1] - 8))], _LETTERS), row]))
    drawn = [cv2.copyMakeBorder(tile, 0, 8, 0, 8, cv2.BORDER_CONSTANT, value=(255, 255, 255)) for tile in drawn]
    columns = min(columns, len(drawn))
    drawn += [np.full_like(drawn[0], 255)] * (-len(drawn) % columns)
    sheet = np.vstack([np.hstack(drawn[start : start + columns]) for start in range(0, len(drawn), columns)])
    if heads:
        strip = np.full((26, sheet.shape[1], 3), 255, np.uint8)
        starts = [drawn[0].shape[1] * column + width * at for column in range(columns) for at in range(len(heads))]
        places = [(start + 4, 14, text) for start, text in zip(starts, [*heads] * columns, strict=True)]
        sheet = np.vstack([draw_texts(strip, places, _LETTERS), sheet])
    entries = [(label, short_name(names[label], label)) for label in classes]
    below = max(legend_height(len(entries), _LETTERS) - len(sheet), 0)
    sheet = cv2.copyMakeBorder(sheet, 0, below, 0, 0, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    return np.hstack([sheet, legend_panel(len(sheet), entries, palette, [text for _, text in entries], _LETTERS)])


def _fitted(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale an image to a size, with white where its proportions are others."""
    scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
    width, height = (max(round(side * scale), 1) for side in image.shape[1::-1])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    margins = (0, size[0] - height, 0, size[1] - width)
    return cv2.copyMakeBorder(small, *margins, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def _cut(text: str, width: int) -> str:
    while text_width(text, _LETTERS) > width and len(text) > 3:
        text = f"{text[:-3]}.."
    return text
