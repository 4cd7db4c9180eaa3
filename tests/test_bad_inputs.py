"""One table: every kind of bad input (rows) at every tool and function that takes it (columns).

A cell is one line on stderr and exit code 1, without a traceback and without a new file, or the good result, which is
the same in the whole row. A cell of a tool that never sees the input holds the reason as text.
"""

import contextlib
import functools
import html
import io
import json
import os
import pathlib
import pickle
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from tests import bad_inputs as bad
from tests import helpers
from tests.bad_inputs import CLASSES, SIZE
from tests.helpers import NORMALIZE, TINY, call_tool, refused, written
from tests.tasks.classification.helpers import class_folders

COLUMNS = (
    "train",
    "val",
    "predict",
    "compare",
    "export",
    "quantize",
    "infer",
    "demo",
    "serve",
    "benchmark",
    "Segmenter",
    "create_model",
)
SECONDS = 30  # for a cell
HUGE = 99999999999999999999  # beyond int64
MODEL = "rtformer_slim:" + ",".join(f"{key}={value}" for key, value in TINY.items())  # for benchmark


class Reached(Exception):  # noqa: N818  not an error
    """A tool has taken the input and goes on to what takes long."""


@dataclass
class Desk:
    """What a cell works with.

    Args:
        folder: Inputs are made in it; the working directory.
        kit: Config, weights and export of a tiny network.
        run: Runs a tool: exit code, stdout, stderr.
        page: Returns the page of an export, and `port` the port of a service that answers for it.
    """

    folder: pathlib.Path
    kit: SimpleNamespace
    run: Callable[..., tuple[int, str, str]]
    page: Callable[[pathlib.Path], Any]
    port: Callable[[pathlib.Path], int]

    @property
    def out(self) -> pathlib.Path:
        return self.folder / "out"

    def config(self, **changes: Any) -> pathlib.Path:
        """Write the kit's config with changed keys, a dot between those of nested sections."""
        content = json.loads(json.dumps(self.kit.config))
        for key, value in changes.items():
            *parents, last = key.split("__")
            section = content
            for part in parents:
                section = section[part]
            section[last] = value
        path = self.folder / "config.yml"
        path.write_text(yaml.safe_dump(content))
        return path


@pytest.fixture(scope="session")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], SimpleNamespace]:
    """Networks for images of 1, 3 and 4 channels, each made when it is first asked for."""

    @functools.cache
    def kit(channels: int) -> SimpleNamespace:
        from paddle_rt.inference import load

        made = bad.make_kit(tmp_path_factory.mktemp(f"kit{channels}"), channels)
        load(made.export, "onnxruntime", threads=1)(bad.image(channels))  # compiles what no cell has to wait for
        return made

    return kit


@pytest.fixture(scope="session")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Callable, Callable]]:
    """The page of an export, and the port of a service, each made when it is first asked for."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def page(export_dir: pathlib.Path) -> Any:
            from paddle_rt.inference import load

            folder = tmp_path_factory.mktemp("page")
            with at_home(folder), pytest.MonkeyPatch.context() as patch:
                pytest.importorskip("gradio", reason="Gradio is not installed: pip install 'paddle_rt[demo]'")
                from paddle_rt.demo import media
                from paddle_rt.demo.exports import Export
                from paddle_rt.demo.page import build_page

                patch.setattr(media, "write_examples", lambda *_: [])  # rendering takes seconds
                predictor = load(export_dir, "onnxruntime", threads=1)
                return build_page([Export("export", predictor, "onnxruntime")], folder)

        @functools.cache
        def port(export_dir: pathlib.Path) -> int:
            pytest.importorskip("fastapi", reason="FastAPI is not installed: pip install 'paddle_rt[serve]'")
            from paddle_rt.inference import load
            from tests.serving.running import serving

            return stack.enter_context(serving(load(export_dir, "onnxruntime", threads=1))).port

        yield page, port


@contextlib.contextmanager
def at_home(folder: pathlib.Path) -> Iterator[None]:
    """Undo what `demo` and `serve` change in this process."""
    from paddle_rt.cli.demo import configure_gradio

    before, level = signal.getsignal(signal.SIGTERM), cv2.getLogLevel()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE", "GRADIO_TEMP_DIR",
                     "OPENCV_FFMPEG_LOGLEVEL"):  # fmt: skip
            patch.setenv(name, os.environ.get(name, ""))
        configure_gradio(str(folder))
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
            cv2.setLogLevel(level)


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Fail the test after SECONDS."""

    def stop(*_: object) -> None:
        pytest.fail(f"still running after {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


NETWORKS_BUILT: dict[str, Any] = {}


def remembered(build: Callable) -> Callable:
    """Build each network once, since every cell loads its own weights; not those that are trained."""

    def built(section: dict[str, Any], *more: Any) -> Any:
        key = f"{build.__qualname__} {section} {more}"
        if sys.argv[0] == "train" or "pretrained" in section:
            return build(section, *more)
        if key not in NETWORKS_BUILT:
            NETWORKS_BUILT[key] = build(section, *more)
        return NETWORKS_BUILT[key]

    return built


@pytest.fixture
def desk(kits, hosts, tmp_path, capsys, monkeypatch) -> Desk:
    """A folder to work in. What takes long behind the checks is replaced by the end of the tool."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(helpers, "SECONDS", SECONDS)

    def run(tool: str, *arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = call_tool({"infer": "../deploy/python/infer"}.get(tool, tool), *arguments)
        except Reached:
            code = 0
        return code, *capsys.readouterr()

    desk = Desk(tmp_path, kits(3), run, *hosts)

    import paddle_rt.benchmark.floor
    import paddle_rt.benchmark.pipelines
    import paddle_rt.components
    import paddle_rt.paddleseg.counterparts

    monkeypatch.setattr(paddle_rt.components, "build_network", remembered(paddle_rt.components.build_network))
    counterparts = paddle_rt.paddleseg.counterparts
    monkeypatch.setattr(counterparts, "paddleseg_model", remembered(counterparts.paddleseg_model))
    monkeypatch.setattr(paddle_rt.benchmark.floor, "matrix_rate", lambda *_: 1.0)
    monkeypatch.setattr(paddle_rt.benchmark.pipelines, "_export", stop)
    return desk


# ---- The columns: how each tool gets an input of each group ---------------------------------------------------------
# A function takes the desk and the input, and returns exit code, stdout and stderr, or an error of the library as
# such; where it labels an image, it returns the labels behind them.


def call(function: Callable, *arguments: Any, **settings: Any) -> tuple[int, Any, str]:
    """Call a function of the library; a UserError is what a tool would print of it."""
    from paddle_rt.errors import UserError

    with limited():
        try:
            return 0, function(*arguments, **settings), ""
        except UserError as error:
            return 1, None, f"error: {error}\n"


def train(desk: Desk, config: object, *flags: object) -> tuple:
    return desk.run("train", "-c", config, "--device", "cpu", "--save_dir", desk.out, *flags)


def read_only(desk: Desk, config: object, *flags: object) -> tuple:
    """Training up to its first step: every sample has been read."""

    def read(parts: Any, *_: Any) -> None:
        _ = [parts.train_data[index] for index in range(len(parts.train_data))]
        raise Reached

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paddle_rt.training.loop.fit", read)
        return train(desk, config, *flags)


def checkpoint_tool(tool: str, desk: Desk, config: object, weights: object, *flags: object) -> tuple:
    save = {"val": "--output", "compare": None}.get(tool, "--save_dir")
    place = {"--output": [save, desk.out / "scores.json"], "--save_dir": [save, desk.out], None: []}[save]
    return desk.run(tool, "-c", config, "--device", "cpu", "--model_path", weights, *place, *flags)


def val(desk: Desk, config: object, *flags: object) -> tuple:
    return checkpoint_tool("val", desk, config, desk.kit.weights, *flags)


def predict(desk: Desk, config: object, path: object, *flags: object) -> tuple:
    result = checkpoint_tool("predict", desk, config, desk.kit.weights, "--image_path", path, *flags)
    return *result, *_labels(desk.out / "label_prediction")


def compare(desk: Desk, config: object, *flags: object) -> tuple:
    return checkpoint_tool("compare", desk, config, desk.kit.weights, *flags)


def stop(*_: Any) -> None:
    raise Reached


def export(desk: Desk, config: object, *flags: object, weights: object = None) -> tuple:
    """The network gets its weights; tracing is left out, but for the networks of NETWORKS."""
    size = ["--input_size", SIZE, SIZE, "--formats", "onnx"]
    with pytest.MonkeyPatch.context() as patch:
        if desk.kit.channels == 3:
            patch.setattr("paddle_rt.export.publish.export", stop)
        return checkpoint_tool("export", desk, config, weights or desk.kit.weights, *size, *flags)


def quantize(desk: Desk, config: object, *flags: object) -> tuple:
    """The samples are read; quantising is left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paddle_rt.export.quantize.quantize", stop)
        return desk.run("quantize", "-c", config, "--device", "cpu", "--export_dir", desk.kit.export, *flags)


def infer(desk: Desk, path: object, *flags: object, export: object = None) -> tuple:
    line = ["--config", export or desk.kit.export, "--image_path", path, "--save_dir", desk.out, "--threads", 1]
    result = desk.run("infer", *line, "--backend", "onnxruntime", *flags)
    return *result, *_labels(desk.out / "pseudo_color_prediction")


def host(tool: str, desk: Desk, export_dir: object, *flags: object) -> tuple:
    """Run `demo` or `serve` up to the first request."""
    pytest.importorskip({"demo": "gradio", "serve": "fastapi"}[tool], reason="the extra of the tool is not installed")
    line = ["--config", export_dir, "--backend", "onnxruntime", "--threads", 1, "--port", 0, *flags]
    with at_home(desk.folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr({"demo": "paddle_rt.demo.server.serve", "serve": "paddle_rt.serving.server.Server"}[tool], stop)
        return desk.run(tool, *line)


def shown(desk: Desk, path: object) -> tuple:
    """The page gets an uploaded file."""
    handlers = {function.name: function.fn for function in desk.page(desk.kit.export).fns.values()}
    from paddle_rt.demo.exports import label_map

    with limited():
        found, said, *_ = handlers["find"](str(path), "", 0.5, None, False, "labels", 0.3)
    said = html.unescape(re.sub("<[^>]*>", "", said))
    return int(bool(said)), "", f"error: {said}\n" * bool(said), *map(label_map, found)


def posted(desk: Desk, path: pathlib.Path) -> tuple:
    """The service gets the bytes of a file."""
    port = desk.port(desk.kit.export)
    from tests.serving.running import ask, error

    answer = ask(port, f"/predict?name={path.name}", path.read_bytes())
    if answer[0] != 200:
        assert answer[0] == 422, answer
        return 1, "", f"error: {error(answer)}\n"
    return 0, "", "", _read_png(answer[2])


def benchmark(desk: Desk, *flags: object, weights: object = None) -> tuple:
    line = ["--models", MODEL, "--num_classes", CLASSES, "--size", SIZE, SIZE, "--backends", "onnxruntime"]
    line += ["--precisions", "fp32", "--against", "none", "--threads", 1, "--runs", 1, "--output", desk.out / "b.json"]
    line += ["--frames", desk.kit.folder / "image.png"]
    return desk.run("benchmark", *line, "--checkpoint", f"rtformer_slim={weights or desk.kit.weights}", *flags)


def segmenter(desk: Desk, export_dir: object, **settings: Any) -> tuple:
    from paddle_rt.inference import Segmenter

    settings = {"backend": "onnxruntime", "threads": 1, **settings}
    return call(lambda: Segmenter(export_dir, **settings)(bad.image()))


def create_model(_: Desk, name: str = "rtformer_slim", **settings: Any) -> tuple:
    from paddle_rt import create_model as create

    return call(create, name, **{"num_classes": CLASSES, **TINY, **settings})


def _labels(folder: pathlib.Path) -> list[np.ndarray]:
    return [_read_png(file.read_bytes()) for file in sorted(folder.rglob("*.png"))]


def _read_png(data: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)))


STREET_OBJECTS = {"type": "StreetObjects", "num_samples": 2, "size": 40}


def classification(desk: Desk, data: dict[str, Any]) -> pathlib.Path:
    """Write a config of classification."""
    path = desk.folder / "config.yml"
    path.write_text(yaml.safe_dump(bad.classification(data)))
    return path


def classifier(desk: Desk) -> pathlib.Path:
    return bad.save_classifier(desk.folder / "classifier.pdparams")


def create_classifier(path: object) -> tuple:
    from paddle_rt import create_model as create

    return call(create, "rtformer_slim_cls", CLASSES, path, **bad.CLASSIFIER)


def folders_of(*names: str, change: Callable[[pathlib.Path], Any] = lambda folder: None) -> Callable[[Desk], dict]:
    """Class folders with these names, changed in each mode; returns the data set."""

    def make(desk: Desk) -> dict[str, Any]:
        root = class_folders(desk.folder / "data", names)
        for mode in ("train", "val"):
            change(root / mode)
        return {"type": "ImageFolder", "dataset_root": str(root), "num_classes": CLASSES}

    return make


def emptied(folder: pathlib.Path) -> None:
    for path in (folder / "b").iterdir():
        path.unlink()


def list_of_classes(text: str) -> Callable[[Desk], dict]:
    def make(desk: Desk) -> dict[str, Any]:
        shutil.copy(desk.kit.folder / "image.png", desk.folder / "a.png")
        (desk.folder / "classes.txt").write_text(text)
        root = {"dataset_root": str(desk.folder), "cls_label_path": str(desk.folder / "classes.txt")}
        return {"type": "ImageNet", "num_classes": CLASSES, **root}

    return make


def listed(desk: Desk, image: object, label: object = "label.png") -> str:
    """Write a list with a good sample and another one."""
    shutil.copy(desk.kit.folder / "image.png", desk.folder / "good.png")
    shutil.copy(desk.kit.folder / "label.png", desk.folder / "label.png")
    (desk.folder / "list.txt").write_text(f"good.png label.png\n{image} {label}\n")
    return str(desk.folder / "list.txt")


def two_classes(desk: Desk, label: pathlib.Path) -> dict[str, Any]:
    """The changes of a config for two classes and one label, twice."""
    (desk.folder / "list.txt").write_text(f"{desk.kit.folder / 'image.png'} {label.name}\n" * 2)
    parts = ("train_dataset", "val_dataset")
    changes = {f"{part}__{key}": value for part in parts for key, value in
               (("dataset_root", str(desk.folder)), ("num_classes", 2))}  # fmt: skip
    lists = {"train_dataset__train_path": str(desk.folder / "list.txt")}
    return {**changes, **lists, "val_dataset__val_path": str(desk.folder / "list.txt")}


def trained_on(desk: Desk, path: object) -> pathlib.Path:
    """Return a config that reads a list, for training and for validation."""
    root = str(desk.folder)
    both = {"train_dataset__train_path": str(path), "val_dataset__val_path": str(path)}
    return desk.config(train_dataset__dataset_root=root, val_dataset__dataset_root=root, **both)


def segment_array(desk: Desk, path: object) -> tuple:
    """Segmenter gets the pixels that the file holds, or what `read_image` makes of bytes."""
    from paddle_rt.imaging import read_image
    from paddle_rt.inference import Segmenter

    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    pixels = bad.image(5) if pixels is None else pixels
    is_read = pixels.dtype == np.uint8 and pixels.shape[2:] in ((), (3,), (4,)) and desk.kit.channels == 3
    frame = read_image(path) if is_read else pixels
    code, labels, err = call(Segmenter(desk.kit.export, "onnxruntime", threads=1), frame)
    return code, "", err, *([] if labels is None else [labels])


NO_IMAGE, NO_DATA, NO_WEIGHTS = "reads no image", "reads no labels", "reads no checkpoint"
NO_CONFIG, NO_EXPORT = "reads no config", "reads no export"
IMAGE_FILES = {
    "train": lambda desk, path: train(desk, trained_on(desk, listed(desk, path.name)), "--do_eval"),
    "val": lambda desk, path: val(desk, trained_on(desk, listed(desk, path.name))),
    "predict": lambda desk, path: predict(desk, desk.config(), path),
    "compare": lambda desk, path: compare(desk, desk.config(), "--image_path", path),
    "export": NO_IMAGE,
    "quantize": lambda desk, path: quantize(desk, trained_on(desk, listed(desk, path.name))),
    "infer": lambda desk, path: infer(desk, path),
    "demo": shown,
    "serve": "takes bytes, no files",
    "benchmark": lambda desk, path: benchmark(desk, "--frames", path),
    "Segmenter": "takes arrays, no files",
    "create_model": NO_IMAGE,
}
IMAGE_BYTES = {**IMAGE_FILES, "serve": posted}
IMAGES = {**IMAGE_BYTES, "Segmenter": segment_array}
LABELS = {
    **dict.fromkeys(COLUMNS, NO_DATA),
    "train": lambda desk, path: train(desk, trained_on(desk, listed(desk, "good.png", path.name)), "--do_eval"),
    "val": lambda desk, path: val(desk, trained_on(desk, listed(desk, "good.png", path.name))),
    "quantize": lambda desk, path: quantize(desk, trained_on(desk, listed(desk, "good.png", path.name))),
}
MASKS = {
    **LABELS,
    "train": lambda desk, path: train(desk, desk.config(**two_classes(desk, path))),
    "val": "scores the pixels that are labelled, as with any labels",
    "quantize": "takes the labels as they are, since nothing is trained",
}
LISTS = {
    "train": lambda desk, path: read_only(desk, trained_on(desk, path), "--batch_size", 1),
    "val": lambda desk, path: val(desk, trained_on(desk, path)),
    "predict": lambda desk, path: predict(desk, desk.config(), path),
    "compare": lambda desk, path: compare(desk, desk.config(), "--image_path", path),
    "export": NO_IMAGE,
    "quantize": lambda desk, path: quantize(desk, trained_on(desk, path)),
    "infer": lambda desk, path: infer(desk, path),
    "demo": "takes images and videos, no lists",
    "serve": "takes images, no lists",
    "benchmark": lambda desk, path: benchmark(desk, "--frames", path),
    "Segmenter": "takes arrays, no lists",
    "create_model": NO_IMAGE,
}
CHECKPOINTS = {
    "train": lambda desk, path: train(desk, desk.config(model__pretrained=str(path))),
    "val": lambda desk, path: checkpoint_tool("val", desk, desk.config(), path),
    "predict": lambda desk, path: checkpoint_tool(
        "predict", desk, desk.config(), path, "--image_path", desk.kit.folder / "image.png"
    ),
    "compare": lambda desk, path: checkpoint_tool("compare", desk, desk.config(), path, "--input_size", SIZE, SIZE),
    "export": lambda desk, path: export(desk, desk.config(), weights=path),
    "quantize": NO_WEIGHTS,
    **dict.fromkeys(("infer", "demo", "serve"), NO_WEIGHTS),
    "benchmark": lambda desk, path: benchmark(desk, weights=path),
    "Segmenter": NO_WEIGHTS,
    "create_model": lambda desk, path: create_model(desk, checkpoint=path),
}
CONFIGS = {
    "train": train,
    "val": val,
    "predict": lambda desk, path: predict(desk, path, desk.kit.folder / "image.png"),
    "compare": compare,
    "export": export,
    "quantize": quantize,
    **dict.fromkeys(("infer", "demo", "serve"), "its config is a deploy.yaml, see exports"),
    "benchmark": NO_CONFIG,
    "Segmenter": "its config is a deploy.yaml, see exports",
    "create_model": NO_CONFIG,
}
# Arguments of a network: in the config's section `model`, in the name of a benchmark's model, or by keyword.
ARGUMENTS = {
    **{name: lambda desk, given, tool=tool: tool(desk, with_argument(desk, given)) for name, tool in CONFIGS.items()
       if callable(tool)},
    **dict.fromkeys(("infer", "demo", "serve"), "the graph has its arguments in it"),
    "benchmark": lambda desk, given: benchmark(desk, "--models", f"{MODEL},{given[0]}={given[1]}"),
    "Segmenter": "the graph has its arguments in it",
    "create_model": lambda desk, given: create_model(desk, **dict([given])),
}  # fmt: skip
# Images that lie in a folder for each class, or that a list gives a class.
CLASSES_OF_IMAGES = {
    **dict.fromkeys(COLUMNS, "reads no classes of images"),
    "train": lambda desk, data: train(desk, classification(desk, data), "--do_eval"),
    "val": lambda desk, data: checkpoint_tool("val", desk, classification(desk, data), classifier(desk)),
}
# Checkpoints at tools whose config is of classification, as CHECKPOINTS.
CHECKPOINTS_OF_CLASSES = {
    "train": "takes the trunk as model.pretrained",
    **{
        tool: lambda desk, path, tool=tool, more=more: checkpoint_tool(
            tool, desk, classification(desk, STREET_OBJECTS), path, *more
        )
        for tool, more in {"val": (), "predict": ("--image_path", "x.png"), "export": ("--input_size", 32, 32)}.items()
    },
    "compare": "compares with PaddleSeg, which has no classifier",
    "quantize": NO_WEIGHTS,
    **dict.fromkeys(("infer", "demo", "serve"), NO_WEIGHTS),
    "benchmark": lambda desk, path: benchmark(
        desk, "--models", "rtformer_slim_cls:" + ",".join(f"{key}={value}" for key, value in bad.CLASSIFIER.items()),
        "--checkpoint", f"rtformer_slim_cls={path}",
    ),
    "Segmenter": NO_WEIGHTS,
    "create_model": lambda _, path: create_classifier(path),
}  # fmt: skip
# The folder of a checkpoint that training resumes.
RESUMES = {
    **dict.fromkeys(COLUMNS, "resumes no run"),
    "train": lambda desk, path: train(desk, desk.config(), "--resume_model", path, "--iters", 2),
}
# Networks for images of 1 and 4 channels, with everything of their own.
NETWORKS = {
    **{
        name: IMAGES[name]
        for name in ("train", "val", "predict", "compare", "quantize", "infer", "demo", "serve", "Segmenter")
    },
    "export": lambda desk, _: export(desk, desk.config()),
    "benchmark": "measures networks of 3 channels only",
    "create_model": lambda desk, _: create_model(desk, in_channels=desk.kit.channels, checkpoint=desk.kit.weights),
}
EXPORTS = {
    **dict.fromkeys(("train", "val", "predict", "compare", "benchmark", "create_model"), NO_EXPORT),
    "export": "writes an export, whatever was in its place before",
    "quantize": lambda desk, path: desk.run(
        "quantize", "-c", desk.config(), "--device", "cpu", "--images", 2, "--export_dir", path
    ),
    "infer": lambda desk, path: infer(desk, desk.kit.folder / "image.png", export=path),
    "demo": functools.partial(host, "demo"),
    "serve": functools.partial(host, "serve"),
    "Segmenter": segmenter,
}


@dataclass(frozen=True)
class Row:
    """A kind of bad input.

    Args:
        columns: How each column gets it.
        make: Makes it below a desk's folder and returns what the columns get; for flags, the arguments of each column.
        expected: Pattern of the one line; None where the result is good.
        cells: Columns whose cell is another: a pattern, or in brackets a reason why there is none.
        code: Exit code of the tools; functions raise in any case.
        channels: Of the images that the network is for.
    """

    columns: dict[str, Any]
    make: Any
    expected: str | None = None
    cells: dict[str, str] = field(default_factory=dict)
    code: int = 1
    channels: int = 3


def file(name: str, make: Callable[[pathlib.Path], Any]) -> Callable[[Desk], pathlib.Path]:
    def at(desk: Desk) -> pathlib.Path:
        make(desk.folder / name)
        return desk.folder / name

    return at


def pixels(name: str, channels: int, dtype: type = np.uint8) -> Callable[[Desk], pathlib.Path]:
    return file(name, lambda path: bad.write_image(path, bad.image(channels, dtype)))


def content(name: str, data: bytes) -> Callable[[Desk], pathlib.Path]:
    return file(name, lambda path: path.write_bytes(data))


def flat_label(name: str, *values: int, dtype: type = np.uint8) -> Callable[[Desk], pathlib.Path]:
    block = np.resize(np.array(values, dtype), (SIZE, SIZE))
    return file(name, lambda path: cv2.imwrite(str(path), block))


def text_list(data: str | bytes, *names: str) -> Callable[[Desk], pathlib.Path]:
    """A list beside images with these names."""

    def make(desk: Desk) -> pathlib.Path:
        for name in ("a.png", *names):
            shutil.copy(desk.kit.folder / "image.png", desk.folder / name)
        shutil.copy(desk.kit.folder / "label.png", desk.folder / "label.png")
        path = desk.folder / "list.txt"
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return make


def weights(name: str, change: Callable[[dict], Any]) -> Callable[[Desk], pathlib.Path]:
    """A checkpoint with other contents, pickled as Paddle does."""

    def make(desk: Desk) -> pathlib.Path:
        with (desk.kit.weights / "model.pdparams").open("rb") as saved:
            state = pickle.load(saved)
        path = desk.folder / name
        path.write_bytes(pickle.dumps(change(state), 4))
        return path

    return make


def with_nan(state: dict) -> dict:
    name = next(name for name, value in state.items() if getattr(value, "ndim", 0) == 4)
    state[name] = np.full_like(state[name], np.nan)
    return state


def cut_short(state: dict) -> dict:
    name = next(name for name, value in state.items() if getattr(value, "ndim", 0) == 4)
    state[name] = state[name][:-1]
    return state


def pose_config(**changes: Any) -> Callable[[Desk], str]:
    def make(desk: Desk) -> str:
        from tests.tasks.pose.helpers import write_config

        return write_config(desk.folder, **changes)

    return make


def safetensors(desk: Desk) -> pathlib.Path:
    from safetensors.numpy import save_file

    from paddle_rt.checkpoint import read_state_dict

    save_file(read_state_dict(desk.kit.weights), desk.folder / "model.safetensors")
    return desk.folder / "model.safetensors"


def truncated_weights(desk: Desk) -> pathlib.Path:
    data = (desk.kit.weights / "model.pdparams").read_bytes()
    (desk.folder / "model.pdparams").write_bytes(data[: len(data) // 2])
    return desk.folder / "model.pdparams"


def halved(name: str) -> Callable[[pathlib.Path], Any]:
    def cut(folder: pathlib.Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return cut


def resumed(change: Callable[[pathlib.Path], Any]) -> Callable[[Desk], pathlib.Path]:
    """A copy of the kit's checkpoint, changed."""

    def make(desk: Desk) -> pathlib.Path:
        folder = desk.folder / "iter_1"
        shutil.copytree(desk.kit.weights, folder)
        change(folder)
        return folder

    return make


def with_argument(desk: Desk, given: tuple[str, Any]) -> pathlib.Path:
    return desk.config(**{f"model__{given[0]}": given[1]})


def config_text(data: str | bytes) -> Callable[[Desk], pathlib.Path]:
    return content("config.yml", data if isinstance(data, bytes) else data.encode())


def appended(text: str) -> Callable[[Desk], pathlib.Path]:
    def make(desk: Desk) -> pathlib.Path:
        path = desk.config()
        path.write_text(path.read_text() + text + "\n")
        return path

    return make


def circle(desk: Desk) -> pathlib.Path:
    (desk.folder / "b.yml").write_text("_base_: config.yml\n")
    (desk.folder / "config.yml").write_text("_base_: b.yml\n")
    return desk.folder / "config.yml"


def changed(**changes: Any) -> Callable[[Desk], pathlib.Path]:
    return lambda desk: desk.config(**changes)


def export_with(change: Callable[[pathlib.Path], Any]) -> Callable[[Desk], pathlib.Path]:
    def make(desk: Desk) -> pathlib.Path:
        shutil.copytree(desk.kit.export, desk.folder / "export")
        change(desk.folder / "export")
        return desk.folder / "export"

    return make


def deploy_key(key: str, value: Any) -> Callable[[pathlib.Path], None]:
    def change(folder: pathlib.Path) -> None:
        deploy = yaml.safe_load((folder / "deploy.yaml").read_text())
        deploy["Deploy"][key] = value
        (folder / "deploy.yaml").write_text(yaml.safe_dump(deploy))

    return change


def deploy_outside(folder: pathlib.Path) -> None:
    shutil.move(folder / "model.onnx", folder.parent / "model.onnx")
    deploy_key("onnx", "../model.onnx")(folder)


def append_byte(folder: pathlib.Path) -> None:
    with (folder / "model.onnx").open("ab") as graph:
        graph.write(b"\0")


def without(name: str) -> Callable[[pathlib.Path], None]:
    return lambda folder: (folder / name).unlink()


def deploy_text(text: str) -> Callable[[pathlib.Path], Any]:
    return lambda folder: (folder / "deploy.yaml").write_text(text)


def flags(**columns: Any) -> dict[str, Any]:
    """Columns of a row of flags: the arguments that each tool or function gets in addition."""

    def with_image(tool: Callable) -> Callable:
        return lambda desk, more: tool(desk, desk.config(), desk.kit.folder / "image.png", *more)

    runners = {
        "train": lambda desk, more: train(desk, desk.config(), *more),
        "val": lambda desk, more: val(desk, desk.config(), *more),
        "predict": with_image(predict),
        "compare": lambda desk, more: compare(desk, desk.config(), *more),
        "export": lambda desk, more: export(desk, desk.config(), *more),
        "quantize": lambda desk, more: quantize(desk, desk.config(), *more),
        "infer": lambda desk, more: infer(desk, desk.kit.folder / "image.png", *more),
        "demo": lambda desk, more: host("demo", desk, desk.kit.export, *more),
        "serve": lambda desk, more: host("serve", desk, desk.kit.export, *more),
        "benchmark": lambda desk, more: benchmark(desk, *more),
        "Segmenter": lambda desk, more: segmenter(desk, **{"export_dir": desk.kit.export, **more}),
        "create_model": lambda desk, more: create_model(desk, **more),
    }
    return {
        name: given if isinstance(given, str) else lambda desk, _, name=name, given=given: runners[name](desk, given)
        for name, given in columns.items()
    }


def number_flags(value: object) -> dict[str, Any]:
    """Every tool's flag for a count gets a value; functions get the number."""
    number = int(value) if re.fullmatch(r"-?\d+", str(value)) else value
    return flags(
        train=["--batch_size", value],
        val=["--batch_size", value],
        predict=["--is_slide", "--crop_size", value, SIZE, "--stride", 1, 1],
        compare=["--input_size", value, SIZE],
        export=["--input_size", value, SIZE],
        quantize=["--images", value],
        infer=["--frames", value],
        demo=["--threads", value],
        serve=["--queue", value],
        benchmark=["--size", value, SIZE],
        Segmenter={"threads": number},
        create_model={"num_classes": number},
    )


def path_flags(value: str) -> dict[str, Any]:
    """Every tool's flag for what it reads."""
    return flags(
        train=["-c", value],
        val=["--model_path", value],
        predict=["--image_path", value],
        compare=["--image_path", value],
        export=["--model_path", value],
        quantize=["--export_dir", value],
        infer=["--image_path", value],
        demo=["--config", value],
        serve=["--config", value],
        benchmark=["--frames", value],
        Segmenter={"export_dir": value},
        create_model={"checkpoint": value},
    )


def save_flags(value: str) -> dict[str, Any]:
    """Every tool's flag for what it writes."""
    return flags(
        train=["--save_dir", value],
        val=["--output", value],
        predict=["--save_dir", value],
        compare="writes no file",
        export=["--save_dir", value],
        quantize="writes into the export that it reads",
        infer=["--save_dir", value],
        demo="writes to a temporary folder alone",
        serve="writes no file",
        benchmark=["--output", value],
        Segmenter="writes no file",
        create_model="writes no file",
    )


CHOICE = "takes no backend"
BACKEND = flags(
    **dict.fromkeys(("train", "val", "predict", "compare", "export", "quantize"), CHOICE),
    **dict.fromkeys(("infer", "demo", "serve"), ["--backend", "openvinno"]),
    benchmark=["--backends", "openvinno"],
    Segmenter={"backend": "openvinno"},
    create_model=CHOICE,
)
DEVICE = flags(
    **dict.fromkeys(("train", "val", "predict", "compare", "export", "quantize"), ["--device", "cpuu"]),
    **dict.fromkeys(("infer", "demo", "serve"), ["--device", "cpuu"]),
    benchmark="measures CPUs only",
    Segmenter={"device": "cpuu"},
    create_model="takes no device",
)
PRECISION = flags(
    train=["--precision", "fp33"],
    **dict.fromkeys(("val", "predict", "compare", "export", "quantize"), "computes in fp32, or int8 for quantize"),
    **dict.fromkeys(("infer", "demo", "serve"), ["--precision", "fp33"]),
    benchmark=["--precisions", "fp33"],
    Segmenter={"precision": "fp33"},
    create_model="computes in fp32",
)

IMAGE_KINDS = {
    "missing": "no (image|image, folder or list of images) at .*x.png",
    "folder": "x.png is a folder|no images .* in folder .*x.png",
    "fifo": "x.png is a named pipe",
    "socket": "x.png is a socket",
    "device": "x.png is a device",
    "broken_link": "x.png is a broken link",
    "endless_link": "x.png is a link that leads to itself",
    "file_of_proc": "x.png is a file of /proc or /sys",
}
CHECKPOINT_KINDS = {
    "missing": "no checkpoint at .*x.pdparams",
    "folder": "no checkpoint at .*x.pdparams",
    "fifo": "x.pdparams is a named pipe",
    "device": "x.pdparams is a device",
    "endless_link": "x.pdparams is a link that leads to itself",
    "file_of_proc": "x.pdparams is a file of /proc or /sys",
}
CONFIG_KINDS = {
    "missing": "no config.* at .*x.yml",
    "folder": "x.yml is a folder",
    "fifo": "x.yml is a named pipe",
    "device": "x.yml is a device",
    "endless_link": "x.yml is a link that leads to itself",
    "file_of_proc": "x.yml is a file of /proc or /sys",
}
DEPLOY_KINDS = {
    "missing": "no deploy.yaml .*at .*x.yaml",
    "folder": "no deploy.yaml .*at .*x.yaml",
    "fifo": "x.yaml is a named pipe",
    "device": "x.yaml is a device",
    "endless_link": "x.yaml is a link that leads to itself",
    "file_of_proc": "x.yaml is a file of /proc or /sys",
}

NO_NETWORK = "(takes the graph, and builds no network)"
ROWS = {
    # Images. The good ones give the labels of the colour image, or of what is seen as one.
    "image_3_channels": Row(IMAGES, pixels("x.png", 3)),
    "image_1_channel": Row(IMAGES, pixels("x.png", 1)),
    "image_4_channels": Row(IMAGES, pixels("x.png", 4)),
    "image_jpeg": Row(IMAGES, pixels("x.jpg", 3)),
    "image_16_bits": Row(IMAGES, pixels("x.png", 3, np.uint16), "16 bits|uint16"),
    "image_16_bits_grey": Row(IMAGES, pixels("x.png", 1, np.uint16), "16 bits|uint16"),
    "image_float": Row(
        IMAGES, pixels("x.tiff", 3, np.float32), "x.tiff has 16 bits a channel|float32",  # which OpenCV writes for it
        {"serve": "x.tiff: it is damaged, or not an image"},  # Pillow knows no such TIFF
    ),
    "image_5_channels": Row(IMAGES, pixels("x.tiff", 5), "5 channels|5\\]"),
    "image_cut_off": Row(IMAGE_BYTES, file("x.jpg", bad.cut_off_jpeg), "x.jpg is cut off"),
    "image_empty": Row(IMAGE_BYTES, content("x.png", b""), "x.png is empty"),
    "image_text": Row(IMAGE_BYTES, content("x.png", b"no image"), "x.png: it is damaged, or not an image"),
    **{
        f"image_{kind}": Row(IMAGE_FILES, file("x.png", bad.NO_PLAIN_FILE[kind]), expected)
        for kind, expected in IMAGE_KINDS.items()
    },
    "image_of_a_network_of_1_channel": Row(NETWORKS, pixels("x.png", 1), channels=1),
    "image_of_a_network_of_4_channels": Row(NETWORKS, pixels("x.png", 4), channels=4),
    "image_3_channels_for_4": Row(
        {**NETWORKS, "export": NO_IMAGE, "create_model": NO_IMAGE}, pixels("x.png", 3), "3 channels|32, 3", channels=4
    ),
    # Labels
    "label_indexed": Row(LABELS, lambda desk: shutil.copy(desk.kit.folder / "label.png", desk.folder / "x.png")),
    "label_3_channels": Row(LABELS, pixels("x.png", 3), "x.png: labels must be one channel"),
    "label_16_bits": Row(LABELS, flat_label("x.png", 0, 1, 2, dtype=np.uint16)),
    "label_16_bits_out_of_range": Row(
        LABELS, flat_label("x.png", 0, 1, 300, dtype=np.uint16), "x.png: label values 300 are out of range"
    ),
    "label_float": Row(LABELS, flat_label("x.tiff", 0, 1, dtype=np.float32), "x.tiff: labels must be one channel"),
    "label_out_of_range": Row(LABELS, flat_label("x.png", 0, 1, 7), "x.png: label values 7 are out of range"),
    "label_mask_0_255": Row(MASKS, flat_label("x.png", 0, 255), "0 and 255"),
    "label_missing": Row(LABELS, file("x.png", bad.NO_PLAIN_FILE["missing"]), "no .* at .*x.png"),
    "label_fifo": Row(LABELS, file("x.png", bad.NO_PLAIN_FILE["fifo"]), "x.png is a named pipe"),
    "label_of_another_size": Row(
        LABELS,
        file("x.png", lambda path: cv2.imwrite(str(path), np.zeros((8, 8), np.uint8))),
        "x.png is 8x8, but the image .*good.png is 32x32",
    ),
    # Lists of images
    "list_of_one": Row(LISTS, text_list("a.png label.png\n")),
    "list_bom": Row(LISTS, text_list("\ufeffa.png label.png\n")),
    "list_crlf": Row(LISTS, text_list("a.png label.png\r\n")),
    "list_blank_lines": Row(LISTS, text_list("\na.png label.png\n \n\n")),
    "list_blanks_in_names": Row(LISTS, text_list("a b.png label.png\n", "a b.png")),
    "list_tab": Row(LISTS, text_list("a.png\tlabel.png\n")),
    "list_two_blanks": Row(LISTS, text_list("a.png  label.png\n")),
    "list_latin_1": Row(LISTS, text_list("ä.png label.png\n".encode("latin-1")), "list.txt.*UTF-8"),
    "list_binary": Row(LISTS, text_list(bytes(range(256)) * 9), "list.txt"),
    "list_empty": Row(LISTS, text_list(""), "list.txt.* is empty"),
    "list_nul_in_name": Row(LISTS, text_list("a.png label.png\na\0b.png label.png\n"), "list.txt, line 2"),
    "list_missing_image": Row(LISTS, text_list("a.png label.png\nb.png label.png\n"), "b.png"),
    "list_fifo": Row(LISTS, file("x.txt", bad.NO_PLAIN_FILE["fifo"]), "x.txt is a named pipe"),
    "list_missing": Row(LISTS, file("x.txt", bad.NO_PLAIN_FILE["missing"]), "no .* at .*x.txt"),
    # Checkpoints
    "checkpoint_folder": Row(CHECKPOINTS, lambda desk: desk.kit.weights),
    "checkpoint_file": Row(CHECKPOINTS, lambda desk: desk.kit.weights / "model.pdparams"),
    "checkpoint_safetensors": Row(CHECKPOINTS, safetensors),
    "checkpoint_unknown_weights": Row(CHECKPOINTS, lambda _: "street", "no checkpoint at street; .* of the package: "),
    "checkpoint_empty": Row(CHECKPOINTS, content("model.pdparams", b""), "model.pdparams.*(empty|0 bytes)"),
    "checkpoint_truncated": Row(CHECKPOINTS, truncated_weights, "model.pdparams .*is not a whole"),
    "checkpoint_html": Row(
        CHECKPOINTS, content("model.pdparams", b"<!DOCTYPE html><html>404</html>"), "model.pdparams .*is not a whole"
    ),
    "checkpoint_wrong_shape": Row(CHECKPOINTS, weights("x.pdparams", cut_short), "x.pdparams does not fit RTFormer"),
    "checkpoint_nan": Row(CHECKPOINTS, weights("x.pdparams", with_nan), "x.pdparams does not fit .* not finite"),
    "checkpoint_other_network": Row(
        CHECKPOINTS,
        weights("x.pdparams", lambda _: {"fc.weight": np.zeros((3, 3), np.float32)}),
        "x.pdparams does not fit RTFormer",
    ),
    "checkpoint_list": Row(CHECKPOINTS, weights("x.pdparams", lambda _: [1, 2]), "x.pdparams .*expected a state dict"),
    "checkpoint_optimizer": Row(
        CHECKPOINTS, lambda desk: desk.kit.weights / "model.pdopt", "model.pdopt .*no model's state dict|does not fit"
    ),
    "checkpoint_hostile": Row(CHECKPOINTS, file("x.pdparams", bad.hostile_pickle), "x.pdparams"),
    "checkpoint_hostile_protocol_2": Row(
        CHECKPOINTS, file("x.pdparams", lambda path: bad.hostile_pickle(path, 2)), "x.pdparams"
    ),
    "checkpoint_of_a_classifier": Row(
        CHECKPOINTS, classifier, "of a network for another task: .*it has head in place of",
        {"train": "(takes the trunk as model.pretrained)"},
    ),
    "checkpoint_of_segmentation_for_classes": Row(
        CHECKPOINTS_OF_CLASSES,
        lambda desk: (shutil.copy(desk.kit.folder / "image.png", "x.png"), desk.kit.weights)[1],
        "of a network for another task: .*in place of head",
    ),
    # Classes of images
    "classes_of_folders": Row(CLASSES_OF_IMAGES, folders_of("a", "b", "c")),
    "classes_folder_empty": Row(CLASSES_OF_IMAGES, folders_of("a", "b", "c", change=emptied), "b holds no image"),
    "classes_folder_nested": Row(
        CLASSES_OF_IMAGES,
        folders_of("a", "b", "c", change=lambda folder: (folder / "b/x").mkdir()),
        "b holds the folder x",
    ),
    "classes_one_folder": Row(CLASSES_OF_IMAGES, folders_of("a"), "holds one class folder, a; there are two"),
    "classes_more_folders": Row(
        CLASSES_OF_IMAGES, folders_of("a", "b", "c", "d"), "holds 4 class folders, expected num_classes 3"
    ),
    "classes_of_a_list": Row(CLASSES_OF_IMAGES, list_of_classes("a.png 0\na.png 2\n")),
    "classes_beyond_their_number": Row(
        CLASSES_OF_IMAGES,
        list_of_classes("a.png 0\na.png 3\n"),
        "classes.txt, line 2: the class is 3, but classes are 0 to 2",
    ),
    **{
        f"checkpoint_{kind}": Row(CHECKPOINTS, file("x.pdparams", bad.NO_PLAIN_FILE[kind]), expected)
        for kind, expected in CHECKPOINT_KINDS.items()
    },
    # Configs
    "config_good": Row(CONFIGS, changed()),
    "config_unknown_key": Row(CONFIGS, changed(batchsize=2), "unknown config key 'batchsize', did you mean"),
    "config_unknown_argument": Row(CONFIGS, changed(model__base_chanels=8), "base_chanels"),
    "config_unknown_type": Row(CONFIGS, changed(model__type="RTFormr"), "RTFormr"),
    "config_label_map_beyond_the_classes": Row(
        CONFIGS, changed(train_dataset__label_map={0: 99}), "label_map gives 0 the class 99"
    ),
    "config_names_of_too_few_classes": Row(
        CONFIGS, changed(val_dataset__class_names=["a"]), "val_dataset.class_names has 1 entries, but num_classes is 3"
    ),
    "config_wrong_type": Row(CONFIGS, changed(batch_size="two"), "batch_size must be a whole number"),
    "config_wrong_type_of_argument": Row(CONFIGS, changed(model__base_channels="wide"), "model.base_channels"),
    "config_wrong_type_in_optimizer": Row(CONFIGS, changed(optimizer__weight_decay="x"), "optimizer.weight_decay"),
    "config_wrong_type_in_transform": Row(
        CONFIGS,
        changed(val_dataset__transforms=[{"type": "Normalize", "mean": "grey"}]),
        "val_dataset.transforms",
    ),
    "config_huge_number": Row(CONFIGS, changed(iters=10**30), "iters"),
    "config_huge_argument": Row(CONFIGS, changed(model__head_channels=HUGE), "model.head_channels"),
    "config_number_of_5000_digits": Row(
        CONFIGS,
        lambda desk: config_text(re.sub("batch_size: 2", "batch_size: " + "9" * 5000, desk.config().read_text()))(desk),
        "batch_size|digits|large",
    ),
    "config_negative": Row(CONFIGS, changed(model__num_heads=-1), "num_heads"),
    "config_ratio_that_does_not_divide": Row(
        CONFIGS,
        changed(model__low_attention="mhea", model__mhea_ratio=0.3),
        "mhea_ratio must make a whole number",
        {"compare": "(PaddleSeg has no such attention)", "quantize": NO_NETWORK},
    ),
    "config_not_finite": Row(CONFIGS, changed(lr_scheduler__learning_rate=float("nan")), "learning_rate"),
    "config_empty": Row(CONFIGS, config_text(""), "config.yml is empty"),
    "config_binary": Row(CONFIGS, config_text(bytes(range(256))), "config.yml is not valid YAML|config.yml.*UTF-8"),
    "config_list": Row(CONFIGS, config_text("[1, 2]"), "config.yml holds "),
    "config_key_twice": Row(CONFIGS, appended("iters: 2"), "'iters' occurs twice"),
    "config_alias_bomb": Row(CONFIGS, appended(bad.alias_bomb()), "config.yml"),
    "config_deep": Row(CONFIGS, appended("x: " + "[" * 5000), "config.yml"),
    "config_of_pose_unpaired": Row(
        CONFIGS, pose_config(keypoints={"names": ["a", "b", "c"], "flip_pairs": [[0, 1], [1, 2]]}), "stands there twice"
    ),
    "config_of_pose_count": Row(CONFIGS, pose_config(keypoints={"names": ["a"]}, model__num_keypoints=2), "has 1 k"),
    "config_of_pose_as_in_paddledetection": Row(CONFIGS, pose_config(num_joints=17), "here it is keypoints"),
    "config_base_missing": Row(CONFIGS, appended("_base_: nowhere.yml"), "nowhere.yml"),
    "config_base_circle": Row(CONFIGS, circle, "circle"),
    **{f"config_python_{kind}": Row(CONFIGS, appended(f"x: {tag}"), "config.yml")
       for kind, tag in bad.PYTHON_TAGS.items()},
    "config_of_unknown_weights": Row(CONFIGS, lambda _: "street", "or the name of weights of the package, got street"),
    **{f"config_{kind}": Row(CONFIGS, file("x.yml", bad.NO_PLAIN_FILE[kind]), expected)
       for kind, expected in CONFIG_KINDS.items()},
    # Arguments of networks
    **{
        f"argument_{kind}": Row(ARGUMENTS, lambda _, given=given: given, given[0])
        for kind, given in {
            "of_another_type": ("base_channels", "wide"),
            "fraction": ("base_channels", 8.5),
            "negative": ("num_heads", -1),
            "zero": ("head_channels", 0),
            "unknown": ("base_chanels", 8),
        }.items()
    },
    **{
        f"argument_{name}_that_does_not_divide": Row(
            ARGUMENTS, lambda _, name=name: (name, 3), name, {"quantize": NO_NETWORK}
        )
        for name in ("num_heads", "low_groups")
    },
    "argument_huge": Row(
        {**ARGUMENTS, "benchmark": "its --models is a flag, see flag_huge_argument"},
        lambda _: ("head_channels", HUGE),
        "head_channels",
    ),
    # Checkpoints to resume
    "resume_good": Row(RESUMES, resumed(lambda folder: None)),
    "resume_without_optimizer": Row(RESUMES, resumed(lambda folder: (folder / "model.pdopt").unlink()), "model.pdopt"),
    "resume_truncated_optimizer": Row(RESUMES, resumed(halved("model.pdopt")), "model.pdopt"),
    "resume_hostile_optimizer": Row(
        RESUMES, resumed(lambda folder: bad.hostile_pickle(folder / "model.pdopt")), "model.pdopt"
    ),
    "resume_hostile_weights": Row(
        RESUMES, resumed(lambda folder: bad.hostile_pickle(folder / "model.pdparams")), "model.pdparams"
    ),
    "resume_truncated_state": Row(RESUMES, resumed(halved("train_state.safetensors")), "train_state.safetensors"),
    "resume_folder_of_images": Row(RESUMES, lambda desk: desk.folder, "cannot resume from"),
    # Exports
    "export_outside": Row(EXPORTS, export_with(deploy_outside), "model.onnx"),
    "export_missing_graph": Row(EXPORTS, export_with(without("model.onnx")), "no .*model.onnx"),
    "export_changed_graph": Row(EXPORTS, export_with(append_byte), "model.onnx is not the graph"),
    "export_graph_is_folder": Row(
        EXPORTS,
        export_with(lambda folder: ((folder / "model.onnx").unlink(), (folder / "model.onnx").mkdir())),
        "model.onnx",
    ),
    "export_no_report": Row(EXPORTS, export_with(without("verification.json")), "verification"),
    "export_report_damaged": Row(
        EXPORTS, export_with(lambda folder: (folder / "verification.json").write_text("{")), "verification.json"
    ),
    "export_python_tag": Row(
        EXPORTS, export_with(deploy_text(f"Deploy: {bad.PYTHON_TAGS['function']}\n")), "deploy.yaml"
    ),
    "export_alias_bomb": Row(EXPORTS, export_with(deploy_text(bad.alias_bomb())), "deploy.yaml"),
    "export_empty": Row(EXPORTS, export_with(deploy_text("")), "deploy.yaml"),
    "export_unknown_key": Row(EXPORTS, export_with(deploy_key("colour", 1)), "unknown key 'colour'"),
    "export_wrong_shape": Row(EXPORTS, export_with(deploy_key("input_shape", [1, 3, HUGE, "x"])), "input_shape"),
    "export_wrong_transform": Row(EXPORTS, export_with(deploy_key("transforms", [{"type": "Rotate"}])), "Rotate"),
    **{f"export_{kind}": Row(EXPORTS, file("x.yaml", bad.NO_PLAIN_FILE[kind]), expected)
       for kind, expected in DEPLOY_KINDS.items()},
    # Flags
    "flag_size_0": Row(number_flags(0), None, "whole number|got 0", code=2),
    "flag_negative": Row(number_flags(-1), None, "whole number|got -1", code=2),
    "flag_beyond_int64": Row(number_flags(HUGE), None, "whole number|got 9999|999999", code=2),
    "flag_text_for_number": Row(number_flags("many"), None, "many", code=2),
    "flag_huge_argument": Row(
        flags(
            **dict.fromkeys(set(COLUMNS) - {"benchmark"}, "in the config or by keyword, see argument_huge"),
            benchmark=["--models", f"{MODEL},head_channels={HUGE}"],
        ),
        None,
        "head_channels",
        code=2,
    ),
    "flag_backend": Row(BACKEND, None, "openvinno.*openvino", code=2),
    "flag_device": Row(DEVICE, None, "cpuu", code=2),
    "flag_precision": Row(PRECISION, None, "fp33", code=2),
    "flag_nul_in_path": Row(path_flags("a\0b"), None, "'a.x00b' cannot be the name", code=2),
    "flag_nul_in_save_dir": Row(save_flags("a\0b"), None, "'a.x00b' cannot be the name", code=2),
    "flag_save_dir_is_file": Row(save_flags("config.yml/x"), None, "config.yml is no folder", code=2),
    "flag_save_dir_is_pipe": Row(
        save_flags("pipe"), lambda desk: os.mkfifo(desk.folder / "pipe"), "pipe is (no folder|a device, a pipe)", code=2
    ),
    "flag_save_dir_is_root": Row(save_flags("/"), None, "/ is (the root|a folder)", code=2),
}  # fmt: skip


def cells() -> Iterator[Any]:
    for name, row in ROWS.items():
        for column in COLUMNS:
            if not isinstance(row.columns[column], str) and not row.cells.get(column, "").startswith("("):
                marks = [pytest.mark.slow] if row.channels != 3 else []  # each network takes seconds to make
                yield pytest.param(name, column, id=f"{name}-{column}", marks=marks)


def test_no_cell_is_empty():
    for name, row in ROWS.items():
        for column in COLUMNS:
            cell = row.cells.get(column, row.columns[column])
            assert callable(cell) or len(cell) > 5, f"{name}, {column}: neither a result nor a reason"
        assert set(row.cells) <= set(COLUMNS) and set(row.columns) == set(COLUMNS), name


def state_of(folder: pathlib.Path) -> dict[str, Any]:
    """Return what lies below a folder; sizes and times say whether a file was changed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if "out" not in path.relative_to(folder).parts or path.is_file():
            status = path.lstat()
            found[str(path.relative_to(folder))] = (status.st_mode, status.st_size, status.st_mtime_ns)
    return found


@pytest.mark.parametrize(("name", "column"), cells())
def test_cell(desk, kits, name, column):
    row = ROWS[name]
    desk.kit = kits(row.channels)
    desk.config()
    made = row.make(desk) if callable(row.make) else None
    expected = row.cells.get(column, row.expected)
    kit_before, root_before = state_of(desk.kit.folder), set(pathlib.Path("/").iterdir())
    try:
        code, _, err, *labels = row.columns[column](desk, made)
    finally:
        left = set(pathlib.Path("/").iterdir()) - root_before
        for path in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert not (desk.folder / bad.MARK).exists(), "code of the input was run"
    assert state_of(desk.kit.folder) == kit_before, "the tool changed its inputs"
    assert not left, "a file was written to the root folder"
    if expected is None:
        assert code == 0 and "error" not in err, err
        if labels and name.startswith("image"):
            assert len(labels) == 1 and np.array_equal(labels[0], expected_labels(desk, made)), "other labels"
    else:
        refused((code, "", err), expected, 1 if column in ("Segmenter", "create_model") else row.code)
        assert written(desk.out) == [], "files of a run that failed"


def expected_labels(desk: Desk, path: pathlib.Path) -> np.ndarray:
    """The labels that the network itself gives an image that OpenCV reads in colour."""
    import paddle

    from paddle_rt.config import load_config, trained_network

    if desk.kit.channels == 3:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1].astype("float32") / 255
        image = (image - np.array(NORMALIZE["mean"])) / np.array(NORMALIZE["std"])
    else:
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).reshape(SIZE, SIZE, -1).astype("float32") / 127.5 - 1
    network = trained_network(load_config(str(desk.kit.folder / "config.yml")), str(desk.kit.weights))
    network.eval()
    batch = paddle.to_tensor(image.transpose(2, 0, 1)[np.newaxis].astype("float32"))
    with paddle.no_grad():
        return network(batch)[0].numpy()[0].argmax(axis=0)
