"""One program's names for the parts of a network, as a table, and how a name finds its line in it."""

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
    """How one program names a network.

    Args:
        source: Whose names these are, for messages.
        mark: A template of a module that every file of this program has and no other's.
        modules: Templates of its modules and of ours. `{i}` stands for a stage counted from 0, `{n}` for one counted
            from 1, `{b}` for a block's number and `{w}` for a word; either of i and n gives the other.
        prefix: What stands before the trunk's names in a file that holds a head too.
        unused: Modules that the program's files hold though nothing reads them.
        classifier: Modules of an ImageNet classifier; left out with the head.
        prepare: Takes apart or joins what the two sides divide differently, still under the program's names.
        arguments: What `create_model` needs for a network of this kind.
        trunk_only: The program's networks have no head like ours.
        may_miss: Patterns of our names that its files need not bring.
    """

    source: str
    mark: str
    modules: Mapping[str, str]
    prefix: str = ""
    unused: tuple[str, ...] = ()
    classifier: tuple[str, ...] = ()
    prepare: Callable[[State], State] = _unchanged
    arguments: Mapping[str, Any] = field(default_factory=dict)
    trunk_only: bool = False
    may_miss: tuple[str, ...] = ()

    def recognises(self, state: State) -> bool:
        """Whether the names are this program's."""
        pattern = _pattern(self.mark)
        return any(pattern.fullmatch(_split(name.removeprefix(self.prefix))[0]) for name in state)

    def rename(self, state: State) -> tuple[State, list[str]]:
        """Our names to the values, and the names that stand in no line of the table.

        Raises:
            UserError: Two names stand for one of ours, so that one of the values would be lost.
        """
        lines = [(_pattern(theirs), ours) for theirs, ours in self.modules.items()]
        renamed, unmatched = {}, []
        bare = {name.removeprefix(self.prefix): value for name, value in state.items()}
        if len(bare) < len(state):
            raise UserError(f"names with and without {self.prefix!r} before them; is it two checkpoints in one?")
        for name, value in self.prepare(bare).items():
            module, leaf = _split(name)
            if leaf == "num_batches_tracked" or module in self.unused:
                continue
            found = next(((match, ours) for line, ours in lines if (match := line.fullmatch(module))), None)
            if found is None or leaf not in _LEAVES:
                unmatched.append(name)
                continue
            own = f"{found[1].format(**_both_counts(found[0].groupdict()))}.{_LEAVES[leaf]}"
            if own in renamed:
                raise UserError(f"{name} is the second name for {own}; is the file two checkpoints in one?")
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
    """Whether arrays can be joined along their first axis; those of a damaged file may not."""
    return all(part.ndim and part.shape[1:] == parts[0].shape[1:] for part in parts)
