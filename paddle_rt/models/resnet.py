"""ResNet without its classifier: a stem and four stages, whose features are all returned.

Source: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, arXiv 1512.03385, figure 3 and table 1.
"""

import paddle
import paddle.nn as nn
import paddle.nn.functional as F
from paddle.nn.initializer import KaimingNormal

from paddle_rt.errors import unknown

WIDTHS = (64, 128, 256, 512)
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class ResNet(nn.Layer):
    """ResNet-18, 34, 50, 101 or 152, with the parameter names of paddle.vision and torchvision.

    Args:
        depth: 18, 34, 50, 101 or 152. From 50 on, the blocks are bottlenecks.
        strides: Strides of the four stages, (1, 2, 2, 2) in the paper.
        slope: Negative slope of the leaky ReLU after the stem and inside the blocks. With 0 it is the paper's ReLU. The
            sum of a block and its shortcut has a ReLU in any case.
        in_channels: Number of channels of an image.

    Shape: [B, in_channels, H, W] to four maps [B, channels[i], h, w], where h is H / 4 divided by the strides of the
        stages up to i.

    Raises:
        UserError: There is no ResNet of that depth.

    Source: arXiv 1512.03385.
    """

    def __init__(
        self,
        depth: int,
        strides: tuple[int, ...] = (1, 2, 2, 2),
        slope: float = 0.0,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise unknown("depth of ResNet", depth, DEPTHS)
        block = BasicBlock if depth < 50 else Bottleneck
        self.slope = slope
        self.channels = tuple(width * block.expansion for width in WIDTHS)

        self.conv1 = _conv(in_channels, 64, 7, stride=2)
        self.bn1 = nn.BatchNorm2D(64)
        self.maxpool = nn.MaxPool2D(3, stride=2, padding=1)
        channels = 64
        for number, (width, count, stride) in enumerate(zip(WIDTHS, DEPTHS[depth], strides, strict=True), start=1):
            blocks = [block(channels, width, stride, slope)]
            channels = width * block.expansion
            blocks += [block(channels, width, 1, slope) for _ in range(count - 1)]
            setattr(self, f"layer{number}", nn.Sequential(*blocks))

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        x = F.leaky_relu(self.bn1(self.conv1(images)), self.slope)  # [B, 64, H/2, W/2]
        x = self.maxpool(x)  # [B, 64, H/4, W/4]
        features = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            features.append(x)
        return features


class BasicBlock(nn.Layer):
    """Two 3x3 convolutions and a shortcut. Shape: [B, in_channels, h, w] to [B, width, h/stride, w/stride]."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, slope: float) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, width, 3, stride)
        self.bn1 = nn.BatchNorm2D(width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2D(width)
        self.downsample = _shortcut(in_channels, width, stride)
        self.slope = slope

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        residual = F.leaky_relu(self.bn1(self.conv1(x)), self.slope)
        residual = self.bn2(self.conv2(residual))
        return F.relu(residual + self.downsample(x))


class Bottleneck(nn.Layer):
    """A 1x1, a 3x3 and a 1x1 convolution and a shortcut; the 3x3 convolution has the stride.

    Shape: [B, in_channels, h, w] to [B, 4 width, h/stride, w/stride].
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, slope: float) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, width, 1)
        self.bn1 = nn.BatchNorm2D(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2D(width)
        self.conv3 = _conv(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm2D(4 * width)
        self.downsample = _shortcut(in_channels, 4 * width, stride)
        self.slope = slope

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        residual = F.leaky_relu(self.bn1(self.conv1(x)), self.slope)
        residual = F.leaky_relu(self.bn2(self.conv2(residual)), self.slope)
        residual = self.bn3(self.conv3(residual))
        return F.relu(residual + self.downsample(x))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Layer:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(_conv(in_channels, out_channels, 1, stride), nn.BatchNorm2D(out_channels))


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2D:
    weight = paddle.ParamAttr(initializer=KaimingNormal())
    padding = kernel_size // 2
    return nn.Conv2D(in_channels, out_channels, kernel_size, stride, padding, weight_attr=weight, bias_attr=False)
