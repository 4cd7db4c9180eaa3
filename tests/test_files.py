"""Tests of the checks on paths and of files that are written whole."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from paddle_rt.errors import UserError
from paddle_rt.files import check_plain_file, temporary_home, whole_file
from tests.bad_inputs import unix_socket


def test_a_regular_file_and_a_link_to_one_are_accepted(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"123")
    (tmp_path / "link").symlink_to(file)
    assert check_plain_file(str(file), max_bytes=3) == file
    assert check_plain_file(tmp_path / "link") == tmp_path / "link"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, "no image at {path}"),
        (lambda path: path.mkdir(), "{path} is a folder"),
        (os.mkfifo, "{path} is a named pipe"),
        (unix_socket, "{path} is a socket"),
        (lambda path: path.symlink_to("/dev/zero"), "{path} is a device"),
        (lambda path: path.symlink_to("nowhere"), "{path} is a broken link to nowhere"),
        (lambda path: path.symlink_to(path.name), "{path} is a link that leads to itself"),
        (lambda path: path.write_bytes(b"12345"), "{path} has 5 bytes, expected at most 4"),
    ],
    ids=["missing", "folder", "fifo", "socket", "device", "broken_link", "endless_link", "large"],
)
def test_anything_else_is_refused_by_name(tmp_path, make, expected):
    path = tmp_path / "x.png"
    make(path)
    with pytest.raises(UserError) as caught:
        check_plain_file(path, "image", max_bytes=4)
    assert str(caught.value).startswith(expected.format(path=path))


def test_the_home_is_another_one_for_a_while_in_several_threads(monkeypatch):
    monkeypatch.setenv("HOME", "/home")

    def look(_):
        with temporary_home(), temporary_home():
            return os.environ["HOME"] != "/home" and os.path.isdir(os.environ["HOME"])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(look, range(64)))
    assert os.environ["HOME"] == "/home"
    monkeypatch.delenv("HOME")
    assert look(0) and "HOME" not in os.environ


def test_names_that_no_file_can_have_are_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    for name in ("a\0b", "a\ud800b"):
        with pytest.raises(UserError, match="cannot be the name of a file"):
            check_plain_file(f"{tmp_path}/{name}")
    with pytest.raises(UserError, match="no file at"):
        check_plain_file(tmp_path / "a" / "b")
    for length in (300, 100_000):
        with pytest.raises(UserError, match="is too long for the name of a file") as caught:
            check_plain_file(tmp_path / ("n" * length))
        assert len(str(caught.value)) < 200


@pytest.mark.skipif(not os.path.ismount("/proc"), reason="this system has no /proc")
@pytest.mark.parametrize("name", ["/proc/self/environ", "/proc/kmsg", "/proc/self/mem"])
def test_files_of_the_system_that_call_themselves_regular_are_refused(name, tmp_path):
    with pytest.raises(UserError, match=f"{name} is a file of /proc or /sys, expected a regular file"):
        check_plain_file(name)


def test_names_may_be_as_long_as_the_file_system_takes(tmp_path):
    for name in ("n" * 251 + ".png", "ä" * 127):
        with whole_file(tmp_path / name) as part:
            part.write_text("x")
        assert os.listdir(tmp_path) == [name]
        (tmp_path / name).unlink()
    with (
        pytest.raises(UserError, match="is too long for the name of a file; rename"),
        whole_file(tmp_path / ("n" * 256)),
    ):
        pass


@pytest.mark.parametrize("make", [os.mkfifo, unix_socket, lambda path: path.symlink_to("/dev/zero")])
def test_no_new_file_takes_the_place_of_what_is_no_file(make, tmp_path):
    make(tmp_path / "x")
    before = (tmp_path / "x").lstat()
    with pytest.raises(OSError, match="No regular file") as caught, whole_file(tmp_path / "x") as part:
        part.write_text("new")
    assert caught.value.filename == str(tmp_path / "x")
    assert (tmp_path / "x").lstat() == before and len(list(tmp_path.iterdir())) == 1
