"""deploy.yaml: the description of an export. It has PaddleSeg's keys, further graphs, and what the task adds."""

import hashlib
import json
import os
import pathlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import yaml

from paddle_rt.arguments import COLOURS
from paddle_rt.errors import UserError, unknown
from paddle_rt.files import check_plain_file, whole_file
from paddle_rt.imaging.palettes import palette
from paddle_rt.inference.external_data import external_files
from paddle_rt.kinds import check_count
from paddle_rt.yaml_file import read_yaml

FILE = "deploy.yaml"
VERIFICATION = "verification.json"
DEFAULT_TASK = "segmentation"  # the task of a deploy.yaml that names none
TARGETS = ("cpu", "gpu")
_MAX_BYTES, _MAX_VERIFICATION_BYTES = 2**33, 2**24
_REQUIRED = ("transforms", "input_shape", "output_op")


@dataclass(frozen=True)
class Deployment:
    """The contents of a deploy.yaml.

    Args:
        folder: The folder that holds the file; the names of the graphs are relative to it.
        transforms: The validation transforms of the training config.
        input_shape: [N, C, H, W]; None for a length that the graph leaves open.
        output_op: What the graph computes, in the task's words, such as "argmax" or "coarse" for segmentation.
        task: The task, which decides on the predictor.
        input_dtype: "float32" for images [N, C, H, W] after `transforms`; "uint8" for BGR frames [N, H, W, C], which
            the graph normalises itself.
        output_dtype: The data type of the graph's output.
        state_shape: The shape of the state that the graph of a video network takes beside a frame and returns beside
            its logits; the state is zeros before the first frame. None for a graph of single images.
        align_corners: Whether the network's last resize, which the output "coarse" leaves out, aligns the corners.
        model: Paddle's graph; it comes with `params`.
        params: Paddle's parameters.
        onnx: The ONNX graph.
        mnn: MNN's graph.
        int8: The ONNX graph with quantised layers.
        fp16: The ONNX graph in half precision.
        target: The devices that the graphs are made for, "cpu" or "gpu". For "gpu", a Paddle graph that goes with
            `input_dtype` "uint8" takes the frames as float32 [N, C, H, W] with values from 0 to 255.
        num_classes: The number of classes, where known.
        dataset_type: The type of the data set in the config, which determines the colours.
        class_names: One name for each class.
        colors: One RGB colour for each class, where the config gave them.
        settings: Further entries of a task, which its predictor reads.
    """

    folder: pathlib.Path
    transforms: list[dict[str, Any]]
    input_shape: list[int | None]
    output_op: str
    task: str = DEFAULT_TASK
    input_dtype: str = "float32"
    output_dtype: str = ""
    state_shape: list[int] | None = None
    align_corners: bool = False
    model: str | None = None
    params: str | None = None
    onnx: str | None = None
    mnn: str | None = None
    int8: str | None = None
    fp16: str | None = None
    target: str = "cpu"
    num_classes: int | None = None
    dataset_type: str | None = None
    class_names: list[str] = field(default_factory=list)
    colors: list[list[int]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def takes_frames(self) -> bool:
        """Whether the graph takes uint8 frames and normalises them itself."""
        return self.input_dtype == "uint8"

    @property
    def palette(self) -> np.ndarray:
        """The RGB colours in which labels are drawn, uint8 [num_classes, 3]."""
        default = palette(self.dataset_type, self.num_classes or 255)
        return np.array(self.colors, np.uint8) if self.colors else default

    @property
    def names(self) -> list[str]:
        """The names of the classes, of which an export without names has class 0, class 1, ..."""
        return self.class_names or [f"class {number}" for number in range(len(self.palette))]


# The file is written in this order: wherever it is cut off, a required key or the end of a list is missing.
_KEYS = ("task", "model", "params", "onnx", "mnn", "int8", "fp16", "target", "transforms", "input_shape", "input_dtype",
         "output_op", "output_dtype", "state_shape", "align_corners", "settings", "num_classes", "dataset_type",
         "colors", "class_names")  # fmt: skip

_NAMES = ("task", "model", "params", "onnx", "mnn", "int8", "fp16", "output_op", "output_dtype", "dataset_type")
_KINDS = {
    "transforms": (list, "a list"),
    **dict.fromkeys(_NAMES, (str, "a name")),
    "align_corners": (bool, "true or false"),
    "settings": (dict, "a mapping"),
}


def save_deployment(deployment: Deployment) -> None:
    """Write deploy.yaml into the deployment's folder; empty entries that are not required are left out."""
    values = {key: getattr(deployment, key) for key in _KEYS}
    values = {key: value for key, value in values.items() if value or key in _REQUIRED}
    with whole_file(deployment.folder / FILE) as part:
        part.write_text(yaml.safe_dump({"Deploy": values}, sort_keys=False, allow_unicode=True), encoding="utf-8")


def load_deployment(path: str | os.PathLike) -> Deployment:
    """Read and check a deploy.yaml.

    Args:
        path: The file, or the folder that holds it.

    Raises:
        UserError: The file is missing, damaged or incomplete, or it names files that do not exist or lie elsewhere.
    """
    file = pathlib.Path(path)
    file = file / FILE if file.is_dir() else file
    content = read_yaml(file, f"{FILE} that tools/export.py wrote")
    if not isinstance(content, dict) or not isinstance(content.get("Deploy"), dict):
        raise UserError(f"{file} must hold a mapping under the key 'Deploy'; is it complete?")
    values = content["Deploy"]
    try:
        _check(values)
        deployment = Deployment(folder=file.parent, **values)
        _check_files(deployment)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    return deployment


def _check(values: dict[str, Any]) -> None:
    for key in values:
        if key not in _KEYS:
            raise unknown("key", key, _KEYS)
    for key in _REQUIRED:
        if key not in values:
            raise UserError(f"key {key!r} is missing; the file is not whole")
    for key, (kind, words) in _KINDS.items():
        if not isinstance(values.get(key, kind()), kind):
            raise UserError(f"{key} must be {words}, got {values[key]!r}")
    check_input_shape(values["input_shape"])
    state = values.get("state_shape", [1, 1, 1, 1])
    if not isinstance(state, list) or len(state) != 4 or not all(type(n) is int and n >= 1 for n in state):
        raise UserError(f"state_shape must be 4 numbers of at least 1, got {state!r}")
    for key, valid in (("input_dtype", ("float32", "uint8")), ("target", TARGETS)):
        if values.get(key, valid[0]) not in valid:
            raise UserError(f"{key} must be {' or '.join(valid)}, got {values[key]!r}")
    names, number = values.get("class_names", []), values.get("num_classes")
    if number is not None:
        check_count("num_classes", number)
    if not isinstance(names, list) or len(names) != (number or 0) or not all(isinstance(n, str) for n in names):
        raise UserError(f"class_names must be a list of num_classes = {number} names; the file is not whole")
    colours = values.get("colors", [])
    if colours and not (COLOURS.accepts(colours) and len(colours) == number):
        raise UserError(f"colors must be a list of num_classes = {number} colours, each three numbers from 0 to 255")


def check_input_shape(shape: Any) -> None:
    """Raise a UserError unless `shape` is [N, C, H, W] with a number for C and numbers or None for the rest."""

    def is_length(length: Any) -> bool:
        return isinstance(length, int) and not isinstance(length, bool) and length >= 1

    if (
        not isinstance(shape, list | tuple)
        or len(shape) != 4
        or not is_length(shape[1])
        or not all(length is None or is_length(length) for length in shape)
    ):
        raise UserError(
            "input_shape must be [N, C, H, W], whole numbers of at least 1, with None for each of N, H and W that "
            f"stays open, got {shape!r}"
        )


def _check_files(deployment: Deployment) -> None:
    if bool(deployment.model) != bool(deployment.params) or not (deployment.model or deployment.onnx or deployment.mnn):
        raise UserError("it must name a graph: model and params, onnx, or mnn")
    for key in ("model", "params", "onnx", "mnn", "int8", "fp16"):
        name = getattr(deployment, key)
        if name:
            file_of(deployment, name)
    file_of(deployment, VERIFICATION)


def file_of(deployment: Deployment, name: str) -> pathlib.Path:
    """Return the path of a file of an export.

    Args:
        deployment: The export.
        name: The name that a file of the export gives, relative to the folder.

    Raises:
        UserError: The name or a link leads out of the folder, or there is no regular file.
    """
    path = deployment.folder / name
    is_inside = not os.path.isabs(name) and ".." not in pathlib.PurePath(name).parts
    if not is_inside or not os.path.realpath(path).startswith(os.path.realpath(deployment.folder) + os.sep):
        raise UserError(f"{name!r} leads out of the folder {deployment.folder}; an export is one folder")
    if not os.path.lexists(path):
        others = ", ".join(sorted(file.name for file in deployment.folder.iterdir() if file.is_file()))
        raise UserError(f"no file {name} in {deployment.folder}, which holds {others}")
    return check_plain_file(path, "file of the export", _MAX_VERIFICATION_BYTES if name == VERIFICATION else _MAX_BYTES)


def file_digest(path: pathlib.Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_graph(deployment: Deployment, *names: str) -> None:
    """Raise a UserError unless the files are byte for byte the ones that were verified.

    This includes files beside an ONNX graph in which it keeps numbers.
    """
    report = file_of(deployment, VERIFICATION)
    try:
        known = dict(json.loads(report.read_text(encoding="utf-8"))["files"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{report} does not list the files of this export; export it again") from error
    for name in names:
        _check_digest(deployment, name, known)
        for other in sorted(external_files(deployment.folder / name)) if name.endswith(".onnx") else ():
            _check_digest(deployment, other, known)


def _check_digest(deployment: Deployment, name: str, known: dict[str, str]) -> None:
    file = file_of(deployment, name)
    if name not in known:
        raise UserError(f"{VERIFICATION} does not list {file}, a file of this export; export it again")
    if file_digest(file) != known[name]:
        raise UserError(
            f"{file} is not the graph that {VERIFICATION} describes: it is damaged, or from another export; export it "
            "again"
        )
