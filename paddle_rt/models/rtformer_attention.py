"""The attentions and feed-forward layers of RTFormer: those of the release, and those of the paper's ablations.

The papers say which attentions were compared, but not how each was built into the network. What they leave open is
decided here, in the same way for every attention that the release does not have ("mhsa", "mhea", "linformer"):

* Like the release's, each begins with a BatchNorm, works on maps, and has no biases besides that of the BatchNorm.
* 1x1 convolutions project the input to queries (and keys and values), and the result of all heads to the output. Where
  the output is wider than the input, which is the case in the low-resolution branch of the first block, the projections
  of the input have stride 2, as the queries of the release's attention have.
* There are `num_heads` heads in both branches, 8 by default, each of them C / num_heads wide.
* Projections and memories start from a truncated normal distribution with a standard deviation of 0.02, as the
  release's cross attention does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import paddle
import paddle.nn as nn
import paddle.nn.functional as F
from paddle.nn.initializer import Constant, KaimingNormal, Normal, TruncatedNormal, Uniform

from paddle_rt.errors import UserError
from paddle_rt.models.layers import spatial_size

LowAttention = Literal["gfa", "mhsa", "mhea", "linformer"]
HighAttention = Literal["cross", "gfa", "mhsa", "mhea", "linformer"]
FeedForward = Literal["conv", "mlp"]

LINFORMER_TOKENS = 256  # keys and values of linformer at most; the default of lucidrains/linformer
MIX_FFN_RATIO = 4  # width inside MixFFN relative to its input; the ratio of SegFormer


@dataclass(frozen=True)
class Setting:
    """All that an attention may depend on.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output.
        output_stride: How many times smaller than the images the output is.
        groups: Number of groups of the double normalisation of "gfa".
        rows: Number of learned keys of "gfa".
        num_heads: Number of heads.
        ratio: Number of learned keys of "mhea" relative to the width of the output.
        cross_size: The low-resolution branch is pooled to cross_size x cross_size tokens for "cross".
        image_size: (height, width) of the only images that "linformer" takes, or None.
    """

    in_channels: int
    out_channels: int
    output_stride: int
    groups: int
    rows: int
    num_heads: int
    ratio: float
    cross_size: int
    image_size: Sequence[int] | None


class ExternalAttention(nn.Layer):
    """GPU-friendly attention ("gfa"): attention to learned keys and values with a double normalisation.

    The scores are normalised by a softmax over all positions and then, in each group of keys, to a sum of one. One
    group makes this plain external attention.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output. Where it differs from `in_channels`, the queries are taken at every second
            row and column.
        groups: Number of groups of the second normalisation, a divisor of `rows`.
        rows: Number of learned keys M.

    Shape: [B, in_channels, h, w] to [B, out_channels, h, w] or half that size.

    Raises:
        UserError: The number of groups does not divide M.

    Source: arXiv 2210.07124, section 3.2 ("GPU-friendly attention"); PaddleSeg adds 1e-6 to the sum. M is
        `out_channels` in the low-resolution branch, and cross_size^2 in the high-resolution branch, as PaddleSeg's
        `EABlock(use_cross_kv=False)` has it, which the release never builds.
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int, rows: int) -> None:
        super().__init__()
        _check_division("groups (low_groups or num_heads; high_groups)", groups, "the number of learned keys", rows)
        self.norm = batch_norm(in_channels)
        normal = dict(default_initializer=Normal(std=0.001))
        self.k = self.create_parameter([rows, in_channels, 1, 1], **normal)
        self.v = self.create_parameter([out_channels, rows, 1, 1], **normal)
        self.stride = _stride(in_channels, out_channels)
        self.groups = groups

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        scores = F.conv2d(self.norm(x), self.k, stride=self.stride)  # [B, M, h, w]
        weights = scores.reshape([0, self.groups, self.k.shape[0] // self.groups, -1])
        weights = F.softmax(weights, axis=3)
        weights = weights / (weights.sum(axis=2, keepdim=True) + 1e-6)
        return F.conv2d(weights.reshape([0, self.k.shape[0], *spatial_size(scores)]), self.v)


class CrossAttention(nn.Layer):
    """Attention of every position of the high-resolution branch to the pooled tokens of the low-resolution branch.

    PaddleSeg computes the two matrix products as grouped convolutions with the tokens as weights and one group for each
    sample.

    Args:
        channels: Width C of the high-resolution branch and of the tokens.
        cross_size: There are cross_size x cross_size tokens; the scores are divided by cross_size.

    Shape: x [B, C, h, w] and keys_and_values [B, 2 C, cross_size, cross_size] to [B, C, h, w].

    Source: arXiv 2210.07124, section 3.3, "cross-resolution attention".
    """

    def __init__(self, channels: int, cross_size: int) -> None:
        super().__init__()
        self.norm = batch_norm(channels)
        self.scale = 1.0 / cross_size

    def forward(self, x: paddle.Tensor, keys_and_values: paddle.Tensor) -> paddle.Tensor:
        channels = x.shape[1]
        height, width = spatial_size(x)
        queries = self.norm(x).transpose([0, 2, 3, 1]).reshape([0, -1, channels])  # [B, h w, C]
        tokens = keys_and_values.flatten(2)  # [B, 2 C, n n]
        scores = paddle.matmul(queries, tokens[:, :channels]) * self.scale  # [B, h w, n n]
        mixed = paddle.matmul(F.softmax(scores, axis=2), tokens[:, channels:], transpose_y=True)  # [B, h w, C]
        return mixed.reshape([0, height, width, channels]).transpose([0, 3, 1, 2])


class MultiHeadSelfAttention(nn.Layer):
    """Multi-head self-attention ("mhsa"): softmax(Q^T K / sqrt(d)) over all N positions, for heads of width d.

    Args:
        in_channels: Width of the input.
        out_channels: Width C of the output.
        num_heads: Number of heads H, a divisor of C.

    Shape: [B, in_channels, h, w] to [B, C, h, w], or half that size where the widths differ. The scores are
        [B, H, N, N], which limits the size of images: at 1024x2048 those of the high-resolution branch take 32 GiB.

    Raises:
        UserError: The number of heads does not divide C.

    Source: Vaswani et al., arXiv 1706.03762, section 3.2.2. RTFormer's supplement compares with "MHSA" without more.
    """

    def __init__(self, in_channels: int, out_channels: int, num_heads: int) -> None:
        super().__init__()
        _check_division("num_heads", num_heads, "the width of an attention", out_channels)
        self.norm = batch_norm(in_channels)
        self.query, self.key, self.value = (_projection(in_channels, out_channels) for _ in range(3))
        self.output = _projection(out_channels, out_channels)
        self.num_heads, self.scale = num_heads, (out_channels // num_heads) ** -0.5

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.norm(x)
        queries = self.query(x)  # [B, C, h, w]
        heads = _split(queries, self.num_heads)  # [B, H, d, N]
        keys, values = _split(self.key(x), self.num_heads), _split(self.value(x), self.num_heads)
        scores = paddle.matmul(heads, keys, transpose_x=True) * self.scale  # [B, H, N, N]
        mixed = paddle.matmul(values, F.softmax(scores, axis=3), transpose_y=True)  # [B, H, d, N]
        return self.output(_merge(mixed, queries))


class MultiHeadExternalAttention(nn.Layer):
    """Multi-head external attention ("mhea"): all heads share one pair of learned memories of M rows.

    The scores K q of a head are normalised by a softmax over all positions and then, at each position, to a sum of one
    over the M rows.

    Args:
        in_channels: Width of the input.
        out_channels: Width C of the output.
        num_heads: Number of heads H, a divisor of C. A head and a row of a memory are d = C / H wide.
        ratio: The memories have M = C x ratio rows, which must be a whole number.

    Shape: [B, in_channels, h, w] to [B, C, h, w], or half that size where the widths differ.

    Raises:
        UserError: The number of heads does not divide C, or C x ratio is not a whole number.

    Source: Guo et al., Beyond Self-attention: External Attention, arXiv 2105.02358, section 3.3, and EANet's
        `multi_head_attention_torch.py`, which adds 1e-9 to the sum. RTFormer's supplement has M = d x r rows with
        r = 0.125, 0.25 or 1, where d is taken here as the width of the branch, which the paper calls d elsewhere.
        EANet widens the input by four before it is divided into heads; here, as with "mhsa", it is not.
    """

    def __init__(self, in_channels: int, out_channels: int, num_heads: int, ratio: float) -> None:
        super().__init__()
        _check_division("num_heads", num_heads, "the width of an attention", out_channels)
        rows = round(out_channels * ratio)
        if rows != out_channels * ratio or rows == 0:
            raise UserError(
                f"RTFormer: mhea_ratio must make a whole number of memory rows of the width {out_channels}, got {ratio}"
            )
        self.norm = batch_norm(in_channels)
        self.query = _projection(in_channels, out_channels)
        memory = dict(shape=[rows, out_channels // num_heads], default_initializer=TruncatedNormal(std=0.02))
        self.k, self.v = self.create_parameter(**memory), self.create_parameter(**memory)
        self.output = _projection(out_channels, out_channels)
        self.num_heads = num_heads

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        queries = self.query(self.norm(x))  # [B, C, h, w]
        scores = paddle.matmul(self.k, _split(queries, self.num_heads))  # [B, H, M, N]
        weights = F.softmax(scores, axis=3)
        weights = weights / (weights.sum(axis=2, keepdim=True) + 1e-9)
        mixed = paddle.matmul(self.v, weights, transpose_x=True)  # [B, H, d, N]
        return self.output(_merge(mixed, queries))


class LinformerAttention(nn.Layer):
    """Self-attention to keys and values that are projected from N positions to n tokens ("linformer").

    The two projections E and F, [N, n], belong to one number of positions. So this attention, and a network that has
    it, takes images of one size.

    Args:
        in_channels: Width of the input.
        out_channels: Width C of the output.
        num_heads: Number of heads H, a divisor of C.
        image_size: (height, width) of the images.
        output_stride: How many times smaller than the images the output is.

    Shape: [B, in_channels, h, w] to [B, C, h, w], or half that size where the widths differ.

    Raises:
        UserError: The number of heads does not divide C, or there is no image_size; and in `forward`, images have
            another size.

    Source: Wang et al., Linformer, arXiv 2006.04768, equation 7; n = 256 and the uniform distribution that E and F
        start from are those of lucidrains/linformer, as is a pair E and F for each attention that all its heads share.
        Where a map has fewer than 256 positions, n is their number.
    """

    def __init__(
        self, in_channels: int, out_channels: int, num_heads: int, image_size: Sequence[int] | None, output_stride: int
    ) -> None:
        super().__init__()
        _check_division("num_heads", num_heads, "the width of an attention", out_channels)
        if image_size is None:
            raise UserError(
                "RTFormer: linformer attention takes images of one size; give it as image_size: [height, width]"
            )
        self.image_size = list(image_size)
        self.map_size = [-(-length // output_stride) for length in image_size]
        positions = self.map_size[0] * self.map_size[1]
        tokens = min(LINFORMER_TOKENS, positions)
        self.norm = batch_norm(in_channels)
        self.query, self.key, self.value = (_projection(in_channels, out_channels) for _ in range(3))
        bound = tokens**-0.5
        projection = dict(shape=[positions, tokens], default_initializer=Uniform(-bound, bound))
        self.key_tokens, self.value_tokens = self.create_parameter(**projection), self.create_parameter(**projection)
        self.output = _projection(out_channels, out_channels)
        self.num_heads, self.scale = num_heads, (out_channels // num_heads) ** -0.5

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.norm(x)
        queries = self.query(x)  # [B, C, h, w]
        self._check_size(queries.shape[2:])
        heads = _split(queries, self.num_heads)  # [B, H, d, N]
        keys = paddle.matmul(_split(self.key(x), self.num_heads), self.key_tokens)  # [B, H, d, n]
        values = paddle.matmul(_split(self.value(x), self.num_heads), self.value_tokens)  # [B, H, d, n]
        scores = paddle.matmul(heads, keys, transpose_x=True) * self.scale  # [B, H, N, n]
        mixed = paddle.matmul(values, F.softmax(scores, axis=3), transpose_y=True)  # [B, H, d, N]
        return self.output(_merge(mixed, queries))

    def _check_size(self, size: Sequence[int]) -> None:
        if list(size) != self.map_size:
            (height, width), (rows, columns) = self.image_size, self.map_size
            raise UserError(
                f"linformer attention was built for images of {height}x{width}, whose map is {rows}x{columns} here, "
                f"got a map of {size[0]}x{size[1]}; give images of that size, or change model.image_size"
            )


class MLP(nn.Layer):
    """Feed-forward layer "conv": 3x3 convolution, GELU, 3x3 convolution. Shape: [B, C, h, w] to the same.

    Source: arXiv 2210.07124, section 3.4; PaddleSeg calls it MLP.
    """

    def __init__(self, channels: int, drop_rate: float) -> None:
        super().__init__()
        self.norm = batch_norm(channels, epsilon=1e-6)
        self.conv1 = conv(channels, channels, 3, bias=True)
        self.conv2 = conv(channels, channels, 3, bias=True)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.drop(F.gelu(self.conv1(self.norm(x))))
        return self.drop(self.conv2(x))


class MixFFN(nn.Layer):
    """Feed-forward layer "mlp": linear layer, depthwise 3x3 convolution, GELU, linear layer.

    The linear layers work on every position alone, and are 1x1 convolutions here.

    Shape: [B, C, h, w] to the same.

    Source: RTFormer's ablation ("MLP, 3x3 depthwise, MLP"), whose width is not known; Xie et al., SegFormer,
        arXiv 2105.15203, section 3.1, whose ratio 4 and place of the GELU are taken.
    """

    def __init__(self, channels: int, drop_rate: float) -> None:
        super().__init__()
        inner = MIX_FFN_RATIO * channels
        self.norm = batch_norm(channels, epsilon=1e-6)
        self.linear1 = conv(channels, inner, 1, bias=True)
        self.depthwise = conv(inner, inner, 3, bias=True, groups=inner)
        self.linear2 = conv(inner, channels, 1, bias=True)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.drop(F.gelu(self.depthwise(self.linear1(self.norm(x)))))
        return self.drop(self.linear2(x))


# What the arguments low_attention and high_attention name. "cross" has keys and values of the other branch, which the
# block computes and hands over; all others have none besides their own.
ATTENTIONS: dict[str, Callable[[Setting], nn.Layer]] = {
    "cross": lambda s: CrossAttention(s.out_channels, s.cross_size),
    "gfa": lambda s: ExternalAttention(s.in_channels, s.out_channels, s.groups, s.rows),
    "mhsa": lambda s: MultiHeadSelfAttention(s.in_channels, s.out_channels, s.num_heads),
    "mhea": lambda s: MultiHeadExternalAttention(s.in_channels, s.out_channels, s.num_heads, s.ratio),
    "linformer": lambda s: LinformerAttention(
        s.in_channels, s.out_channels, s.num_heads, s.image_size, s.output_stride
    ),
}
# What the argument feed_forward names; both take the width and the dropout rate.
FEED_FORWARDS: dict[str, Callable[[int, float], nn.Layer]] = {"conv": MLP, "mlp": MixFFN}


def conv(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, bias: bool = False, lr_mult: float = 1.0,
    init: paddle.nn.initializer.Initializer | None = None, groups: int = 1,
) -> nn.Conv2D:  # fmt: skip
    """Build a convolution that keeps the size at stride 1. The weights start as KaimingNormal has them by default."""
    weight = paddle.ParamAttr(initializer=init or KaimingNormal(), learning_rate=lr_mult)
    zero = paddle.ParamAttr(initializer=Constant(0.0), learning_rate=lr_mult) if bias else False
    padding = kernel_size // 2
    return nn.Conv2D(
        in_channels, out_channels, kernel_size, stride, padding, groups=groups, weight_attr=weight, bias_attr=zero
    )


def batch_norm(channels: int, lr_mult: float = 1.0, epsilon: float = 1e-5) -> nn.BatchNorm2D:
    """Build a BatchNorm whose two parameters have a factor of the learning rate."""
    attr = paddle.ParamAttr(learning_rate=lr_mult)
    return nn.BatchNorm2D(channels, epsilon=epsilon, weight_attr=attr, bias_attr=attr)


def _projection(in_channels: int, out_channels: int) -> nn.Conv2D:
    stride = _stride(in_channels, out_channels)
    return conv(in_channels, out_channels, 1, stride=stride, init=TruncatedNormal(std=0.02))


def _stride(in_channels: int, out_channels: int) -> int:
    return 1 if in_channels == out_channels else 2


def _split(x: paddle.Tensor, num_heads: int) -> paddle.Tensor:
    """Divide a map into heads. Shape: [B, H d, h, w] to [B, H, d, h w]."""
    return x.reshape([0, num_heads, x.shape[1] // num_heads, -1])


def _merge(heads: paddle.Tensor, like: paddle.Tensor) -> paddle.Tensor:
    """Make a map of heads, [B, H, d, h w], that has the shape of another, [B, H d, h, w]."""
    return heads.reshape([0, like.shape[1], *spatial_size(like)])


def _check_division(argument: str, divisor: int, what: str, number: int) -> None:
    if number % divisor != 0:
        raise UserError(f"RTFormer: {argument} must divide {what}, {number}, got {divisor}")
