"""Files that appear whole or not at all."""

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
        OSError: The folder cannot be made or written.
    """
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
