"""Errors: a user's mistake as one clear line that says what is wrong, what was expected and what to do."""

import difflib
from collections.abc import Iterable

LARGEST = 2**63 - 1  # the largest whole number that NumPy and Paddle take, of either sign


class UserError(ValueError):
    """A mistake in the user's input; tools print its message on one line, without a traceback.

    Attributes:
        exit_code: The exit code of a tool that ends with it.

    Args:
        message: What is wrong, what was expected and what to do.
        details: Further lines to print below the message, such as a tree of folders.
    """

    exit_code = 1

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class FlagError(UserError):
    """A mistake in the flags of a tool."""

    exit_code = 2


class InternalError(RuntimeError):
    """A fault that is not the user's, such as one of an engine; tools print its message on one line."""


def nearest(name: object, valid: Iterable[object]) -> str | None:
    """Return the valid name that is most similar to `name`, or None where none is similar."""
    found = difflib.get_close_matches(str(name), [str(v) for v in valid], n=1, cutoff=0.5)
    return found[0] if found else None


def shown(value: object) -> str:
    """Return a value as messages show it: on one line, and shortened where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= 100 else f"{text[:80]}... ({len(text)} characters)"


def unknown(kind: str, name: object, valid: Iterable[object], where: str = "") -> UserError:
    """Describe a name that is not among the valid ones.

    Args:
        kind: What the name stands for, such as "model" or "config key".
        name: The unknown name.
        valid: The valid names.
        where: The place in the config or the flag, with which the message begins.

    Returns:
        The error to raise, whose message has the nearest match and the valid names.
    """
    names = sorted(str(v) for v in valid)
    near = nearest(name, names)
    hint = f", did you mean {near!r}?" if near else "."
    start = f"{where}: " if where else ""
    return UserError(f"{start}unknown {kind} {shown(name)}{hint} Valid: {', '.join(names) or 'none'}")
