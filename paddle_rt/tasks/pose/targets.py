"""Targets of top-down pose: one heatmap for each keypoint, with a Gaussian at its position."""

from collections.abc import Sequence

import numpy as np


def make_heatmaps(
    points: np.ndarray,
    visible: np.ndarray,
    input_size: Sequence[int],
    heatmap_size: Sequence[int],
    sigma: float,
    unbiased: bool = False,
    udp: bool = False,
    corrected: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return heatmaps with a Gaussian of height 1 for each visible keypoint, and the weights of the heatmaps.

    As in the original, the centre of a Gaussian is a cell, the Gaussian is cut at 3 sigma in both directions, and the
    weight is `visible`, or 0 where the square of 3 sigma misses the heatmap. Three slips of the original are kept:

    1. Positions are rounded by adding 1/2 and cutting the decimals off, so that negative ones come one cell too far to
       the right or too far down.
    2. A square that ends just before row or column 0 counts as one that meets the heatmap: the heatmap is empty, but
       its weight is not 0.
    3. A keypoint whose `visible` lies between 0 and 1/2 gets no Gaussian but keeps its weight.

    Args:
        points: [K, 2] in pixels of the input.
        visible: [K]; a keypoint is drawn from 1/2 on.
        input_size: Width and height of the network's input.
        heatmap_size: Width and height of the heatmaps.
        sigma: Standard deviation of the Gaussians in cells.
        unbiased: Centre the Gaussians at the positions themselves and do not cut them, as DARK does in training.
        udp: Centre the Gaussians at the positions themselves, with lengths between the centres of pixels; see
            `pose_geometry`.
        corrected: Round every position to the nearest cell, and give no weight to an empty heatmap.

    Returns:
        Heatmaps, float32 [K, H, W], and weights, float32 [K].

    Source: MMPose 1.2.0 `MSRAHeatmap` and `UDPHeatmap`; DARK, arXiv 1910.06278; UDP, arXiv 1911.07524.
    """
    size = np.array(heatmap_size, np.float32)
    cells = np.asarray(points, np.float32) / ((np.array(input_size, np.float32) - udp) / (size - udp))  # [K, 2]
    rounded = cells + np.float32(0.5)
    middle = np.floor(rounded) if corrected else np.trunc(rounded)
    radius = np.ceil(3 * sigma)
    if unbiased and not udp:
        middle = cells  # only to tell which Gaussians miss the heatmap
    behind = middle + radius + 1  # [K, 2], the first cell behind the square
    misses = (middle - radius >= size).any(axis=1) | (behind <= 0 if corrected else behind < 0).any(axis=1)
    is_drawn = (np.asarray(visible) >= 0.5) & ~misses
    weights = np.where((np.asarray(visible) >= 0.5) & misses, 0, visible).astype(np.float32)
    if corrected:
        weights[~is_drawn] = 0
    sides = []
    for axis in (0, 1):
        distance = np.arange(heatmap_size[axis]) - (cells if unbiased or udp else middle)[:, axis, None].astype(float)
        side = np.exp(-(distance**2) / (2 * sigma**2))  # [K, W], then [K, H]
        if udp or not unbiased:
            side[np.abs(np.arange(heatmap_size[axis]) - middle[:, axis, None]) > radius] = 0
        sides.append(side)
    heatmaps = sides[1][:, :, None] * sides[0][:, None, :] * is_drawn[:, None, None]
    return heatmaps.astype(np.float32), weights
