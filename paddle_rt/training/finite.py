"""Numbers that are not finite any more, found before they do harm."""

from collections.abc import Callable, Sequence
from types import TracebackType

import paddle
from paddle import nn
from paddle.nn.clip import _squared_l2_norm

# The norm of all weights of a network that learns stays far below. Above it every output is checked, which costs time.
SUSPICIOUS = 1e4


@paddle.no_grad()
def norm(tensors: Sequence[paddle.Tensor]) -> float:
    """Return the norm of all tensors together."""
    # Paddle's own operator for the clipping of gradients, which is several times as fast as a product and a sum.
    return float(paddle.stack([_squared_l2_norm(tensor).astype("float32") for tensor in tensors]).sum().sqrt())


class FiniteOutputs:
    """Looks for outputs of layers that are not finite, while a forward pass runs in its block.

    An adaptive max pooling hides such numbers from the loss, and on a CPU its backward pass then corrupts memory. The
    outputs are looked at only where weights are so large that numbers may overflow.

    Args:
        network: The network whose layers are looked at.

    Attributes:
        broken: Name of the first layer whose output was not finite in the last block, or None.
    """

    def __init__(self, network: nn.Layer) -> None:
        self.broken: str | None = None
        self._network = network
        self._weights = [p for p in network.parameters() if not p.stop_gradient]
        self._found: list[tuple[str, paddle.Tensor]] = []
        self._hooks: list = []

    def __enter__(self) -> None:
        if norm(self._weights) < SUSPICIOUS:
            return
        for name, layer in self._network.named_sublayers():
            self._hooks.append(layer.register_forward_post_hook(self._note(name)))

    def _note(self, name: str) -> Callable:
        def note(layer: nn.Layer, inputs: object, output: object) -> None:
            if isinstance(output, paddle.Tensor):
                self._found.append((name, output.detach().isfinite().all()))

        return note

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()
        self.broken = next((name for name, is_finite in self._found if not bool(is_finite)), None)
        self._hooks, self._found = [], []
