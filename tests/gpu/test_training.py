"""Training on a GPU follows training on the CPU, in single and in half precision, and on two cards."""

import contextlib

import numpy as np
import paddle
import pytest

from paddle_rt.config import build_network, build_optimizer, build_task, load_config
from paddle_rt.run_logs import METRICS, read_metrics
from paddle_rt.training import TrainOptions, fit, precision
from paddle_rt.training.devices import set_up
from paddle_rt.training.loop import Parts
from tests.helpers import launch_two_processes, randomize, run_python, tiny_config


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The config of a network without dropout, whose random numbers differ between devices."""
    scenes = {"type": "StreetScenes", "num_samples": 4, "height": 32, "width": 64, "mode": "train"}
    normalize = {"type": "Normalize", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    data = {"train_dataset": {**scenes, "transforms": [{"type": "RandomHorizontalFlip"}, normalize]}}
    return load_config(tiny_config(tmp_path_factory.mktemp("config"), batch_size=2, **data))


@pytest.fixture
def steps(device) -> int:
    return 20 if device == "gpu" else 4


def losses(config, folder, device: str, steps: int, name: str = "fp32", level: str = "O1") -> np.ndarray:
    """Train from the same weights on a device, and return the loss of each step."""
    folder.mkdir()
    set_up(device, seed=0)
    try:
        with paddle.utils.unique_name.guard():
            task, network = build_task(config), build_network(config)
            randomize(network)
            parts = Parts(network, build_optimizer(config, network), task, task.build_data("train"))
            options = TrainOptions(str(folder), device, seed=0, log_iters=1, precision=name, amp_level=level)
            fit(parts, options, steps, 2)
    finally:
        paddle.set_device("cpu")
    found = [row["loss"] for row in read_metrics(folder / METRICS) if row["kind"] == "train"]
    assert len(found) == steps
    return np.array(found)


def test_steps_are_those_of_the_cpu(config, device, steps, tmp_path):
    on_cpu, on_device = (
        losses(config, tmp_path / name, name.split("_")[0], steps) for name in ("cpu_0", f"{device}_1")
    )
    error = float(np.abs(on_device / on_cpu - 1).max())
    print(on_cpu, error)
    # A GPU multiplies in TF32, whose mantissa has 10 bits, and the steps pass the differences on.
    assert error <= (0.02 if device == "gpu" else 0), f"{on_cpu} and {on_device}, relative error {error}"


@pytest.mark.parametrize("level", ["O1", pytest.param("O2", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_half_precision_follows_single(config, device, steps, tmp_path, monkeypatch, name, level):
    """On the CPU, where Paddle has none, it is single precision under another name."""
    if device == "cpu":
        monkeypatch.setattr(precision, "_require_device", lambda name: None)
        monkeypatch.setattr(paddle.amp, "auto_cast", lambda **settings: contextlib.nullcontext())
        monkeypatch.setattr(paddle.amp, "decorate", lambda network, optimizer, **settings: (network, optimizer))
    elif name == "bf16" and not paddle.amp.is_bfloat16_supported("gpu:0"):
        pytest.skip("this GPU has no bf16")
    single = losses(config, tmp_path / "single", device, steps)
    half = losses(config, tmp_path / "half", device, steps, name, level)
    error = float(np.abs(half / single - 1).max())
    print(single, error)
    assert error <= (0.1 if device == "gpu" else 0), f"{single} and {half}, relative error {error}"


@pytest.mark.slow
def test_two_cards_train_one_network(device, tmp_path):
    """With two processes on the CPU; both see the same number of iterations, and one of them writes."""
    command = ["tools/train.py", "-c", tiny_config(tmp_path), "--iters", 4, "--seed", 0, "--log_iters", 1]
    command += ["--save_dir", tmp_path / "run", "--device", device]
    if device == "cpu":
        launch_two_processes(tmp_path / "log", *command)
    elif paddle.device.cuda.device_count() < 2:
        pytest.skip("this machine has one GPU")
    else:
        launch = ["-m", "paddle.distributed.launch", "--gpus", "0,1", "--log_dir", tmp_path / "log"]
        done = run_python(*launch, *command, CUDA_VISIBLE_DEVICES="0,1")
        assert done.returncode == 0, done.stderr[-2000:]
    rows = [row for row in read_metrics(tmp_path / "run" / METRICS) if row["kind"] == "train"]
    assert [row["iter"] for row in rows] == [1, 2, 3, 4] and all(np.isfinite(row["loss"]) for row in rows)
    assert (tmp_path / "run/iter_4/model.pdparams").is_file()
