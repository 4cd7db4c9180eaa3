"""Data sets of classification: what they give, and what they refuse."""

import os

import cv2
import numpy as np
import pytest

from paddle_rt.tasks.classification.datasets import ImageFolder, ImageNet, StreetObjects
from paddle_rt.tasks.classification.task import ClassificationTask
from paddle_rt.tasks.classification.transforms import RandFlipImage
from tests.helpers import call_tool, message, refused
from tests.tasks.classification.helpers import TRAIN, VAL, class_folders, content, write_config


def test_class_folders_are_numbered_by_name(tmp_path):
    root = class_folders(tmp_path, ("b", "a", ".hidden"))
    data = ImageFolder([], str(root), 2)
    assert data.class_names == ["a", "b"] and data.labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(data.frame(2), cv2.imread(str(root / "train/b/0.png")))
    item = data[2]
    expected = cv2.imread(str(root / "train/b/0.png"))[..., ::-1].transpose(2, 0, 1)
    assert item["img"].dtype == np.float32 and np.array_equal(item["img"], expected) and item["label"] == 1


def test_a_list_of_imagenet_s_layout(tmp_path):
    root = class_folders(tmp_path, ("n01", "n 02"))
    (root / "val_list.txt").write_text("val/n01/0.png 1\nval/n 02/1.png\t0\n")
    (root / "names.txt").write_text("1 tench, Tinca tinca\n0 goldfish\n")
    data = ImageNet([], str(root), "val", 2, class_id_map_file=str(root / "names.txt"))
    assert data.labels.tolist() == [1, 0] and data.class_names == ["goldfish", "tench, Tinca tinca"]
    assert np.array_equal(data.frame(1), cv2.imread(str(root / "val/n 02/1.png")))
    assert ImageNet([], str(root), "val", 3).class_names == ["class 0", "class 1", "class 2"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.png", "line 2: expected an image and the number of its class, got 'a.png'"),
        ("val/a/0.png x", "line 2: expected an image and the number of its class"),
        ("val/a/0.png -1", "line 2: expected an image and the number of its class"),
        ("val/a/0.png 2", "line 2: the class is 2, but classes are 0 to 1"),
        ("val/a/9.png 0", "line 2: no image at .*9.png"),
        ("val/a 0", "line 2: .* is a folder, expected a regular file"),
        ("\xff 0", "line 2: not UTF-8"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, expected):
    root = class_folders(tmp_path)
    (root / "val_list.txt").write_bytes(b"val/a/0.png 0\n" + line.encode("latin-1"))
    with pytest.raises(ValueError, match=expected):
        ImageNet([], str(root), "val", 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0 a\n0 b", "class 0 has a name already"), ("0 a", "class 1 has no name"), ("2 c", "expected a class from 0")],
)
def test_a_broken_file_of_names_is_named(tmp_path, text, expected):
    (tmp_path / "names.txt").write_text(text)
    section = {"num_classes": 2, "class_id_map_file": str(tmp_path / "names.txt")}
    assert expected in message(ImageNet.names, section)


def spoil(root, kind):
    folder = root / "train"
    if kind == "empty class":
        for file in (folder / "b").iterdir():
            file.unlink()
    elif kind == "nested":
        (folder / "b/deeper").mkdir()
    elif kind == "one class":
        os.rename(folder / "b", root / "b")
    elif kind == "no class":
        os.rename(folder, root / "other")
        folder.mkdir()
    elif kind == "image beside":
        (folder / "x.png").write_bytes(b"")
    elif kind == "another number":
        (folder / "c").mkdir()
        os.rename(folder / "a/0.png", folder / "c/0.png")
    elif kind == "another name":
        os.rename(folder / "b", folder / "c")
    elif kind == "not an image":
        (folder / "a/0.png").write_text("text")
    elif kind == "pipe":
        os.remove(folder / "a/0.png")
        os.mkfifo(folder / "a/0.png")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("empty class", "the class folder .*train/b holds no image"),
        ("nested", "the class folder .*train/b holds the folder deeper"),
        ("one class", "holds one class folder, a; there are two classes at least"),
        ("no class", "holds no class folder"),
        ("image beside", "holds the image x.png itself"),
        ("another number", "holds 3 class folders, expected num_classes 2"),
        ("another name", "train_dataset has a class 'c' where val_dataset has 'b'"),
        ("not an image", "cannot decode image .*0.png"),
        ("pipe", "is a named pipe, expected a regular file"),
    ],
)
def test_class_folders_that_cannot_be_trained_on(tmp_path, capsys, kind, expected):
    root = class_folders(tmp_path / "data")
    spoil(root, kind)
    folders = {"type": "ImageFolder", "dataset_root": str(root)}
    sections = {"train_dataset": {**folders, "transforms": TRAIN}}
    sections["val_dataset"] = {**folders, "mode": "val", "transforms": VAL}
    config = write_config(tmp_path, model={"type": "StandIn", "num_classes": 2}, **sections)
    capsys.readouterr()
    code = call_tool("train", "-c", config, "--device", "cpu", "--do_eval", "--save_dir", tmp_path / "run")
    refused((code, *capsys.readouterr()), expected)


def test_a_missing_folder_shows_the_tree(tmp_path):
    text = message(ImageFolder, [], str(tmp_path), 2)
    assert f"no folder {tmp_path}/train" in text and f"{tmp_path}/val/CLASS/*.jpg" in text


def changed(**changes: object) -> dict:
    config = content()
    config["train_dataset"] = {**config["train_dataset"], **changes.pop("train_dataset", {})}
    config["val_dataset"] = {**config["val_dataset"], **changes.pop("val_dataset", {})}
    return {**config, **changes}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": {"type": "StandIn", "num_classes": 10}}, "numbers of classes differ: model 10, train_dataset 12"),
        ({"model": {"type": "StandIn", "in_channels": 1}}, "in_channels is 1, but images have 3 channels"),
        ({"loss": {"types": [{"type": "CELoss"}], "coef": [1, 1]}}, "loss has 1 types for 2 coefficients"),
        ({"loss": {"types": [{"type": "CELos"}], "coef": [1]}}, "did you mean 'CELoss'"),
        ({"loss": {"types": [{"type": "CELoss", "epsilon": 1.0}], "coef": [1]}}, "epsilon must be a number"),
        ({"train_dataset": {"type": "ImageFold"}}, "did you mean 'ImageFolder'"),
        ({"train_dataset": {"size": 8}}, "train_dataset.size must be a whole number from 16"),
        ({"train_dataset": {"transforms": [{"type": "RandCropImg"}]}}, "did you mean 'RandCropImage'"),
        ({"train_dataset": {"transforms": [VAL[1], TRAIN[1]]}}, "RandomErasing alone may stand behind"),
        ({"val_dataset": {"transforms": [VAL[1], VAL[0]]}}, "NormalizeImage stands last and once"),
        ({"val_dataset": {"transforms": TRAIN}}, "unknown val_dataset.transforms[0] type 'RandCropImage'"),
        ({"val_dataset": {"batch_transform_ops": []}}, "unknown argument of StreetObjects 'batch_transform_ops'"),
        ({"train_dataset": {"batch_transform_ops": 3}}, "batch_transform_ops must be a list, got 3"),
        ({"train_dataset": {"batch_transform_ops": [{"type": "Mixup"}]}}, "did you mean 'MixupOperator'"),
        ({"train_dataset": {"batch_transform_ops": [{"type": "MixupOperator"}] * 2}}, "the sum of prob is 2"),
        ({"train_dataset": 3}, "config key 'train_dataset' must hold a mapping, got 3"),
    ],
)
def test_a_config_that_does_not_fit(changes, expected):
    from paddle_rt.config.check import check

    config = {**content(), **changes} if changes.get("train_dataset") == 3 else changed(**changes)
    assert expected in message(check, config)


def test_class_folders_need_a_number_of_classes(tmp_path):
    from paddle_rt.config.check import check

    folders = {"type": "ImageFolder", "dataset_root": str(tmp_path), "transforms": VAL}
    config = {**content(), "train_dataset": folders, "val_dataset": folders}
    assert "model.num_classes is missing" in message(check, config)
    config["model"] = {"type": "StandIn", "num_classes": 7}
    check(config)
    assert config["train_dataset"]["num_classes"] == 7


def test_names_of_an_export_come_from_the_folders(tmp_path, caplog):
    root = class_folders(tmp_path / "data")
    folders = {"type": "ImageFolder", "dataset_root": str(root), "transforms": VAL}
    config = {**content(), "train_dataset": folders, "val_dataset": {**folders, "mode": "val"}}
    names = [
        ClassificationTask({**config, "model": {"num_classes": 2}, **other}).export_spec().names
        for other in ({}, {"val_dataset": {**folders, "mode": "test"}})
    ]
    assert names == [["a", "b"], ["class 0", "class 1"]] and "classes get numbers for names" in caplog.text
    three = ClassificationTask({**config, "model": {"num_classes": 3}})
    assert "val_dataset has 2 classes, but model.num_classes is 3" in message(three.export_spec)


def test_street_objects_depend_on_their_number_alone():
    data, again = (StreetObjects([], num_samples=14, size=32, cache_mb=mb) for mb in (0, 1))
    for index in (13, 0):
        assert np.array_equal(data.frame(index), again.frame(index)) and data.labels[index] == index % 12
    assert not np.array_equal(data.frame(0), data.frame(12))
    assert not np.array_equal(data.frame(0), StreetObjects([], "val", 1, 32).frame(0))
    assert StreetObjects([RandFlipImage()], num_samples=1, size=32)[0]["draw"] >= 0
    assert "draw" not in StreetObjects([], "val", 1, 32)[0]
