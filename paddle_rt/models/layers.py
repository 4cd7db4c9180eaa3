"""Layers and functions that several networks share."""

from collections.abc import Sequence

import paddle
import paddle.nn as nn
import paddle.nn.functional as F

from paddle_rt.errors import UserError
from paddle_rt.models.cpu_layers import resize_bilinear, takes_compiled


def spatial_size(x: paddle.Tensor) -> list[int | paddle.Tensor]:
    """Return height and width of [B, C, H, W]: integers where known, 0-D tensors in a graph that leaves them open."""
    return [x.shape[axis] if x.shape[axis] > 0 else paddle.shape(x)[axis] for axis in (2, 3)]


def to_tokens(x: paddle.Tensor) -> paddle.Tensor:
    """Turn a map into tokens. Shape: [B, C, h, w] to [B, h w, C]."""
    return x.flatten(2).transpose([0, 2, 1])


def to_map(tokens: paddle.Tensor, size: Sequence[int | paddle.Tensor]) -> paddle.Tensor:
    """Turn tokens into a map of a size (h, w). Shape: [B, h w, C] to [B, C, h, w]."""
    return tokens.transpose([0, 2, 1]).reshape([0, tokens.shape[2], *size])


def resize_as(x: paddle.Tensor, reference: paddle.Tensor, align_corners: bool = False) -> paddle.Tensor:
    """Resize `x` bilinearly to the height and width of `reference`, with half-pixel centres or with aligned corners."""
    if takes_compiled(x):
        return resize_bilinear(x, reference.shape[2:], align_corners)
    return F.interpolate(x, size=spatial_size(reference), mode="bilinear", align_corners=align_corners)


class DropPath(nn.Layer):
    """Stochastic depth: while training, drop the residual branch of randomly chosen samples.

    Args:
        rate: Probability of dropping a sample's branch; the other branches are scaled by 1 / (1 - rate).

    Shape: [B, ...] to the same.

    Raises:
        UserError: The rate is not from 0 to below 1.

    Source: Huang et al., Deep Networks with Stochastic Depth, arXiv 1603.09382.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise UserError(f"drop_path_rate must be at least 0 and below 1, got {rate}")
        self.rate = rate

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if not self.training or self.rate == 0.0:
            return x
        # The same draw and comparison as PaddleSeg's, so that the same seed drops the same samples.
        kept = paddle.rand([x.shape[0]] + [1] * (x.ndim - 1), dtype=x.dtype) >= self.rate
        return x / (1.0 - self.rate) * kept.astype(x.dtype)
