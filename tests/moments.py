"""The moments at which a process changes files below a folder: each can be made the one at which a fault strikes.

`watch` replaces the functions of Python that change files, in the process that calls it and for as long as it lives.
"""

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable
from typing import Any

KILL, FULL = "kill", "full disk"
NEEDS_SPACE = ("open", "write", "mkdir", "rename", "replace", "exchange", "fsync")


class Moments:
    """Counts the moments, and strikes at one of them.

    Args:
        folder: Changes below it count.
        fault: `KILL` ends the process at the moment `at`; on a `FULL` disk, this and all later moments fail that need
            space. A write is struck when half of it is done.
        at: The moment, counted from 1; 0 for none.

    Attributes:
        names: What happened at each moment.
    """

    def __init__(self, folder: str, fault: str = KILL, at: int = 0) -> None:
        self.folder, self.fault, self.at = os.path.abspath(folder), fault, at
        self.names: list[str] = []

    def __call__(self, name: str, half: Callable[[], object] = lambda: None, path: Any = None) -> None:
        """Note a moment before it happens; `half` does one half of it. A full disk names `path` in its error."""
        self.names.append(name)
        number = len(self.names)
        if not self.at:
            return
        if self.fault == KILL and number == self.at:
            half()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == FULL and number >= self.at and name.split()[0] in NEEDS_SPACE:
            half()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def is_below(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(self.folder + os.sep)


def watch(moments: Moments) -> None:
    """Have every change of a file in this process pass `moments`."""
    for name in ("rename", "replace", "mkdir", "unlink", "remove", "rmdir", "truncate"):
        _replace_in_os(name, moments)
    _replace_fsync(moments)
    _replace_open(moments)
    from paddle_rt.training import checkpoints

    exchange = checkpoints._exchange

    def exchange_names(one: Any, other: Any) -> bool:
        moments(f"exchange {other.name}")
        return exchange(one, other)

    checkpoints._exchange = exchange_names


def _replace_in_os(name: str, moments: Moments) -> None:
    original = getattr(os, name)

    def change(path: Any, *arguments: Any, **keywords: Any) -> Any:
        whole, folder = path, keywords.get("dir_fd")
        if folder is not None:  # shutil.rmtree gives names within an open folder
            whole = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
        if moments.is_below(whole):
            moments(f"{name} {os.path.basename(path)}", path=path)
        return original(path, *arguments, **keywords)

    setattr(os, name, change)


def _replace_fsync(moments: Moments) -> None:
    original = os.fsync

    def fsync(descriptor: int) -> None:
        moments("fsync")
        original(descriptor)

    os.fsync = fsync


def _replace_open(moments: Moments) -> None:
    original = io.open

    class File(io.FileIO):
        def write(self, data: Any) -> int:
            half = bytes(data)[: len(data) // 2]
            moments(f"write {os.path.basename(self.name)}", lambda: super(File, self).write(half))
            return super().write(data)

        def truncate(self, size: int | None = None) -> int:
            moments(f"truncate {os.path.basename(self.name)}")
            return super().truncate(size)

    def watched(path: Any, mode: str = "r", buffering: int = -1, encoding=None, errors=None, newline=None, **others):
        if not set(mode) & set("wax+") or not moments.is_below(path):
            return original(path, mode, buffering, encoding, errors, newline, **others)
        moments(f"open {os.path.basename(path)}", path=path)
        raw = File(path, mode.replace("b", "").replace("t", ""), **others)
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    io.open = builtins.open = watched
