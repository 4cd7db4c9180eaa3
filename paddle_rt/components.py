"""Sections of a config that have a `type`: found by name, checked to the last argument, and built."""

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from paddle_rt.errors import UserError, unknown

if TYPE_CHECKING:
    from paddle_rt.models.base import Network

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


def check_network(section: Mapping[str, Any]) -> None:
    """Check the `model` section of a config: one of our networks, or else one of PaddleSeg's.

    Raises:
        UserError: The type or an argument is unknown.
    """
    from paddle_rt import registry

    if registry.entries_of(section.get("type")):
        registry.network_of(section)
        return
    from paddle_rt.paddleseg.components import components

    ours = dict.fromkeys(entry.class_name for entry in registry.ENTRIES.values())  # for the message alone
    check_component("model", section, {**ours, **components("networks")}, {"backbone": components("backbones")})


def build_network(section: Mapping[str, Any]) -> "Network":
    """Build the network that a checked `model` section describes.

    Raises:
        UserError: The network refuses its arguments, or its pretrained weights cannot be read.
    """
    from paddle_rt import registry

    if registry.entries_of(section["type"]):
        return construct("model", *registry.network_of(section))
    from paddle_rt.paddleseg.components import components

    return build_component("model", section, {**components("backbones"), **components("networks")})


def takes_clips(section: Mapping[str, Any]) -> bool:
    """Tell whether the network of a checked `model` section takes clips; PaddleSeg's networks do not."""
    from paddle_rt import registry

    entries = registry.entries_of(section["type"])
    return bool(entries) and entries[0].network_class().takes_clips
