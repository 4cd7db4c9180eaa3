"""The page in this process: its handlers, what it says of mistakes, and how the tool ends on them."""

import argparse
import base64
import os
import signal
import socket
import sys

import cv2
import numpy as np
import pytest

from paddle_rt.cli.demo import configure_gradio, load_exports
from paddle_rt.cli.run import run_tool
from paddle_rt.demo import media
from paddle_rt.demo.exports import Options
from paddle_rt.imaging import read_image
from paddle_rt.listening import address_of, bind
from tests.demo.exports import NAMES, halves, load_export, write_segmentation
from tests.helpers import damaged_video, message, refused, write_video
from tests.inference.test_pose_estimator import BOXES, PLACES, dotted

BLUE, GREEN, RED = range(3)
VARIABLES = ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE", "GRADIO_TEMP_DIR")
ALL = [0.5, NAMES, False, "labels", 0.3]  # the settings when the page opens


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The handlers of a page with two networks, by name, and the page's exports."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.setenv(name, "")  # as it was before, after the tests
        configure_gradio(str(folder / "files"))
        pytest.importorskip("gradio", reason="Gradio is not installed: pip install 'paddle_rt[demo]'")
        patch.setattr(media, "EXAMPLES", 1)
        from paddle_rt.demo.page import build_page

        exports = [load_export(folder, kind) for kind in ("segmentation", "pose")]
        blocks = build_page(exports, folder)
        blocks.handlers = {function.name: function for function in blocks.fns.values()}
        blocks.folder, blocks.exports = folder, exports
        yield blocks


def call(page, name: str, *arguments: object) -> list:
    return page.handlers[name].fn(*arguments)


def write(folder, image: np.ndarray, name: str = "in.png") -> str:
    assert cv2.imwrite(str(folder / name), image)
    return str(folder / name)


def test_an_image_is_shown_by_every_network(page, tmp_path):
    path = write(tmp_path, dotted(PLACES))
    boxes = "\n".join(" ".join(map(str, box)) for box in BOXES)
    found, said, _, labels, _, areas, _, people, _, table = call(page, "find", path, boxes, *ALL)
    assert said == "" and len(found) == 2 and len(found[1].result) == 2
    for drawn, export, one in zip((labels, people), page.exports, found, strict=True):
        np.testing.assert_array_equal(drawn, export.draw(one, Options(*ALL)))
    assert "green &lt;b&gt;" in areas and "<b>" not in areas and "rgb(0, 0, 250)" in areas and " ms a frame" in areas
    assert "onnxruntime fp32, 1 thread" in areas and "person 2" in table and "3 of 3" in table
    # Another opacity and fewer classes draw the same results anew, without a network.
    _, said, _, labels, *_ = call(page, "redraw", ["Image"], found, 1.0, ["red"], False, "labels", 0.3)
    np.testing.assert_array_equal(labels, page.exports[0].draw(found[0], Options(1.0, ["red"])))
    cleared = call(page, "find", None, "", *ALL)
    assert cleared[0] == [] and cleared[3] is None and call(page, "redraw", ["Image"], [], *ALL)[3] is not None


@pytest.mark.parametrize(("boxes", "content", "expected"), [
    ("", b"no image", "cannot decode image in.png: it is damaged"),
    ("", cv2.imencode(".jpg", halves(BLUE, RED))[1].tobytes()[:400], "image in.png is cut off"),
    ("", b"", "image in.png is empty"),
    ("1 2 <i>", None, "boxes, line 1: expected x1 y1 x2 y2 in pixels of the image, got &#x27;1 2 &lt;i&gt;&#x27;"),
    ("9 9 2 2", None, "box 0 of 1, 9 9 2 2, is empty"),
])  # fmt: skip
def test_a_mistake_is_one_message_beside_no_result(page, tmp_path, boxes, content, expected):
    path = tmp_path / "in.png"
    path.write_bytes(cv2.imencode(".png", halves(BLUE, RED))[1].tobytes() if content is None else content)
    found, said, *rest = call(page, "find", str(path), boxes, *ALL)
    assert found == [] and expected in said and str(tmp_path) not in said and said.count("alert") == 2
    assert rest[1] is None and rest[5] is None and "<table" not in rest[3] + rest[7]


def test_videos_and_their_mistakes(page, tmp_path):
    video = write_video(tmp_path / "in.mp4", [halves(BLUE, RED)] * 3)
    found, said, group, _, shown, facts, *_ = call(page, "label_file", str(video), 2, *ALL)
    assert found == [] and said == "" and group["visible"] is False and shown["visible"] and "2 frames; " in facts
    assert shown["value"].endswith(".webm") and shown["value"].startswith(str(page.folder))
    assert "cannot open video v.mp4" in call(page, "label_file", str(damaged_video(tmp_path, "half")), 2, *ALL)[1]
    assert "upload one" in call(page, "label_file", None, 2, *ALL)[1]


def test_frames_of_a_webcam(page):
    frame, tab = halves(BLUE, RED)[..., ::-1], ["Webcam"]
    states, _, said, _, image, *_ = call(page, "label_frame", frame, tab, [None, None], *ALL)
    assert states == [None, None] and said == ""
    expected = page.exports[0].find(halves(BLUE, RED))
    np.testing.assert_array_equal(image, page.exports[0].draw(expected, Options(*ALL)))


def test_a_webcam_behind_another_tab_leaves_the_page_alone(page, tmp_path, monkeypatch):
    frame, tab = halves(BLUE, RED)[..., ::-1], ["Webcam"]
    found, *_ = call(page, "find", write(tmp_path, halves(BLUE, RED)), "", *ALL)
    event = argparse.Namespace(value="Image")
    redrawn = call(page, "switch", event, tab, found, *ALL)
    np.testing.assert_array_equal(redrawn[3], page.exports[0].draw(found[0], Options(*ALL)))
    assert tab == ["Image"] and redrawn[0] is found
    skipped = call(page, "label_frame", frame, tab, [None, None], *ALL)
    assert all(value == gradio_skip() for value in skipped)
    tab[:] = ["Webcam"]
    example = call(page, "choose", argparse.Namespace(index=0), call(page, "render", 0)[1], tab)
    assert tab == ["Image"] and example[0]["selected"] == "Image"
    # A frame that is in work when the tab changes is not shown.
    tab[:] = ["Webcam"]
    draw = page.exports[1].draw
    monkeypatch.setattr(page.exports[1], "draw", lambda *given: (tab.__setitem__(0, "Image"), draw(*given))[1])
    assert all(value == gradio_skip() for value in call(page, "label_frame", frame, tab, [None, None], *ALL))


def gradio_skip() -> dict:
    import gradio

    return gradio.skip()


def test_results_are_sent_and_not_kept(page, tmp_path):
    """The image of a result is in the answer: no file that another user could ask for."""
    from paddle_rt.demo.page import as_data

    before = sorted(page.folder.rglob("*"))
    sent = as_data(halves(BLUE, RED, height=100, width=9000)).url
    (tmp_path / "x.jpg").write_bytes(base64.b64decode(sent.removeprefix("data:image/jpeg;base64,")))
    assert max(read_image(tmp_path / "x.jpg").shape) == 4096 and sorted(page.folder.rglob("*")) == before


def test_the_gallery_renders_others(page):
    paths, shown, number = call(page, "render", 6)
    assert len(paths) == 2 and number == 7 and "street_6.png" in paths[0] and "people_6.png" in paths[1]
    choice = argparse.Namespace(index=1)
    assert call(page, "choose", choice, shown, ["Image"])[1:] == (paths[1], shown[1][1])
    assert len(shown[1][1].splitlines()) > 0


def test_nothing_is_reported(page):
    from paddle_rt.demo.server import stay_here

    assert page.analytics_enabled is False
    for event in (("connect", (None, ("192.0.2.1", 80))), ("getaddrinfo", ("example.com", 80, 0, 0, 0))):
        with pytest.raises(PermissionError, match="asks the net for nothing"):
            stay_here(f"socket.{event[0]}", event[1])
    assert stay_here("socket.connect", (None, "/tmp/socket")) is None and stay_here("open", ("x",)) is None


def test_a_page_without_gradio_or_with_a_taken_port(tmp_path, monkeypatch, capsys):
    def run(*arguments: object) -> tuple[int, str, str]:
        from paddle_rt.cli.demo import main

        monkeypatch.setattr(sys, "argv", ["demo", *map(str, arguments)])
        monkeypatch.setattr(signal, "signal", lambda *_: None)  # it would stay after the test
        with pytest.raises(SystemExit) as end:
            run_tool(main)
        return end.value.code, *capsys.readouterr()

    for name in VARIABLES:
        monkeypatch.setenv(name, os.environ.get(name, ""))  # which the tool sets
    config = write_segmentation(tmp_path / "e")
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert address_of(taken) == f"http://127.0.0.1:{port}"
        taken.listen()
        refused(run("--config", config, "--port", port), f"port {port} of 127.0.0.1 is taken by another program")
    refused(run("--config", config, "--port", 0, "--host", "256.1.1.1"), "cannot listen at 256.1.1.1")
    monkeypatch.setitem(sys.modules, "gradio", None)
    for name in [name for name in sys.modules if name.startswith("paddle_rt.demo.")]:
        monkeypatch.delitem(sys.modules, name)
    expected = r"this needs the package gradio, which is not installed: pip install 'paddle_rt\[demo\]'"
    refused(run("--config", config, "--port", 0), expected)


def test_exports_that_cannot_be_shown(tmp_path):
    flags = {"device": "cpu", "device_id": 0, "precision": "fp32", "threads": 1, "backend": "onnxruntime"}
    config = str(write_segmentation(tmp_path / "e"))
    assert "names an export twice" in message(load_exports, argparse.Namespace(config=[config, config], **flags))
    assert "none" in message(load_exports, argparse.Namespace(config=[str(tmp_path / "none")], **flags))
    (export,) = load_exports(argparse.Namespace(config=[config], **flags))
    assert (export.name, export.engine) == ("e", "onnxruntime fp32, 1 thread")


def test_an_ipv6_address():
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        listener = bind("::1", 0)
    except ValueError:
        pytest.skip("this machine has no IPv6 address of its own")
    with listener:
        assert address_of(listener) == f"http://[::1]:{listener.getsockname()[1]}"
