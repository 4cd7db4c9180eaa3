"""CamVid, 11 classes, as a PaddleSeg data set."""

import os
import re
from collections.abc import Sequence
from typing import Any

from paddleseg.cvlibs import manager
from paddleseg.datasets import Dataset
from paddleseg.transforms import Compose

from paddle_rt.errors import UserError
from paddle_rt.imaging.palettes import CAMVID
from paddle_rt.tasks.segmentation.clips import ClipTransforms
from paddle_rt.tasks.segmentation.layouts import missing, require_dataset
from paddle_rt.tasks.segmentation.reading import check_reading


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
        frames: Frames of a clip that ends with the labelled picture; items hold "img" [3 frames, H, W], the oldest
            first. 1 gives the picture alone.
        video_root: Folder of the frames before the labelled ones, in one heap, named as those are with the frame's
            number: 0016E5_07957.png and 0016E5_07958.png are before 0016E5_07959.png. Where a video begins with
            its first labelled picture, that one stands in for what was before.

    Raises:
        UserError: Files are missing, a line is not a pair, or frames and video_root do not go together.

    Source: Brostow, Fauqueur, Cipolla, "Semantic object classes in video", 2009; classes and split of Badrinarayanan,
        Kendall, Cipolla, "SegNet", 2017.
    """

    NUM_CLASSES = 11
    IMG_CHANNELS = 3
    IGNORE_INDEX = 255
    CLASS_NAMES = tuple(CAMVID)

    def __init__(
        self,
        transforms: Sequence[Any],
        dataset_root: str,
        mode: str = "train",
        edge: bool = False,
        frames: int = 1,
        video_root: str | None = None,
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
        if isinstance(frames, bool) or not isinstance(frames, int) or frames < 1:
            raise UserError(f"CamVid: frames is {frames!r}; give a whole number of at least 1")
        if (frames > 1) != (video_root is not None):
            raise UserError(f"CamVid: clips need both frames, above 1, and video_root; got {frames} and {video_root}")
        if frames > 1:
            pictures = [image for image, _ in self.file_list]
            self.transforms = ClipTransforms(self.transforms, _earlier(pictures, video_root, frames - 1))


def _read_pairs(root: str, name: str) -> list[list[str]]:
    path = os.path.join(root, f"{name}.txt")
    with open(path, encoding="utf-8") as file:
        lines = [line.split() for line in file if line.strip()]
    if not lines:
        raise missing("CamVid", root, f"{path} is empty")
    for line in lines:
        if len(line) != 2:
            raise UserError(f'{path}: expected two words a line, "image label", but got {" ".join(line)!r}')
    return [[os.path.join(root, image), os.path.join(root, label)] for image, label in lines]


def _earlier(pictures: list[str], video_root: str, count: int) -> dict[str, list[str]]:
    """The files of the `count` frames before each picture, the oldest first."""
    if not os.path.isdir(video_root):
        raise UserError(
            f"CamVid: no folder {video_root}; video_root holds the frames before the labelled ones, named "
            "as those are with the frame's number, such as 0016E5_07958.png"
        )
    there, begun, earlier = set(os.listdir(video_root)), set(), {}
    for picture in sorted(pictures):
        name, suffix = os.path.splitext(os.path.basename(picture))
        video, digits = re.fullmatch(r"(.*?)(\d*)", name).groups()
        before = [f"{video}{int(digits or 0) - k:0{len(digits)}d}{suffix}" for k in range(count, 0, -1)]
        lacking = [file for file in before if file not in there]
        begins = video not in begun and lacking == before[: len(lacking)]
        begun.add(video)
        if lacking and not begins:
            raise UserError(
                f"CamVid: {video_root} lacks {lacking[-1]}, a frame before {picture}; clips of "
                f"{count + 1} frames need the {count} before each labelled picture, numbered as it is"
            )
        files = [os.path.join(video_root, file) for file in before[len(lacking) :]]
        earlier[picture] = [(files or [picture])[0]] * len(lacking) + files
    return earlier
