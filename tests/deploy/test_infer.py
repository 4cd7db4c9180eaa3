"""deploy/python/infer.py: images, videos and cameras, damage, and Ctrl-C."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from paddle_rt.cli import benchmark_video
from paddle_rt.export.publish import export
from paddle_rt.imaging.labels import read_label
from paddle_rt.imaging.read_write import read_image
from paddle_rt.inference import Segmenter
from paddle_rt.models.rtformer import RTFormer
from paddle_rt.tasks.segmentation.export import SegmentationExport
from tests.helpers import NORMALIZE, ROOT, TINY, damaged_video, randomize, read_video, run_python, write_video, written

CLASSES = 5


def flat(value: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    net = RTFormer(num_classes=CLASSES, **TINY)
    randomize(net)
    net.eval()
    folder = tmp_path_factory.mktemp("export") / "e"
    export(net, folder, SegmentationExport([NORMALIZE]), [1, 3, 64, 96], "coarse", ["onnx"])
    return folder


def command(exported: pathlib.Path, path: object, save_dir: pathlib.Path, *more: object) -> list[str]:
    line = [sys.executable, ROOT / "deploy/python/infer.py", "--config", exported, "--image_path", path]
    return [*map(str, line), "--save_dir", str(save_dir), "--backend", "openvino", "--threads", "1", *map(str, more)]


def infer(*arguments: object) -> subprocess.CompletedProcess:
    return run_python(*command(*arguments)[1:])


def test_folder_with_a_corrupt_picture(exported, tmp_path):
    rng, folder = np.random.default_rng(0), tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png", "c.jpg"):
        cv2.imwrite(str(folder / name), rng.integers(0, 255, (40, 60, 3), np.uint8))
    (folder / "b.png").write_bytes(b"no picture")
    done = infer(exported, folder, tmp_path / "out")
    assert done.returncode == 1 and done.stderr.startswith("error: not labelled: ") and done.stderr.count("\n") == 1
    assert "b.png: it is damaged" in done.stderr and "3 frames labelled" in done.stdout
    names = ("a", "c", "sub/b")
    assert written(tmp_path / "out") == [
        *(f"added_prediction/{n}.jpg" for n in names), *(f"pseudo_color_prediction/{n}.png" for n in names)
    ]  # fmt: skip
    segment = Segmenter(exported, "onnxruntime", threads=1)
    for name, file in (("a", "a.png"), ("sub/b", "sub/b.png"), ("c", "c.jpg")):
        labels = read_label(tmp_path / f"out/pseudo_color_prediction/{name}.png", CLASSES)
        np.testing.assert_array_equal(labels, segment(read_image(folder / file)), err_msg=name)


def test_video_on_the_command_line(exported, tmp_path):
    images = [np.random.default_rng(i).integers(0, 255, (48, 64, 3), np.uint8) for i in range(9)]
    video = write_video(tmp_path / "in.mp4", images)
    done = infer(exported, video, tmp_path / "out", "--save", "labels", "overlay", "--frames", 7)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "7 frames labelled" in done.stdout and "frames per second" in done.stdout and "network" in done.stdout
    assert len(read_video(tmp_path / "out/in_overlay.mp4")[0]) == 7
    segment = Segmenter(exported, "onnxruntime", threads=1)
    for index, image in enumerate(read_video(video)[0][:7]):
        labels = read_label(tmp_path / f"out/in/{index:06d}.png", CLASSES)
        np.testing.assert_array_equal(labels, segment(image), err_msg=f"frame {index}")


@pytest.mark.parametrize("path, message", [
    ("half", "cannot open video"), ("camera:987", "cannot open camera:987"), ("empty", "is empty"),
])  # fmt: skip
def test_refusals_take_one_line(exported, tmp_path, path, message):
    """OpenCV and FFmpeg keep what they think to themselves."""
    path = path if ":" in path else damaged_video(tmp_path, path)
    done = infer(exported, path, tmp_path / "out")
    assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr and not (tmp_path / "out").exists()


def test_ctrl_c_loses_nothing(exported, tmp_path):
    total = 3000
    video = write_video(tmp_path / "in.mp4", [flat(i % 250) for i in range(total)])
    line = command(exported, video, tmp_path / "out", "--save", "labels", "overlay")
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        end = time.monotonic() + 120
        while process.poll() is None and not (tmp_path / "out/in/000005.png").exists() and time.monotonic() < end:
            time.sleep(0.01)
        assert process.poll() is None, process.communicate()
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err and err.endswith("interrupted: what was saved before is whole\n")
    pictures = [name for name in written(tmp_path / "out") if name.endswith(".png")]
    count = len(pictures)
    assert 6 <= count < total and pictures == [f"in/{i:06d}.png" for i in range(count)]
    assert written(tmp_path / "out") == [*pictures, "in_overlay.mp4"], "no temporary file is left"
    assert len(read_video(tmp_path / "out/in_overlay.mp4")[0]) == count
    assert f"{count} frames labelled" in out


def test_videos_are_timed_beside_the_network(exported, tmp_path, monkeypatch, capsys):
    output = tmp_path / "rows.json"
    monkeypatch.setattr(benchmark_video, "SIZES", ((48, 64), (70, 96)))
    line = ["--config", exported, "--threads", 1, "--frames", 3, "--runs", 1, "--output", output]
    monkeypatch.setattr(sys, "argv", ["benchmark_video", *map(str, line)])
    benchmark_video.main()
    rows = json.loads(output.read_text())
    assert [row["video"] for row in rows] == ["64x48", "96x70"] and f"rows in {output}" in capsys.readouterr().out
    assert all(row["fps"] > 0 and row["share"] == pytest.approx(row["fps"] / row["network_fps"]) for row in rows)
