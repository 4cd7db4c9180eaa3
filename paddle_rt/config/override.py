"""Overrides of a config's keys from the command line."""

import ast
import math
from typing import Any

from paddle_rt.errors import LARGEST, UserError, unknown
from paddle_rt.yaml_file import parse_yaml

LONGEST = 10_000  # characters of one value


def parse_override(item: str) -> tuple[str, Any]:
    """Split `key=value` and read the value as Python, or else as YAML.

    Raises:
        UserError: There is no key or no value, or the value cannot be read.
    """
    key, equals, text = item.partition("=")
    if not equals or not key:
        raise UserError(f"--opts takes key=value, such as batch_size=1 or model.cross_size=8, got {item[:100]!r}")
    if len(text) > LONGEST:
        raise UserError(f"--opts {key}: the value has {len(text)} characters, at most {LONGEST} are read")
    try:
        return key, _plain(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # the last two of very deep brackets
        return key, parse_yaml(text, f"--opts {key}={text[:100]}")


def _plain(value: Any) -> Any:
    """Return a value with lists for tuples.

    Raises:
        ValueError: It is or contains something that YAML does not have, or a number that is too large.
    """
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(part) for key, part in value.items()}
    fits = value is None or isinstance(value, str) and value.isprintable()
    if isinstance(value, int | float):
        fits = not math.isfinite(value) or abs(value) <= LARGEST
    if not fits:
        raise ValueError(f"not a plain value: {value!r}")
    return value


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
        if part.isdecimal() and len(part) < 9 and int(part) < len(node):
            return int(part)
        raise UserError(f"cannot set {key}: {part!r} is no position in a list of {len(node)}")
    if isinstance(node, dict):
        if part in node:
            return part
        raise unknown(f"part of {key!r}", part, node)
    raise UserError(f"cannot set {key}: {part!r} stands under {node!r}, which has no keys")
