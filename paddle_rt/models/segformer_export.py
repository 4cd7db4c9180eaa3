"""SegFormer++ as exported graphs contain it: the fuse convolution as constants, and mergings that engines support."""

import functools

import paddle
import paddle.nn as nn
import paddle.nn.functional as F

from paddle_rt.errors import UserError
from paddle_rt.models.base import Network
from paddle_rt.models.layers import resize_as
from paddle_rt.models.layers_export import copy_for_export, take_bgr
from paddle_rt.models.segformer import Attention, ConvLevel, LinearLevel, MixVisionTransformer, SegFormerTrunk
from paddle_rt.models.token_merging_export import TooManyEntries, merging_for_export


class SegFormerForExport(Network):
    """Computes the numbers of a SegFormer++ in evaluation mode and shares its parameters, except for the head's.

    The weights of the head's convolutions are products of parameters; here they are constants. If a graph computed
    them, oneDNN would keep those of the first run for ever, and TensorRT would refuse them.

    Args:
        network: The network. Later changes of its head do not change the constants.
        target: "cpu" or "gpu", as `for_export` takes it.
    """

    def __init__(self, network: SegFormerTrunk, target: str = "cpu") -> None:
        super().__init__()
        network = copy_for_export(network)
        self.output_stride = network.output_stride
        self.needs_fixed_size = network.needs_fixed_size
        self.near_ties = network.near_ties
        self.backbone = network.backbone
        _exchange_mergings(self.backbone, target)
        if target == "gpu":
            take_bgr(self, self.backbone.patch_embed1.proj)
        norm = network.linear_fuse._batch_norm
        levels = (network.linear_c1, network.linear_c2, network.linear_c3, network.linear_c4)
        with paddle.no_grad():
            scale = norm.weight / paddle.sqrt(norm._variance + norm._epsilon)
            shift = norm.bias - norm._mean * scale
            weights = [weight * scale.unsqueeze(1) for weight in network.fuse_weights()]
            shifts = [shift, None, None, None]
            self.level1, self.level2, self.level3, self.level4 = map(_FusedLevel, levels, weights, shifts)
        self.linear_pred = network.last_layer
        self.eval()

    def coarse_logits(self, images: paddle.Tensor) -> paddle.Tensor:
        try:
            c1, c2, c3, c4 = self.backbone(images)
        except TooManyEntries as error:
            size = images.shape[2:]
            smaller = " ".join(str(max(int(length * error.scale) // 32 * 32, 32)) for length in size)
            raise UserError(f"{error}, not those of {list(size)}; use --input_size {smaller}") from error
        fused = resize_as(self.level4(c4), c1)  # [B, head_channels, H/4, W/4]
        fused = fused + resize_as(self.level3(c3), c1)
        fused = fused + resize_as(self.level2(c2), c1)
        fused = fused + self.level1(c1)  # the last, since engines compute this addition within the convolution
        return self.linear_pred(F.relu(fused))

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        return [resize_as(self.coarse_logits(images), images)]  # [B, num_classes, H, W]


class SegFormerPoseForExport(SegFormerForExport):
    """The same for `SegFormerPose`, whose heatmaps are not resized."""

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        return [self.coarse_logits(images)]  # [B, num_keypoints, H/4, W/4]


class _FusedLevel(nn.Layer):
    """A level of the head and its part of the fuse convolution, with constants in place of products of parameters.

    Args:
        level: The first layer of the head at this level.
        fuse_weight: Its part of the fuse convolution's weight, [head_channels, head_channels].
        bias: Added to the result, [head_channels].

    Shape: [B, in_channels, h, w] to [B, head_channels, h, w].
    """

    def __init__(
        self, level: ConvLevel | LinearLevel, fuse_weight: paddle.Tensor, bias: paddle.Tensor | None = None
    ) -> None:
        super().__init__()
        if isinstance(level, LinearLevel):
            self.first = nn.Identity()
            fuse_weight, level_bias = level.product(fuse_weight)
            bias = level_bias if bias is None else level_bias + bias
        else:
            self.first = nn.Sequential(level._conv, level._batch_norm, nn.ReLU())
        self.register_buffer("weight", fuse_weight.unsqueeze([2, 3]), persistable=False)
        self.register_buffer("bias", bias, persistable=False)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return F.conv2d(self.first(x), self.weight, self.bias)


def _exchange_mergings(encoder: MixVisionTransformer, target: str) -> None:
    # Blocks of a stage share a merging object, by which they find each other's matches.
    exchanged = functools.cache(functools.partial(merging_for_export, target=target))
    for layer in encoder.sublayers():
        if isinstance(layer, Attention):
            layer.merge_queries = exchanged(layer.merge_queries)
            layer.merge_keys = exchanged(layer.merge_keys)
