"""tools/bn_momentum.py: runs with two momenta, their curves, and scores with statistics computed anew."""

import json

import cv2
import numpy as np
import paddle
import pytest

from paddle_rt.cli import arguments
from paddle_rt.training.statistics import recompute_statistics
from tests.helpers import call_tool, refused
from tests.tasks.classification.helpers import content, write_config


def test_two_momenta_are_trained_drawn_and_read_again(tmp_path, capsys):
    small = {key: {**content()[key], "num_samples": 8} for key in ("train_dataset", "val_dataset")}
    config = write_config(tmp_path, iters=4, **small)
    flags = ["--configs", f"plain={config}", "--batch_sizes", 4, "--save_interval", 2, "--device", "cpu"]
    assert call_tool("bn_momentum", *flags, "--save_dir", tmp_path / "runs") == 0
    rows = json.loads((tmp_path / "runs/bn_momentum.json").read_text())
    assert [row["momentum"] for row in rows] == [0.1, 0.9] and rows[0]["score"] == "top1"
    assert all([step for step, _ in row["curve"]] == [2, 4] and 0 <= row["with_new_statistics"] <= 1 for row in rows)
    assert cv2.imread(str(tmp_path / "runs/bn_momentum.png")) is not None
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| plain | 4 |")]
    assert len(lines) == 2
    assert call_tool("bn_momentum", *flags, "--save_dir", tmp_path / "runs") == 0
    out = capsys.readouterr().out
    assert "nothing is left to train" in out and all(line in out for line in lines)


def test_configs_are_read_before_paddle_is_imported(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(arguments, "import_paddle", lambda: pytest.fail("Paddle is imported"))
    (tmp_path / "broken.yml").write_text("model: [")
    good = write_config(tmp_path)
    code = call_tool("bn_momentum", "--configs", f"a={good}", f"b={tmp_path / 'broken.yml'}")
    refused((code, *capsys.readouterr()), "broken.yml is not valid YAML")


def test_statistics_are_the_means_over_the_batches():
    paddle.seed(0)
    layer = paddle.nn.BatchNorm2D(3, momentum=0.1)
    images = np.random.default_rng(0).standard_normal((5, 4, 3, 6, 6)).astype(np.float32)
    recompute_statistics(paddle.nn.Sequential(layer), [{"img": paddle.to_tensor(batch)} for batch in images])
    error = np.abs(layer._mean.numpy() - images.mean((1, 3, 4)).mean(0)).max()
    assert error < 1e-6, f"the mean is off by {error:.1e}"
    error = np.abs(layer._variance.numpy() - images.var((1, 3, 4)).mean(0)).max()
    assert error < 1e-2, f"the variance is off by {error:.1e}"
    assert not layer.training and layer._momentum == 0.1
