"""Data sets of image files with a label file each, and every data set that a config may name."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import paddle

from paddle_rt.components import Catalogue
from paddle_rt.errors import UserError, unknown
from paddle_rt.imaging.folders import pair_folders, require_pairs
from paddle_rt.imaging.label_format import LabelFormat
from paddle_rt.imaging.lists import read_pairs
from paddle_rt.imaging.read_write import list_images
from paddle_rt.tasks.segmentation.layouts import require_dataset
from paddle_rt.tasks.segmentation.transforms import CHANNELS, Compose, Sample

EDGE_RADIUS = 2  # pixels, PaddleSeg's


def dataset_catalogue() -> Catalogue:
    """Return the data sets that a config may name: ours, and PaddleSeg's where we have none of the name."""
    from paddle_rt.paddleseg.components import components
    from paddle_rt.tasks.segmentation.camvid import CamVid
    from paddle_rt.tasks.segmentation.street_dataset import StreetScenes

    ours = (Dataset, Cityscapes, ADE20K, CocoStuff, CamVid, StreetScenes)
    return {**components("datasets"), **{dataset.__name__: dataset for dataset in ours}}


def add_edges(sample: Sample, num_classes: int) -> None:
    """Add "edge" [1, H, W] to a transformed sample: 1 where the class changes, for networks that learn edges too."""
    from paddle_rt.paddleseg.components import binary_edges

    sample["edge"] = binary_edges(sample["label"], EDGE_RADIUS, num_classes)


class LabelledImages(paddle.io.Dataset):
    """Image files with a label file each.

    Items of a training set have "img" [C, H, W] and "label" [H, W], transformed alike, and "edge" [1, H, W] if asked
    for. Outside of training only the image is transformed, and "label" is [1, H, W] at its own size, at which scores
    are counted.

    Args:
        files: A pair (image, label) for each sample; the label may be None outside of training.
        transforms: PaddleSeg's transforms.
        num_classes: Labels are 0 to `num_classes` - 1 or `ignore_index`.
        img_channels: Channels of the images: 3, 1 or 4.
        ignore_index: Label of pixels that do not count.
        training: Whether labels are transformed like the images; can be changed later.
        edge: Whether training items also hold the edges of the classes.
    """

    def __init__(
        self,
        files: Sequence[Sequence[str | None]],
        transforms: Sequence[Any],
        num_classes: int,
        img_channels: int = 3,
        ignore_index: int = 255,
        training: bool = True,
        edge: bool = False,
    ) -> None:
        super().__init__()
        self.file_list = [list(pair) for pair in files]
        self.num_classes, self.img_channels, self.ignore_index = num_classes, img_channels, ignore_index
        self.training, self.edge = training, edge
        self.label_format = LabelFormat(num_classes, ignore_index)
        self.transforms = Compose(transforms, img_channels, num_classes, ignore_index)

    def __len__(self) -> int:
        return len(self.file_list)

    def __getitem__(self, index: int) -> Sample:
        image, label = self.file_list[index]
        sample = {"trans_info": [], "img": image, "gt_fields": ["label"] if self.training else []}
        if label is not None:
            sample["label"] = self.read_label(label)
        sample = self.transforms(sample)
        if not self.training and label is not None:
            sample["label"] = sample["label"][np.newaxis]
        elif self.training and self.edge:
            add_edges(sample, self.num_classes)
        return sample

    def read_label(self, file: str) -> str | np.ndarray:
        """Return the labels of a file, or the file's name to have it read and checked with its image."""
        return file if self.label_format.is_plain else self.label_format.read(file)


class Dataset(LabelledImages):
    """A data set of one's own, whose files are named in lists or lie in two folders.

    Args:
        mode: "train", "val" or "test"; which list is read. "test" gives items like "val".
        dataset_root: Folder that the lists' files are relative to.
        transforms: PaddleSeg's transforms.
        num_classes: Number of classes.
        img_channels: Channels of the images: 3, 1 or 4.
        train_path: Text file with an image and its label a line, for mode "train".
        val_path: The same for mode "val".
        test_path: The same for mode "test", where the labels may be missing.
        separator: What stands between an image and its label.
        ignore_index: Label of pixels that do not count.
        edge: Whether training items also hold the edges of the classes.
        image_root: Folder of the images, relative to `dataset_root`, in place of a list; see `pair_folders`.
        label_root: Folder of the labels; it may be left out for mode "test".
        label_map: As for `LabelFormat`.
        reduce_zero_label: As for `LabelFormat`.
        palette: As for `LabelFormat`.
        class_names: A name for each class, which scores, logs, legends and exports show.
        colors: RGB colours in which results are drawn, one for each class; by default those of `palette`.

    Raises:
        UserError: An argument is wrong, the list cannot be read (see `read_pairs`), or files of the folders are alone.
    """

    def __init__(
        self,
        mode: str,
        dataset_root: str,
        transforms: Sequence[Any],
        num_classes: int,
        img_channels: int = 3,
        train_path: str | None = None,
        val_path: str | None = None,
        test_path: str | None = None,
        separator: str = " ",
        ignore_index: int = 255,
        edge: bool = False,
        image_root: str | None = None,
        label_root: str | None = None,
        label_map: Mapping[int, int] | None = None,
        reduce_zero_label: bool = False,
        palette: Sequence[Sequence[int]] | None = None,
        class_names: Sequence[str] | None = None,
        colors: Sequence[Sequence[int]] | None = None,
    ) -> None:
        lists = {"train": train_path, "val": val_path, "test": test_path}
        mode = str(mode).lower()
        if mode not in lists:
            raise unknown("mode of Dataset", mode, lists)
        if not os.path.exists(dataset_root):
            raise UserError(f"Dataset: no folder {dataset_root}; set dataset_root to the folder of the images")
        if img_channels not in CHANNELS:
            raise UserError(f"Dataset: img_channels is {img_channels!r}; images have 1, 3 or 4 channels")
        if image_root is not None:
            files = _files_of_folders(dataset_root, image_root, label_root, may_lack_labels=mode == "test")
        elif lists[mode] is None:
            raise UserError(
                f"Dataset: mode {mode!r} needs {mode}_path, a text file that lists the images, or image_root and "
                "label_root, two folders"
            )
        else:
            files = read_pairs(lists[mode], dataset_root, separator, may_lack_labels=mode == "test")
        training = mode == "train"
        super().__init__(files, transforms, num_classes, img_channels, ignore_index, training, edge)
        self.label_format = LabelFormat(num_classes, ignore_index, label_map, reduce_zero_label, palette)
        self.mode, self.dataset_root, self.class_names, self.colors = mode, dataset_root, class_names, colors


def _files_of_folders(
    root: str, image_root: str, label_root: str | None, may_lack_labels: bool
) -> Sequence[Sequence[str | None]]:
    images = os.path.join(root, image_root)
    if label_root is not None:
        labels = os.path.join(root, label_root)
        return require_pairs(pair_folders(images, labels), images, labels)
    if not may_lack_labels:
        raise UserError("Dataset: image_root needs label_root, the folder of the labels")
    return [(image, None) for image in list_images(images)[0]]


class _OfficialLayout(LabelledImages):
    """A data set whose files lie as its authors publish them; see `layouts`."""

    NUM_CLASSES: int
    IMG_CHANNELS = 3
    IGNORE_INDEX = 255
    REDUCE_ZERO_LABEL = False  # see `LabelFormat`

    def __init__(self, transforms: Sequence[Any], dataset_root: str, mode: str = "train", edge: bool = False) -> None:
        files = require_dataset(type(self).__name__, dataset_root, mode)
        mode, training = mode.lower(), mode.lower() == "train"
        super().__init__(files, transforms, self.NUM_CLASSES, self.IMG_CHANNELS, self.IGNORE_INDEX, training, edge)
        self.label_format = LabelFormat(self.NUM_CLASSES, self.IGNORE_INDEX, reduce_zero_label=self.REDUCE_ZERO_LABEL)
        self.mode, self.dataset_root = mode, dataset_root


class Cityscapes(_OfficialLayout):
    """Cityscapes in its 19 training classes (labelTrainIds).

    Args:
        transforms: PaddleSeg's transforms.
        dataset_root: Folder that holds leftImg8bit and gtFine.
        mode: "train", "val" or "test". "test" gives items like "val".
        edge: Whether training items also hold the edges of the classes.

    Raises:
        UserError: Files are missing.

    Source: https://www.cityscapes-dataset.com
    """

    NUM_CLASSES = 19


class ADE20K(_OfficialLayout):
    """ADE20K (SceneParsing) in its 150 classes; label 0, which is not labelled, becomes 255.

    The images are sorted by name; PaddleSeg takes them in the order of the file system.

    Args:
        transforms: PaddleSeg's transforms.
        dataset_root: Folder that holds images and annotations.
        mode: "train" or "val".
        edge: Whether training items also hold the edges of the classes.

    Raises:
        UserError: Files are missing.

    Source: http://sceneparsing.csail.mit.edu
    """

    NUM_CLASSES = 150
    REDUCE_ZERO_LABEL = True


class CocoStuff(_OfficialLayout):
    """COCO-Stuff 164k in its 171 classes.

    Args:
        transforms: PaddleSeg's transforms.
        dataset_root: Folder that holds images and annotations.
        mode: "train" or "val".
        edge: Whether training items also hold the edges of the classes.

    Raises:
        UserError: Files are missing.

    Source: https://github.com/nightrome/cocostuff
    """

    NUM_CLASSES = 171
