"""type: Dataset with labels of any kind, and the way of class names and colours from the config to what users see."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from paddle_rt.config import build_task, load_config
from paddle_rt.inference.deployment import load_deployment
from paddle_rt.tasks.segmentation.datasets import Dataset
from paddle_rt.tasks.segmentation.evaluate import summarize
from tests.helpers import NORMALIZE, message, tiny_config

NAMES, COLOURS = ["road", "no road"], [[10, 20, 30], [200, 100, 0]]


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Two images, their labels as masks of 0 and 255 and in colour, in folders."""
    mask = np.repeat([[0], [255]], 24, axis=0).repeat(32, axis=1).astype(np.uint8)
    colours = np.array(COLOURS, np.uint8)[(mask > 0).astype(int)]
    for name in "ab":
        noise = np.random.default_rng(ord(name)).integers(0, 255, (48, 32, 3), np.uint8)
        for kind, pixels in (("images", noise), ("masks", mask), ("coloured", colours[..., ::-1])):
            (tmp_path / kind).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / kind / f"{name}.png"), pixels)
    return tmp_path


def section(root: Path, mode: str = "train", **changes: object) -> dict:
    folders = {"dataset_root": str(root), "image_root": "images", "label_root": "masks"}
    mapped = {"num_classes": 2, "label_map": {0: 0, 255: 1}, "transforms": [NORMALIZE]}
    return {"type": "Dataset", "mode": mode, **folders, **mapped, **changes}


def task_of(root: Path, **changes: object):
    sections = {f"{mode}_dataset": section(root, mode, **changes) for mode in ("train", "val")}
    return build_task(load_config(tiny_config(root, **sections)))


@pytest.mark.parametrize(
    "changes", [{}, {"label_root": "coloured", "palette": COLOURS, "label_map": None}], ids=["mapped", "coloured"]
)
def test_masks_of_any_kind_are_read(masks: Path, changes: dict) -> None:
    task = task_of(masks, **changes)
    for split, rows in (("train", slice(None)), ("val", 0)):
        item = task.build_data(split)[0]
        assert item["label"][rows].tolist() == [[0] * 32] * 24 + [[1] * 32] * 24
    task.check_data(task.build_data("train"), task.build_data("val"), 2)


def test_images_without_labels_are_taken_for_tests_alone(masks: Path) -> None:
    arguments = {"dataset_root": str(masks), "transforms": [], "num_classes": 2, "image_root": "images"}
    assert "label" not in Dataset("test", **arguments)[1]
    assert "image_root needs label_root" in message(Dataset, "train", **arguments)
    (masks / "masks" / "b.png").unlink()
    assert "1 image without a label" in message(Dataset, "val", **arguments, label_root="masks")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"class_names": ["road"]}, "train_dataset.class_names has 1 entries, but num_classes is 2"),
        ({"colors": [[1, 2, 3]]}, "train_dataset.colors has 1 entries, but num_classes is 2"),
        (
            {"colors": [[1, 2, 300], [0, 0, 0]]},
            "train_dataset.colors must be null or a list of any length, each a list of 3",
        ),
        ({"class_names": ["yes", True]}, "class_names must be null or a list of any length, each a text on one line"),
        ({"label_map": {"a": 1}}, "label_map must be null or a mapping of label values to classes"),
        ({"label_map": {0: 2}}, "train_dataset: label_map gives 0 the class 2"),
    ],
)
def test_contradictions_are_found_before_anything_is_built(masks: Path, changes: dict, said: str) -> None:
    assert said in message(task_of, masks, **changes)


def test_data_sets_name_the_classes_alike(masks: Path) -> None:
    train, val = section(masks, class_names=NAMES), section(masks, "val", class_names=NAMES[::-1])
    said = message(load_config, tiny_config(masks, train_dataset=train, val_dataset=val))
    assert "train_dataset.class_names and val_dataset.class_names differ" in said


def test_names_and_colours_travel(masks: Path) -> None:
    task = task_of(masks, class_names=NAMES, colors=COLOURS)
    assert task.class_names == NAMES and task.palette.tolist() == COLOURS
    scores = summarize(np.array([[3, 1], [0, 4]]), 1, task.class_names)
    assert scores.curves == {"IoU/road": 0.75, "IoU/no road": 0.8}
    assert [entry["name"] for entry in scores.report["classes"]] == NAMES
    described = task.export_spec().describe(_Network, "labels", np.zeros((1, 2, 4, 4)))
    assert described["class_names"] == NAMES and described["colors"] == COLOURS
    (masks / "export").mkdir()
    (masks / "export/model.onnx").touch()
    (masks / "export/verification.json").write_text("{}")
    values = {"onnx": "model.onnx", "transforms": [], "input_shape": [1, 3, 8, 8], "output_op": "labels", **described}
    for colours, said in ((COLOURS, None), (COLOURS[:1], "colors must be a list of num_classes = 2 colours")):
        (masks / "export/deploy.yaml").write_text(yaml.safe_dump({"Deploy": {**values, "colors": colours}}))
        if said is None:
            assert load_deployment(masks / "export").palette.tolist() == COLOURS
        else:
            assert said in message(load_deployment, masks / "export")


def test_colours_of_masks_are_those_of_results(masks: Path) -> None:
    coloured = {"label_root": "coloured", "palette": COLOURS, "label_map": None}
    assert task_of(masks, **coloured).palette.tolist() == COLOURS
    assert task_of(masks, **coloured, colors=COLOURS[::-1]).palette.tolist() == COLOURS[::-1]
    assert task_of(masks).palette.tolist() == [[128, 0, 0], [0, 128, 0]]


class _Network:
    align_corners = False
