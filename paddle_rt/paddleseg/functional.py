"""PaddleSeg's functions on images, faster and with the same values.

PaddleSeg's transforms call functions of its module `functional` by name, and `fast_transforms` has them call these. An
image of bytes stands for the float32 image of the same values, which PaddleSeg holds.
"""

import functools
import math
from collections.abc import Sequence
from fractions import Fraction

import cv2
import numpy as np
from PIL import Image, ImageEnhance

from paddle_rt.compiled import compiled

_RAMP = Image.fromarray(np.arange(256, dtype=np.uint8)[np.newaxis])  # every value once, "L"
_ROWS, _COLUMNS = (Image.fromarray(np.ascontiguousarray(grid, np.uint8)) for grid in np.indices((256, 256)))
# Channels by their values, the largest first, for each sixth of the colour circle.
_ORDER = np.array([[0, 1, 2], [1, 0, 2], [1, 2, 0], [2, 1, 0], [2, 0, 1], [0, 2, 1]], np.uint64)
_STEP = 16  # columns; the widths that OpenCV's kernels treat alike differ by a multiple of it


def floats(image: np.ndarray) -> np.ndarray:
    """Return the image as the float32 that PaddleSeg's own transforms expect."""
    return image.astype(np.float32) if image.dtype == np.uint8 else image


def resize(image: np.ndarray, size: Sequence[int], interp: int = cv2.INTER_LINEAR) -> np.ndarray:
    """Resize an image to (width, height)."""
    if tuple(size) == image.shape[1::-1]:
        return image
    return cv2.resize(image if interp == cv2.INTER_NEAREST else floats(image), tuple(size), interpolation=interp)


class Resized:
    """An image that is going to be resized, of which only a part may be asked for.

    Args:
        image: The image, bytes or float32, or labels.
        size: (width, height) that it gets.
        interp: `cv2.INTER_LINEAR` or `cv2.INTER_NEAREST`.
    """

    def __init__(self, image: np.ndarray, size: tuple[int, int], interp: int) -> None:
        self.image, self.size, self.interp = image, size, interp
        self.shape, self.ndim = (*size[::-1], *image.shape[2:]), image.ndim

    def whole(self) -> np.ndarray:
        """Return the resized image."""
        return resize(self.image, self.size, self.interp)

    def part(self, x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
        """Return `whole()[y1:y2, x1:x2]` to the bit, without computing much more than that."""
        image, (width, height) = self.image, self.size
        if self.size == image.shape[1::-1]:
            return image[y1:y2, x1:x2]
        if self.interp == cv2.INTER_NEAREST:
            rows, columns = _nearest(y1, y2, height, image.shape[0]), _nearest(x1, x2, width, image.shape[1])
            return image[rows].take(columns, axis=1)
        top, bottom, first_row, last_row = _aligned(y1, y2, height, image.shape[0], 1)
        left, right, first, last = _aligned(x1, x2, width, image.shape[1], _STEP)
        part = resize(image[first_row:last_row, first:last], (right - left, bottom - top))
        return part[y1 - top : y2 - top, x1 - left : x2 - left]


def _nearest(start: int, stop: int, pixels: int, source: int) -> np.ndarray:
    """Return the pixels of the source that OpenCV's nearest resize takes for those from `start` to `stop`."""
    return np.minimum(np.floor(np.arange(start, stop) * (1 / (pixels / source))).astype(np.intp), source - 1)


def _aligned(start: int, stop: int, pixels: int, source: int, step: int) -> tuple[int, int, int, int]:
    """Widen an interval of a resized axis to one that resizes alike by itself.

    The weights of a linear resize repeat where pixels:source is a ratio of small numbers: 5 pixels out of 4, then the
    next 5. An interval that begins and ends there has the weights that its pixels have in the whole. Rounding stays the
    same where no pixel falls upon a pixel of the source (one of the two numbers is even), and where the places of
    pixels are computed in float64, as in IPP, or are exact in float32. Elsewhere the whole axis is returned.

    Args:
        start: First pixel that is needed.
        stop: The pixel after the last one.
        pixels: Length of the resized axis.
        source: Length of the source's axis.
        step: The new interval starts at a multiple of it.

    Returns:
        The new start and stop, and those of the part of the source that becomes them.
    """
    ratio = Fraction(pixels, source)
    group, taken = ratio.numerator, ratio.denominator
    exact = group & (group - 1) == 0
    if (group % 2 and taken % 2) or not (exact or cv2.ipp.useIPP()):
        return 0, pixels, 0, source
    # A group more on each side, since the outermost pixels of a resized image are extrapolated.
    groups = pixels // group
    multiple = step // math.gcd(step, group)
    first = max((start // group - 1) // multiple * multiple, 0)
    last = min(-(-stop // group) + max(1, step // group), groups)
    return first * group, last * group, first * taken, last * taken


def crop(image: np.ndarray | Resized, crop_coordinate: tuple[int, int, int, int]) -> np.ndarray:
    """Cut (x1, y1, x2, y2) out of an image."""
    x1, y1, x2, y2 = crop_coordinate
    return image.part(x1, y1, x2, y2) if isinstance(image, Resized) else image[y1:y2, x1:x2]


def horizontal_flip(im: np.ndarray) -> np.ndarray:
    """Swap left and right."""
    quick = im.dtype in (np.uint8, np.float32) and im.shape[-1] > 1  # of one channel, OpenCV drops the last dimension
    return cv2.flip(im, 1) if quick else im[:, ::-1]


def vertical_flip(im: np.ndarray) -> np.ndarray:
    """Swap top and bottom."""
    return im[::-1]


def brightness(im: np.ndarray, brightness_lower: float, brightness_upper: float) -> np.ndarray:
    """Scale all values, bytes, by a random factor."""
    return cv2.LUT(im, _blended(0, np.random.uniform(brightness_lower, brightness_upper)))


def contrast(im: np.ndarray, contrast_lower: float, contrast_upper: float) -> np.ndarray:
    """Scale the distances from the mean grey value by a random factor."""
    factor = np.random.uniform(contrast_lower, contrast_upper)
    return cv2.LUT(im, _blended(int(_sum_of_greys(im) / (im.shape[0] * im.shape[1]) + 0.5), factor))


def _blended(grey: int, factor: float) -> np.ndarray:
    return np.asarray(Image.blend(Image.new("L", _RAMP.size, grey), _RAMP, factor))


def saturation(im: np.ndarray, saturation_lower: float, saturation_upper: float) -> np.ndarray:
    """Scale the distances from each pixel's own grey value by a random factor."""
    factor = np.random.uniform(saturation_lower, saturation_upper)
    return _recoloured(im, np.asarray(Image.blend(_ROWS, _COLUMNS, factor)))


def sharpness(im: np.ndarray, sharpness_lower: float, sharpness_upper: float) -> np.ndarray:
    """Sharpen or blur an image by a random factor."""
    factor = np.random.uniform(sharpness_lower, sharpness_upper)
    return np.asarray(ImageEnhance.Sharpness(Image.fromarray(im)).enhance(factor))


def hue(im: np.ndarray, hue_lower: float, hue_upper: float) -> np.ndarray:
    """Turn the hues of an RGB image by a random number of steps, of which a full turn has 256."""
    hues = np.arange(256, dtype=np.uint8)
    hues[:] = hues + np.random.uniform(hue_lower, hue_upper)
    turns = hues * 6.0 / 255.0
    sextants = np.floor(turns).astype(np.uint64)
    places = (turns - sextants).astype(np.float32).astype(np.float64)
    return _turned(im, np.where(sextants % 2, places, 1.0 - places), sextants % 6, _ORDER, *_hsv_tables())


@functools.cache
def _hsv_tables() -> tuple[np.ndarray, ...]:
    """Return Pillow's conversion from RGB to HSV, whose roundings in single and in double precision decide, as tables.

    Returns:
        The hue by which channel is the largest, the distance of the largest from the smallest value and, plus 255, that
        of the other two channels; the saturation, from 0 to 1, by the largest value and its distance from the smallest;
        and the smallest value that HSV gives back, by the same two. uint8 [3, 256, 511], float64 and uint8 [256, 256].
    """
    spread, other = np.arange(256)[:, np.newaxis], np.arange(-255, 256)
    scale = np.maximum(spread, 1).astype(np.float32)
    plus = (np.where(other >= 0, spread, spread + other) / scale).astype(np.float32).astype(np.float64)
    minus = (np.where(other >= 0, spread - other, spread) / scale).astype(np.float32)
    angles = np.stack([start + plus - minus for start in (0.0, 2.0, 4.0)]).astype(np.float32).astype(np.float64)
    hues = ((angles / 6.0 + 1.0) % 1.0).astype(np.float32).astype(np.float64) * 255.0
    high, spread = np.indices((256, 256)).astype(np.float32)
    levels = (np.minimum(spread, high) / np.maximum(high, 1)).astype(np.float64)
    shares = (np.floor(levels * 255.0) / 255.0).astype(np.float32).astype(np.float64)
    return hues.astype(np.uint8), shares, (high * (1.0 - shares) + 0.5).astype(np.uint8)


@compiled()
def _grey(red: int, green: int, blue: int) -> int:
    return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16  # Pillow's, of ITU-R 601-2


@compiled()
def _sum_of_greys(image: np.ndarray) -> int:
    total = 0
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            total += _grey(np.int64(image[y, x, 0]), np.int64(image[y, x, 1]), np.int64(image[y, x, 2]))
    return total


@compiled()
def _recoloured(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return, for each value of an RGB image, the table's entry of the pixel's grey value and the value."""
    result = np.empty(image.shape, np.uint8)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            red, green, blue = np.int64(image[y, x, 0]), np.int64(image[y, x, 1]), np.int64(image[y, x, 2])
            grey = _grey(red, green, blue)
            result[y, x, 0], result[y, x, 1], result[y, x, 2] = table[grey, red], table[grey, green], table[grey, blue]
    return result


@compiled()
def _turned(
    image: np.ndarray,
    places: np.ndarray,
    sextants: np.ndarray,
    order: np.ndarray,
    hues: np.ndarray,
    shares: np.ndarray,
    lows: np.ndarray,
) -> np.ndarray:
    """Convert an RGB image to HSV as Pillow does, exchange its hues, and convert it back.

    There are no branches, since the hues of neighbouring pixels vary.

    Args:
        image: uint8 [H, W, 3].
        places: float64 [256]; how far the second largest value of a colour lies below the largest, as a share of its
            saturation, by the old hue.
        sextants: uint64 [256], the new hue's sixth of the colour circle, by the old hue.
        order: uint64 [6, 3], the channels of the largest, second and smallest value in each sixth.
        hues: See `_hsv_tables`.
        shares: See `_hsv_tables`.
        lows: See `_hsv_tables`.
    """
    result = np.empty(image.shape, np.uint8)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            red, green, blue = np.int64(image[y, x, 0]), np.int64(image[y, x, 1]), np.int64(image[y, x, 2])
            high = max(red, green, blue)
            spread = np.uint64(high - min(red, green, blue))
            largest = 0 if red == high else (1 if green == high else 2)
            other = green - blue if red == high else (blue - red if green == high else red - green)
            hue = hues[np.uint64(largest), spread, np.uint64(other + 255)]
            share = shares[np.uint64(high), spread]
            sixth, below = sextants[hue], share * places[hue]
            below = np.float64(np.float32(below)) if sixth & np.uint64(1) else below
            result[y, x, order[sixth, 0]] = high
            result[y, x, order[sixth, 1]] = np.int32(high * (1.0 - below) + 0.5)
            result[y, x, order[sixth, 2]] = lows[np.uint64(high), spread]
    return result


@compiled()
def _normalize_plane(plane: np.ndarray, mean: float, std: float, result: np.ndarray) -> None:
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            result[y, x] = np.float32(plane[y, x] / np.float32(255) - mean) / std


def normalized_planes(image: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return (image / 255 - mean) / std in planes.

    NumPy divides by 255 in single precision, and computes the rest in double with a rounding after each step.

    Shape: float32 [H, W, C] or [H, W], float64 [C] or [1] to float32 [C, H, W].
    """
    planes = cv2.split(image)
    result = np.empty((len(planes), *image.shape[:2]), np.float32)
    numbers = (np.broadcast_to(values, len(planes)) for values in (mean, std))
    for plane, plane_mean, plane_std, values in zip(planes, *numbers, result, strict=True):
        _normalize_plane(plane, plane_mean, plane_std, values)
    return result
