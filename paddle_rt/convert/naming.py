"""A table of the names that one program gives to the parts of a network, and the translation of names with it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from paddle_rt.errors import UserError

State = dict[str, np.ndarray]

_FIELDS = {"i": "[0-3]", "n": "[1-4]", "b": "[0-9]+", "w": "[a-z0-9_]+"}
_LEAVES = {"weight": "weight", "bias": "bias", "running_mean": "_mean", "running_var": "_variance",
           "_mean": "_mean", "_variance": "_variance"}  # fmt: skip


def _unchanged(state: State) -> State:
    return state


@dataclass(frozen=True)
class Naming:
    """The names that one program gives to the parts of a network.

    Args:
        source: The program, for messages.
        recognised_by: Template of a module that every file of this program has, and no file of another program.
        modules: Templates of the program's modules and, for each, of ours. `{i}` is a stage counted from 0, `{n}` a
            stage counted from 1, `{b}` the number of a block and `{w}` a word. Where one of `{i}` and `{n}` occurs in
            the program's template, ours may use either.
        prefix: What the backbone's names begin with in a file that holds a head too.
        unused: Modules that the program's files hold although nothing reads them.
        classifier: Modules of an ImageNet classifier, which are ignored together with the head.
        prepare: Splits or joins the arrays that the two sides divide differently; the names remain the program's.
        arguments: Arguments of `create_model` for a network of this kind.
        backbone_only: The program's networks have no head like ours.
        may_miss: Patterns of our names that the program's files may lack.
    """

    source: str
    recognised_by: str
    modules: Mapping[str, str]
    prefix: str = ""
    unused: tuple[str, ...] = ()
    classifier: tuple[str, ...] = ()
    prepare: Callable[[State], State] = _unchanged
    arguments: Mapping[str, Any] = field(default_factory=dict)
    backbone_only: bool = False
    may_miss: tuple[str, ...] = ()

    def recognises(self, state: State) -> bool:
        """Return whether the names are this program's."""
        pattern = _pattern(self.recognised_by)
        return any(pattern.fullmatch(_split(name.removeprefix(self.prefix))[0]) for name in state)

    def rename(self, state: State) -> tuple[State, list[str]]:
        """Return the values under our names, and the names that match no template.

        Raises:
            UserError: Two names translate to the same name of ours, so that one of the values would be lost.
        """
        templates = [(_pattern(theirs), ours) for theirs, ours in self.modules.items()]
        renamed, unmatched = {}, []
        bare = {name.removeprefix(self.prefix): value for name, value in state.items()}
        if len(bare) < len(state):
            raise UserError(f"some names occur with and without the prefix {self.prefix!r}; are these two checkpoints?")
        for name, value in self.prepare(bare).items():
            module, leaf = _split(name)
            if leaf == "num_batches_tracked" or module in self.unused:
                continue
            found = next(((match, ours) for pattern, ours in templates if (match := pattern.fullmatch(module))), None)
            if found is None or leaf not in _LEAVES:
                unmatched.append(name)
                continue
            own = f"{found[1].format(**_both_counts(found[0].groupdict()))}.{_LEAVES[leaf]}"
            if own in renamed:
                raise UserError(f"{name} is the second name for {own}; are these two checkpoints?")
            renamed[own] = value
        return renamed, unmatched


def _split(name: str) -> tuple[str, str]:
    module, _, leaf = name.rpartition(".")
    return module, leaf


def _pattern(template: str) -> re.Pattern:
    escaped = re.escape(template)
    for letter, expression in _FIELDS.items():
        escaped = escaped.replace(re.escape("{" + letter + "}"), f"(?P<{letter}>{expression})")
    return re.compile(escaped)


def _both_counts(fields: dict[str, str]) -> dict[str, str]:
    if "i" in fields:
        return {**fields, "n": str(int(fields["i"]) + 1)}
    return {**fields, "i": str(int(fields["n"]) - 1)} if "n" in fields else fields


def stacked(parts: Sequence[np.ndarray]) -> bool:
    """Return whether arrays can be concatenated along their first axis; those of a damaged file may not fit."""
    return all(part.ndim and part.shape[1:] == parts[0].shape[1:] for part in parts)
