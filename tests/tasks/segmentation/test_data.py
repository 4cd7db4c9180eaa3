"""Class tables, CamVid and its preparation, data set layouts."""

import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from paddle_rt import imaging
from paddle_rt.errors import UserError
from paddle_rt.imaging import palettes as classes
from paddle_rt.tasks.segmentation.camvid_prepare import SPLIT_SIZES, prepare, split_of
from paddle_rt.tasks.segmentation.datasets import Dataset
from paddle_rt.tasks.segmentation.layouts import LAYOUTS, require_dataset
from paddle_rt.tasks.segmentation.transforms import Compose, transform_catalogue
from tests.helpers import SHARED, message, run_python

SHARED_CAMVID = SHARED / "camvid"


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


# Class names and colours


@pytest.mark.parametrize(("name", "number"), [("Cityscapes", 19), ("CamVid", 11), ("ADE20K", 150), ("CocoStuff", 171)])
def test_class_tables(name: str, number: int) -> None:
    names, colours = classes.class_names(name, number), classes.palette(name, number)
    assert len(names) == number and not any(text.startswith("class ") for text in names)
    assert colours.shape == (number, 3) and colours.dtype == np.uint8
    assert classes.class_names(name, 5) == [f"class {index}" for index in range(5)]


def test_names_and_colours_stay_paired() -> None:
    ade = dict(zip(classes.class_names("ADE20K", 150), classes.palette("ADE20K", 150).tolist(), strict=False))
    assert ade["wall"] == [120, 120, 120] and ade["sky"] == [6, 230, 230] and ade["flag"] == [92, 0, 255]
    city = dict(zip(classes.class_names("Cityscapes", 19), classes.palette("Cityscapes", 19).tolist(), strict=True))
    assert city["bicycle"] == [119, 11, 32] and city["sky"] == [70, 130, 180]
    stuff = classes.class_names("CocoStuff", 171)
    assert (stuff[0], stuff[79], stuff[80], stuff[170]) == ("person", "toothbrush", "banner", "wood")


def test_data_set_objects_are_named_by_their_type() -> None:
    class CamVid:
        pass

    assert classes.class_names(CamVid(), 11)[10] == "bicyclist"


def test_unknown_palette_is_paddlesegs() -> None:
    from paddleseg.utils.visualize import get_color_map_list

    theirs = np.array(get_color_map_list(200)).reshape(-1, 3)[:200]
    difference = np.abs(theirs - classes.palette("Dataset", 200).astype(int)).max()
    assert difference == 0, f"largest colour difference {difference}"


def test_camvid_groups() -> None:
    table = classes.CAMVID_32
    assert len(table) == 32 and len({colour for colour, _ in table.values()}) == 32
    assert {group for _, group in table.values()} == {*range(11), 255}
    for index, colour in enumerate(classes.CAMVID.values()):
        assert (colour, index) in table.values(), "a class and the official class that names it share colour and group"


def test_classes_and_images_import_no_paddle() -> None:
    modules = "paddle_rt.imaging"
    code = f"import sys, {modules}; print({{'paddle', 'paddleseg'}} & set(sys.modules))"
    done = run_python("-c", code)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr


# CamVid


def official_names() -> list[str]:
    """The 701 frames as the authors name them; 00901 stands where the step of 30 would have 00900."""
    morning = [*range(390, 2401, 30), *range(4350, 7921, 30), *range(8190, 8641, 30), *range(7959, 8160, 2)]
    return (
        [f"0001TP_{number:06d}" for number in range(6690, 10381, 30)]
        + [f"0006R0_f{number:05d}" for number in range(930, 3931, 30)]
        + [f"0016E5_{901 if number == 900 else number:05d}" for number in morning]
        + [f"Seq05VD_f{number:05d}" for number in range(0, 5101, 30)]
    )


def test_split_has_the_known_sizes() -> None:
    names = official_names()
    assert len(names) == len(set(names)) == 701
    splits = [split_of(name) for name in names]
    assert {split: splits.count(split) for split in set(splits)} == SPLIT_SIZES
    assert [split_of(name) for name in ("0001TP_x", "other_00010", "readme")] == [None] * 3


def write_official(root: Path, names: list[str]) -> None:
    colours = [colour for colour, _ in classes.CAMVID_32.values()]
    for folder in ("701_StillsRaw_full", "LabeledApproved_full"):
        (root / folder).mkdir(parents=True)
    for name in names:
        cv2.imwrite(str(root / "701_StillsRaw_full" / f"{name}.png"), noise(4, 8))
        label = np.array(colours, np.uint8).reshape(4, 8, 3)[..., ::-1]
        cv2.imwrite(str(root / "LabeledApproved_full" / f"{name}_L.png"), label)


def write_segnet(root: Path) -> None:
    for split, name in (("train", "0001TP_006690"), ("val", "0016E5_07959"), ("test", "Seq05VD_f00000")):
        for folder in (split, f"{split}annot"):
            (root / "CamVid" / folder).mkdir(parents=True)
        cv2.imwrite(str(root / "CamVid" / split / f"{name}.png"), noise(3, 4))
        labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
        cv2.imwrite(str(root / "CamVid" / f"{split}annot" / f"{name}.png"), labels)


def prepare_tool(*arguments: object) -> subprocess.CompletedProcess:
    return run_python("tools/data/prepare_camvid.py", *arguments)


def test_prepare_official(tmp_path: Path) -> None:
    write_official(tmp_path / "raw", official_names())
    assert prepare(tmp_path / "raw", tmp_path / "camvid") == SPLIT_SIZES
    pairs = {split: (tmp_path / "camvid" / f"{split}.txt").read_text().splitlines() for split in SPLIT_SIZES}
    assert {split: len(lines) for split, lines in pairs.items()} == SPLIT_SIZES
    image, label = pairs["val"][0].split()
    assert (image, label) == ("images/val/0016E5_07959.png", "labels/val/0016E5_07959.png")
    expected = np.array([group for _, group in classes.CAMVID_32.values()]).reshape(4, 8)
    assert np.array_equal(cv2.imread(str(tmp_path / "camvid" / label), cv2.IMREAD_UNCHANGED), expected)
    assert np.array_equal(imaging.read_image(tmp_path / "camvid" / image), noise(4, 8))


def test_prepare_segnet_and_load(tmp_path: Path) -> None:
    write_segnet(tmp_path / "clone")
    done = prepare_tool("--input", tmp_path / "clone", "--output", tmp_path / "camvid")
    assert done.returncode == 0, done.stderr
    assert "train 1, val 1, test 1" in done.stdout and "warning: train has 1 frames" in done.stderr
    from paddle_rt.tasks.segmentation.camvid import CamVid

    for mode, number in (("train", 1), ("val", 1), ("test", 1), ("trainval", 2)):
        data = CamVid([], str(tmp_path / "camvid"), mode)
        assert len(data) == number and data.num_classes == 11
    sample = data[0]
    assert sample["img"].shape == (3, 3, 4)
    assert sample["label"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 255]]


def test_prepare_refuses_and_leaves_nothing(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_official(raw, official_names()[:3])
    label = raw / "LabeledApproved_full" / f"{official_names()[1]}_L.png"
    kept = label.read_bytes()

    cv2.imwrite(str(label), np.full((4, 8, 3), (1, 2, 3), np.uint8))
    said = message(prepare, raw, out)
    assert "(3, 2, 1)" in said and str(label) in said
    cv2.imwrite(str(label), np.zeros((4, 9, 3), np.uint8))
    assert "(9, 4)" in message(prepare, raw, out)
    label.write_bytes(kept[:-20])
    assert "cut off" in message(prepare, raw, out)
    label.unlink()
    assert "no label" in message(prepare, raw, out)
    label.write_bytes(kept)
    (raw / "other.png").write_bytes(kept)
    assert "other.png" in message(prepare, raw, out)
    (tmp_path / "raw" / "other.png").unlink()
    assert "neither" in message(prepare, raw / "701_StillsRaw_full", out)
    assert "no folder" in message(prepare, tmp_path / "gone", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"], "no half-made output"

    out.mkdir()
    (out / "mine.txt").touch()
    done = prepare_tool("--input", raw, "--output", out)
    assert done.returncode == 1 and done.stderr.startswith("error:") and len(done.stderr.splitlines()) == 1
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_camvid_names_bad_files(tmp_path: Path) -> None:
    from paddle_rt.tasks.segmentation.camvid import CamVid

    write_segnet(tmp_path / "clone")
    root = tmp_path / "camvid"
    prepare(tmp_path / "clone", root)
    data = CamVid([], str(root), "train")
    cv2.imwrite(str(root / "labels/train/0001TP_006690.png"), np.full((3, 4), 99, np.uint8))
    assert "99" in message(data.__getitem__, 0)
    cv2.imwrite(str(root / "labels/train/0001TP_006690.png"), np.zeros((4, 4), np.uint8))
    assert "4x4" in message(data.__getitem__, 0)
    (root / "images/train/0001TP_006690.png").unlink()
    assert "0001TP_006690.png" in message(data.__getitem__, 0)
    (root / "train.txt").write_text("only-one-word\n")
    assert "only-one-word" in message(CamVid, [], str(root), "train")
    (root / "train.txt").unlink()
    said = message(CamVid, [], str(root), "trainval")
    assert "prepare_camvid.py" in said and "VideoRec/CamVid" in said
    assert "did you mean" in message(CamVid, [], str(root), "tets")


def test_camvid_edges_and_test_labels_at_their_own_size(tmp_path: Path) -> None:
    from paddleseg.transforms import Resize

    from paddle_rt.tasks.segmentation.camvid import CamVid

    write_segnet(tmp_path / "clone")
    prepare(tmp_path / "clone", tmp_path / "camvid")
    resize = [Resize(target_size=(8, 6))]
    assert CamVid(resize, str(tmp_path / "camvid"), "train", edge=True)[0]["edge"].shape == (1, 6, 8)
    for mode in ("val", "test"):
        sample = CamVid(resize, str(tmp_path / "camvid"), mode)[0]
        assert sample["img"].shape == (3, 6, 8) and sample["label"].shape == (1, 3, 4)


@pytest.mark.skipif(not SHARED_CAMVID.is_dir(), reason="CamVid at 480x360 is not beside the repository")
def test_real_camvid() -> None:
    from paddle_rt.tasks.segmentation.camvid import CamVid

    for mode, number in (("train", 367), ("val", 101)):
        data = CamVid([], str(SHARED_CAMVID), mode)
        assert len(data) == number
        assert {split_of(Path(image).stem) for image, _ in data.file_list} == {mode}
        assert data[0]["img"].shape == (3, 360, 480)


# Layouts


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize("name", LAYOUTS)
def test_missing_data_set_says_tree_and_source(tmp_path: Path, name: str) -> None:
    for root in (None, tmp_path / "gone", tmp_path):
        said = message(require_dataset, name, root, "train")
        assert "http" in said and "expected" in said and "{root}" not in said


@pytest.mark.parametrize(
    ("name", "image", "label"),
    [("Cityscapes", "leftImg8bit/val/a/a_{}_leftImg8bit.png", "gtFine/val/a/a_{}_gtFine_labelTrainIds.png"),
     ("ADE20K", "images/validation/{}.jpg", "annotations/validation/{}.png"),
     ("CocoStuff", "images/val2017/{}.jpg", "annotations/val2017/{}.png")],
)  # fmt: skip
def test_layouts_are_paired_by_name(tmp_path: Path, name: str, image: str, label: str) -> None:
    touch(tmp_path, *(pattern.format(number) for pattern in (image, label) for number in (2, 10, 1)))
    pairs = require_dataset(name, tmp_path, "val")
    expected = [[str(tmp_path / pattern.format(number)) for pattern in (image, label)] for number in (1, 10, 2)]
    assert pairs == sorted(expected)
    (tmp_path / label.format(1)).unlink()
    said = message(require_dataset, name, tmp_path, "val")
    assert "1 is among" in said, said
    assert "did you mean 'val'" in message(require_dataset, name, tmp_path, "vall")


# Dataset


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), noise(8, 6))
        cv2.imwrite(str(tmp_path / f"{name}_label.png"), np.ones((8, 6), np.uint8))
    (tmp_path / "pairs.txt").write_text("a.png,a_label.png\nb.png,b_label.png\n")
    (tmp_path / "images.txt").write_text("a.png\nb.png\n")
    (tmp_path / "broken.txt").write_text("a.png a_label.png\nb.png\n")
    return tmp_path


def dataset(root: Path, mode: str, **changes: object) -> Dataset:
    arguments = {"mode": mode, "dataset_root": str(root), "transforms": [], "num_classes": 2, **changes}
    return Dataset(**{key: str(value) if isinstance(value, Path) else value for key, value in arguments.items()})


def test_dataset_of_lists(lists: Path) -> None:
    from paddleseg.transforms import Resize

    for mode in ("train", "val", "test"):
        transforms = {"transforms": [Resize(target_size=(12, 16))]}
        data = dataset(lists, mode, separator=",", **{f"{mode}_path": lists / "pairs.txt"}, **transforms)
        item = data[1]
        assert len(data) == 2 and item["img"].shape == (3, 16, 12)
        # Labels are scored at their own size.
        assert item["label"].shape == ((16, 12) if mode == "train" else (1, 8, 6))
    assert "label" not in dataset(lists, "test", test_path=lists / "images.txt")[0]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_of_images(lists: Path, channels: int) -> None:
    image = np.random.default_rng(1).integers(0, 255, (8, 6, 4), np.uint8)
    cv2.imwrite(str(lists / "a.png"), image if channels == 4 else image[..., :3])
    item = dataset(lists, "train", train_path=lists / "pairs.txt", separator=",", img_channels=channels)[0]
    found = item["img"].transpose(1, 2, 0)
    grey = cv2.imread(str(lists / "a.png"), cv2.IMREAD_GRAYSCALE)[..., None]
    expected = {1: grey, 3: image[..., 2::-1], 4: image}[channels]
    assert found.dtype == np.float32 and np.array_equal(found, expected), np.abs(found - expected).max()
    if channels == 4:
        other = dataset(lists, "train", train_path=lists / "pairs.txt", separator=",", img_channels=4)
        assert "b.png has 3 channels, expected 4" in message(other.__getitem__, 1)


def test_dataset_names_what_is_wrong(lists: Path) -> None:
    said = message(dataset, lists, "train", train_path=lists / "broken.txt")
    assert "broken.txt, line 2: expected an image and its label with ' ' between them" in said and "'b.png'" in said
    assert "no list of images at" in message(dataset, lists, "val", val_path=lists / "gone.txt")
    assert "mode 'val' needs val_path" in message(dataset, lists, "val", train_path=lists / "pairs.txt")
    assert "did you mean 'train'" in message(dataset, lists, "trian")
    assert "no folder" in message(dataset, lists / "gone", "train", train_path=lists / "pairs.txt")
    assert "images have 1, 3 or 4 channels" in message(dataset, lists, "train", img_channels=5)
    assert "transforms must be a list" in message(dataset, lists, "test", test_path=lists / "images.txt", transforms=3)


def test_a_transform_that_does_not_fit_the_image_is_named():
    padding = transform_catalogue()["Padding"]([8, 4])
    with pytest.raises(
        UserError, match="the transform Padding does not fit an image of 10x6: The size of image should"
    ):
        Compose([padding])({"img": np.zeros((6, 10, 3), np.float32)})
