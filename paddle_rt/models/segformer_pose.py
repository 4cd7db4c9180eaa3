"""SegFormer++ for human pose: the encoder and the head of the segmentation network, and a heatmap for each keypoint.

Source: Kienzle et al., SegFormer++, MIPR 2024, arXiv 2405.14467; its code is a fork of MMPose 1.2.0.
"""

import math
from collections.abc import Sequence
from typing import Any

import paddle
import paddle.nn as nn
from paddle.nn.initializer import Normal

from paddle_rt.arguments import checks_arguments
from paddle_rt.checkpoint import load_pretrained
from paddle_rt.errors import UserError
from paddle_rt.models.base import Network
from paddle_rt.models.segformer import SegFormerTrunk


class SegFormerPose(SegFormerTrunk):
    """SegFormer++ for top-down pose estimation.

    It differs from `SegFormerPlusPlus` with its "conv" head in what the original differs in: no dropout, another last
    layer with another initialisation, and an output that is not resized.

    Args:
        num_keypoints: Number of keypoints K.
        embed_dim: Width of one attention head; stage i has a width of `embed_dim * num_heads[i]`.
        depths: Numbers of blocks in the four stages.
        num_heads: Numbers of attention heads in the four stages.
        head_channels: Width of the head.
        token_merging: As in `SegFormerPlusPlus`, but for "downsample", which would halve the heatmaps.
        matching_every: As in `SegFormerPlusPlus`.
        drop_path_rate: Rate of stochastic depth in the last block; it grows linearly from 0 in the first block.
        in_channels: Number of channels of an image.
        pretrained: File, folder or address of weights to start from: of the encoder alone, of a segmentation network,
            or of a pose network, whose number of keypoints may differ. The log names what stays new.

    Shape: images [B, in_channels, H, W] with H and W of at least 29 to a list of heatmaps [B, K, H/4, W/4].

    Raises:
        UserError: An argument is unknown or out of range, the weights do not fit, or an image is too small.

    Source: SegFormer++ `mmpose/models/heads/heatmap_heads/segformer_head.py`.
    """

    @checks_arguments
    def __init__(
        self,
        num_keypoints: int = 17,
        embed_dim: int = 32,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        head_channels: int = 256,
        token_merging: str | Sequence[dict[str, Any]] | None = None,
        matching_every: int = 1,
        drop_path_rate: float = 0.1,
        in_channels: int = 3,
        pretrained: str | None = None,
    ) -> None:
        if token_merging == "downsample":
            raise UserError(
                "token_merging 'downsample' is for segmentation: the heatmaps of SegFormerPose have a quarter of the "
                "image's size; take None, 'bsm_hq', 'bsm_fast' or 'n2d_2x2'"
            )
        super().__init__(
            embed_dim, depths, num_heads, "conv", head_channels, token_merging, matching_every, drop_path_rate,
            in_channels,
        )  # fmt: skip
        self.final_layer = nn.Conv2D(head_channels, num_keypoints, 1, weight_attr=Normal(std=0.001))
        for level in (self.linear_c1, self.linear_c2, self.linear_c3, self.linear_c4):
            Normal(std=0.001)(level._conv.weight)
        Normal(std=math.sqrt(2 / head_channels))(self.linear_fuse._conv.weight)
        if pretrained is not None:
            load_pretrained(self, pretrained, new_head=("linear_*", "final_layer.*"), trunk="backbone.")

    @property
    def last_layer(self) -> nn.Conv2D:
        return self.final_layer

    def coarse_logits(self, images: paddle.Tensor) -> paddle.Tensor:
        return self.final_layer(self._fuse(self.backbone(images)))

    def resize_logits(self, coarse: paddle.Tensor, images: paddle.Tensor) -> paddle.Tensor:
        return coarse

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        return [self.coarse_logits(images)]  # [B, num_keypoints, H/4, W/4]

    def for_export(self, target: str = "cpu") -> Network:
        from paddle_rt.models.segformer_export import SegFormerPoseForExport

        return SegFormerPoseForExport(self, target)
