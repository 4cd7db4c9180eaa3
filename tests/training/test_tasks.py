"""What the loop promises holds for every task: accumulation, moving average, exact resume, two processes."""

import pathlib

import pytest
import yaml

from paddle_rt.checkpoint import read_state_dict
from paddle_rt.run_logs import METRICS, read_metrics
from tests.helpers import ROOT, launch_two_processes, tiny_config
from tests.tasks.classification.helpers import content as classification_content
from tests.tasks.pose.helpers import write_config as pose
from tests.training.run_task import ITERS, train_whole_and_resumed
from tests.training.test_resume import assert_same_runs

CLASSIFIER = {"type": "RTFormerClassifier", "variant": "slim", "base_channels": 8, "feature_channels": 16}


def segmentation(folder: pathlib.Path) -> str:
    return tiny_config(folder, batch_size=2)


def classification(folder: pathlib.Path) -> str:
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump(classification_content(batch_size=2, model={**CLASSIFIER, "cross_size": 3})))
    return str(path)


@pytest.fixture(params=[segmentation, classification, pose], ids=["segmentation", "classification", "pose"])
def config(request, tmp_path) -> str:
    return request.param(tmp_path)


def check(folder: pathlib.Path) -> None:
    assert_same_runs(folder / "whole", folder / "resumed", ITERS)
    last = folder / f"whole/iter_{ITERS}"
    model, average = read_state_dict(last / "model.pdparams"), read_state_dict(last / "ema_model.pdparams")
    assert any((model[name] != average[name]).any() for name in model), "the moving average is the model"
    scored = {line["iter"] for line in read_metrics(folder / "whole" / METRICS) if line.get("kind") == "eval"}
    assert scored == {2, 4}, scored


def test_a_resumed_run_with_accumulation_and_moving_average_is_the_whole_run(config, tmp_path):
    train_whole_and_resumed(config, tmp_path)
    check(tmp_path)


@pytest.mark.slow
def test_two_processes(config, tmp_path):
    launch_two_processes(tmp_path / "log", ROOT / "tests/training/run_task.py", config, tmp_path)
    check(tmp_path)
