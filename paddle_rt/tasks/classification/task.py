"""Image classification: its sections of a config, its data, losses, scores and predictions."""

import argparse
import functools
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import paddle

from paddle_rt.arguments import RANGES, check_section
from paddle_rt.components import build_component, check_component
from paddle_rt.errors import UserError, shown
from paddle_rt.kinds import check_count, flag, whole
from paddle_rt.tasks.base import Scores, Task, check_required, register_task
from paddle_rt.tasks.classification import baseline
from paddle_rt.tasks.classification.datasets import DATASETS, ClassifiedImages, StreetObjects
from paddle_rt.tasks.classification.evaluate import evaluate
from paddle_rt.tasks.classification.export import ClassificationExport
from paddle_rt.tasks.classification.losses import LOSSES
from paddle_rt.tasks.classification.metrics import summarize
from paddle_rt.tasks.classification.predict import predict
from paddle_rt.tasks.classification.transforms import (
    BATCH_OPERATORS,
    FOR_SCORES,
    FOR_TRAINING,
    Transform,
    draw_operator,
)

logger = logging.getLogger(__name__)

_SECTIONS = ("train_dataset", "val_dataset")
_OPERATORS = "batch_transform_ops"


@register_task
class ClassificationTask(Task):
    """A class for each image.

    Args:
        config: The merged config, checked by `check`. Its `train_dataset` may have `batch_transform_ops`, of which one
            is drawn for each batch; the other names of data sets, transforms and losses are PaddleClas's too.
    """

    name = "classification"
    config_keys = (*_SECTIONS, "loss")
    export_class = ClassificationExport

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self.batch_size, self.with_baseline, self.topk = 32, False, 5
        self.operators = [
            build_component(f"train_dataset.{_OPERATORS}[{position}]", section, BATCH_OPERATORS)
            for position, section in enumerate(config["train_dataset"].get(_OPERATORS) or [])
        ]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.config["model"]["num_classes"]

    @classmethod
    def add_flags(cls, parser: argparse.ArgumentParser, tool: str) -> None:
        """Add the flags of classification to "val" or "predict"."""
        if tool == "val":
            size = flag(RANGES["config"]["batch_size"])
            parser.add_argument("--batch_size", type=size, default=32, help="images that run together")
            text = "also score a linear classifier of colour histograms, fitted to train_dataset"
            parser.add_argument("--baseline", action="store_true", help=text)
        elif tool == "predict":
            parser.add_argument("--topk", type=flag(whole(1, 1000)), default=5, help="classes of each image")

    def configure(self, arguments: argparse.Namespace) -> None:
        """Take over the values of the flags that `add_flags` added."""
        if "baseline" in arguments:
            self.batch_size, self.with_baseline = arguments.batch_size, arguments.baseline
        if "topk" in arguments:
            self.topk = arguments.topk

    @classmethod
    def check(cls, config: dict[str, Any]) -> None:
        """Check the sections of classification, and add the number of classes that the data set determines.

        Raises:
            UserError: A key, a type or a value in them is missing or wrong, or sections contradict each other.
        """
        check_required(config, cls.name)
        for key in _SECTIONS:
            if key in config:
                _check_dataset(key, config[key])
        _check_losses(config["loss"])
        _complete(config)

    def build_data(self, split: str) -> ClassifiedImages:
        """Build the data set of "train" or "val".

        Raises:
            UserError: The config has no such data set, or its files are missing.
        """
        part = f"{split}_dataset"
        if part not in self.config:
            raise UserError(f"the config has no {part}")
        section = {key: value for key, value in self.config[part].items() if key != _OPERATORS}
        dataset = build_component(part, section, {**DATASETS, **FOR_SCORES, **FOR_TRAINING})
        dataset.training = split == "train"
        return dataset

    def check_data(self, train_data: ClassifiedImages, val_data: ClassifiedImages | None, batch_size: int) -> None:
        """Check that the classes of both data sets are the same.

        Raises:
            UserError: They are not.
        """
        for a, b in zip(train_data.class_names, val_data.class_names if val_data is not None else [], strict=False):
            if a != b:
                raise UserError(f"train_dataset has a class {a!r} where val_dataset has {b!r}; both need the same ones")

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Make a batch, and mix its images where the config asks for it.

        Returns:
            "img" [B, 3, H, W] and "label" [B]; in a mixed batch also "label_2" [B], and in "share" [B] what is left of
            the first image of each.
        """
        batch = super().collate([{key: item[key] for key in ("img", "label")} for item in items])
        rng = np.random.default_rng([int(item["draw"]) for item in items])
        operator = draw_operator(self.operators, rng)
        if operator is not None:
            order = rng.permutation(len(items))
            batch["img"], share = operator(batch["img"], order, rng)
            batch |= {"label_2": batch["label"][order], "share": np.full(len(items), share, np.float32)}
        return batch

    def losses(self, outputs: list[paddle.Tensor], batch: Mapping[str, Any]) -> list[paddle.Tensor]:
        """Compute the weighted losses of a training batch.

        Args:
            outputs: Logits [B, C], one for each entry of the config's `loss`.
            batch: What `collate` returned.

        Raises:
            UserError: The config has another number of losses.
        """
        coefficients = self.config["loss"]["coef"]
        if len(outputs) != len(coefficients):
            raise UserError(
                f"the model gives {len(outputs)} outputs while training, but loss.coef has {len(coefficients)} entries"
            )
        truths = paddle.nn.functional.one_hot(batch["label"], self.num_classes)
        if "share" in batch:
            share = batch["share"].unsqueeze(1)
            truths = share * truths + (1 - share) * paddle.nn.functional.one_hot(batch["label_2"], self.num_classes)
        pairs = zip(outputs, self._losses, coefficients, strict=True)
        return [weight * loss(logits.astype("float32"), truths) for logits, loss, weight in pairs]

    @functools.cached_property
    def _losses(self) -> list[Any]:
        types = self.config["loss"]["types"]
        return [build_component(f"loss.types[{position}]", section, LOSSES) for position, section in enumerate(types)]

    def evaluate(self, network: paddle.nn.Layer, dataset: ClassifiedImages, num_workers: int = 0) -> Scores:
        """Score a network on a data set; top-1 picks the best model."""
        scores = summarize(*evaluate(network, dataset, self.batch_size, num_workers), dataset.class_names)
        if self.with_baseline:
            colours = baseline.score(self.build_data("train"), dataset)
            scores.report["colour_histograms_top1"] = colours
            scores.details.append(f"[EVAL] A linear classifier of colour histograms: top1: {colours:.4f}")
        return scores

    def predict(self, network: paddle.nn.Layer, image_path: str, save_dir: str) -> None:
        """Classify an image, a folder or a list of images and write a table; see `predict.predict`."""
        predict(network, self._build_transforms(), image_path, save_dir, self._class_names(), self.topk)

    def _build_transforms(self) -> list[Transform]:
        return [
            build_component(f"val_dataset.transforms[{position}]", step, FOR_SCORES)
            for position, step in enumerate(self._val_section()["transforms"])
        ]

    def _val_section(self) -> Mapping[str, Any]:
        if "val_dataset" not in self.config:
            raise UserError("the config has no val_dataset, whose transforms prepare an image for the network")
        return self.config["val_dataset"]

    def _class_names(self) -> list[str]:
        """Return the names of the classes, or their numbers where the files that tell them are not there."""
        section = self._val_section()
        try:
            names = DATASETS[section["type"]].names(section)
        except UserError as error:
            logger.warning("classes get numbers for names: %s", error)
            return [f"class {label}" for label in range(self.num_classes)]
        if len(names) != self.num_classes:
            raise UserError(f"val_dataset has {len(names)} classes, but model.num_classes is {self.num_classes}")
        return names

    def export_spec(self) -> ClassificationExport:
        """Return what the exports of the config's network look like.

        Raises:
            UserError: The config has no validation data set.
        """
        return ClassificationExport(self._val_section()["transforms"], self._class_names())

    def raw_samples(self, split: str, number: int) -> list[tuple[np.ndarray, int]]:
        """Return frames and classes of a split, evenly spaced.

        Raises:
            UserError: The config has no such split, or its files are missing.
        """
        dataset = self.build_data(split)
        indices = np.unique(np.linspace(0, len(dataset) - 1, min(number, len(dataset))).astype(int)).tolist()
        return [(dataset.frame(index), int(dataset.labels[index])) for index in indices]


def _check_dataset(key: str, section: Any) -> None:
    is_training = key == "train_dataset"
    transforms = {**FOR_SCORES, **FOR_TRAINING} if is_training else FOR_SCORES
    if is_training and _OPERATORS in section:
        operators = section[_OPERATORS] or []
        if not isinstance(operators, list):
            raise UserError(f"{key}.{_OPERATORS} must be a list, got {shown(operators)}")
        for position, operator in enumerate(operators):
            check_component(f"{key}.{_OPERATORS}[{position}]", operator, BATCH_OPERATORS)
        total = sum(operator.get("prob", 1.0) for operator in operators)
        if total > 1 + 1e-9:
            raise UserError(
                f"{key}.{_OPERATORS}: the sum of prob is {total:g}; one operator is drawn, so it is at most 1"
            )
        section = {name: value for name, value in section.items() if name != _OPERATORS}
    check_component(key, section, DATASETS, {"transforms": transforms}, supplied=["num_classes"])
    names = [step["type"] for step in section["transforms"]]
    places = [position for position, name in enumerate(names) if name in ("Normalize", "NormalizeImage")]
    if not is_training and places not in ([], [len(names) - 1]):
        raise UserError(f"{key}.transforms: NormalizeImage stands last and once, got {', '.join(names)}")
    if is_training and places and any(name not in ("RandomErasing",) for name in names[places[0] + 1 :]):
        raise UserError(
            f"{key}.transforms: RandomErasing alone may stand behind NormalizeImage, got {', '.join(names)}"
        )


def _check_losses(loss: dict[str, Any]) -> None:
    check_section("loss", loss, RANGES["loss"], ("types", "coef"), "loss key")
    for position, item in enumerate(loss["types"]):
        check_component(f"loss.types[{position}]", item, LOSSES)
    if len(loss["types"]) != len(loss["coef"]) or not loss["types"]:
        raise UserError(f"loss has {len(loss['types'])} types for {len(loss['coef'])} coefficients; give as many")


def _complete(config: dict[str, Any]) -> None:
    """Give the model and the data sets the number of classes, which one of them has to determine."""
    sections = {key: config[key] for key in _SECTIONS if key in config}
    numbers = {"model": config["model"].get("num_classes")}
    for key, section in sections.items():
        numbers[key] = section.get("num_classes", DATASETS[section["type"]].NUM_CLASSES)
    known = {key: number for key, number in numbers.items() if number is not None}
    for key, number in known.items():
        check_count(f"{key}.num_classes", number, 2)
    if not known:
        raise UserError("model.num_classes is missing: ImageFolder does not determine it before its folders are read")
    if len(set(known.values())) > 1:
        raise UserError(
            f"the numbers of classes differ: {', '.join(f'{key} {number}' for key, number in known.items())}"
        )
    number = next(iter(known.values()))
    if config["model"].get("in_channels", 3) != 3:
        raise UserError(f"model.in_channels is {config['model']['in_channels']}, but images have 3 channels")
    config["model"]["num_classes"] = number
    for section in sections.values():
        if section["type"] != StreetObjects.__name__:
            section["num_classes"] = number
