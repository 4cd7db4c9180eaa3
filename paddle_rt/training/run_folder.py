"""The folder of a run, which belongs to one run at a time."""

import contextlib
import errno
import fcntl
import io
import logging
import os
import pathlib
import re
import socket
import time
from collections.abc import Iterator

import paddle

from paddle_rt.errors import UserError
from paddle_rt.files import errors_name
from paddle_rt.run_logs import METRICS
from paddle_rt.training.checkpoints import FOLDER_NAME, clean
from paddle_rt.training.distributed import gather_objects

_log = logging.getLogger(__name__)
LOCK = ".lock"


@contextlib.contextmanager
def claim(save_dir: str | os.PathLike) -> Iterator[None]:
    """Make a run's folder, keep other runs out of it while the block runs, and clear what a killed run has left.

    Every process of the launch has to call it; the first one does the work.

    Raises:
        UserError: Another run has the folder, or something else has the place of a file or folder of the run.
        OSError: The folder cannot be made or written to.
    """
    folder = pathlib.Path(save_dir)
    with contextlib.ExitStack() as stack:
        problem = None
        if paddle.distributed.get_rank() == 0:
            try:
                _make(folder)
                stack.enter_context(_lock(folder))
                clean(folder)
            except UserError as error:  # the other processes wait for this one
                problem = str(error)
        problem = gather_objects(problem)[0]
        if problem is not None:
            raise UserError(problem)
        yield


def _make(folder: pathlib.Path) -> None:
    """Make the folder; refuse what would keep the run from writing to it hours later."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--save_dir {folder} is a file; give a folder")
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise UserError(f"--save_dir {folder} cannot be written to")
    for path in folder.iterdir():
        if re.fullmatch(FOLDER_NAME, path.name) and not path.is_dir():
            raise UserError(f"{path} is a file, and the run needs a folder of this name; move it away")
        if path.name in (METRICS, LOCK) and path.exists() and not path.is_file():
            raise UserError(f"{path} is no plain file, and the run needs a file of this name; move it away")


@contextlib.contextmanager
def _lock(folder: pathlib.Path) -> Iterator[None]:
    """Hold the lock on a folder. The operating system releases it when the process ends, however it ends."""
    with _acquire(folder) as file:
        try:
            if owner := _owner(file):
                _log.info(f"{folder} was in use by {owner}, which ended without releasing it; this run takes it over")
            started = time.strftime("%Y-%m-%d %H:%M:%S")
            with errors_name(file.name):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}, started {started}\n".encode())
            yield
        finally:
            os.unlink(file.name)


def _acquire(folder: pathlib.Path) -> io.FileIO:
    def without_following(path: str, flags: int) -> int:
        return os.open(path, flags | os.O_NOFOLLOW, 0o644)

    while True:
        file = open(str(folder / LOCK), "ab+", buffering=0, opener=without_following)
        try:
            # Unlike the lock of flock, this one is not inherited by the processes that load images.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                with file:
                    owner = _owner(file) or "another process"
                raise UserError(f"{folder} is in use by {owner}; stop that run, or give another --save_dir") from error
            _log.warning(f"{folder} cannot be locked ({error.strerror}); see to it that no other run writes to it")
        if os.fstat(file.fileno()).st_nlink > 0:
            return file
        file.close()  # the run before has removed the file between the two calls


def _owner(file: io.FileIO) -> str:
    file.seek(0)
    return " ".join(file.read(300).decode(errors="replace").split())
