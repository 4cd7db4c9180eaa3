"""Files: only plain ones are read, new ones are written whole or not at all, and outputs get different names."""

import errno
import functools
import os
import pathlib
import stat
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from paddle_rt.errors import UserError, shown

_LONGEST_NAME = 255  # bytes, in the file systems that are in use
_HOME_LOCK = threading.RLock()  # of several threads, one at a time sets the variable HOME and restores it

# What a path may lead to instead of a plain file. Opening a pipe, a socket or a device may wait for ever or never end.
_OTHER_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_plain_file(path: str | os.PathLike, what: str = "file", max_bytes: int | None = None) -> pathlib.Path:
    """Raise unless `path` leads to a regular file, which can be opened without waiting and has an end.

    Args:
        path: The path that a user names; links are followed.
        what: What the file should be, for the message.
        max_bytes: The largest size that is accepted; None for no limit.

    Returns:
        The path.

    Raises:
        UserError: Nothing is there, or something that is not a regular file, or the file is too large.
    """
    name = os.fspath(path)
    try:
        found = os.stat(name)
    except ValueError as error:  # a NUL, or half of a surrogate pair
        raise UserError(f"{shown(name)} cannot be the name of a file ({what})") from error
    except OSError as error:
        raise UserError(_why_not_there(name, what, error)) from error
    of_system = found.st_dev in _devices_of_system()
    if not stat.S_ISREG(found.st_mode) or of_system:
        kind = _OTHER_KINDS.get(stat.S_IFMT(found.st_mode), "a file of /proc or /sys" if of_system else "another kind")
        raise UserError(f"{name} is {kind}, expected a regular file ({what})")
    if max_bytes is not None and found.st_size > max_bytes:
        raise UserError(f"{name} has {found.st_size} bytes, expected at most {max_bytes} ({what})")
    return pathlib.Path(name)


@functools.cache
def _devices_of_system() -> frozenset[int]:
    """Return the devices of /proc and /sys: their files call themselves regular, and reading one may never end."""
    return frozenset(os.stat(folder).st_dev for folder in ("/proc", "/sys") if os.path.ismount(folder))


def _why_not_there(name: str, what: str, error: OSError) -> str:
    if error.errno == errno.ENAMETOOLONG:
        return f"{shown(name)} is too long for the name of a file ({what})"
    if error.errno == errno.ELOOP:
        return f"{name} is a link that leads to itself, expected a regular file ({what})"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        if os.path.islink(name):
            return f"{name} is a broken link to {os.readlink(name)}, expected a regular file ({what})"
        return f"no {what} at {name}"
    return f"{name} cannot be read ({what}): {error.strerror}"


@contextmanager
def temporary_home() -> Iterator[None]:
    """Let packages that make folders in the user's home, many of them when they are imported, make them elsewhere."""
    with _HOME_LOCK, tempfile.TemporaryDirectory() as folder:
        before = os.environ.get("HOME")
        os.environ["HOME"] = folder
        try:
            yield
        finally:
            del os.environ["HOME"]
            if before is not None:
                os.environ["HOME"] = before


def flush(path: str | os.PathLike) -> None:
    """Have the operating system write a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def errors_name(path: str | os.PathLike) -> Iterator[None]:
    """Give an OSError of the block the name of the file where it has none, as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yield a temporary name beside `path` to write to; it becomes `path` when the block ends without an error.

    Args:
        path: The file to create or to replace; its folder is created.

    Yields:
        The temporary name. It is removed if the block raises.

    Raises:
        UserError: The name is too long.
        OSError: The folder cannot be made or written, the disk is full, or `path` is a folder, a device, a pipe or a
            socket; it names the file.
    """
    target = pathlib.Path(path)
    if len(os.fsencode(target.name)) > _LONGEST_NAME:
        raise UserError(f"{shown(target.name)} is too long for the name of a file; rename what it comes from")
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if target.exists() and not target.is_file():  # such as /dev/null, whose place the new file would take
        raise OSError(errno.EINVAL, "No regular file, and not replaced by one", str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    fits = len(os.fsencode(target.name)) <= _LONGEST_NAME - 20
    temporary = target.with_name(f".{target.name if fits else target.name[:50]}.{os.getpid()}.part")
    try:
        with errors_name(target):
            yield temporary
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def output_names(files: Sequence[str], root: str) -> list[pathlib.Path]:
    """Return a relative name for the output of each image, in the image's sub-folder; all names are different.

    The name of an image outside `root`, which a list may contain, is relative to the folder that they share. Names have
    no suffix, except where two images differ in their suffix alone: the later one keeps it.

    Args:
        files: The images.
        root: The folder that the names are relative to.
    """
    base = pathlib.Path(os.path.abspath(root))
    names: dict[pathlib.Path, None] = {}  # keeps the order, and finds a name at once in a large folder
    for file in files:
        path = pathlib.Path(os.path.abspath(file))
        shared = next(parent for parent in (base, *base.parents) if path.is_relative_to(parent))
        relative = path.relative_to(shared)
        name = relative.with_suffix("")
        if name in names:
            name = relative
        while name in names:
            name = name.with_name(f"{name.name}_")
        names[name] = None
    return list(names)
