"""Layers that more than one model uses unchanged."""

from collections.abc import Sequence

import numpy as np
import paddle
import paddle.nn as nn
import paddle.nn.functional as F

# Paddle keeps `momentum` of the old running statistic, PyTorch replaces `momentum` of it. A number carried over from
# PyTorch unchanged therefore lets one batch overwrite nine tenths of what was learned about the data.
RELEASE_BN_MOMENTUM = 0.1
MENDED_BN_MOMENTUM = 0.9


def spatial_size(x: paddle.Tensor) -> list[int | paddle.Tensor]:
    """Height and width of [B, C, H, W]: integers where they are known, 0-D tensors in a graph that leaves them open."""
    return [x.shape[axis] if x.shape[axis] > 0 else paddle.shape(x)[axis] for axis in (2, 3)]


def to_tokens(x: paddle.Tensor) -> paddle.Tensor:
    """[B, C, h, w] to [B, h w, C]."""
    return x.flatten(2).transpose([0, 2, 1])


def to_map(tokens: paddle.Tensor, size: Sequence[int | paddle.Tensor]) -> paddle.Tensor:
    """[B, h w, C] to [B, C, h, w]."""
    return tokens.transpose([0, 2, 1]).reshape([0, tokens.shape[2], *size])


def resize_as(x: paddle.Tensor, reference: paddle.Tensor, align_corners: bool = False) -> paddle.Tensor:
    """Resize `x` bilinearly to the height and width of `reference`, with half-pixel centres or with aligned corners."""
    size = spatial_size(reference)
    if align_corners and not paddle.in_dynamic_mode():
        # In Paddle Inference 3.2 the oneDNN kernel of the bilinear operator computes half-pixel centres whatever it is
        # asked for (relative error 0.26 from 4x5 to 9x13). The trilinear operator has no such kernel and gives, on a
        # map of depth 1, the same numbers; the ONNX graph gets its plain Resize back in graph/folding.py.
        x = x.unsqueeze(2)  # [B, C, 1, H, W]
        return F.interpolate(x, [1, *size], mode="trilinear", align_corners=True, data_format="NCDHW").squeeze(2)
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


class DropPath(nn.Layer):
    """Drop a whole residual branch of single samples while training ("stochastic depth").

    Args:
        rate: Probability with which a sample's branch becomes zero; the others are scaled by 1 / (1 - rate).

    Shape: [B, ...] to the same.

    Source: Huang et al., Deep Networks with Stochastic Depth, arXiv 1603.09382.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"drop_path_rate must be at least 0 and below 1, got {rate}")
        self.rate = rate

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if not self.training or self.rate == 0.0:
            return x
        # The draw and the comparison are PaddleSeg's, so that one seed drops the same samples in both.
        kept = paddle.rand([x.shape[0]] + [1] * (x.ndim - 1), dtype=x.dtype) >= self.rate
        return x / (1.0 - self.rate) * kept.astype(x.dtype)


class AdaptiveMaxPool2D(nn.Layer):
    """Maximum over a fixed grid of windows: window i of n covers floor(i L / n) to ceil((i + 1) L / n) - 1.

    Eager mode and training run Paddle's operator. An inference graph is made of gathers and maxima instead, since ONNX
    has no adaptive pooling and paddle2onnx turns Paddle's into one fixed window: the wrong one wherever L is not a
    multiple of n. Both give the same numbers to the bit.

    Args:
        output_size: Windows along the height and along the width.

    Shape: [B, C, H, W] to [B, C, output_size, output_size].
    """

    def __init__(self, output_size: int) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if paddle.in_dynamic_mode() or self.training:
            return F.adaptive_max_pool2d(x, self.output_size)
        columns = _window_max(x, self.output_size)  # [B, C, H, n]
        return _window_max(columns.transpose([0, 1, 3, 2]), self.output_size).transpose([0, 1, 3, 2])


# Lengths are integers or tensors as they come. Paddle's rewriting of Python code, switched off here, mixes them up.
@paddle.jit.not_to_static
def _window_max(x: paddle.Tensor, windows: int) -> paddle.Tensor:
    """Pool the last axis of [B, C, A, L] to [B, C, A, windows] by gathering every window to one common width."""
    length = x.shape[-1]
    if length > 0:
        index = _window_index(np.arange, np.minimum, length, windows)
        gathered = x if np.array_equal(index, np.arange(length)) else x.index_select(paddle.to_tensor(index), axis=-1)
    else:
        gathered = x.index_select(_window_index(paddle.arange, paddle.minimum, paddle.shape(x)[-1], windows), axis=-1)
    return gathered.reshape([0, 0, 0, windows, -1]).max(axis=-1)


def _window_index(arange, minimum, length, windows):
    """Positions that the windows read, [windows * width]; a narrower window repeats its last position.

    The same arithmetic serves NumPy (length known) and Paddle (length known when the graph runs).
    """
    window = arange(windows)
    start = window * length // windows
    stop = ((window + 1) * length + windows - 1) // windows  # exclusive
    width = (length + windows - 1) // windows + 1
    positions = start.reshape([-1, 1]) + arange(width).reshape([1, -1])
    return minimum(positions, stop.reshape([-1, 1]) - 1).reshape([-1])
