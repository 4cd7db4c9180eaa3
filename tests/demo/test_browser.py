"""The page in headless Chromium: what it shows of an image, a video and a webcam, and what it asks the net for."""

import importlib.util
import json
import pathlib
import time
import urllib.error
import urllib.request

import cv2
import numpy as np
import pytest

from tests.demo.browser import CHROMIUM, Browser
from tests.demo.exports import halves, write_segmentation
from tests.demo.running import running, tried
from tests.helpers import ROOT, write_video
from tests.inference.test_pose_estimator import BOXES, PLACES, dotted, write_export

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium; Debian: apt-get install chromium"),
    pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="Gradio is not installed"),
]
BLUE, RED = 0, 2
# The mean colour of a region of an image or a video of the page, given in shares of its width: [R, G, B].
COLOUR = """(selector, from, to) => {
    const shown = document.querySelector(selector), canvas = document.createElement('canvas');
    const width = canvas.width = shown.naturalWidth || shown.videoWidth;
    const height = canvas.height = shown.naturalHeight || shown.videoHeight;
    const context = canvas.getContext('2d');
    context.drawImage(shown, 0, 0);
    const data = context.getImageData(from * width, height / 4, (to - from) * width, height / 2).data;
    return [0, 1, 2].map(at => data.filter((_, index) => index % 4 == at).reduce((a, b) => a + b) / (data.length / 4));
}"""


def colour(browser: Browser, selector: str, start: float, end: float) -> np.ndarray:
    return np.array(browser.evaluate(f"({COLOUR})({json.dumps(selector)}, {start}, {end})"))


def text(selector: str) -> str:
    return f"(document.querySelector('{selector}')?.innerText || '')"


def tab(browser: Browser, name: str) -> None:
    browser.evaluate(f"[...document.querySelectorAll('button[role=tab]')].find(x => x.innerText == '{name}').click()")


def check_images(browser: Browser, folder: pathlib.Path) -> None:
    cv2.imwrite(str(folder / "in.png"), halves(BLUE, RED, 0.75, 128, 192))
    browser.upload("#image input[type=file]", folder / "in.png")
    browser.wait("document.querySelector('#result_0 img')?.naturalWidth == 192")
    expected = {(0.1, 0.6): (0, 0, 252), (0.85, 0.95): (252, 0, 0)}  # half of the image, half of the class's colour
    for region, mean in expected.items():
        error = np.abs(colour(browser, "#result_0 img", *region) - mean).max()
        assert error < 6, f"the overlay is off by {error:.1f} of 255 at {region}"
    areas = browser.evaluate(text("#facts_0"))
    assert "blue" in areas and "75.0 %" in areas and "25.0 %" in areas and "ms a frame" in areas, areas
    assert "onnxruntime fp32, 1 thread" in areas and "1 of 3" not in areas
    assert "person 1" in browser.evaluate(text("#facts_1")), "the other network shows the same image"
    browser.click("#classes input")  # blue
    browser.wait(f"!{text('#facts_0')}.includes('blue')")
    error = np.abs(colour(browser, "#result_0 img", 0.1, 0.6) - (0, 0, 255)).max()
    assert error < 6, f"a class that is not shown leaves the image as it is; it is off by {error:.1f} of 255"


def check_mistakes(browser: Browser, folder: pathlib.Path) -> None:
    (folder / "broken.jpg").write_bytes(cv2.imencode(".jpg", halves(BLUE, RED))[1].tobytes()[:300])
    browser.click("#image button[aria-label='Remove Image']")
    browser.upload("#image input[type=file]", folder / "broken.jpg")
    said = browser.wait(text("#message .alert"))
    assert said == "image broken.jpg is cut off: it has no end marker; copy or download it again"
    assert browser.evaluate("document.querySelectorAll('.toast-body, .error').length") == 0, "one message is enough"
    assert not browser.evaluate("!!document.querySelector('#result_0 img')"), "the result of another image is gone"


def check_people(browser: Browser, folder: pathlib.Path) -> None:
    cv2.imwrite(str(folder / "people.png"), dotted(PLACES))
    boxes = "\n".join(" ".join(map(str, box)) for box in BOXES.astype(int))
    browser.evaluate(
        f"(() => {{const area = document.querySelector('#boxes textarea'); area.value = {json.dumps(boxes)};"
        "area.dispatchEvent(new Event('input', {bubbles: true}))})()"
    )
    browser.click("#image button[aria-label='Remove Image']")
    browser.upload("#image input[type=file]", folder / "people.png")
    browser.wait(f"{text('#facts_1')}.includes('person 2')")
    assert browser.evaluate(text("#message")).strip() == ""


def check_media(browser: Browser, folder: pathlib.Path) -> None:
    tab(browser, "Video")
    browser.upload("#video input[type=file]", write_video(folder / "in.avi", [halves(RED, BLUE, 0.5)] * 5, "MJPG"))
    browser.wait("!!document.querySelector('#video video')")
    browser.click("#label_video")
    browser.wait("document.querySelector('#result_video_0 video')?.readyState >= 2")
    error = np.abs(colour(browser, "#result_video_0 video", 0.1, 0.4) - (252, 0, 0)).max()
    assert error < 16, f"the video's overlay is off by {error:.1f} of 255"
    assert "5 frames; " in browser.evaluate(text("#facts_0"))
    tab(browser, "Webcam")
    browser.click("#webcam [title='grant webcam access'] button")
    browser.wait("document.querySelector('#webcam video')?.videoWidth > 0")
    browser.click("#webcam .capture-button")
    browser.wait("document.querySelector('#result_0 img')?.naturalWidth > 192")
    first = browser.evaluate("document.querySelector('#result_0 img').src")
    browser.wait(f"document.querySelector('#result_0 img').src != {json.dumps(first)}")
    assert "green <b>" in browser.evaluate(text("#facts_0")), "Chromium's camera shows green"


def check_webcam_behind(browser: Browser) -> None:
    """A webcam that records leaves the result of an example alone, and goes on when its tab is chosen."""
    browser.click("#examples .thumbnail-item")
    browser.wait("document.querySelector('#result_0 img')?.naturalWidth == 512")
    assert browser.evaluate("!document.querySelector('#webcam')?.checkVisibility()"), "the tab of images is chosen"
    for _ in range(10):
        time.sleep(0.1)
        assert browser.evaluate("document.querySelector('#result_0 img')?.naturalWidth") == 512
    tab(browser, "Webcam")
    browser.wait("document.querySelector('#result_0 img')?.naturalWidth != 512")
    tab(browser, "Image")
    browser.wait("document.querySelector('#result_0 img')?.naturalWidth == 512")
    tab(browser, "Webcam")
    browser.click("#webcam .capture-button")  # stops it


def check_strangers(address: str, folder: pathlib.Path) -> None:
    """Nobody gets at the files of this machine, by asking for one or by naming it as an upload."""
    secret = folder / "secret.png"
    cv2.imwrite(str(secret), halves(BLUE, RED))
    for path in (secret, ROOT / "README.md"):
        with pytest.raises(urllib.error.HTTPError, match="403|404"):
            urllib.request.urlopen(f"{address}/gradio_api/file={path}")
    data = [{"path": str(secret), "meta": {"_type": "gradio.FileData"}}, "", 0.5, [], False, "labels", 0.3]
    request = urllib.request.Request(
        f"{address}/gradio_api/call/find", json.dumps({"data": data}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{address}/gradio_api/call/find/{event}") as answer:
        said = answer.read().decode()
    assert "event: error" in said and "base64" not in said, said


def test_the_page_in_a_browser(tmp_path):
    configs = [write_segmentation(tmp_path / "labels"), write_export(tmp_path / "pose")]
    flags = ("--backend", "onnxruntime", "--config", *configs)
    profile = tmp_path / "profile"
    with running(tmp_path / "tmp", *flags) as (address, rest), Browser(profile) as browser:
        browser.open(address)
        browser.wait("document.querySelectorAll('#examples img').length == 6", 120)
        for check in (check_images, check_mistakes, check_people, check_media):
            check(browser, tmp_path)
        check_webcam_behind(browser)
        tab(browser, "Image")
        browser.click("#examples .thumbnail-item")
        browser.wait("document.querySelector('#result_0 img')?.naturalWidth == 512")
        check_strangers(address, tmp_path)
        assert browser.errors == []
        asked = [url for url in browser.requests if not url.startswith(("data:", "blob:"))]
        assert len(asked) > 50 and [url for url in asked if not url.startswith(f"{address}/")] == []
    assert set(tried(rest)) <= {"127.0.0.1"}, "Python turned elsewhere"
    said = "".join(rest)  # what Gradio prints of the file that was not uploaded, and nothing else
    assert said.count("Traceback") == 1 and rest[0].startswith("Traceback") and "InvalidPathError" in rest[-1], said
    assert not any((tmp_path / "tmp").iterdir()), "what was uploaded is removed"
