"""tools/train.py, killed and stopped in a process of its own: the run goes on bit for bit, on two threads."""

import os
import pathlib
import shlex
import signal
import subprocess
import sys

import numpy as np
import pytest

from paddle_rt.checkpoint import read_state_dict
from tests.helpers import NORMALIZE_HALF, ROOT, TINY, tiny_config, written

ITERS = 16
SCENES = {"type": "StreetScenes", "num_samples": 9, "height": 64, "width": 128}
TRANSFORMS = [
    {"type": "ResizeStepScaling", "min_scale_factor": 0.5, "max_scale_factor": 2.0, "scale_step_size": 0.25},
    {"type": "RandomPaddingCrop", "crop_size": [64, 64]},
    {"type": "RandomHorizontalFlip"},
    {"type": "RandomDistort"},
    NORMALIZE_HALF,
]
NETWORKS = {
    "RTFormer": {**TINY, "drop_path_rate": 0.2, "drop_rate": 0.1, "type": "RTFormer"},
    "SegFormerPlusPlus": {"type": "SegFormerPlusPlus", "variant": "b0", "token_merging": "bsm_hq"},
}


def config(folder: pathlib.Path, network: str) -> str:
    loss = {"types": [{"type": "CrossEntropyLoss"}], "coef": [1, 0.4] if network == "RTFormer" else [1]}
    return tiny_config(
        folder,
        batch_size=2,
        iters=ITERS,
        train_dataset={**SCENES, "mode": "train", "transforms": TRANSFORMS},
        val_dataset={**SCENES, "num_samples": 2, "mode": "val", "transforms": [NORMALIZE_HALF]},
        model=NETWORKS[network],
        loss=loss,
    )


def start(path: str, folder: pathlib.Path, *flags: object) -> subprocess.Popen:
    line = ["tools/train.py", "-c", path, "--save_dir", folder, "--device", "cpu", "--do_eval", "--use_ema"]
    line += ["--seed", 3, "--log_iters", 1, "--save_interval", 4, *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, *map(str, line)]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **pipes)


def stop_after(process: subprocess.Popen, iteration: int, number: int) -> tuple[int, str]:
    """Send a signal to a run and all its processes after an iteration; return its exit code and stderr."""
    for line in process.stdout:
        if f"iter: {iteration}/" in line:
            os.killpg(process.pid, number)
            break
    _, err = process.communicate(timeout=300)
    return process.returncode, err


def assert_same_networks(one: pathlib.Path, other: pathlib.Path) -> None:
    for folder in (f"iter_{ITERS}", "best_model", "ema_best_model"):
        for name in written(one / folder):
            if name.endswith(".pdparams"):
                first, second = (read_state_dict(run / folder / name) for run in (one, other))
                different = [key for key in first if not np.array_equal(first[key], second[key])]
                assert not different, f"{folder}/{name}: {different[:3]}"
            elif name == "model.pdopt":
                assert (one / folder / name).read_bytes() == (other / folder / name).read_bytes(), f"{folder}/{name}"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("network", NETWORKS)
def test_killed_and_stopped_it_is_the_same_run(network, workers, tmp_path):
    path, flags = config(tmp_path, network), ("--num_workers", workers)
    process = start(path, tmp_path / "whole", *flags)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    parts = tmp_path / "parts"
    code, err = stop_after(start(path, parts, *flags), 6, signal.SIGKILL)
    assert code == -signal.SIGKILL, err
    code, err = stop_after(start(path, parts, *flags, "--resume_model", "auto"), 7, signal.SIGTERM)
    assert code == 143, err
    command = shlex.split(err.strip().splitlines()[-1])
    assert command[:2] == ["python", "tools/train.py"] and "Resume with" in err
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, *command[1:]], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same_networks(tmp_path / "whole", parts)


@pytest.mark.slow
@pytest.mark.parametrize("rate", ["1e9", "1e20"])
def test_a_learning_rate_that_explodes_is_one_line(rate, tmp_path):
    """The backward pass of what is not finite corrupts memory on a CPU: the run has to end before it."""
    path = config(tmp_path, "RTFormer")
    process = start(path, tmp_path / "run", "--learning_rate", rate)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1 and "try a lower --learning_rate" in err, err
    assert len([line for line in err.splitlines() if line.startswith("error")]) == 1
