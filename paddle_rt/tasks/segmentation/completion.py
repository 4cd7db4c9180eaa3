"""What a data set determines for the network, the losses and its transforms, as PaddleSeg completes its configs."""

import logging
from collections.abc import Mapping
from typing import Any

from paddle_rt.components import Catalogue
from paddle_rt.errors import UserError
from paddle_rt.imaging.label_format import LabelFormat
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
            _check_classes(key, section)
        _check_same(sections, "class_names")
        _check_same(sections, "colors")
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


def label_format(section: Mapping[str, Any]) -> LabelFormat:
    """Return how the files of a section of type Dataset stand for classes.

    Raises:
        UserError: Its arguments contradict each other.
    """
    names = ("num_classes", "ignore_index", "label_map", "reduce_zero_label", "palette")
    return LabelFormat(**{name: section[name] for name in names if name in section})


def classes_of(config: Mapping[str, Any]) -> tuple[list[str], list[list[int]]]:
    """Return the names and the RGB colours that the data sets of a checked config give their classes.

    Either is empty where the config gives none. The colours are `colors`, or else those of the masks' `palette`.
    """
    sections = [config[key] for key in DATASETS if key in config]
    names = next((section["class_names"] for section in sections if section.get("class_names")), [])
    colours = next((section["colors"] for section in sections if section.get("colors")), None)
    if colours is None:
        palettes = (label_format(section).class_colours() for section in sections if section.get("palette"))
        colours = next((found.tolist() for found in palettes if found is not None), [])
    return list(names), [list(colour) for colour in colours]


def _check_classes(key: str, section: Mapping[str, Any]) -> None:
    number = section["num_classes"]
    for name in ("class_names", "colors"):
        given = section.get(name)
        if given is not None and len(given) != number:
            raise UserError(f"{key}.{name} has {len(given)} entries, but num_classes is {number}")
    try:
        label_format(section)
    except UserError as error:
        raise UserError(f"{key}: {error}") from error


def _check_same(sections: Mapping[str, Mapping[str, Any]], name: str) -> None:
    """Refuse data sets that name the classes differently, of which scores would carry one."""
    given = {key: section[name] for key, section in sections.items() if section.get(name) is not None}
    for key, value in given.items():
        first = next(iter(given))
        if value != given[first]:
            raise UserError(f"{first}.{name} and {key}.{name} differ; give both the same")


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
