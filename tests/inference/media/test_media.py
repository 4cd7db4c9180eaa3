"""Images, videos and cameras: reading and writing while the network runs, interruption, damage."""

import logging
import math
import os
import pathlib
import re
import signal
import threading
import time
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import pytest

from paddle_rt.errors import UserError
from paddle_rt.imaging.draw import overlay
from paddle_rt.imaging.labels import read_label
from paddle_rt.imaging.palettes import palette
from paddle_rt.imaging.view import View
from paddle_rt.inference.media import sources
from paddle_rt.inference.media.pipeline import Report, describe, interrupt_once, label_frames
from paddle_rt.inference.media.sinks import open_outputs
from paddle_rt.inference.media.sources import Frame, Source, open_source
from paddle_rt.inference.segmenter import Labels
from tests.helpers import damaged_video, read_video, write_video, written

CLASSES = 5
COLOURS = palette(None, CLASSES)
VIEW = View([f"class {index}" for index in range(CLASSES)], COLOURS)
SECONDS = 20  # what may pass before a test takes a wait for a hang


class FakeSegmenter:
    """Labels a frame by its first byte."""

    timings = {"preprocess": 0.001, "network": 0.002, "labels": 0.003}

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        if frame[0, 0, 0] == 255:
            raise UserError("too white")
        return np.full(frame.shape[:2], frame[0, 0, 0] % CLASSES, np.uint8)


def flat(value: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def frames_of(values: range) -> list[Frame]:
    return [Frame(f"frame {value}", pathlib.Path(f"{value:06d}"), flat(value)) for value in values]


def run(source: Source, save_dir: pathlib.Path, save: tuple[str, ...] | None = None) -> Report:
    with open_outputs(source, save_dir, save, VIEW) as write:
        return label_frames(FakeSegmenter(), source, write)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    left = [thread.name for thread in set(threading.enumerate()) - before if thread.name[:6] in ("reader", "writer")]
    assert not left, f"threads that go on: {left}"


def test_reading_labelling_and_writing_overlap():
    """Each stage waits for one that comes later where everything is done in turn."""
    events = {name: threading.Event() for name in ("read 1", "label 0", "label 1", "write 0")}
    late = []

    def meet(mine: str, other: str) -> None:
        events[mine].set()
        if not events[other].wait(SECONDS):
            late.append(f"{mine} has waited for {other} in vain")

    def read():
        for frame in frames_of(range(4)):
            if frame.source == "frame 1":
                meet("read 1", "label 0")
            yield frame

    class Slow(FakeSegmenter):
        def __call__(self, frame: np.ndarray) -> np.ndarray:
            if frame[0, 0, 0] == 0:
                meet("label 0", "read 1")
            if frame[0, 0, 0] == 1:
                meet("label 1", "write 0")
            return super().__call__(frame)

    order = []

    def write(frame: Frame, labels: np.ndarray) -> None:
        order.append((frame.source, int(labels[0, 0])))
        if frame.source == "frame 0":
            meet("write 0", "label 1")

    report = label_frames(Slow(), Source(read()), write)
    assert not late
    assert order == [(f"frame {i}", i) for i in range(4)] and report.labelled == 4


def test_few_frames_wait_where_writing_is_slow():
    """Queues without bounds would read the whole video into memory."""
    began, written_so_far = [], []

    def read():
        for frame in frames_of(range(30)):
            began.append(frame)
            yield frame

    def write(frame: Frame, labels: np.ndarray) -> None:
        time.sleep(0.005)
        written_so_far.append(len(began) - len(written_so_far))

    label_frames(FakeSegmenter(), Source(read()), write)
    assert len(written_so_far) == 30 and max(written_so_far) <= 8, f"{max(written_so_far)} frames were waiting"


def test_faults_of_every_stage_reach_the_caller():
    def broken(frames: list[Frame]):
        yield from frames
        raise OSError("reader")

    def full(frame: Frame, labels: np.ndarray) -> None:
        if frame.source == "frame 1":
            raise OSError("writer")

    done = []
    with pytest.raises(OSError, match="reader"):
        label_frames(FakeSegmenter(), Source(broken(frames_of(range(5)))), lambda frame, _: done.append(frame.source))
    assert done == [f"frame {i}" for i in range(5)], "what was read before the fault is written"
    with pytest.raises(OSError, match="writer"):
        label_frames(FakeSegmenter(), Source(iter(frames_of(range(50)))), full)

    def network(_: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        label_frames(network, Source(iter(frames_of(range(5)))), full)


def test_first_interrupt_asks_and_the_second_ends():
    before = signal.getsignal(signal.SIGINT)
    done, values = [], range(50)

    def read():
        for frame in frames_of(values):
            if frame.source == "frame 10":
                os.kill(os.getpid(), signal.SIGINT)
            yield frame

    with interrupt_once() as stopped:
        report = label_frames(FakeSegmenter(), Source(read()), lambda frame, _: done.append(frame.source), stopped)
        assert report.interrupted and 10 < len(done) < 20, f"{len(done)} frames"
        assert done == [f"frame {i}" for i in range(len(done))]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(SECONDS)
    assert signal.getsignal(signal.SIGINT) is before


def test_report_names_the_stages():
    report = label_frames(FakeSegmenter(), Source(iter(frames_of(range(3)))), lambda *_: None)
    assert set(report.stages) == {"read", "preprocess", "network", "labels", "write"}
    assert report.stages["network"] == pytest.approx(0.006)
    line = describe(report)
    assert line.startswith("3 frames labelled in ") and "frames per second" in line and "network 2.0" in line
    assert describe(Report()) == "0 frames labelled"


@pytest.mark.parametrize("height, width", [(48, 64), (47, 63), (1, 1)])
def test_video_comes_back_frame_by_frame(tmp_path, height, width):
    values = range(20, 240, 20)
    images = [flat(value, height + height % 2, width + width % 2) for value in values]
    video = write_video(tmp_path / "in.mp4", images)
    source = open_source(str(video))
    assert (source.total, source.fps, source.name) == (11, 12.5, "in")
    cut = (Frame(f.source, f.name, np.ascontiguousarray(f.image[:height, :width])) for f in source.frames)
    report = run(Source(cut, source.name, source.fps), tmp_path / "out", ("overlay", "labels"))
    result, fps = read_video(tmp_path / "out/in_overlay.mp4")
    assert fps == 12.5 and len(result) == report.labelled == 11 and not report.failures
    names = [f"in/{i:06d}.png" for i in range(11)]
    assert written(tmp_path / "out") == [*names, "in_overlay.mp4"]
    for name, image, value in zip(names, result, values, strict=True):
        labels = read_label(tmp_path / "out" / name, CLASSES)
        assert labels.shape == (height, width)
        error = np.abs(image[:height, :width].astype(int) - overlay(flat(value, height, width), labels, COLOURS)).max()
        assert error <= 12, f"{name}: the video is {error} off"


@pytest.mark.parametrize("fps", [0.01, 0.5, 15, 29.97, 60])
def test_video_keeps_its_rate(tmp_path, fps):
    video = write_video(tmp_path / "in.mp4", [flat(9)] * 5, fps=fps)
    run(open_source(str(video)), tmp_path)
    images, rate = read_video(tmp_path / "in_overlay.mp4")
    assert len(images) == 5 and abs(rate - fps) < 1e-3, f"{rate} instead of {fps}"


@pytest.mark.parametrize("fps", [14.985014985, 65.4321, 93.35336333, 142.857142857, 239.7602])
def test_rates_that_the_format_cannot_hold_are_rounded(tmp_path, fps):
    run(Source(iter(frames_of(range(4))), "v", fps), tmp_path)
    images, rate = read_video(tmp_path / "v_overlay.mp4")
    assert len(images) == 4 and abs(rate - fps) < 5e-3, f"{rate} instead of {fps}"


def test_an_image_that_cannot_be_written_is_named_and_the_others_are_done():
    def write(frame: Frame, labels: np.ndarray) -> None:
        if frame.source == "frame 1":
            raise UserError("too wide for a JPEG")

    report = label_frames(FakeSegmenter(), Source(iter(frames_of(range(4)))), write)
    assert report.labelled == 4 and report.failures == ["frame 1: too wide for a JPEG"]


def test_save_chooses_what_is_written(tmp_path):
    cv2.imwrite(str(tmp_path / "p.png"), flat(3))
    video = write_video(tmp_path / "v.mp4", [flat(9)] * 2)
    expected = {
        ("p.png", None): ["added_prediction/p.jpg", "pseudo_color_prediction/p.png"],
        ("p.png", ("labels",)): ["pseudo_color_prediction/p.png"],
        ("p.png", ("overlay",)): ["added_prediction/p.jpg"],
        ("v.mp4", None): ["v_overlay.mp4"],
        ("v.mp4", ("labels",)): ["v/000000.png", "v/000001.png"],
    }
    for number, ((name, save), files) in enumerate(expected.items()):
        run(open_source(str(tmp_path / name)), tmp_path / str(number), save)
        assert written(tmp_path / str(number)) == files
    with pytest.raises(UserError, match="unknown output 'label', did you mean 'labels'"):
        run(open_source(str(video)), tmp_path, ("label",))


def test_frames_that_cannot_be_labelled_are_skipped(tmp_path):
    frames = frames_of(range(250, 256))
    frames[2] = Frame("frame 252", frames[2].name, UserError("frame 252: it cannot be decoded"))
    report = run(Source(iter(frames), "v", 10.0), tmp_path)
    assert report.failures == ["frame 252: it cannot be decoded", "frame 255: too white"]
    assert len(read_video(tmp_path / "v_overlay.mp4")[0]) == report.labelled == 4


@pytest.mark.parametrize("kind", ["half_avi", "hole_avi"])
def test_damaged_frames_are_reported(tmp_path, kind):
    report = run(open_source(str(damaged_video(tmp_path, kind))), tmp_path)
    assert 5 < report.labelled < 20
    message = f"v.avi: its header promises 20 frames, {report.labelled} can be decoded"
    assert len(report.failures) == 1 and message in report.failures[0]
    assert len(read_video(tmp_path / "v_overlay.mp4")[0]) == report.labelled


@pytest.mark.parametrize("kind, message", [
    ("half", "cannot open video .*v.mp4: it is cut off, damaged"), ("text", "cannot open video .*8 bytes"),
    ("empty", "v.mp4 is empty"), ("sound", "cannot open video .*without frames"),
])  # fmt: skip
def test_unreadable_videos_are_refused(tmp_path, kind, message):
    with pytest.raises(UserError, match=message):
        open_source(str(damaged_video(tmp_path, kind)))


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="no video at .*no.mp4"):
        open_source(str(tmp_path / "no.mp4"))
    with pytest.raises(UserError, match="cannot open camera:987: there is no such camera"):
        open_source("camera:987")
    with pytest.raises(UserError, match="a camera is given as camera:0"):
        open_source("camera:front")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(UserError, match="no images"):
        open_source(str(tmp_path / "folder.mp4"))


class FakeCapture:
    """What `cv2.VideoCapture` opens: `connections` has what each opening gives; None is an undecodable frame."""

    connections: Iterator[Sequence[np.ndarray | None]]
    rate = 0.0

    def __init__(self, *arguments: object) -> None:
        self.opened = arguments[0]
        self.images = next(self.connections, None)
        self.left = iter(self.images or ())

    def isOpened(self) -> bool:
        return self.images is not None

    def release(self) -> None:
        self.images = None

    def get(self, key: int) -> float:
        return self.rate if key == cv2.CAP_PROP_FPS else 0.0

    def grab(self) -> bool:
        self.image = next(self.left, "the end")
        return not isinstance(self.image, str)

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        return self.image is not None, self.image


@pytest.fixture
def camera(monkeypatch):
    """Replaces every camera by one that gives certain images each time that it is opened."""

    def show(*connections: Sequence[np.ndarray | None], rate: float = 0.0) -> None:
        monkeypatch.setattr(FakeCapture, "connections", iter(connections), raising=False)
        monkeypatch.setattr(FakeCapture, "rate", rate)
        monkeypatch.setattr(sources.cv2, "VideoCapture", FakeCapture)
        monkeypatch.setattr(sources, "_WAITS", (0.001, 0.001))

    return show


def test_camera_ends_after_so_many_frames(camera, tmp_path, monkeypatch):
    camera([flat(7)] * 50)
    source = open_source("camera:1", limit=6)
    assert (source.total, source.fps, source.name) == (6, 25.0, "camera_1")
    monkeypatch.undo()  # the result is read with the real one
    report = run(source, tmp_path)
    assert report.labelled == 6 and not report.failures
    assert len(read_video(tmp_path / "camera_1_overlay.mp4")[0]) == 6


@pytest.mark.parametrize("name", ["0", "camera:0", "/dev/video0"])
def test_a_camera_is_named_by_its_number(camera, name):
    camera([flat(1)])
    source = open_source(name, limit=1)
    assert source.name == "camera_0" and next(source.frames).source == "camera:0, frame 0"


def test_a_folder_whose_name_is_a_number_is_a_folder(camera, tmp_path, monkeypatch):
    camera([flat(1)])
    (tmp_path / "0").mkdir()
    cv2.imwrite(str(tmp_path / "0/p.png"), flat(3))
    monkeypatch.chdir(tmp_path)
    assert [str(frame.name) for frame in open_source("0").frames] == ["p"]
    assert open_source("camera:0").name == "camera_0"


@pytest.mark.parametrize("rate", [0.0, math.nan, math.inf, -25.0, 1e-9, 1000.0, 90000.0])
def test_an_absurd_frame_rate_is_replaced(camera, tmp_path, monkeypatch, rate):
    camera([flat(1)] * 3, rate=rate)
    source = open_source("0", limit=3)
    monkeypatch.undo()
    run(source, tmp_path)
    images, written_rate = read_video(tmp_path / "camera_0_overlay.mp4")
    assert (len(images), written_rate) == (3, 25.0)


def test_cameras_that_fail_keep_what_they_gave(camera):
    camera([flat(1), None, flat(2)])
    report = label_frames(FakeSegmenter(), open_source("camera:0"), lambda *_: None)
    failures = ["camera:0, frame 1: it cannot be decoded", "it stopped after 3 frames and could not be opened again"]
    assert report.labelled == 2 and len(report.failures) == len(failures)
    assert all(part in line for part, line in zip(failures, report.failures, strict=True)), report.failures


@pytest.mark.parametrize("suffix, code", [(".mkv", "MJPG"), (".ts", "mpg2")])
def test_frames_of_another_size_get_that_of_the_first(tmp_path, caplog, suffix, code):
    """As in recordings of a stream whose sender changes the resolution."""
    images = [flat(100), flat(120)] * 4
    parts = [images, [cv2.resize(image, (96, 80)) for image in images]]
    files = [write_video(tmp_path / f"{number}{suffix}", part, code) for number, part in enumerate(parts)]
    video = tmp_path / f"all{suffix}"
    video.write_bytes(b"".join(file.read_bytes() for file in files))
    caplog.set_level(logging.WARNING, logger="paddle_rt")
    report = run(open_source(str(video)), tmp_path)
    assert not report.failures and report.labelled >= 14, "FFmpeg may keep back the last frame of each part"
    (line,) = caplog.messages
    assert re.search(r"frame [78] is 96x80, those before are 64x48; all get the size of the first one", line), line
    frames = read_video(tmp_path / "all_overlay.mp4")[0]
    assert len(frames) == report.labelled and frames[-1].shape == (48, 64, 3)


def test_a_camera_that_stops_is_opened_again_a_few_times(camera, caplog):
    caplog.set_level(logging.WARNING, logger="paddle_rt")
    camera(*[[flat(1), flat(2)]] * 9)
    frames = list(open_source("0").frames)
    assert [frame.continues for frame in frames[:-1]] == [False, True] * 3, "3 connections: the first and 2 more"
    assert [str(frame.name) for frame in frames] == [f"{i:06d}" for i in range(7)]
    assert "it stopped after 6 frames and could not be opened again" in str(frames[-1].image)
    assert [record.getMessage() for record in caplog.records] == ["camera:0 stopped; it is opened again in 0.001 s"] * 2


def test_a_camera_is_not_opened_again_after_an_interrupt(camera, monkeypatch):
    camera(*[[flat(1)]] * 9)
    monkeypatch.setattr(sources, "_WAITS", (3600,))
    frames = list(open_source("0", stopped=lambda: True).frames)
    assert len(frames) == 2


def test_no_frame_at_all_is_refused(camera, tmp_path):
    camera([None, None])
    with pytest.raises(UserError, match="camera:0 gives no frame that can be decoded"):
        run(open_source("camera:0"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_videos_appear_whole_or_not_at_all(tmp_path):
    def broken():
        yield from frames_of(range(5))
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        run(Source(broken(), "v", 10.0), tmp_path)
    assert written(tmp_path) == []
    run(Source(iter(()), "v", 10.0), tmp_path)
    assert written(tmp_path) == []
    with pytest.raises(UserError, match="cannot write video .*v_overlay.mp4 of 20000x2; --save labels"):
        run(Source(iter([Frame("f", pathlib.Path("f"), flat(1, 2, 20000))]), "v", 10.0), tmp_path)
    assert written(tmp_path) == []


def test_views_are_written_for_images_and_heat_maps_for_videos_too(tmp_path):
    confidence = np.full((48, 64), 0.5, np.float32)
    view = View(VIEW.names, COLOURS, legend=True, confidence=True, polygons=["labelme"])
    images = Source(iter([]), total=1)
    frame = Frame(str(tmp_path / "in/a.png"), pathlib.Path("a"), flat(1))
    with open_outputs(images, tmp_path / "out", None, view) as write:
        write(frame, Labels(np.ones((48, 64), np.uint8), confidence))
    assert written(tmp_path / "out") == [
        "added_prediction/a.jpg", "confidence/a.png", "labelme/a.json", "pseudo_color_prediction/a.png",
    ]  # fmt: skip
    video = Source(iter([]), "drive", 25.0)
    with pytest.raises(UserError, match="polygons belong to images, but the source is a video"):
        open_outputs(video, tmp_path / "video", None, view).__enter__()
    with open_outputs(video, tmp_path / "video", None, View(VIEW.names, COLOURS, legend=True)) as write:
        for value in (1, 2):
            write(
                Frame("drive", pathlib.Path(f"{value:06d}"), flat(value)),
                Labels(np.full((48, 64), value, np.uint8), confidence),
            )
    assert written(tmp_path / "video") == [f"drive_confidence/00000{i}.png" for i in (1, 2)] + ["drive_overlay.mp4"]
    widths = {image.shape[1] for image in read_video(tmp_path / "video/drive_overlay.mp4")[0]}
    assert len(widths) == 1 and widths.pop() > 64
