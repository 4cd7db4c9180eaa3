"""A run's folder: one run at a time, and only what the run itself has written there."""

import errno
import fcntl
import os
import subprocess
import sys

import paddle
import pytest

from paddle_rt.errors import UserError
from paddle_rt.training import checkpoints, run_folder
from paddle_rt.training.run_folder import LOCK, claim
from tests.helpers import message, written

HOLD = """import fcntl, sys
file = open(sys.argv[1], "a+")
fcntl.lockf(file, fcntl.LOCK_EX)
print("process 123 on host a, started 2001-02-03 04:05:06", file=file, flush=True)
print("held", flush=True)
sys.stdin.read()"""


def claimed(folder) -> None:
    with claim(folder):
        pass


def test_a_second_run_is_refused_until_the_first_is_gone(tmp_path, caplog):
    caplog.set_level("INFO", logger="paddle_rt")
    holder = subprocess.Popen(
        [sys.executable, "-S", "-c", HOLD, str(tmp_path / LOCK)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    holder.stdout.readline()
    (tmp_path / ".iter_5.1.part").mkdir()
    text = message(claimed, tmp_path)
    assert "is in use by process 123 on host a, started 2001-02-03 04:05:06; stop that run" in text
    assert (tmp_path / ".iter_5.1.part").exists(), "the folder of the other run was cleaned"
    holder.kill()
    holder.communicate()
    with claim(tmp_path):
        assert f"process {os.getpid()} on " in (tmp_path / LOCK).read_text()
    assert "was in use by process 123 on host a" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_process_with_the_same_number_is_another_one(tmp_path):
    """The operating system knows who holds a lock; the text in the file only tells."""
    (tmp_path / LOCK).write_text(f"process {os.getppid()} on this host, started yesterday")
    with claim(tmp_path):
        assert str(os.getppid()) not in (tmp_path / LOCK).read_text()


def test_a_run_that_fails_releases_its_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), claim(tmp_path):
        _ = 1 / 0
    assert not list(tmp_path.iterdir())


def test_a_lock_that_its_owner_has_just_removed_is_no_lock(tmp_path, monkeypatch):
    calls = []

    def lockf(file, flags):
        calls.append(file)
        if len(calls) == 1:
            os.unlink(tmp_path / LOCK)

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with claim(tmp_path):
        assert len(calls) == 2 and (tmp_path / LOCK).exists()


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, caplog):
    def lockf(file, flags):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", lockf)
    claimed(tmp_path)
    assert f"{tmp_path} cannot be locked (No locks available)" in caplog.text


@pytest.mark.parametrize("name", ["iter_5", "best_model", "ema_best_model"])
def test_a_file_in_the_place_of_a_folder(name, tmp_path):
    (tmp_path / name).write_text("mine")
    assert "is a file, and the run needs a folder of this name" in message(claimed, tmp_path)
    assert (tmp_path / name).read_text() == "mine" and written(tmp_path) == [name]


@pytest.mark.parametrize("name", ["metrics.jsonl", LOCK])
def test_a_folder_or_a_pipe_in_the_place_of_a_file(name, tmp_path):
    for make in (os.mkdir, os.mkfifo):
        folder = tmp_path / make.__name__
        folder.mkdir()
        make(folder / name)
        assert "is no plain file, and the run needs a file of this name" in message(claimed, folder)


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "other").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match=LOCK):
        claimed(tmp_path / "run")
    assert (tmp_path / "other").read_text() == "mine"


def test_a_file_in_the_place_of_the_run(tmp_path):
    (tmp_path / "run").write_text("mine")
    assert "is a file; give a folder" in message(claimed, tmp_path / "run")


def test_all_processes_of_a_launch_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(paddle.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(run_folder, "gather_objects", lambda item: ["in use", item])
    with pytest.raises(UserError, match="in use"):
        claimed(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_a_killed_run_has_left_is_cleared_and_nothing_else(tmp_path):
    for name in (".iter_15.1.part", ".best_model.2.part", ".iter_5.old", "iter_5", ".iter_10.old", "best_model"):
        (tmp_path / name).mkdir()
    (tmp_path / ".iter_10.old" / "model.pdopt").write_text("whole")
    for name in (".metrics.jsonl.3.part", "best_model/.model.pdparams.9.part", ".settings.old", ".settings.4.part"):
        (tmp_path / name).write_text("half")
    claimed(tmp_path)
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert names == [".settings.4.part", ".settings.old", "best_model", "iter_10", "iter_10/model.pdopt", "iter_5"]


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_is_replaced(exchanges, tmp_path, monkeypatch):
    if not exchanges:
        monkeypatch.setattr(checkpoints, "_exchange", lambda one, other: False)
    for content in ("old", "new"):
        with checkpoints.whole_folder(tmp_path / "iter_5") as temporary:
            (temporary / "file").write_text(content)
    assert (tmp_path / "iter_5" / "file").read_text() == "new" and written(tmp_path) == ["iter_5/file"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    with checkpoints.whole_folder(tmp_path / "iter_5") as temporary:
        (temporary / "file").write_text("old")
    rename = os.rename

    def fail(one, other):
        if str(one).endswith(".part"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(one, other)

    monkeypatch.setattr(checkpoints, "_exchange", lambda one, other: False)
    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="iter_5"), checkpoints.whole_folder(tmp_path / "iter_5") as temporary:
        (temporary / "file").write_text("new")
    assert (tmp_path / "iter_5" / "file").read_text() == "old" and written(tmp_path) == ["iter_5/file"]


def test_a_link_to_a_folder_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("mine")
    (tmp_path / "best_model").symlink_to(tmp_path / "elsewhere")
    with checkpoints.whole_folder(tmp_path / "best_model") as temporary:
        (temporary / "file").write_text("new")
    assert (tmp_path / "best_model" / "file").read_text() == "new" and not (tmp_path / "best_model").is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_text() == "mine"
