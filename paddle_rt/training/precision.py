"""Single precision, and automatic mixed precision on devices that have it."""

from collections.abc import Iterator
from contextlib import contextmanager

import paddle

from paddle_rt.errors import UserError

# Operators that PaddleSeg keeps in, and out of, half precision.
_WHITE_LIST = {"elementwise_add", "batch_norm", "sync_batch_norm"}
_BLACK_LIST = {"bilinear_interp_v2"}


class Precision:
    """Runs forward passes, backward passes and optimizer steps in one precision.

    Args:
        name: "fp32", "fp16" or "bf16".
        level: "O1" casts the inputs of operators by list, "O2" also keeps the weights in half precision.

    Raises:
        UserError: The current device computes in single precision only, or cannot compute in bf16.
    """

    def __init__(self, name: str, level: str = "O1") -> None:
        self.name, self.level = name, level
        if name != "fp32":
            _require_device(name)
        # bf16 has the exponents of fp32, so that its gradients need no scaling.
        self.scaler = paddle.amp.GradScaler(init_loss_scaling=1024) if name == "fp16" else None

    def decorate(
        self, network: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer
    ) -> tuple[paddle.nn.Layer, paddle.optimizer.Optimizer]:
        """Return network and optimizer with their weights in the precision that level O2 asks for."""
        if self.name == "fp32" or self.level != "O2":
            return network, optimizer
        dtype = "float16" if self.name == "fp16" else "bfloat16"
        return paddle.amp.decorate(network, optimizer, level="O2", dtype=dtype, save_dtype="float32")

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Run the forward passes and losses inside the block in this precision."""
        if self.name == "fp32":
            yield
            return
        dtype = "float16" if self.name == "fp16" else "bfloat16"
        with paddle.amp.auto_cast(
            level=self.level, dtype=dtype, custom_white_list=_WHITE_LIST, custom_black_list=_BLACK_LIST
        ):
            yield

    def backward(self, loss: paddle.Tensor) -> None:
        """Add the gradients of a loss to those of the parameters."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def unscale(self, optimizer: paddle.optimizer.Optimizer) -> None:
        """Bring the gradients to their true size, once before `step`."""
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: paddle.optimizer.Optimizer) -> None:
        """Update the parameters; in fp16 a step whose gradients overflowed is left out."""
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()


def _require_device(name: str) -> None:
    place = paddle.device.get_device()
    if place == "cpu":
        raise UserError(
            f"--precision {name} does nothing in Paddle on a CPU, which is the device here; use a GPU, or fp32"
        )
    if name == "bf16" and place.startswith("gpu") and not paddle.amp.is_bfloat16_supported(place):
        raise UserError(f"--precision bf16 is not supported by the device {place}; use fp16 or fp32")
