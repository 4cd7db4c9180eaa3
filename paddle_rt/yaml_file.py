"""YAML of configs and of deploy.yaml: plain values only, read within bounds on size, depth, aliases and numbers."""

import os
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import yaml

from paddle_rt.errors import LARGEST, UserError
from paddle_rt.files import check_plain_file

MOST_BYTES = 1 << 18
MOST_VALUES = 20_000  # of a file; an alias counts as many values as it stands for
DEEPEST = 32
_LONGEST_NUMBER = 100  # characters

NO_TAGS: Mapping[str, str] = MappingProxyType({})
_PREFIX = "tag:yaml.org,2002:"
# YAML reads some plain words as dates, and "=" as a value of its own; here they are texts.
_TEXTS = (f"{_PREFIX}timestamp", f"{_PREFIX}value")


class _Loader(yaml.SafeLoader):
    """Composes mappings, lists, texts, numbers, booleans and null; anything else is an error with its line and key.

    The bounds are checked while the events arrive, so that a short file cannot stand for a large value.

    Args:
        text: The YAML.
        where: The file or flag that it comes from.
        tags: What stands here in the place of a tag of other programs, by its name; for the message.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  the name and the kind are PyYAML's
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _TEXTS]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str, where: str, tags: Mapping[str, str]) -> None:
        super().__init__(text)
        self.where, self.tags = where, tags
        self.key: list[str] = []  # the keys and positions that lead to the node that is being composed
        self.values = 0
        self.sizes: dict[str, int] = {}  # how many values each anchor stands for

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        if isinstance(parent, yaml.SequenceNode):
            self.key.append(f"[{index}]")
        elif index is not None:
            self.key.append(f".{index.value}")
        event, before = self.peek_event(), self.values
        self._check_event(event)
        node = super().compose_node(parent, index)
        if not isinstance(event, yaml.AliasEvent):
            if isinstance(node, yaml.ScalarNode):
                self._check_scalar(node)
            elif isinstance(node, yaml.MappingNode):
                self._check_keys(node)
            if event.anchor:
                self.sizes[event.anchor] = self.values - before
        if isinstance(parent, yaml.SequenceNode) or index is not None:
            self.key.pop()
        return node

    def _check_event(self, event: yaml.NodeEvent) -> None:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in self.anchors and event.anchor not in self.sizes:
                raise self._error(event, f"the alias *{event.anchor} is part of what it stands for")
            self.values += self.sizes.get(event.anchor, 0)
        elif event.tag is not None:
            tag = event.tag.replace(_PREFIX, "!!")
            instead = f"here it is {self.tags[tag[1:]]}" if tag[1:] in self.tags else "write the plain value"
            raise self._error(event, f"tags such as {tag} are not read; {instead}")
        else:
            self.values += 1
        if self.values > MOST_VALUES:
            raise self._error(event, f"these are more than {MOST_VALUES} values, counting what each alias stands for")
        if len(self.key) > DEEPEST:
            raise self._error(event, f"values lie more than {DEEPEST} levels deep")

    def _check_scalar(self, node: yaml.ScalarNode) -> None:
        if "\0" in node.value or re.search("[\ud800-\udfff]", node.value):
            raise self._error(node, "the text holds a NUL character or half of a surrogate pair")
        if node.tag not in (f"{_PREFIX}int", f"{_PREFIX}float"):
            return
        if len(node.value) > _LONGEST_NUMBER:
            raise self._error(node, f"a number of {len(node.value)} digits is too large; numbers go up to {LARGEST}")
        try:
            number = self.yaml_constructors[node.tag](self, node)
        except ValueError as error:  # such as 0x_
            raise self._error(node, f"{node.value} is no number") from error
        if isinstance(number, int) and abs(number) > LARGEST:
            raise self._error(node, f"{node.value} is too large; numbers go up to {LARGEST}")

    def _check_keys(self, node: yaml.MappingNode) -> None:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._error(key, "a key must be a word")
            if key.value in seen:  # YAML itself would silently keep the last value
                raise self._error(key, f"the key {key.value!r} occurs twice")
            seen.add(key.value)

    def _error(self, place: yaml.Event | yaml.Node, problem: str) -> UserError:
        key = "".join(self.key).lstrip(".")
        key = f"{key[:57]}..." if len(key) > 60 else key
        return UserError(f"{self.where}, line {place.start_mark.line + 1}: {f'{key}: ' if key else ''}{problem}")


def read_yaml(path: str | os.PathLike, what: str = "YAML file", tags: Mapping[str, str] = NO_TAGS) -> Any:
    """Read a YAML file of plain values.

    Args:
        path: The file.
        what: What the file is called in messages.
        tags: What stands here in the place of a tag of other programs, by its name; for the message.

    Raises:
        UserError: There is no such file, it is not valid, or it is not within the bounds; names the file and the line
            and, where the fault lies in a value, its key.
    """
    data = check_plain_file(path, what, MOST_BYTES).read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not valid YAML: it is not UTF-8 text") from error
    return parse_yaml(text, str(path), tags)


def parse_yaml(text: str, where: str, tags: Mapping[str, str] = NO_TAGS) -> Any:
    """Read a text that is YAML of plain values.

    Args:
        text: The YAML.
        where: The file or flag that it comes from, with which messages begin.
        tags: As for `read_yaml`.

    Raises:
        UserError: It is not valid, or not within the bounds.
    """
    try:
        loader = _Loader(text, where, tags)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except UserError:
        raise
    except (yaml.reader.ReaderError, ValueError, OverflowError) as error:  # the latter of an escape such as \U99999999
        raise UserError(f"{where} is not valid YAML: it holds control characters or unknown escapes") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = ", ".join(filter(None, (error.context, error.problem)))
        raise UserError(f"{where} is not valid YAML{line}: {problem}") from error
