"""Tests of an NVIDIA GPU: on one with --device gpu (`make test-gpu`), else on the CPU with fakes in its place."""

import pathlib
import subprocess
import sys

import pytest

import paddle_rt
from paddle_rt.benchmark import nvidia as nvidia_states
from paddle_rt.benchmark.pipelines import Pipeline
from paddle_rt.errors import UserError
from paddle_rt.export.publish import export
from paddle_rt.inference.engines.gpu import find_gpu
from paddle_rt.tasks.segmentation.export import SegmentationExport
from tests.helpers import NORMALIZE, TINY, randomize
from tests.inference.engines.test_paddle_tensorrt import within_this_process
from tests.inference.fakes import cuda_machine, paddle_tensorrt
from tests.inference.fakes.cuda_machine import Machine
from tests.inference.fakes.nvidia_smi import install_nvidia_smi
from tests.inference.fakes.onnxruntime_gpu import OnnxRuntime

SIZE, CLASSES = (64, 96), 5


def pytest_addoption(parser):
    parser.addoption("--device", choices=("cpu", "gpu"), default="cpu", help="cpu: with fakes in the place of a GPU")


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
def gpu_export(tmp_path_factory) -> pathlib.Path:
    """A small RTFormer, exported for GPUs in single and half precision."""
    folder = tmp_path_factory.mktemp("gpu") / "export"
    net = paddle_rt.create_model("rtformer_slim", CLASSES, **TINY)
    randomize(net)
    spec = SegmentationExport([NORMALIZE])
    export(net, folder, spec, [1, 3, *SIZE], "coarse", target="gpu", precisions=("fp32", "fp16"))
    return folder
