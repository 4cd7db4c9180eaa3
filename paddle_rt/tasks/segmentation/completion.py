"""What a data set determines for the network, the losses and its transforms, as PaddleSeg completes its configs."""

import logging
from collections.abc import Mapping
from typing import Any

from paddle_rt.components import Catalogue
from paddle_rt.errors import UserError
from paddle_rt.kinds import check_count
from paddle_rt.tasks.segmentation.transforms import complete_transforms

logger = logging.getLogger(__name__)

DATASETS = ("train_dataset", "val_dataset", "test_dataset")
# A data set of one's own gives in the config what the class of any other data set declares.
_ATTRIBUTES = {"num_classes": "NUM_CLASSES", "img_channels": "IMG_CHANNELS", "ignore_index": "IGNORE_INDEX"}


def complete(config: dict[str, Any], datasets: Catalogue) -> None:
    """Add num_classes and in_channels to the model and ignore_index to losses and transforms, or check them.

    Args:
        config: The merged config, whose types are checked. It is changed.
        datasets: Every data set by its name.

    Raises:
        UserError: A number is missing, or sections contradict each other.
    """
    sections = {key: config[key] for key in DATASETS if key in config}
    types = {key: section["type"] for key, section in sections.items()}
    if types["train_dataset"] == "Dataset":
        for key, name in types.items():
            if name != "Dataset":
                raise UserError(f"train_dataset is of type Dataset, so {key} must be too, got {name}")
        for key, section in sections.items():
            if "num_classes" not in section:
                raise UserError(f"{key}.num_classes is missing: a data set of type Dataset needs it")
    model = config["model"]
    holder = model["backbone"] if isinstance(model.get("backbone"), dict) else model
    defaults = {"ignore_index": 255, **({} if holder.get("in_channels") is None else {"img_channels": 3})}
    numbers = {
        name: {key: _number(section, name, attribute, datasets, defaults) for key, section in sections.items()}
        for name, attribute in _ATTRIBUTES.items()
    }
    _complete_model(model, model, "num_classes", numbers["num_classes"], "numbers of classes")
    _complete_model(model, holder, "in_channels", numbers["img_channels"], "channels of images")
    _complete_losses(config["loss"], numbers["ignore_index"], model.get("num_classes"))
    for key, section in sections.items():
        found = {name: numbers[name][key] for name in ("num_classes", "ignore_index")}
        complete_transforms(key, section, numbers["img_channels"][key] or 3, **found)


def _number(
    section: Mapping[str, Any], name: str, attribute: str, datasets: Catalogue, defaults: Mapping[str, int]
) -> int | None:
    if section["type"] == "Dataset":
        return section.get(name, defaults.get(name))
    return section.get(name, getattr(datasets[section["type"]], attribute, None))


def _complete_model(
    model: dict[str, Any], holder: dict[str, Any], name: str, numbers: dict[str, int | None], what: str
) -> None:
    where = "model" if holder is model else "model.backbone"
    known = {key: number for key, number in {where: holder.get(name), **numbers}.items() if number is not None}
    for key, number in known.items():
        check_count(f"{key}.{'img_channels' if name == 'in_channels' and key != where else name}", number)
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{key} {number}" for key, number in known.items())
        raise UserError(f"the {what} differ: {listed}; leave {where}.{name} out to take the dataset's")
    if known and holder.get(name) is None:
        holder[name] = next(iter(known.values()))
        logger.warning("%s.%s is not set: %d is taken from the data set", where, name, holder[name])


def _complete_losses(loss: dict[str, Any], numbers: dict[str, int | None], num_classes: int | None) -> None:
    known = {key: number for key, number in numbers.items() if number is not None}
    if len(set(known.values())) > 1:
        raise UserError(f"the ignored labels differ: {', '.join(f'{key} {number}' for key, number in known.items())}")
    ignored = next(iter(known.values()), None)
    parts = [part for item in loss["types"] for part in (item["losses"] if item["type"] == "MixedLoss" else [item])]
    for part in parts:
        name, weight = part["type"], part.get("weight")
        if ignored is not None and part.setdefault("ignore_index", ignored) != ignored:
            raise UserError(
                f"{name}.ignore_index is {part['ignore_index']}, but the data set ignores {ignored}; leave it out to "
                "take the dataset's"
            )
        if num_classes is None:
            continue
        if name == "MultiClassFocalLoss" and part.setdefault("num_class", num_classes) != num_classes:
            raise UserError(f"{name}.num_class is {part['num_class']}, but there are {num_classes} classes")
        if isinstance(weight, list) and len(weight) != num_classes:
            raise UserError(f"{name}.weight has {len(weight)} numbers, but there are {num_classes} classes")
