"""The environment and the fixtures of every test."""

import os
import tempfile

import numpy as np
import pytest

from paddle_rt.cpu import choose_environment
from tests.helpers import ROOT

os.environ.setdefault("OMP_NUM_THREADS", "1")  # pytest-xdist runs one test a core
choose_environment()
os.environ["PYTHONPATH"] = str(ROOT)  # processes that tests start import this checkout
_cache = tempfile.TemporaryDirectory(prefix="paddle_rt_cache_")
os.environ["PADDLE_RT_CACHE"] = _cache.name  # nothing is written into the home of whoever runs the tests


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
