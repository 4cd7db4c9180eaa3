"""The processes that load samples, and the shared memory in which they hand them over.

Paddle frees a segment of shared memory where its sample arrives, or where a process ends in order. After a kill nobody
does. A process that outlives the run frees its own segments; where all were killed, the next run frees them, for which
each run leaves a note of its processes. The run holds a lock on the note, which the operating system releases.
"""

import contextlib
import ctypes
import fcntl
import os
import pathlib
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence

from paddle_rt.errors import UserError
from paddle_rt.files import check_plain_file

_SHARED_MEMORY = pathlib.Path("/dev/shm")  # of Linux
_NOTE = "paddle-rt."  # what the name of a note begins with
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h: the signal that a process gets when its parent ends


def start_worker() -> None:
    """Prepare a process that loads samples.

    The signals that stop a run are for the process that started this one, which ends when that one asks it to or is
    gone.
    """
    for name in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(name, signal.SIG_IGN)
    if sys.platform != "linux":
        return
    parent = os.getppid()

    def end(*_: object) -> None:
        if os.getppid() == parent:
            return
        _free_segments(os.getpid())
        os._exit(1)

    signal.signal(signal.SIGUSR2, end)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGUSR2)


@contextlib.contextmanager
def noted(processes: Sequence[int]) -> Iterator[None]:
    """Leave a note of processes that load samples while the block runs."""
    if not processes or not _SHARED_MEMORY.is_dir():
        yield
        return
    with tempfile.NamedTemporaryFile("w", prefix=_NOTE, dir=_SHARED_MEMORY) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(" ".join(map(str, processes)))
        file.flush()
        yield


def free_shared_memory() -> None:
    """Free what the processes of runs of this user have left that were killed together with them."""
    for path in _SHARED_MEMORY.glob(f"{_NOTE}*"):
        # It may be another user's, just removed, or no note at all.
        with contextlib.suppress(OSError, UserError), open(check_plain_file(path, "note", 1 << 16)) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises while the run that wrote the note lives
            processes = [int(word) for word in file.read().split() if word.isdecimal()]
            # One may be about to end, or its number belong to another process by now: the note is for a later run then.
            present = set(filter(_is_running, processes))
            for process in set(processes) - present:
                _free_segments(process)
            if processes and not present:  # without any, it is just being written
                path.unlink()


def _is_running(process: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")  # it has ended, and nobody has asked for its exit code


def _free_segments(process: int) -> None:
    for segment in _SHARED_MEMORY.glob(f"paddle_{process}_*"):
        segment.unlink(missing_ok=True)
