"""Numbers that are not finite any more, found before they do harm or are saved."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import paddle
from paddle import nn
from paddle.nn.clip import _squared_l2_norm

from paddle_rt.errors import UserError

# The norm of all weights of a network that learns stays far below. Above it every output is checked, which costs time.
SUSPICIOUS = 1e4
# The scale of the losses in fp16 is halved with each step that is left out, and 10 such steps bring it down to 1.
MOST_SKIPPED = 20


@paddle.no_grad()
def norm(tensors: Sequence[paddle.Tensor]) -> float:
    """Return the norm of all tensors together; it is not finite where one of their numbers is not."""
    # Paddle's own operator for the clipping of gradients, which is several times as fast as a product and a sum.
    halves = (paddle.float16, paddle.bfloat16)  # whose squares overflow, or lose most of their digits
    singles = [tensor.astype("float32") if tensor.dtype in halves else tensor for tensor in tensors]
    if not singles:
        return 0.0
    return float(paddle.stack([_squared_l2_norm(tensor).astype("float32") for tensor in singles]).sum().sqrt())


class FiniteCheck:
    """Ends a run in which numbers are not finite any more, with one line.

    The loss alone does not show them: an adaptive max pooling hides them from it, and on a CPU its backward pass then
    corrupts memory. So images, gradients and weights are looked at in every iteration, and the outputs of all layers
    where weights are so large that they may overflow.

    Args:
        network: The network that is trained.
        may_skip: Whether steps whose gradients overflow are left out, as in fp16. Then only many of them in a row, or
            weights that are not finite, end the run.

    Raises:
        UserError: Every method raises it where numbers are not finite, with the number of the iteration.
    """

    def __init__(self, network: nn.Layer, may_skip: bool) -> None:
        self._network, self._may_skip, self._skipped = network, may_skip, 0
        self._trained = [parameter for parameter in network.parameters() if not parameter.stop_gradient]
        own = {id(parameter) for parameter in self._trained}
        values = network.state_dict().values()
        self._statistics = [value for value in values if id(value) not in own and value.is_floating_point()]
        self._size = norm(self._trained)

    @contextmanager
    def forward(self, images: paddle.Tensor, iteration: int) -> Iterator[None]:
        """Check the images, and the outputs of layers of a forward pass that runs inside the block."""
        if images.is_floating_point() and not math.isfinite(norm([images])):
            raise UserError(f"the images of iteration {iteration} hold numbers that are not finite; see the transforms")
        found: list[tuple[str, paddle.Tensor]] = []
        is_looked_at = self._size >= SUSPICIOUS and not self._may_skip
        layers = self._network.named_sublayers() if is_looked_at else ()
        hooks = [layer.register_forward_post_hook(_note(name, found)) for name, layer in layers]
        if is_looked_at:
            paddle.jit.enable_to_static(False)  # a compiled network does not call the hooks of its layers
        try:
            yield
        finally:
            if is_looked_at:
                paddle.jit.enable_to_static(True)
            for hook in hooks:
                hook.remove()
        broken = next((name for name, is_finite in found if not bool(is_finite)), None)
        if broken is not None:
            raise _exploded(f"the output of {broken} is not finite", iteration)

    def loss(self, value: float, iteration: int) -> None:
        """Check the sum of the losses, before a backward pass starts from it."""
        if not self._may_skip and not math.isfinite(value):
            raise _exploded(f"the loss is {value}", iteration)

    def gradients(self, iteration: int) -> float:
        """Check the gradients, before weights are changed by them, and return their norm."""
        gradients = norm([parameter.grad for parameter in self._trained if parameter.grad is not None])
        self._skipped = 0 if math.isfinite(gradients) else self._skipped + 1
        if self._skipped and not self._may_skip:
            raise _exploded(f"the norm of the gradients is {gradients}", iteration)
        if self._skipped > MOST_SKIPPED:
            raise _exploded(f"the gradients of {self._skipped} steps in a row are not finite", iteration)
        return gradients

    def weights(self, iteration: int) -> None:
        """Check weights and statistics, before they are scored or saved."""
        self._size = norm(self._trained)
        if math.isfinite(self._size) and math.isfinite(norm(self._statistics)):
            return
        values = self._network.state_dict().items()
        broken = [name for name, value in values if not bool(value.isfinite().all())]
        what = f"{broken[0]} is" if broken else "the squares of all weights are"
        raise _exploded(f"{what} not finite", iteration)


def _note(name: str, found: list[tuple[str, paddle.Tensor]]) -> Callable:
    def note(layer: nn.Layer, inputs: object, output: object) -> None:
        if isinstance(output, paddle.Tensor):
            found.append((name, output.detach().isfinite().all()))

    return note


def _exploded(what: str, iteration: int) -> UserError:
    return UserError(
        f"{what} at iteration {iteration}: try a lower --learning_rate or a longer warm-up; checkpoints saved before "
        "stay as they are"
    )
