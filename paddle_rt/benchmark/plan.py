"""The plan of a benchmark: what is measured, on which frames, and in which ways."""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from paddle_rt.errors import UserError, unknown
from paddle_rt.imaging import list_images, read_image
from paddle_rt.inference.engines import UnsupportedError, check_choice
from paddle_rt.registry import list_models
from paddle_rt.yaml_file import parse_yaml

_RENDERED = 6  # frames that are rendered where none are given


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
            are measured together.
        size: (height, width) of the frames.
        checkpoints: NAME=FILE pairs; networks without one get random weights.
        num_classes: The number of classes of the checkpoints.
        backends: The backends to run our graphs in.
        precisions: The precisions to run our graphs in.
        against: "paddleseg" puts PaddleSeg's pipeline with the same weights first, "paddleseg-openvino" its graph in
            OpenVINO, "none" neither.
        beside: Networks that only PaddleSeg has, in the form of `models`, to be measured in the same rounds.
        frames: An image, a folder or a list of images; None for rendered streets.
        threads: CPU threads of every pipeline.
        runs: Rounds whose times count.

    Raises:
        UserError: A network, a backend, a precision or a pair is unknown, or nothing is left to measure.
    """

    models: Sequence[str]
    size: tuple[int, int]
    checkpoints: Sequence[str] = ()
    num_classes: int = 19
    backends: Sequence[str] = ("openvino",)
    precisions: Sequence[str] = ("fp32",)
    against: Sequence[str] = ("paddleseg",)
    beside: Sequence[str] = ()
    frames: str | None = None
    threads: int = 2
    runs: int = 15

    def __post_init__(self) -> None:
        for name in self.groups:
            if name not in list_models():
                raise unknown("model", name, list_models())
        if not self.choices:
            raise UserError(f"nothing to measure: {'; '.join(self.refusals)}")
        _ = self.weights

    @functools.cached_property
    def groups(self) -> dict[str, list[Model]]:
        """The networks by their names."""
        groups: dict[str, list[Model]] = {}
        for text in self.models:
            model = read_model(text)
            groups.setdefault(model.name, []).append(model)
        return groups

    @functools.cached_property
    def weights(self) -> dict[str, str]:
        """Checkpoints by the names of the networks."""
        found = {}
        for pair in self.checkpoints:
            name, equals, file = pair.partition("=")
            if not equals or not file:
                raise UserError(f"--checkpoint takes MODEL=FILE, got {pair!r}")
            if name not in self.groups:
                raise unknown("model in --checkpoint", name, self.groups)
            found[name] = file
        return found

    @functools.cached_property
    def choices(self) -> list[tuple[str, str]]:
        """The pairs of backend and precision that exist on a CPU."""
        return [pair for pair, refusal in self._pairs if refusal is None]

    @functools.cached_property
    def refusals(self) -> list[str]:
        """The reasons why the other pairs do not exist."""
        return [refusal for _, refusal in self._pairs if refusal is not None]

    @functools.cached_property
    def _pairs(self) -> list[tuple[tuple[str, str], str | None]]:
        pairs = [(backend, precision) for backend in self.backends for precision in self.precisions]
        return [(pair, _refusal(*pair)) for pair in pairs]

    @property
    def theirs(self) -> list[str]:
        """The backends of PaddleSeg's pipeline for the counterpart of a network, in the order of the rows."""
        backends = {"paddleseg": "paddle", "paddleseg-openvino": "openvino"}
        return [] if "none" in self.against else [backends[name] for name in sorted(self.against)]


def _refusal(backend: str, precision: str) -> str | None:
    try:
        check_choice(backend, "cpu", precision)
    except UnsupportedError as error:
        return str(error)
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
