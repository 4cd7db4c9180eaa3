"""Processes that load samples, and the shared memory that kills leave."""

import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import paddle
import pytest

from paddle_rt import workers
from paddle_rt.tasks.loader import Loader
from tests.helpers import ROOT


@pytest.fixture
def memory(tmp_path, monkeypatch) -> pathlib.Path:
    monkeypatch.setattr(workers, "_SHARED_MEMORY", tmp_path)
    return tmp_path


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_memory_of_dead_processes_is_freed_once_their_run_is_dead(memory):
    dead, alive = ended_process(), os.getpid()
    segments = [memory / f"paddle_{number}_0_1" for number in (dead, alive, dead + 10**7)]
    for segment in segments:
        segment.touch()
    os.mkfifo(memory / "paddle-rt.fifo")
    with workers.noted([dead, alive]):
        workers.free_shared_memory()
        assert all(segment.exists() for segment in segments), "the run lives"
        (note,) = (path for path in memory.glob("paddle-rt.*") if path.is_file())
        text = note.read_text()
    assert not note.exists() and all(segment.exists() for segment in segments)
    note.write_text(text)  # as a kill leaves it
    workers.free_shared_memory()
    assert [segment.exists() for segment in segments] == [False, True, True]
    assert note.exists(), "a process that is about to end may still leave some"
    note.write_text("")
    workers.free_shared_memory()
    assert note.exists(), "a note is empty while it is being written"
    note.write_text(str(dead))
    workers.free_shared_memory()
    assert not note.exists()


def test_a_note_is_held_until_its_samples_have_been_taken(memory):
    class Numbers(paddle.io.Dataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> dict:
            return {"img": np.float32([index])}

    batches = iter(Loader(Numbers(), batch_size=1, num_workers=2))
    next(batches)
    (note,) = memory.glob("paddle-rt.*")
    assert all(os.path.exists(f"/proc/{number}") for number in note.read_text().split())
    with note.open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    batches.close()
    assert not note.exists()


PROGRAM = """
import sys, time
import numpy as np
from paddle_rt.cpu import import_paddle
import_paddle()
import paddle
from paddle_rt.tasks.loader import Loader

class Large(paddle.io.Dataset):
    def __len__(self):
        return 1000
    def __getitem__(self, index):
        return {"img": np.zeros(10**6, "float32")}

batches = iter(Loader(Large(), batch_size=1, num_workers=1))
next(batches)
print("first", flush=True)
time.sleep(60 if sys.argv[1] == "wait" else 0)
batches.close()
"""


@pytest.mark.slow
def test_a_run_frees_what_one_that_was_killed_with_its_workers_has_left():
    shared = pathlib.Path("/dev/shm")
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "wait"], stdout=subprocess.PIPE, cwd=ROOT, start_new_session=True
    )
    assert process.stdout.readline() == b"first\n"
    time.sleep(0.5)  # for more samples
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert children and any(list(shared.glob(f"paddle_{child}_*")) for child in children), "the kill left nothing"
    subprocess.run([sys.executable, "-c", PROGRAM, "go"], check=True, cwd=ROOT, capture_output=True)
    assert not [name for child in children for name in shared.glob(f"paddle_{child}_*")]
