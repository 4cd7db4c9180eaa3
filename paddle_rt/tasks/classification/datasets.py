"""Data sets of images with one class each: class folders, lists as ImageNet has them, and rendered objects."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from paddle_rt.arguments import checks_arguments
from paddle_rt.errors import UserError, unknown
from paddle_rt.imaging import IMAGE_SUFFIXES, is_image, read_image
from paddle_rt.imaging.lists import read_class_names, read_classes
from paddle_rt.streetscenes.render import render
from paddle_rt.streetscenes.street_objects import CLASSES, SERIES, make_object_scene
from paddle_rt.tasks.cache import FirstResults
from paddle_rt.tasks.classification.transforms import Transform, apply

_MODES = ("train", "val", "test")
_TREE = """
      {root}/train/CLASS/*.jpg
      {root}/val/CLASS/*.jpg (the same class folders; {suffixes})"""


class ClassifiedImages(paddle.io.Dataset):
    """Images with one class each.

    Items have "img", float32 RGB [3, H, W], and "label", int64. Those of training also have "draw", a random number
    from which the operators of a batch draw theirs.

    Args:
        labels: The class of each image.
        class_names: One name for each class.
        transforms: What is done to an image, in this order.
        training: Whether the items are for training.

    Attributes:
        num_classes: Number of classes.
    """

    def __init__(
        self, labels: Sequence[int], class_names: Sequence[str], transforms: Sequence[Transform], training: bool
    ) -> None:
        super().__init__()
        self.labels, self.class_names = np.asarray(labels, np.int64), list(class_names)
        self.transforms, self.training = list(transforms), training
        self.num_classes = len(self.class_names)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = {"img": apply(self.transforms, self.frame(index)), "label": self.labels[index]}
        if self.training:
            item["draw"] = np.int64(np.random.randint(1 << 31))
        return item

    def frame(self, index: int) -> np.ndarray:
        """Return an image as it is, uint8 BGR [H, W, 3].

        Raises:
            UserError: It cannot be read.
        """
        raise NotImplementedError


class _ImageFiles(ClassifiedImages):
    def __init__(
        self,
        samples: Sequence[tuple[str, int]],
        class_names: Sequence[str],
        transforms: Sequence[Transform],
        training: bool,
    ) -> None:
        super().__init__([label for _, label in samples], class_names, transforms, training)
        self.files = [file for file, _ in samples]

    def frame(self, index: int) -> np.ndarray:
        return read_image(self.files[index])


class ImageFolder(_ImageFiles):
    """A folder for each class; classes are numbered in the order of the folders' names.

    Args:
        transforms: What is done to an image.
        dataset_root: Folder that holds a folder for each mode, which holds the class folders.
        num_classes: Number of class folders; two at least.
        mode: "train", "val" or "test".

    Raises:
        UserError: A folder is missing, holds no image or folders of its own, or their number is another.
    """

    NUM_CLASSES = None

    @checks_arguments
    def __init__(self, transforms: Sequence[Any], dataset_root: str, num_classes: int, mode: str = "train") -> None:
        folder = Path(dataset_root) / _mode("ImageFolder", mode)
        names = _class_folders(folder, dataset_root)
        if len(names) != num_classes:
            raise UserError(
                f"ImageFolder: {folder} holds {len(names)} class folders, expected num_classes {num_classes}"
            )
        samples = [(file, label) for label, name in enumerate(names) for file in _images_of(folder / name)]
        super().__init__(samples, names, transforms, mode == "train")

    @staticmethod
    def names(section: Mapping[str, Any]) -> list[str]:
        """Return the names of the classes of a section of a config.

        Raises:
            UserError: The folder is missing.
        """
        root = section["dataset_root"]
        return _class_folders(Path(root) / section.get("mode", "train"), root)


def _mode(name: str, mode: str) -> str:
    if mode not in _MODES:
        raise unknown(f"mode of {name}", mode, _MODES)
    return mode


def _class_folders(folder: Path, root: str) -> list[str]:
    if not folder.is_dir():
        tree = _TREE.replace("{root}", root).replace("{suffixes}", ", ".join(IMAGE_SUFFIXES)).lstrip("\n")
        raise UserError(f"ImageFolder: no folder {folder}; expected the tree below", tree)
    entries = _entries(folder)
    for entry in entries:
        if not entry.is_dir() and is_image(entry.name):
            raise UserError(f"ImageFolder: {folder} holds the image {entry.name} itself; put it into a class folder")
    names = [entry.name for entry in entries if entry.is_dir()]
    if len(names) < 2:
        found = f"one class folder, {names[0]}" if names else "no class folder"
        raise UserError(f"ImageFolder: {folder} holds {found}; there are two classes at least")
    return names


def _images_of(folder: Path) -> list[str]:
    entries = _entries(folder)
    for entry in entries:
        if entry.is_dir():
            raise UserError(
                f"ImageFolder: the class folder {folder} holds the folder {entry.name}; images lie directly in the "
                "folder of their class"
            )
    files = [entry.path for entry in entries if is_image(entry.name)]
    if not files:
        raise UserError(f"ImageFolder: the class folder {folder} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    return files


def _entries(folder: Path) -> list[os.DirEntry]:
    """Return what a folder holds, by name; names that begin with a dot are left out."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror}") from error


class ImageNet(_ImageFiles):
    """Images that a list names with their classes, as ImageNet-1k has in PaddleClas: "path number" on each line.

    Args:
        transforms: What is done to an image.
        dataset_root: Folder that the paths of the list are relative to.
        mode: "train", "val" or "test"; reads train_list.txt, val_list.txt or test_list.txt of the folder.
        num_classes: Number of classes.
        cls_label_path: Another list.
        class_id_map_file: A file with the number and the name of a class on each line.

    Raises:
        UserError: A file is missing, or a line of it is not as described.

    Source: https://www.image-net.org; PaddleClas docs/zh_CN/data_preparation/classification_dataset.md.
    """

    NUM_CLASSES = 1000

    @checks_arguments
    def __init__(
        self,
        transforms: Sequence[Any],
        dataset_root: str,
        mode: str = "train",
        num_classes: int = 1000,
        cls_label_path: str | None = None,
        class_id_map_file: str | None = None,
    ) -> None:
        path = cls_label_path or os.path.join(dataset_root, f"{_mode('ImageNet', mode)}_list.txt")
        if not os.path.isdir(dataset_root):
            raise UserError(f"ImageNet: no folder {dataset_root}; set dataset_root to the folder of the images")
        section = {"num_classes": num_classes, "class_id_map_file": class_id_map_file}
        samples = read_classes(path, dataset_root, num_classes)
        super().__init__(samples, self.names(section), transforms, mode == "train")

    @staticmethod
    def names(section: Mapping[str, Any]) -> list[str]:
        """Return the names of the classes of a section of a config, or their numbers where it names none.

        Raises:
            UserError: The file of names cannot be read.
        """
        number = section.get("num_classes", ImageNet.NUM_CLASSES)
        if section.get("class_id_map_file") is not None:
            return read_class_names(section["class_id_map_file"], number)
        return [f"class {label}" for label in range(number)]


class StreetObjects(ClassifiedImages):
    """Rendered images of single objects of the street in 12 classes; needs no files.

    Images are rendered when they are asked for and kept in memory until `cache_mb` is full, in each worker process
    separately.

    Args:
        transforms: What is done to an image.
        mode: "train", "val" or "test"; their objects are disjoint.
        num_samples: Number of images; None: 2400 to train, 600 otherwise.
        size: Rows and columns of an image.
        seed: Which series of images.
        cache_mb: Megabytes of rendered images to keep; 0 keeps none.

    Raises:
        UserError: An argument is not as described.
    """

    NUM_CLASSES = len(CLASSES)

    @checks_arguments
    def __init__(
        self,
        transforms: Sequence[Any],
        mode: str = "train",
        num_samples: int | None = None,
        size: int = 112,
        seed: int = 0,
        cache_mb: int = 256,
    ) -> None:
        self.first, default = SERIES[_mode("StreetObjects", mode)]
        number = default if num_samples is None else num_samples
        labels = [(self.first + index) % len(CLASSES) for index in range(number)]
        super().__init__(labels, CLASSES, transforms, mode == "train")
        self.size, self.seed = size, seed
        self._frames = FirstResults(cache_mb * 2**20 // (size * size * 3))

    @staticmethod
    def names(section: Mapping[str, Any]) -> list[str]:
        """Return the names of the classes."""
        return list(CLASSES)

    def frame(self, index: int) -> np.ndarray:
        return self._frames.result(index, self._render)

    def _render(self, index: int) -> np.ndarray:
        return render(make_object_scene(self.first + index, self.seed)[0], self.size, self.size)[0]


DATASETS: dict[str, Callable] = {cls.__name__: cls for cls in (ImageFolder, ImageNet, StreetObjects)}
