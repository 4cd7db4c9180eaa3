"""Exponential moving average of a network's weights."""

import copy

import paddle
from paddle import nn


class ExponentialMovingAverage:
    """A copy of a network whose weights and buffers are moving averages of the trained ones.

    The decay is min(1 - 1 / (iteration + 1), 0.999), as in PaddleSeg: a plain mean at first.

    Args:
        network: The network that is trained; the average starts from its values.

    Attributes:
        network: The averaged copy, in evaluation mode.
    """

    def __init__(self, network: nn.Layer) -> None:
        self.network = copy.deepcopy(network)
        self.network.eval()
        for parameter in self.network.parameters():
            parameter.stop_gradient = True

    @paddle.no_grad()
    def update(self, network: nn.Layer, iteration: int) -> None:
        """Move the averages towards the network's values after an iteration, counted from 1."""
        decay = min(1 - 1 / (iteration + 1), 0.999)
        trained = network.state_dict()
        for name, average in self.network.state_dict().items():
            if paddle.is_floating_point(average):
                new = trained[name].detach().astype(average.dtype)
                average.set_value(average * decay + (1.0 - decay) * new)
