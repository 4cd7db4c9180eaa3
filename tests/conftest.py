"""What every test file shares. Paddle is kept to one thread a process: pytest-xdist runs one process a core."""

import os
import pathlib

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
TINY = dict(base_channels=8, head_channels=8, spp_channels=8, num_heads=2, cross_size=3)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


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
