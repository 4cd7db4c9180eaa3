"""The folders that keep what engines build: whole or empty, one builder at a time."""

import errno
import fcntl
import json
import logging
import pathlib
import subprocess
import sys

import pytest

from paddle_rt.errors import UserError
from paddle_rt.inference.engines import cache
from paddle_rt.inference.engines.cache import MANIFEST, engine_cache, locked, read_manifest, write_manifest
from tests.helpers import written

PARTS = {
    "graph": "5a5a",
    "gpu": "NVIDIA GeForce RTX 2080 Ti",
    "capability": [7, 5],
    "shapes": {"frame": [1, 64, 96, 3]},
}
HOLD = """import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
file.truncate(0)
file.write("process 7 on elsewhere")
file.flush()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> pathlib.Path:
    monkeypatch.setenv("PADDLE_RT_CACHE", str(tmp_path / "cache"))
    return engine_cache(PARTS)


def build(folder: pathlib.Path, content: bytes = b"engine") -> None:
    (folder / "inner").mkdir(exist_ok=True)
    (folder / "inner/a.engine").write_bytes(content)
    write_manifest(folder, PARTS)


def test_the_folder_is_named_by_all_parts_in_any_order(folder, tmp_path):
    assert folder.parent == tmp_path / "cache" and folder.is_dir() and folder.is_absolute()
    assert engine_cache(dict(reversed(PARTS.items()))) == folder
    for key in PARTS:
        assert engine_cache({**PARTS, key: "other"}) != folder, key
    assert folder.stat().st_mode & 0o077 == 0, "an engine is code, which others must not replace"


def test_the_default_is_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("PADDLE_RT_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert engine_cache(PARTS).parent == tmp_path / "home/.cache/paddle_rt/engines"


def test_what_was_built_is_found_again(folder):
    with locked(folder):
        assert read_manifest(folder, PARTS) is None
        build(folder)
    with locked(folder):
        found = read_manifest(folder, PARTS)
    assert found["graph"] == "5a5a" and list(found["files"]) == ["inner/a.engine"]


def test_tuples_of_parts_are_what_json_makes_of_them(folder):
    write_manifest(folder, {"capability": (7, 5)})
    assert read_manifest(folder, {"capability": (7, 5)}) is not None


def damage(folder: pathlib.Path, kind: str) -> None:
    manifest, engine = folder / MANIFEST, folder / "inner/a.engine"
    content = json.loads(manifest.read_text())
    if kind == "no manifest":
        manifest.unlink()
    elif kind == "half a manifest":
        manifest.write_bytes(manifest.read_bytes()[:-20])
    elif kind == "no text":
        manifest.write_bytes(b"\xff\xfe\x00")
    elif kind == "a list":
        manifest.write_text("[1, 2]")
    elif kind == "files as a list":
        manifest.write_text(json.dumps({**content, "files": ["inner/a.engine"]}))
    elif kind == "another GPU":
        manifest.write_text(json.dumps({**content, "gpu": "NVIDIA H100"}))
    elif kind == "a key less":
        del content["shapes"]
        manifest.write_text(json.dumps(content))
    elif kind == "nested":
        manifest.write_text("[" * 100_000)
    elif kind == "no engine":
        engine.unlink()
    elif kind == "half an engine":
        engine.write_bytes(b"eng")


@pytest.mark.parametrize("kind", ["no manifest", "half a manifest", "no text", "a list", "files as a list",
                                  "another GPU", "a key less", "nested", "no engine", "half an engine"])  # fmt: skip
def test_a_folder_that_no_finished_build_left_is_emptied(folder, kind):
    build(folder)
    damage(folder, kind)
    (folder / "link").symlink_to(folder.parent, target_is_directory=True)
    assert read_manifest(folder, PARTS) is None
    assert written(folder) == [".lock"] and folder.parent.is_dir()
    build(folder, b"anew")
    assert read_manifest(folder, PARTS) is not None


@pytest.mark.parametrize("root", ["below a file", "read-only", "full"])
def test_a_cache_that_cannot_be_written_is_one_warning_and_a_temporary_folder(tmp_path, monkeypatch, caplog, root):
    if root == "below a file":
        (tmp_path / "file").touch()
        monkeypatch.setenv("PADDLE_RT_CACHE", str(tmp_path / "file/cache"))
    else:
        real, code = cache._make_writable, {"read-only": errno.EROFS, "full": errno.ENOSPC}[root]

        def make_writable(folder: pathlib.Path) -> None:
            if tmp_path in folder.parents:
                raise OSError(code, "no room here", str(folder))
            real(folder)

        monkeypatch.setattr(cache, "_make_writable", make_writable)
    folder = engine_cache(PARTS)
    assert engine_cache({**PARTS, "graph": "other"}) != folder
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "set PADDLE_RT_CACHE" in record.getMessage()
    assert "\n" not in record.getMessage() and tmp_path not in folder.parents
    with locked(folder):
        build(folder)
    assert engine_cache(PARTS) == folder and read_manifest(folder, PARTS) is not None


def test_what_a_read_only_cache_holds_is_used(folder, monkeypatch):
    build(folder)
    real = cache._make_writable

    def make_writable(path: pathlib.Path) -> None:
        if path.parent == folder.parent:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        real(path)

    monkeypatch.setattr(cache, "_make_writable", make_writable)
    copy = engine_cache(PARTS)
    assert copy != folder
    with locked(copy):
        assert read_manifest(copy, PARTS) is not None and (copy / "inner/a.engine").read_bytes() == b"engine"
        build(copy, b"another")
    assert engine_cache(PARTS) == copy and (copy / "inner/a.engine").read_bytes() == b"another"


def test_one_process_waits_for_another_and_says_for_whom(folder, caplog, monkeypatch):
    holder = subprocess.Popen(
        [sys.executable, "-S", "-c", HOLD, folder / ".lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    real = fcntl.flock

    def flock(file: object, operation: int) -> None:
        if operation == fcntl.LOCK_EX:  # the call that waits, after the message
            holder.stdin.close()
        real(file, operation)

    try:
        assert holder.stdout.readline() == "held\n"
        monkeypatch.setattr(fcntl, "flock", flock)
        with locked(folder):
            (record,) = caplog.records
            assert "waiting for process 7 on elsewhere" in record.getMessage() and str(folder) in record.getMessage()
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_the_lock_is_free_after_a_build_that_failed(folder):
    with pytest.raises(ZeroDivisionError), locked(folder):
        raise ZeroDivisionError
    with (folder / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert file.read().startswith("process ")


def test_a_drive_without_locks_is_used_without_them(folder, monkeypatch):
    def flock(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(folder):
        build(folder)
    assert read_manifest(folder, PARTS) is not None


def test_a_full_disk_leaves_no_manifest(folder, monkeypatch):
    def write_text(self: pathlib.Path, *_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_text", write_text)
    with pytest.raises(UserError, match="manifest.json: No space left on device; make room, or set PADDLE_RT_CACHE"):
        build(folder)
    monkeypatch.undo()
    assert not (folder / MANIFEST).exists() and read_manifest(folder, PARTS) is None
