"""Good and bad inputs, for the table of `test_bad_inputs.py` and for the fuzzer."""

import os
import pathlib
import pickle
import socket
import struct
from collections.abc import Sequence
from types import SimpleNamespace

import cv2
import numpy as np
import yaml

from tests.helpers import NORMALIZE, TINY, call_tool, randomize
from tests.tasks.classification.helpers import VAL, content

CLASSES, SIZE = 3, 32
MARK = "code_was_run"  # the file that hostile inputs make in the working directory if their code runs


def image(channels: int = 3, dtype: type = np.uint8, size: int = SIZE) -> np.ndarray:
    """Return the same smooth image in any number of channels and any type; values are those of bytes."""
    noise = np.random.default_rng(1).integers(0, 256, (size // 4, size // 4, 5), np.uint8)
    planes = [cv2.resize(noise[..., i], (size, size), interpolation=cv2.INTER_CUBIC) for i in range(channels)]
    return np.stack(planes, axis=-1).astype(dtype)


def write_image(path: pathlib.Path, pixels: np.ndarray) -> None:
    """Write an image in the format of its suffix; a TIFF of five channels, which OpenCV does not write, by hand."""
    if pixels.shape[-1] > 4:
        _write_tiff(path, pixels)
    else:
        assert cv2.imwrite(str(path), pixels)


def _write_tiff(path: pathlib.Path, pixels: np.ndarray) -> None:
    """Write an uncompressed TIFF of bytes with any number of channels."""
    height, width, channels = pixels.shape
    bits, data = struct.pack(f"<{channels}H", *[8] * channels), pixels.tobytes()
    extra = struct.pack(f"<{channels - 3}H", *[0] * (channels - 3))
    at = 8 + len(data)  # of the lists of numbers that do not fit into an entry; the entries are behind them
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, at), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 8),
        (277, 3, 1, channels), (278, 4, 1, height), (279, 4, 1, len(data)), (284, 3, 1, 1),
        (338, 3, channels - 3, at + len(bits) if len(extra) > 4 else int.from_bytes(extra.ljust(4, b"\0"), "little")),
    ]  # fmt: skip
    table = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, at + len(bits) + len(extra)) + data + bits + extra + table)


def cut_off_jpeg(path: pathlib.Path) -> None:
    data = cv2.imencode(".jpg", image())[1].tobytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def unix_socket(path: pathlib.Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket is limited to about 100 bytes
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


# What is no plain file, or is not there; missing leaves nothing at the path.
NO_PLAIN_FILE = {
    "missing": lambda path: None,
    "folder": lambda path: path.mkdir(),
    "fifo": lambda path: os.mkfifo(path),
    "socket": unix_socket,
    "device": lambda path: path.symlink_to("/dev/null"),
    "broken_link": lambda path: path.symlink_to("nowhere"),
    "endless_link": lambda path: path.symlink_to(path.name),
    "file_of_proc": lambda path: path.symlink_to("/proc/self/environ"),  # which calls itself a regular file
}


class _Hostile:
    """Runs code when it is unpickled."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def hostile_pickle(path: pathlib.Path, protocol: int = 4) -> None:
    """Write a pickle that makes the file MARK when it is read."""
    content = {"weight": np.zeros(3, np.float32), "code": _Hostile(os.mkdir, MARK)}
    path.write_bytes(pickle.dumps(content, protocol))


def alias_bomb(levels: int = 9) -> str:
    """Return YAML that stands for 9 ** levels values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines) + "\n"


PYTHON_TAGS = {
    "function": f"!!python/object/apply:os.mkdir [{MARK}]",
    "name": "!!python/name:os._exit",
    "module": "!!python/module:os",
    "tuple": "!!python/tuple [1, 2]",
}


CLASSIFIER = {"base_channels": 8, "num_heads": 2, "cross_size": 3, "feature_channels": 8}  # of rtformer_slim_cls


def classification(data: dict, **changes: object) -> dict:
    """Return a config of a tiny classifier on a data set without its mode, with top-level keys replaced or added."""
    sections = {f"{mode}_dataset": {**data, "mode": mode, "transforms": VAL} for mode in ("train", "val")}
    return content(**sections, iters=1, batch_size=2, model={"type": "RTFormerClassifier", **CLASSIFIER}, **changes)


def save_classifier(path: pathlib.Path) -> pathlib.Path:
    """Write the weights of the network of `classification`."""
    import paddle

    from paddle_rt import create_model

    paddle.save(create_model("rtformer_slim_cls", CLASSES, **CLASSIFIER).state_dict(), str(path))
    return path


def make_kit(folder: pathlib.Path, channels: int = 3, formats: Sequence[str] = ("onnx",)) -> SimpleNamespace:
    """Train a tiny network for images of so many channels for one iteration and export it."""
    import paddle

    from paddle_rt.export.publish import export
    from paddle_rt.models.rtformer import RTFormer
    from paddle_rt.tasks.segmentation.export import SegmentationExport

    write_image(folder / "image.png", image(channels))
    cv2.imwrite(str(folder / "label.png"), np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE) % CLASSES)
    (folder / "list.txt").write_text("image.png label.png\nimage.png label.png\n")
    normalize = NORMALIZE if channels == 3 else {"type": "Normalize"}
    data = {"type": "Dataset", "dataset_root": str(folder), "num_classes": CLASSES, "img_channels": channels,
            "transforms": [normalize]}  # fmt: skip
    network = RTFormer(num_classes=CLASSES, in_channels=channels, **TINY)
    randomize(network)
    paddle.save(network.state_dict(), str(folder / "start.pdparams"))
    config = {
        "batch_size": 2,
        "iters": 1,
        "train_dataset": {**data, "mode": "train", "train_path": str(folder / "list.txt")},
        "val_dataset": {**data, "mode": "val", "val_path": str(folder / "list.txt")},
        "optimizer": {"type": "SGD", "weight_decay": 0.0},
        "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 1e-6, "end_lr": 0, "power": 1.0},
        "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1, 0.4]},
        "model": {**TINY, "drop_path_rate": 0.0, "type": "RTFormer", "in_channels": channels},
    }
    start = {**config, "model": {**config["model"], "pretrained": str(folder / "start.pdparams")}}
    (folder / "config.yml").write_text(yaml.safe_dump(start))
    line = ["-c", folder / "config.yml", "--device", "cpu", "--save_dir", folder / "run", "--seed", 0]
    assert call_tool("train", *line) == 0
    network.set_state_dict(paddle.load(str(folder / "run/iter_1/model.pdparams")))
    network.eval()
    spec = SegmentationExport([normalize], "Dataset")
    export(network, folder / "export", spec, [1, channels, SIZE, SIZE], "coarse" if channels == 3 else None, formats)
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    return SimpleNamespace(
        folder=folder, config=config, weights=folder / "run/iter_1", export=folder / "export", channels=channels
    )
