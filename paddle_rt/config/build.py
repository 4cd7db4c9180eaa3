"""PaddleSeg's YAML configs: read, override, checked to the last key, and built."""

import inspect
import math
import re
from ast import literal_eval
from typing import Any

import numpy as np
import paddle
import yaml
from paddleseg.cvlibs import Config, SegBuilder, manager

from paddle_rt.checkpoint import load
from paddle_rt.config.read import read_config_file
from paddle_rt.errors import UserError, check_arguments, unknown
from paddle_rt.imaging import palettes as classes
from paddle_rt.tasks.segmentation.layouts import require_dataset
from paddle_rt.tasks.segmentation.reading import check_reading
from paddle_rt.tasks.segmentation.tta import test_time

_REQUIRED = ("batch_size", "iters", "train_dataset", "optimizer", "lr_scheduler", "loss", "model")
_OPTIONAL = ("val_dataset", "test_config", "to_static_training")
_TEST_KEYS = tuple(inspect.signature(test_time).parameters)
_GROUP_KEYS = ("name", "lr_mult", "weight_decay_mult")
_WARMUP_KEYS = ("warmup_iters", "warmup_start_lr")


def load_config(
    path: str,
    opts: list[str] | None = None,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    iters: int | None = None,
) -> Config:
    """Read a config of PaddleSeg's schema and check all of it before anything is built.

    Args:
        path: A .yml or .yaml file; its `_base_` files are read relative to it.
        opts: Overrides `a.b.c=value`; a number in the path is a position in a list.
        learning_rate, batch_size, iters: Override the file's numbers.

    Returns:
        PaddleSeg's Config, whose `dic` holds the merged result.

    Raises:
        UserError: The file cannot be read, or a key, type or argument is missing or unknown.
    """
    register_components()
    if not path.endswith((".yml", ".yaml")):
        raise UserError(f"a config is a .yml or .yaml file, got {path}")
    try:
        merged = read_config_file(path)
        overrides = [("lr_scheduler.learning_rate", learning_rate), ("batch_size", batch_size), ("iters", iters)]
        for key, value in overrides:
            if value is not None:
                _override(merged, key, value)
        for item in opts or []:
            _override(merged, *_parse_override(item))
        check(merged)
        return _Config(path, merged)
    except UserError as error:
        raise error if path in str(error) else UserError(f"{path}: {error}") from error
    except RuntimeError as error:  # PaddleSeg's own checks wrap what they found
        raise UserError(f"{path}: {error.__context__ or error}") from error


def register_components() -> None:
    """Make our models and datasets the ones that PaddleSeg's `type:` finds, and mend PaddleSeg."""
    from paddle_rt import paddleseg as compat
    from paddle_rt.models.fanet import FANet
    from paddle_rt.models.rtformer import RTFormer
    from paddle_rt.models.segformer import SegFormerPlusPlus

    compat.apply()
    import paddle_rt.tasks.segmentation.camvid
    import paddle_rt.tasks.segmentation.street_dataset  # noqa: F401

    models = manager.MODELS.components_dict
    models.setdefault("PaddleSegRTFormer", models["RTFormer"])  # to train the original beside ours
    for model in (RTFormer, SegFormerPlusPlus, FANet):
        models[model.__name__] = model


class _Config(Config):
    """PaddleSeg's Config over a dictionary that was merged and checked before."""

    def __init__(self, path: str, merged: dict) -> None:
        self._merged = merged
        super().__init__(path)

    def _parse_from_yaml(self, *arguments: Any) -> dict:
        return self._merged


def build(builder: SegBuilder, part: str) -> Any:
    """Build one part of a config: model, optimizer, loss, train_dataset, val_dataset or val_transforms.

    Raises:
        UserError: The part cannot be built, contradicts another, or its files are missing.
    """
    cfg = getattr(builder.config, f"{part}_cfg", None)
    if part.endswith("_dataset"):
        if not cfg:
            raise UserError(f"the config has no {part}")
        require_dataset(cfg["type"], cfg.get("dataset_root"), cfg.get("mode", "train"))
        _check_clips(builder.config, part)
    try:
        built = getattr(builder, part)
        if part.endswith("_dataset"):
            check_reading(built)
        return built
    except UserError:
        raise
    except (RuntimeError, AssertionError, ValueError, TypeError, KeyError, IndexError, OSError) as error:
        # PaddleSeg's builder wraps whatever a constructor raised and keeps only its text.
        cause = error.__context__ or error
        if isinstance(cause, UserError):
            raise cause from error
        kind = "" if isinstance(cause, ValueError | AssertionError | RuntimeError) else f"{type(cause).__name__}: "
        raise UserError(f"cannot build {part}: {kind}{cause}") from error


def trained_model(config: Config, checkpoint: str) -> paddle.nn.Layer:
    """Build a config's model with the weights of a checkpoint, which must fit to the last name.

    Raises:
        UserError: The checkpoint cannot be read or does not fit.
    """
    model_cfg = config.dic["model"]
    for part in (model_cfg, model_cfg.get("backbone", {})):
        part.pop("pretrained", None)  # every weight comes from the checkpoint: nothing to download
    model = build(SegBuilder(config), "model")
    load(model, checkpoint)
    return model


def check(dic: dict) -> None:
    """Raise a UserError for the first key, type or argument in a merged config that is missing or unknown."""
    if not isinstance(dic, dict):
        raise UserError(f"a config is a mapping of keys, got {type(dic).__name__}")
    for key in dic:
        if key not in _REQUIRED + _OPTIONAL:
            raise unknown("config key", key, _REQUIRED + _OPTIONAL)
    for key in _REQUIRED:
        if key not in dic:
            raise UserError(f"config key {key!r} is missing; a config needs {', '.join(_REQUIRED)}")
    for key in ("batch_size", "iters"):
        if not isinstance(dic[key], int) or isinstance(dic[key], bool) or dic[key] < 1:
            raise UserError(f"{key} must be a whole number of at least 1, got {dic[key]!r}")
    for key in ("train_dataset", "optimizer", "lr_scheduler", "loss", "model"):
        if not isinstance(dic[key], dict):
            raise UserError(f"config key {key!r} must hold a mapping, got {dic[key]!r}")
    _check_numbers("", dic)
    _check_component("model", dic["model"], manager.MODELS)
    for key in ("train_dataset", "val_dataset"):
        if key in dic:
            _check_component(key, dic[key], manager.DATASETS)
    _check_num_classes(dic)
    _check_component("optimizer", dic["optimizer"], manager.OPTIMIZERS)
    groups = dic["optimizer"].get("custom_cfg") or []
    if not isinstance(groups, list):
        raise UserError(f"optimizer.custom_cfg must be a list of groups, got {groups!r}")
    for group in groups:
        _check_keys("optimizer.custom_cfg key", group, _GROUP_KEYS)
        if not isinstance(group.get("name"), str):
            raise UserError(f"optimizer.custom_cfg: a group needs the 'name' in its parameters' names, got {group!r}")
    _check_losses(dic["loss"])
    _check_scheduler(dic["lr_scheduler"])
    _check_keys("test_config key", dic.get("test_config", {}), _TEST_KEYS)
    if not isinstance(dic.get("to_static_training", False), bool):
        raise UserError(f"to_static_training must be True or False, got {dic['to_static_training']!r}")


def _check_numbers(where: str, value: Any) -> None:
    """Refuse 1e-3, which YAML reads as a text for want of a point, and what is not a finite number."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+[eE][-+]?\d+", value):
        raise UserError(f"{where} is the text {value!r}: with an exponent, YAML wants a point too: {float(value):.1e}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where} must be a finite number, got {value}")
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        _check_numbers(f"{where}.{key}".lstrip("."), part)


def _check_num_classes(dic: dict) -> None:
    numbers = {}
    for key in ("model", "train_dataset", "val_dataset"):
        cfg = dic.get(key, {})
        fixed = getattr(manager.DATASETS.components_dict.get(cfg.get("type")), "NUM_CLASSES", None)
        numbers[key] = cfg.get("num_classes", fixed)
    known = {key: number for key, number in numbers.items() if number is not None}
    for key, number in known.items():
        if type(number) is not int or number < 1:
            raise UserError(f"{key}.num_classes must be a whole number of at least 1, got {number!r}")
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{key} {number}" for key, number in known.items())
        raise UserError(f"the numbers of classes differ: {listed}; leave model.num_classes out to take the dataset's")


def _check_component(where: str, cfg: Any, registry: Any) -> None:
    """Check one dictionary with a `type` and, by the same rule, every one nested in it."""
    if not isinstance(cfg, dict) or not isinstance(cfg.get("type"), str):
        raise UserError(f"{where} must be a mapping with a 'type', got {cfg!r}")
    name = {"adam": "Adam", "sgd": "SGD"}.get(cfg["type"], cfg["type"])
    if name == "SGD" and "momentum" in cfg and registry is manager.OPTIMIZERS:
        name = "Momentum"
    if name not in registry.components_dict:
        raise unknown(f"{where} type", name, registry.components_dict)
    component = registry.components_dict[name]
    arguments = {key: value for key, value in cfg.items() if key != "type"}
    if inspect.isclass(component):
        check_arguments(component, arguments)
    for key, value in arguments.items():
        nested = {"backbone": manager.BACKBONES, "transforms": manager.TRANSFORMS, "losses": manager.LOSSES}.get(key)
        if nested is not None:
            for item in value if isinstance(value, list) else [value]:
                _check_component(f"{where}.{key}", item, nested)


def _check_losses(loss: dict) -> None:
    _check_keys("loss key", loss, ("types", "coef"))
    for key in ("types", "coef"):
        if not isinstance(loss.get(key), list) or not loss[key]:
            raise UserError(f"loss.{key} must be a list, got {loss.get(key)!r}")
    if not all(isinstance(number, int | float) for number in loss["coef"]):
        raise UserError(f"loss.coef must be a list of numbers, got {loss['coef']}")
    for item in loss["types"]:
        _check_component("loss.types", item, manager.LOSSES)
    if len(loss["types"]) not in (1, len(loss["coef"])):
        raise UserError(f"loss has {len(loss['types'])} types for {len(loss['coef'])} coefficients; give 1 or as many")


def _check_clips(config: Config, part: str) -> None:
    """Refuse clips for a network that takes single images, and single images for one whose window is longer."""
    model, cfg = config.model_cfg, getattr(config, f"{part}_cfg")
    takes_clips = "temporal_window" in inspect.signature(manager.MODELS[model["type"]].__init__).parameters
    window, frames = model.get("temporal_window", 1), cfg.get("frames", 1)
    if not (isinstance(window, int) and isinstance(frames, int)):
        return  # their constructors say what is wrong
    if frames > 1 and not takes_clips:
        raise UserError(f"{part}.frames is {frames}, but {model['type']} takes single images; leave frames out")
    if frames < window:
        raise UserError(
            f"model.temporal_window is {window}, but {part} gives {frames} frame{'s'[: frames > 1]} at a "
            f"time; set {part}.frames to {window} (StreetScenes and CamVid can give clips)"
        )


def _check_scheduler(scheduler: dict) -> None:
    name = scheduler.get("type")
    schedulers = {n for n, c in vars(paddle.optimizer.lr).items() if inspect.isclass(c) and not n.startswith("_")}
    if name not in schedulers:
        raise unknown("lr_scheduler type", name, schedulers)
    given = {key: value for key, value in scheduler.items() if key not in ("type", *_WARMUP_KEYS)}
    check_arguments(getattr(paddle.optimizer.lr, name), given)
    rate = scheduler.get("learning_rate", 1.0)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not rate > 0:
        raise UserError(f"lr_scheduler.learning_rate must be a number above 0, got {rate!r}")
    if ("warmup_iters" in scheduler) != ("warmup_start_lr" in scheduler):
        raise UserError("lr_scheduler needs both warmup_iters and warmup_start_lr, or neither")


def _check_keys(kind: str, given: Any, valid: tuple[str, ...]) -> None:
    if not isinstance(given, dict):
        raise UserError(f"expected a mapping of {kind}s ({', '.join(valid)}), got {given!r}")
    for key in given:
        if key not in valid:
            raise unknown(kind, key, valid)


def _parse_override(item: str) -> tuple[str, Any]:
    key, equals, text = item.partition("=")
    if not equals or not key:
        raise UserError(f"--opts takes key=value, such as batch_size=1 or model.cross_size=8, got {item!r}")
    try:
        return key, literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    try:
        return key, yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--opts {item}: {text!r} is neither a Python nor a YAML value") from error


def _override(dic: dict, key: str, value: Any) -> None:
    """Set a dotted key; all but its last part must exist, and the check of the whole config judges the last."""
    node: Any = dic
    *parents, last = key.split(".")
    for part in parents:
        node = node[_position(node, part, key)]
    if isinstance(node, list):
        node[_position(node, last, key)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise UserError(f"cannot set {key}: {'.'.join(parents)} is {node!r}, which has no keys")


def _position(node: Any, part: str, key: str) -> str | int:
    if isinstance(node, list):
        if part.isdigit() and int(part) < len(node):
            return int(part)
        raise UserError(f"cannot set {key}: {part!r} is no position in a list of {len(node)}")
    if isinstance(node, dict):
        if part in node:
            return part
        raise unknown(f"part of {key!r}", part, node)
    raise UserError(f"cannot set {key}: {part!r} stands under {node!r}, which has no keys")


def num_classes(config: Config) -> int:
    """Number of classes, from the model's config or else from the dataset's class."""
    cfg = config.train_dataset_cfg
    return config.model_cfg.get("num_classes") or manager.DATASETS.components_dict[cfg["type"]].NUM_CLASSES


def class_names(config: Config) -> list[str]:
    """Names of the dataset's classes, or their numbers where it names none."""
    return classes.class_names(config.train_dataset_cfg["type"], num_classes(config))


def palette(config: Config) -> np.ndarray:
    """Colours of the dataset's classes, uint8 RGB [num_classes, 3]."""
    return classes.palette(config.train_dataset_cfg["type"], num_classes(config))
