"""BatchNorm's statistics, computed anew for weights as they are."""

from collections.abc import Iterable, Mapping
from typing import Any

import paddle


@paddle.no_grad()
def recompute_statistics(network: paddle.nn.Layer, batches: Iterable[Mapping[str, Any]]) -> None:
    """Replace the running statistics of a network by their means over batches, which no momentum weights.

    Args:
        network: Its weights stay as they are, and it is left in evaluation mode.
        batches: Batches of training, of which "img" is what the network takes.
    """
    layers = [layer for layer in network.sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)]
    momenta = [layer._momentum for layer in layers]
    network.train()
    for number, batch in enumerate(batches, start=1):
        for layer in layers:
            layer._momentum = 1 - 1 / number  # Paddle's: the share of the old statistics that stays
        network(batch["img"])
    for layer, momentum in zip(layers, momenta, strict=True):
        layer._momentum = momentum
    network.eval()
