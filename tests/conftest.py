"""The environment and the fixtures of every test."""

import logging
import os

import numpy as np
import pytest

from paddle_rt.cpu import choose_environment
from tests.helpers import ROOT

os.environ.setdefault("OMP_NUM_THREADS", "1")  # pytest-xdist runs one test a core
choose_environment()
os.environ["PYTHONPATH"] = str(ROOT)  # processes that tests start import this checkout
# Tests look for warnings; some libraries let the root logger drop them, whose level ours would have otherwise.
logging.getLogger("paddle_rt").setLevel(logging.WARNING)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
