"""What several test files share. Importing this module does not import Paddle."""

import faulthandler
import logging
import os
import pathlib
import re
import runpy
import signal
import subprocess
import sys
import wave
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"  # data that only some machines have; tests that need it skip elsewhere
TINY = dict(base_channels=8, head_channels=8, spp_channels=8, num_heads=2, cross_size=3)  # arguments of RTFormer
NORMALIZE = {"type": "Normalize", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
NORMALIZE_HALF = {"type": "Normalize", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
SECONDS = 120  # what a tool that runs within the test process may take

# Operators marked "Y" in TensorRT 10's list, less those that no segmentation network needs (control flow, recurrence,
# random numbers, windows, trigonometry). Source: https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md
TENSORRT_OPERATORS = set(
    """Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv
    ConvTranspose CumSum DepthToSpace DequantizeLinear Div Einsum Elu Equal Erf Exp Expand Flatten Floor Gather
    GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample
    GroupNormalization HardSigmoid HardSwish InstanceNormalization LayerNormalization LeakyRelu Less LessOrEqual Log
    LogSoftmax MatMul Max MaxPool Mean Min Mod Mul Neg NonZero Not OneHot Or PRelu Pad Pow QuantizeLinear Range
    Reciprocal ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape
    Resize Round ScatterElements ScatterND Selu Shape Sigmoid Sign Size Slice Softmax Softplus SpaceToDepth Split Sqrt
    Squeeze Sub Sum Tanh Tile TopK Transpose Unsqueeze Where""".split()
)


def relative_error(result: np.ndarray, reference: np.ndarray) -> float:
    """Return ||result - reference|| / ||reference||, computed in float64."""
    result, reference = np.asarray(result, np.float64), np.asarray(reference, np.float64)
    return float(np.linalg.norm(result - reference) / max(np.linalg.norm(reference), 1e-30))


def randomize(model, seed: int = 0) -> None:
    """Give every parameter and BatchNorm statistic a value that matters, small enough for attention to stay soft."""
    rng = np.random.default_rng(seed)
    for name, value in model.state_dict().items():
        shape = value.shape
        if name.endswith("_variance"):
            new = rng.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            new = 0.1 * rng.standard_normal(shape) + (1.0 if name.endswith("weight") else 0.0)
        else:
            new = rng.standard_normal(shape) * (1.0 / np.prod(shape[1:])) ** 0.5
        value.set_value(new.astype(value.numpy().dtype))


def smooth_image(height: int, width: int, seed: int = 0, cell: int = 4) -> np.ndarray:
    """Return smooth random colours, uint8 [height, width, 3]; `cell` is how far apart the random values lie."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // cell + 2, width // cell + 2, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def tiny_config(folder: pathlib.Path, **changes: object) -> str:
    """Write the config of a tiny RTFormer on tiny street scenes and return its path.

    Args:
        folder: Where config.yml is written.
        changes: Top-level keys to replace or to add.
    """
    scenes = {"type": "StreetScenes", "num_samples": 8, "height": 64, "width": 128}
    flip = {"type": "RandomHorizontalFlip"}
    content = {
        "batch_size": 4,
        "iters": 5,
        "train_dataset": {**scenes, "mode": "train", "transforms": [flip, NORMALIZE_HALF]},
        "val_dataset": {**scenes, "mode": "val", "transforms": [NORMALIZE_HALF]},
        "optimizer": {"type": "AdamW", "weight_decay": 0.0125},
        "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 1e-3, "end_lr": 0, "power": 1.0},
        "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1, 0.4]},
        "model": {**TINY, "drop_path_rate": 0.0, "type": "RTFormer"},
        **changes,
    }
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def write_video(path: pathlib.Path, images: list[np.ndarray], code: str = "mp4v", fps: float = 12.5) -> pathlib.Path:
    """Write a video and return its path."""
    size = images[0].shape[1::-1]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*code), fps, size)
    assert writer.isOpened(), f"OpenCV writes no {code}"
    for image in images:
        writer.write(image)
    writer.release()
    return path


def read_video(path: pathlib.Path) -> tuple[list[np.ndarray], float]:
    """Return the frames of a video and its frame rate."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    images = []
    while (result := capture.read())[0]:
        images.append(result[1])
    return images, capture.get(cv2.CAP_PROP_FPS)


def damaged_video(folder: pathlib.Path, kind: str) -> pathlib.Path:
    """Write a video that is "half" of an MP4, "half_avi", "hole_avi", "empty", "text" or "sound"; return its path."""
    noise = np.random.default_rng(0)
    images = [noise.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(20)]
    name, code = ("v.avi", "MJPG") if kind.endswith("avi") else ("v.mp4", "mp4v")
    path = write_video(folder / name, images, code)
    data = bytearray(path.read_bytes())
    if kind == "hole_avi":
        data[len(data) // 2 : len(data) * 6 // 10] = bytes(len(data) * 6 // 10 - len(data) // 2)
    if kind == "sound":
        with wave.open(str(path), "wb") as sound:
            sound.setparams((1, 2, 8000, 0, "NONE", ""))
            sound.writeframes(bytes(8000))
        return path
    path.write_bytes({"empty": b"", "text": b"no video"}.get(kind, data[: None if "hole" in kind else len(data) // 2]))
    return path


def written(folder: pathlib.Path) -> list[str]:
    """Return the relative names of all files below a folder, sorted."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def message(call: Callable, *args: object, **kwargs: object) -> str:
    """Return what the UserError says that a call raises."""
    from paddle_rt.errors import UserError

    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    return f"{caught.value}\n{caught.value.details}".strip()


def camvid_dataset(folder: pathlib.Path, highest: int = 10, sizes: tuple = ((32, 64),)) -> dict:
    """Write four training images in the layout of CamVid and return the section of a config for them."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for i in range(4):
        height, width = sizes[i % len(sizes)]
        cv2.imwrite(str(folder / f"images/{i}.png"), rng.integers(0, 255, (height, width, 3), np.uint8))
        labels = np.full((height, width), highest if i == 2 else 0, np.uint8)
        cv2.imwrite(str(folder / f"labels/{i}.png"), labels)
    for name in ("train", "val"):
        (folder / f"{name}.txt").write_text("".join(f"images/{i}.png labels/{i}.png\n" for i in range(4)))
    return {"type": "CamVid", "dataset_root": str(folder), "mode": "train", "transforms": [{"type": "Normalize"}]}


def refused(result: tuple[int, str, str], expected: str, code: int = 1) -> None:
    """Assert that a tool, called by the fixture `call`, ended with one line on stderr."""
    got, _, err = result
    assert got == code, err
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert re.search(expected, err), err


def run_python(*command: object, cwd: pathlib.Path = ROOT, **environment: str | None) -> subprocess.CompletedProcess:
    """Run Python in a process of its own.

    Args:
        command: What follows `python` on the command line.
        cwd: The process's working directory.
        environment: Variables to set in addition to those of this process; None removes one.
    """
    line = [sys.executable, *map(str, command)]
    variables = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
    return subprocess.run(line, cwd=cwd, env=variables, capture_output=True, text=True, timeout=600)


def call_tool(tool: str, *arguments: object) -> int:
    """Run a tool's file within this process, which saves importing Paddle anew, and return its exit code.

    A tool that hangs fails its test; one that hangs in C++, where no alarm is heard, ends all tests.
    """

    def stop(*_: object) -> None:
        pytest.fail(f"still running after {SECONDS} seconds: {' '.join(sys.argv)}")

    logger = logging.getLogger("paddle_rt")  # the tool sets it up; pytest looks for messages where it was before
    logging_before = logger.handlers, logger.propagate, logger.level
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    faulthandler.dump_traceback_later(SECONDS + 10, exit=True, file=sys.__stderr__)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [tool, *map(str, arguments)])
            folder = "deploy/python" if tool == "infer" else "tools"
            runpy.run_path(str(ROOT / folder / f"{tool}.py"), run_name="__main__")
        return 0
    except SystemExit as end:
        return end.code
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        logger.handlers, logger.propagate, logger.level = logging_before


def launch_two_processes(log_dir: pathlib.Path, *command: object) -> None:
    """Run a command in two processes with gloo and assert that it succeeds.

    Gloo connects before its other side listens, now and then, when Paddle sets up its groups ("Connection refused");
    such a launch, and no other failure, is tried again.
    """
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node=2", "--backend", "gloo", "--log_dir"]
    for attempt in range(3):
        folder = log_dir / str(attempt)
        done = run_python(*launch, folder, *command)
        logs = done.stderr[-1000:] + "".join(file.read_text()[-3000:] for file in folder.glob("workerlog.*"))
        if done.returncode == 0 or "Connection refused" not in logs:
            break
    assert done.returncode == 0, logs
