"""A task that a user registers: network, data, loss, score and predictor of its own, from training to inference."""

import json

import numpy as np
import pytest
import yaml

import paddle_rt
from paddle_rt import registry
from paddle_rt.checkpoint import read_state_dict
from paddle_rt.inference import Predictor, load, register_predictor
from paddle_rt.registry import Entry, register_model
from paddle_rt.tasks.base import register_task
from tests.helpers import call_tool
from tests.training.toy import BrightnessNetwork, BrightnessTask

CONFIG = {
    "task": "brightness",
    "batch_size": 4,
    "iters": 30,
    "train_dataset": {"number": 32},
    "val_dataset": {"number": 4, "first": 1000, "augment": False},
    "model": {"type": "BrightnessNetwork"},
    "optimizer": {"type": "AdamW", "weight_decay": 0.01},
    "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.05, "end_lr": 0, "power": 1.0},
}


class BrightnessMeter(Predictor):
    """Returns the brightness of a frame."""

    task = "brightness"

    def __call__(self, frame: np.ndarray) -> float:
        ((output, _),) = self.run_frames([frame])
        return float(output[0])


@pytest.fixture(autouse=True)
def registered(monkeypatch) -> None:
    monkeypatch.setattr(registry, "ENTRIES", dict(registry.ENTRIES))  # other tests see the table without it
    register_task(BrightnessTask)
    register_model("brightness", Entry("tests.training.toy", "BrightnessNetwork", "only", {}, task="brightness"))
    register_predictor("brightness", BrightnessMeter)


def test_it_trains_resumes_scores_exports_and_runs(tmp_path, capsys):
    assert paddle_rt.list_models(task="brightness") == ["brightness"]
    config, run, export = tmp_path / "config.yml", tmp_path / "run", tmp_path / "export"
    config.write_text(yaml.safe_dump(CONFIG))
    train = ["-c", config, "--save_dir", run, "--do_eval", "--save_interval", 10, "--device", "cpu", "--seed", 0]
    assert call_tool("train", *train, "--iters", 20) == 0
    assert call_tool("train", *train, "--resume_model", "auto", "--early_stop_intervals", 9) == 0
    assert (run / "iter_30").is_dir() and "Closeness" in capsys.readouterr().out

    scores = tmp_path / "scores.json"
    assert call_tool("val", "-c", config, "--model_path", run / "best_model", "--output", scores) == 0
    assert json.loads(scores.read_text())["config"] == str(config)

    flags = ["--model_path", run / "iter_30", "--input_size", 8, 8, "--save_dir", export]
    assert call_tool("export", "-c", config, *flags) == 0
    assert yaml.safe_load((export / "deploy.yaml").read_text())["Deploy"]["task"] == "brightness"

    network = BrightnessNetwork()
    network.set_state_dict(read_state_dict(run / "iter_30"))
    network.eval()
    frame = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    import paddle

    image = paddle.to_tensor(frame[..., ::-1].astype(np.float32).transpose(2, 0, 1)[np.newaxis].copy())
    expected = float(network(image)[0])
    for backend in ("onnxruntime", "openvino", "paddle"):
        found = load(export, backend)(frame)
        assert abs(found - expected) < 1e-4 * max(1, abs(expected)), f"{backend}: {found}, expected {expected}"
