"""Compiled kernels for layers whose operators in Paddle are slow on a CPU.

The maps of a depthwise convolution are tokens, [B h w, C], so that the loop over the channels is vectorised whatever
the size of a map is. The innermost loops count from 0 upwards, since LLVM does not vectorise a loop whose index may be
negative. Every kernel releases the GIL and works on image rows or planes of its own, so that ordinary threads run it in
parallel.
"""

from typing import NamedTuple

import numpy as np

from paddle_rt.compiled import compiled

_compiled = compiled(fastmath={"contract"})  # a fused multiply-add rounds once instead of twice


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
