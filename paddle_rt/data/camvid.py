"""CamVid, 11 classes, as a PaddleSeg data set."""

import os
from collections.abc import Sequence
from typing import Any

from paddleseg.cvlibs import manager
from paddleseg.datasets import Dataset
from paddleseg.transforms import Compose

from paddle_rt.data.classes import CAMVID
from paddle_rt.data.layouts import missing, require_dataset
from paddle_rt.data.reading import check_reading
from paddle_rt.errors import UserError


@manager.DATASETS.add_component
class CamVid(Dataset):
    """The Cambridge-driving Labeled Video Database, in SegNet's 11 classes and split (train 367, val 101, test 233).

    `tools/data/prepare_camvid.py` writes the tree that is read here, at 960x720 or 480x360. Modes "val" and "test"
    keep labels at their own size, as PaddleSeg's evaluation wants them.

    Args:
        transforms: PaddleSeg transforms.
        dataset_root: The folder with train.txt, val.txt, test.txt; their lines are "image label", relative to it.
        mode: "train", "val", "test", or "trainval" to train on both.
        edge: Also give the classes' edges, for the models that want them.

    Raises:
        UserError: Files are missing, or a line is not a pair.

    Source: Brostow, Fauqueur, Cipolla, "Semantic object classes in video", 2009; classes and split of Badrinarayanan,
        Kendall, Cipolla, "SegNet", 2017.
    """

    NUM_CLASSES = 11
    IMG_CHANNELS = 3
    IGNORE_INDEX = 255
    CLASS_NAMES = tuple(CAMVID)

    def __init__(
        self, transforms: Sequence[Any], dataset_root: str, mode: str = "train", edge: bool = False
    ) -> None:
        mode = mode.lower()
        require_dataset("CamVid", dataset_root, mode)
        self.dataset_root = dataset_root
        self.transforms = Compose(list(transforms))
        self.num_classes = self.NUM_CLASSES
        self.img_channels = self.IMG_CHANNELS
        self.ignore_index = self.IGNORE_INDEX
        self.edge = edge
        self.split = mode
        # PaddleSeg's __getitem__ transforms labels in every mode but "val": test images would be scored at the
        # network's size.
        self.mode = "train" if mode in ("train", "trainval") else "val"
        lists = ["train", "val"] if mode == "trainval" else [mode]
        self.file_list = [pair for name in lists for pair in _read_pairs(dataset_root, name)]
        check_reading(self)


def _read_pairs(root: str, name: str) -> list[list[str]]:
    path = os.path.join(root, f"{name}.txt")
    with open(path, encoding="utf-8") as file:
        lines = [line.split() for line in file if line.strip()]
    if not lines:
        raise missing("CamVid", root, f"{path} is empty")
    for line in lines:
        if len(line) != 2:
            raise UserError(f"{path}: expected two words a line, \"image label\", but got {' '.join(line)!r}")
    return [[os.path.join(root, image), os.path.join(root, label)] for image, label in lines]
