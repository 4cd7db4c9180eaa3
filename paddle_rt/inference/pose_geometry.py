"""Geometry of top-down pose estimation: from a box to the network's input, and from heatmaps to points in the image.

Sizes are (width, height), points are (x, y) in pixels, and pixel i has its centre at i. With `udp`, the unbiased data
processing of Huang et al. (CVPR 2020), lengths are measured between the centres of the first and the last pixel, so
that a size of W pixels has a length of W - 1; without it, as the originals measure, W.

Source: Kienzle et al., SegFormer++, MIPR 2024, arXiv 2405.14467, whose pose code is a fork of MMPose 1.2.0; DARK: Zhang
et al., CVPR 2020, arXiv 1910.06278; UDP: arXiv 1911.07524.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from paddle_rt.errors import unknown

DECODINGS = ("argmax", "quarter", "dark")
BLUR_KERNEL = 17  # for heatmaps of sigma 3; MMPose has 11 for sigma 2


def box_to_center_scale(boxes: np.ndarray, padding: float = 1.25) -> tuple[np.ndarray, np.ndarray]:
    """Return the centres of boxes, and their sizes enlarged by the padding.

    Args:
        boxes: [N, 4] as x1, y1, x2, y2.
        padding: Factor of the sizes.

    Returns:
        Centres and scales, each float32 [N, 2].
    """
    boxes = np.asarray(boxes, np.float32)
    first, last = boxes[:, :2], boxes[:, 2:]
    return (first + last) * np.float32(0.5), (last - first) * np.float32(padding)


def fix_aspect(scales: np.ndarray, input_size: Sequence[int]) -> np.ndarray:
    """Enlarge one side of each scale so that its aspect ratio is that of the network's input.

    Args:
        scales: [..., 2].
        input_size: Width and height of the input.

    Returns:
        float32 [..., 2].
    """
    aspect = np.float32(input_size[0] / input_size[1])
    width, height = np.moveaxis(np.asarray(scales, np.float32), -1, 0)
    is_wide = width > height * aspect
    return np.stack([np.where(is_wide, width, height * aspect), np.where(is_wide, width / aspect, height)], axis=-1)


def warp_matrix(
    center: np.ndarray, scale: np.ndarray, input_size: Sequence[int], rotation: float = 0.0, udp: bool = False
) -> np.ndarray:
    """Return the matrix from the image to the network's input.

    Args:
        center: The point that comes to the centre of the input.
        scale: Width and height of the region that fills the input, of the aspect ratio of the input.
        input_size: Width and height of the input.
        rotation: Angle in degrees. A positive one turns the content counter-clockwise.
        udp: Measure lengths between the centres of pixels.

    Returns:
        float64 [2, 3].
    """
    length = np.array(input_size, np.float64) - udp
    center, scale = np.asarray(center, np.float64), np.asarray(scale, np.float64)
    factors = length / scale if udp else np.full(2, length[0] / scale[0])
    cos, sin = np.cos(np.deg2rad(rotation)), np.sin(np.deg2rad(rotation))
    turn = factors[:, None] * np.array([[cos, sin], [-sin, cos]])
    return np.column_stack([turn, length / 2 - turn @ center])


def warp(image: np.ndarray, matrix: np.ndarray, input_size: Sequence[int]) -> np.ndarray:
    """Return the network's input from an image, with bilinear interpolation and black outside the image.

    Args:
        image: uint8 [H, W, 3].
        matrix: [2, 3] from the image to the input.
        input_size: Width and height of the input.
    """
    return cv2.warpAffine(image, matrix, tuple(map(int, input_size)), flags=cv2.INTER_LINEAR)


def transform_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply a matrix [2, 3] to points [..., 2]; the result is float32."""
    return (np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def to_image(
    points: np.ndarray, centers: np.ndarray, scales: np.ndarray, input_size: Sequence[int], udp: bool = False
) -> np.ndarray:
    """Map points from inputs without rotation back to the image.

    Args:
        points: [N, K, 2] in pixels of the inputs.
        centers: [N, 2].
        scales: [N, 2], of the aspect ratio of the input.
        input_size: Width and height of the input.
        udp: As for `warp_matrix`.

    Returns:
        float32 [N, K, 2].
    """
    length = np.array(input_size, np.float64) - udp
    centers, scales = (np.asarray(part, np.float64)[:, None] for part in (centers, scales))
    return (points / length * scales + centers - 0.5 * scales).astype(np.float32)


def mirror_heatmaps(heatmaps: np.ndarray, flip_indices: np.ndarray, shift: bool = True) -> np.ndarray:
    """Turn the heatmaps of mirrored inputs into heatmaps of the inputs themselves.

    Without UDP the position of a cell is 4 times its number, so that mirroring the cells is 3/4 of a cell off. The
    shift leaves 1/4 of a cell in the other direction.

    Args:
        heatmaps: [N, K, H, W].
        flip_indices: The partner of each keypoint, [K].
        shift: Move the result by one column to the right; column 0 keeps its values. UDP needs no shift.
    """
    mirrored = heatmaps[:, flip_indices, :, ::-1].copy()
    if shift:
        mirrored[..., 1:] = mirrored[..., :-1].copy()
    return mirrored


def decode(
    heatmaps: np.ndarray,
    decoding: str = "quarter",
    udp: bool = False,
    stride: int = 4,
    blur_kernel: int = BLUR_KERNEL,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the maximum of each heatmap, the first in the order of rows where several are equal.

    "argmax" gives the cell. "quarter" is the originals' rule: a quarter of a cell towards the larger neighbour, though
    not for a maximum in the first two or the last column (x) or row (y), nor in x for one in row 0 or in y for one in
    column 0. "dark" gives the maximum of a Gaussian that is fitted to the blurred heatmap around the cell, unless that
    lies less than two cells from the border.

    Args:
        heatmaps: [N, K, H, W].
        decoding: One of `DECODINGS`.
        udp: As for `warp_matrix`.
        stride: Pixels of the input for one cell.
        blur_kernel: Size of the blur for "dark", odd, about that of the Gaussians of the targets.

    Returns:
        Points in pixels of the input, float32 [N, K, 2], and scores, the values of the maxima, float32 [N, K]. A
        heatmap without a positive value gives the cell (-1, -1).

    Raises:
        UserError: The decoding is unknown.
    """
    if decoding not in DECODINGS:
        raise unknown("decoding", decoding, DECODINGS)
    count, keypoints, height, width = heatmaps.shape
    maps = np.asarray(heatmaps, np.float32).reshape(count * keypoints, height, width)
    cells = maps.reshape(len(maps), height * width).argmax(axis=1)
    rows, columns = np.divmod(cells, width)
    scores = maps[np.arange(len(maps)), rows, columns]
    found = scores > 0
    points = np.where(found[:, None], np.stack([columns, rows], axis=1), -1).astype(np.float32)
    if decoding == "quarter":
        points[found] += _quarter(maps[found], rows[found], columns[found])
    elif decoding == "dark":
        points[found] += _dark(maps[found], rows[found], columns[found], blur_kernel)
    size = np.array([width, height], np.float32)
    points *= (size * stride - 1) / (size - 1) if udp else np.float32(stride)
    return points.reshape(count, keypoints, 2), scores.reshape(count, keypoints)


def _quarter(maps: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the offset of each maximum, [M, 2]. Shape: maps [M, H, W], rows and columns [M]."""
    _, height, width = maps.shape
    at = _neighbours(maps, rows, columns)
    moves_x = (columns > 1) & (columns < width - 1) & (rows > 0)
    moves_y = (rows > 1) & (rows < height - 1) & (columns > 0)
    signs = np.stack([np.sign(at(0, 1) - at(0, -1)), np.sign(at(1, 0) - at(-1, 0))], axis=1)
    return np.float32(0.25) * signs * np.stack([moves_x, moves_y], axis=1)


def _dark(maps: np.ndarray, rows: np.ndarray, columns: np.ndarray, kernel: int) -> np.ndarray:
    """Return the offset of each maximum by one Newton step on the logarithm, [M, 2]. Shape: as for `_quarter`."""
    _, height, width = maps.shape
    blurred = [cv2.GaussianBlur(one, (kernel, kernel), 0, borderType=cv2.BORDER_CONSTANT) for one in maps]
    logs = np.log(np.maximum(np.reshape(blurred, maps.shape), 1e-10)).astype(np.float64)
    at = _neighbours(logs, rows, columns)
    gradient = np.stack([at(0, 1) - at(0, -1), at(1, 0) - at(-1, 0)], axis=1) / 2
    dxx = (at(0, 2) - 2 * at(0, 0) + at(0, -2)) / 4
    dyy = (at(2, 0) - 2 * at(0, 0) + at(-2, 0)) / 4
    dxy = (at(1, 1) - at(-1, 1) - at(1, -1) + at(-1, -1)) / 4
    determinant = dxx * dyy - dxy**2
    inside = (columns > 1) & (columns < width - 2) & (rows > 1) & (rows < height - 2) & (determinant != 0)
    adjugate = np.stack([dyy * gradient[:, 0] - dxy * gradient[:, 1], dxx * gradient[:, 1] - dxy * gradient[:, 0]], 1)
    return np.where(inside[:, None], -adjugate / np.where(inside, determinant, 1)[:, None], 0)


def _neighbours(maps, rows, columns):  # noqa: ANN001, ANN202
    """Return a function that reads the cells at an offset from the maxima; beyond the border, the nearest cell."""
    _, height, width = maps.shape
    every = np.arange(len(maps))
    return lambda down, right: maps[every, np.clip(rows + down, 0, height - 1), np.clip(columns + right, 0, width - 1)]
