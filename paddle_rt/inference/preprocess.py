"""The image transforms of deploy.yaml in NumPy and OpenCV, and the way back from the network's size to the image's.

Names, arguments and results are those of PaddleSeg's transforms and, for classification, the names and arguments are
those of PaddleClas's. Sizes in arguments are (width, height), as there.

Source: paddleseg/transforms/transforms.py; PaddleClas ppcls/data/preprocess/ops/operators.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from paddle_rt.arguments import check_arguments
from paddle_rt.errors import UserError, unknown
from paddle_rt.kinds import check_count

_INTERPOLATIONS = {
    "NEAREST": cv2.INTER_NEAREST,
    "LINEAR": cv2.INTER_LINEAR,
    "CUBIC": cv2.INTER_CUBIC,
    "AREA": cv2.INTER_AREA,
    "LANCZOS4": cv2.INTER_LANCZOS4,
}
INTERPOLATIONS_OF_PADDLECLAS = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}
Size = Sequence[int]
# The changes of an image's size in their order: ("resize", "padding" or "crop", height before, width before).
ResizeSteps = Sequence[tuple[str, int, int]]


@dataclass(frozen=True)
class Resize:
    """Resize to target_size, or to the largest size of the same proportions within it; round up to size_divisor."""

    target_size: Size = (512, 512)
    keep_ratio: bool = False
    size_divisor: int | None = None
    interp: str = "LINEAR"

    def __post_init__(self) -> None:
        _check_size("Resize", self.target_size)
        if self.size_divisor is not None:
            check_count("size_divisor of Resize", self.size_divisor)
        if self.interp not in _INTERPOLATIONS:
            raise unknown("interp of Resize", self.interp, _INTERPOLATIONS)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        size = self.target_size
        if self.keep_ratio:
            now = (image.shape[1], image.shape[0])
            scale = min(max(size) / max(now), min(size) / min(now))
            size = [max(round(length * scale), 1) for length in now]
        if self.size_divisor:
            size = [math.ceil(length / self.size_divisor) * self.size_divisor for length in size]
        return cv2.resize(image, tuple(size), interpolation=_INTERPOLATIONS[self.interp])


@dataclass(frozen=True)
class ResizeByLong:
    """Resize so that the longer side becomes long_size."""

    long_size: int

    def __post_init__(self) -> None:
        check_count("long_size of ResizeByLong", self.long_size)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        return _scale(image, self.long_size / max(image.shape[:2]))


@dataclass(frozen=True)
class ResizeByShort:
    """Resize so that the shorter side becomes short_size, or less where the longer one would exceed max_size."""

    short_size: int
    max_size: float = 1e10

    def __post_init__(self) -> None:
        check_count("short_size of ResizeByShort", self.short_size)
        if isinstance(self.max_size, bool) or not isinstance(self.max_size, int | float) or self.max_size < 1:
            raise UserError(f"max_size of ResizeByShort must be a number of at least 1, got {self.max_size!r}")

    def __call__(self, image: np.ndarray) -> np.ndarray:
        short, long = sorted(image.shape[:2])
        fits = self.short_size / short * long <= self.max_size
        return _scale(image, (self.short_size if fits else int(self.max_size / long * short)) / short)


@dataclass(frozen=True)
class Padding:
    """Extend the image to target_size at the right and at the bottom."""

    target_size: Size
    im_padding_value: float = 127.5
    label_padding_value: int = 255

    def __post_init__(self) -> None:
        _check_size("Padding", self.target_size)
        if type(self.im_padding_value) not in (int, float):
            raise UserError(f"im_padding_value of Padding must be a number, got {self.im_padding_value!r}")

    def __call__(self, image: np.ndarray) -> np.ndarray:
        (height, width), (target_width, target_height) = image.shape[:2], self.target_size
        if height > target_height or width > target_width:
            raise UserError(f"Padding to {target_width}x{target_height}: the image is larger, {width}x{height}")
        margins = (0, target_height - height, 0, target_width - width)
        value = self.im_padding_value  # OpenCV rounds it for an image of bytes
        return cv2.copyMakeBorder(image, *margins, cv2.BORDER_CONSTANT, value=(value,) * 4)


@dataclass(frozen=True)
class Normalize:
    """Divide by 255, subtract the mean and divide by the standard deviation of each channel."""

    mean: Sequence[float] = (0.5,)
    std: Sequence[float] = (0.5,)

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            numbers = isinstance(values, list | tuple) and all(type(value) in (int, float) for value in values)
            if not numbers or len(values) not in (1, 3, 4) or not np.isfinite(values).all():
                raise UserError(f"{name} of Normalize must be a list of 1, 3 or 4 finite numbers, got {values!r}")
        if 0 in self.std:
            raise UserError(f"std of Normalize must not hold 0, got {list(self.std)}")

    def __call__(self, image: np.ndarray) -> np.ndarray:
        image = image / np.float32(255)
        image -= np.array(self.mean)  # in double precision, rounded to single, as PaddleSeg does
        image /= np.array(self.std)
        return image


@dataclass(frozen=True)
class ResizeImage:
    """Resize so that the shorter side becomes resize_short, or to size; one of the two has to be given."""

    resize_short: int | None = None
    size: int | Size | None = None
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if (self.resize_short is None) == (self.size is None):
            raise UserError("ResizeImage takes resize_short or size, and one of them only")
        if self.size is not None:
            _check_size("ResizeImage", as_size(self.size), "size")

    def __call__(self, image: np.ndarray) -> np.ndarray:
        if self.size is not None:
            size = tuple(as_size(self.size))
        else:
            scale = self.resize_short / min(image.shape[:2])
            size = tuple(max(round(length * scale), 1) for length in image.shape[1::-1])
        return cv2.resize(image, size, interpolation=INTERPOLATIONS_OF_PADDLECLAS[self.interpolation])


@dataclass(frozen=True)
class CropImage:
    """Cut the middle of the image out; size is that of the cut."""

    size: int | Size = 224

    def __post_init__(self) -> None:
        _check_size("CropImage", as_size(self.size), "size")

    def __call__(self, image: np.ndarray) -> np.ndarray:
        (height, width), (crop_width, crop_height) = image.shape[:2], as_size(self.size)
        if height < crop_height or width < crop_width:
            raise UserError(
                f"CropImage to {crop_width}x{crop_height}: the image is smaller, {width}x{height}; put a ResizeImage "
                "before it"
            )
        top, left = (height - crop_height) // 2, (width - crop_width) // 2
        return image[top : top + crop_height, left : left + crop_width]


@dataclass(frozen=True)
class NormalizeImage(Normalize):
    """Normalize under PaddleClas's name, with the mean and deviation of ImageNet."""

    mean: Sequence[float] = (0.485, 0.456, 0.406)
    std: Sequence[float] = (0.229, 0.224, 0.225)


def as_size(size: int | Size) -> Size:
    """Return [width, height]; PaddleClas also takes one number for both."""
    return [size, size] if isinstance(size, int) else size


_CLASSES = (Resize, ResizeByLong, ResizeByShort, Padding, Normalize, ResizeImage, CropImage, NormalizeImage)
TRANSFORMS = {cls.__name__: cls for cls in _CLASSES}
CROPS = ("CropImage",)  # the results of what is cut away are lost
_KINDS = {Padding: "padding", CropImage: "crop"}


class Preprocess:
    """The transforms of a deploy.yaml in their order.

    Args:
        transforms: Mappings with `type` and arguments.
        network_size: (height, width) that the graph requires; None for a length that it leaves open. An image that has
            another size after the transforms is resized to it.
        graph_normalizes: Whether the graph normalises frames itself. If so, only the steps that change the size are
            done here, on bytes.

    Raises:
        UserError: A transform or an argument is unknown or invalid.
    """

    def __init__(
        self,
        transforms: Sequence[dict[str, Any]],
        network_size: Sequence[int | None] = (None, None),
        graph_normalizes: bool = False,
    ) -> None:
        self.steps = split_normalize(transforms)[0] if graph_normalizes else [_build(item) for item in transforms]
        self.network_size = network_size
        self.graph_normalizes = graph_normalizes

    @property
    def changes_size(self) -> bool:
        """Whether a transform may change the size of an image."""
        return not all(isinstance(step, Normalize) for step in self.steps)

    def __call__(self, frame: np.ndarray) -> tuple[np.ndarray, list[tuple[str, int, int]]]:
        """Prepare one image.

        Returns:
            The network's input, and the changes of the size, which `restore` undoes.

        Shape: uint8 BGR [H, W, 3] to float32 RGB [3, h, w], grey [H, W] or [H, W, 1] to [1, h, w], [H, W, 4] to
        [4, h, w]; to uint8 BGR [h, w, 3] where the graph normalises.
        """
        image = frame
        if frame.ndim == 3 and frame.shape[2] == 1:
            image = frame[..., 0]
        if not self.graph_normalizes:
            image = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if frame.shape[2:] == (3,) else image
            image = image.astype(np.float32)
        resize_steps = []
        for step in self.steps:
            before = image.shape[:2]
            image = step(image)
            if image.shape[:2] != before:
                resize_steps.append((_KINDS.get(type(step), "resize"), *before))
        height, width = (fixed or now for fixed, now in zip(self.network_size, image.shape[:2], strict=True))
        if image.shape[:2] != (height, width):
            resize_steps.append(("resize", *image.shape[:2]))
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        if not self.graph_normalizes:
            image = image[np.newaxis] if image.ndim == 2 else image.transpose(2, 0, 1)
        return np.ascontiguousarray(image), resize_steps


def split_normalize(transforms: Sequence[dict[str, Any]]) -> tuple[list[Any], Normalize]:
    """Split transforms into the steps that change the size and the normalisation after them, which a graph can do.

    A network without a Normalize takes values from 0 to 255, which Normalize(mean 0, std 1 / 255) leaves unchanged.

    Raises:
        UserError: A transform is unknown, or Normalize is not the last one.
    """
    steps = [_build(item) for item in transforms]
    places = [position for position, step in enumerate(steps) if isinstance(step, Normalize)]
    if not places:
        return steps, Normalize([0.0], [1 / 255])
    if places != [len(steps) - 1]:
        names = ", ".join(type(step).__name__ for step in steps)
        raise UserError(
            f"a graph that takes frames normalises last and once, but the transforms are {names}; use output_op argmax"
        )
    return steps[:-1], steps[-1]


def planar_floats(frames: np.ndarray) -> np.ndarray:
    """Turn frames of bytes [..., H, W, C] into what a Paddle graph for GPUs takes: float32 [..., C, H, W], 0 to 255."""
    return np.ascontiguousarray(np.moveaxis(frames, -1, -3), np.float32)


def restore(plane: np.ndarray, resize_steps: ResizeSteps, interpolation: int) -> np.ndarray:
    """Bring one plane of the network's output [h, w] back to the image's size by undoing the steps, the last first."""
    for kind, height, width in reversed(resize_steps):
        if kind == "padding":
            plane = plane[:height, :width]
        else:
            plane = cv2.resize(plane, (width, height), interpolation=interpolation)
    return plane


def _build(item: Any) -> Any:
    if not isinstance(item, dict) or "type" not in item:
        raise UserError(f"a transform is a mapping with a 'type', got {item!r}")
    name = item["type"]
    if not isinstance(name, str) or name not in TRANSFORMS:
        raise unknown("transform", name, TRANSFORMS)
    arguments = {key: value for key, value in item.items() if key != "type"}
    check_arguments(f"transform {name}", TRANSFORMS[name], arguments)
    return TRANSFORMS[name](**arguments)


def _scale(image: np.ndarray, scale: float) -> np.ndarray:
    height, width = (max(round(length * scale), 1) for length in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def _check_size(name: str, size: Any, argument: str = "target_size") -> None:
    if not isinstance(size, list | tuple) or len(size) != 2 or not all(type(n) is int and 0 < n < 2**15 for n in size):
        raise UserError(f"{argument} of {name} must be [width, height], whole numbers below 32768, got {size!r}")
