"""The config as text, with the reasons as comments."""

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paddle_rt.analysis import Report
from paddle_rt.analysis.findings import counted
from paddle_rt.new_config.choice import LEAST_SIDE, Choice, Machine, family_of
from paddle_rt.registry import find_entry

_URL = "https://paddleseg.bj.bcebos.com/dygraph/backbone/"
# Weights of the backbone, trained on ImageNet, that the shipped configs name.
PRETRAINED = {
    **{f"rtformer_{size}": f"{_URL}rtformer_{size}_backbone_imagenet_pretrained.zip" for size in ("slim", "base")},
    **{f"fanet{depth}": f"https://paddle-hapi.bj.bcebos.com/models/resnet{depth}.pdparams" for depth in (18, 34, 50)},
    **{f"segformerpp_b{size}": f"https://bj.bcebos.com/paddleseg/dygraph/backbone/mix_vision_transformer_b{size}.tar.gz"
       for size in range(6)},
}  # fmt: skip


@dataclass(frozen=True)
class Data:
    """A prepared data set.

    Args:
        root: Its folder.
        lists: The list of each split: "train", "val" and, where there is one, "test".
        keys: Further keys that its sections need, such as `label_map`.
    """

    root: str
    lists: dict[str, str]
    keys: dict[str, Any]


def config_text(
    path: str, model: str, data: Data, report: Report, machine: Machine, choice: Choice, iters: int,
    seconds: float | None,
) -> str:  # fmt: skip
    """Return the text of the config.

    Args:
        path: The file that it is for, which the command in its first lines names.
        model: Name of the network.
        data: The data set.
        report: Its analysis.
        machine: What trains.
        choice: The numbers.
        iters: Iterations.
        seconds: What one iteration took on the machine; None where none was measured.
    """
    sections = [f"{split}_dataset:\n{_dataset(split, data, report, choice)}" for split in data.lists]
    return "\n".join(
        [
            _head(path, model, data, report, machine, iters, seconds),
            _sizes(machine, choice, iters, report),
            *sections,
            _training(model, report, choice, iters),
        ]
    )


def _head(
    path: str, model: str, data: Data, report: Report, machine: Machine, iters: int, seconds: float | None
) -> str:
    counts = {name: counted(len(part.facts), "image", "images") for name, part in report.splits.items()}
    numbers = ", ".join(f"{number} in {name}" for name, number in counts.items())
    config = shlex.quote(path)
    if seconds is None:
        time = "No iteration was measured on this machine."
    else:
        total = iters * seconds
        length = f"{total / 3600:.1f} hours" if total >= 5400 else f"{max(round(total / 60), 1)} minutes"
        time = (
            f"Measured ({machine}): {seconds:.2f} s an iteration with its data, the median of 3, so {iters} iterations "
            f"take about {length} besides the evaluations."
        )
    return f"""\
# {model} on {data.root}: {numbers}, {len(report.class_names)} classes.
# Written by paddle-rt new_config; every number is a choice of this project that you may change.
# {time}
#
# paddle-rt train -c {config} --do_eval --save_interval {max(iters // 8, 1)} --save_dir output/{model}
# paddle-rt val -c {config} --model_path output/{model}/best_model
# paddle-rt export -c {config} --model_path output/{model}/best_model --save_dir output/{model}/export
"""


def _sizes(machine: Machine, choice: Choice, iters: int, report: Report) -> str:
    train, *_ = report.splits.values()
    epochs = iters * choice.batch_size / len(train.facts)
    where = "a CPU gains nothing by more" if machine.device == "cpu" else f"as the memory allows ({machine})"
    if len(train.facts) == choice.batch_size:
        where = "there are no more images"
    if iters < choice.least_iters:
        why = (f"what --hours leaves; random weights need about {choice.least_iters} for "
               f"{len(report.class_names)} classes, so expect little")  # fmt: skip
    elif iters < choice.wanted_iters:
        why = f"what --hours leaves of {choice.wanted_iters}"
    else:
        why = f"at least {choice.least_iters} from random weights for {len(report.class_names)} classes"
    return f"""\
batch_size: {choice.batch_size}  # {where}
iters: {iters}  # {epochs:.0f} times each image; {why}
"""


def _dataset(split: str, data: Data, report: Report, choice: Choice) -> str:
    keys = {
        "type": "Dataset",
        "dataset_root": data.root,
        "mode": split,
        f"{split}_path": data.lists[split],
        "num_classes": len(report.class_names),
        "class_names": list(report.class_names),
        **data.keys,
    }
    lines = [f"  {key}: {_yaml(value)}" for key, value in keys.items()] + ["  transforms:"]
    return "\n".join([*lines, *_transforms(split == "train", report, choice)]) + "\n"


def _transforms(is_training: bool, report: Report, choice: Choice) -> list[str]:
    train, *_ = report.splits.values()
    sizes = sorted(train.sizes, key=lambda size: size[0] * size[1])
    height, width = sizes[len(sizes) // 2]
    lines = []
    if choice.short_size:
        if choice.short_size == LEAST_SIDE and min(height, width) < LEAST_SIDE:
            why = f"images of {width}x{height} are too small for outputs of a quarter or an eighth of their size"
        else:
            why = f"images of {width}x{height} take too long, or too much memory; thin objects may be lost"
        lines.append(f"    # {why}; labels are scored at their own size all the same.")
        lines.append(f"    - {{type: ResizeByShort, short_size: {choice.short_size}}}")
    if is_training:
        low, high = choice.scales
        crop = f"[{choice.crop[1]}, {choice.crop[0]}]"
        lines += [
            f"    - {{type: ResizeStepScaling, min_scale_factor: {low}, max_scale_factor: {high}, "
            "scale_step_size: 0.25}",
            "    # Width and height, multiples of 32 that hold a median image, as far as the machine allows.",
            f"    - {{type: RandomPaddingCrop, crop_size: {crop}}}",
        ]
        if choice.flip:
            lines.append("    - {type: RandomHorizontalFlip}  # take it out where left and right differ in meaning")
        else:
            lines.append("    # RandomHorizontalFlip is left out: the names of the classes tell left from right.")
        lines.append("    - {type: RandomDistort, brightness_range: 0.4, contrast_range: 0.4, saturation_range: 0.4}")
    if is_training:
        lines.append(
            "    # Measured on the images to train on. Weights of ImageNet want mean [0.485, 0.456, 0.406] and"
        )
        lines.append("    # std [0.229, 0.224, 0.225], in all data sets.")
    std = [max(value, 0.05) for value in report.std]
    return [*lines, f"    - {{type: Normalize, mean: {_yaml(report.mean)}, std: {_yaml(std)}}}"]


def _training(model: str, report: Report, choice: Choice, iters: int) -> str:
    family, entry = family_of(model), find_entry(model)
    train, *_ = report.splits.values()
    labelled = max(train.counts.pixels.total() - train.counts.pixels[train.counts.ignore_index], 1)
    rarest = min(train.counts.classes, key=lambda label: train.counts.pixels[label])
    share = f"{train.counts.pixels[rarest] / labelled:.2%}"
    warmup = max(min(iters // 10, 500), 1)
    if choice.weights is None:
        loss = "{type: CrossEntropyLoss}"
        why = f"The rarest class, {report.class_names[rarest]}, has {share} of the pixels: no weights are needed."
    else:
        loss = f"{{type: CrossEntropyLoss, weight: {_yaml(choice.weights)}}}"
        why = (
            f"The rarest class, {report.class_names[rarest]}, has {share} of the pixels. The weights are the square "
            "roots of\n# those by median frequency, with which rare classes would spread far over their outlines."
        )
    model_keys = "".join(f"\n  {line.strip()}" for line in family.model.splitlines())
    return f"""\
optimizer: {family.optimizer}

# From random weights; with weights of ImageNet a tenth to a half of it.
lr_scheduler:
  type: PolynomialDecay
  learning_rate: {family.learning_rate:.1e}
  end_lr: 1.0e-6
  power: {family.power}
  warmup_iters: {warmup}
  warmup_start_lr: 1.0e-6

# {why}
loss:
  types:
    - {loss}
  coef: {_yaml(list(family.coef))}

model:
  type: {entry.class_name}
  variant: {_yaml(entry.variant)}{model_keys}
  # Better scores with few images, where the net can be reached:
  # pretrained: {PRETRAINED[model]}
  pretrained: null
"""


def _yaml(value: Any) -> str:
    """Return a value on one line; JSON is YAML, but for keys that are numbers."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_yaml(key)}: {_yaml(part)}" for key, part in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return json.dumps(os.fspath(value) if isinstance(value, os.PathLike) else value, ensure_ascii=False)
