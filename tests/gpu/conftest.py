"""Tests of an NVIDIA GPU: on one with --device gpu (`make test-gpu`), else on the CPU with fakes in its place.

A machine without Paddle takes the exports of one that has it: `pytest tests/gpu --exports DIR` writes them into a
folder, and `pytest tests/gpu --device gpu --exports DIR` with that folder runs them.
"""

import importlib.util
import pathlib
import subprocess
import sys
from collections.abc import Callable

import pytest

import paddle_rt
from paddle_rt.benchmark import nvidia as nvidia_states
from paddle_rt.benchmark.pipelines import Pipeline
from paddle_rt.errors import UserError
from paddle_rt.inference.engines.gpu import find_gpu
from tests.helpers import NORMALIZE, TINY, randomize
from tests.inference.fakes import cuda_machine
from tests.inference.fakes.cuda_machine import Machine
from tests.inference.fakes.nvidia_smi import install_nvidia_smi
from tests.inference.fakes.onnxruntime_gpu import OnnxRuntime

SIZE, CLASSES = (64, 96), 5
collect_ignore = [] if importlib.util.find_spec("paddle") else ["test_training.py"]  # all of which Paddle does


def pytest_addoption(parser):
    parser.addoption("--device", choices=("cpu", "gpu"), default="cpu", help="cpu: with fakes in the place of a GPU")
    parser.addoption("--exports", type=pathlib.Path, help="folder of exports that are made if they are not there")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Mark what runs on a GPU; end at once where there is none."""
    if config.getoption("--device", "cpu") == "cpu":  # the option is not known where this folder was not named
        return
    try:
        find_gpu()
    except UserError as error:
        pytest.exit(f"error: {error}", 1)
    for item in items:
        if pathlib.Path(__file__).parent in item.path.parents:
            item.add_marker("gpu")


@pytest.fixture(scope="session")
def device(request) -> str:
    """The device of the tests, "cpu" or "gpu"."""
    return request.config.getoption("--device", "cpu")


@pytest.fixture
def nvidia(device, tmp_path, monkeypatch) -> None:
    """The machine's GPU, or fakes of it and of what runs on it, in this process; every test builds its engines."""
    nvidia_states._identity.cache_clear()
    monkeypatch.setenv("PADDLE_RT_CACHE", str(tmp_path / "cache"))
    if device == "gpu":
        return
    from tests.inference.engines.test_paddle_tensorrt import within_this_process
    from tests.inference.fakes import paddle_tensorrt

    machine = Machine(tmp_path)
    machine.install(monkeypatch, tmp_path, onnxruntime=OnnxRuntime())
    machine.on_system |= set(cuda_machine.TENSORRT)  # as the package tensorrt is Paddle's, of another version
    install_nvidia_smi(tmp_path, monkeypatch, driver_version="580.65.06")
    paddle_tensorrt.install(monkeypatch)
    monkeypatch.setattr(Pipeline, "in_own_process", lambda self, function, *arguments: function(self, *arguments))
    run = subprocess.run

    def run_here(command, **settings):
        return within_this_process(command, **settings) if command[0] == sys.executable else run(command, **settings)

    monkeypatch.setattr(subprocess, "run", run_here)


@pytest.fixture(scope="session")
def exported(request, tmp_path_factory) -> Callable[..., pathlib.Path]:
    """A function that returns the export of a network with random weights for GPUs: the network and its arguments."""
    kept = request.config.getoption("--exports", None)
    root = kept.resolve() if kept else tmp_path_factory.mktemp("gpu")

    def export_once(name: str, model: str, output_op: str, precisions=("fp32",), images=None, **arguments):
        folder = root / name
        if folder.is_dir():
            return folder
        from paddle_rt.export.publish import export
        from paddle_rt.export.quantize import quantize
        from paddle_rt.tasks.segmentation.export import SegmentationExport

        network, spec = paddle_rt.create_model(model, CLASSES, **arguments), SegmentationExport([NORMALIZE])
        randomize(network)
        formats = ["onnx"] if images else ["paddle", "onnx"]
        export(network, folder, spec, [1, 3, *SIZE], output_op, formats, "gpu", precisions)
        if images:
            quantize(folder, images, [(images[0], None)], spec)
        return folder

    return export_once


@pytest.fixture(scope="session")
def gpu_export(exported) -> pathlib.Path:
    """A small RTFormer, exported for GPUs in single and half precision."""
    return exported("rtformer", "rtformer_slim", "coarse", ("fp32", "fp16"), **TINY)
