"""The fast forms of PaddleSeg's transforms beside PaddleSeg's own: the same bits, and the same random draws."""

import random

import cv2
import numpy as np
import pytest
from paddleseg import transforms as T
from paddleseg.transforms import functional as theirs

from paddle_rt.paddleseg import functional as ours
from paddle_rt.paddleseg.components import components
from paddle_rt.paddleseg.fast_transforms import fast_transforms
from paddle_rt.tasks.segmentation.transforms import Compose
from tests.helpers import smooth_image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = [(64, 128), (61, 131), (37, 53), (40, 48), (96, 30)]


def crop(*size: int, **arguments: float) -> T.RandomPaddingCrop:
    return components("transforms")["RandomPaddingCrop"](crop_size=size, **arguments)


def recipe(*size: int, step: float = 0.25, distort: bool = True, **arguments: float) -> list:
    steps = [T.ResizeStepScaling(0.5, 2.0, step), crop(*size, **arguments), T.RandomHorizontalFlip()]
    return [*steps, *[T.RandomDistort(0.4, contrast_range=0.4, saturation_range=0.4)] * distort, T.Normalize(MEAN, STD)]


RECIPES = {
    "the releases' recipe": recipe(48, 40),
    "any scale, without colours": recipe(48, 40, step=0, distort=False),
    "a crop that avoids a class": recipe(32, 32, category_max_ratio=0.4),
    "other values beyond the image": recipe(120, 120, im_padding_value=12, label_padding_value=3, distort=False),
    "sharper, upside down": [
        T.RandomVerticalFlip(0.5),
        T.RandomDistort(0.9, contrast_range=0.9, saturation_range=0.9, hue_range=99, sharpness_prob=1),
        crop(20, 60),
        T.RandomDistort(brightness_prob=1, contrast_prob=1, saturation_prob=1, hue_prob=1),
    ],
    "between other transforms": [
        T.RandomRotation(), T.ResizeStepScaling(), T.RandomBlur(0.5), T.ResizeStepScaling(), crop(24, 24),
        T.RandomNoise(), T.Normalize(), T.RandomHorizontalFlip(), T.RandomScaleAspect(),
    ],
    "cropped twice": [T.ResizeStepScaling(1.5, 1.5), crop(40, 44), T.ResizeStepScaling(), crop(20, 24)],
    "for scores": [T.Resize((131, 90), keep_ratio=True, interp="CUBIC"), T.Padding((160, 160)), T.Normalize(MEAN, STD)],
    "the size that it has": [T.Resize((128, 64)), T.Normalize(MEAN, STD)],
}  # fmt: skip


def labels_of(height: int, width: int) -> np.ndarray:
    label = np.kron(np.random.default_rng(height).integers(0, 6, (14, 19)), np.ones((7, 7)))[:height, :width]
    label[:5] = 255
    return label.astype(np.uint8)


def difference(transforms: list, image: np.ndarray, label: np.ndarray, seed: int) -> str:
    """Say how the two differ in values, kinds and the state of the random generators; empty if they do not."""
    channels, found = 1 if image.ndim == 2 else image.shape[2], []
    pair = (T.Compose(transforms, img_channels=channels), Compose(transforms, channels, 19))
    for compose, given in zip(pair, (image.astype(np.float32), image), strict=True):
        random.seed(seed), np.random.seed(seed)
        sample = compose({"img": given, "label": label, "trans_info": [], "gt_fields": ["label"]})
        found.append((sample, random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2]))
    (first, *states), (second, *others) = found
    text = "" if states == others and first["trans_info"] == second["trans_info"] else "random state or sizes differ; "
    for key in ("img", "label"):
        a, b = first[key].astype(np.float32 if key == "img" else first[key].dtype), second[key]
        if a.dtype != b.dtype or a.shape != b.shape:
            text += f"{key}: {a.dtype} {a.shape} and {b.dtype} {b.shape}; "
        elif not np.array_equal(a, b):
            text += f"{key}: {np.mean(a != b):.2%} differ, by up to {np.abs(a - b).max()}; "
    return text


@pytest.mark.parametrize("ipp", [True, False])
@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name: str, ipp: bool) -> None:
    before = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(ipp)
    try:
        for seed in range(25):
            height, width = SIZES[seed % len(SIZES)]
            if name == "the size that it has":
                height, width = 64, 128
            image = smooth_image(height, width, seed)
            said = difference(RECIPES[name], image, labels_of(height, width), seed)
            assert not said, f"{width}x{height}, seed {seed}: {said}"
    finally:
        cv2.ipp.setUseIPP(before)


def test_grey_and_four_channels() -> None:
    for seed in range(10):
        image = smooth_image(64, 128, seed)
        grey = [
            T.ResizeStepScaling(),
            crop(40, 40),
            T.RandomHorizontalFlip(),
            T.RandomDistort(),
            T.Normalize([0.5], [0.5]),
        ]
        assert not difference(grey, image[..., 0], labels_of(64, 128), seed)
        four = [T.ResizeStepScaling(), crop(40, 40), T.RandomVerticalFlip(), T.Normalize([0.5] * 4, [0.2] * 4)]
        assert not difference(four, np.dstack([image, image[..., 0]]), labels_of(64, 128), seed)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ipp", [True, False])
def test_parts_of_resized_images(channels: int, ipp: bool) -> None:
    """Every ratio of small numbers, in parts that begin and end anywhere, at the borders too."""
    rng, before, resized_less = np.random.default_rng(0), cv2.ipp.useIPP(), 0
    cv2.ipp.setUseIPP(ipp)
    try:
        for group, taken in ((1, 2), (3, 4), (5, 4), (3, 2), (7, 4), (2, 1), (2, 3), (5, 3), (4, 3), (9, 8), (1, 1)):
            height, width = taken * int(rng.integers(20, 40)), taken * int(rng.integers(40, 80))
            image = rng.integers(0, 256, (height, width, channels), np.uint8)[..., slice(None) if channels == 3 else 0]
            size = (width // taken * group, height // taken * group)
            for interp in (cv2.INTER_LINEAR, cv2.INTER_NEAREST):
                lazy = ours.Resized(image, size, interp)
                whole = theirs.resize(image.astype(np.float32), size, interp)
                for corner in range(12):
                    x1, y1 = (int(rng.integers(0, side - 9)) for side in size)
                    x2, y2 = (int(rng.integers(a + 8, side + 1)) for a, side in zip((x1, y1), size, strict=True))
                    x1, x2 = (0 if corner % 4 == 0 else x1), (size[0] if corner % 4 == 1 else x2)
                    part = lazy.part(x1, y1, x2, y2)
                    assert np.array_equal(part, whole[y1:y2, x1:x2]), (group, taken, size, (x1, y1, x2, y2))
            resized_less += ours._aligned(20, 21, size[1], height, 1)[1] < size[1]
    finally:
        cv2.ipp.setUseIPP(before)
    assert resized_less == (9 if ipp else 4), "otherwise nothing is saved"


def colours(number: int) -> np.ndarray:
    """Return so many of the 2^24 colours, evenly spread."""
    values = np.arange(0, 2**24, 2**24 // number)
    return np.stack([values >> 16, values >> 8 & 255, values & 255], 1).astype(np.uint8).reshape(256, -1, 3)


@pytest.mark.parametrize("name, ranges", [
    ("brightness", (0.2, 2)), ("contrast", (0, 3)), ("saturation", (0, 3)), ("hue", (-255, 255)), ("hue", (0, 1e-9)),
    ("sharpness", (0, 2)),
])  # fmt: skip
def test_colours(name: str, ranges: tuple[float, float]) -> None:
    compare_colours(colours(2**16), name, ranges, range(8))


@pytest.mark.slow
@pytest.mark.parametrize("name, ranges", [("hue", (-18, 18)), ("saturation", (0.6, 1.4))])
def test_every_colour(name: str, ranges: tuple[float, float]) -> None:
    compare_colours(colours(2**24), name, ranges, range(1))


def compare_colours(image: np.ndarray, name: str, ranges: tuple[float, float], seeds: range) -> None:
    from PIL import Image

    for seed in seeds:
        found = []
        for module, given in ((theirs, Image.fromarray(image)), (ours, image)):
            np.random.seed(seed)
            found.append(np.asarray(getattr(module, name)(given, *ranges)))
        assert np.array_equal(*found), f"seed {seed}: {np.mean(found[0] != found[1]):.2%} of the values differ"


def test_values_of_floats_are_normalized_alike() -> None:
    image = np.random.default_rng(0).uniform(-20, 300, (50, 60, 3)).astype(np.float32)
    steps = [T.Normalize(MEAN, STD)]
    (fast,) = fast_transforms(steps, 3)
    first, second = steps[0]({"img": image.copy()})["img"], fast({"img": image.copy()})["img"]
    assert np.array_equal(first, second), np.abs(first - second).max()


def test_the_uncorrected_crop_is_left_as_it_is() -> None:
    (step,) = fast_transforms([T.RandomPaddingCrop((8, 8), category_max_ratio=0.5)], 3)
    assert step.func.__name__ == "_on_floats"
