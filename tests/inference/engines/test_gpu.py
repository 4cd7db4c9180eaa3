"""What nvidia-smi says of a GPU, and what is said where it has nothing to say."""

import os
import pathlib
import stat

import pytest

from paddle_rt.inference.engines.gpu import Gpu, check_precision, find_gpu
from tests.helpers import message

TURING = "GPU-aaaa-1, NVIDIA GeForce RTX 2080 Ti, 7.5, 580.65.06"
HOPPER = "GPU-bbbb-2, NVIDIA H100 80GB HBM3, 9.0, 580.65.06"


def install(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, *lines: str, code: int = 0) -> None:
    """Put an nvidia-smi on the PATH that prints these lines."""
    program = folder / "nvidia-smi"
    printed = "\n".join(lines)
    program.write_text(
        f"#!/bin/sh\n[ \"$*\" = '--query-gpu=uuid,name,compute_cap,driver_version --format=csv,noheader' ] || exit 9\n"
        f"cat <<END\n{printed}\nEND\nexit {code}\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)


def test_the_gpu_and_its_order(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, TURING, HOPPER)
    assert find_gpu() == Gpu("GPU-aaaa-1", "NVIDIA GeForce RTX 2080 Ti", (7, 5), "580.65.06")
    assert find_gpu(1).capability == (9, 0)
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID", "nvidia-smi counts so"


@pytest.mark.parametrize("visible, names", [
    ("1", ["H100"]), ("1,0", ["H100", "2080"]), ("GPU-bbbb", ["H100"]), ("GPU-bbbb-2, 0", ["H100", "2080"]),
    ("0,5,1", ["2080"]), ("MIG-cccc", ["2080"]), ("", []), ("-1", [])])  # fmt: skip
def test_cuda_visible_devices_chooses(tmp_path, monkeypatch, visible, names):
    install(tmp_path, monkeypatch, TURING, HOPPER)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    for number, name in enumerate(names):
        assert name in find_gpu(number).name
    said = message(find_gpu, len(names))
    assert f"there is no GPU {len(names)}: the driver has {len(names)}, with CUDA_VISIBLE_DEVICES={visible}" in said


def test_no_driver(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no NVIDIA driver here (no nvidia-smi); install it, or use device cpu" in message(find_gpu)


@pytest.mark.parametrize("lines, code, expected", [
    (["No devices were found"], 6, "offers no GPU (nvidia-smi: No devices were found)"),
    (["No devices were found"], 0, "offers no GPU"),
    ([""], 9, "exit code 9"),
    (["NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."], 9, "couldn't communicate"),
    (['Field "compute_cap" is not a valid field to query.'], 2, "compute_cap"),
    (["GPU-a, NVIDIA A, [N/A], 470.1"], 0, "there is no GPU 0: the driver has 0"),
])  # fmt: skip
def test_a_driver_without_a_device(tmp_path, monkeypatch, lines, code, expected):
    install(tmp_path, monkeypatch, *lines, code=code)
    said = message(find_gpu)
    assert expected in said and "\n" not in said


@pytest.mark.parametrize("capability, refused", [
    ((5, 2), ["fp16", "int8", "bf16"]), ((5, 3), ["int8", "bf16"]), ((6, 1), ["bf16"]), ((7, 5), ["bf16"]),
    ((8, 0), []), ((10, 0), []), ((12, 0), [])])  # fmt: skip
def test_precisions_that_a_gpu_lacks(capability, refused):
    gpu = Gpu("GPU-a", "NVIDIA X", capability, "580.1")
    for precision in ("fp32", "fp16", "int8", "bf16"):
        if precision in refused:
            said = message(check_precision, gpu, precision)
            assert said.startswith(f"NVIDIA X (compute capability {capability[0]}.{capability[1]}) has no {precision}")
        else:
            assert check_precision(gpu, precision) is None
