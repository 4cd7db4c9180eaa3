"""The number of CPU threads and the code path of MKL, which have to be chosen before Paddle is imported."""

import contextlib
import io
import logging
import os
import pathlib
import sys
import warnings

from paddle_rt.errors import UserError
from paddle_rt.files import temporary_home

THREADS = "OMP_NUM_THREADS"  # read by Paddle and its OpenMP library when they are loaded
CODE_PATH = "MKL_DEBUG_CPU_TYPE"  # read by MKL, whose own choice on an AMD processor is its slowest code

_AVX512 = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}
_AVX2 = {"avx2", "fma"}

logger = logging.getLogger(__name__)


def import_paddle() -> None:
    """Choose as `choose_environment` does, and import Paddle.

    Nothing is changed where Paddle has been imported before.
    Paddle prints a warning where OMP_NUM_THREADS is more than 1; it is left out.

    Raises:
        UserError: The variables of a launch of several processes contradict each other.
    """
    if "paddle" in sys.modules:
        return
    _check_launch()
    choose_environment()
    os.environ.setdefault("GLOG_minloglevel", "2")  # Paddle's warnings are about its own code
    warnings.filterwarnings("ignore", "No ccache found")  # for operators in C++, which nobody compiles here
    with contextlib.redirect_stderr(io.StringIO()) as said, temporary_home():
        import paddle
    # Paddle's own handler of signals may wait for ever when a signal strikes within malloc.
    paddle.disable_signal_handler()
    for line in said.getvalue().splitlines():
        if THREADS not in line:
            sys.stderr.write(f"{line}\n")


def _check_launch() -> None:
    """Refuse variables of a launch that say nothing, or of a process that would wait for the first one to write."""
    rank, ranks = os.environ.get("PADDLE_TRAINER_ID", "0"), os.environ.get("PADDLE_TRAINERS_NUM", "1")
    if not (rank.isdecimal() and ranks.isdecimal() and int(rank) < int(ranks)):
        raise UserError(
            f"PADDLE_TRAINER_ID is {rank!r} of PADDLE_TRAINERS_NUM {ranks!r}, expected a number below another; "
            "paddle.distributed.launch sets both, and without a launch both are to be unset"
        )


def choose_environment() -> None:
    """Choose the number of threads and, on an AMD processor, MKL's code path, and log the choice.

    Both are environment variables that Paddle reads when it is imported; what the user set is left alone.
    """
    chosen = []
    if THREADS not in os.environ:
        threads = max(1, len(os.sched_getaffinity(0)) // local_processes())
        os.environ[THREADS] = str(threads)
        chosen.append((THREADS, f"{threads} thread{'s' if threads > 1 else ''}"))
    if CODE_PATH not in os.environ and (found := _fast_code_path(pathlib.Path("/proc/cpuinfo"))):
        value, reason = found
        os.environ[CODE_PATH] = value
        chosen.append((CODE_PATH, f"{CODE_PATH}={value} ({reason})"))
    if chosen:
        names, choices = zip(*chosen, strict=True)
        logger.info("CPU: %s; set %s to choose otherwise", ", ".join(choices), " or ".join(names))


def paddle_threads() -> int:
    """Return the number of threads that Paddle was started with, which is 1 where the environment names none."""
    threads = os.environ.get(THREADS, "").partition(",")[0]  # further numbers are for nested loops
    return int(threads) if threads.isdecimal() else 1


def local_processes() -> int:
    """Return the number of processes of this launch on this machine, 1 without a launch.

    The gloo launcher tells a process the endpoints of all processes and no more.
    """
    host = os.environ.get("PADDLE_CURRENT_ENDPOINT", "").rpartition(":")[0]
    endpoints = os.environ.get("PADDLE_TRAINER_ENDPOINTS", "").split(",")
    return max(1, sum(endpoint.rpartition(":")[0] == host for endpoint in endpoints))


def _fast_code_path(cpuinfo: pathlib.Path) -> tuple[str, str] | None:
    """Return the value of MKL_DEBUG_CPU_TYPE for this processor and the reason, or None where MKL chooses well."""
    try:
        text = cpuinfo.read_text()
    except OSError:  # not Linux
        return None
    facts = dict(line.split(":", 1) for line in text.partition("\n\n")[0].splitlines() if ":" in line)
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    flags = set(facts.get("flags", "").split())
    if facts.get("vendor_id") != "AuthenticAMD":
        return None
    if flags >= _AVX512:
        return "7", "AMD processor with AVX-512"
    if flags >= _AVX2:
        return "5", "AMD processor with AVX2"
    return None
