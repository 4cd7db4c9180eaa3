"""The description of every component's arguments: kinds of values, defaults, and the table of ranges."""

import argparse
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest

from paddle_rt import registry
from paddle_rt.arguments import RANGES, check_arguments, describe
from paddle_rt.config.optimizer import SCHEDULERS
from paddle_rt.errors import UserError
from paddle_rt.kinds import NULL, choice, either, flag, kind_of_annotation, listed, number, whole
from paddle_rt.paddleseg.components import components
from paddle_rt.tasks.classification import datasets, losses, transforms
from paddle_rt.tasks.pose import datasets as pose_datasets
from paddle_rt.tasks.pose import losses as pose_losses
from paddle_rt.tasks.pose import transforms as pose_transforms
from paddle_rt.tasks.segmentation.datasets import dataset_catalogue
from paddle_rt.tasks.segmentation.losses import LOSSES

SECTIONS = {"any", "config", "loss", "test_config", "optimizer", "parameter group", "warm-up"}
NOT_IN_CATALOGUES = {"ClipGradByValue", "ClipGradByNorm", "ClipGradByGlobalNorm"}


def catalogues() -> dict[str, Callable]:
    ours = {entry.class_name: entry.network_class() for entry in registry.ENTRIES.values()}
    theirs = [components(kind) for kind in ("networks", "backbones", "transforms")]
    classes = (datasets.DATASETS, losses.LOSSES, transforms.FOR_TRAINING, transforms.FOR_SCORES)
    pose = (pose_datasets.DATASETS, pose_losses.LOSSES, pose_transforms.FOR_SCORES, pose_transforms.FOR_TRAINING)
    parts = (*classes, *pose, transforms.BATCH_OPERATORS, *theirs, dataset_catalogue(), LOSSES, SCHEDULERS, ours)
    return {name: component for part in parts for name, component in part.items()}


def test_every_default_of_every_component_is_valid():
    checked, wrong = 0, []
    for name, component in catalogues().items():
        kinds = describe(component).kinds
        for parameter in inspect.signature(component).parameters.values():
            if parameter.default is not parameter.empty and parameter.name in kinds:
                checked += 1
                kind = kinds[parameter.name]
                if not kind.accepts(parameter.default):
                    wrong.append(f"{name}.{parameter.name} = {parameter.default!r} is not {kind.valid}")
    assert not wrong, wrong
    assert checked > 500, checked


def test_no_component_takes_arguments_that_it_does_not_know():
    assert [name for name, component in catalogues().items() if describe(component).is_open] == []
    assert {"patch_size", "n_points"} <= set(describe(components("backbones")["ViTAdapter"]).kinds)


def test_every_row_of_the_table_is_of_an_argument():
    described = {component.__name__: describe(component).kinds for component in catalogues().values()}
    assert set(RANGES) - set(described) == SECTIONS | NOT_IN_CATALOGUES
    stray = [(name, key) for name, row in RANGES.items() for key in row if key not in described.get(name, row)]
    assert not stray, stray
    unused = [key for key in RANGES["any"] if not any(key in kinds for kinds in described.values())]
    assert not unused, unused


KINDS = {
    "whole": (whole(1, 9), [1, 9], [0, 10, 1.0, True, "1", None, 10**30], "a whole number from 1 to 9"),
    "any whole": (whole(), [-(2**63) + 1, 2**63 - 1], [2**63], "a whole number"),
    "number": (number(0, above=True), [1, 0.5], [0, -1, float("nan"), float("inf"), True, "1"], "a number above 0"),
    "rate": (number(0, 1, below=True), [0, 0.9], [1, -0.1], "a number of at least 0 and below 1"),
    "choice": (choice("a", 1), ["a", 1], ["b", True, 1.0, []], "'a' or 1"),
    "list": (listed(whole(1), 2), [[1, 2], (1, 2)], [[1], [1, 0], "12", {1: 2, 2: 3}, 1], "a list of 2 items, each"),
    "either": (either(number(), NULL), [1.5, None], ["x", False], "null or a number"),
    "annotated": (kind_of_annotation(Sequence[float] | None), [None, [1, 2.5]], [[None], "x"], "null or a list of any"),
    "literal": (kind_of_annotation(Literal["a", "b"]), ["a"], ["c", 1], "'a' or 'b'"),
    "pair": (kind_of_annotation(tuple[int, float]), [[1, 2]], [[1], [1, 2, 3]], "a list of 2 items"),
    "mapping": (kind_of_annotation(dict[str, Any]), [{}], [[], "x"], "a mapping"),
    "no function": (kind_of_annotation(Callable | None), [None], [len, "x"], "null"),
    "function": (kind_of_annotation(Callable[[int], float]), [], ["x", None, len], "left out"),
    "anything": (kind_of_annotation(object), ["x", 1, None], [], "anything"),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_kinds(name):
    kind, good, bad, valid = KINDS[name]
    assert kind.valid.startswith(valid), kind.valid
    assert [value for value in good if not kind.accepts(value)] == []
    assert [value for value in bad if kind.accepts(value)] == []


def test_flags_are_read_as_plain_numbers():
    assert [flag(number())(text) for text in ("1", "-2.5", ".5", "1e-3", "+3")] == [1, -2.5, 0.5, 1e-3, 3]
    for text in ("nan", "inf", "1e999", "1_0", "٣", "", " 1", "0x1", "9" * 5000):
        with pytest.raises(argparse.ArgumentTypeError, match="expected a number, got") as raised:
            flag(number())(text)
        assert len(str(raised.value)) < 200


class Network:
    """A component of a user, described by its annotations."""

    def __init__(self, num_classes: int, width: int = 8, act: Callable | None = None, head: object = None) -> None:
        self.arguments = (num_classes, width, act, head)


def build(**options: Any) -> Network:
    """A function that hands all that it is given to a class, as PaddleSeg has many."""
    return Network(num_classes=3, **options)


def test_arguments_of_a_component_of_a_user():
    check_arguments("model", lambda **options: options, {"anything": 1})
    check_arguments("model", Network, {"num_classes": 3, "head": [1, "x"]})
    check_arguments("model", Network, {}, supplied=["num_classes"])
    check_arguments("model", build, {"width": 3})
    for component, arguments, message in (
        (Network, {}, "model.num_classes is missing; it must be a whole number from 1 to 65536"),
        (Network, {"num_classes": 3, "width": "x"}, "model.width must be a whole number, got 'x'"),
        (Network, {"num_classes": 3, "width": 2**63}, "model.width must be a whole number, got 9223372036854775808"),
        (Network, {"num_classes": 10**5000}, "model.num_classes must be .*, got a number of thousands of digits"),
        (build, {"widht": 3}, "model: unknown argument of build 'widht', did you mean 'width'"),
        (build, {"width": None}, "model.width must be a whole number, got None"),
    ):
        with pytest.raises(UserError, match=message) as raised:
            check_arguments("model", component, arguments)
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 200
