"""`paddle_rt.serving` over HTTP: answers, refusals, the queue, slow clients, and the end."""

import contextlib
import dataclasses
import io
import json
import signal
import struct
import threading
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")

from paddle_rt import imaging
from paddle_rt.errors import UserError
from paddle_rt.imaging.polygons import find_polygons
from paddle_rt.imaging.view import View
from paddle_rt.inference import VideoSegmenter, load
from paddle_rt.listening import bind
from paddle_rt.serving import server as server_module
from paddle_rt.serving import service as service_module
from tests.helpers import call_tool, smooth_image
from tests.inference import test_classifier, test_pose_estimator
from tests.serving.running import (
    NAMES,
    ask,
    connect,
    error,
    form,
    head,
    png,
    serving,
    status_of,
    wait_until,
    write_export,
)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    return load(write_export(tmp_path_factory.mktemp("s") / "e"), "onnxruntime", threads=1)


@pytest.fixture(scope="module")
def service(segmenter):
    with serving(segmenter, max_bytes=200_000, max_pixels=100_000) as running:
        yield running


@pytest.fixture
def gate(monkeypatch):
    """Networks wait until the gate is set, and are counted."""
    gate, real = threading.Event(), service_module.predict
    gate.calls = 0

    def predict(*arguments):
        gate.calls += 1
        assert gate.wait(20)
        return real(*arguments)

    monkeypatch.setattr(service_module, "predict", predict)
    yield gate
    gate.set()


IMAGE = smooth_image(80, 100, cell=20)


def test_every_output_is_what_the_bare_segmenter_and_the_writers_give(service, segmenter, tmp_path):
    labels = segmenter(IMAGE)
    status, headers, content = ask(service.port, "/predict", png(IMAGE))
    assert status == 200 and headers["Content-Type"] == "image/png" and headers["X-Engine"] == service.engine
    indexed = Image.open(io.BytesIO(content))
    wrong = int((np.array(indexed) != labels).sum())
    assert wrong == 0, f"{wrong} labels differ from the bare Segmenter's"
    assert indexed.getpalette()[:9] == segmenter.deployment.palette[:3].ravel().tolist()
    stages = ["wait", "decode", "preprocess", "network", "labels", "encode", "total"]
    assert [part.partition(";dur=")[0] for part in headers["Server-Timing"].split(", ")] == stages

    view = View(NAMES, segmenter.deployment.palette)
    imaging.write_image(tmp_path / "o.jpg", view.draw(IMAGE, labels))
    _, headers, content = ask(service.port, "/predict?output=overlay", png(IMAGE))
    assert headers["Content-Type"] == "image/jpeg" and content == (tmp_path / "o.jpg").read_bytes()

    polygons = find_polygons(labels, range(3), 16)
    coco = json.loads(ask(service.port, "/predict?output=coco&name=a/b.jpg", png(IMAGE))[2])
    assert [entry["area"] for entry in coco["annotations"]] == [polygon.area for polygon in polygons]
    assert coco["images"] == [{"id": 1, "file_name": "b.jpg", "height": 80, "width": 100}]
    labelme = json.loads(ask(service.port, "/predict?output=labelme&name=b.jpg", png(IMAGE))[2])
    assert [shape["label"] for shape in labelme["shapes"]] == [NAMES[polygon.label] for polygon in polygons]
    assert labelme["imagePath"] == "b.jpg" and labelme["shapes"][0]["points"] == polygons[0].points.tolist()


def test_a_batch_gives_a_file_for_each_image_or_one_for_all(service, segmenter):
    images = {"a.png": IMAGE, "a.jpg": IMAGE[::-1].copy(), "..": IMAGE[:40]}
    files = [(name, png(image)) for name, image in images.items()]
    status, headers, content = ask(service.port, "/predict/batch", *form(*files))
    assert status == 200 and headers["Content-Type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["a.png", "a.jpg.png", "upload.png"]
        for name, image in zip(archive.namelist(), images.values(), strict=True):
            assert np.array_equal(np.array(Image.open(archive.open(name))), segmenter(image)), name
    coco = json.loads(ask(service.port, "/predict/batch?output=coco", *form(*files))[2])
    assert [image["file_name"] for image in coco["images"]] == ["a.png", "a.jpg", "upload"]
    assert {entry["image_id"] for entry in coco["annotations"]} == {1, 2, 3}


GOOD = ("a.png", png(IMAGE))


def _name(value: object) -> str:
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize(
    ("body", "headers", "line"),
    [
        (*form(GOOD, ("bad.png", png(IMAGE)[:-9])), "image bad.png is cut off"),
        (*form(), "the form has no file"),
        (*form(*[("a.png", b"x")] * 65), "at most 64 images"),
        (*form(GOOD, other="1"), "unknown field of the form 'other'"),
        (*form(GOOD, boxes="[]"), "boxes are for the task pose"),
        (form(GOOD)[0], {"Content-Type": "image/png"}, "a batch is a form of files"),
        (form(GOOD)[0][5:], form()[1], "the form"),
        (b"", form()[1], "the form has no file"),
    ],
    ids=_name,
)
def test_a_batch_that_is_refused(service, body, headers, line):
    answer = ask(service.port, "/predict/batch", body, headers)
    assert answer[0] == 422 and line in error(answer), answer


def bomb(width: int, height: int) -> bytes:
    """Return a PNG whose header promises pixels that are not there."""
    chunks = b""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")):
        chunks += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return b"\x89PNG\r\n\x1a\n" + chunks


JPEG = cv2.imencode(".jpg", IMAGE)[1].tobytes()


@pytest.mark.parametrize(
    ("path", "body", "status", "line"),
    [
        ("/predict", b"", 422, "image upload is empty (0 bytes)"),
        ("/predict?name=x.png", b"no image", 422, "image x.png: it is damaged, or not an image"),
        ("/predict", JPEG[:-400], 422, "image upload is cut off"),
        ("/predict", JPEG.replace(b"\xff\xd9", b"\xff\xda" * 200 + b"\xff\xd9"), 422, "more than 100 scans"),
        ("/predict", png(IMAGE)[:-12] + bytes(12 * 10_001) + png(IMAGE)[-12:], 422, "more than 10000 chunks"),
        ("/predict", png(IMAGE.astype(np.uint16) * 256), 422, "has 16 bits a channel"),
        ("/predict", bomb(400, 300), 413, "has 400x300 pixels; this service takes at most 100000"),
        ("/predict", bomb(100_000, 100_000), 413, "far more than 100000 pixels"),
        ("/predict", bytes(200_001), 413, "the body is larger than 200000 bytes"),
        ("/predict?output=label", GOOD[1], 422, "unknown output 'label', did you mean 'labels'?"),
        ("/predict?boxes=[]", GOOD[1], 422, "boxes are for the task pose"),
        ("/predict", None, 405, "Method Not Allowed"),
        ("/nothing", b"", 404, "Not Found"),
    ],
    ids=_name,
)
def test_a_request_that_is_refused(service, path, body, status, line):
    answer = ask(service.port, path, body)
    assert answer[0] == status and line in error(answer), answer


def test_a_body_that_is_too_large_is_refused_as_soon_as_that_is_known(service):
    with connect(service.port, head(10**12)) as announced:
        assert status_of(announced) == 413
    chunked = head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    with connect(service.port, chunked + b"%x\r\n" % 10**12 + bytes(300_000)) as endless:
        assert status_of(endless) == 413
        start = time.monotonic()
        with pytest.raises(ConnectionError):  # the rest is read for a moment, and then no more
            while time.monotonic() < start + 20:
                endless.sendall(bytes(10_000))
                time.sleep(0.01)


def test_poses_in_boxes_and_in_whole_images(tmp_path):
    estimator = load(test_pose_estimator.write_export(tmp_path / "e"), "onnxruntime", threads=1)
    frame, boxes = test_pose_estimator.dotted(test_pose_estimator.PLACES), test_pose_estimator.BOXES.tolist()
    with serving(estimator) as service:
        wanted = estimator(frame, np.array(boxes))
        found = json.loads(
            ask(service.port, f"/predict?name=7.png&boxes={json.dumps(boxes).replace(' ', '')}", png(frame))[2]
        )
        points = np.array([entry["keypoints"] for entry in found]).reshape(2, 3, 3)
        difference = np.abs(points - np.dstack([wanted.points, wanted.scores])).max()
        assert difference < 1e-4, f"keypoints differ by {difference:.1e} from the bare estimator's"
        assert [entry["image_id"] for entry in found] == [7, 7]
        files = ("a.png", png(frame)), ("b.png", png(frame))
        found = json.loads(ask(service.port, "/predict/batch", *form(*files, boxes=json.dumps([boxes, None])))[2])
        assert [entry["image_id"] for entry in found] == ["a.png", "a.png", "b.png"]
        assert ask(service.port, "/predict?output=overlay", png(frame))[1]["Content-Type"] == "image/jpeg"
        many = "[" + ",".join(["[0,0,9,9]"] * 65) + "]"
        for text, line in (("[[1,2,3]]", "boxes are numbers"), ("x", "boxes must be JSON"), ("{}", "must be a list"),
                           ("[[5,5,1,1]]", "is empty"), (many, "at most 64")):  # fmt: skip
            answer = ask(service.port, f"/predict?boxes={text}", png(frame))
            assert answer[0] == 422 and line in error(answer), answer
        assert json.loads(ask(service.port, "/model")[2])["keypoints"]["names"] == ["blue", "left_green", "right_red"]


def test_classes(tmp_path):
    classifier = load(test_classifier.write_export(tmp_path / "e"), "onnxruntime", threads=1)
    with serving(classifier) as service:
        (found,) = json.loads(ask(service.port, "/predict?name=a.png", png(IMAGE))[2])
        wanted = classifier.predict(IMAGE)
        assert found["image"] == "a.png" and [entry["name"] for entry in found["classes"]] == wanted.names
        assert ask(service.port, "/predict?output=overlay", png(IMAGE))[0] == 200


def test_an_image_is_the_first_of_a_video_to_a_network_for_video():
    class Recorder(VideoSegmenter):
        def __init__(self):
            self.calls = []

        def reset(self):
            self.calls.append("reset")

        def __call__(self, frame):
            self.calls.append("label")

    recorder = Recorder()
    for _ in range(2):
        service_module.predict(recorder, IMAGE, None)
    assert recorder.calls == ["reset", "label"] * 2


def test_what_the_service_says_of_itself(service):
    assert ask(service.port, "/health")[0] == ask(service.port, "/ready")[0] == 200
    about = json.loads(ask(service.port, "/model")[2])
    assert about["class_names"] == NAMES and about["outputs"] == ["labels", "overlay", "coco", "labelme"]
    schema = json.loads(ask(service.port, "/openapi.json")[2])
    (output, _) = schema["paths"]["/predict"]["post"]["parameters"]
    assert output["schema"]["enum"] == about["outputs"]
    assert {"200", "408", "413", "422", "503"} == set(schema["paths"]["/predict/batch"]["post"]["responses"])
    _, headers, page = ask(service.port, "/docs")
    text = page.decode()
    assert all(path in text for path in schema["paths"]) and "labels, overlay, coco, labelme" in text
    assert "<script" not in text and "src=" not in text and "//" not in text.replace("http://HOST:PORT", "")
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    ask(service.port, "/predict", GOOD[1])
    ask(service.port, "/predict", b"x")
    numbers = dict(line.split(" ") for line in ask(service.port, "/metrics")[2].decode().splitlines() if line[0] != "#")
    assert float(numbers['paddle_rt_requests_total{status="422"}']) >= 1
    answered = float(numbers['paddle_rt_requests_total{status="200"}'])
    assert answered == float(numbers['paddle_rt_seconds_count{stage="total"}']) >= 1
    assert numbers["paddle_rt_busy"] == numbers["paddle_rt_uploads"] == "0.0"


def test_a_full_queue_refuses_at_once_and_what_waits_is_answered(segmenter, gate):
    with serving(segmenter, queue=5) as service, ThreadPoolExecutor(5) as clients:
        waiting = [clients.submit(ask, service.port, "/predict", GOOD[1]) for _ in range(5)]
        wait_until(lambda: service.busy == 5 and gate.calls == 1)
        answer = ask(service.port, "/predict", GOOD[1])
        assert answer[0] == 503 and answer[1]["Retry-After"] == "1" and "the queue is full: 5" in error(answer)
        assert ask(service.port, "/health")[0] == 200 and gate.calls == 1
        gate.set()
        answers = [client.result()[2] for client in waiting]
        labels = segmenter(IMAGE)
        assert all(np.array_equal(np.array(Image.open(io.BytesIO(answer))), labels) for answer in answers)
    assert gate.calls == 5


def test_who_has_gone_or_whose_time_is_up_leaves_the_queue(segmenter, gate):
    with serving(segmenter) as service:
        answered = connect(service.port, head(len(GOOD[1])) + GOOD[1])
        wait_until(lambda: gate.calls == 1)  # threads decode, so that the first to come need not be the first to run
        gone = [connect(service.port, head(len(GOOD[1])) + GOOD[1]) for _ in range(4)]
        wait_until(lambda: service.busy == 5)
        for connection in gone[1:]:
            connection.close()
        gone[0].shutdown(1)  # closes its side alone
        wait_until(lambda: len(service.server.server_state.connections) == 1)  # the server has noticed
        gate.set()
        assert status_of(answered) == 200
        wait_until(lambda: service.busy == 0)
        assert gate.calls == 1, "the network ran for a client that had gone"
        gate.clear()
        service.limits = dataclasses.replace(service.limits, timeout=0.3)
        answer = ask(service.port, "/predict", GOOD[1])
        assert answer[0] == 503 and "no answer within 0.3 s" in error(answer)
        gate.set()
        assert ask(service.port, "/predict", GOOD[1])[0] == 200


def test_places_of_clients_that_have_gone_are_given_to_others(segmenter, gate):
    with serving(segmenter, queue=5) as service, ThreadPoolExecutor(4) as clients:
        answered = connect(service.port, head(len(GOOD[1])) + GOOD[1])
        wait_until(lambda: gate.calls == 1)
        gone = [connect(service.port, head(len(GOOD[1])) + GOOD[1]) for _ in range(4)]
        wait_until(lambda: service.busy == 5)
        for connection in gone:
            connection.close()
        wait_until(lambda: len(service.server.server_state.connections) == 1)  # the server has noticed
        waiting = [clients.submit(ask, service.port, "/predict", GOOD[1]) for _ in range(4)]
        wait_until(lambda: len(service.server.server_state.connections) == 5 and service.busy == 5)
        assert not any(client.done() for client in waiting), "a client was refused for those that had gone"
        assert ask(service.port, "/predict", GOOD[1])[0] == 503, "five clients are there, and five may be"
        gate.set()
        assert status_of(answered) == 200 and [client.result()[0] for client in waiting] == [200] * 4
    assert gate.calls == 5


def test_slow_clients_are_ended(segmenter):
    with serving(segmenter, timeout=0.5, max_bytes=200_000) as service:
        unread = connect(service.port, b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n" * 400, receives=4096)
        start = time.monotonic()
        slow = connect(service.port, head(1000) + b"x")
        slow_head = connect(service.port, head(1000)[:-2])
        silent = connect(service.port, b"")
        idle = connect(service.port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status_of(idle) == 200 and ask(service.port, "/predict", GOOD[1])[0] == 200
        while time.monotonic() < start + 0.4:
            slow.sendall(b"x")
            slow_head.sendall(b"x")
            time.sleep(0.05)
        assert status_of(slow) == 408 and status_of(slow_head) == status_of(silent) == 0
        while idle.recv(4096):
            pass
        assert 0.4 < time.monotonic() - start < 3
        wait_until(lambda: not service.server.server_state.connections)
        unread.close()


def test_bodies_that_are_received_share_a_limit_and_the_oldest_gives_way(segmenter):
    with serving(segmenter, max_bytes=20_000) as service:
        slow = []
        for index in range(9):  # together more than 8 of the largest bodies
            slow.append(connect(service.port, head(20_000) + bytes(19_000)))
            wait_until(lambda number=index + 1: len(service._uploads) >= min(number, 8))
        assert status_of(slow[0]) == 408
        assert ask(service.port, "/predict", GOOD[1])[0] == 200 and len(service._uploads) in (7, 8)
        for connection in slow:
            connection.close()


def test_the_oldest_idle_connection_gives_way_to_a_new_one(segmenter, monkeypatch):
    monkeypatch.setattr(server_module, "_MOST_CONNECTIONS", 4)
    with serving(segmenter) as service, contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connect(service.port, b"")) for _ in range(6)]
        assert ask(service.port, "/predict", GOOD[1])[0] == 200
        assert [status_of(connection) for connection in silent[:3]] == [0, 0, 0]
        silent[-1].sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status_of(silent[-1]) == 200


def test_the_end_refuses_new_work_and_answers_what_is_queued(segmenter, gate):
    with serving(segmenter) as service, ThreadPoolExecutor(2) as clients:
        waiting = [clients.submit(ask, service.port, "/predict", GOOD[1]) for _ in range(2)]
        wait_until(lambda: service.busy == 2)
        slow = connect(service.port, head(1000) + b"x")
        wait_until(lambda: service._uploads)
        service.server.handle_exit(signal.SIGTERM, None)
        assert status_of(slow) == 503
        assert ask(service.port, "/ready")[0] == 503 and ask(service.port, "/health")[0] == 200
        answer = ask(service.port, "/predict", GOOD[1])
        assert answer[0] == 503 and error(answer) == "the service is stopping"
        gate.set()
        assert [client.result()[0] for client in waiting] == [200, 200]
        service.thread.join(10)
        assert not service.thread.is_alive()


def test_a_port_that_is_taken_takes_one_line():
    with bind("127.0.0.1", 0) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 is taken by another program"):
            bind("127.0.0.1", port)
    with pytest.raises(UserError, match="cannot listen at 192.0.2.1"):
        bind("192.0.2.1", 0)


@pytest.mark.parametrize(
    ("flags", "code", "line"),
    [
        (("--config", "nothing"), 1, "no deploy.yaml that tools/export.py wrote at nothing"),
        (("--port", 70000), 2, "argument --port: expected a whole number from 0 to 65535, got '70000'"),
        (("--queue", 0), 2, "argument --queue"),
        (("--timeout", 0), 2, "argument --timeout: expected a number above 0 and at most 3600"),
        (("--host", "no host"), 1, "cannot listen at no host"),
        (("--backend", "openvinos"), 2, "did you mean 'openvino'?"),
    ],
)
def test_a_mistake_on_the_command_line_takes_one_line(capsys, flags, code, line):
    got = call_tool("serve", *([] if "--config" in flags else ["--config", "x"]), "--port", 0, *flags)
    _, err = capsys.readouterr()
    assert got == code and err.startswith("error: ") and err.count("\n") == 1 and line in err, err
