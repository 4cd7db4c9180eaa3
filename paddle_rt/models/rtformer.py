"""RTFormer: a convolutional stem, two dual-resolution transformer stages, DAPPM and a small head.

Source: Wang et al., RTFormer: Efficient Design for Real-Time Semantic Segmentation with Transformer, NeurIPS 2022,
arXiv 2210.07124; released in PaddleSeg as `paddleseg/models/rtformer.py`, whose parameter names are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import paddle
import paddle.nn as nn
import paddle.nn.functional as F
from paddle.nn.initializer import TruncatedNormal

from paddle_rt.arguments import checks_arguments
from paddle_rt.checkpoint import load_pretrained
from paddle_rt.models.base import Network
from paddle_rt.models.layers import DropPath, resize_as
from paddle_rt.models.layers_export import GatheredMaxPool2D, copy_for_export, take_bgr
from paddle_rt.models.rtformer_attention import (
    ATTENTIONS,
    FEED_FORWARDS,
    FeedForward,
    HighAttention,
    LowAttention,
    Setting,
    batch_norm,
    conv,
)

# Paddle's momentum is the share of the old running statistic that is kept, PyTorch's the share that is replaced. The
# release passes PyTorch's usual 0.1 to Paddle, so that each batch replaces nine tenths of the running statistics.
RELEASE_BN_MOMENTUM = 0.1
INTENDED_BN_MOMENTUM = 0.9
HEADS = ("spp.*", "seghead*", "head.*")  # names of the parameters that belong to a task; all others are the trunk's


@dataclass(frozen=True)
class BlockOptions:
    """What both dual-resolution blocks of a network have in common; `RTFormer` describes each of them."""

    num_heads: int
    drop_rate: float
    drop_path_rate: float
    cross_size: int
    low_attention: str
    high_attention: str
    mhea_ratio: float
    low_groups: int | None
    high_groups: int
    feed_forward: str
    image_size: Sequence[int] | None


class RTFormerTrunk(Network):
    """What RTFormer is besides its heads: the convolutional stem and the two dual-resolution blocks.

    Args:
        in_channels: As all others, an argument of `RTFormer`.
        layer_nums: Numbers of residual blocks.
        base_channels: Width w of the first stage.
        use_injection: For each of the blocks.
        options: What the blocks have in common.
    """

    def __init__(
        self, in_channels: int, layer_nums: Sequence[int], base_channels: int, use_injection: Sequence[bool],
        options: BlockOptions,
    ) -> None:  # fmt: skip
        super().__init__()
        width = base_channels
        self.conv1 = nn.Sequential(
            conv(in_channels, width, 3, stride=2, bias=True), batch_norm(width), nn.ReLU(),
            conv(width, width, 3, stride=2, bias=True), batch_norm(width), nn.ReLU(),
        )  # fmt: skip
        self.layer1 = _stage(width, width, layer_nums[0])
        self.layer2 = _stage(width, 2 * width, layer_nums[1], stride=2)
        self.layer3 = _stage(2 * width, 4 * width, layer_nums[2], stride=2)
        self.layer3_ = _stage(2 * width, 2 * width, 1)
        self.compression3 = _norm_relu_conv(4 * width, 2 * width)
        self.layer4 = EABlock(2 * width, 4 * width, 8 * width, use_injection[0], options)
        self.layer5 = EABlock(2 * width, 8 * width, 8 * width, use_injection[1], options)
        self.cross_size = options.cross_size
        self.needs_fixed_size = "linformer" in (options.low_attention, options.high_attention)

    def encode(self, images: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
        """Return the features of the high- and of the low-resolution branch, and those before the blocks.

        Shape: [B, in_channels, H, W] to [B, 2w, H/8, W/8], [B, 8w, H/32, W/32] and [B, 2w, H/8, W/8].
        """
        stem = self.layer1(self.conv1(images))  # [B, w, H/4, W/4]
        high = self.layer2(F.relu(stem))  # [B, 2w, H/8, W/8]
        low = self.layer3(F.relu(high))  # [B, 4w, H/16, W/16]
        shallow = self.layer3_(F.relu(high + resize_as(self.compression3(low), high)))  # [B, 2w, H/8, W/8]

        high, low = self.layer4(F.relu(shallow), F.relu(low))  # [B, 2w, H/8, W/8], [B, 8w, H/32, W/32]
        high, low = self.layer5(F.relu(high), F.relu(low))
        return high, low, shallow

    def finish(self, bn_momentum: float, pretrained: str | None) -> None:
        """Set Paddle's momentum of every BatchNorm, and load the trunk and what fits of the head.

        Each block injects or does not, so that its convolutions for it may be missing or left over.
        """
        for layer in self.sublayers():
            if isinstance(layer, nn.BatchNorm2D):
                layer._momentum = bn_momentum
        if pretrained is not None:
            load_pretrained(self, pretrained, new_head=HEADS, optional=("layer?.down.*",))

    def for_export(self: "_Trunk", target: str = "cpu") -> "_Trunk":
        network = copy_for_export(self)
        for stage in (network.layer4, network.layer5):
            if stage.use_cross_kv:
                stage.cross_kv[1] = GatheredMaxPool2D(self.cross_size)  # in place of Paddle's adaptive pooling
        if target == "gpu":
            take_bgr(network, network.conv1[0])
        network.eval()
        return network


_Trunk = TypeVar("_Trunk", bound=RTFormerTrunk)


class RTFormer(RTFormerTrunk):
    """RTFormer with PaddleSeg's arguments, parameter names and numbers.

    The arguments from `low_attention` on are those of the paper's ablations, which the release does not have.

    Args:
        num_classes: Number of classes C.
        layer_nums: Numbers of residual blocks in the stages of the stem. The release accepts four numbers and reads the
            first three; so does this class.
        base_channels: Width of the first stage.
        spp_channels: Width inside DAPPM.
        num_heads: Number of heads of an attention that has heads, and number of groups of the double normalisation in
            the low-resolution branch unless `low_groups` is given.
        head_channels: Width of the auxiliary head; the main head is twice as wide.
        drop_rate: Dropout rate in the feed-forward layers.
        drop_path_rate: Rate of stochastic depth for the attention and feed-forward branches.
        use_aux_head: Whether there is an auxiliary head, whose logits are returned while training.
        use_injection: For each of stages 4 and 5, whether the high-resolution branch is added to the low-resolution
            one at its end.
        lr_mult: Learning-rate factor of DAPPM and the heads.
        cross_size: For cross attention, the low-resolution branch is pooled to cross_size x cross_size tokens. A "gfa"
            in the high-resolution branch has as many learned keys.
        in_channels: Number of channels of an image.
        pretrained: File, folder or address of weights to start from.
        bn_momentum: Paddle's momentum of every BatchNorm: the release's RELEASE_BN_MOMENTUM, or INTENDED_BN_MOMENTUM.
            It affects training only.
        low_attention: Attention of the low-resolution branch, one of `rtformer_attention.ATTENTIONS` but "cross".
        high_attention: Attention of the high-resolution branch, one of `rtformer_attention.ATTENTIONS`.
        mhea_ratio: Number of memory rows of "mhea" relative to the width of its branch: r of the paper's supplement.
        low_groups: Number of groups of the double normalisation of "gfa" in the low-resolution branch.
        high_groups: The same in the high-resolution branch. The paper's "8+2" is 8 low and 2 high groups.
        feed_forward: Feed-forward layers of both branches, one of `rtformer_attention.FEED_FORWARDS`.
        image_size: (height, width) of the images, which "linformer" alone needs, as it takes images of one size.

    Shape: images [B, in_channels, H, W] of any H and W to a list of logits [B, C, H, W].

    Raises:
        UserError: An argument is out of range or does not divide, or the weights do not fit.

    Source: arXiv 2210.07124, figure 2; PaddleSeg `RTFormer`. Ablations: table 5 and the supplement of the paper.
    """

    output_stride = 8

    @checks_arguments
    def __init__(
        self,
        num_classes: int,
        layer_nums: Sequence[int] = (2, 2, 2, 2),
        base_channels: int = 64,
        spp_channels: int = 128,
        num_heads: int = 8,
        head_channels: int = 128,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
        use_aux_head: bool = True,
        use_injection: Sequence[bool] = (True, True),
        lr_mult: float = 10.0,
        cross_size: int = 12,
        in_channels: int = 3,
        pretrained: str | None = None,
        bn_momentum: float = RELEASE_BN_MOMENTUM,
        low_attention: LowAttention = "gfa",
        high_attention: HighAttention = "cross",
        mhea_ratio: float = 1.0,
        low_groups: int | None = None,
        high_groups: int = 2,
        feed_forward: FeedForward = "conv",
        image_size: Sequence[int] | None = None,
    ) -> None:
        options = BlockOptions(
            num_heads, drop_rate, drop_path_rate, cross_size, low_attention, high_attention, mhea_ratio, low_groups,
            high_groups, feed_forward, image_size,
        )  # fmt: skip
        super().__init__(in_channels, layer_nums, base_channels, use_injection, options)
        width = base_channels
        self.spp = DAPPM(8 * width, spp_channels, 2 * width, lr_mult)
        self.seghead = SegHead(4 * width, 2 * head_channels, num_classes, lr_mult)
        self.use_aux_head = use_aux_head
        if use_aux_head:
            self.seghead_extra = SegHead(2 * width, head_channels, num_classes, lr_mult)

        self.finish(bn_momentum, pretrained)

    def _features(self, images: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Return the features of the main and of the auxiliary head, [B, 4w, H/8, W/8] and [B, 2w, H/8, W/8]."""
        high, low, shallow = self.encode(images)
        context = resize_as(self.spp(low), high)  # [B, 2w, H/8, W/8]
        return paddle.concat([high, context], axis=1), shallow

    def coarse_logits(self, images: paddle.Tensor) -> paddle.Tensor:
        return self.seghead(self._features(images)[0])

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        features, shallow = self._features(images)
        logits = [self.seghead(features)]
        if self.training and self.use_aux_head:
            logits.append(self.seghead_extra(shallow))
        return [resize_as(coarse, images) for coarse in logits]  # [B, num_classes, H, W]


class EABlock(nn.Layer):
    """A dual-resolution block: attention and a feed-forward layer in each branch, and two exchanges between them.

    In the published network the low branch attends to learned tokens, the high branch to tokens of the low branch.

    Args:
        high_channels: Width of the high-resolution branch.
        low_channels: Width of the low-resolution branch at the input.
        out_channels: Width of the low-resolution branch at the output. Where it differs from `low_channels`, the block
            also halves the height and width of this branch.
        use_injection: Whether the high-resolution branch is added to the low-resolution one at the end.
        options: The kinds of attention and feed-forward layers, and their numbers.

    Shape: high [B, high_channels, h, w] to the same, and low [B, low_channels, h/2, w/2] (or h/4, w/4) to
        [B, out_channels, h/4, w/4].

    Source: arXiv 2210.07124, section 3.3.
    """

    def __init__(
        self, high_channels: int, low_channels: int, out_channels: int, use_injection: bool, options: BlockOptions
    ) -> None:
        super().__init__()
        common = options.num_heads, options.mhea_ratio, options.cross_size, options.image_size
        low = Setting(low_channels, out_channels, 32, options.low_groups or options.num_heads, out_channels, *common)
        high = Setting(high_channels, high_channels, 8, options.high_groups, options.cross_size**2, *common)
        feed_forward = FEED_FORWARDS[options.feed_forward]

        self.attn_shortcut_l = _identity
        if low_channels != out_channels:
            self.attn_shortcut_l = nn.Sequential(
                batch_norm(low_channels), conv(low_channels, out_channels, 1, stride=2)
            )
        self.attn_l = ATTENTIONS[options.low_attention](low)
        self.mlp_l = feed_forward(out_channels, options.drop_rate)
        self.drop_path = DropPath(options.drop_path_rate)
        self.compression = _norm_relu_conv(out_channels, high_channels)
        self.attn_h = ATTENTIONS[options.high_attention](high)
        self.mlp_h = feed_forward(high_channels, options.drop_rate)
        self.use_cross_kv = options.high_attention == "cross"
        if self.use_cross_kv:
            self.cross_kv = nn.Sequential(
                batch_norm(out_channels),
                nn.AdaptiveMaxPool2D(options.cross_size),
                conv(out_channels, 2 * high_channels, 1, init=TruncatedNormal(std=0.02)),
            )
        self.use_injection = use_injection
        if use_injection:
            middle = out_channels // 2
            self.down = nn.Sequential(
                batch_norm(high_channels), nn.ReLU(), conv(high_channels, middle, 3, stride=2),
                batch_norm(middle), nn.ReLU(), conv(middle, out_channels, 3, stride=2),
            )  # fmt: skip

    def forward(self, high: paddle.Tensor, low: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        low = self.attn_shortcut_l(low) + self.drop_path(self.attn_l(low))
        low = low + self.drop_path(self.mlp_l(low))

        high = high + resize_as(self.compression(low), high)
        tokens = [self.cross_kv(low)] if self.use_cross_kv else []  # [B, 2 C, n, n]
        high = high + self.drop_path(self.attn_h(high, *tokens))
        high = high + self.drop_path(self.mlp_h(high))
        if self.use_injection:
            low = low + self.down(high)
        return high, low


class DAPPM(nn.Layer):
    """Deep aggregation pyramid pooling: five scales, each of which is added to the next finer one and refined.

    Shape: [B, in_channels, h, w] to [B, out_channels, h, w].

    Source: Hong et al., DDRNet, arXiv 2101.06085. As in PyTorch, the averages include the padding.
    """

    def __init__(self, in_channels: int, inter_channels: int, out_channels: int, lr_mult: float) -> None:
        super().__init__()

        def scale(*pooling: nn.Layer) -> nn.Sequential:
            return nn.Sequential(*pooling, *_norm_relu_conv(in_channels, inter_channels, lr_mult=lr_mult))

        def process() -> nn.Sequential:
            return _norm_relu_conv(inter_channels, inter_channels, kernel_size=3, lr_mult=lr_mult)

        self.scale1 = scale(nn.AvgPool2D(5, stride=2, padding=2, exclusive=False))
        self.scale2 = scale(nn.AvgPool2D(9, stride=4, padding=4, exclusive=False))
        self.scale3 = scale(nn.AvgPool2D(17, stride=8, padding=8, exclusive=False))
        self.scale4 = scale(nn.AdaptiveAvgPool2D(1))
        self.scale0 = scale()
        self.process1, self.process2, self.process3, self.process4 = process(), process(), process(), process()
        self.compression = _norm_relu_conv(5 * inter_channels, out_channels, lr_mult=lr_mult)
        self.shortcut = _norm_relu_conv(in_channels, out_channels, lr_mult=lr_mult)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        level0 = self.scale0(x)  # [B, inter_channels, h, w], like every level below
        level1 = self.process1(resize_as(self.scale1(x), x) + level0)
        level2 = self.process2(resize_as(self.scale2(x), x) + level1)
        level3 = self.process3(resize_as(self.scale3(x), x) + level2)
        level4 = self.process4(self.scale4(x) + level3)  # one pixel; resizing it would repeat it everywhere
        return self.compression(paddle.concat([level0, level1, level2, level3, level4], axis=1)) + self.shortcut(x)


class SegHead(nn.Layer):
    """BN, ReLU, 3x3 convolution, BN, ReLU, 1x1 convolution to classes. Shape: [B, in, h, w] to [B, classes, h, w]."""

    def __init__(self, in_channels: int, inter_channels: int, num_classes: int, lr_mult: float) -> None:
        super().__init__()
        self.bn1 = batch_norm(in_channels, lr_mult=lr_mult)
        self.conv1 = conv(in_channels, inter_channels, 3, lr_mult=lr_mult)
        self.bn2 = batch_norm(inter_channels, lr_mult=lr_mult)
        self.conv2 = conv(inter_channels, num_classes, 1, bias=True, lr_mult=lr_mult)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))


class BasicBlock(nn.Layer):
    """Residual block of two 3x3 convolutions. Shape: [B, in, h, w] to [B, out, h/stride, w/stride].

    The last block of a stage has no ReLU at its end; whatever reads the stage applies its own.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, last: bool) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, out_channels, 3, stride=stride)
        self.bn1 = batch_norm(out_channels)
        self.conv2 = conv(out_channels, out_channels, 3)
        self.bn2 = batch_norm(out_channels)
        self.downsample = _identity
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(conv(in_channels, out_channels, 1, stride=stride), batch_norm(out_channels))
        self.final = _identity if last else F.relu

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return self.final(residual + self.downsample(x))


def _stage(in_channels: int, out_channels: int, depth: int, stride: int = 1) -> nn.Sequential:
    """Build a sequence of residual blocks. As in PaddleSeg, the first ends with ReLU even if it is the only one."""
    blocks = [BasicBlock(in_channels, out_channels, stride, last=False)]
    blocks += [BasicBlock(out_channels, out_channels, 1, last=i == depth - 1) for i in range(1, depth)]
    return nn.Sequential(*blocks)


def _norm_relu_conv(in_channels: int, out_channels: int, kernel_size: int = 1, lr_mult: float = 1.0) -> nn.Sequential:
    return nn.Sequential(
        batch_norm(in_channels, lr_mult=lr_mult),
        nn.ReLU(),
        conv(in_channels, out_channels, kernel_size, lr_mult=lr_mult),
    )


def _identity(x: paddle.Tensor) -> paddle.Tensor:
    return x
