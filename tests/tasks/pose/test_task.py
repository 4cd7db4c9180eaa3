"""Configs of pose: what is filled in, and every mistake as one line; and a run from training to predictions."""

import json
import re
import sys

import paddle
import pytest

from paddle_rt import arguments
from paddle_rt.arguments import describe
from paddle_rt.config import build_task, load_config
from paddle_rt.imaging import write_image
from paddle_rt.paddledetection import KEYS, TOP_KEYS
from paddle_rt.tasks.base import find_task
from paddle_rt.tasks.pose.datasets import DATASETS
from paddle_rt.tasks.pose.losses import LOSSES
from paddle_rt.tasks.pose.transforms import FOR_SCORES, FOR_TRAINING
from tests.helpers import NORMALIZE, call_tool, message, refused, written
from tests.tasks.pose.helpers import Dots, content, write_config

CUT, AFFINE = {"type": "GetBBoxCenterScale"}, {"type": "TopdownAffine", "input_size": [48, 64]}
TARGET, FLIP = {"type": "GenerateTarget", "heatmap_size": [12, 16]}, {"type": "RandomFlip"}
PLAIN = {"names": ["a", "b", "c"], "flip_pairs": [[0, 1]]}
REFUSED = {
    "name of keypoints": ({"keypoints": "cocco"}, "unknown set of keypoints 'cocco', did you mean 'coco'"),
    "number for keypoints": ({"keypoints": 17}, "keypoints must be a name or a mapping, got 17"),
    "no names": ({"keypoints": {"sigmas": [0.1]}}, "keypoints.names is missing"),
    "unpaired": ({"keypoints": {**PLAIN, "flip_pairs": [[0, 1], [1, 2]]}}, "keypoint 1 .b. stands there twice"),
    "pair of three": ({"keypoints": {**PLAIN, "flip_pairs": [[0, 1, 2]]}}, "flip_pairs must be a list of pairs"),
    "pair beyond": ({"keypoints": {**PLAIN, "flip_pairs": [[0, 3]]}}, "there is no keypoint 3; the last of 3 is 2"),
    "sigmas": ({"keypoints": {**PLAIN, "sigmas": [0.1]}}, "keypoints.sigmas must be 3 numbers"),
    "unknown key": ({"keypoints": {**PLAIN, "sigma": [0.1]}}, "unknown key 'sigma', did you mean 'sigmas'"),
    "count of the model": ({"model__num_keypoints": 5}, "model.num_keypoints is 5, but the data has 17 keypoints"),
    "no loss": ({"loss": None}, "config key 'loss' must hold a mapping, got None"),
    "loss of segmentation": ({"loss": {"types": [], "coef": []}}, "loss must be a mapping with a 'type'"),
    "unknown loss": ({"loss": {"type": "MSELoss"}}, "unknown loss type 'MSELoss', did you mean 'KeypointMSELoss'"),
    "in the data set": ({"val_dataset__keypoints": "coco"}, "keypoints is a key of the config itself"),
    "no target": ({"train_dataset__transforms": [CUT, AFFINE, NORMALIZE]}, "needs one GenerateTarget, got GetBBox"),
    "order": ({"val_dataset__transforms": [AFFINE, CUT, NORMALIZE]}, "GetBBoxCenterScale must stand before TopdownAff"),
    "flip first": ({"train_dataset__transforms__0__type": "RandomFlip"}, "needs one GetBBoxCenterScale, got RandomFl"),
    "flip last": ({"train_dataset__transforms": [CUT, AFFINE, TARGET, FLIP, NORMALIZE]}, "RandomFlip must stand befo"),
    "augmented": ({"val_dataset__transforms": [CUT, AFFINE, FLIP, NORMALIZE]}, "unknown val_dataset"),
    "heatmap": ({"train_dataset__transforms__3__heatmap_size": [16, 12]}, r"a quarter of input_size \[48, 64\], which"),
    "sizes": ({"val_dataset__transforms__1__input_size": [64, 48]}, "they must be the same"),
    "udp": ({"train_dataset__transforms__2__udp": True}, "udp of TopdownAffine and of GenerateTarget must be the same"),
    "decoding": ({"test_config": {"decoding": "darc"}}, "test_config.decoding must be 'argmax' or 'quarter' or 'dark'"),
    "blur": ({"test_config": {"blur_kernel": 4}}, "test_config.blur_kernel must be an odd number from 1 to 99, got 4"),
    "mean": ({"val_dataset__transforms": [CUT, AFFINE, {**NORMALIZE, "mean": [0.5] * 4}]}, "mean has 4 numbers for 3"),
    "channels": ({"model__in_channels": 4}, "model.in_channels must be 3 for pose, got 4"),
    "flip": ({"test_config": {"flip_horizontal": True}}, "unknown key 'flip_horizontal'"),
    "network": (
        {"model": {"type": "RTFormer"}},
        "RTFormer is a network for segmentation, but the config's task is pose",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_mistakes_in_a_config(kind, tmp_path):
    changes, expected = REFUSED[kind]
    path = write_config(tmp_path, **changes)
    found = message(load_config, path)
    assert re.search(expected, found) and "\n" not in found, found


def test_what_follows_from_the_data(tmp_path):
    config = load_config(write_config(tmp_path))
    assert config.values["model"]["num_keypoints"] == 17
    task = build_task(config)
    assert task.flip_test and task.export_spec().settings.shift_heatmap
    assert task.build_data("train").keypoints.names[0] == "nose"
    named = content()["val_dataset"]
    other = write_config(tmp_path, keypoints=PLAIN, model__num_keypoints=3, val_dataset=named)
    assert "StreetPeople has COCO's keypoints" in message(build_task(load_config(other)).build_data, "val")


@pytest.mark.parametrize("key", [*KEYS, *TOP_KEYS])
def test_keys_of_paddledetection_name_ours(key, tmp_path):
    place = {} if key in TOP_KEYS else {"val_dataset__transforms__0": {"type": "TopdownAffine", key: 1}}
    found = message(load_config, write_config(tmp_path, **(place or {key: 1})))
    assert f"{key} is of PaddleDetection's configs; here it is " in found, found
    if key in KEYS:
        found = message(load_config, write_config(tmp_path, **{f"model__{key}": 1}))
        assert f"model.{key}: {key} is of PaddleDetection's configs" in found, found
        (tmp_path / "tag.yml").write_text(f"TrainDataset:\n  !{key}\n  a: 1\n")
        found = message(load_config, str(tmp_path / "tag.yml"))
        assert f"tags such as !{key} are not read; here it is {KEYS[key]}" in found, found


def test_no_key_of_ours_is_called_paddledetections():
    catalogues = (DATASETS, LOSSES, FOR_SCORES, FOR_TRAINING)
    ours = {name for catalogue in catalogues for component in catalogue.values() for name in describe(component).kinds}
    ours |= {key for rows in arguments.RANGES.values() for key in rows}
    assert not ours & set(KEYS)
    keys = {key for name in ("segmentation", "classification", "pose") for key in find_task(name).config_keys}
    assert not keys & set(TOP_KEYS)


def test_heatmaps_of_another_size_are_named(tmp_path):
    task = build_task(load_config(write_config(tmp_path)))
    batch = {"target": paddle.zeros([2, 17, 16, 12]), "weight": paddle.ones([2, 17])}
    (loss,) = task.losses([paddle.ones([2, 17, 16, 12])], batch)
    assert float(loss) == 1
    found = message(task.losses, [paddle.ones([2, 17, 8, 6])], batch)
    assert "the network gives 17 heatmaps of 6x8, but train_dataset makes 17 of 12x16" in found


def test_without_pycocotools_it_is_one_line_before_the_first_step(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    config, expected = write_config(tmp_path), "needs the package pycocotools, .*: pip install 'paddle_rt.pose.'"
    line = ["-c", config, "--device", "cpu", "--save_dir", tmp_path / "run", "--do_eval"]
    refused((call_tool("train", *line), *capsys.readouterr()), expected)
    assert written(tmp_path) == ["config.yml"]


def test_a_run_from_training_to_predictions(tmp_path, capsys):
    config, run = write_config(tmp_path), tmp_path / "run"
    line = ["-c", config, "--device", "cpu"]
    assert call_tool("train", *line, "--save_dir", run, "--do_eval", "--save_interval", 2, "--seed", 0) == 0
    out = capsys.readouterr().out
    assert "The model with the best validation PCK@0.1" in out and "Evaluate annotation type" not in out
    scores = tmp_path / "metrics.json"
    assert call_tool("val", *line, "--model_path", run / "iter_4", "--baseline", "--output", scores) == 0
    report = json.loads(scores.read_text())
    names = ("AP", "AP50", "AP75", "AR", "PCK@0.05", "PCK@0.1", "PCK_torso@0.05", "PCK_torso@0.1", "mean_pose")
    assert set(names) <= set(report) and report["people"] == 3 and len(report["keypoints"]) == 17
    dataset = build_task(load_config(config)).build_data("val")
    truth = dataset.coco_ground_truth()
    for index in range(len(dataset)):
        item = dataset.person(index)
        write_image(tmp_path / "images" / item["image_path"], item["img"])
    (tmp_path / "boxes.json").write_text(json.dumps(truth))
    flags = ["--model_path", run / "iter_4", "--image_path", tmp_path / "images", "--boxes", tmp_path / "boxes.json"]
    assert call_tool("predict", *line, *flags, "--save_dir", tmp_path / "out") == 0
    people = json.loads((tmp_path / "out/keypoints.json").read_text())
    assert [person["image_id"] for person in people] == [person["image_id"] for person in truth["annotations"]]


def test_three_keypoints_and_the_boxes_of_a_detector(tmp_path, capsys):
    """Data of the user's own: the file names the keypoints, the config adds what it does not say."""
    dots = Dots()
    truth = dots.coco_ground_truth()
    for image, pixels in zip(truth["images"], dots.images, strict=True):
        image["file_name"] = f"{image['id']}.png"
        write_image(tmp_path / "images" / image["file_name"], pixels)
    truth["categories"][0]["keypoints"] = list(dots.keypoints.names)
    (tmp_path / "people.json").write_text(json.dumps(truth))
    keys = ("image_id", "category_id", "bbox")
    boxes = [{**{key: person[key] for key in keys}, "score": 0.9} for person in truth["annotations"]]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    both = {
        "type": "CocoKeypoints",
        "annotations": str(tmp_path / "people.json"),
        "image_root": str(tmp_path / "images"),
    }
    parts = ("train_dataset", "val_dataset")
    changes = {part: {**both, "transforms": content()[part]["transforms"], "mode": part[:-8]} for part in parts}
    keypoints = {**dots.keypoints.to_dict(), "category": "dots"}
    config, run = write_config(tmp_path, iters=2, keypoints=keypoints, **changes), tmp_path / "run"
    line = ["-c", config, "--device", "cpu"]
    assert call_tool("train", *line, "--save_dir", run, "--do_eval", "--seed", 0) == 0
    detector = [f"val_dataset.bbox_file={tmp_path / 'boxes.json'}", "val_dataset.use_gt_bbox=False"]
    scores = tmp_path / "metrics.json"
    assert call_tool("val", *line, "--model_path", run / "iter_2", "--output", scores, "--opts", *detector) == 0
    report = json.loads(scores.read_text())
    assert report["PCK@0.1"] is None and report["people"] == 6 and 0 <= report["AP"] <= 1
    assert "No PCK: the boxes are a detector's" in capsys.readouterr().out

    unnamed = write_config(tmp_path, iters=2, **changes)
    refused(
        (call_tool("val", "-c", unnamed, "--model_path", run / "iter_2"), *capsys.readouterr()),
        "keypoints.sigmas is missing",
    )
