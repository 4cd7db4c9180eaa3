"""Memory stays flat while images of many sizes are labelled: a short form of tests/memory_growth.py."""

import multiprocessing
import pathlib

import pytest

from paddle_rt.inference import BACKENDS
from tests.memory_growth import make_export, measure

FRAMES, LIMIT_MB = 400, 20


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("memory") / "export"
    make_export(str(folder))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_stays_flat(export, backend):
    """Without a bound OpenVINO keeps 200 MB of plans more for the second half of these images."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        memory, wrong = pool.apply(measure, (str(export), backend, "images", FRAMES))
    grown = max(memory[5:]) - memory[4]
    assert grown < LIMIT_MB, f"{grown:.0f} MB in the second half of {FRAMES} images: {memory}"
    assert wrong == 0, f"{wrong} labels differ from those of a fresh segmenter"
