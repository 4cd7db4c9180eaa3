"""From an image file and its labels to the arrays that a network takes; the single transforms are PaddleSeg's."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from paddle_rt.arguments import describe
from paddle_rt.components import Catalogue
from paddle_rt.errors import UserError
from paddle_rt.imaging import check_labels, read_image, read_label

logger = logging.getLogger(__name__)

Sample = dict[str, Any]
CHANNELS = (1, 3, 4)  # of the images that can be read
# What is left of PaddleSeg's transforms where labels and predictions stay at an image's own size: those that draw no
# random numbers, and record a change of the size so that it can be undone.
_FOR_SCORES = ("LimitLong", "Normalize", "Padding", "PaddingByAspectRatio", "Resize", "ResizeByLong", "ResizeByShort")
_DEFAULT_IGNORED = 255  # of every transform
_FOR_TRAINING = ("ResizeRangeScaling", "ResizeStepScaling", "ScalePadding")  # and all whose name begins with "Random"


def transform_catalogue() -> Catalogue:
    """Return the transforms that a config may name."""
    from paddle_rt.paddleseg.components import components

    return {name: transform for name, transform in components("transforms").items() if name != "Compose"}


def complete_transforms(
    part: str, section: dict[str, Any], channels: int, num_classes: int | None, ignore_index: int | None
) -> None:
    """Give transforms what the data set determines, and refuse those that contradict it.

    Transforms that extend a labelled image label the new pixels with `ignore_index`; PaddleSeg takes 255 always.

    Args:
        part: "train_dataset", "val_dataset" or "test_dataset".
        section: That section of the config, checked. It is changed.
        channels: Channels of the images.
        num_classes: Number of classes, where the data set says it.
        ignore_index: Label of pixels that do not count, where the data set says it.

    Raises:
        UserError: A transform is for training alone, or does not fit the images or the labels.
    """
    for step in section.get("transforms") or []:
        name, where = step["type"], f"{part}.transforms: {step['type']}"
        if part != "train_dataset" and (name.startswith("Random") or name in _FOR_TRAINING):
            raise UserError(
                f"{where} is for training alone: scores and predictions are taken of whole images as they are; use "
                f"{', '.join(_FOR_SCORES)}"
            )
        for key, value in (("interp", step.get("interp")), ("short_size", step.get("short_size"))):
            if part != "train_dataset" and (value == "RANDOM" or isinstance(value, list)):
                raise UserError(f"{where}.{key} is {value}, of which one is drawn at random; give one value")
        for key in ("mean", "std") if name == "Normalize" else ():
            values = step.get(key)
            if isinstance(values, list) and len(values) not in (1, channels):
                raise UserError(f"{where}.{key} has {len(values)} numbers, but images have img_channels {channels}")
        if part == "train_dataset" and ignore_index is not None:
            _complete_labels(where, step, num_classes, ignore_index)


def _complete_labels(where: str, step: dict[str, Any], num_classes: int | None, ignore_index: int) -> None:
    arguments = describe(transform_catalogue()[step["type"]]).kinds
    for key in {"label_padding_value", "ignore_index"}.intersection(arguments):
        value = step.get(key, ignore_index)
        if value == ignore_index:
            step.update({} if value == _DEFAULT_IGNORED else {key: value})
            continue
        if key == "ignore_index" or num_classes is None or value not in range(num_classes):
            raise UserError(
                f"{where}.{key} is {value!r}, but the data set ignores {ignore_index}; leave it out to take that"
            )
        logger.warning("%s.%s is %d: pixels beyond the image are trained as class %d", where, key, value, value)


class Compose:
    """Reads a sample, checks it, and transforms it.

    Args:
        transforms: PaddleSeg's transforms.
        img_channels: Channels of the images: 3, 1 for grey images, or 4, which are not converted to RGB.
        num_classes: Labels are 0 to `num_classes` - 1 or `ignore_index`; None where there are no labels.
        ignore_index: Label of pixels that do not count.

    Raises:
        UserError: The transforms are not in a list.
    """

    def __init__(
        self,
        transforms: Sequence[Callable[[Sample], Sample]],
        img_channels: int = 3,
        num_classes: int | None = None,
        ignore_index: int = 255,
    ) -> None:
        if not isinstance(transforms, list | tuple):
            raise UserError(f"transforms must be a list, empty for none, got {transforms!r}")
        self.transforms, self.img_channels = list(transforms), img_channels
        self._steps = _fast(self.transforms, img_channels)
        self.num_classes, self.ignore_index = num_classes, ignore_index

    def __call__(self, sample: Sample) -> Sample:
        """Read, check and transform a sample.

        Args:
            sample: "img" and, if there is one, "label", each a file or an array (an image in OpenCV's BGR order, uint8
                or float32 of the same values); "gt_fields" lists the keys that are transformed like the image.

        Returns:
            The sample, changed in place, with "img" float32, RGB if it has 3 channels, and the sizes that the
            transforms record in "trans_info".

        Shape: "img" [H, W, C] to [C, H, W].

        Raises:
            UserError: A file is missing, damaged, of another size than its label, or has labels out of range, or a
                transform does not fit the image.
        """
        self._read(sample)
        image = sample["img"]
        channels = 1 if image.ndim == 2 else image.shape[2]
        if channels != self.img_channels:
            raise UserError(f"an image has {channels} channels, but img_channels is {self.img_channels}")
        if channels == 3:
            sample["img"] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        sample.setdefault("trans_info", [])
        for transform, step in zip(self.transforms, self._steps, strict=True):
            height, width = sample["img"].shape[:2]
            try:
                sample = step(sample)
            except UserError:
                raise
            except (ValueError, cv2.error) as error:  # such as a Padding that is smaller than the image
                says = f": {error}" if isinstance(error, ValueError) else ""
                name = type(transform).__name__
                raise UserError(f"the transform {name} does not fit an image of {width}x{height}{says}") from error
        image = sample["img"].astype(np.float32, copy=False)  # some transforms leave bytes
        sample["img"] = np.transpose(image[..., np.newaxis] if image.ndim == 2 else image, (2, 0, 1))
        return sample

    def _read(self, sample: Sample) -> None:
        image, label = sample["img"], sample.get("label")
        if not isinstance(image, str):
            return
        sample["img"] = read_image(image, self.img_channels)
        if isinstance(label, str):
            sample["label"] = read_label(label, self.num_classes, self.ignore_index)
        elif label is not None:  # the data set has read it
            check_labels(label, self.num_classes, self.ignore_index, f"the label of {image}")
        if label is not None:
            check_same_size(sample["label"], sample["img"], label if isinstance(label, str) else "its label", image)


def _fast(transforms: list[Callable[[Sample], Sample]], channels: int) -> list[Callable[[Sample], Sample]]:
    if not transforms:
        return []
    from paddle_rt.paddleseg.fast_transforms import fast_transforms

    return fast_transforms(transforms, channels)


def check_same_size(labels: np.ndarray, image: np.ndarray, label_name: str, image_name: str) -> None:
    """Raise a UserError for labels of another size than their image."""
    if labels.shape != image.shape[:2]:
        sizes = [f"{array.shape[1]}x{array.shape[0]}" for array in (labels, image)]
        raise UserError(f"{label_name} is {sizes[0]}, but the image {image_name} is {sizes[1]}")
