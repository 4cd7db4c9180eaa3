"""What every test file shares. Paddle is kept to one thread a process: pytest-xdist runs one process a core."""

import os
import pathlib
import subprocess
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
TINY = dict(base_channels=8, head_channels=8, spp_channels=8, num_heads=2, cross_size=3)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def launch_two_processes(log_dir: pathlib.Path, *command: object) -> None:
    """Run a command in two processes with gloo and assert that it succeeds.

    Gloo connects before its other side listens, now and then, when Paddle sets up its groups ("Connection refused");
    such a launch, and no other failure, is tried again.
    """
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node=2", "--backend", "gloo", "--log_dir"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for attempt in range(3):
        folder = log_dir / str(attempt)
        line = [sys.executable, *map(str, [*launch, folder, *command])]
        done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
        logs = done.stderr[-1000:] + "".join(file.read_text()[-3000:] for file in folder.glob("workerlog.*"))
        if done.returncode == 0 or "Connection refused" not in logs:
            break
    assert done.returncode == 0, logs


def relative_error(result: np.ndarray, reference: np.ndarray) -> float:
    """||result - reference|| / ||reference|| in float64."""
    result, reference = np.asarray(result, np.float64), np.asarray(reference, np.float64)
    return float(np.linalg.norm(result - reference) / max(np.linalg.norm(reference), 1e-30))


def randomize(model, seed: int = 0) -> None:
    """Give every parameter and BatchNorm statistic a value that matters, small enough for attention to stay soft."""
    rng = np.random.default_rng(seed)
    for name, value in model.state_dict().items():
        shape = value.shape
        if name.endswith("_variance"):
            new = rng.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            new = 0.1 * rng.standard_normal(shape) + (1.0 if name.endswith("weight") else 0.0)
        else:
            new = rng.standard_normal(shape) * (1.0 / np.prod(shape[1:])) ** 0.5
        value.set_value(new.astype(value.numpy().dtype))
