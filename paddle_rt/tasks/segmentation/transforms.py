"""From an image file and its labels to the arrays that a network takes; the single transforms are PaddleSeg's."""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from paddle_rt.components import Catalogue
from paddle_rt.errors import UserError
from paddle_rt.imaging import check_labels, read_label
from paddle_rt.imaging.read_write import decode, read_bytes

Sample = dict[str, Any]


def transform_catalogue() -> Catalogue:
    """Return the transforms that a config may name."""
    from paddle_rt.paddleseg.components import components

    return {name: transform for name, transform in components("transforms").items() if name != "Compose"}


class Compose:
    """Reads a sample, checks it, and transforms it.

    Args:
        transforms: PaddleSeg's transforms.
        img_channels: Channels of the images: 3, or 1 for grey images.
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
        self.num_classes, self.ignore_index = num_classes, ignore_index

    def __call__(self, sample: Sample) -> Sample:
        """Read, check and transform a sample.

        Args:
            sample: "img" and, if there is one, "label", each a file or an array (an image in OpenCV's BGR order);
                "gt_fields" lists the keys that are transformed like the image.

        Returns:
            The sample, changed in place, with "img" float32 RGB and the sizes that the transforms record in
            "trans_info".

        Shape: "img" [H, W, C] to [C, H, W].

        Raises:
            UserError: A file is missing, damaged, of another size than its label, or has labels out of range.
        """
        self._read(sample)
        image = sample["img"]
        channels = 1 if image.ndim == 2 else image.shape[2]
        if channels != self.img_channels:
            raise UserError(f"an image has {channels} channels, but img_channels is {self.img_channels}")
        if channels == 3:
            sample["img"] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        sample.setdefault("trans_info", [])
        for transform in self.transforms:
            sample = transform(sample)
        image = sample["img"]
        sample["img"] = np.transpose(image[..., np.newaxis] if image.ndim == 2 else image, (2, 0, 1))
        return sample

    def _read(self, sample: Sample) -> None:
        image, label = sample["img"], sample.get("label")
        if not isinstance(image, str):
            return
        flags = cv2.IMREAD_GRAYSCALE if self.img_channels == 1 else cv2.IMREAD_COLOR
        sample["img"] = decode(image, read_bytes(image), flags).astype("float32")
        if isinstance(label, str):
            sample["label"] = read_label(label, self.num_classes, self.ignore_index)
        elif label is not None:  # the data set has read it
            check_labels(label, self.num_classes, self.ignore_index, f"the label of {image}")
        if label is not None and sample["label"].shape != sample["img"].shape[:2]:
            name = label if isinstance(label, str) else "its label"
            raise UserError(f"{name} is {_size(sample['label'])}, but the image {image} is {_size(sample['img'])}")


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
