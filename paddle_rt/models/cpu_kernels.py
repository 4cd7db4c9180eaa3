"""Compiled kernels for layers whose operators in Paddle are slow on a CPU.

The maps of a depthwise convolution are tokens, [B h w, C], so that the loop over the channels is vectorised whatever
the size of a map is. The innermost loops count from 0 upwards, since LLVM does not vectorise a loop whose index may be
negative. Every kernel releases the GIL and works on image rows or planes of its own, so that ordinary threads run it in
parallel.
"""

import math
from typing import NamedTuple

import numpy as np

from paddle_rt.compiled import compiled

_compiled = compiled(fastmath={"contract"})  # a fused multiply-add rounds once instead of twice
_LOG2E = np.float32(1 / np.log(2))
# 2 ** f for f from -1/2 to 1/2 by a polynomial of degree 6, lowest power first: Taylor's, accurate to 2e-7.
_C1, _C2, _C3, _C4, _C5, _C6 = (np.float32(np.log(2) ** k / math.factorial(k)) for k in range(1, 7))


class Axis(NamedTuple):
    """The places of n values among the values of a coarser, or finer, axis.

    Args:
        before: uint64 [n], the index of the value at or before each place.
        after: uint64 [n], the index of the value after it, or the last one.
        weight: float32 [n], the weight of the value after it, from 0 to 1.
    """

    before: np.ndarray
    after: np.ndarray
    weight: np.ndarray


@_compiled
def convolve_rows(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, height: int, width: int, first: int, end: int, out: np.ndarray
) -> None:
    """Convolve the rows of the images from `first` to `end` - 1 with a 3x3 kernel for each channel, padded by zeros.

    Shape: x and out float32 [B h w, C]; weight float32 [9, C]; bias float32 [C].
    """
    channels = x.shape[1]
    for line in range(first, end):
        top = max(0, 1 - line % height)
        bottom = min(3, height + 1 - line % height)
        for column in range(width):
            place = line * width + column
            for c in range(channels):
                out[place, c] = bias[c]
            for ky in range(top, bottom):
                source = place + (ky - 1) * width
                if 0 < column < width - 1:
                    for c in range(channels):
                        out[place, c] += (
                            x[source - 1, c] * weight[3 * ky, c]
                            + x[source, c] * weight[3 * ky + 1, c]
                            + x[source + 1, c] * weight[3 * ky + 2, c]
                        )
                else:
                    for kx in range(max(0, 1 - column), min(3, width + 1 - column)):
                        for c in range(channels):
                            out[place, c] += x[source + kx - 1, c] * weight[3 * ky + kx, c]


@_compiled
def add_weight_gradient(
    x: np.ndarray, gradient: np.ndarray, height: int, width: int, first: int, end: int, total: np.ndarray
) -> None:
    """Add the gradients of the weight and of the bias of `convolve_rows` from the rows from `first` to `end` - 1.

    A row is summed by itself first, which keeps the rounding small.

    Shape: x and gradient float32 [B h w, C]; total float32 [10, C], the last row for the bias.
    """
    channels = x.shape[1]
    part = np.empty((10, channels), np.float32)
    for line in range(first, end):
        part[:] = 0
        for ky in range(max(0, 1 - line % height), min(3, height + 1 - line % height)):
            for kx in range(3):
                k, shift = 3 * ky + kx, (ky - 1) * width + kx - 1
                place, stop = line * width + max(0, 1 - kx), line * width + min(width, width + 1 - kx)
                while place + 4 <= stop:  # four pixels at a time, since `part` is read and written for each time
                    source = place + shift
                    for c in range(channels):
                        part[k, c] += (
                            gradient[place, c] * x[source, c]
                            + gradient[place + 1, c] * x[source + 1, c]
                            + gradient[place + 2, c] * x[source + 2, c]
                            + gradient[place + 3, c] * x[source + 3, c]
                        )
                    place += 4
                while place < stop:
                    for c in range(channels):
                        part[k, c] += gradient[place, c] * x[place + shift, c]
                    place += 1
        for place in range(line * width, (line + 1) * width):
            for c in range(channels):
                part[9, c] += gradient[place, c]
        total += part


@_compiled
def resize_planes(x: np.ndarray, lines: Axis, columns: Axis, first: int, end: int, out: np.ndarray) -> None:
    """Resize the planes from `first` to `end` - 1 bilinearly: along the rows, and then along the columns.

    Shape: x float32 [P, h, w]; out float32 [P, H, W].
    """
    wide = np.empty((x.shape[1], out.shape[2]), np.float32)
    for plane in range(first, end):
        for y in range(x.shape[1]):
            for p in range(out.shape[2]):
                left, right = x[plane, y, columns.before[p]], x[plane, y, columns.after[p]]
                wide[y, p] = left + columns.weight[p] * (right - left)
        for line in range(out.shape[1]):
            above, below, weight = wide[lines.before[line]], wide[lines.after[line]], lines.weight[line]
            for p in range(out.shape[2]):
                out[plane, line, p] = above[p] + weight * (below[p] - above[p])


@_compiled
def resize_gradient(gradient: np.ndarray, lines: Axis, columns: Axis, first: int, end: int, out: np.ndarray) -> None:
    """Compute the gradients of the planes that `resize_planes` resized.

    Shape: gradient float32 [P, H, W]; out float32 [P, h, w].
    """
    wide = np.empty((out.shape[1], gradient.shape[2]), np.float32)
    for plane in range(first, end):
        wide[:] = 0
        for line in range(gradient.shape[1]):
            above, below, weight = wide[lines.before[line]], wide[lines.after[line]], lines.weight[line]
            for p in range(gradient.shape[2]):
                above[p] += (np.float32(1) - weight) * gradient[plane, line, p]
            for p in range(gradient.shape[2]):
                below[p] += weight * gradient[plane, line, p]
        out[plane] = 0
        for y in range(out.shape[1]):
            for p in range(gradient.shape[2]):
                right = columns.weight[p] * wide[y, p]
                out[plane, y, columns.before[p]] += wide[y, p] - right
                out[plane, y, columns.after[p]] += right


@_compiled
def _exponentials(x: np.ndarray, shift: np.ndarray, out: np.ndarray, bits: np.ndarray, power: np.ndarray) -> None:
    """Compute exp(x - shift), as a power of 2: a polynomial for its fraction times its exponent.

    Below 2 ** -126 the result is that, and above 2 ** 127, which no logit exceeds its pixel's normaliser by, undefined.
    What is not a number stays so.

    Args:
        x: float32 [n].
        shift: float32 [n].
        out: float32 [n].
        bits: int32 [n], memory for the exponents.
        power: float32 [n], a view of the memory of `bits`.
    """
    for p in range(out.size):
        exponent = (x[p] - shift[p]) * _LOG2E
        exponent = np.float32(-126) if exponent < np.float32(-126) else exponent
        whole = np.floor(exponent + np.float32(0.5))
        f = exponent - whole
        out[p] = np.float32(1) + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * (_C5 + f * _C6)))))
        bits[p] = (np.int32(whole) + np.int32(127)) << np.int32(23)
    for p in range(out.size):
        out[p] *= power[p]


@_compiled
def cross_entropy_rows(
    logits: np.ndarray, labels: np.ndarray, ignored: int, first: int, end: int, out: np.ndarray
) -> None:
    """Compute cross-entropies, and normalisers, of the pixels of the rows from `first` to `end` - 1.

    A normaliser is the logarithm of the sum of the exponentials of a pixel's logits.

    Shape: logits float32 [B, C, H, W]; labels int64 [B, H, W], `ignored` or below C; out float32 [2, B, H, W].
    """
    _, classes, height, width = logits.shape
    best, total, part = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    bits = np.empty(width, np.int32)
    power = bits.view(np.float32)
    for line in range(first, end):
        image, y = divmod(line, height)
        best[:], total[:] = logits[image, 0, y], 0
        for c in range(1, classes):
            row = logits[image, c, y]
            for p in range(width):
                best[p] = best[p] if best[p] > row[p] else row[p]
        for c in range(classes):
            _exponentials(logits[image, c, y], best, part, bits, power)
            for p in range(width):
                total[p] += part[p]
        for p in range(width):
            normaliser = best[p] + np.log(total[p])
            label = labels[image, y, p]
            out[0, image, y, p] = 0 if label == ignored else normaliser - logits[image, label, y, p]
            out[1, image, y, p] = normaliser


@_compiled
def cross_entropy_gradient(
    logits: np.ndarray,
    labels: np.ndarray,
    normalisers: np.ndarray,
    gradient: np.ndarray,
    ignored: int,
    first: int,
    end: int,
    out: np.ndarray,
) -> None:
    """Compute the gradients of the logits from those of what `cross_entropy_rows` computes.

    Shape: as there; normalisers and gradient float32 [B, H, W]; out float32 [B, C, H, W].
    """
    _, classes, height, width = logits.shape
    own, bits = np.empty(width, np.float32), np.empty(width, np.int32)
    power = bits.view(np.float32)
    for line in range(first, end):
        image, y = divmod(line, height)
        for p in range(width):
            own[p] = 0 if labels[image, y, p] == ignored else gradient[image, y, p]
        for c in range(classes):
            row = out[image, c, y]
            _exponentials(logits[image, c, y], normalisers[image, y], row, bits, power)
            for p in range(width):
                row[p] *= own[p]
        for p in range(width):
            if labels[image, y, p] != ignored:
                out[image, labels[image, y, p], y, p] -= own[p]
