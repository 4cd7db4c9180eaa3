"""CamVid in SegNet's 11 classes."""

import os
import re
from collections.abc import Sequence
from typing import Any

from paddle_rt.errors import UserError
from paddle_rt.imaging.lists import read_pairs
from paddle_rt.kinds import check_count
from paddle_rt.tasks.segmentation.clips import ClipTransforms
from paddle_rt.tasks.segmentation.datasets import LabelledImages
from paddle_rt.tasks.segmentation.layouts import require_dataset


class CamVid(LabelledImages):
    """The Cambridge-driving Labeled Video Database, in SegNet's 11 classes and split (train 367, val 101, test 233).

    `tools/data/prepare_camvid.py` writes the tree that is read here, at 960x720 or 480x360.

    Args:
        transforms: PaddleSeg's transforms.
        dataset_root: Folder that holds train.txt, val.txt and test.txt; their lines are "image label", relative to it.
        mode: "train", "val", "test", or "trainval" to train on both.
        edge: Whether training items also hold the edges of the classes.
        frames: Frames of a clip that ends with the labelled one; items hold "img" [3 frames, H, W], the oldest first.
            1 gives the labelled image alone.
        video_root: Folder of the frames before the labelled ones. They are named like those, with the number of the
            frame: 0016E5_07957.png and 0016E5_07958.png are before 0016E5_07959.png. Where a video begins with its
            first labelled frame, that frame stands in for those before it.

    Raises:
        UserError: Files are missing, a line is not a pair, or frames and video_root do not go together.

    Source: Brostow, Fauqueur, Cipolla, "Semantic object classes in video", 2009; classes and split of Badrinarayanan,
        Kendall, Cipolla, "SegNet", 2017.
    """

    NUM_CLASSES = 11
    IMG_CHANNELS = 3
    IGNORE_INDEX = 255

    def __init__(
        self,
        transforms: Sequence[Any],
        dataset_root: str,
        mode: str = "train",
        edge: bool = False,
        frames: int = 1,
        video_root: str | None = None,
    ) -> None:
        require_dataset("CamVid", dataset_root, mode)
        mode = mode.lower()
        lists = ["train", "val"] if mode == "trainval" else [mode]
        files = [pair for name in lists for pair in read_pairs(os.path.join(dataset_root, f"{name}.txt"), dataset_root)]
        training = mode in ("train", "trainval")
        super().__init__(files, transforms, self.NUM_CLASSES, self.IMG_CHANNELS, self.IGNORE_INDEX, training, edge)
        self.mode, self.dataset_root = mode, dataset_root
        check_count("CamVid: frames", frames)
        if (frames > 1) != (video_root is not None):
            raise UserError(f"CamVid: clips need both frames, above 1, and video_root; got {frames} and {video_root}")
        if frames > 1:
            images = [image for image, _ in self.file_list]
            self.transforms = ClipTransforms(self.transforms, _earlier_frames(images, video_root, frames - 1))


def _earlier_frames(images: list[str], video_root: str, count: int) -> dict[str, list[str]]:
    """The files of the `count` frames before each image, the oldest first."""
    if not os.path.isdir(video_root):
        raise UserError(
            f"CamVid: no folder {video_root}; video_root holds the frames before the labelled ones, named "
            "as those are with the frame's number, such as 0016E5_07958.png"
        )
    present, begun, earlier = set(os.listdir(video_root)), set(), {}
    for image in sorted(images):
        name, suffix = os.path.splitext(os.path.basename(image))
        video, digits = re.fullmatch(r"(.*?)(\d*)", name).groups()
        before = [f"{video}{int(digits or 0) - k:0{len(digits)}d}{suffix}" for k in range(count, 0, -1)]
        lacking = [file for file in before if file not in present]
        begins = video not in begun and lacking == before[: len(lacking)]
        begun.add(video)
        if lacking and not begins:
            raise UserError(
                f"CamVid: {video_root} lacks {lacking[-1]}, a frame before {image}; clips of "
                f"{count + 1} frames need the {count} before each labelled frame, numbered as it is"
            )
        files = [os.path.join(video_root, file) for file in before[len(lacking) :]]
        earlier[image] = [(files or [image])[0]] * len(lacking) + files
    return earlier
