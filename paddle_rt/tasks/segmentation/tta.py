"""Test-time augmentation: logits of images at their original sizes, plain, flipped, scaled, or by sliding window."""

import argparse
import itertools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import paddle
import paddle.nn.functional as F

from paddle_rt.arguments import SCALE, SIDE
from paddle_rt.errors import UserError
from paddle_rt.kinds import flag

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Augmentation:
    """How a network is run on an image. Sizes are (width, height), as in PaddleSeg's configs.

    Args:
        scales: Factors by which the image is resized; the logits are averaged.
        flip_horizontal: Also run the mirrored image.
        flip_vertical: Also run the image upside down.
        crop_size: Size of the sliding window; None for whole images.
        stride: Step of the sliding window.

    Raises:
        UserError: A number is not positive, or the stride leaves gaps.
    """

    scales: Sequence[float] = (1.0,)
    flip_horizontal: bool = False
    flip_vertical: bool = False
    crop_size: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not self.scales or not all(isinstance(s, int | float) and 0 < s < math.inf for s in self.scales):
            raise UserError(f"scales must be positive numbers, got {list(self.scales)}")
        if (self.crop_size is None) != (self.stride is None):
            raise UserError("a sliding window needs both crop_size and stride, as two numbers: width height")
        if self.crop_size is None:
            return
        for name, size in (("crop_size", self.crop_size), ("stride", self.stride)):
            if len(size) != 2 or not all(isinstance(length, int) and length >= 1 for length in size):
                raise UserError(f"{name} must be two positive numbers, width and height, got {list(size)}")
        if self.stride[0] > self.crop_size[0] or self.stride[1] > self.crop_size[1]:
            raise UserError(f"stride {list(self.stride)} leaves gaps: it exceeds crop_size {list(self.crop_size)}")


def from_test_config(test_config: Mapping[str, Any]) -> Augmentation:
    """Translate PaddleSeg's `test_config`.

    Args:
        test_config: `scales` (a number or several), `flip_horizontal` and `flip_vertical` count where `aug_eval` is
            true; `crop_size` and `stride` where `is_slide` is.

    Raises:
        UserError: A value is wrong.
    """
    augmented, slides = test_config.get("aug_eval", False), test_config.get("is_slide", False)
    scales = test_config.get("scales", 1.0)
    crop_size, stride = (test_config.get(key) for key in ("crop_size", "stride"))
    if slides and (crop_size is None or stride is None):
        raise UserError("is_slide needs both crop_size and stride, as two numbers: width height")
    return Augmentation(
        scales=(list(scales) if isinstance(scales, list | tuple) else [scales]) if augmented else (1.0,),
        flip_horizontal=augmented and test_config.get("flip_horizontal", False),
        flip_vertical=augmented and test_config.get("flip_vertical", False),
        crop_size=_pair(crop_size) if slides else None,
        stride=_pair(stride) if slides else None,
    )


def warn_of_idle_keys(test_config: Mapping[str, Any]) -> None:
    """Log which keys of a config's `test_config` have no effect because the switch that they need is off."""
    switches = {"aug_eval": ("scales", "flip_horizontal", "flip_vertical"), "is_slide": ("crop_size", "stride")}
    for switch, keys in switches.items():
        idle = [key for key in keys if test_config.get(key) and not test_config.get(switch)]
        if idle:
            logger.warning("test_config: %s without effect, since %s is not True", ", ".join(idle), switch)


def _pair(size: int | Sequence[int]) -> tuple[int, ...]:
    return tuple(size) if isinstance(size, list | tuple) else (size,)


def add_flags(parser: argparse.ArgumentParser, switch: str) -> None:
    """Add the flags of test-time augmentation to a tool.

    Args:
        parser: Of the tool.
        switch: The flag that turns scales and flips on: "--aug_eval" or "--aug_pred".
    """
    group = parser.add_argument_group("test-time augmentation")
    group.add_argument(switch, action="store_true", help="average over --scales and flips")
    group.add_argument("--scales", nargs="+", type=flag(SCALE), default=[1.0], help="factors of the image's size")
    group.add_argument("--flip_horizontal", action="store_true", help="also run the mirrored image")
    group.add_argument("--flip_vertical", action="store_true", help="also run the image upside down")
    group.add_argument("--is_slide", action="store_true", help="run windows of --crop_size, --stride apart")
    group.add_argument("--crop_size", nargs=2, type=flag(SIDE), metavar=("W", "H"), help="size of the window")
    group.add_argument("--stride", nargs=2, type=flag(SIDE), metavar=("W", "H"), help="step of the window")


def merge_flags(test_config: Mapping[str, Any], arguments: argparse.Namespace, augmented: bool) -> dict[str, Any]:
    """Let the flags of a tool override a config's `test_config`, as in PaddleSeg's tools.

    Args:
        test_config: Of the config.
        arguments: Values of the flags that `add_flags` added.
        augmented: Value of the flag that turns scales and flips on.
    """
    names = ["scales", "flip_horizontal", "flip_vertical"] if augmented else []
    names += ["is_slide", "crop_size", "stride"] if arguments.is_slide else []
    flags = {name: getattr(arguments, name) for name in names}
    return {**test_config, **flags, **({"aug_eval": True} if augmented else {})}


def predict_logits(network: Callable, images: paddle.Tensor, augmentation: Augmentation) -> paddle.Tensor:
    """Average the logits over scales and flips.

    Args:
        network: Returns a list whose first entry is logits at the size of its input.
        images: Transformed as the config says.
        augmentation: Scales, flips and sliding window.

    Shape: [B, C, H, W] to [B, num_classes, H, W].

    Raises:
        UserError: A scale leaves nothing of an image, or makes it too large, or logits are no numbers.
    """
    flips = [
        [axis for axis, flipped in ((3, horizontal), (2, vertical)) if flipped]
        for vertical, horizontal in itertools.product(
            [False, augmentation.flip_vertical], [False, augmentation.flip_horizontal]
        )
    ]
    flips = [list(axes) for axes in dict.fromkeys(map(tuple, flips))]
    size = images.shape[2:]
    total = None
    for scale in augmentation.scales:
        scaled_size = [int(length * scale + 0.5) for length in size]
        if not 1 <= scaled_size[0] * scaled_size[1] <= 2**28:
            raise UserError(f"scale {scale} turns an image of {size} into {scaled_size}; give scales around 1")
        scaled = images if scaled_size == size else F.interpolate(images, scaled_size, mode="bilinear")
        for axes in flips:
            logits = _slide(network, scaled.flip(axes) if axes else scaled, augmentation)
            logits = logits.flip(axes) if axes else logits
            logits = logits if scaled_size == size else F.interpolate(logits, size, mode="bilinear")
            total = logits if total is None else total + logits
    if paddle.isnan(total).any():  # each pixel would be of class 0
        raise UserError("the network gives NaN: its weights are damaged, or the images hold extreme numbers")
    return total / (len(augmentation.scales) * len(flips))


def _slide(network: Callable, images: paddle.Tensor, augmentation: Augmentation) -> paddle.Tensor:
    """Return logits of whole images, or the mean over windows, of which the last ones are moved inside the image."""
    if augmentation.crop_size is None:
        return network(images)[0]
    height, width = images.shape[2:]
    crop_width, crop_height = (min(c, s) for c, s in zip(augmentation.crop_size, (width, height), strict=True))
    total, count = None, paddle.zeros([1, 1, height, width])
    for top in _starts(height, crop_height, augmentation.stride[1]):
        for left in _starts(width, crop_width, augmentation.stride[0]):
            window = (slice(None), slice(None), slice(top, top + crop_height), slice(left, left + crop_width))
            logits = network(images[window])[0]
            total = paddle.zeros([images.shape[0], logits.shape[1], height, width]) if total is None else total
            total[window] = total[window] + logits
            count[window] = count[window] + 1
    return total / count


def _starts(length: int, crop: int, stride: int) -> list[int]:
    steps = -(-(length - crop) // stride) + 1
    return [min(step * stride, length - crop) for step in range(steps)]


def restore(logits: paddle.Tensor, trans_info: list) -> paddle.Tensor:
    """Bring logits back to the size that an image had before its transforms.

    Args:
        logits: Of images that were transformed alike.
        trans_info: What PaddleSeg's transforms recorded: ("resize" or "padding", (height, width)) in their order.

    Shape: [B, num_classes, H, W] to [B, num_classes, h, w].

    Raises:
        UserError: A transform recorded something else.
    """
    for name, (height, width) in reversed(trans_info):
        if name == "resize":
            logits = F.interpolate(logits, [int(height), int(width)], mode="bilinear")
        elif name == "padding":
            logits = logits[:, :, :height, :width]
        else:
            raise UserError(f"cannot undo the transform {name!r}; use Resize or Padding in val_dataset")
    return logits
