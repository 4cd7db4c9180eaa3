"""Semantic segmentation: its sections of a config, its data, losses, scores and predictions."""

import argparse
import copy
import functools
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import paddle

from paddle_rt.analysis import STOPS, Report
from paddle_rt.arguments import RANGES, check_section
from paddle_rt.components import build_component, check_component, takes_clips
from paddle_rt.errors import UserError, unknown
from paddle_rt.imaging import palettes
from paddle_rt.imaging.charts import confusion_chart
from paddle_rt.imaging.view import View, add_view_flags, view_of_flags
from paddle_rt.kinds import flag, whole
from paddle_rt.tasks.base import Scores, Task, check_required, register_task
from paddle_rt.tasks.segmentation import tta
from paddle_rt.tasks.segmentation.completion import DATASETS, classes_of, complete
from paddle_rt.tasks.segmentation.data_check import analyse_config, batch_findings, check_data
from paddle_rt.tasks.segmentation.datasets import LabelledImages, dataset_catalogue
from paddle_rt.tasks.segmentation.evaluate import evaluate, summarize
from paddle_rt.tasks.segmentation.export import ExportingMixin
from paddle_rt.tasks.segmentation.losses import LOSSES, BCELoss, Loss, MixedLoss
from paddle_rt.tasks.segmentation.metrics import ABSENT_CLASS_RULES
from paddle_rt.tasks.segmentation.predict import predict
from paddle_rt.tasks.segmentation.sampling import SAMPLERS, class_balanced_weights
from paddle_rt.tasks.segmentation.street_dataset import StreetScenes
from paddle_rt.tasks.segmentation.transforms import Compose, transform_catalogue
from paddle_rt.tasks.segmentation.worst import WorstImages, draw_worst

logger = logging.getLogger(__name__)


@register_task
class SegmentationTask(ExportingMixin, Task):
    """A class for each pixel.

    Args:
        config: The merged config, checked by `check`. Its `train_dataset`, `val_dataset`, `loss` and `test_config` are
            those of PaddleSeg; `test_dataset` takes the place of `val_dataset` for `val.py --split test`.
    """

    name = "segmentation"
    config_keys = ("train_dataset", "val_dataset", "test_dataset", "loss", "test_config", "sampler")

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        test_config = config.get("test_config", {})
        self.augmentation = tta.from_test_config(test_config)
        # PaddleSeg's predict averages over scales and flips for its own flags alone.
        self.predict_augmentation = tta.from_test_config({**test_config, "aug_eval": False})
        self.batch_size, self.absent_class = 1, "exclude"
        self.view: View | None = None
        self.worst, self.draws_confusion = 0, False
        self.given_names, self.given_colours = classes_of(config)
        default = palettes.palette(config["train_dataset"]["type"], self.num_classes)
        self.palette = np.array(self.given_colours, np.uint8) if self.given_colours else default

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.config["model"]["num_classes"]

    @property
    def class_names(self) -> list[str]:
        """Names of the classes of the training data, or their numbers where it names none."""
        return self.given_names or palettes.class_names(self.config["train_dataset"]["type"], self.num_classes)

    @classmethod
    def add_flags(cls, parser: argparse.ArgumentParser, tool: str) -> None:
        """Add the flags of segmentation to "val" or "predict"."""
        if tool == "val":
            parser.add_argument(
                "--split", default="val", choices=["val", "test"], help="test scores the config's test_dataset"
            )
            parser.add_argument(
                "--batch_size",
                type=flag(RANGES["config"]["batch_size"]),
                default=1,
                help="images of one size that run together",
            )
            parser.add_argument(
                "--absent_class",
                default="exclude",
                choices=list(ABSENT_CLASS_RULES),
                help="what a class counts in the mean that neither labels nor predictions hold: papers leave it out, "
                "PaddleSeg 2.8.0 counts 0, PaddleSeg 2.9 counts 1",
            )
            parser.add_argument(
                "--worst", type=flag(whole(0, 1000)), default=0, metavar="N", help="draw the N worst images: worst.png"
            )
            parser.add_argument(
                "--confusion",
                action="store_true",
                help="draw the confusion matrix with names: confusion.png",
            )
            tta.add_flags(parser, "--aug_eval")
        elif tool == "predict":
            colours = "colours of the first classes, three numbers each"
            parser.add_argument("--custom_color", nargs="+", type=flag(whole(0, 255)), metavar="R G B", help=colours)
            add_view_flags(parser)
            tta.add_flags(parser, "--aug_pred")

    def configure(self, arguments: argparse.Namespace) -> None:
        """Take over the values of the flags that `add_flags` added.

        Raises:
            UserError: They contradict each other or the config.
        """
        test_config = self.config.get("test_config", {})
        if "aug_eval" in arguments:
            self.batch_size, self.absent_class = arguments.batch_size, arguments.absent_class
            self.worst, self.draws_confusion = arguments.worst, arguments.confusion
            self.augmentation = tta.from_test_config(tta.merge_flags(test_config, arguments, arguments.aug_eval))
            self._choose_split(arguments.split)
        if "aug_pred" in arguments:
            test_config = {**test_config, "aug_eval": False}
            merged = tta.merge_flags(test_config, arguments, arguments.aug_pred)
            self.predict_augmentation = tta.from_test_config(merged)
            custom = arguments.custom_color or []
            if len(custom) % 3 or len(custom) > self.palette.size:
                raise UserError(f"--custom_color takes three numbers for each class, got {custom}")
            self.palette.reshape(-1)[: len(custom)] = custom
            self.view = view_of_flags(arguments, self.class_names, self.palette)

    def _choose_split(self, split: str) -> None:
        """Let `test_dataset` take the place of `val_dataset` where it is asked for."""
        if split == "test":
            if "test_dataset" not in self.config:
                raise UserError("--split test needs a test_dataset in the config, described like val_dataset")
            self.config = {**self.config, "val_dataset": self.config["test_dataset"]}
        elif "test_dataset" in self.config:
            logger.info("val_dataset is scored; --split test scores test_dataset")

    @classmethod
    def check(cls, config: dict[str, Any]) -> None:
        """Check the sections of segmentation, and add what follows from them.

        Added are one loss for each coefficient, and the number of classes, the channels of an image and the ignored
        label that the data set determines.

        Raises:
            UserError: A key, a type or a value in them is missing or wrong, or sections contradict each other.
        """
        check_required(config, cls.name)
        lists = ("transforms", "transforms1", "transforms2", "common_transforms")
        datasets, transforms = dataset_catalogue(), dict.fromkeys(lists, transform_catalogue())
        for key in DATASETS:
            if key in config:
                check_component(key, config[key], datasets, transforms)
        _check_losses(config["loss"])
        if config.get("sampler") not in (None, *SAMPLERS):
            raise unknown("sampler", config["sampler"], SAMPLERS)
        check_section("test_config", config.get("test_config", {}), RANGES["test_config"], kind="test_config key")
        tta.warn_of_idle_keys(config.get("test_config", {}))
        complete(config, datasets)

    def build_data(self, split: str) -> paddle.io.Dataset:
        """Build the data set of "train" or "val".

        The section decides what its items are for, its `mode` which files they are: `train_dataset` transforms labels
        like images, and `val_dataset` keeps them at their own size.

        Raises:
            UserError: The config has no such data set, its files are missing, or it does not fit the network.
        """
        part = f"{split}_dataset"
        if part not in self.config:
            raise UserError(f"the config has no {part}")
        section = self.config[part]
        self._check_frames(part, section)
        dataset = build_component(part, section, {**transform_catalogue(), **dataset_catalogue()})
        if not isinstance(dataset, LabelledImages | StreetScenes):  # one of PaddleSeg's
            channels = dataset.transforms.img_channels
            settings = {"num_classes": dataset.num_classes, "ignore_index": dataset.ignore_index}
            dataset.transforms = Compose(dataset.transforms.transforms, channels, **settings)
            if (dataset.mode == "val") != (split == "val"):
                raise UserError(
                    f"{part}.mode is {dataset.mode!r}: the labels of {section['type']} are "
                    f"{'scored with mode val' if split == 'val' else 'trained on with another mode than val'} alone"
                )
        else:
            dataset.training = split == "train"
        if len(dataset) == 0:
            raise UserError(f"{part} has no images")
        without = [files[0] for files in dataset.file_list if isinstance(files, list) and files[1] is None]
        if without:
            raise UserError(f"{part}: {len(without)} of {len(dataset)} images have no label, such as {without[0]}")
        return dataset

    def check_data(self, train_data: paddle.io.Dataset, val_data: paddle.io.Dataset | None, batch_size: int) -> None:
        """Look at the data sets of a run as a whole; see `data_check.check_data`."""
        datasets = {"train_dataset": train_data, **({} if val_data is None else {"val_dataset": val_data})}
        check_data(datasets, self.class_names, batch_size)

    def analyse_data(self, batch_size: int, num_workers: int | None = None) -> Report:
        """Read all files of the config's data sets and tell what is wrong; see `data_check.analyse_config`."""
        report = analyse_config(self.config, self.class_names, num_workers)
        if "train_dataset" in report.splits and not any(found.level == STOPS for found in report.findings):
            report.findings[:0] = batch_findings(self.build_data("train"), report, batch_size)
        return report

    def sample_weights(self, train_data: paddle.io.Dataset) -> np.ndarray | None:
        """Return the weights of the config's `sampler`, None where it has none."""
        return class_balanced_weights(train_data) if self.config.get("sampler") else None

    def build_transforms(self) -> Compose:
        """Build the transforms of the validation data, which prediction and export use too.

        Raises:
            UserError: The config has no val_dataset, or a transform refuses its arguments.
        """
        if "val_dataset" not in self.config:
            raise UserError("the config has no val_dataset, whose transforms prepare an image for the network")
        section, catalogue = self.config["val_dataset"], transform_catalogue()
        steps = [
            build_component(f"val_dataset.transforms[{position}]", step, catalogue)
            for position, step in enumerate(section.get("transforms", []))
        ]
        return Compose(steps, section.get("img_channels", 3))

    def losses(self, outputs: list[paddle.Tensor], batch: Mapping[str, Any]) -> list[paddle.Tensor]:
        """Compute the weighted losses of a training batch; MixedLoss gives several.

        Args:
            outputs: Logits [B, C, H, W], one for each entry of the config's `loss`.
            batch: "label" [B, H, W], and "edge" [B, 1, H, W] for a loss of edges.

        Raises:
            UserError: The losses do not fit the outputs or the labels.
        """
        coefficients = self.config["loss"]["coef"]
        if len(outputs) != len(coefficients):
            raise UserError(
                f"the model gives {len(outputs)} outputs while training, but loss.coef has {len(coefficients)} entries"
            )
        result = []
        for logits, loss, coefficient in zip(outputs, self._losses, coefficients, strict=True):
            if logits.dtype in (paddle.float16, paddle.bfloat16):  # too coarse to count the pixels of a batch
                logits = logits.astype("float32")
            try:
                result += [coefficient * value for value in _values(loss, logits, batch)]
            except UserError:
                raise
            except (ValueError, TypeError, AssertionError) as error:  # what Paddle says of unfit shapes and weights
                text = str(error).split("[Hint")[0][:300]
                raise UserError(f"the config's loss cannot be computed: {text}") from error
        return result

    @functools.cached_property
    def _losses(self) -> list[Any]:
        return [
            build_component(f"loss.types[{position}]", section, LOSSES)
            for position, section in enumerate(self.config["loss"]["types"])
        ]

    def evaluate(self, network: paddle.nn.Layer, dataset: paddle.io.Dataset, num_workers: int = 0) -> Scores:
        """Score a network on a data set; the mean IoU picks the best model."""
        worst = WorstImages(self.worst) if self.worst else None
        settings = (self.augmentation, self.batch_size, num_workers, worst and worst.add)
        scores = summarize(evaluate(network, dataset, *settings), len(dataset), self.class_names, self.absent_class)
        if self.draws_confusion:
            scores.images["confusion.png"] = confusion_chart(
                np.array(scores.report["confusion_matrix"]), self.class_names
            )
        if worst and (found := worst.gathered()):
            view = View(self.class_names, self.palette, opacity=0.6)
            scores.images["worst.png"] = draw_worst(found, self.plain_data("val"), view)
        return scores

    def predict(self, network: paddle.nn.Layer, image_path: str, save_dir: str) -> None:
        """Label an image, a folder or a list of images and write the results; see `predict.predict`."""
        view = self.view or View(self.class_names, self.palette)
        predict(network, self.build_transforms(), image_path, save_dir, view, self.predict_augmentation)

    def _check_frames(self, part: str, section: Mapping[str, Any]) -> None:
        """Refuse clips for a network that takes single images, and single images for one whose window is longer."""
        model = self.config["model"]
        window, frames = model.get("temporal_window", 1), section.get("frames", 1)
        if not (isinstance(window, int) and isinstance(frames, int)):
            return  # their constructors say what is wrong
        if frames > 1 and not takes_clips(model):
            raise UserError(f"{part}.frames is {frames}, but {model['type']} takes single images; leave frames out")
        if frames < window:
            raise UserError(
                f"model.temporal_window is {window}, but {part} gives {frames} frame{'s'[: frames > 1]} at a "
                f"time; set {part}.frames to {window} (StreetScenes and CamVid can give clips)"
            )


def _values(loss: Loss, logits: paddle.Tensor, batch: Mapping[str, Any]) -> list[paddle.Tensor]:
    """Compute a loss of one output, or every loss of a MixedLoss."""
    if isinstance(loss, MixedLoss):
        pairs = zip(loss.losses, loss.coef, strict=True)
        return [value * coef for part, coef in pairs for value in _values(part, logits, batch)]
    labels = batch["label"].astype("int64")
    if not isinstance(loss, BCELoss) or not loss.edge_label:
        return [loss(logits, labels)]
    if "edge" not in batch:
        raise UserError("BCELoss with edge_label needs a train_dataset with edge: True")
    labels, edges = labels.unsqueeze(1), batch["edge"].astype("int64")
    return [loss(logits, paddle.where(labels == loss.ignore_index, labels, edges))]


def _check_losses(loss: dict[str, Any]) -> None:
    check_section("loss", loss, RANGES["loss"], ("types", "coef"), "loss key")
    for key in ("types", "coef"):
        if not loss[key]:
            raise UserError(f"loss.{key} is empty; give one entry for each output of the network")
    if not any(loss["coef"]):
        raise UserError("loss.coef is 0 for every output, so that nothing would be trained; give a number above 0")
    for position, item in enumerate(loss["types"]):
        check_component(f"loss.types[{position}]", item, LOSSES, {"losses": LOSSES}, supplied=["num_class"])
        if item["type"] == "MixedLoss" and len(item["losses"]) != len(item["coef"]):
            parts = f"{len(item['losses'])} losses and {len(item['coef'])} coef"
            raise UserError(f"loss.types[{position}] has {parts}; give as many")
    if len(loss["types"]) not in (1, len(loss["coef"])):
        raise UserError(f"loss has {len(loss['types'])} types for {len(loss['coef'])} coefficients; give 1 or as many")
    if len(loss["types"]) == 1:
        loss["types"] = [copy.deepcopy(loss["types"][0]) for _ in loss["coef"]]
