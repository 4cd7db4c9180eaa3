"""Files that are written whole or not at all, and the names of output files."""

import errno
import os
import pathlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yield a temporary name beside `path` to write to; it becomes `path` when the block ends without an error.

    Args:
        path: The file to create or to replace; its folder is created.

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
