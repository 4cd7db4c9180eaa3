"""A small network that classifies, so that the task is tested apart from the networks of the library."""

import paddle

from paddle_rt.models.base import Network


class StandIn(Network):
    """Three convolutions with BatchNorm, and a linear layer: [B, 3, H, W] to [B, num_classes]."""

    def __init__(self, num_classes: int, width: int = 8, in_channels: int = 3, bn_momentum: float = 0.9) -> None:
        super().__init__()
        widths = [in_channels, width, 2 * width, 4 * width]
        layers = []
        for a, b in zip(widths[:-1], widths[1:], strict=True):
            layers += [
                paddle.nn.Conv2D(a, b, 3, stride=2, padding=1),
                paddle.nn.BatchNorm2D(b, bn_momentum),
                paddle.nn.ReLU(),
            ]
        self.body = paddle.nn.Sequential(*layers)
        self.head = paddle.nn.Linear(4 * width, num_classes)

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        return [self.head(self.body(images).mean([2, 3]))]
