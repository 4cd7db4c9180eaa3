"""tools/val.py."""

import json
import re
from pathlib import Path

import numpy as np
import paddle
import pytest

from paddle_rt.config import build_task, load_config, trained_network
from paddle_rt.imaging import read_image
from paddle_rt.imaging.view import legend_height
from paddle_rt.models.rtformer import RTFormer
from paddle_rt.tasks.segmentation.worst import WorstImages
from tests.helpers import TINY, camvid_dataset, refused, run_python, tiny_config, written


def test_val_writes_the_scores(weights, config, tmp_path):
    line = ["-c", config, "--model_path", weights, "--batch_size", 3, "--output", tmp_path / "metrics.json"]
    done = run_python("tools/val.py", *line)
    assert (done.returncode, done.stderr) == (0, "")
    content = json.loads((tmp_path / "metrics.json").read_text())
    loaded = load_config(config)
    task = build_task(loaded)
    scores = task.evaluate(trained_network(loaded, str(weights)), task.build_data("val"))
    assert content["confusion_matrix"] == scores.report["confusion_matrix"]
    assert content["mIoU"] == pytest.approx(scores.best, abs=1e-12)
    assert content["images"] == 8 and content["config"] == config and content["model_path"] == str(weights)
    assert [row["name"] for row in content["classes"]][:3] == ["road", "sidewalk", "building"]
    assert f"mIoU: {content['mIoU']:.4f} Acc: {content['Acc']:.4f}" in done.stdout
    assert re.search(r"^traffic light +(0\.\d{4}|-) ", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("flags", [
    ["--aug_eval", "--flip_horizontal", "--flip_vertical"],
    ["--aug_eval", "--scales", "0.5", "1"],
    ["--is_slide", "--crop_size", "40", "24", "--stride", "20", "16"],
])  # fmt: skip
def test_val_flags_count(call, flags, weights, config, tmp_path):
    results = []
    for name, more in (("plain", []), ("flags", flags)):
        file = tmp_path / f"{name}.json"
        code, _, err = call("val", "-c", config, "--model_path", weights, "--output", file, *more)
        assert code == 0, err
        results.append(json.loads(file.read_text()))
    plain, changed = results
    assert plain["confusion_matrix"] != changed["confusion_matrix"] and plain["mIoU"] != changed["mIoU"]


@pytest.mark.parametrize("rule, counted", [("exclude", None), ("zero", 0.0), ("one", 1.0)])
def test_val_counts_absent_classes_by_rule(call, rule, counted, tmp_path):
    """Labels hold the first and the last of 11 classes, and the bias of class 5 keeps it from being predicted."""
    dataset, model, absent = camvid_dataset(tmp_path / "camvid"), RTFormer(11, **TINY), 5
    path = tiny_config(tmp_path, train_dataset=dataset, val_dataset={**dataset, "mode": "val"})
    model.seghead.conv2.bias.set_value(np.where(np.arange(11) == absent, -1e9, 0).astype("float32"))
    paddle.save(model.state_dict(), str(tmp_path / "model.pdparams"))
    line = ["--model_path", tmp_path, "--absent_class", rule, "--output", tmp_path / "metrics.json"]
    code, out, err = call("val", "-c", path, *line)
    assert code == 0, err
    content = json.loads((tmp_path / "metrics.json").read_text())
    confusion = np.array(content["confusion_matrix"])
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    assert confusion.sum() == 4 * 32 * 64 and union[absent] == 0
    found = [hit / both for hit, both in zip(np.diag(confusion), union, strict=True) if both]
    values = found if counted is None else found + [counted] * (11 - len(found))
    error = abs(content["mIoU"] - np.mean(values))
    assert error < 1e-12, f"mIoU {content['mIoU']}, expected {np.mean(values)}, error {error:.1e}"
    assert [row["iou"] for row, both in zip(content["classes"], union, strict=True) if not both] == (
        [counted] * (11 - len(found))
    )
    assert f"mIoU: {np.mean(values):.4f} " in out


def test_val_draws_the_worst_images_and_the_confusion_matrix(call, weights, config, tmp_path):
    line = ["-c", config, "--model_path", weights, "--save_dir", tmp_path / "val", "--num_workers", 0]
    code, out, err = call("val", *line, "--worst", 3, "--confusion", "--batch_size", 2)
    assert code == 0, err
    assert written(tmp_path / "val") == ["confusion.png", "worst.png"] and f"{tmp_path}/val/worst.png is written" in out
    sheet = read_image(tmp_path / "val/worst.png")
    rows = 26 + 2 * (
        26 + 160 + 8
    )  # a line, 3 tiles in 2 rows, and the names of the classes on the right, which may be taller
    assert rows <= sheet.shape[0] <= max(rows, legend_height(19, 14)) and sheet.shape[1] > 2 * (3 * 320 + 8)


def test_the_worst_images_are_those_of_the_lowest_score():
    worst, labels = WorstImages(2), np.zeros((4, 4), np.int64)
    for index, right in enumerate([5, 0, 9, 5, 2]):
        worst.add(index, np.array([[right, 10 - right], [0, 0]]), labels)
    worst.add(9, np.zeros((2, 2), int), labels)  # no pixel counts
    assert [(-found.index, -found.rank) for found in worst.gathered()] == [(1, 0.0), (4, 0.1)]


BAD_FLAGS = {
    "--model_path nowhere": (1, "no checkpoint at nowhere"),
    "--model_path {weights} --scales 0 --aug_eval": (2, "--scales: expected a number above 0 and at most 100"),
    "--model_path {weights} --is_slide": (2, "is_slide needs both crop_size and stride"),
    "--model_path {weights} --is_slide --crop_size 8 8 --stride 9 8": (2, "stride .* leaves gaps"),
    "--model_path {weights} --output {weights}": (2, "--output: .*iter_5 is a folder"),
    "--model_path {weights}/model.pdopt": (1, "model.pdopt is no model's state dict.*an optimizer's file"),
    "--model_path {weights} --opts model.base_channels=16": (1, "iter_5 does not fit RTFormer: .* another shape"),
}


@pytest.mark.parametrize("line", BAD_FLAGS)
def test_bad_flag_gets_one_line(call, line, config, weights, images, tmp_path):
    code, expected = BAD_FLAGS[line]
    flags, before = line.format(config=config, weights=weights, images=images).split(), written(weights.parent)
    refused(call("val", "-c", config, *flags), expected, code)
    assert written(tmp_path) == [] and written(weights.parent) == before and Path(config).is_file()
