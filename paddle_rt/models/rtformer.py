"""RTFormer: a convolutional stem, two dual-resolution transformer stages, DAPPM and a small head.

Source: Wang et al., RTFormer: Efficient Design for Real-Time Semantic Segmentation with Transformer, NeurIPS 2022,
arXiv 2210.07124; released in PaddleSeg as `paddleseg/models/rtformer.py`, whose parameter names are kept.
"""

from collections.abc import Sequence

import paddle
import paddle.nn as nn
import paddle.nn.functional as F
from paddle.nn.initializer import Constant, KaimingNormal, Normal, TruncatedNormal

from paddle_rt.arguments import checks_arguments
from paddle_rt.checkpoint import load_pretrained
from paddle_rt.errors import UserError
from paddle_rt.models.base import Network
from paddle_rt.models.layers import DropPath, resize_as, spatial_size
from paddle_rt.models.layers_export import GatheredMaxPool2D, copy_for_export, take_bgr

# Paddle's momentum is the share of the old running statistic that is kept, PyTorch's the share that is replaced. The
# release passes PyTorch's usual 0.1 to Paddle, so that each batch replaces nine tenths of the running statistics.
RELEASE_BN_MOMENTUM = 0.1
INTENDED_BN_MOMENTUM = 0.9


class RTFormer(Network):
    """RTFormer with PaddleSeg's arguments, parameter names and numbers.

    Args:
        num_classes: Number of classes C.
        layer_nums: Numbers of residual blocks in the stages of the stem. The release accepts four numbers and reads the
            first three; so does this class.
        base_channels: Width of the first stage.
        spp_channels: Width inside DAPPM.
        num_heads: Number of groups of the double normalisation in the low-resolution branch.
        head_channels: Width of the auxiliary head; the main head is twice as wide.
        drop_rate: Dropout rate in the feed-forward layers.
        drop_path_rate: Rate of stochastic depth for the attention and feed-forward branches.
        use_aux_head: Whether there is an auxiliary head, whose logits are returned while training.
        use_injection: For each of stages 4 and 5, whether the high-resolution branch is added to the low-resolution
            one at its end.
        lr_mult: Learning-rate factor of DAPPM and the heads.
        cross_size: For cross attention, the low-resolution branch is pooled to cross_size x cross_size tokens.
        in_channels: Number of channels of an image.
        pretrained: File, folder or address of weights to start from.
        bn_momentum: Paddle's momentum of every BatchNorm: the release's RELEASE_BN_MOMENTUM, or INTENDED_BN_MOMENTUM.
            It affects training only.

    Shape: images [B, in_channels, H, W] of any H and W to a list of logits [B, C, H, W].

    Raises:
        UserError: An argument is out of range, or the weights do not fit.

    Source: arXiv 2210.07124, figure 2; PaddleSeg `RTFormer`.
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
    ) -> None:
        super().__init__()
        if 8 * base_channels % num_heads != 0:
            raise UserError(f"RTFormer: num_heads must divide 8 * base_channels = {8 * base_channels}, got {num_heads}")
        width = base_channels
        block = dict(num_heads=num_heads, drop_rate=drop_rate, drop_path_rate=drop_path_rate, cross_size=cross_size)

        self.conv1 = nn.Sequential(
            _conv(in_channels, width, 3, stride=2, bias=True), _batch_norm(width), nn.ReLU(),
            _conv(width, width, 3, stride=2, bias=True), _batch_norm(width), nn.ReLU(),
        )  # fmt: skip
        self.layer1 = _stage(width, width, layer_nums[0])
        self.layer2 = _stage(width, 2 * width, layer_nums[1], stride=2)
        self.layer3 = _stage(2 * width, 4 * width, layer_nums[2], stride=2)
        self.layer3_ = _stage(2 * width, 2 * width, 1)
        self.compression3 = _norm_relu_conv(4 * width, 2 * width)
        self.layer4 = EABlock(2 * width, 4 * width, 8 * width, use_injection=use_injection[0], **block)
        self.layer5 = EABlock(2 * width, 8 * width, 8 * width, use_injection=use_injection[1], **block)
        self.spp = DAPPM(8 * width, spp_channels, 2 * width, lr_mult)
        self.seghead = SegHead(4 * width, 2 * head_channels, num_classes, lr_mult)
        self.use_aux_head, self.cross_size = use_aux_head, cross_size
        if use_aux_head:
            self.seghead_extra = SegHead(2 * width, head_channels, num_classes, lr_mult)

        for layer in self.sublayers():
            if isinstance(layer, nn.BatchNorm2D):
                layer._momentum = bn_momentum
        if pretrained is not None:
            load_pretrained(self, pretrained, new_head=("spp.*", "seghead*"), optional=("layer?.down.*",))

    def _encode(self, images: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Return the features of the main and of the auxiliary head, [B, 4w, H/8, W/8] and [B, 2w, H/8, W/8]."""
        stem = self.layer1(self.conv1(images))  # [B, w, H/4, W/4]
        high = self.layer2(F.relu(stem))  # [B, 2w, H/8, W/8]
        low = self.layer3(F.relu(high))  # [B, 4w, H/16, W/16]
        shallow = self.layer3_(F.relu(high + resize_as(self.compression3(low), high)))  # [B, 2w, H/8, W/8]

        high, low = self.layer4(F.relu(shallow), F.relu(low))  # [B, 2w, H/8, W/8], [B, 8w, H/32, W/32]
        high, low = self.layer5(F.relu(high), F.relu(low))
        context = resize_as(self.spp(low), high)  # [B, 2w, H/8, W/8]
        return paddle.concat([high, context], axis=1), shallow

    def coarse_logits(self, images: paddle.Tensor) -> paddle.Tensor:
        return self.seghead(self._encode(images)[0])

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        features, shallow = self._encode(images)
        logits = [self.seghead(features)]
        if self.training and self.use_aux_head:
            logits.append(self.seghead_extra(shallow))
        return [resize_as(coarse, images) for coarse in logits]  # [B, num_classes, H, W]

    def for_export(self, target: str = "cpu") -> "RTFormer":
        network = copy_for_export(self)
        for stage in (network.layer4, network.layer5):
            stage.cross_kv[1] = GatheredMaxPool2D(self.cross_size)  # in place of Paddle's adaptive pooling
        if target == "gpu":
            take_bgr(network, network.conv1[0])
        network.eval()
        return network


class EABlock(nn.Layer):
    """A dual-resolution block: the low branch attends to learned tokens, the high branch to tokens of the low branch.

    Args:
        high_channels: Width of the high-resolution branch.
        low_channels: Width of the low-resolution branch at the input.
        out_channels: Width of the low-resolution branch at the output. Where it differs from `low_channels`, the block
            also halves the height and width of this branch.
        num_heads: Number of groups of the double normalisation.
        drop_rate: Dropout rate in the feed-forward layers.
        drop_path_rate: Rate of stochastic depth.
        use_injection: Whether the high-resolution branch is added to the low-resolution one at the end.
        cross_size: The low-resolution branch is pooled to cross_size x cross_size tokens.

    Shape: high [B, high_channels, h, w] to the same, and low [B, low_channels, h/2, w/2] (or h/4, w/4) to
        [B, out_channels, h/4, w/4].

    Source: arXiv 2210.07124, section 3.3.
    """

    def __init__(
        self, high_channels: int, low_channels: int, out_channels: int, num_heads: int, drop_rate: float,
        drop_path_rate: float, use_injection: bool, cross_size: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.attn_shortcut_l = _identity
        if low_channels != out_channels:
            self.attn_shortcut_l = nn.Sequential(
                _batch_norm(low_channels), _conv(low_channels, out_channels, 1, stride=2)
            )
        self.attn_l = ExternalAttention(low_channels, out_channels, num_heads)
        self.mlp_l = MLP(out_channels, drop_rate)
        self.drop_path = DropPath(drop_path_rate)
        self.compression = _norm_relu_conv(out_channels, high_channels)
        self.attn_h = CrossAttention(high_channels, cross_size)
        self.mlp_h = MLP(high_channels, drop_rate)
        self.cross_kv = nn.Sequential(
            _batch_norm(out_channels),
            nn.AdaptiveMaxPool2D(cross_size),
            _conv(out_channels, 2 * high_channels, 1, init=TruncatedNormal(std=0.02)),
        )
        self.use_injection = use_injection
        if use_injection:
            middle = out_channels // 2
            self.down = nn.Sequential(
                _batch_norm(high_channels), nn.ReLU(), _conv(high_channels, middle, 3, stride=2),
                _batch_norm(middle), nn.ReLU(), _conv(middle, out_channels, 3, stride=2),
            )  # fmt: skip

    def forward(self, high: paddle.Tensor, low: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        low = self.attn_shortcut_l(low) + self.drop_path(self.attn_l(low))
        low = low + self.drop_path(self.mlp_l(low))

        high = high + resize_as(self.compression(low), high)
        keys_and_values = self.cross_kv(low)  # [B, 2 C, n, n]
        high = high + self.drop_path(self.attn_h(high, keys_and_values))
        high = high + self.drop_path(self.mlp_h(high))
        if self.use_injection:
            low = low + self.down(high)
        return high, low


class ExternalAttention(nn.Layer):
    """Attention to learned keys and values with a double normalisation.

    The scores are normalised by a softmax over all positions and then, in each group of keys, to a sum of one.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output. Where it differs from `in_channels`, the queries are taken at every second
            row and column.
        num_heads: Number of groups of the second normalisation, a divisor of `out_channels`.

    Shape: [B, in_channels, h, w] to [B, out_channels, h, w] or half that size.

    Source: arXiv 2210.07124, section 3.2 ("GPU-friendly attention"); PaddleSeg adds 1e-6 to the sum.
    """

    def __init__(self, in_channels: int, out_channels: int, num_heads: int) -> None:
        super().__init__()
        self.norm = _batch_norm(in_channels)
        normal = dict(default_initializer=Normal(std=0.001))
        self.k = self.create_parameter([out_channels, in_channels, 1, 1], **normal)
        self.v = self.create_parameter([out_channels, out_channels, 1, 1], **normal)
        self.stride = 1 if in_channels == out_channels else 2
        self.num_heads = num_heads

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        scores = F.conv2d(self.norm(x), self.k, stride=self.stride)  # [B, out_channels, h, w]
        weights = scores.reshape([0, self.num_heads, self.k.shape[0] // self.num_heads, -1])
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
        self.norm = _batch_norm(channels)
        self.scale = 1.0 / cross_size

    def forward(self, x: paddle.Tensor, keys_and_values: paddle.Tensor) -> paddle.Tensor:
        channels = x.shape[1]
        height, width = spatial_size(x)
        queries = self.norm(x).transpose([0, 2, 3, 1]).reshape([0, -1, channels])  # [B, h w, C]
        tokens = keys_and_values.flatten(2)  # [B, 2 C, n n]
        scores = paddle.matmul(queries, tokens[:, :channels]) * self.scale  # [B, h w, n n]
        mixed = paddle.matmul(F.softmax(scores, axis=2), tokens[:, channels:], transpose_y=True)  # [B, h w, C]
        return mixed.reshape([0, height, width, channels]).transpose([0, 3, 1, 2])


class MLP(nn.Layer):
    """Feed-forward layer: 3x3 convolution, GELU, 3x3 convolution. Shape: [B, C, h, w] to the same."""

    def __init__(self, channels: int, drop_rate: float) -> None:
        super().__init__()
        self.norm = _batch_norm(channels, epsilon=1e-6)
        self.conv1 = _conv(channels, channels, 3, bias=True)
        self.conv2 = _conv(channels, channels, 3, bias=True)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.drop(F.gelu(self.conv1(self.norm(x))))
        return self.drop(self.conv2(x))


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
        self.bn1 = _batch_norm(in_channels, lr_mult=lr_mult)
        self.conv1 = _conv(in_channels, inter_channels, 3, lr_mult=lr_mult)
        self.bn2 = _batch_norm(inter_channels, lr_mult=lr_mult)
        self.conv2 = _conv(inter_channels, num_classes, 1, bias=True, lr_mult=lr_mult)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))


class BasicBlock(nn.Layer):
    """Residual block of two 3x3 convolutions. Shape: [B, in, h, w] to [B, out, h/stride, w/stride].

    The last block of a stage has no ReLU at its end; whatever reads the stage applies its own.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, last: bool) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, out_channels, 3, stride=stride)
        self.bn1 = _batch_norm(out_channels)
        self.conv2 = _conv(out_channels, out_channels, 3)
        self.bn2 = _batch_norm(out_channels)
        self.downsample = _identity
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                _conv(in_channels, out_channels, 1, stride=stride), _batch_norm(out_channels)
            )
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
        _batch_norm(in_channels, lr_mult=lr_mult),
        nn.ReLU(),
        _conv(in_channels, out_channels, kernel_size, lr_mult=lr_mult),
    )


def _conv(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, bias: bool = False, lr_mult: float = 1.0,
    init: paddle.nn.initializer.Initializer | None = None,
) -> nn.Conv2D:  # fmt: skip
    weight = paddle.ParamAttr(initializer=init or KaimingNormal(), learning_rate=lr_mult)
    zero = paddle.ParamAttr(initializer=Constant(0.0), learning_rate=lr_mult) if bias else False
    padding = kernel_size // 2
    return nn.Conv2D(in_channels, out_channels, kernel_size, stride, padding, weight_attr=weight, bias_attr=zero)


def _batch_norm(channels: int, lr_mult: float = 1.0, epsilon: float = 1e-5) -> nn.BatchNorm2D:
    attr = paddle.ParamAttr(learning_rate=lr_mult)
    return nn.BatchNorm2D(channels, epsilon=epsilon, weight_attr=attr, bias_attr=attr)


def _identity(x: paddle.Tensor) -> paddle.Tensor:
    return x
