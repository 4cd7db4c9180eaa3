"""Logits of a batch of images at their original sizes: plain, flipped, scaled, by sliding window."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import paddle
import paddle.nn.functional as F

from paddle_rt.errors import UserError


@dataclass(frozen=True)
class TestTime:
    """How to run a network at test time, in PaddleSeg's words; sizes here are (width, height) as PaddleSeg's are.

    Args:
        scales: Factors by which the image is resized; logits are averaged.
        flip_horizontal, flip_vertical: Also run flipped images.
        crop_size, stride: Size and step of the sliding window; None for whole images.

    Raises:
        UserError: A number is not positive, or the stride leaves gaps.
    """

    __test__ = False  # not a test class for pytest

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


def test_time(
    aug_eval: bool = False,
    scales: float | Sequence[float] = 1.0,
    flip_horizontal: bool = False,
    flip_vertical: bool = False,
    is_slide: bool = False,
    crop_size: Sequence[int] | None = None,
    stride: Sequence[int] | None = None,
    print_detail: bool = True,
) -> TestTime:
    """Translate PaddleSeg's `test_config`: scales and flips count with aug_eval, the window with is_slide.

    `print_detail` is accepted because configs carry it; the log always shows the scores.
    """
    if is_slide and (crop_size is None or stride is None):
        raise UserError("is_slide needs both crop_size and stride, as two numbers: width height")
    return TestTime(
        scales=(list(scales) if isinstance(scales, list | tuple) else [scales]) if aug_eval else (1.0,),
        flip_horizontal=aug_eval and flip_horizontal,
        flip_vertical=aug_eval and flip_vertical,
        crop_size=_pair(crop_size) if is_slide else None,
        stride=_pair(stride) if is_slide else None,
    )


def _pair(size: int | Sequence[int]) -> tuple[int, ...]:
    return tuple(size) if isinstance(size, list | tuple) else (size,)


def predict_logits(model: Callable, images: paddle.Tensor, how: TestTime) -> paddle.Tensor:
    """Average logits over scales and flips.

    Args:
        model: Gives a list whose first entry is logits at the size of its input.
        images: [B, C, H, W], transformed as the config says.
        how: Scales, flips and sliding window.

    Shape: [B, C, H, W] to [B, num_classes, H, W].
    """
    flips = [
        [axis for axis, flipped in ((3, horizontal), (2, vertical)) if flipped]
        for vertical, horizontal in itertools.product([False, how.flip_vertical], [False, how.flip_horizontal])
    ]
    flips = [list(axes) for axes in dict.fromkeys(map(tuple, flips))]
    size = images.shape[2:]
    total = None
    for scale in how.scales:
        scaled_size = [int(length * scale + 0.5) for length in size]
        if not 1 <= scaled_size[0] * scaled_size[1] <= 2**28:
            raise UserError(f"scale {scale} turns an image of {size} into {scaled_size}; give scales around 1")
        scaled = images if scaled_size == size else F.interpolate(images, scaled_size, mode="bilinear")
        for axes in flips:
            logits = _slide(model, scaled.flip(axes) if axes else scaled, how)
            logits = logits.flip(axes) if axes else logits
            logits = logits if scaled_size == size else F.interpolate(logits, size, mode="bilinear")
            total = logits if total is None else total + logits
    return total / (len(how.scales) * len(flips))


def _slide(model: Callable, images: paddle.Tensor, how: TestTime) -> paddle.Tensor:
    """Logits of whole images, or the mean over windows, the last of which is moved inside."""
    if how.crop_size is None:
        return model(images)[0]
    height, width = images.shape[2:]
    crop_width, crop_height = (min(c, s) for c, s in zip(how.crop_size, (width, height), strict=True))
    total, count = None, paddle.zeros([1, 1, height, width])
    for top in _starts(height, crop_height, how.stride[1]):
        for left in _starts(width, crop_width, how.stride[0]):
            window = (slice(None), slice(None), slice(top, top + crop_height), slice(left, left + crop_width))
            logits = model(images[window])[0]
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
        logits: [B, num_classes, H, W] of images that were transformed alike.
        trans_info: What PaddleSeg's transforms recorded: ("resize" or "padding", (height, width)) in their order.

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
