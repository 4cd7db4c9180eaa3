"""The stream stderr, to which Python and the libraries in C and C++ write."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

_FD = 2
_LOCK = threading.Lock()  # of several threads, one at a time collects
if hasattr(os, "register_at_fork"):  # a process that is forked within a block would keep the lock and the stream
    os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)


def separate_python() -> None:
    """Give Python's stderr a file descriptor of its own, which lets `library_messages` collect; for tools."""
    if _python_shares():
        sys.stderr = os.fdopen(os.dup(_FD), "w", buffering=1, errors="backslashreplace")


def _python_shares() -> bool:
    try:
        return sys.stderr.fileno() == _FD
    except (AttributeError, OSError, ValueError):  # None, or a stream that is no file
        return False


@contextlib.contextmanager
def library_messages() -> Iterator[list[str]]:
    """Collect the lines that libraries in C and C++ write to stderr in the block, where they would name no file.

    Nothing is collected, and the lines are printed as ever, where Python writes to the same file descriptor, as in a
    program that uses this library: lines of its other threads would be lost.

    Yields:
        A list that has the lines after the block.
    """
    lines: list[str] = []
    if _python_shares() or sys.platform != "linux":
        yield lines
        return
    with _LOCK:
        memory, before = os.memfd_create("stderr"), os.dup(_FD)
        os.dup2(memory, _FD)
        try:
            yield lines
        finally:
            os.dup2(before, _FD)
            os.close(before)
            os.lseek(memory, 0, os.SEEK_SET)
            text = os.read(memory, 1 << 16)
            os.close(memory)
            lines += filter(str.strip, text.decode(errors="replace").splitlines())
