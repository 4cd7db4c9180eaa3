"""deploy/cpp: its labels are those of Segmenter, and it refuses bad input. Skipped where it cannot be built."""

import fcntl
import functools
import json
import pathlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
import yaml

from paddle_rt.export.publish import export
from paddle_rt.imaging import overlay, palette, read_image, read_label
from paddle_rt.inference import Segmenter
from paddle_rt.inference.deployment import _KEYS as KEYS
from paddle_rt.models.rtformer import RTFormer
from paddle_rt.streetscenes.scenes import make_scene, render
from paddle_rt.tasks.segmentation.export import SegmentationExport
from tests.bad_inputs import NO_PLAIN_FILE, PYTHON_TAGS, alias_bomb, cut_off_jpeg
from tests.helpers import (
    NORMALIZE,
    ROOT,
    TINY,
    damaged_video,
    randomize,
    read_video,
    smooth_image,
    write_video,
    written,
)

pytestmark = pytest.mark.slow

CLASSES = 19
FOLDER = ROOT / "output/cpp"
HEADERS = ("opencv2/imgcodecs.hpp", "opencv2/videoio.hpp", "yaml-cpp/yaml.h", "openssl/evp.h", "zlib.h")
SIZES = ((64, 96), (97, 131), (41, 203), (333, 211))  # of frames
STEPS = {
    "none": [],
    "resize": [{"type": "Resize", "target_size": [160, 96]}],
    "keep_ratio": [{"type": "Resize", "target_size": [160, 96], "keep_ratio": True, "size_divisor": 32}],
    "padding": [{"type": "ResizeByLong", "long_size": 150}, {"type": "Padding", "target_size": [170, 180]}],
    "short": [{"type": "ResizeByShort", "short_size": 70, "max_size": 200}],
    "cubic": [{"type": "Resize", "target_size": [160, 96], "interp": "CUBIC"}],
    "area": [{"type": "ResizeImage", "size": [100, 70], "interpolation": "area"}],
}
OUTPUTS = {"coarse": [1, 3, None, None], "labels": [1, 3, 64, 96], "argmax": [2, 3, 64, 96], "softmax": [1, 3, 64, 96]}


@pytest.fixture(scope="module")
def program() -> pathlib.Path:
    """Build the program, or find it as `make cpp` has built it."""
    openvino = pytest.importorskip("openvino", reason="the package openvino is not installed")
    for tool in ("g++", "cmake"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    tests = "".join(f'#if !__has_include(<{name}>)\n#error "no {name}"\n#endif\n' for name in HEADERS)
    line = ["g++", "-E", "-x", "c++", "-I", "/usr/include/opencv4", "-"]
    lost = re.findall('"no (.*)"', subprocess.run(line, input=tests, capture_output=True, text=True).stderr)
    if lost:
        pytest.skip(
            f"headers that deploy/cpp/README.md says how to install are missing: {', '.join(sorted(set(lost)))}"
        )
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several test processes, one builds
        source = ["-S", ROOT / "deploy/cpp", "-B", FOLDER, f"-DOpenVINO_DIR={openvino.__path__[0]}/cmake"]
        for command in (["cmake", *source], ["cmake", "--build", FOLDER]):
            done = subprocess.run([*map(str, command)], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return FOLDER / "paddle_rt_infer"


def make_export(folder: pathlib.Path, op: str, classes: int = CLASSES, dataset: str = "StreetScenes") -> pathlib.Path:
    net = RTFormer(num_classes=classes, **TINY)
    randomize(net)
    net.eval()
    export(net, folder, SegmentationExport([NORMALIZE], dataset), OUTPUTS[op], op, ["onnx"])
    return folder


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], pathlib.Path]:
    folder = tmp_path_factory.mktemp("exports")
    return functools.cache(lambda op: make_export(folder / op, op))


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("frames")
    (folder / "sub").mkdir()
    for index, size in enumerate(SIZES):
        cv2.imwrite(str(folder / f"{index}.png"), render(make_scene(index), *size)[0])
    cv2.imwrite(str(folder / "sub/noise.png"), np.random.default_rng(0).integers(0, 255, (70, 99, 3), np.uint8))
    cv2.imwrite(str(folder / "sub/0.jpg"), smooth_image(90, 121))
    return folder


def run(program: pathlib.Path, *arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True, timeout=120)


def infer(
    program: pathlib.Path, exported: pathlib.Path, path: pathlib.Path, save_dir: pathlib.Path, *more: object
) -> str:
    done = run(program, "--config", exported, "--image_path", path, "--save_dir", save_dir, *more)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


def changed(exported: pathlib.Path, folder: pathlib.Path, **values: object) -> pathlib.Path:
    """Copy an export, with other values in deploy.yaml; None removes one."""
    shutil.copytree(exported, folder)
    content = yaml.safe_load((folder / "deploy.yaml").read_text())["Deploy"]
    content = {key: value for key, value in {**content, **values}.items() if value is not None}
    (folder / "deploy.yaml").write_text(yaml.safe_dump({"Deploy": content}))
    return folder


@pytest.fixture
def without_ipp() -> Iterator[None]:
    """Let pip's OpenCV resize as Debian's does; the results of Intel's closed code differ for cubic and area."""
    before = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)
    yield
    cv2.ipp.setUseIPP(before)


@pytest.mark.parametrize("op, steps", [*(("coarse", steps) for steps in STEPS), *(
    (op, steps) for op in ("labels", "argmax", "softmax") for steps in ("none", "padding")
), ("argmax", "area")])  # fmt: skip
def test_labels_are_those_of_segmenter(program, exports, frames, tmp_path, without_ipp, op, steps):
    exported = changed(exports(op), tmp_path / "e", transforms=[*STEPS[steps], NORMALIZE])
    out = infer(program, exported, frames, tmp_path / "out", "--threads", 1, "--save", "labels")
    assert out.startswith(f"{len(SIZES) + 2} frames labelled in ") and "frames per second" in out
    segment, names = Segmenter(exported, threads=1), [*map(str, range(len(SIZES))), "sub/noise", "sub/0"]
    assert written(tmp_path / "out") == sorted(f"pseudo_color_prediction/{name}.png" for name in names)
    for name in names:
        image = read_image(frames / f"{name}.{'jpg' if name == 'sub/0' else 'png'}")
        labels, expected = read_label(tmp_path / f"out/pseudo_color_prediction/{name}.png", CLASSES), segment(image)
        assert len(np.unique(expected)) > 2, "the labels of one class would show nothing"
        assert labels.shape == expected.shape and (labels != expected).sum() == 0, name


def test_large_frames_and_threads(program, exports, tmp_path):
    for number, size in enumerate(((512, 1024), (601, 777))):
        cv2.imwrite(str(tmp_path / f"{number}.png"), smooth_image(*size, cell=16))
    infer(program, exports("coarse"), tmp_path, tmp_path / "out", "--threads", 2)
    segment = Segmenter(exports("coarse"), threads=2)
    for number in range(2):
        labels = read_label(tmp_path / f"out/pseudo_color_prediction/{number}.png", CLASSES)
        np.testing.assert_array_equal(labels, segment(read_image(tmp_path / f"{number}.png")))


def test_images_have_the_format_of_infer_py(program, exports, frames, tmp_path):
    infer(program, exports("coarse"), frames / "1.png", tmp_path / "out")
    image, segment = read_image(frames / "1.png"), Segmenter(exports("coarse"), threads=1)
    drawn = overlay(image, segment(image), palette("StreetScenes", CLASSES))
    expected = cv2.imdecode(cv2.imencode(".jpg", drawn)[1], cv2.IMREAD_COLOR)
    assert written(tmp_path / "out") == ["added_prediction/1.jpg", "pseudo_color_prediction/1.png"]
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "out/added_prediction/1.jpg")), expected)


@pytest.mark.parametrize("dataset, classes", [("CamVid", 11), ("ADE20K", 150), ("Cityscapes", 19), ("CamVid", 19)])
def test_colours(program, exports, frames, tmp_path, dataset, classes):
    """A PNG has the colours of palettes.py, black from their end on."""
    if classes == CLASSES:
        exported = changed(exports("labels"), tmp_path / "e", dataset_type=dataset)
    else:
        exported = make_export(tmp_path / "e", "labels", classes, dataset)
    check_colours(program, exported, frames, tmp_path, palette(dataset, classes))


def test_colours_of_the_config(program, exports, frames, tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (CLASSES, 3))
    exported = changed(exports("labels"), tmp_path / "e", colors=colours.tolist())
    check_colours(program, exported, frames, tmp_path, colours)


def check_colours(program, exported, frames, tmp_path, expected) -> None:
    infer(program, exported, frames / "0.png", tmp_path / "out", "--save", "labels")
    data = (tmp_path / "out/pseudo_color_prediction/0.png").read_bytes()
    table = np.frombuffer(data, np.uint8, 768, data.index(b"PLTE") + 4).reshape(256, 3)
    np.testing.assert_array_equal(table[: len(expected)], expected)
    assert not table[len(expected) :].any()


def test_video(program, exports, tmp_path):
    images = [smooth_image(48, 64, index) for index in range(9)]
    video = write_video(tmp_path / "in.avi", images, "MPNG")  # PNGs, which every decoder gives the same colours
    out = infer(program, exports("coarse"), video, tmp_path / "out", "--save", "labels", "overlay", "--frames", 7)
    assert out.startswith("7 frames labelled in ")
    assert written(tmp_path / "out") == [*(f"in/{index:06d}.png" for index in range(7)), "in_overlay.mp4"]
    frames, rate = read_video(tmp_path / "out/in_overlay.mp4")
    assert len(frames) == 7 and frames[0].shape == (48, 64, 3) and rate == 12.5
    segment = Segmenter(exports("coarse"), threads=1)
    for index, image in enumerate(read_video(video)[0][:7]):
        labels = read_label(tmp_path / f"out/in/{index:06d}.png", CLASSES)
        np.testing.assert_array_equal(labels, segment(image), err_msg=f"frame {index}")


def test_a_damaged_image_of_a_folder_is_named(program, exports, frames, tmp_path):
    shutil.copytree(frames, tmp_path / "in")
    cut_off_jpeg(tmp_path / "in/cut.jpg")
    whole = bytearray((frames / "0.png").read_bytes())
    whole[len(whole) // 2] ^= 1
    (tmp_path / "in/bit.png").write_bytes(whole)
    (tmp_path / "in/text.bmp").write_bytes(b"no image")
    cv2.imwrite(str(tmp_path / "in/deep.tif"), np.zeros((40, 40, 3), np.uint16))
    done = run(program, "--config", exports("coarse"), "--image_path", tmp_path / "in", "--save_dir", tmp_path / "out")
    assert done.returncode == 1 and done.stderr.startswith("error: not labelled: ") and done.stderr.count("\n") == 1
    assert "6 frames labelled" in done.stdout and len(written(tmp_path / "out")) == 12
    for reason in (
        "cut.jpg: it is damaged",
        "bit.png: it is damaged",
        "text.bmp: it is damaged",
        "deep.tif has 16 bits",
    ):
        assert reason in done.stderr, done.stderr


def test_the_program_knows_every_key_of_deploy_yaml():
    source = (ROOT / "deploy/cpp/deployment.cpp").read_text()
    known = set(re.findall(r'"(\w+)"', source[source.index("kKeys = ") : source.index("kGraphs = ")]))
    assert set(KEYS) <= known


def deploy_yaml(text: str):
    return lambda folder: (folder / "deploy.yaml").write_text(text)


def values(**new: object):
    def change(folder: pathlib.Path) -> None:
        content = yaml.safe_load((folder / "deploy.yaml").read_text())
        content["Deploy"].update(new)
        deploy_yaml(yaml.safe_dump(content))(folder)

    return change


def fact(key: str, value: object):
    def change(folder: pathlib.Path) -> None:
        report = json.loads((folder / "verification.json").read_text())
        (folder / "verification.json").write_text(json.dumps({**report, key: value}))

    return change


def transform(**step: object):
    return values(transforms=[step, NORMALIZE])


BAD_EXPORTS = {
    "no graph": (lambda folder: (folder / "model.onnx").unlink(), "no file of the export at .*model.onnx"),
    "other graph": (lambda folder: (folder / "model.onnx").open("ab").write(b"0"), "is not the graph"),
    "outside": (values(onnx="../model.onnx"), "leads out of the folder"),
    "no report": (lambda folder: (folder / "verification.json").unlink(), "no verification.json"),
    "empty": (deploy_yaml(""), "is empty"),
    "no mapping": (deploy_yaml("[]"), "key 'Deploy'"),
    "no yaml": (deploy_yaml("a: [b"), "is not valid YAML, line 1"),
    "bomb": (deploy_yaml(alias_bomb()), "key 'Deploy'"),
    "tag": (deploy_yaml(f"Deploy: {PYTHON_TAGS['function']}\n"), "key 'Deploy'"),
    "large": (deploy_yaml("#" * (1 << 19)), "expected at most"),
    "unknown key": (values(colour=1), "unknown key 'colour' in Deploy"),
    "key twice": (deploy_yaml("Deploy: {onnx: a, onnx: b}"), "'onnx' occurs twice"),
    "key lost": (deploy_yaml("Deploy: {onnx: model.onnx}"), "'transforms' is missing"),
    "pose": (values(task="pose"), "for the task 'pose'"),
    "state": (values(state_shape=[1, 2, 3, 4]), "model for video"),
    "shape": (values(input_shape=[1, 3, "x", 0]), "input_shape must be a whole number"),
    "channels": (values(input_shape=[1, 4, 64, 96]), "4 channels"),
    "colours": (values(colors=[[0, 0, 256]] * CLASSES), "colors must be"),
    "names": (values(num_classes=18), "class_names must be a list of num_classes = 18"),
    "output": (values(output_op="mask"), "output_op must be one of"),
    "dtype": (values(input_dtype="float32"), "does not fit output_op"),
    "mean": (values(transforms=[{**NORMALIZE, "mean": [0.5]}]), "was verified with"),
    "corners": (values(align_corners=True), "align_corners true, but the graph was verified with"),
    "fact": (fact("target", "gpu"), "was verified with gpu"),
    "transform": (transform(type="Rotate"), "unknown transform 'Rotate'"),
    "crop": (transform(type="CropImage", size=8), "unknown transform 'CropImage'"),
    "argument": (transform(type="Resize", target=[8, 8]), "unknown key 'target' in transform Resize"),
    "size": (transform(type="Resize", target_size=[8, 0]), "target_size of transform Resize"),
    "text": (transform(type="Resize", target_size=["8", 8]), "target_size of transform Resize"),
    "interp": (transform(type="Resize", interp="SINC"), "interp of transform Resize"),
    "std": (values(transforms=[{"type": "Normalize", "std": [0]}]), "must not hold 0"),
    "after normalize": (values(transforms=[NORMALIZE, {"type": "Resize"}]), "normalises last"),
    "padding": (transform(type="Padding", target_size=[8, 8]), "Padding to 8x8: the image is larger, 96x64"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_EXPORTS)
def test_bad_exports(program, exports, frames, tmp_path, case):
    change, message = BAD_EXPORTS[case]
    shutil.copytree(exports("coarse"), tmp_path / "e")
    change(tmp_path / "e")
    done = run(program, "--config", tmp_path / "e", "--image_path", frames / "0.png", "--save_dir", tmp_path / "out")
    assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", NO_PLAIN_FILE)
def test_no_plain_files(program, exports, frames, tmp_path, kind):
    if kind in ("folder", "file_of_proc"):
        pytest.skip("a folder is taken as such, and a file of /proc is empty to the program")
    NO_PLAIN_FILE[kind](tmp_path / "x.png")
    NO_PLAIN_FILE[kind](tmp_path / "x.mp4")
    good = {"--config": exports("coarse"), "--image_path": frames / "0.png", "--save_dir": tmp_path / "out"}
    for bad in (
        {"--config": tmp_path / "x.png"},
        {"--image_path": tmp_path / "x.png"},
        {"--image_path": tmp_path / "x.mp4"},
    ):
        done = run(program, *(word for pair in {**good, **bad}.items() for word in pair))
        assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind, message", [
    ("half", "cannot open video"), ("empty", "is empty"), ("text", "cannot open video"), ("sound", "cannot open video"),
])  # fmt: skip
def test_damaged_videos(program, exports, tmp_path, kind, message):
    video = damaged_video(tmp_path, kind)
    done = run(program, "--config", exports("coarse"), "--image_path", video, "--save_dir", tmp_path / "out")
    assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr and not (tmp_path / "out").exists()


def test_flags(program, exports, frames, tmp_path):
    good = ["--config", exports("coarse"), "--image_path", frames / "0.png", "--save_dir", tmp_path / "out"]
    cases = {
        "unknown flag '--colour'": ["--colour", 1],
        "--threads must be": ["--threads", 0],
        "--frames takes a value": ["--frames"],
        "--precision must be": ["--precision", "fp8"],
        "--save takes labels and overlay": ["--save", "video"],
        "--config is given twice": ["--config", "b"],
    }
    for message, bad in cases.items():
        done = run(program, *good, *bad)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
        assert message in done.stderr
    done = run(program, *good, "--precision", "int8")
    assert done.returncode == 1 and "it has no int8 graph; make one with tools/quantize.py" in done.stderr
    assert run(program, "--help").stdout.startswith("usage: paddle_rt_infer") and not (tmp_path / "out").exists()


def test_ctrl_c_leaves_a_whole_video(program, exports, tmp_path):
    video = write_video(tmp_path / "in.avi", [smooth_image(48, 64, 1)] * 3000, "MJPG")
    line = [program, "--config", exports("coarse"), "--image_path", video, "--save_dir", tmp_path / "out", "--save"]
    process = subprocess.Popen(
        [*map(str, line), "labels", "overlay"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        end = time.monotonic() + 60
        while process.poll() is None and not (tmp_path / "out/in/000005.png").exists() and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    count = len(written(tmp_path / "out")) - 1
    assert process.returncode == 130 and err == "interrupted: what was saved before is whole\n", err
    assert 6 <= count < 3000 and out.startswith(f"{count} frames labelled")
    assert len(read_video(tmp_path / "out/in_overlay.mp4")[0]) == count
