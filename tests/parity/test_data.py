"""Our data sets beside PaddleSeg's: the same arrays to the bit from the same files and random numbers."""

import random

import cv2
import numpy as np
import pytest
from paddleseg import datasets as theirs
from paddleseg import transforms as T
from PIL import Image

from paddle_rt.config import build_task, load_config
from paddle_rt.paddleseg.components import components
from paddle_rt.tasks.segmentation import datasets as ours
from paddle_rt.tasks.segmentation.datasets import LabelledImages
from paddle_rt.tasks.segmentation.transforms import Compose
from tests.helpers import smooth_image, tiny_config

CLASSES = 6


def training_transforms() -> list:
    return [
        T.ResizeStepScaling(0.5, 2.0, 0.25),
        components("transforms")["RandomPaddingCrop"](crop_size=(48, 40)),
        T.RandomHorizontalFlip(),
        T.RandomDistort(brightness_range=0.4, contrast_range=0.4, saturation_range=0.4),
        T.RandomRotation(),
        T.Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    ]


def plain_transforms() -> list:
    return [T.Resize(target_size=(50, 30), keep_ratio=True, size_divisor=8), T.Normalize()]


def equal(first, second, length: int) -> None:
    assert len(first) == len(second) == length
    for index in range(length):
        items = []
        for dataset in (first, second):
            random.seed(index), np.random.seed(index)
            items.append(dataset[index])
        assert items[0].keys() == items[1].keys()
        for key, value in items[0].items():
            other = items[1][key]
            if isinstance(value, np.ndarray):
                assert value.dtype == other.dtype and np.array_equal(value, other), key
            else:
                assert value == other, key


@pytest.fixture
def folder(tmp_path):
    """Three images of unequal sizes, in colour and grey, with grey and indexed labels that hold ignored pixels."""
    rng, lines = np.random.default_rng(0), []
    for number in range(3):
        height, width = 36 + 4 * number, 60 - 6 * number
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), smooth_image(height, width, number))
        label = np.kron(rng.integers(0, CLASSES, (6, 6)), np.ones((9, 11)))[:height, :width].astype(np.uint8)
        label[:5] = 255
        image = Image.fromarray(label, "P" if number else "L")
        if number:
            image.putpalette([value % 256 for value in range(768)])
        image.save(tmp_path / f"{number}.png")
        lines.append(f"{number}.jpg {number}.png\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    return tmp_path


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("mode", ["train", "val"])
@pytest.mark.parametrize("edge", [False, True])
def test_dataset(folder, mode, channels, edge):
    grey = [T.RandomHorizontalFlip(), T.Normalize(mean=[0.5], std=[0.5])]
    made = []
    for kind in (theirs.Dataset, ours.Dataset):
        transforms = grey if channels == 1 else training_transforms() if mode == "train" else plain_transforms()
        lists = {f"{mode}_path": str(folder / "list.txt")}
        made.append(kind(mode, str(folder), transforms, CLASSES, channels, **lists, edge=edge))
    equal(*made, 3)


LAYOUTS = {
    "Cityscapes": (
        "leftImg8bit/{}/a/a_{}_leftImg8bit.png",
        "gtFine/{}/a/a_{}_gtFine_labelTrainIds.png",
        "train",
        "val",
    ),
    "ADE20K": ("images/{}/{}.jpg", "annotations/{}/{}.png", "training", "validation"),
    "CocoStuff": ("images/{}/{}.jpg", "annotations/{}/{}.png", "train2017", "val2017"),
}


@pytest.mark.parametrize("mode", ["train", "val"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_official_layouts(tmp_path, name, mode):
    image, label, *folders = LAYOUTS[name]
    split, rng = folders[mode == "val"], np.random.default_rng(0)
    for number in range(3):
        for pattern, content in ((image, smooth_image(40, 56, number)), (label, rng.integers(0, 19, (40, 56)))):
            path = tmp_path / pattern.format(split, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), content.astype(np.uint8))
    transforms = training_transforms if mode == "train" else plain_transforms
    pair = [getattr(module, name)(transforms(), str(tmp_path), mode) for module in (theirs, ours)]
    pair[0].file_list.sort()  # ADE20K's are in the order of the file system
    assert pair[0].file_list == pair[1].file_list
    equal(*pair, 3)


def test_data_sets_of_paddleseg_alone_read_as_ours_do(tmp_path):
    """With its own class and transforms, but with our reading, which names what is wrong with a file."""
    for split in ("train", "val"):
        (tmp_path / f"{split}_list.txt").write_text("0.jpg 0.png\n")
    cv2.imwrite(str(tmp_path / "0.jpg"), smooth_image(40, 56))
    cv2.imwrite(str(tmp_path / "0.png"), np.ones((40, 56), np.uint8))
    section = {"type": "OpticDiscSeg", "dataset_root": str(tmp_path), "transforms": [{"type": "Normalize"}]}
    path = tiny_config(
        tmp_path, train_dataset={**section, "mode": "train"}, val_dataset={**section, "mode": "val"},
    )  # fmt: skip
    config = load_config(path)
    assert config.values["model"]["num_classes"] == 2
    dataset = build_task(config).build_data("train")
    assert not isinstance(dataset, LabelledImages) and isinstance(dataset.transforms, Compose)
    equal(theirs.OpticDiscSeg(transforms=[T.Normalize()], dataset_root=str(tmp_path), mode="train"), dataset, 1)
