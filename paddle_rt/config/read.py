"""Config files: YAML with `_base_` files below it, merged as PaddleSeg merges them."""

import os
from typing import Any

import yaml

from paddle_rt.errors import UserError


class _Loader(yaml.FullLoader):
    """Refuses a key that occurs twice in one mapping, of which YAML would silently keep the last."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = []
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} occurs twice", problem_mark=key.start_mark)
            seen.append(key.value)
        return node


def read_config_file(path: str, below: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a config and the files that its `_base_` names.

    Mappings merge key by key and the file's own values win over its bases', an earlier base's over a later one's;
    lists are replaced whole. `_inherited_: False` in a mapping drops what the bases have in its place.

    Args:
        path: A YAML file. Its bases are found relative to it.
        below: The files that led here, none for the first.

    Returns:
        The merged mapping, without `_base_` and `_inherited_`.

    Raises:
        UserError: A file is missing, no mapping of keys, not valid YAML, or its own base.
    """
    if not os.path.isfile(path):
        raise UserError(f"{below[-1]} has a _base_ that is not there: {path}" if below else f"no config file at {path}")
    if os.path.realpath(path) in map(os.path.realpath, below):
        raise UserError(f"{below[-1]} names {path} as its _base_, which makes a circle")
    try:
        with open(path, encoding="utf-8") as file:
            merged = yaml.load(file, Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(merged, dict):
        found = "is empty" if merged is None else f"holds a {type(merged).__name__}"
        raise UserError(f"{path} {found}; a config is a mapping of keys")
    bases = merged.pop("_base_", [])
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str):
            raise UserError(f"{path}: _base_ takes a file or a list of files, got {base!r}")
        merged = _merge(merged, read_config_file(os.path.join(os.path.dirname(path), base), (*below, path)))
    return merged if below else _without_marks(merged)


def _merge(own: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    if own.get("_inherited_") is False:
        return {key: value for key, value in own.items() if key != "_inherited_"}
    both = {key: _merge(value, base[key]) for key, value in own.items()
            if isinstance(value, dict) and isinstance(base.get(key), dict)}  # fmt: skip
    return {**base, **own, **both}


def _without_marks(dic: dict[str, Any]) -> dict[str, Any]:
    """Drop the marks that found no base; PaddleSeg hands them to the constructor."""
    return {
        key: _without_marks(value) if isinstance(value, dict) else value
        for key, value in dic.items()
        if key != "_inherited_"
    }
