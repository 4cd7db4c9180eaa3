"""Sections of a config that have a `type`: found by name, checked to the last argument, and built."""

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from paddle_rt.arguments import BY_DATA, check_arguments
from paddle_rt.errors import UserError, shown, unknown

if TYPE_CHECKING:
    from paddle_rt.models.base import Network

Catalogue = Mapping[str, Callable]

# What a constructor raises about arguments that do not fit; anything else is a fault of ours and keeps its traceback.
_WRONG_ARGUMENTS = (RuntimeError, AssertionError, ValueError, TypeError, KeyError, IndexError, OSError, OverflowError)


def check_component(
    where: str,
    section: Any,
    catalogue: Catalogue,
    nested: Mapping[str, Catalogue] | None = None,
    supplied: Collection[str] = (),
) -> None:
    """Check a section with a `type` and the sections inside it.

    Args:
        where: The place of the section in the config, for messages.
        section: What the config holds there.
        catalogue: The classes and functions that `type` can name.
        nested: Arguments that hold a section or a list of sections, with the catalogue of each.
        supplied: Arguments that are added to the section later.

    Raises:
        UserError: The type or an argument is unknown, or an argument is missing or not what it may be.
    """
    if not isinstance(section, dict) or not isinstance(section.get("type"), str):
        raise UserError(f"{where} must be a mapping with a 'type', got {shown(section)}")
    name = section["type"]
    if name not in catalogue:
        raise unknown(f"{where} type", name, catalogue)
    arguments = {key: value for key, value in section.items() if key != "type"}
    check_arguments(where, catalogue[name], arguments, name, supplied)
    for key in arguments.keys() & (nested or {}):
        value = arguments[key]
        items = value if isinstance(value, list) else [] if value is None else [value]
        for number, item in enumerate(items):
            place = f"{where}.{key}[{number}]" if isinstance(value, list) else f"{where}.{key}"
            check_component(place, item, nested[key], nested, supplied)


def build_component(where: str, section: Mapping[str, Any], catalogue: Catalogue) -> Any:
    """Build a section with a `type`, and the sections inside it first.

    Args:
        where: The place of the section in the config, for messages.
        section: Checked by `check_component`.
        catalogue: The classes and functions that the section's types name.

    Raises:
        UserError: An argument is missing, or a constructor refuses its arguments.
    """
    arguments = {
        key: _build_nested(f"{where}.{key}", value, catalogue) for key, value in section.items() if key != "type"
    }
    return construct(where, catalogue[section["type"]], arguments)


def construct(where: str, component: Callable, arguments: Mapping[str, Any]) -> Any:
    """Call a class or function, and turn what it says about its arguments into a user's error.

    Raises:
        UserError: It refuses its arguments.
    """
    try:
        return component(**arguments)
    except UserError:
        raise
    except _WRONG_ARGUMENTS as error:
        says = f": {str(error)[:200]}" if isinstance(error, ValueError | AssertionError | OSError) else ""
        raise UserError(f"cannot build {where}: {component.__name__} does not take these arguments{says}") from error


def _build_nested(where: str, value: Any, catalogue: Catalogue) -> Any:
    if isinstance(value, dict) and isinstance(value.get("type"), str) and value["type"] in catalogue:
        return build_component(where, value, catalogue)
    if isinstance(value, list):
        return [_build_nested(f"{where}[{number}]", item, catalogue) for number, item in enumerate(value)]
    return value


def check_network(section: Mapping[str, Any]) -> None:
    """Check the `model` section of a config: one of our networks, or else one of PaddleSeg's.

    What the data set determines may still be missing.

    Raises:
        UserError: The type or an argument is unknown, or an argument is missing or not what it may be.
    """
    from paddle_rt import registry

    if registry.entries_of(section.get("type")):
        registry.network_of(section)
        return
    from paddle_rt.paddleseg.components import components

    ours = dict.fromkeys(entry.class_name for entry in registry.ENTRIES.values())  # for the message alone
    catalogue, nested = {**ours, **components("networks")}, {"backbone": components("backbones")}
    check_component("model", section, catalogue, nested, BY_DATA)


def build_network(section: Mapping[str, Any]) -> "Network":
    """Build the network that a checked `model` section describes.

    Raises:
        UserError: The network refuses its arguments, or its pretrained weights cannot be read.
    """
    from paddle_rt import registry

    if registry.entries_of(section["type"]):
        network_class, arguments = registry.network_of(section)
        check_arguments("model", network_class, arguments)
        return construct("model", network_class, arguments)
    from paddle_rt.paddleseg.components import components

    return build_component("model", section, {**components("backbones"), **components("networks")})


def takes_clips(section: Mapping[str, Any]) -> bool:
    """Tell whether the network of a checked `model` section takes clips; PaddleSeg's networks do not."""
    from paddle_rt import registry

    entries = registry.entries_of(section["type"])
    return bool(entries) and entries[0].network_class().takes_clips
