"""What is looked at before training: files of a data set, its classes and sizes, and what its config contradicts."""

import argparse
import logging
import random
from pathlib import Path

import cv2
import numpy as np
import pytest

from paddle_rt.analysis import STOPS
from paddle_rt.config import build_task, load_config
from paddle_rt.tasks.segmentation import data_check
from paddle_rt.tasks.segmentation.transforms import transform_catalogue
from tests.helpers import message, tiny_config

CLASSES = 3
NORMALIZE = {"type": "Normalize"}


def write(folder: Path, *labels: np.ndarray, name: str = "list") -> None:
    """Write images of noise with the labels, and a list of them."""
    lines, rng = [], np.random.default_rng(0)
    for number, label in enumerate(labels):
        cv2.imwrite(str(folder / f"{name}{number}.png"), rng.integers(0, 255, (*label.shape[:2], 3), np.uint8))
        cv2.imwrite(str(folder / f"{name}{number}_label.png"), label)
        lines.append(f"{name}{number}.png {name}{number}_label.png\n")
    (folder / f"{name}.txt").write_text("".join(lines))


def label(*values: int, size: tuple[int, int] = (40, 48)) -> np.ndarray:
    """Return stripes of the values."""
    return np.array(values, np.uint8)[np.arange(size[0]) * len(values) // size[0]][:, None].repeat(size[1], axis=1)


def task_of(folder: Path, train: dict | None = None, val: dict | None = None, name: str = "list", **changes: object):
    section = {"type": "Dataset", "dataset_root": str(folder), "num_classes": CLASSES, "transforms": [NORMALIZE]}
    paths = {f"{mode}_path": str(folder / f"{name}.txt") for mode in ("train", "val", "test")}
    config = tiny_config(
        folder,
        train_dataset={**section, **paths, "mode": "train", **(train or {})},
        val_dataset={**section, **paths, "mode": "val", **(val or {})},
        **changes,
    )
    return build_task(load_config(config))


def check(folder: Path, **arguments: object) -> None:
    task = task_of(folder, **arguments)
    task.check_data(task.build_data("train"), task.build_data("val"), 2)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="paddle_rt")
    return caplog


def test_masks_of_0_and_255(
    tmp_path: Path, warnings: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, *[label(0, 255)] * 3)
    said = message(check, tmp_path, train={"num_classes": 2}, val={"num_classes": 2})
    assert "train_dataset: 3 of 3 labels were looked at, and no label holds class 1" in said
    assert "Are these masks of 0 and 255? Give the data sets label_map: {0: 0, 255: 1}" in said
    monkeypatch.setattr(data_check, "MOST_LABELS", 2)  # where not all were looked at, it may be otherwise
    check(tmp_path, train={"num_classes": 2}, val={"num_classes": 2})
    assert "2 of 3 labels were looked at, and no label holds class 1" in warnings.text


def test_labels_without_classes(tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
    write(tmp_path, label(255), label(255))
    assert "2 of 2 labels were looked at, and every pixel is 255" in message(check, tmp_path)
    write(tmp_path, label(0, 1), label(1))
    check(tmp_path)
    assert "train_dataset: 2 of 2 labels were looked at, and none holds class 2" in warnings.text
    assert "val_dataset: 2 of 2 labels and 2 images were looked at; 0 % of the pixels are not labelled" in warnings.text


def test_labels_that_are_ignored_or_inexact(tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
    write(tmp_path, label(0, 1, 2, size=(48, 48)))
    check(tmp_path, train={"ignore_index": 1}, val={"ignore_index": 1})
    assert "train_dataset.ignore_index is 1: class 1 is neither trained nor scored" in warnings.text
    (tmp_path / "list0_label.jpg").write_bytes(cv2.imencode(".jpg", label(0, 1, 1, size=(48, 48)))[1].tobytes())
    (tmp_path / "list.txt").write_text("list0.png list0_label.jpg\n")
    check(tmp_path)
    assert "labels are no exact numbers in JPEG, such as" in warnings.text


def test_files_that_are_wrong_are_named_before_training(tmp_path: Path) -> None:
    write(tmp_path, label(0, 1, 2), label(0, 1, 2))
    bad = tmp_path / "list1_label.png"
    for content, said in (
        (label(0, 7), "label values 7 are out of range"),
        (label(0, 1).astype(np.uint16) * 257, "label values 257 are out of range"),
        (label(0, 1)[..., None].repeat(3, axis=2), "labels must be one channel"),
        (label(0, 1, size=(40, 40)), "is 40x40, but the image"),
    ):
        cv2.imwrite(str(bad), content)
        text = message(check, tmp_path)
        assert said in text and str(bad) in text, text
    cv2.imwrite(str(bad), label(0, 1, 2))
    image = tmp_path / "list1.png"
    cv2.imwrite(str(image), np.zeros((40, 48, 3), np.uint16))
    assert "16 bits a channel" in message(check, tmp_path)
    cv2.imwrite(str(tmp_path / "float.tiff"), np.zeros((40, 48), np.float32))
    (tmp_path / "list.txt").write_text("list0.png list0_label.png\nfloat.tiff list1_label.png\n")
    assert "32 bits a channel" in message(check, tmp_path)


def test_duplicates(tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
    write(tmp_path, label(0, 1, 2), label(0, 1, 2))
    (tmp_path / "list.txt").write_text("list0.png list0_label.png\n" * 2 + "list1.png list1_label.png\n")
    check(tmp_path)
    assert f"train_dataset: images that occur more than once: 1, such as {tmp_path}/list0.png" in warnings.text
    assert "images that are in both train_dataset and val_dataset: 2" in warnings.text


def test_sizes_that_do_not_fit_into_one_batch(tmp_path: Path) -> None:
    write(tmp_path, label(0, 1, 2), label(0, 1, 2, size=(40, 50)))
    before = random.getstate(), np.random.get_state()[1].tolist()
    assert "images of different sizes" in message(check, tmp_path)
    crop = {"type": "RandomPaddingCrop", "crop_size": [32, 32]}
    check(tmp_path, train={"transforms": [crop, {"type": "RandomDistort"}, NORMALIZE]})
    assert before == (random.getstate(), np.random.get_state()[1].tolist()), "the check drew random numbers"
    wrong = {"type": "Padding", "target_size": [32, 32]}
    assert "larger than `target_size`" in message(check, tmp_path, train={"transforms": [wrong, NORMALIZE]})


@pytest.mark.parametrize(
    "transform",
    [
        {"type": "RandomHorizontalFlip"},
        {"type": "RandomPaddingCrop", "crop_size": [32, 32]},
        {"type": "ResizeStepScaling"},
        {"type": "ResizeRangeScaling"},
        {"type": "ScalePadding"},
    ],
)
@pytest.mark.parametrize("part", ["val_dataset", "test_dataset"])
def test_training_transforms_are_refused_where_scores_are_taken(tmp_path: Path, transform: dict, part: str) -> None:
    scenes = {"type": "StreetScenes", "mode": "val", "transforms": [transform, NORMALIZE]}
    said = message(load_config, tiny_config(tmp_path, **{part: scenes}))
    assert f"{part}.transforms: {transform['type']} is for training alone" in said


PADDING = [
    {"type": "RandomPaddingCrop", "crop_size": [64, 64]},
    {"type": "RandomRotation"},
    {"type": "Padding", "target_size": [64, 64]},
    {"type": "PaddingByAspectRatio", "aspect_ratio": 2.0},
    {"type": "RandomAffine", "size": [64, 64], "min_scale_factor": 0.3, "max_scale_factor": 0.4},
    {"type": "ScalePadding", "target_size": [64, 64]},
]


@pytest.mark.parametrize("transform", PADDING, ids=lambda transform: transform["type"])
def test_padding_takes_the_ignored_label(tmp_path: Path, transform: dict, warnings: pytest.LogCaptureFixture) -> None:
    write(tmp_path, label(0, 1, 2))
    changes = {"ignore_index": 9}
    task = task_of(tmp_path, train={**changes, "transforms": [transform, NORMALIZE]}, val=changes)
    np.random.seed(0)
    assert set(np.unique(task.build_data("train")[0]["label"])) == {0, 1, 2, 9}
    given = {**transform, "label_padding_value": 1}
    np.random.seed(0)
    task = task_of(tmp_path, train={**changes, "transforms": [given, NORMALIZE]}, val=changes)
    assert set(np.unique(task.build_data("train")[0]["label"])) == {0, 1, 2}
    assert "label_padding_value is 1: pixels beyond the image are trained as class 1" in warnings.text
    given = {**transform, "label_padding_value": 255}
    said = message(task_of, tmp_path, train={**changes, "transforms": [given, NORMALIZE]}, val=changes)
    assert "label_padding_value is 255, but the data set ignores 9" in said


def test_numbers_that_contradict_each_other(tmp_path: Path) -> None:
    write(tmp_path, label(0, 1, 2))
    assert "the ignored labels differ: train_dataset 9, val_dataset 255" in message(
        task_of, tmp_path, train={"ignore_index": 9}
    )
    for channels in (1, 4):
        changes = {"img_channels": channels, "transforms": [{"type": "Normalize", "mean": [0.5] * 3, "std": [0.5] * 3}]}
        said = message(task_of, tmp_path, train=changes, val=changes)
        assert f"Normalize.mean has 3 numbers, but images have img_channels {channels}" in said
    resize = {"type": "Resize", "interp": "RANDOM"}
    assert "interp is RANDOM" in message(task_of, tmp_path, val={"transforms": [resize]})
    resize = {"type": "ResizeByShort", "short_size": [32, 64]}
    assert "short_size is [32, 64]" in message(task_of, tmp_path, val={"transforms": [resize]})
    for loss, said in (
        ({"type": "MultiClassFocalLoss", "num_class": 4}, "num_class is 4, but there are 3 classes"),
        ({"type": "DiceLoss", "weight": [1.0, 2.0]}, "weight has 2 numbers, but there are 3 classes"),
        ({"type": "DiceLoss", "ignore_index": 0}, "ignore_index is 0, but the data set ignores 255"),
    ):
        assert said in message(task_of, tmp_path, loss={"types": [loss], "coef": [1, 0.4]})
        mixed = {"type": "MixedLoss", "losses": [loss], "coef": [1.0]}
        assert said in message(task_of, tmp_path, loss={"types": [mixed], "coef": [1, 0.4]})
    focal = {"type": "MultiClassFocalLoss", "gamma": 2.0}
    task = task_of(tmp_path, loss={"types": [focal], "coef": [1, 0.4]})
    assert [loss["num_class"] for loss in task.config["loss"]["types"]] == [3, 3], "the data set's"
    crop = {"type": "RandomPaddingCrop", "ignore_index": 4}
    assert "ignore_index is 4, but the data set ignores 255" in message(task_of, tmp_path, train={"transforms": [crop]})


@pytest.mark.parametrize("mode", ["train", "val", "test"])
def test_the_section_decides_what_items_are_for(tmp_path: Path, mode: str) -> None:
    """Any mode of a data set can be trained on and scored."""
    write(tmp_path, label(0, 1, 2))
    resize = {"type": "Resize", "target_size": [24, 20]}
    task = task_of(tmp_path, *[{"mode": mode, "transforms": [resize, NORMALIZE]}] * 2)
    assert task.build_data("train")[0]["label"].shape == (20, 24)
    assert task.build_data("val")[0]["label"].shape == (1, 40, 48)


def test_images_without_labels_are_not_scored(tmp_path: Path) -> None:
    write(tmp_path, label(0, 1, 2), label(0, 1, 2))
    (tmp_path / "list.txt").write_text("list0.png list0_label.png\nlist1.png\n")
    task = task_of(tmp_path, *[{"mode": "test"}] * 2)
    assert "val_dataset: 1 of 2 images have no label, such as" in message(task.build_data, "val")


@pytest.mark.parametrize("name", sorted(transform_catalogue().keys() - {"GenerateInstanceTargets"}))
def test_no_transform_invents_labels(name: str) -> None:
    """The labels after a transform are those before it, or that of added pixels."""
    arguments = {
        "Padding": {"target_size": (64, 64)},
        "ResizeByLong": {"long_size": 61},
        "ResizeByShort": {"short_size": 31},
        "LimitLong": {"max_long": 31},
        "ScalePadding": {"target_size": (61, 61)},
        "Resize": {"target_size": (61, 37)},
        "RandomPaddingCrop": {"crop_size": (64, 36)},
        "RandomVerticalFlip": {"prob": 1.0},
        "RandomBlur": {"prob": 1.0},
        "RandomNoise": {"prob": 1.0},
    }
    transform = transform_catalogue()[name](**arguments.get(name, {}))
    for seed in range(5):
        random.seed(seed), np.random.seed(seed)
        image = np.random.default_rng(seed).integers(0, 255, (40, 48, 3)).astype(np.float32)
        sample = transform({"img": image, "label": label(0, 2, 9), "gt_fields": ["label"], "trans_info": []})
        assert set(np.unique(sample["label"])) <= {0, 2, 9, 255}


def test_keys_without_effect_are_named(tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
    write(tmp_path, label(0, 1, 2))
    task_of(tmp_path, test_config={"scales": [0.5, 1.0], "is_slide": False, "crop_size": [32, 32]})
    assert "scales without effect, since aug_eval is not True" in warnings.text
    assert "crop_size without effect, since is_slide is not True" in warnings.text


def test_the_test_split_is_scored_by_a_flag(tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
    write(tmp_path, label(0, 1, 2))
    write(tmp_path, label(0, 1), label(1, 2), name="other")
    section = {"type": "Dataset", "dataset_root": str(tmp_path), "num_classes": CLASSES, "transforms": [NORMALIZE]}
    test = {**section, "mode": "test", "test_path": str(tmp_path / "other.txt")}
    lengths = {}
    for split in ("val", "test"):
        task = task_of(tmp_path, test_dataset=test)
        parser = argparse.ArgumentParser()
        task.add_flags(parser, "val")
        task.configure(parser.parse_args(["--split", split]))
        lengths[split] = len(task.build_data("val"))
    assert lengths == {"val": 1, "test": 2}
    assert "--split test scores test_dataset" in warnings.text
    task = task_of(tmp_path)
    assert "needs a test_dataset" in message(task.configure, parser.parse_args(["--split", "test"]))


def test_the_analysis_of_a_config_goes_on_after_the_first_fault(tmp_path: Path) -> None:
    write(tmp_path, label(0, 1, 2), label(0, 1, 7), label(0, 1, size=(40, 40)))
    with (tmp_path / "list.txt").open("a") as file:
        file.write("gone.png list0_label.png\n")
    write(tmp_path, label(0, 1, 2), name="other")
    others = {"val_path": str(tmp_path / "other.txt")}
    report = task_of(tmp_path, val=others).analyse_data(2)
    assert [(finding.split, finding.code) for finding in report.findings if finding.level == STOPS] == [
        ("train_dataset", "missing_file"),
        ("train_dataset", "unknown_values"),
    ]
    assert "list.txt, line 4" in report.findings[0].message and report.splits["val_dataset"].counts.number == 1
    write(tmp_path, label(0, 1, 2), label(0, 1, 2, size=(40, 50)))
    report = task_of(tmp_path, val=others).analyse_data(2)
    assert [finding.code for finding in report.findings if finding.level == STOPS] == ["batch"]
    assert "images of different sizes" in report.findings[0].message
    (tmp_path / "list.txt").unlink()
    (gone, *_) = task_of(tmp_path, val=others).analyse_data(2).findings
    assert gone.code == "data_set" and "no list of images at" in gone.message


def test_rendered_data_sets_have_no_files(tmp_path: Path) -> None:
    assert "there are no files to look at" in message(build_task(load_config(tiny_config(tmp_path))).analyse_data, 2)
