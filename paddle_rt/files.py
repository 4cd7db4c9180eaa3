"""Files that appear whole or not at all."""

import errno
import os
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Give a temporary name beside `path` to write to; it becomes `path` when the block ends without an error.

    Args:
        path: The file to make or replace; its folder is made.

    Yields:
        The temporary name. It is removed if the block raises.

    Raises:
        OSError: The folder cannot be made or written, or the disk is full; it names the file.
    """
    target = pathlib.Path(path)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        if error.filename is None:  # a full disk, which names no file
            error.filename = str(target)
        raise
    finally:
        temporary.unlink(missing_ok=True)
