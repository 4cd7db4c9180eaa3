"""Top-down pose: its sections of a config, its data, loss, scores and predictions."""

import argparse
import functools
import itertools
from collections.abc import Mapping
from typing import Any

import paddle

from paddle_rt.arguments import RANGES, check_section
from paddle_rt.components import build_component, check_component
from paddle_rt.errors import UserError, shown
from paddle_rt.inference.boxes import PERSON
from paddle_rt.inference.keypoints import KeypointSet, keypoint_set
from paddle_rt.inference.pose_estimator import SETTINGS
from paddle_rt.kinds import SWITCH, flag, number, whole
from paddle_rt.tasks.base import Scores, Task, check_required, register_task
from paddle_rt.tasks.pose import baseline, metrics
from paddle_rt.tasks.pose.datasets import DATASETS, PoseDataset
from paddle_rt.tasks.pose.evaluate import evaluate, summarize
from paddle_rt.tasks.pose.export import ExportingMixin
from paddle_rt.tasks.pose.losses import LOSSES
from paddle_rt.tasks.pose.predict import Estimator, predict
from paddle_rt.tasks.pose.transforms import FOR_SCORES, FOR_TRAINING

_SECTIONS = ("train_dataset", "val_dataset")
_MIRROR = "RandomFlip"
# The order of transforms; all others are random changes of the box between the first two.
_STAGES = {"GetBBoxCenterScale": 0, "TopdownAffine": 2, "GenerateTarget": 3, "Normalize": 3}
_TEST_CONFIG = {"flip_test": SWITCH} | {key: SETTINGS[key] for key in ("shift_heatmap", "decoding", "blur_kernel")}
_CHANNELS = 3  # of images
_BATCH = ("img", "target", "weight")  # what training takes of an item


@register_task
class PoseTask(ExportingMixin, Task):
    """Keypoints of people in boxes that are known.

    Args:
        config: The merged config, checked by `check`.
    """

    name = "pose"
    config_keys = (*_SECTIONS, "loss", "keypoints", "test_config")

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self.batch_size, self.with_baseline = 32, False
        self.boxes: tuple[str | None, int, float] = (None, PERSON, 0.3)  # file, category, threshold

    @classmethod
    def add_flags(cls, parser: argparse.ArgumentParser, tool: str) -> None:
        """Add the flags of pose to "val" or "predict"."""
        if tool in ("val", "predict"):
            size = flag(RANGES["config"]["batch_size"])
            parser.add_argument("--batch_size", type=size, default=32, help="persons that run together")
        if tool == "val":
            text = "also score the mean pose of train_dataset in each box"
            parser.add_argument("--baseline", action="store_true", help=text)
        elif tool == "predict":
            text = "the boxes of people (docs/pose.md); without the flag every image is one box"
            parser.add_argument("--boxes", help=text)
            text = "the category of people in --boxes and in the output"
            parser.add_argument("--box_category", type=flag(whole(0)), default=PERSON, help=text)
            text = "keypoints with a lower score are not drawn"
            parser.add_argument("--threshold", type=flag(number(0, 1)), default=0.3, help=text)

    def configure(self, arguments: argparse.Namespace) -> None:
        """Take over the values of the flags that `add_flags` added."""
        if "batch_size" in arguments:
            self.batch_size = arguments.batch_size
        if "baseline" in arguments:
            self.with_baseline = arguments.baseline
        if "boxes" in arguments:
            self.boxes = arguments.boxes, arguments.box_category, arguments.threshold

    @classmethod
    def check(cls, config: dict[str, Any]) -> None:
        """Check the sections of pose, and add the number of keypoints that the data determines.

        Raises:
            UserError: A key, a type or a value in them is missing or wrong, or sections contradict each other.
        """
        check_required(config, cls.name)
        if "keypoints" in config and not isinstance(config["keypoints"], str | dict):
            raise UserError(f"keypoints must be a name or a mapping, got {shown(config['keypoints'])}")
        for key in _SECTIONS:
            if key in config:
                _check_dataset(key, config[key])
        check_component("loss", config["loss"], LOSSES)
        check_section("test_config", config.get("test_config", {}), _TEST_CONFIG)
        _check_sizes(config)
        if config["model"].get("in_channels", _CHANNELS) != _CHANNELS:
            raise UserError(f"model.in_channels must be {_CHANNELS} for pose, got {config['model']['in_channels']}")
        count = len(find_keypoints(config))
        if config["model"].setdefault("num_keypoints", count) != count:
            raise UserError(
                f"model.num_keypoints is {shown(config['model']['num_keypoints'])}, but the data has {count} keypoints"
            )

    @functools.cached_property
    def keypoints(self) -> KeypointSet:
        """The keypoints of the config, or else of its data."""
        return find_keypoints(self.config)

    def build_data(self, split: str) -> PoseDataset:
        """Build the data set of "train" or "val".

        Raises:
            UserError: The config has no such data set, its files are missing, or they have other keypoints.
        """
        part = f"{split}_dataset"
        if part not in self.config:
            raise UserError(f"the config has no {part}")
        section = dict(self.config[part])
        if "keypoints" in self.config:
            section["keypoints"] = self.keypoints
        return build_component(part, section, {**DATASETS, **FOR_SCORES, **FOR_TRAINING})

    def check_data(self, train_data: PoseDataset, val_data: PoseDataset | None, batch_size: int) -> None:
        """Check before the first step what the scores need, and that both data sets have the same keypoints.

        Raises:
            UserError: The keypoints differ, or their flip pairs or sigmas are needed and unknown.
            ModuleNotFoundError: pycocotools is not installed.
        """
        if any(step["type"] == _MIRROR for step in self.config["train_dataset"]["transforms"]):
            _ = train_data.keypoints.flip_indices
        if val_data is not None:
            self._check_scores(val_data)
            if train_data.keypoints.names != val_data.keypoints.names:
                raise UserError(
                    f"train_dataset has the keypoints {', '.join(train_data.keypoints.names)}, but val_dataset has "
                    f"{', '.join(val_data.keypoints.names)}"
                )

    def _check_scores(self, dataset: PoseDataset) -> None:
        metrics.import_pycocotools()
        _ = dataset.keypoints.oks_sigmas
        if self.flip_test:
            _ = dataset.keypoints.flip_indices

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Make a training batch: images [B, 3, H, W], heatmaps "target" [B, K, h, w] and their "weight" [B, K]."""
        return super().collate([{key: item[key] for key in _BATCH} for item in items])

    def losses(self, outputs: list[paddle.Tensor], batch: Mapping[str, Any]) -> list[paddle.Tensor]:
        """Compute the loss of a training batch.

        Args:
            outputs: Heatmaps [B, K, h, w], alone in a list.
            batch: What `collate` returned.

        Raises:
            UserError: The targets have another size or number than the heatmaps.
        """
        (heatmaps,) = outputs
        if heatmaps.shape != batch["target"].shape:
            k, h, w = heatmaps.shape[1:]
            raise UserError(
                f"the network gives {k} heatmaps of {w}x{h}, but train_dataset makes {batch['target'].shape[1]} of "
                f"{batch['target'].shape[3]}x{batch['target'].shape[2]} (width x height); see heatmap_size of "
                "GenerateTarget"
            )
        return [self._loss(heatmaps.astype("float32"), batch["target"], batch["weight"])]

    @functools.cached_property
    def _loss(self) -> Any:
        return build_component("loss", self.config["loss"], LOSSES)

    @property
    def flip_test(self) -> bool:
        """Whether scores and predictions run the mirror images too."""
        return self.config.get("test_config", {}).get("flip_test", True)

    def evaluate(self, network: paddle.nn.Layer, dataset: PoseDataset, num_workers: int = 0) -> Scores:
        """Score a network on a data set; PCK@0.1 by the box picks the best model, as in the original."""
        self._check_scores(dataset)
        settings = self.export_spec().settings
        people = evaluate(network, dataset, settings, self.flip_test, self.batch_size, num_workers)
        mean = None
        if self.with_baseline:
            mean = baseline.mean_pose(self.build_data("train").coco_ground_truth(baseline.MOST_PEOPLE))
        return summarize(people, dataset.coco_ground_truth(), dataset.keypoints, mean)

    def predict(self, network: paddle.nn.Layer, image_path: str, save_dir: str) -> None:
        """Estimate poses in an image, a folder or a list of images; see `predict.predict`."""
        settings = self.export_spec().settings  # refuses a config without val_dataset
        steps = [
            build_component(f"val_dataset.transforms[{position}]", step, FOR_SCORES)
            for position, step in enumerate(self.config["val_dataset"]["transforms"])
        ]
        if self.flip_test:
            _ = settings.keypoints.flip_indices
        predict(Estimator(network, steps, settings, self.flip_test, self.batch_size), image_path, save_dir, *self.boxes)


def find_keypoints(config: Mapping[str, Any]) -> KeypointSet:
    """Return the keypoints of a config, or else those that its data sets determine.

    Raises:
        UserError: `keypoints` describes no set, or the annotations cannot be read or have none.
    """
    if "keypoints" in config:
        return keypoint_set(config["keypoints"])
    first = None
    for key in ("val_dataset", "train_dataset"):  # the files of one may be elsewhere, and those to score on are small
        if key in config:
            try:
                return DATASETS[config[key]["type"]].keypoints_of(config[key])
            except UserError as error:
                first = first or error
    raise first


def _step(section: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the transform of a name in a section; empty where there is none."""
    return next((step for step in section["transforms"] if step["type"] == name), {})


def _check_dataset(key: str, section: Any) -> None:
    is_training = key == "train_dataset"
    transforms = {**FOR_SCORES, **FOR_TRAINING} if is_training else FOR_SCORES
    check_component(key, section, DATASETS, {"transforms": transforms})
    if "keypoints" in section:
        raise UserError(f"{key}.keypoints: keypoints is a key of the config itself, for both data sets")
    names = [step["type"] for step in section["transforms"]]
    needed = ["GetBBoxCenterScale", "TopdownAffine", "Normalize", *["GenerateTarget"] * is_training]
    for name in needed:
        if names.count(name) != 1:
            raise UserError(f"{key}.transforms needs one {name}, got {', '.join(names) or 'none'}")
    for name, values in _step(section, "Normalize").items():
        if name in ("mean", "std") and len(values) not in (1, _CHANNELS):
            raise UserError(f"{key}.transforms: Normalize.{name} has {len(values)} numbers for {_CHANNELS} channels")
    for before, after in itertools.pairwise(names):
        if _STAGES.get(before, 1) > _STAGES.get(after, 1):
            raise UserError(f"{key}.transforms: {after} must stand before {before}, got {', '.join(names)}")


def _check_sizes(config: Mapping[str, Any]) -> None:
    """Check that training and validation cut out persons of one size and one kind, and make targets that fit."""
    train = config["train_dataset"]
    affine, target = _step(train, "TopdownAffine"), _step(train, "GenerateTarget")
    size, udp = list(affine["input_size"]), affine.get("udp", False)
    if target.get("udp", False) != udp:
        raise UserError("train_dataset.transforms: udp of TopdownAffine and of GenerateTarget must be the same")
    if any(side % 4 for side in size) or list(target["heatmap_size"]) != [side // 4 for side in size]:
        raise UserError(
            f"train_dataset.transforms: heatmap_size of GenerateTarget must be a quarter of input_size {size}, which "
            f"must be multiples of 4, got {target['heatmap_size']}"
        )
    if "val_dataset" in config:
        val = _step(config["val_dataset"], "TopdownAffine")
        if (list(val["input_size"]), val.get("udp", False)) != (size, udp):
            raise UserError(
                f"TopdownAffine of val_dataset has input_size {val['input_size']} and udp {val.get('udp', False)}, "
                f"that of train_dataset {size} and {udp}; they must be the same"
            )
