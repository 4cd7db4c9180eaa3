"""The environment and the fixtures of every test."""

import os

import numpy as np
import pytest

from paddle_rt.cpu import choose_environment
from tests.helpers import ROOT

os.environ.setdefault("OMP_NUM_THREADS", "1")  # pytest-xdist runs one test a core
choose_environment()
os.environ["PYTHONPATH"] = str(ROOT)  # processes that tests start import this checkout


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
