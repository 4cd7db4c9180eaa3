"""The number of threads and MKL's code path: chosen before Paddle is imported, and left alone where the user chose."""

import json
import os
import pathlib

import pytest

from paddle_rt import cpu
from paddle_rt.errors import UserError
from tests.helpers import run_python

CODE = """
import json, os
from paddle_rt.cli.run import run_tool
from paddle_rt.cpu import import_paddle
run_tool(import_paddle)
import paddle
x = paddle.rand([300, 300])
paddle.matmul(x, x)
tasks = len(os.listdir("/proc/self/task"))
print(json.dumps([os.environ.get("OMP_NUM_THREADS"), os.environ.get("MKL_DEBUG_CPU_TYPE"), tasks]))
"""


def start(**environment: str | None) -> tuple[str, str | None, int, str]:
    """Import Paddle in a process of its own: the two variables, its number of threads, and what it logged."""
    done = run_python("-c", CODE, **{"OMP_NUM_THREADS": None, "MKL_DEBUG_CPU_TYPE": None, **environment})
    assert (done.returncode, done.stderr) == (0, "")
    *log, last = done.stdout.splitlines()
    return *json.loads(last), "\n".join(log)


def test_all_cores_and_a_fast_code_path_are_chosen():
    threads, code_path, _, log = start()
    cores, fast = len(os.sched_getaffinity(0)), cpu._fast_code_path(pathlib.Path("/proc/cpuinfo"))
    assert threads == str(cores) and code_path == (fast[0] if fast else None)
    expected = f"{cores} thread{'s' if cores > 1 else ''}" + (
        f", MKL_DEBUG_CPU_TYPE={fast[0]} ({fast[1]})" if fast else ""
    )
    assert f"[INFO]\tCPU: {expected}; set OMP_NUM_THREADS" in log and log.count("\n") == 0, log


def test_what_the_user_chose_stays_and_paddle_follows_it():
    chosen = {number: start(OMP_NUM_THREADS=str(number), MKL_DEBUG_CPU_TYPE="4") for number in (1, 2)}
    for number, (threads, code_path, _, log) in chosen.items():
        assert (threads, code_path, log) == (str(number), "4", "")
    tasks = {number: result[2] for number, result in chosen.items()}
    assert tasks[1] < tasks[2], f"threads of the process after a product of matrices: {tasks}"


def test_processes_of_a_launch_share_the_cores(monkeypatch):
    endpoints = "10.0.0.1:80,10.0.0.1:81,10.0.0.2:80,10.0.0.1:82"
    assert cpu.local_processes() == 1
    monkeypatch.setenv("PADDLE_CURRENT_ENDPOINT", "10.0.0.1:81")
    monkeypatch.setenv("PADDLE_TRAINER_ENDPOINTS", endpoints)
    assert cpu.local_processes() == 3


AVX2 = "fpu sse2 fma avx avx2"
AVX512 = f"{AVX2} avx512f avx512dq avx512cd avx512bw avx512vl"


@pytest.mark.parametrize(
    ("vendor", "flags", "value"),
    [
        ("GenuineIntel", AVX512, None),
        ("AuthenticAMD", AVX512, "7"),
        ("AuthenticAMD", f"{AVX2} avx512f", "5"),  # MKL's code for AVX-512 needs more than its foundation
        ("AuthenticAMD", AVX2, "5"),
        ("AuthenticAMD", "fpu sse2 avx", None),
    ],
)
def test_code_path_of_a_processor(tmp_path, vendor, flags, value):
    core = f"processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: a: b\nflags\t\t: {flags}\n"
    (tmp_path / "cpuinfo").write_text(f"{core}\n{core}\n")
    found = cpu._fast_code_path(tmp_path / "cpuinfo")
    assert (found and found[0]) == value


def test_code_path_of_an_unknown_system(tmp_path):
    assert cpu._fast_code_path(tmp_path / "missing") is None


@pytest.mark.parametrize(
    ("rank", "ranks", "fits"),
    [(None, None, True), ("0", None, True), ("1", "2", True), ("3", None, False), ("2", "2", False), ("x", "2", False),
     ("0", "two", False), ("-1", "2", False)],
)  # fmt: skip
def test_variables_of_a_launch_fit_each_other(rank, ranks, fits, monkeypatch):
    for name, value in (("PADDLE_TRAINER_ID", rank), ("PADDLE_TRAINERS_NUM", ranks)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    if fits:
        cpu._check_launch()
        return
    with pytest.raises(UserError, match="PADDLE_TRAINER_ID is .* of PADDLE_TRAINERS_NUM"):
        cpu._check_launch()
