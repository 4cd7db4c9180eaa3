"""Errors: a user's mistake as one clear line that says what is wrong, what was expected and what to do."""

import difflib
import inspect
from collections.abc import Iterable
from typing import Any


class UserError(ValueError):
    """A mistake in the user's input; tools print its message on one line, without a traceback.

    Args:
        message: What is wrong, what was expected and what to do.
        details: Further lines to print below the message, such as a tree of folders.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class InternalError(RuntimeError):
    """A fault that is not the user's, such as one of an engine; tools print its message on one line."""


def nearest(name: object, valid: Iterable[object]) -> str | None:
    """Return the valid name that is most similar to `name`, or None where none is similar."""
    found = difflib.get_close_matches(str(name), [str(v) for v in valid], n=1, cutoff=0.5)
    return found[0] if found else None


def unknown(kind: str, name: object, valid: Iterable[object]) -> UserError:
    """Describe a name that is not among the valid ones.

    Args:
        kind: What the name stands for, such as "model" or "config key".
        name: The unknown name.
        valid: The valid names.

    Returns:
        The error to raise, whose message has the nearest match and the valid names.
    """
    names = sorted(str(v) for v in valid)
    near = nearest(name, names)
    hint = f", did you mean {near!r}?" if near else "."
    return UserError(f"unknown {kind} {name!r}{hint} Valid: {', '.join(names) or 'none'}")


def check_arguments(component: type, arguments: dict[str, Any]) -> None:
    """Raise a UserError for an argument that the constructor of `component` does not take."""
    parameters = inspect.signature(component.__init__).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    valid = [name for name in parameters if name != "self"]
    for name in arguments:
        if name not in valid:
            raise unknown(f"argument of {component.__name__}", name, valid)


def check_count(where: str, value: object, low: int = 1, high: int | None = None) -> None:
    """Raise a UserError for a value that is not a whole number from `low` to `high`.

    Args:
        where: What the value stands for; the message begins with it.
        value: The value; True and False are not numbers here.
        low: Smallest number that is accepted.
        high: Largest number that is accepted; None for no limit.
    """
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or value < low or (high is not None and value > high):
        limits = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise UserError(f"{where} must be a whole number {limits}, got {value!r}")
