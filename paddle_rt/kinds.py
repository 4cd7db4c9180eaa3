"""Kinds of values: what an argument of a config or a flag may be, in words and as a test."""

import argparse
import collections.abc
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from paddle_rt.errors import LARGEST, UserError, shown


class Kind(NamedTuple):
    """A kind of values.

    Args:
        valid: What the values are, to complete "it must be ...".
        accepts: Whether a value is one of them.
    """

    valid: str
    accepts: Callable[[Any], bool]


def whole(low: int = -LARGEST, high: int = LARGEST) -> Kind:
    """Return the kind of the whole numbers from `low` to `high`."""

    def accepts(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return Kind(f"a whole number{_limits(low, high)}", accepts)


def check_count(where: str, value: object, low: int = 1, high: int = LARGEST) -> None:
    """Raise a UserError for a value that is not a whole number from `low` to `high`.

    Args:
        where: What the value stands for; the message begins with it.
        value: The value; True and False are not numbers here.
        low: Smallest number that is accepted.
        high: Largest number that is accepted.
    """
    kind = whole(low, high)
    if not kind.accepts(value):
        raise UserError(f"{where} must be {kind.valid}, got {shown(value)}")


def number(low: float = -math.inf, high: float = math.inf, *, above: bool = False, below: bool = False) -> Kind:
    """Return the kind of the finite numbers from `low` to `high`.

    Args:
        low: The least number.
        high: The greatest number.
        above: Exclude `low` itself.
        below: Exclude `high` itself.
    """

    def accepts(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if isinstance(value, int) and abs(value) > LARGEST or not math.isfinite(value):
            return False
        return (low < value if above else low <= value) and (value < high if below else value <= high)

    return Kind(f"a number{_limits(low, high, above, below)}", accepts)


def _limits(low: float, high: float, above: bool = False, below: bool = False) -> str:
    has_low, has_high = low > -LARGEST, high < LARGEST
    if has_low and has_high and not above and not below:
        return f" from {_digits(low)} to {_digits(high)}"
    least = f"{'above' if above else 'of at least'} {_digits(low)}" if has_low else ""
    most = f"{'below' if below else 'at most'} {_digits(high)}" if has_high else ""
    return f" {least} and {most}" if least and most else f" {least or most}".rstrip()


def _digits(limit: float) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def choice(*words: Any) -> Kind:
    """Return the kind of these values alone."""
    return Kind(" or ".join(map(repr, words)), lambda value: type(value) in map(type, words) and value in words)


def listed(item: Kind, *lengths: int, valid: str = "") -> Kind:
    """Return the kind of lists of a kind.

    Args:
        item: The kind of the list's items.
        lengths: The numbers of items that a list may have; none for any.
        valid: The words for the lists, in place of those that follow from the item.
    """

    def accepts(value: Any) -> bool:
        is_list = isinstance(value, list | tuple) and (not lengths or len(value) in lengths)
        return is_list and all(map(item.accepts, value))

    *first, last = map(str, lengths or ["any length"])
    numbers = f"{', '.join(first)} or {last}" if first else last
    return Kind(valid or f"a list of {numbers}{' items' * bool(lengths)}, each {item.valid}", accepts)


def either(*kinds: Kind) -> Kind:
    """Return the kind of all values of some kinds."""
    possible = sorted((kind for kind in kinds if kind is not NOTHING), key=lambda kind: kind is not NULL)
    valid = " or ".join(dict.fromkeys(kind.valid for kind in possible))
    return Kind(valid, lambda value: any(kind.accepts(value) for kind in kinds))


SWITCH = Kind("True or False", lambda value: isinstance(value, bool))
TEXT = Kind("a text", lambda value: isinstance(value, str) and "\0" not in value)
NULL = Kind("null", lambda value: value is None)
LIST = Kind("a list", lambda value: isinstance(value, list | tuple))
MAPPING = Kind("a mapping", lambda value: isinstance(value, Mapping) and all(isinstance(key, str) for key in value))
ANYTHING = Kind("anything", lambda value: True)
NOTHING = Kind("left out, since it is no value that a config can hold", lambda value: False)

_PLAIN = {bool: SWITCH, int: whole(), float: number(), str: TEXT, type(None): NULL, list: LIST, tuple: LIST,
          dict: MAPPING}  # fmt: skip
_SEQUENCES = (list, tuple, collections.abc.Sequence)


def kind_of_annotation(annotation: Any) -> Kind:
    """Return the kind of the values that an annotation allows."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if origin in (typing.Union, types.UnionType):
        return either(*map(kind_of_annotation, parts))
    if origin is Literal:
        return choice(*parts)
    if origin in _SEQUENCES and parts:
        lengths = (len(parts),) if origin is tuple and Ellipsis not in parts else ()
        return listed(either(*(kind_of_annotation(part) for part in parts if part is not Ellipsis)), *lengths)
    if origin in (dict, collections.abc.Mapping):
        return MAPPING
    return NOTHING if collections.abc.Callable in (annotation, origin) else ANYTHING


def kind_of_default(default: Any) -> Kind:
    """Return the kind that an argument without an annotation probably has: that of its default."""
    if isinstance(default, bool):
        return SWITCH
    if isinstance(default, int | float):
        return number()  # 15 may stand for 15.0
    return _PLAIN.get(type(default), ANYTHING) if default is not None else ANYTHING


def flag(kind: Kind) -> Callable[[str], Any]:
    """Return a reader of a flag's number, for argparse's `type`."""

    def read(text: str) -> Any:
        value: Any = text
        if re.fullmatch(r"[-+]?[0-9]{1,20}", text):
            value = int(text)
        elif re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?", text[:100], re.IGNORECASE):
            value = float(text)
        if not kind.accepts(value):
            raise argparse.ArgumentTypeError(f"expected {kind.valid}, got {shown(text)}")
        return value

    return read
