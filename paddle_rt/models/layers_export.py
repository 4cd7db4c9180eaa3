"""Copies of networks for export, and operators that every inference engine computes correctly."""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import paddle
import paddle.nn as nn
import paddle.nn.functional as F

from paddle_rt.models.base import Network
from paddle_rt.models.layers import spatial_size

_Layer = TypeVar("_Layer", bound=nn.Layer)


def copy_for_export(network: _Layer) -> _Layer:
    """Copy a network whose layers will be exchanged for an export.

    The copy has layers of its own and shares parameters and buffers with `network`, which is not changed.
    """
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return copy.deepcopy(network, shared)


def set_constant(layer: nn.Layer, name: str, value: paddle.Tensor) -> None:
    """Give a layer of a copy for export another value of a parameter, which the copy no longer shares."""
    constant = layer.create_parameter(value.shape, default_initializer=nn.initializer.Assign(value.numpy()))
    constant.stop_gradient = True
    setattr(layer, name, constant)


def take_bgr(network: Network, first: nn.Conv2D) -> None:
    """Fold the order of the channels into the convolution that reads the images, so that they may come as BGR.

    Args:
        network: A copy for export, which is changed. One that does not take three channels is left as it is.
        first: Its first convolution.
    """
    if first.weight.shape[1] == 3:
        set_constant(first, "weight", first.weight.flip(axis=1))
        network.takes_bgr = True


def resize_with_aligned_corners(x: paddle.Tensor, reference: paddle.Tensor) -> paddle.Tensor:
    """Resize `x` bilinearly, with aligned corners, to the height and width of `reference`.

    The oneDNN kernel of the bilinear operator in Paddle Inference 3.2 always uses half-pixel centres (relative error
    0.26 from 4x5 to 9x13). The trilinear operator has no oneDNN kernel and computes the same numbers for a map of depth
    1. The ONNX graph gets a plain Resize again in export/graph/folding.py.
    """
    size = [1, *spatial_size(reference)]
    x = x.unsqueeze(2)  # [B, C, 1, H, W]
    return F.interpolate(x, size, mode="trilinear", align_corners=True, data_format="NCDHW").squeeze(2)


class GatheredMaxPool2D(nn.Layer):
    """Adaptive maximum pooling as gathers and maxima: window i of n covers floor(i L / n) to ceil((i + 1) L / n) - 1.

    ONNX has no adaptive pooling, and paddle2onnx converts Paddle's to one fixed window, which is wrong where L is not a
    multiple of n. The results equal those of Paddle's operator to the bit.

    Args:
        output_size: Number of windows along the height and along the width.

    Shape: [B, C, H, W] to [B, C, output_size, output_size].
    """

    def __init__(self, output_size: int) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        columns = _window_max(x, self.output_size)  # [B, C, H, n]
        return _window_max(columns.transpose([0, 1, 3, 2]), self.output_size).transpose([0, 1, 3, 2])


# Lengths are integers or tensors. Paddle's source-to-source rewriting, which is disabled here, confuses the two.
@paddle.jit.not_to_static
def _window_max(x: paddle.Tensor, windows: int) -> paddle.Tensor:
    """Pool the last axis of [B, C, A, L] to [B, C, A, windows] by gathering every window to one common width."""
    length = x.shape[-1]
    if length > 0:
        index = _window_index(np.arange, np.minimum, length, windows)
        gathered = x if np.array_equal(index, np.arange(length)) else x.index_select(paddle.to_tensor(index), axis=3)
    else:
        gathered = x.index_select(_window_index(paddle.arange, paddle.minimum, paddle.shape(x)[-1], windows), axis=3)
    return gathered.reshape([0, 0, 0, windows, -1]).max(axis=4)


def _window_index(arange: Callable, minimum: Callable, length: Any, windows: int) -> Any:
    """Return the positions that the windows read, [windows * width]; a narrower window repeats its last position.

    The same arithmetic serves NumPy (known length) and Paddle (length known only when the graph runs).
    """
    window = arange(windows)
    start = window * length // windows
    stop = ((window + 1) * length + windows - 1) // windows  # exclusive
    width = (length + windows - 1) // windows + 1
    positions = start.reshape([-1, 1]) + arange(width).reshape([1, -1])
    return minimum(positions, stop.reshape([-1, 1]) - 1).reshape([-1])
