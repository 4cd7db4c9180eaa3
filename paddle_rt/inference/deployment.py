"""deploy.yaml: what an export says about itself. PaddleSeg's keys, plus `onnx` and the classes."""

import hashlib
import json
import os
import pathlib
from dataclasses import dataclass, field
from typing import Any

import yaml

from paddle_rt.errors import UserError, unknown
from paddle_rt.files import whole_file

FILE = "deploy.yaml"
VERIFICATION = "verification.json"
OUTPUT_OPS = ("argmax", "softmax", "none", "coarse")
_REQUIRED = ("transforms", "input_shape", "output_op")


@dataclass(frozen=True)
class Deployment:
    """The contents of a deploy.yaml.

    Args:
        folder: Where the file lies; the graphs' names are relative to it.
        model, params: Paddle's graph and parameters, both or neither.
        onnx: The ONNX graph.
        int8: The ONNX graph with quantised layers.
        transforms: The validation transforms of the training config.
        input_shape: [N, C, H, W]; None for what the graph leaves open.
        input_dtype: "float32" for images [N, C, H, W] as `transforms` leave them; "uint8" for frames [N, H, W, C], BGR,
            which the graph normalises itself.
        output_op: "argmax" (labels), "softmax" (probabilities), "none" (logits) or "coarse" (logits before the model's
            last resize).
        state_shape: Of what a video's graph takes beside a frame and gives beside logits: [1, earlier frames that it
            reads, channels, keys], zeros before the first frame; None for a graph of images.
        align_corners: How the model's last resize places its pixels, which "coarse" leaves to who runs the graph.
        output_dtype: Of the graph's output.
        num_classes: Number of classes, where known.
        dataset_type: The data set's type in the config, which names the colours.
        class_names: One name for each class.
    """

    folder: pathlib.Path
    transforms: list[dict[str, Any]]
    input_shape: list[int | None]
    output_op: str
    input_dtype: str = "float32"
    output_dtype: str = ""
    state_shape: list[int] | None = None
    align_corners: bool = False
    model: str | None = None
    params: str | None = None
    onnx: str | None = None
    int8: str | None = None
    num_classes: int | None = None
    dataset_type: str | None = None
    class_names: list[str] = field(default_factory=list)


# In this order the file is written: whatever end is cut off, something that is required is missing.
_KEYS = ("model", "params", "onnx", "int8", "transforms", "input_shape", "input_dtype", "output_op", "output_dtype",
         "state_shape", "align_corners", "num_classes", "dataset_type", "class_names")  # fmt: skip


def save_deployment(deployment: Deployment) -> None:
    """Write deploy.yaml into the deployment's folder; empty entries are left out."""
    values = {key: getattr(deployment, key) for key in _KEYS if getattr(deployment, key)}
    with whole_file(deployment.folder / FILE) as part:
        part.write_text(yaml.safe_dump({"Deploy": values}, sort_keys=False, allow_unicode=True), encoding="utf-8")


def load_deployment(path: str | os.PathLike) -> Deployment:
    """Read and check a deploy.yaml.

    Args:
        path: The file, or the folder that holds it.

    Raises:
        UserError: It is missing, damaged or incomplete, or names files that are not there.
    """
    file = pathlib.Path(path)
    file = file / FILE if file.is_dir() else file
    if not file.is_file():
        raise UserError(f"no {FILE} at {file}; expected what tools/export.py wrote")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is damaged: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("Deploy"), dict):
        raise UserError(f"{file} must hold a mapping under the key 'Deploy'; is it a whole {FILE}?")
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
    if values["output_op"] not in OUTPUT_OPS:
        raise unknown("output_op", values["output_op"], OUTPUT_OPS)
    if not isinstance(values["transforms"], list):
        raise UserError(f"transforms must be a list, got {values['transforms']!r}")
    check_input_shape(values["input_shape"])
    state = values.get("state_shape", [1, 1, 1, 1])
    if not isinstance(state, list) or len(state) != 4 or not all(type(n) is int and n >= 1 for n in state):
        raise UserError(f"state_shape must be 4 numbers of at least 1, got {state!r}")
    if "state_shape" in values and (values["output_op"] != "coarse" or values["input_shape"][0] != 1):
        raise UserError("a graph with a state takes one frame and gives coarse logits; the file is of another export")
    if values.get("input_dtype", "float32") != ("uint8" if values["output_op"] == "coarse" else "float32"):
        raise UserError(f"input_dtype {values.get('input_dtype')!r} does not go with output_op {values['output_op']!r}")
    for key in ("model", "params", "onnx", "int8", "dataset_type", "output_dtype"):
        if not isinstance(values.get(key, ""), str):
            raise UserError(f"{key} must be a name, got {values[key]!r}")
    if not isinstance(values.get("align_corners", False), bool):
        raise UserError(f"align_corners must be true or false, got {values['align_corners']!r}")
    names, number = values.get("class_names", []), values.get("num_classes")
    if number is not None and (type(number) is not int or number < 1):
        raise UserError(f"num_classes must be a whole number of at least 1, got {number!r}")
    if not isinstance(names, list) or len(names) != (number or 0) or not all(isinstance(n, str) for n in names):
        raise UserError(f"class_names must be a list of num_classes = {number} names; the file is not whole")


def check_input_shape(shape: Any) -> None:
    """Raise a UserError unless `shape` is [N, C, H, W] with a number for C and numbers or None for the rest."""

    def fits(length: Any) -> bool:
        return isinstance(length, int) and not isinstance(length, bool) and length >= 1

    if (
        not isinstance(shape, list | tuple)
        or len(shape) != 4
        or not fits(shape[1])
        or not all(length is None or fits(length) for length in shape)
    ):
        raise UserError(
            "input_shape must be [N, C, H, W], whole numbers of at least 1, with None for what stays open in N, H and "
            f"W, got {shape!r}"
        )


def _check_files(deployment: Deployment) -> None:
    if bool(deployment.model) != bool(deployment.params) or not (deployment.model or deployment.onnx):
        raise UserError("it must name model and params, or onnx, or all three")
    for name in (deployment.model, deployment.params, deployment.onnx, deployment.int8, VERIFICATION):
        if name and not (deployment.folder / name).is_file():
            others = ", ".join(sorted(p.name for p in deployment.folder.iterdir() if p.is_file()))
            raise UserError(f"no file {name} beside it; there are {others}")


def file_digest(path: pathlib.Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_graph(deployment: Deployment, *names: str) -> None:
    """Raise a UserError unless the files are the ones that were verified, to the byte."""
    report = deployment.folder / VERIFICATION
    try:
        known = json.loads(report.read_text(encoding="utf-8"))["files"]
        expected = [known[name] for name in names]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{report} does not tell the files of this export ({error!r}); export it again") from error
    for name, digest in zip(names, expected, strict=True):
        if file_digest(deployment.folder / name) != digest:
            raise UserError(
                f"{deployment.folder / name} is not the graph that {report.name} speaks of: damaged, or of another "
                "export; export it again"
            )
