"""Clips: the last frames of a video, transformed alike and stacked in the channels of one image."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np


def transform_clip(
    transforms: Callable[[dict[str, Any]], dict[str, Any]], frames: Sequence[np.ndarray | str], data: dict[str, Any]
) -> dict[str, Any]:
    """Run the transforms of an image on every frame of a clip, with the same random numbers for all.

    Transforms that look at the label, such as a crop that avoids one class, see that of the last frame each time, so
    that they decide alike for all frames.

    Args:
        transforms: A Compose, whose transforms draw from `random` and `numpy.random`.
        frames: uint8 or float32 [H, W, 3], or files, the oldest first.
        data: What the transforms get beside "img"; "label" is that of the last frame.

    Returns:
        The transformed last frame, with all frames, the oldest first, in "img" [3 n, H, W].
    """
    drawn, images, result = (random.getstate(), np.random.get_state()), [], data
    for frame in frames:
        random.setstate(drawn[0])
        np.random.set_state(drawn[1])
        result = {key: value.copy() if hasattr(value, "copy") else value for key, value in data.items()}
        result = transforms({**result, "img": frame})
        images.append(result["img"])
    result["img"] = np.concatenate(images)
    return result


class ClipTransforms:
    """Transforms of a data set whose samples are single images, which add the frames before each.

    Args:
        transforms: Reads and transforms a single image.
        earlier: The files of the frames before each image, the oldest first, by the image's own file.
    """

    def __init__(
        self, transforms: Callable[[dict[str, Any]], dict[str, Any]], earlier: Mapping[str, Sequence[str]]
    ) -> None:
        self.transforms, self.earlier = transforms, earlier

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """Read and transform the clip that ends with the image data["img"], as `transform_clip` does."""
        return transform_clip(self.transforms, [*self.earlier[data["img"]], data["img"]], data)
