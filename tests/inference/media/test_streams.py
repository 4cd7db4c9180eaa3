"""Videos and streams by their address, from a server in this process."""

import functools
import http.server
import logging
import pathlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest

from paddle_rt.errors import UserError
from paddle_rt.inference.media import sources
from paddle_rt.inference.media.sources import open_source
from tests.helpers import damaged_video, read_video, write_video

Handler = type[http.server.BaseHTTPRequestHandler]


@pytest.fixture
def serve() -> Iterator[Callable[[Handler], str]]:
    """Starts HTTP servers and returns their addresses."""
    servers = []

    def start(handler: Handler) -> str:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def files_of(folder: pathlib.Path) -> Handler:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    return functools.partial(Quiet, directory=str(folder))


def noise(frames: int, height: int, width: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(frames)]


class Camera(http.server.BaseHTTPRequestHandler):
    """An IP camera: an endless series of JPEGs, which breaks off after the sizes of a connection."""

    connections: list[list[tuple[int, int]]]

    def do_GET(self) -> None:
        if not self.connections:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        self.end_headers()
        for size in self.connections.pop(0):
            data = cv2.imencode(".jpg", np.full((*size, 3), 9, np.uint8))[1].tobytes()
            head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data + b"\r\n")

    def log_message(self, *_: object) -> None:
        pass


def live(connections: list[list[tuple[int, int]]]) -> Handler:
    return type("Camera", (Camera,), {"connections": connections})


@pytest.mark.parametrize("frames, height, width", [(12, 48, 64), (20, 192, 256)])
def test_a_video_on_a_server_that_sends_whole_files_only(serve, tmp_path, frames, height, width):
    """The small one fits into FFmpeg's buffer; of the large one the index is needed first, which is at its end."""
    path = write_video(tmp_path / "ein Bär.mp4", noise(frames, height, width))
    source = open_source(f"http://{serve(files_of(tmp_path))}/ein%20Bär.mp4")
    assert (source.name, source.fps, source.total) == ("ein_Bär", 12.5, frames)
    expected, found = read_video(path)[0], list(source.frames)
    assert [frame.continues for frame in found] == [False] + [True] * (frames - 1)
    np.testing.assert_array_equal([frame.image for frame in found], expected)


def test_a_video_that_breaks_off(serve, tmp_path):
    damaged_video(tmp_path, "half_avi")
    *frames, last = open_source(f"http://{serve(files_of(tmp_path))}/v.avi").frames
    assert 5 < len(frames) < 20
    assert f"its header promises 20 frames, {len(frames)} can be decoded" in str(last.image)


def test_a_stream_that_drops_is_opened_again(serve, monkeypatch, caplog):
    caplog.set_level(logging.WARNING, logger="paddle_rt")
    monkeypatch.setattr(sources, "_WAITS", (0.01, 0.02, 0.03))
    server = serve(live([[(48, 64)] * 4, [(48, 64)] * 5]))
    *frames, last = open_source(f"http://user:secret@{server}/stream").frames
    assert [frame.continues for frame in frames] == [False] + [True] * 3 + [False] + [True] * 4
    assert str(last.image).endswith("/stream: it stopped after 9 frames and could not be opened again")
    waits = [record.getMessage().split("; ")[1] for record in caplog.records]
    assert waits == [f"it is opened again in {wait} s" for wait in (0.01, 0.02, 0.03)]
    assert not any("secret" in text for text in (*caplog.messages, str(last.image), *(f.source for f in frames)))


def test_a_stream_whose_size_changes(serve, monkeypatch, caplog):
    caplog.set_level(logging.WARNING, logger="paddle_rt")
    monkeypatch.setattr(sources, "_WAITS", ())
    *frames, last = open_source(f"http://{serve(live([[(48, 64)] * 3 + [(32, 32)] * 2]))}/").frames
    assert [frame.image.shape for frame in frames] == [(48, 64, 3)] * 5
    assert "it stopped after 5 frames" in str(last.image)
    assert "frame 3 is 32x32, those before are 64x48; all get the size of the first one" in caplog.text


def test_sound_only(serve, tmp_path):
    damaged_video(tmp_path, "sound")
    with pytest.raises(UserError, match="cannot open http.*v.mp4: .* or what it sends is not a video"):
        open_source(f"http://{serve(files_of(tmp_path))}/v.mp4")


@pytest.mark.parametrize("scheme", ["http", "rtsp", "tcp"])
def test_a_server_that_is_silent_or_absent(monkeypatch, scheme):
    monkeypatch.setattr(sources, "_TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{scheme}://user:secret@127.0.0.1:{server.getsockname()[1]}/live"
        start = time.monotonic()
        with pytest.raises(UserError, match=f"cannot open {scheme}://127.0.0.1:.*/live: no server answers") as silent:
            open_source(address)
        assert time.monotonic() - start < 5
    with pytest.raises(UserError, match="no server answers"):
        open_source(address)
    assert "secret" not in str(silent.value)


@pytest.mark.parametrize("address, message", [
    ("file:///etc/passwd", "unknown scheme of an address 'file'"), ("concat://a|b", "unknown scheme"),
    ("htps://host/a.mp4", "did you mean 'https'"), ("http://", "is not an address"), ("http://[::1/a", "is not an"),
    ("rtsp://host/a\r\nb", "is not an address"), ("http://host/a\0b", "is not an address"),
])  # fmt: skip
def test_addresses_that_are_refused(address, message):
    with pytest.raises(UserError, match=message):
        open_source(address)
