"""Folders for what an engine builds, which fits one graph, one device and one set of versions; a GPU's takes minutes.

A folder is named by the digest of everything that its content depends on, so that what was built for another GPU or
driver is never found. Its manifest is written last: a folder without a valid one was left by a build that failed.

    folder = engine_cache(parts)
    with locked(folder):
        if read_manifest(folder, parts) is None:
            ...  # build into the folder
            write_manifest(folder, parts)
"""

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import logging
import os
import pathlib
import shutil
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

from paddle_rt.errors import UserError
from paddle_rt.files import errors_name, whole_file
from paddle_rt.inference.deployment import file_digest

MANIFEST = "manifest.json"
_LOCK = ".lock"
_MOST_BYTES = 2**24  # of a manifest or a lock file
logger = logging.getLogger(__name__)


def engine_cache(parts: dict[str, Any]) -> pathlib.Path:
    """Return the folder for what is built from `parts`, and make it.

    It lies below $PADDLE_RT_CACHE, or else ~/.cache/paddle_rt/engines. Where nothing can be written there, one warning
    says so, and the folder is a temporary one, with a copy of what is kept, that the end of the process removes.

    Args:
        parts: All that the result depends on: digests, names, versions, shapes; values that JSON can hold.

    Returns:
        The absolute path. The same parts give the same path.
    """
    name = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    folder = _root() / name
    try:
        _make_writable(folder)
    except OSError as error:
        kept, folder = folder, pathlib.Path(_temporary_root().name) / name
        _warn_once(_root(), error.strerror)
        _make_writable(folder)
        if not (folder / MANIFEST).exists():  # a cache may come within the read-only image of a container
            _copy_files(kept, folder)
    return folder


@functools.cache
def _warn_once(root: pathlib.Path, reason: str) -> None:
    logger.warning(
        "new engines are not kept: %s cannot be written (%s); set PADDLE_RT_CACHE to a folder that can", root, reason
    )


def _copy_files(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copy what can be read; the manifest tells whether that is all."""
    with contextlib.suppress(OSError):
        for file in source.rglob("*"):
            if file.is_file() and file.name != _LOCK:
                copy = target / file.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)


def _root() -> pathlib.Path:
    chosen = os.environ.get("PADDLE_RT_CACHE") or os.path.join("~", ".cache", "paddle_rt", "engines")
    return pathlib.Path(os.path.abspath(os.path.expanduser(chosen)))


@functools.cache
def _temporary_root() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="paddle_rt_engines_")


def _make_writable(folder: pathlib.Path) -> None:
    """Make the folder, only for its owner since an engine is code, and raise an OSError if it cannot be written."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / _LOCK).open("a"), tempfile.TemporaryFile(dir=folder):
        pass


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Let one process at a time work in a folder of the cache; another one waits, and a log line tells for whom.

    The operating system releases the lock of a process that ends in any way.

    Args:
        folder: From `engine_cache`.
    """
    with (folder / _LOCK).open("r+", encoding="utf-8", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = file.read(200).strip() or "another process"
            logger.warning("waiting for %s, which builds or loads the same engine in %s", holder, folder)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):  # a network drive without locks
                raise
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def read_manifest(folder: pathlib.Path, expected: dict[str, Any]) -> dict[str, Any] | None:
    """Return a folder's manifest, or empty the folder where it is not what a finished build left.

    Args:
        folder: From `engine_cache`, and locked.
        expected: Entries that the manifest must hold with these values.

    Returns:
        The manifest; None if it is missing or damaged, if it differs from `expected`, or if one of the files that it
        lists is missing or has changed. The folder is empty then.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("too large")
        content = json.loads(path.read_text(encoding="utf-8"))
        is_valid = all(key in content and content[key] == value for key, value in _as_json(expected).items())
        is_valid = is_valid and all(file_digest(folder / name) == digest for name, digest in content["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        is_valid = False
    if is_valid:
        return content
    empty(folder)
    return None


def write_manifest(folder: pathlib.Path, content: dict[str, Any]) -> None:
    """Write the manifest, which makes what lies in a folder valid; it is the last step of a build.

    Args:
        folder: From `engine_cache`, and locked.
        content: What `read_manifest` shall expect and return; the digests of all files are added as "files".

    Raises:
        UserError: The disk is full.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (MANIFEST, _LOCK))
    digests = {str(path.relative_to(folder)): file_digest(path) for path in files}
    with keeping(folder), whole_file(folder / MANIFEST) as part:
        part.write_text(json.dumps({**content, "files": digests}, indent=1), encoding="utf-8")


@contextlib.contextmanager
def keeping(folder: pathlib.Path) -> Iterator[None]:
    """Turn an OSError of the block, such as that of a full disk, into one line that names the cache."""
    try:
        with errors_name(folder):
            yield
    except OSError as error:
        raise UserError(
            f"the engine cannot be kept in {error.filename}: {error.strerror}; make room, or set PADDLE_RT_CACHE to "
            "another folder"
        ) from error


def _as_json(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content as a manifest gives it back: tuples as lists, keys as text."""
    return json.loads(json.dumps(content))


def empty(folder: pathlib.Path) -> None:
    """Remove all that lies in a folder of the cache, which is locked, but for its lock."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()
