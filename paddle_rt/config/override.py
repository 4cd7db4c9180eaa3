"""Overrides of a config's keys from the command line."""

from ast import literal_eval
from typing import Any

import yaml

from paddle_rt.errors import UserError, unknown


def parse_override(item: str) -> tuple[str, Any]:
    """Split `key=value` and read the value as Python, or else as YAML.

    Raises:
        UserError: There is no key or no value, or the value cannot be read.
    """
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


def override(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key of a merged config.

    Args:
        values: The config, which is changed.
        key: Names separated by dots; a number is a position in a list. All but the last must exist; the check of the
            whole config judges the last.
        value: The new value.

    Raises:
        UserError: A part of the key does not exist.
    """
    node: Any = values
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
