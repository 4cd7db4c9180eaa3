"""Images that look the same, also where one was encoded again or resized."""

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from paddle_rt.analysis.files import PairFacts

# Of the 64 signs of a difference hash that may differ, and of the thumbnails of 16 x 16 pixels, whose values are 0 to
# 255, the mean and the largest difference: images that were saved again as JPEG stay below, frames of a video do not.
MOST_SIGNS = 6
MOST_MEAN, MOST_ANY = 2.0, 10
_LEAST_DEVIATION = 3.0  # of a thumbnail; an image of one colour, such as a black frame, is like any other
_PRODUCTS = 2**24  # that are computed at once


def find_duplicates(splits: Sequence[Sequence[PairFacts]], ratio: float = 0.03) -> list[tuple[tuple[int, int], ...]]:
    """Find images that look the same.

    A difference hash (64 signs of an image of 9 x 8 pixels) finds candidates, thumbnails decide.

    Args:
        splits: What was found in the images of each data set.
        ratio: How much the ratios of width and height may differ.

    Returns:
        Pairs of places (split, number): the first of the images that look the same, and each of the others.
    """
    places = [
        (number, index)
        for number, split in enumerate(splits)
        for index, facts in enumerate(split)
        if facts.thumbnail is not None and facts.thumbnail.std() > _LEAST_DEVIATION
    ]
    if len(places) < 2:
        return []
    facts = [splits[number][index] for number, index in places]
    signs = np.stack([one.signs for one in facts]).astype(np.float32)
    thumbnails = np.stack([one.thumbnail for one in facts])
    shapes = np.array([one.size[1] / one.size[0] for one in facts])
    found, is_known = [], np.zeros(len(facts), bool)
    step = max(1, _PRODUCTS // len(facts))
    for start in tqdm(range(0, len(facts), step), desc="look for duplicates", leave=False, disable=None, delay=2):
        # The product of two rows of signs is 64 less twice the number of those that differ.
        alike = signs[start : start + step] @ signs[start:].T >= signs.shape[1] - 2 * MOST_SIGNS
        for row in np.flatnonzero(alike.sum(axis=1) > 1):
            one, others = start + row, start + row + 1 + np.flatnonzero(alike[row, row + 1 :])
            if is_known[one] or not others.size:
                continue
            differences = np.abs(thumbnails[others].astype(np.int16) - thumbnails[one]).reshape(len(others), -1)
            is_same = (differences.mean(axis=1) <= MOST_MEAN) & (differences.max(axis=1) <= MOST_ANY)
            same = others[is_same & (np.abs(shapes[others] / shapes[one] - 1) <= ratio)]
            is_known[same] = True
            found += [(places[one], places[other]) for other in same]
    return found
