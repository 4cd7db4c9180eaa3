"""Sections of a config that have a `type`: found by name, checked to the last argument, and built."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from paddle_rt.errors import UserError, unknown

Catalogue = Mapping[str, Callable]

# What a constructor raises about arguments that do not fit; anything else is a fault of ours and keeps its traceback.
_WRONG_ARGUMENTS = (RuntimeError, AssertionError, ValueError, TypeError, KeyError, IndexError, OSError)


def argument_names(component: Callable) -> list[str] | None:
    """Return the names of the arguments that a class or function takes, or None where it takes any name."""
    parameters = inspect.signature(component).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    return list(parameters)


def check_keys(kind: str, section: Any, valid: tuple[str, ...]) -> None:
    """Check the keys of a mapping.

    Args:
        kind: What a key of it is called, such as "loss key".
        section: What the config holds.
        valid: The keys that it may have.

    Raises:
        UserError: It is no mapping, or it has another key.
    """
    if not isinstance(section, dict):
        raise UserError(f"expected a mapping of {kind}s ({', '.join(valid)}), got {section!r}")
    for key in section:
        if key not in valid:
            raise unknown(kind, key, valid)


def check_component(
    where: str, section: Any, catalogue: Catalogue, nested: Mapping[str, Catalogue] | None = None
) -> None:
    """Check a section with a `type` and the sections inside it.

    Args:
        where: The place of the section in the config, for messages.
        section: What the config holds there.
        catalogue: The classes and functions that `type` can name.
        nested: Arguments that hold a section or a list of sections, with the catalogue of each.

    Raises:
        UserError: The type or an argument is unknown.
    """
    if not isinstance(section, dict) or not isinstance(section.get("type"), str):
        raise UserError(f"{where} must be a mapping with a 'type', got {section!r}")
    name = section["type"]
    if name not in catalogue:
        raise unknown(f"{where} type", name, catalogue)
    valid = argument_names(catalogue[name])
    for key, value in section.items():
        if key != "type" and valid is not None and key not in valid:
            raise unknown(f"argument of {name}", key, valid)
        if nested and key in nested:
            for item in value if isinstance(value, list) else [value]:
                check_component(f"{where}.{key}", item, nested[key], nested)


def build_component(what: str, section: Mapping[str, Any], catalogue: Catalogue) -> Any:
    """Build a section with a `type`, and the sections inside it first.

    Args:
        what: What is built, for messages.
        section: Checked by `check_component`.
        catalogue: The classes and functions that the section's types name.

    Raises:
        UserError: A constructor refuses its arguments.
    """
    arguments = {key: _build_nested(what, value, catalogue) for key, value in section.items() if key != "type"}
    return construct(what, catalogue[section["type"]], arguments)


def construct(what: str, component: Callable, arguments: Mapping[str, Any]) -> Any:
    """Call a class or function, and turn what it says about its arguments into a user's error.

    Raises:
        UserError: It refuses its arguments.
    """
    try:
        return component(**arguments)
    except UserError:
        raise
    except _WRONG_ARGUMENTS as error:
        kind = "" if isinstance(error, ValueError | AssertionError | RuntimeError) else f"{type(error).__name__}: "
        raise UserError(f"cannot build {what}: {kind}{error}") from error


def _build_nested(what: str, value: Any, catalogue: Catalogue) -> Any:
    if isinstance(value, dict) and "type" in value:
        return build_component(what, value, catalogue)
    if isinstance(value, list):
        return [_build_nested(what, item, catalogue) for item in value]
    return value


_OWN_NETWORKS = {"RTFormer": "rtformer", "SegFormerPlusPlus": "segformer", "FANet": "fanet"}


def network_catalogue(name: object) -> Catalogue:
    """Return the networks among which the type of a `model` section is looked up.

    Args:
        name: The type. Only where it is none of ours is PaddleSeg imported.
    """
    if name in _OWN_NETWORKS:
        return {name: getattr(importlib.import_module(f"paddle_rt.models.{_OWN_NETWORKS[name]}"), name)}
    from paddle_rt.paddleseg.components import components

    return {**dict.fromkeys(_OWN_NETWORKS), **components("networks")}


def backbone_catalogue(name: object) -> Catalogue:
    """Return the backbones of a network, which those of PaddleSeg take as sections of their own."""
    if name in _OWN_NETWORKS:
        return {}
    from paddle_rt.paddleseg.components import components

    return components("backbones")
