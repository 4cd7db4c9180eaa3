"""RTFormer for classification: the trunk of the segmentation network, and a head of DDRNet's form.

RTFormer's paper trains on ImageNet-1k before it trains on segmentation, but says nothing of the network, and nobody has
published code of it. The head below is this project's reading of the paper and of DDRNet, which the paper follows, and
it stands in this file alone:

* The trunk is all that a segmentation network loads from the release's "backbone" files: stem, stages and both blocks,
  without DAPPM, which is trained anew with the heads.
* DDRNet adds its high-resolution branch to the low-resolution one by two 3x3 convolutions of stride 2 before its head.
  RTFormer's second block ends with just these, if it injects: `layer5.down`. So both blocks inject here, in both sizes.
  RTFormer-Base for segmentation has no injection in its second block and leaves `layer5.down` of a checkpoint out.
* As in DDRNet, a 1x1 convolution to 1024 (Slim) or 2048 (Base) features follows, the mean over all positions, and a
  linear layer.

Source: DDRNet's code (ydhongHIT/DDRNet, `classification/DDRNet_23_slim.py` and `DDRNet_23.py`), arXiv 2101.06085.
"""

from collections.abc import Sequence

import paddle
import paddle.nn as nn
import paddle.nn.functional as F
from paddle.nn.initializer import Constant, TruncatedNormal

from paddle_rt.arguments import checks_arguments
from paddle_rt.models.rtformer import RELEASE_BN_MOMENTUM, BlockOptions, RTFormerTrunk
from paddle_rt.models.rtformer_attention import FeedForward, HighAttention, LowAttention, batch_norm, conv


class RTFormerClassifier(RTFormerTrunk):
    """RTFormer for the classification of images.

    The arguments that are not described here are those of `RTFormer`.

    Args:
        num_classes: Number of classes C.
        layer_nums: Numbers of residual blocks.
        base_channels: Width of the first stage.
        feature_channels: Number of features that the linear layer takes.
        num_heads: Number of heads.
        drop_rate: Dropout rate in the feed-forward layers.
        drop_path_rate: Rate of stochastic depth.
        cross_size: Side of the square of tokens of cross attention. The low-resolution branch of an image of 224x224 is
            7x7, and 12x12 tokens are then maxima of one or two neighbouring rows and columns of it: each position is
            read by several tokens, and the tokens have no more detail than the branch. The same parameters serve any
            cross_size, so that it can stay that of the segmentation network; 7 makes each position one token.
        in_channels: Number of channels of an image.
        pretrained: File, folder or address of weights to start from, of this network or of `RTFormer`.
        bn_momentum: Paddle's momentum of every BatchNorm.
        low_attention: Attention of the low-resolution branch.
        high_attention: Attention of the high-resolution branch.
        mhea_ratio: Number of memory rows of "mhea" relative to the width.
        low_groups: Number of groups of "gfa" in the low-resolution branch.
        high_groups: Number of groups of "gfa" in the high-resolution branch.
        feed_forward: Feed-forward layers.
        image_size: (height, width) of the images, for "linformer".

    Shape: images [B, in_channels, H, W] of any H and W to a list of logits [B, C].

    Raises:
        UserError: An argument is out of range or does not divide, or the weights do not fit.
    """

    @checks_arguments
    def __init__(
        self,
        num_classes: int,
        layer_nums: Sequence[int] = (2, 2, 2, 2),
        base_channels: int = 64,
        feature_channels: int = 2048,
        num_heads: int = 8,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
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
        super().__init__(in_channels, layer_nums, base_channels, (True, True), options)
        self.head = ClassificationHead(8 * base_channels, feature_channels, num_classes)
        self.finish(bn_momentum, pretrained)

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        _, low, _ = self.encode(images)  # [B, 8w, H/32, W/32], to which the block has added the other branch
        return [self.head(low)]


class ClassificationHead(nn.Layer):
    """BN, ReLU, 1x1 convolution, BN, ReLU, mean over all positions, linear layer. Shape: [B, in, h, w] to [B, C].

    Source: DDRNet's classification network; RTFormer normalises before a convolution, where DDRNet does behind it.
    """

    def __init__(self, in_channels: int, feature_channels: int, num_classes: int) -> None:
        super().__init__()
        self.bn1 = batch_norm(in_channels)
        self.conv = conv(in_channels, feature_channels, 1)
        self.bn2 = batch_norm(feature_channels)
        weight = paddle.ParamAttr(initializer=TruncatedNormal(std=0.02))
        self.fc = nn.Linear(feature_channels, num_classes, weight, paddle.ParamAttr(initializer=Constant(0.0)))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        features = F.relu(self.bn2(self.conv(F.relu(self.bn1(x)))))  # [B, feature_channels, h, w]
        return self.fc(features.mean(axis=[2, 3]))
