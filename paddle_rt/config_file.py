"""Config files: YAML with `_base_` files below it, merged as PaddleSeg merges them."""

import os
from typing import Any

from paddle_rt.errors import UserError
from paddle_rt.files import check_plain_file
from paddle_rt.paddledetection import KEYS
from paddle_rt.weights import find_card
from paddle_rt.yaml_file import read_yaml

MOST_FILES = 50  # that a config may consist of


def read_config_file(path: str) -> dict[str, Any]:
    """Read a config and the files that its `_base_` names.

    Mappings merge key by key and the file's own values win over its bases', an earlier base's over a later one's;
    lists are replaced whole. `_inherited_: False` in a mapping drops what the bases have in its place.

    Args:
        path: A YAML file. Its bases are found relative to it. One that several files name is read once. The name of
            weights of the package stands for the config that their card holds.

    Returns:
        The merged mapping, without `_base_` and `_inherited_`.

    Raises:
        UserError: A file is missing, no mapping of keys, not valid YAML, or its own base.
    """
    card = find_card(path)
    if card is not None:
        return dict(card.config)
    if not path.endswith((".yml", ".yaml")):
        raise UserError(f"a config is a .yml or .yaml file, or the name of weights of the package, got {path}")
    return _without_marks(_read(path, (), {}))


def _read(path: str, below: tuple[str, ...], known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Read a file and its bases.

    Args:
        path: The file.
        below: The files that led here, none for the first.
        known: What the files that have been read are with their bases, by their real paths; the file is added.
    """
    what = f"base of the config {below[-1]}" if below else "config file"
    check_plain_file(path, what)
    real = os.path.realpath(path)
    if real in map(os.path.realpath, below):
        raise UserError(f"{below[-1]} names {path} as its _base_, which makes a circle: {' -> '.join((*below, path))}")
    if real not in known:
        if len(known) + len(below) >= MOST_FILES:
            raise UserError(f"{(*below, path)[0]} consists of more than {MOST_FILES} files; _base_ names too many")
        known[real] = _read_anew(path, what, below, known)
    return known[real]


def _read_anew(path: str, what: str, below: tuple[str, ...], known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    merged = read_yaml(path, what, KEYS)
    if not isinstance(merged, dict):
        raise UserError(f"{path} {'is empty' if merged is None else 'holds no keys'}; a config is a mapping of keys")
    bases = merged.pop("_base_", [])
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str):
            raise UserError(f"{path}: _base_ takes a file or a list of files, got {base!r}")
        merged = _merge(merged, _read(os.path.join(os.path.dirname(path), base), (*below, path), known))
    return merged


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
