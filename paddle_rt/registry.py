"""Names of models and what builds them."""

import importlib
import os
from typing import Any

from paddle_rt.errors import UserError, check_arguments, unknown

# File of paddle_rt.models and class in it; the file's VARIANTS holds the arguments in which its models differ.
_MODELS = {
    "fanet18": ("fanet", "FANet"),
    "fanet34": ("fanet", "FANet"),
    "fanet50": ("fanet", "FANet"),
    "rtformer_base": ("rtformer", "RTFormer"),
    "rtformer_slim": ("rtformer", "RTFormer"),
    **{f"segformerpp_b{i}": ("segformer", "SegFormerPlusPlus") for i in range(6)},
}


def list_models() -> list[str]:
    """Names that `create_model` takes, sorted."""
    return sorted(_MODELS)


def model_class(name: str) -> type:
    """The class of one of `list_models()`, which `create_model` calls.

    Raises:
        UserError: The name is unknown.
    """
    if name not in _MODELS:
        raise unknown("model", name, _MODELS)
    file, class_name = _MODELS[name]
    return getattr(importlib.import_module(f"paddle_rt.models.{file}"), class_name)


def model_config(name: str) -> dict[str, Any]:
    """The `model` section of a config that describes one of `list_models()`: its type and what sets it apart.

    Raises:
        UserError: The name is unknown.
    """
    builder = model_class(name)
    return {"type": builder.__name__, **importlib.import_module(builder.__module__).VARIANTS[name]}


def create_model(name: str, num_classes: int = 19, checkpoint: str | os.PathLike | None = None, **arguments: Any):
    """Build a model by name.

    Args:
        name: One of `list_models()`.
        num_classes: Number of classes.
        checkpoint: A `.pdparams` file, or a folder with `model.pdparams`, that must fit the model to the last name.
        **arguments: What the model's class takes, in place of the variant's own choice.

    Returns:
        A paddle.nn.Layer in training mode, whose forward gives a list of logits [B, num_classes, H, W] and which has
        `coarse_logits`.

    Raises:
        UserError: The name or an argument is unknown, or the checkpoint does not fit.
    """
    builder = model_class(name)
    variant = {key: value for key, value in model_config(name).items() if key != "type"}
    settings = {**variant, "num_classes": num_classes, **arguments}
    check_arguments(builder, settings)
    try:
        model = builder(**settings)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error
    if checkpoint is not None:
        from paddle_rt.checkpoint import load

        load(model, checkpoint)
    return model
