"""Images that look the same, also where one was encoded again or resized."""

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from paddle_rt.analysis.files import PairFacts

# Of the 64 signs of a difference hash that may differ, and of the thumbnails of 16 x 16 pixels, whose values are 0 to
# 255, the mean and the largest difference: images that were saved again as JPEG stay below, frames of a video do not.
MOST_SIGNS = 6
MOST_MEAN, MOST_ANY = 2.0, 10
_BLOCK = 2048  # images that are compared at once with all others


def find_duplicates(splits: Sequence[Sequence[PairFacts]], ratio: float = 0.03) -> list[tuple[tuple[int, int], ...]]:
    """Find pairs of images that look the same.

    A difference hash (64 signs of an image of 9 x 8 pixels) finds candidates, thumbnails decide.

    Args:
        splits: What was found in the images of each data set.
        ratio: How much the ratios of width and height may differ.

    Returns:
        Pairs of places (split, number), the first before the second.
    """
    places = [(s, i) for s, split in enumerate(splits) for i, facts in enumerate(split) if facts.signs is not None]
    if len(places) < 2:
        return []
    facts = [splits[s][i] for s, i in places]
    signs = np.stack([one.signs for one in facts]).astype(np.float32)
    thumbnails = np.stack([one.thumbnail for one in facts])
    shapes = np.array([one.size[1] / one.size[0] for one in facts])
    found = []
    for start in tqdm(range(0, len(facts), _BLOCK), desc="look for duplicates", leave=False, disable=None, delay=2):
        # The product of two rows of signs is 64 less twice the number of those that differ.
        alike = signs[start : start + _BLOCK] @ signs[start:].T >= signs.shape[1] - 2 * MOST_SIGNS
        for a, b in np.argwhere(np.triu(alike, 1)) + start:
            difference = np.abs(thumbnails[a].astype(np.int16) - thumbnails[b])
            same_shape = abs(shapes[a] / shapes[b] - 1) <= ratio
            if same_shape and difference.mean() <= MOST_MEAN and difference.max() <= MOST_ANY:
                found.append((places[a], places[b]))
    return found
