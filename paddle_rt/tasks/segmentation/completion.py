"""What a data set determines for the network and the losses, as PaddleSeg completes its configs."""

import logging
from collections.abc import Mapping
from typing import Any

from paddle_rt.components import Catalogue
from paddle_rt.errors import UserError, check_count

logger = logging.getLogger(__name__)

# A data set of one's own gives in the config what the class of any other data set declares.
_ATTRIBUTES = {"num_classes": "NUM_CLASSES", "img_channels": "IMG_CHANNELS", "ignore_index": "IGNORE_INDEX"}


def complete(config: dict[str, Any], datasets: Catalogue) -> None:
    """Add num_classes and in_channels to the model and ignore_index to the losses, or check them where they are set.

    Args:
        config: The merged config, whose types are checked. It is changed.
        datasets: Every data set by its name.

    Raises:
        UserError: A number is missing, or sections contradict each other.
    """
    sections = {key: config[key] for key in ("train_dataset", "val_dataset") if key in config}
    types = {key: section["type"] for key, section in sections.items()}
    if types["train_dataset"] == "Dataset":
        if set(types.values()) != {"Dataset"}:
            raise UserError(f"train_dataset is of type Dataset, so val_dataset must be too, got {types['val_dataset']}")
        for key, section in sections.items():
            if "num_classes" not in section:
                raise UserError(f"{key}.num_classes is missing: a data set of type Dataset needs it")
    numbers = {
        name: {key: _number(section, name, attribute, datasets) for key, section in sections.items()}
        for name, attribute in _ATTRIBUTES.items()
    }
    model = config["model"]
    _complete_model(model, model, "num_classes", numbers["num_classes"], "numbers of classes")
    holder = model["backbone"] if isinstance(model.get("backbone"), dict) else model
    _complete_model(model, holder, "in_channels", numbers["img_channels"], "channels of images")
    _complete_losses(config["loss"], numbers["ignore_index"])


def _number(section: Mapping[str, Any], name: str, attribute: str, datasets: Catalogue) -> int | None:
    fixed = None if section["type"] == "Dataset" else getattr(datasets[section["type"]], attribute, None)
    return section.get(name, fixed)


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


def _complete_losses(loss: dict[str, Any], numbers: dict[str, int | None]) -> None:
    known = {key: number for key, number in numbers.items() if number is not None}
    if not known:
        return
    if len(set(known.values())) > 1:
        raise UserError(f"the ignored labels differ: {', '.join(f'{key} {number}' for key, number in known.items())}")
    ignored = next(iter(known.values()))
    for item in loss["types"]:
        for part in item["losses"] if item["type"] == "MixedLoss" else [item]:
            if part.setdefault("ignore_index", ignored) != ignored:
                raise UserError(
                    f"{part['type']}.ignore_index is {part['ignore_index']}, but the data set ignores {ignored}; "
                    "leave it out to take the dataset's"
                )
