"""PaddleSeg's training transforms at a fraction of their time, with the same random numbers and the same values.

A photograph has bytes, and most transforms of a training recipe leave or make bytes; PaddleSeg converts it to float32
first and resizes all of it before it crops. Here an image stays bytes as long as it can, only what a crop keeps is
resized where that gives the same bits, and arithmetic on bytes becomes tables. What is drawn, and when, is decided by
PaddleSeg's own code, of which patched copies call the functions of `functional`.
"""

import functools
import types
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from paddle_rt.paddleseg import functional
from paddle_rt.paddleseg.components import components
from paddle_rt.paddleseg.patching import patched

Sample = dict[str, Any]


def fast_transforms(transforms: Sequence[Callable], channels: int) -> list[Callable[[Sample], Sample]]:
    """Return functions that together do what PaddleSeg's transforms do, each of one transform.

    Between them "img" may hold bytes in the place of float32.

    Args:
        transforms: PaddleSeg's transforms, or other functions of a sample.
        channels: Channels of the images.
    """
    catalogue, calls, steps = components("transforms"), _calls(), []
    known = {kind: name for name, kind in catalogue.items()}
    names = [known.get(type(transform)) for transform in transforms]
    for position, (name, transform) in enumerate(zip(names, transforms, strict=True)):
        if name == "ResizeStepScaling" and names[position + 1 : position + 2] == ["RandomPaddingCrop"]:
            name = "ResizeStepScaling before a crop"
        if (name == "RandomDistort" and channels != 3) or name not in calls:
            steps.append(functools.partial(_on_floats, transform))
        else:
            steps.append(functools.partial(calls[name], transform))
    return steps


def _on_floats(transform: Callable[[Sample], Sample], data: Sample) -> Sample:
    data["img"] = functional.floats(data["img"])
    return transform(data)


@functools.cache
def _calls() -> dict[str, Callable[[Any, Sample], Sample]]:
    """Return what to call with a transform and a sample, for each transform that has a fast form."""
    kinds, names = components("transforms"), {"functional": _functional()}
    same = {name: kinds[name].__call__ for name in ("Resize", "RandomHorizontalFlip", "RandomVerticalFlip")}
    calls = {name: patched(call, {}, **names) for name, call in same.items()}
    scaling = kinds["ResizeStepScaling"].__call__
    calls["ResizeStepScaling"] = patched(scaling, {}, **names)
    calls["ResizeStepScaling before a crop"] = patched(
        scaling, {}, functional=types.SimpleNamespace(resize=_resize_later)
    )
    calls["RandomDistort"] = patched(
        kinds["RandomDistort"].__call__,
        {
            "data['img'].astype('uint8')": "data['img'].astype('uint8', copy=False)",
            "Image.fromarray(data['img'])": "data['img']",
            "np.asarray(data['img']).astype('float32')": "data['img']",
        },
        **names,
    )
    calls["RandomPaddingCrop"] = _crop
    calls["Normalize"] = _normalize
    return calls


def _resize_later(image: np.ndarray, size: tuple[int, int], interp: int) -> functional.Resized | np.ndarray:
    if min(size) < 1:  # refused by OpenCV, here and not in the crop
        return functional.resize(image, size, interp)
    return functional.Resized(image, size, interp)


def _crop(transform: Any, data: Sample) -> Sample:
    (height, width), size = transform.crop_size, tuple(data["img"].shape[:2])
    cuts = size[0] >= height and size[1] >= width
    if not cuts or size == (height, width):
        for key in ("img", *data.get("gt_fields", [])):
            if isinstance(data[key], functional.Resized):
                data[key] = data[key].whole()
    if not cuts:  # the value of new pixels need not be a byte
        data["img"] = functional.floats(data["img"])
    return _crop_call(type(transform))(transform, data)


@functools.cache
def _crop_call(kind: type) -> Callable[[Any, Sample], Sample]:
    return patched(kind.__call__, {}, functional=_functional())


def _functional() -> types.SimpleNamespace:
    """Return PaddleSeg's functions on images, and ours in the place of those of their names."""
    from paddleseg.transforms import functional as theirs

    return types.SimpleNamespace(**{**vars(theirs), **vars(functional)})


def _normalize(transform: Any, data: Sample) -> Sample:
    image = data["img"]
    if image.dtype == np.uint8:
        planes = cv2.split(image)
        ramp = np.arange(256, dtype=np.float32).repeat(len(planes)).reshape(256, 1, len(planes))
        tables = np.ascontiguousarray(transform({"img": ramp})["img"][:, 0].T)
        result = np.empty((len(planes), *image.shape[:2]), np.float32)
        for plane, table, values in zip(planes, tables, result, strict=True):
            cv2.LUT(plane, table, values)
    else:
        result = functional.normalized_planes(image, transform.mean, transform.std)
    data["img"] = result[0] if image.ndim == 2 else result.transpose(1, 2, 0)
    return data
