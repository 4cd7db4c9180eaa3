"""Compiled kernels for layers whose operators in Paddle are slow on a CPU.

Maps are tokens here, [B h w, C], so that the loop over the channels is vectorised whatever the size of a map is. All
indices count from 0 upwards within the kernels, since LLVM does not vectorise a loop whose index may be negative.
Every kernel releases the GIL and works on image rows of its own, so that ordinary threads run it in parallel.
"""

import numpy as np

from paddle_rt.compiled import compiled

_compiled = compiled(fastmath={"contract"})  # a fused multiply-add rounds once instead of twice


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
