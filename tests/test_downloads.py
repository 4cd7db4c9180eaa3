"""Downloads of weights from a server on this machine: whole, checked, or nothing at all."""

import hashlib
import http.server
import io
import pickle
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from paddle_rt import downloads
from paddle_rt.downloads import local_weights
from tests.helpers import message, written

WEIGHTS = pickle.dumps({"w": np.arange(40_000, dtype=np.float32)}, 4)


class Handler(http.server.BaseHTTPRequestHandler):
    """Gives `server.files`; what stands below cut/ is cut off at half, unless a range is asked for."""

    def do_GET(self):  # noqa: N802
        self.server.requests.append((self.path, self.headers.get("Range")))
        path = self.path.removeprefix("/cut")
        if path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", self.server.moved_to)
            self.end_headers()
            return
        if path not in self.server.files:
            self.send_error(404)
            return
        content, kind = self.server.files[path]
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", '"1"')
        self.end_headers()
        if self.path.startswith("/cut") and (start == 0 or "always" in path):
            content = content[: start + (100 if "always" in path else len(content) // 2)]
        self.wfile.write(content[start:])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("SEG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.files, running.requests, running.moved_to = {}, [], ""
        running.address = f"http://127.0.0.1:{running.server_address[1]}"
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def kept(tmp_path: Path) -> list[str]:
    return [name for name in written(tmp_path) if not name.endswith((".lock", ".address"))]


def zipped(**files: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def tarred(*members: tuple[str, bytes | None], kind: str = "w:gz") -> bytes:
    """An archive of files, and of links for members without content."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=kind) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            member.size = len(content or b"")
            archive.addfile(member, io.BytesIO(content or b""))
    return data.getvalue()


@pytest.mark.parametrize("place", ["/nets/slim/model.pdparams", "/cut/nets/slim/model.pdparams"])
def test_weights_arrive_whole_and_once(server, tmp_path, place):
    server.files["/nets/slim/model.pdparams"] = WEIGHTS, "application/octet-stream"
    path = local_weights(server.address + place)
    assert path == tmp_path / "home/pretrained_model/slim/model.pdparams" and path.read_bytes() == WEIGHTS
    ranges = [None] if "cut" not in place else [None, f"bytes={len(WEIGHTS) // 2}-"]
    assert [asked for _, asked in server.requests] == ranges
    assert local_weights(server.address + place) == path and len(server.requests) == len(ranges), "asked for twice"
    assert kept(tmp_path) == ["home/pretrained_model/slim/model.pdparams"]


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
def test_the_weights_of_an_archive_are_unpacked_and_nothing_else(server, tmp_path, kind):
    members = {"slim/model.pdparams": WEIGHTS, "slim/train.log": b"text"}
    content = zipped(**members) if kind == "zip" else tarred(*members.items(), kind="w:gz" if kind == "tgz" else "w")
    server.files[f"/slim.{kind}"] = content, "application/zip"
    path = local_weights(f"{server.address}/slim.{kind}")
    assert path.read_bytes() == WEIGHTS and kept(tmp_path) == ["home/pretrained_model/slim/model.pdparams"]


def test_another_address_does_not_get_the_same_file(server):
    other = pickle.dumps({"w": np.zeros(3)}, 4)
    server.files["/a/slim/model.pdparams"] = WEIGHTS, "application/octet-stream"
    server.files["/b/slim/model.pdparams"] = other, "application/octet-stream"
    assert local_weights(f"{server.address}/a/slim/model.pdparams").read_bytes() == WEIGHTS
    assert local_weights(f"{server.address}/b/slim/model.pdparams").read_bytes() == other


def test_a_digest_is_compared(server, tmp_path):
    server.files["/slim/model.pdparams"] = WEIGHTS, "application/octet-stream"
    address, digest = f"{server.address}/slim/model.pdparams", hashlib.sha256(WEIGHTS).hexdigest()
    assert f"its SHA-256 is {digest}, expected {'0' * 64}" in message(local_weights, f"{address}#sha256={'0' * 64}")
    assert kept(tmp_path) == []
    assert "expected #sha256= and 64" in message(local_weights, f"{address}#sha256=12")
    assert local_weights(f"{address}#sha256={digest}").read_bytes() == WEIGHTS


HOSTILE = {
    "up": (tarred(("up/model.pdparams", WEIGHTS), ("../../escaped", b"x")), "leads out of its folder"),
    "root": (tarred(("model.pdparams", WEIGHTS), ("/tmp/escaped", b"x")), "leads out of its folder"),
    "zip_up": (zipped(**{"a/model.pdparams": WEIGHTS, "a/../../escaped": b"x"}), "leads out of its folder"),
    "link": (tarred(("a/model.pdparams", None)), "holds 0 files of weights"),
    "none": (zipped(readme=b"x"), "holds 0 files of weights, expected one; it begins with ['readme']"),
    "two": (zipped(**{"a.pdparams": WEIGHTS, "b.pdparams": WEIGHTS}), "holds 2 files of weights"),
    "text": (tarred(("a/model.pdparams", b"x")), "begins with b'x', as no weights do"),
    "bomb": (tarred(("a/model.pdparams", b"\x80" + bytes(10**7))), "holds more than 1000 files or"),
    "zip_bomb": (zipped(**{"a/model.pdparams": b"\x80" + bytes(10**7)}), "holds more than 1000 files or"),
    "many": (tarred(*((f"{number}.txt", b"") for number in range(1001))), "holds more than 1000 files or"),
    "cut": (tarred(("a/model.pdparams", WEIGHTS))[:-300], "the archive is damaged|holds 0 files"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_archive_that_is_not_as_it_should_be_leaves_nothing(server, tmp_path, name):
    content, expected = HOSTILE[name]
    server.files["/net.tgz"] = content, "application/gzip"
    said = message(local_weights, f"{server.address}/net.tgz")
    assert any(part in said for part in expected.split("|")) and "net.tgz" in said and "\n" not in said, said
    assert kept(tmp_path) == []


def test_what_is_no_file_of_weights_is_not_kept(server, tmp_path, monkeypatch):
    server.files |= {
        "/page/model.pdparams": (b"<html>not found</html>", "text/html"),
        "/text/model.pdparams": (b"<html>not found</html>", "application/octet-stream"),
        "/long/model.pdparams": (WEIGHTS, "application/octet-stream"),
        "/always/model.pdparams": (WEIGHTS, "application/octet-stream"),
    }
    monkeypatch.setattr(downloads, "_MAX_BYTES", len(WEIGHTS) - 1)
    expected = {
        "/page/model.pdparams": "it gives a web page",
        "/text/model.pdparams": "it gives no weights and no archive, but 22 bytes from b'<html>",
        "/long/model.pdparams": "it is larger than",
        "/gone/model.pdparams": "the server answered 404",
        "/page/readme.txt": "names no file of weights",
        "/model.pdparams": "no folder with a plain name",
    }
    for place, reason in expected.items():
        said = message(local_weights, server.address + place)
        assert reason in said and place in said and "\n" not in said, said
    monkeypatch.undo()
    monkeypatch.setenv("SEG_HOME", str(tmp_path / "home"))
    assert "the connection broke, 4 times" in message(local_weights, f"{server.address}/cut/always/model.pdparams")
    assert kept(tmp_path) == []


def test_only_encrypted_connections_leave_this_machine(server, monkeypatch):
    opened = []
    monkeypatch.setattr("socket.create_connection", lambda *arguments, **_: opened.append(arguments))
    for address in ("http://example.com/a/model.pdparams", "ftp://example.com/a/model.pdparams",
                    "file:///etc/model.pdparams", "http://127.0.0.1.example.com/a/model.pdparams"):  # fmt: skip
        assert "is no https address" in message(local_weights, address)
    monkeypatch.undo()
    monkeypatch.setenv("NO_PROXY", "*")
    moves = {"http://example.com/a/model.pdparams": "is no https address", "file:///etc/passwd": "is not allowed"}
    for server.moved_to, reason in moves.items():
        assert reason in message(local_weights, f"{server.address}/moved/model.pdparams")
    assert not opened


def test_a_path_stays_a_path(tmp_path):
    assert local_weights(tmp_path / "x.pdparams") == tmp_path / "x.pdparams"
