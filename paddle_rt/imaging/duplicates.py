"""Images that are the same but for their encoding or size, found by their thumbnails."""

import itertools
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

SIDE = 16  # pixels of a thumbnail
_MOST_MEAN, _MOST_SINGLE = 2.0, 10  # grey levels by which thumbnails of one image differ: on average, in one pixel
_MOST_IN_CELL = 2000  # thumbnails that all look alike, such as those of one camera, of which so many are compared


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Return a small grey copy of an image, by which `find_duplicates` knows it again.

    Shape: uint8, BGR [H, W, 3] or grey [H, W], to [256].
    """
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return (small if small.ndim == 2 else cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)).reshape(-1)


def find_duplicates(thumbnails: Sequence[np.ndarray]) -> np.ndarray:
    """Group the images whose thumbnails are equal but for what compression or another size does to them.

    Args:
        thumbnails: From `thumbnail`, one for each image.

    Returns:
        For each image the index of the first image of its group; an image that occurs once is a group of its own.
        Shape: [N].
    """
    pixels = np.array(thumbnails, np.uint8).reshape(-1, SIDE * SIDE)
    first = np.arange(len(pixels))
    for cell in _cells(pixels):
        _join(pixels, cell, first)
    return np.array([_root(first, index) for index in range(len(first))], np.int64)


def _cells(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """Yield sets of indices so that every two thumbnails that may be duplicates are in at least one of them.

    The mean of a thumbnail with some pixels negated differs between two of them by no more than the mean of the
    pixels' differences. Four such means, each cut into intervals of twice the bound and once more half an interval
    further on, put every such pair into one cell of at least one of the 16 grids.
    """
    halves = np.where(np.arange(SIDE) < SIDE // 2, 1, -1)
    signs = [np.ones((SIDE, SIDE)), np.tile(halves, (SIDE, 1)), np.tile(halves[:, None], (1, SIDE)),
             np.outer(halves, halves)]  # fmt: skip
    means = pixels @ np.stack([sign.reshape(-1) for sign in signs], 1) / pixels.shape[1]
    for shift in itertools.product((0, 0.5), repeat=len(signs)):
        cells = np.floor(means / (2 * _MOST_MEAN) + shift).astype(np.int64) + 512
        key = np.ravel_multi_index(tuple(cells.T), (1024,) * len(signs))
        order = np.argsort(key, kind="stable")
        starts = np.flatnonzero(np.diff(key[order], prepend=-1))
        yield from (cell for cell in np.split(order, starts[1:]) if len(cell) > 1)


def _join(pixels: np.ndarray, cell: np.ndarray, first: np.ndarray) -> None:
    """Give the duplicates in a cell one root: the smallest index."""
    rest = cell[:_MOST_IN_CELL]
    while len(rest) > 1:
        leader, rest = rest[0], rest[1:]
        apart = np.abs(pixels[rest].astype(np.int16) - pixels[leader])
        same = (apart.max(1) <= _MOST_SINGLE) & (apart.mean(1) <= _MOST_MEAN)
        for index in rest[same]:
            roots = _root(first, leader), _root(first, index)
            first[max(roots)] = min(roots)
        rest = rest[~same]


def _root(first: np.ndarray, index: int) -> int:
    while first[index] != index:
        first[index] = first[first[index]]
        index = first[index]
    return int(index)
