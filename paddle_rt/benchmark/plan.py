"""The plan of a benchmark: what is measured, on which frames, and in which ways."""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from paddle_rt.errors import UserError, unknown
from paddle_rt.imaging import list_images, read_image
from paddle_rt.inference import load_deployment
from paddle_rt.inference.engines import UnsupportedError, check_choice
from paddle_rt.registry import list_models
from paddle_rt.yaml_file import parse_yaml

_RENDERED = 6  # frames that are rendered where none are given
# The backends and precisions of a device where none are named. OpenVINO's device "gpu" is Intel's.
_USUAL = {
    "cpu": (("openvino", "mnn", "onnxruntime", "paddle"), ("fp32", "bf16", "int8")),
    "gpu": (("onnxruntime", "paddle"), ("fp32", "fp16")),
    "tensorrt": (("onnxruntime", "paddle"), ("fp32", "fp16", "int8")),
}
_RUNS = {"cpu": 15, "gpu": 200}  # by target


class Choice(NamedTuple):
    """One way to run a graph.

    Args:
        backend: The backend.
        device: The device.
        precision: The precision.
    """

    backend: str
    device: str
    precision: str

    @property
    def target(self) -> str:
        """The target of the exports for the device: "cpu", or "gpu" for an NVIDIA GPU with and without TensorRT."""
        return "cpu" if self.device == "cpu" else "gpu"


@dataclass(frozen=True)
class Model:
    """A network with arguments.

    Args:
        text: The network as it was given: NAME or NAME:key=value,key=value.
        name: The network's name.
        arguments: Its arguments.
    """

    text: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """What a benchmark measures.

    Args:
        models: Networks of `paddle_rt.list_models()`, each NAME or NAME:key=value,key=value. Those that share a name
            are measured together. With `exports`, they name the network of each export, for PaddleSeg's counterpart.
        size: (height, width) of the frames.
        checkpoints: NAME=FILE pairs; networks without one get random weights.
        num_classes: The number of classes of the checkpoints.
        devices: The devices to run our graphs on.
        backends: The backends to run our graphs in; None for those that are usual on a device.
        precisions: The precisions to run our graphs in; None for those that are usual on a device.
        against: "paddleseg" puts PaddleSeg's pipeline with the same weights first, "paddleseg-openvino" its graph in
            OpenVINO, "none" neither.
        beside: Networks that only PaddleSeg has, in the form of `models`, to be measured in the same rounds.
        exports: Folders of exports, which are measured as they are, in place of exports of `models`.
        frames: An image, a folder or a list of images; None for rendered streets.
        threads: CPU threads of every pipeline.
        runs: Runs of a pipeline whose times count, in each block on a GPU; None for what is usual on a device.

    Raises:
        UserError: A network, a device, a backend, a precision, an export or a combination is unknown, or nothing is
            left to measure.
    """

    models: Sequence[str]
    size: tuple[int, int]
    checkpoints: Sequence[str] = ()
    num_classes: int = 19
    devices: Sequence[str] = ("cpu",)
    backends: Sequence[str] | None = None
    precisions: Sequence[str] | None = None
    against: Sequence[str] = ("paddleseg",)
    beside: Sequence[str] = ()
    exports: Sequence[str] = ()
    frames: str | None = None
    threads: int = 2
    runs: int | None = None

    def __post_init__(self) -> None:
        for model in map(read_model, self.models):
            if model.name not in list_models():
                raise unknown("model", model.name, list_models())
        pose = [model.name for model in map(read_model, self.models) if model.name in list_models("pose")]
        pose += [folder for folder in self.exports if load_deployment(folder).task == "pose"]
        if pose:
            raise UserError(f"{pose[0]} takes frames with boxes: paddle-rt benchmark_pose measures it")
        if self.exports and len(self.models) != (len(self.exports) if self.compares else 0):
            raise UserError(
                f"got {len(self.exports)} exports and {len(self.models)} models: with exports, --models names the "
                "network of each one, in their order, and only for --against paddleseg"
            )
        _ = self.weights
        for model in self.models if self.exports else ():
            if read_model(model).name not in self.weights:
                raise UserError(
                    f"the weights of the exports are needed for PaddleSeg's network: --checkpoint {model}=FILE"
                )
        if not self.choices:
            raise UserError(f"nothing to measure: {'; '.join(self.refusals)}")
        for folder in self.exports:
            made_for = load_deployment(folder).target
            if self.targets != [made_for]:
                wanted = " and ".join(self.targets)
                raise UserError(
                    f"{folder} is for the target {made_for}; make another with tools/export.py --target {wanted}"
                )

    @property
    def compares(self) -> bool:
        """Whether PaddleSeg's counterparts are measured."""
        return "none" not in self.against

    @property
    def needs_paddle(self) -> bool:
        """Whether anything but exports in other engines is measured."""
        return (
            not self.exports or self.compares or bool(self.beside) or any(c.backend == "paddle" for c in self.choices)
        )

    @functools.cached_property
    def groups(self) -> dict[str, list[Model]]:
        """The networks that are measured together by their names, or each export under its folder's name."""
        if self.exports:
            return {folder: [Model(folder, folder, {})] for folder in self.exports}
        groups: dict[str, list[Model]] = {}
        for text in self.models:
            model = read_model(text)
            groups.setdefault(model.name, []).append(model)
        return groups

    @functools.cached_property
    def weights(self) -> dict[str, str]:
        """Checkpoints by the names of the networks."""
        found = {}
        names = [read_model(text).name for text in self.models]
        for pair in self.checkpoints:
            name, equals, file = pair.partition("=")
            if not equals or not file:
                raise UserError(f"--checkpoint takes MODEL=FILE, got {pair!r}")
            if name not in names:
                raise unknown("model in --checkpoint", name, names)
            found[name] = file
        return found

    @functools.cached_property
    def choices(self) -> list[Choice]:
        """The combinations of backend, device and precision that exist."""
        return [choice for choice, refusal in self._combinations if refusal is None]

    @functools.cached_property
    def refusals(self) -> list[str]:
        """The reasons why the other combinations do not exist."""
        return [refusal for _, refusal in self._combinations if refusal is not None]

    @functools.cached_property
    def _combinations(self) -> list[tuple[Choice, str | None]]:
        found = []
        for device in self.devices:
            backends, precisions = _USUAL.get(device, _USUAL["cpu"])  # an unknown device is refused below
            found += [
                Choice(backend, device, precision)
                for backend in self.backends or backends
                for precision in self.precisions or precisions
            ]
        return [(choice, _refusal(choice)) for choice in found]

    @property
    def targets(self) -> list[str]:
        """The targets of the exports that are measured."""
        return list(dict.fromkeys(choice.target for choice in self.choices))

    def on(self, target: str) -> list[Choice]:
        """Return the choices whose devices run the exports of a target, "cpu" or "gpu"."""
        return [choice for choice in self.choices if choice.target == target]

    def theirs(self, target: str) -> list[Choice]:
        """Return how PaddleSeg's pipeline runs the counterpart of a network, in the order of the rows.

        Its deployment has one way on an NVIDIA GPU: Paddle 3 ignores the TensorRT that it asks for.
        """
        backends = {"paddleseg": "paddle", "paddleseg-openvino": "openvino"}
        choices = [Choice(backends[name], target, "fp32") for name in sorted(self.against) if name != "none"]
        return [c for c in choices if self.compares and (target == "cpu" or c.backend == "paddle")]

    def runs_on(self, target: str) -> int:
        """Return the number of runs whose times count."""
        return self.runs or _RUNS[target]

    @property
    def short(self) -> bool:
        """Whether the runs are too few for a GPU."""
        return "gpu" in self.targets and self.runs_on("gpu") < _RUNS["gpu"]


def export_size(folders: Sequence[str]) -> tuple[int, int]:
    """Return the fixed (height, width) that all exports take.

    Raises:
        UserError: A folder holds no export, a size is open, or they differ.
    """
    sizes = {folder: tuple(load_deployment(folder).input_shape[2:]) for folder in folders}
    first = next(iter(sizes.values()))
    if None in first or set(sizes.values()) != {first}:
        found = "; ".join(
            f"{folder} takes {' x '.join(str(n or 'any') for n in size)}" for folder, size in sizes.items()
        )
        raise UserError(f"give the size of the frames with --size, since {found}")
    return first


def _refusal(choice: Choice) -> str | None:
    try:
        check_choice(*choice)
    except UnsupportedError as error:
        return str(error)
    if choice.backend == "openvino" and choice.target == "gpu":
        return "openvino's gpu is Intel's; this benchmark measures NVIDIA's"
    return None


def read_model(text: str) -> Model:
    """Read NAME or NAME:key=value,key=value.

    Raises:
        UserError: An argument is not key=value.
    """
    name, _, rest = text.partition(":")
    arguments = {}
    for item in re.split(r",(?![^\[]*\])", rest) if rest else []:  # a comma between brackets is part of a value
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise UserError(f"a model is given as NAME or NAME:key=value,key=value, got {text!r}")
        arguments[key] = parse_yaml(value, f"the argument {key} of {name}")
    return Model(text, name, arguments)


def load_frames(plan: Plan) -> list[np.ndarray]:
    """Return the frames of a plan, uint8 BGR [H, W, 3], all of its size.

    Raises:
        UserError: No image is found, or one cannot be read.
    """
    height, width = plan.size
    if plan.frames is not None:
        images = [read_image(file) for file in list_images(plan.frames)[0]]
        return [cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in images]
    from paddle_rt.streetscenes.render import render
    from paddle_rt.streetscenes.scenes import make_scene

    return [render(make_scene(100_000 + index), height, width)[0] for index in range(_RENDERED)]
