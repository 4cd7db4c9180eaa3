"""Images that are the same but for their encoding or size, found by their thumbnails."""

import itertools
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

SIDE = 16  # pixels of a thumbnail
_MOST_MEAN, _MOST_SINGLE = 2.0, 10  # grey levels by which thumbnails of one image differ: on average, in one pixel
_LEAST_DEVIATION = 3.0  # of a thumbnail; one of a single colour, such as a black frame, is like any other
_MOST_IN_CELL = 50  # of many thumbnails that look alike, such as those of one camera, each is compared with so many
_BLOCK = 8192  # pairs that are compared at once


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Return a small grey copy of an image, by which `find_duplicates` knows it again.

    Shape: uint8, BGR [H, W, 3], with a fourth channel that does not count, or grey [H, W] or [H, W, 1], to [256].
    """
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    if small.ndim == 3:  # a single channel is without its axis now
        small = cv2.cvtColor(np.ascontiguousarray(small[..., :3]), cv2.COLOR_BGR2GRAY)
    return small.reshape(-1)


def find_duplicates(thumbnails: Sequence[np.ndarray]) -> np.ndarray:
    """Group the images whose thumbnails are equal but for what compression or another size does to them.

    Args:
        thumbnails: From `thumbnail`, one for each image.

    Returns:
        For each image the index of the first image of its group. An image that occurs once, or is of one colour, is a
        group of its own.
        Shape: [N].
    """
    pixels = np.array(thumbnails, np.uint8).reshape(-1, SIDE * SIDE)
    means, first = _means(pixels), np.arange(len(pixels))
    is_plain = pixels.std(axis=1) <= _LEAST_DEVIATION
    for one, other in _candidates(means):
        apart = (first[one] != first[other]) & ~is_plain[one]
        one, other = one[apart], other[apart]
        near = (np.abs(means[one] - means[other]) <= _MOST_MEAN).all(1)
        one, other = one[near], other[near]
        for start in range(0, len(one), _BLOCK):
            part = slice(start, start + _BLOCK)
            difference = np.abs(pixels[one[part]].astype(np.int16) - pixels[other[part]])
            same = (difference.max(1) <= _MOST_SINGLE) & (difference.mean(1) <= _MOST_MEAN)
            _join(first, one[part][same], other[part][same])
    return first


def _means(pixels: np.ndarray) -> np.ndarray:
    """Return 16 means of each thumbnail in which some pixels are negated; the first four are the most telling.

    Such a mean differs between two thumbnails by no more than the mean of the pixels' differences.
    """
    place = np.arange(SIDE)
    waves = [np.where(place * count // SIDE % 2 == 0, 1, -1) for count in (1, 2, 4, 8)]
    patterns = sorted(itertools.product(range(4), repeat=2), key=max)
    signs = [np.outer(waves[down], waves[across]).reshape(-1) for down, across in patterns]
    return pixels @ np.stack(signs, 1).astype(np.float64) / pixels.shape[1]


def _candidates(means: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield indices of pairs, among which is every pair of duplicates but for very many that look alike.

    Four means, each cut into intervals of twice the bound and once more half an interval further on, put every pair of
    duplicates into one cell of at least one of the 16 grids.
    """
    shifts = np.array(list(itertools.product((0, 0.5), repeat=4)))
    cells = np.floor(means[None, :, :4] / (2 * _MOST_MEAN) + shifts[:, None]).astype(np.int64) + 512
    keys = np.ravel_multi_index(tuple(np.moveaxis(cells, -1, 0)), (1024,) * 4)  # [16, N]
    for grid, key in enumerate(keys):
        order = np.lexsort((means[:, 0], key))
        key = key[order]
        for lag in range(1, min(len(key), _MOST_IN_CELL)):
            same = np.flatnonzero(key[lag:] == key[:-lag])
            if not same.size:
                break
            one, other = order[same], order[same + lag]
            new = ~(keys[:grid, one] == keys[:grid, other]).any(0)
            yield one[new], other[new]


def _join(first: np.ndarray, one: np.ndarray, other: np.ndarray) -> None:
    """Give each pair one root, the smallest index of its group, and every index the root of its group."""
    if not one.size:
        return
    for a, b in zip(one.tolist(), other.tolist(), strict=True):
        roots = _root(first, a), _root(first, b)
        first[max(roots)] = min(roots)
    while not np.array_equal(first, shorter := first[first]):
        first[:] = shorter


def _root(first: np.ndarray, index: int) -> int:
    while first[index] != index:
        first[index] = first[first[index]]
        index = first[index]
    return int(index)
