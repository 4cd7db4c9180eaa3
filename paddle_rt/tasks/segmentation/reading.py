"""Reading pictures and labels with every fault named, in front of PaddleSeg's transforms."""

from collections.abc import Callable
from typing import Any

from paddle_rt.errors import UserError
from paddle_rt.imaging.labels import check_labels, read_label
from paddle_rt.imaging.read_write import read_image


class CheckedReading:
    """PaddleSeg's `Compose` with our readers in front of it.

    `Compose` reads with OpenCV and Pillow and checks nothing: a missing picture ends in "'NoneType' object has no
    attribute 'astype'", half a JPEG is trained on, and a label out of range ends deep inside the loss. What `Compose`
    is handed here is the same array that it would have read itself.

    Args:
        compose: PaddleSeg's `Compose`.
        num_classes: Labels are 0 to `num_classes` - 1,
        ignore_index: and this one.
    """

    def __init__(self, compose: Callable[[dict], dict], num_classes: int, ignore_index: int = 255) -> None:
        self.compose = compose
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """Read what `data` names by path under "img" and "label", then transform.

        Raises:
            UserError: A file is missing, damaged, of another size than its label, or has labels out of range.
        """
        image, label = data["img"], data.get("label")
        if isinstance(image, str):
            data["img"] = read_image(image).astype("float32")
        if isinstance(label, str):
            data["label"] = read_label(label, self.num_classes, self.ignore_index)
        elif isinstance(image, str) and label is not None:  # ADE20K reads its own labels
            check_labels(label, self.num_classes, self.ignore_index, f"the label of {image}")
        if isinstance(image, str) and label is not None and data["label"].shape != data["img"].shape[:2]:
            name = label if isinstance(label, str) else "its label"
            raise UserError(f"{name} is {_size(data['label'])}, but the picture {image} is {_size(data['img'])}")
        return self.compose(data)


def check_reading(dataset: Any) -> None:
    """Put `CheckedReading` in front of a PaddleSeg data set's transforms, unless its pictures are grey.

    Args:
        dataset: Any of PaddleSeg's data sets.
    """
    compose = dataset.transforms
    if getattr(compose, "img_channels", None) == 3:
        dataset.transforms = CheckedReading(compose, dataset.num_classes, dataset.ignore_index)


def _size(image: Any) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
