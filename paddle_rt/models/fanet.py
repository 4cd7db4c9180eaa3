"""FANet: a ResNet trunk, fast attention at each of its four sizes, and their fusion from coarse to fine.

Source: Hu et al., Real-Time Semantic Segmentation With Fast Attention, RA-L 2020, arXiv 2007.03815; the authors'
PyTorch code (github.com/feinanshan/FANet, Train/ptsemseg/models/fanet), which has no video part.

Parameter names are those of the authors' training code, with `_mean` and `_variance` for its `running_mean` and
`running_var`, except for these:

| here | there |
| --- | --- |
| ffm_N.qkv.conv.weight [64 + C, C, 1, 1] | ffm_N.w_qs.conv.weight, w_ks.conv.weight, w_vs.conv.weight, in this order |
| ffm_N.qkv.bn.{weight, bias, _mean, _variance} [64 + C] | the same of w_qs.bn, w_ks.bn, w_vs.bn |
| not there, since nothing reads them | ffm_4.up.*, ffm_8.smooth.* |
| *.bn*.weight, downsample.1.weight | |weight| + 1e-5, as the in-place activated normalisation computes |
"""

import paddle
import paddle.nn as nn
import paddle.nn.functional as F
from paddle.nn.initializer import KaimingNormal

from paddle_rt.models.layers import resize_as, spatial_size
from paddle_rt.models.resnet import ResNet

VARIANTS = {"fanet18": dict(depth=18), "fanet34": dict(depth=34), "fanet50": dict(depth=50)}

KEYS = 32  # channels of keys and queries
SMOOTH = 128  # channels of the smoothed features
SLOPE = 0.01  # of the leaky ReLU that follows nearly every BatchNorm


class FANet(nn.Layer):
    """FANet for images.

    Args:
        num_classes: Number of classes.
        depth: Of the ResNet: 18, 34, 50, 101 or 152.

    Shape: images [B, 3, H, W] of any H and W to a list of logits [B, num_classes, H, W]: the main head's and, while
        training, those of two auxiliary heads, whose losses the paper weighs 1, 0.5 and 0.5.

    Raises:
        UserError: There is no ResNet of that depth.
        ValueError: num_classes is no number of classes.

    Source: arXiv 2007.03815, figure 2.
    """

    coarse_align_corners = True  # every resize of the original aligns the corners

    def __init__(self, num_classes: int, depth: int = 18) -> None:
        super().__init__()
        _require(_is_count(num_classes), f"num_classes must be a whole number of at least 1, got {num_classes!r}")
        # All four stages halve the size: 1/8, 1/16, 1/32, 1/64. The names below count from 1/4, as the authors do.
        self.resnet = ResNet(depth, strides=(2, 2, 2, 2), slope=SLOPE)
        c4, c8, c16, c32 = self.resnet.channels
        self.ffm_32 = FastAttention(c32)
        self.ffm_16 = FastAttention(c16)
        self.ffm_8 = FastAttention(c8, has_smooth=False)
        self.ffm_4 = FastAttention(c4, has_up=False)
        self.clslayer_32 = Head(SMOOTH, 64, num_classes)
        self.clslayer_16 = Head(SMOOTH, 64, num_classes)
        self.clslayer_8 = Head(2 * SMOOTH, 256, num_classes)

    def _fuse(self, images: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
        """Features of the main head [B, 256, H/8, W/8] and of the auxiliary ones [B, 128, H/32, ..] and H/64."""
        quarter, eighth, sixteenth, lowest = self.resnet(images)  # [B, c4, H/8, W/8] to [B, c32, H/64, W/64]
        lowest = self.ffm_32(lowest)
        sixteenth = self.ffm_16(sixteenth, self.ffm_32.up(lowest))
        eighth = self.ffm_8(eighth, self.ffm_16.up(sixteenth))
        quarter = self.ffm_4(quarter, self.ffm_8.up(eighth))

        context, detail = self.ffm_16.smooth(sixteenth), self.ffm_4.smooth(quarter)
        main = paddle.concat([resize_as(context, detail, align_corners=True), detail], axis=1)
        return main, context, lowest

    def coarse_logits(self, images: paddle.Tensor) -> paddle.Tensor:
        """Logits of the main head before the final resize, [B, num_classes, H/8, W/8]."""
        return self.clslayer_8(self._fuse(images)[0])

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        main, context, lowest = self._fuse(images)
        logits = [self.clslayer_8(main)]
        if self.training:
            logits += [self.clslayer_32(self.ffm_32.smooth(lowest)), self.clslayer_16(context)]
        return [resize_as(coarse, images, align_corners=True) for coarse in logits]  # [B, num_classes, H, W]


class FastAttention(nn.Layer):
    """Attention without softmax, which lets keys and values be multiplied first: linear in the number of positions.

    With queries q and keys k of length 1 at every position, y = q (k^T v). Then comes a 1x1 convolution, the input is
    added, and so is what the coarser module hands up. The sum over positions is not divided by their number.

    Args:
        channels: Width C of the features.
        has_up: Whether a finer module takes `up` of the result.
        has_smooth: Whether a head takes `smooth` of the result.

    Shape: features [B, C, h, w] and `coarser` [B, C, any size] to [B, C, h, w].

    Source: arXiv 2007.03815, section III and figure 3.
    """

    def __init__(self, channels: int, has_up: bool = True, has_smooth: bool = True) -> None:
        super().__init__()
        # One convolution where the original has three: each of its channels is one of theirs.
        self.qkv = ConvNorm(channels, 2 * KEYS + channels, 1, slope=1.0)
        self.latlayer3 = ConvNorm(channels, channels, 1)
        if has_up:
            # A 1x1 convolution with a border of zeros, so that the map grows by 2 and is what BatchNorm makes of 0
            # there; weights are trained with it.
            self.up = ConvNorm(channels, channels // 2, 1, padding=1)
        if has_smooth:
            self.smooth = ConvNorm(channels, SMOOTH, 3)

    def forward(self, features: paddle.Tensor, coarser: paddle.Tensor | None = None) -> paddle.Tensor:
        queries, keys, values = paddle.split(self.qkv(features), [KEYS, KEYS, features.shape[1]], axis=1)
        queries, keys = _unit(queries).flatten(2), _unit(keys).flatten(2)  # [B, 32, h w]
        values = F.leaky_relu(values, SLOPE).flatten(2)  # [B, C, h w]
        context = paddle.matmul(values, keys, transpose_y=True)  # [B, C, 32]
        # The 1x1 convolution is linear as well: on 32 columns instead of h w positions it costs nothing.
        context = self.latlayer3.conv(context.unsqueeze(3)).squeeze(3)
        attended = paddle.matmul(context, queries)  # [B, C, h w]
        attended = attended.reshape([0, 0, *spatial_size(features)])
        attended = self.latlayer3.normalise(attended) + features
        return attended if coarser is None else attended + resize_as(coarser, attended, align_corners=True)


class Head(nn.Layer):
    """3x3 convolution, then 1x1 to classes, without bias. Shape: [B, in_channels, h, w] to [B, num_classes, h, w]."""

    def __init__(self, in_channels: int, middle: int, num_classes: int) -> None:
        super().__init__()
        self.conv = ConvNorm(in_channels, middle, 3)
        self.conv_out = _conv(middle, num_classes, 1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.conv_out(self.conv(x))


class ConvNorm(nn.Layer):
    """Convolution, BatchNorm, leaky ReLU. Shape: [B, in_channels, h, w] to [B, out_channels, h, w]."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, padding: int | None = None, slope: float = SLOPE
    ) -> None:
        super().__init__()
        self.conv = _conv(in_channels, out_channels, kernel_size, padding)
        self.bn = nn.BatchNorm2D(out_channels)
        self.slope = slope

    def normalise(self, x: paddle.Tensor) -> paddle.Tensor:
        """BatchNorm and leaky ReLU, for who has done the convolution."""
        x = self.bn(x)
        return x if self.slope == 1.0 else F.leaky_relu(x, self.slope)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.normalise(self.conv(x))


def _unit(x: paddle.Tensor) -> paddle.Tensor:
    """Divide by the length over channels, 1e-12 at least; a gradient is finite even where all of them are zero."""
    return x / x.square().sum(axis=1, keepdim=True).clip(min=1e-24).sqrt()


def _conv(in_channels: int, out_channels: int, kernel_size: int, padding: int | None = None) -> nn.Conv2D:
    # What the authors ask of PyTorch, kaiming_normal with a = 1: a standard deviation of 1 / sqrt(fan in).
    weight = paddle.ParamAttr(initializer=KaimingNormal(negative_slope=1.0, nonlinearity="leaky_relu"))
    padding = kernel_size // 2 if padding is None else padding
    return nn.Conv2D(in_channels, out_channels, kernel_size, padding=padding, weight_attr=weight, bias_attr=False)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(f"FANet: {message}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
