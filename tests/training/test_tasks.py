"""What the loop promises holds for every task: accumulation, moving average, exact resume, two processes."""

import pathlib

import pytest
import yaml

from paddle_rt.checkpoint import read_state_dict
from paddle_rt.run_logs import METRICS, read_metrics
from tests.helpers import NORMALIZE, ROOT, launch_two_processes, tiny_config
from tests.tasks.classification.helpers import content as classification_content
from tests.tasks.pose.helpers import write_config as pose
from tests.training.run_task import ITERS, train_whole_and_resumed
from tests.training.test_resume import assert_same_runs

CLASSIFIER = {
    "type": "RTFormerClassifier",
    "variant": "slim",
    "base_channels": 8,
    "feature_channels": 16,
    "cross_size": 3,
}

SMALL = {"base_channels": 8, "feature_channels": 16, "cross_size": 3}


def segmentation(folder: pathlib.Path, **changes: object) -> str:
    scenes = {"type": "StreetScenes", "num_samples": 8, "height": 32, "width": 64, "transforms": [NORMALIZE]}
    val_dataset = {**scenes, "num_samples": 2, "mode": "val"}
    return tiny_config(folder, batch_size=2, train_dataset=scenes, val_dataset=val_dataset, **changes)


def classification(folder: pathlib.Path) -> str:
    model = {"type": "RTFormerClassifier", "variant": "slim", **SMALL}
    path, content = folder / "config.yml", classification_content(batch_size=2, model=model)
    content["train_dataset"]["num_samples"], content["val_dataset"]["num_samples"] = 8, 2
    path.write_text(yaml.safe_dump(content))
    return str(path)


def class_balanced(folder: pathlib.Path) -> str:
    return segmentation(folder, sampler="class_balanced")


TASKS = {"segmentation": segmentation, "class_balanced": class_balanced, "classification": classification, "pose": pose}


def check(folder: pathlib.Path) -> None:
    assert_same_runs(folder / "whole", folder / "resumed", ITERS)
    last = folder / f"whole/iter_{ITERS}"
    model, average = read_state_dict(last / "model.pdparams"), read_state_dict(last / "ema_model.pdparams")
    assert any((model[name] != average[name]).any() for name in model), "the moving average is the model"
    scored = {line["iter"] for line in read_metrics(folder / "whole" / METRICS) if line.get("kind") == "eval"}
    assert scored == {2, 4}, scored


# The other two are resumed in tests of their own; this one would add seconds for each.
@pytest.mark.parametrize("task", [pytest.param(t, marks=[] if t == "pose" else pytest.mark.slow) for t in TASKS])
def test_a_resumed_run_with_accumulation_and_moving_average_is_the_whole_run(task, tmp_path):
    train_whole_and_resumed(TASKS[task](tmp_path), tmp_path)
    check(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_two_processes(task, tmp_path):
    launch_two_processes(tmp_path / "log", ROOT / "tests/training/run_task.py", TASKS[task](tmp_path), tmp_path)
    check(tmp_path)
