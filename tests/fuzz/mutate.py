"""Changes of inputs, each decided by a random generator and described in words."""

import copy
import pickle
import struct
from typing import Any

import numpy as np

from tests import bad_inputs as bad

Rng = np.random.Generator

# Values that stand where a config, a deploy.yaml or a flag has another. Numbers are tiny or absurd, since a large one
# that is allowed, such as 100,000 iterations, takes its time and breaks no promise.
ODD_VALUES = (
    None, True, False, 0, 1, 2, -1, 7, 2**31, 2**63, -(2**63), 10**30, 0.0, 0.5, -0.5, 1e-30, 1e300, float("nan"),
    float("inf"), "", " ", "x", "1e-3", "None", "0", "-1", "a b", "ä", "\ufeff", "a\0b", "../x", "/", "/dev/null", "~",
    "x" * 5000, "http://127.0.0.1:9/x.pdparams", [], [[]], [0], [1, 2, 3], ["x"], [None], {}, {"type": "x"}, {"x": 1},
    {1: 2}, {"type": None}, {"type": "Normalize"}, {"type": "StreetScenes"}, {"type": ["x"]},
)  # fmt: skip
# Pieces of YAML that are put into a config's text.
ODD_TEXT = (
    "\t", "&a *a", "*nothing", "<<: *a", "!!binary x", "%YAML 9.9", "--- ", "...", "? ", ": ", "- ", "{", "}", "[", "]",
    "'", '"', "|", ">", "#", "\0", "\x07", "\ud800", "2001-01-01", "0x7fffffffffffffffffff", "1_000", ".inf",
    "9" * 5000, "[" * 3000, "_base_: config.yml", "_base_: [a.yml, a.yml]", "_inherited_: False",
    *bad.PYTHON_TAGS.values(), bad.alias_bomb(),
)  # fmt: skip
ODD_FLAGS = (
    "", "0", "-1", "1", "0.5", "nan", "inf", "1e400", "many", "None", "auto", "99999999999999999999", "9" * 5000,
    "-99999999999999999999", "０", "²", "a\0b", "/", ".", "..", "nowhere", "/dev/null", "\udcff", "x" * 300, "cpu",
    "-x", "--", "-", "a=b", "a.b=c", "=", "a=", "camera:99999", "camera:x", "x:y=z", "rtformer_slim:x=1",
    "rtformer_slim=",
)  # fmt: skip


def pick(rng: Rng, values: Any) -> Any:
    """Return one of the values; NumPy's own choice turns them into an array."""
    return values[int(rng.integers(len(values)))]


def _paths(tree: Any, path: tuple = ()) -> list[tuple]:
    """Return the paths of all values in nested mappings and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [found for key, part in items for found in [(*path, key), *_paths(part, (*path, key))]]


def change_tree(rng: Rng, tree: Any) -> tuple[Any, str]:
    """Change one value, key or item of nested mappings and lists."""
    tree = copy.deepcopy(tree)
    path = pick(rng, _paths(tree))
    section = tree
    for key in path[:-1]:
        section = section[key]
    key, name = path[-1], ".".join(map(str, path))
    action = pick(rng, ("set", "set", "set", "set", "delete", "rename", "add", "wrap", "swap"))
    value = pick(rng, ODD_VALUES)
    if action == "delete":
        del section[key]
        return tree, f"delete {name}"
    if action == "rename" and isinstance(section, dict):
        new = pick(rng, (f"{key}x", str(key).upper(), "", 1, None, "type"))
        section[new] = section.pop(key)
        return tree, f"rename {name} to {new!r}"
    if action == "add" and isinstance(section, dict):
        section["extra"] = value
        return tree, f"add {name}.extra = {_short(value)}"
    if action == "wrap":
        section[key] = pick(rng, ([section[key]], {"type": section[key]}, str(section[key]), [section[key]] * 3))
        return tree, f"wrap {name} as {_short(section[key])}"
    if action == "swap":
        other = pick(rng, _paths(tree))
        found = tree
        for step in other:
            found = found[step]
        section[key] = copy.deepcopy(found)
        return tree, f"{name} = the value of {'.'.join(map(str, other))}"
    section[key] = value
    return tree, f"{name} = {_short(value)}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:50]}... ({len(text)} characters)"


def change_bytes(rng: Rng, data: bytes) -> tuple[bytes, str]:
    """Flip, cut, repeat, insert or overwrite bytes."""
    changed, size = bytearray(data), len(data)
    action = pick(rng, ("flip", "flip", "header", "cut", "empty", "zeros", "insert", "double", "number"))
    at = int(rng.integers(max(size, 1)))
    if action in ("flip", "header"):
        places = rng.integers(max(min(size, 64 if action == "header" else size), 1), size=int(rng.integers(1, 8)))
        for place in places[places < size]:
            changed[place] = int(rng.integers(256))
        return bytes(changed), f"flip bytes {places.tolist()}"
    if action == "cut":
        return bytes(changed[:at]), f"cut off at {at}"
    if action == "empty":
        return b"", "empty"
    if action == "zeros":
        changed[at : at + 64] = bytes(len(changed[at : at + 64]))
        return bytes(changed), f"zeros at {at}"
    if action == "insert":
        more = rng.bytes(int(rng.integers(1, 64)))
        return bytes(changed[:at] + more + changed[at:]), f"insert {len(more)} bytes at {at}"
    if action == "double":
        return data + data, "twice"
    number = struct.pack("<q", pick(rng, (0, -1, 2**31, 2**62, 65535)))
    changed[at : at + 8] = number[: len(changed[at : at + 8])]
    return bytes(changed), f"a number at {at}"


def change_text(rng: Rng, text: str) -> tuple[bytes, str]:
    """Change the text of a file: insert pieces, double or drop lines, or store it in another encoding."""
    lines = text.splitlines()
    at = int(rng.integers(max(len(lines), 1)))
    action = pick(rng, ("piece", "piece", "line", "value", "double", "drop", "tab", "bom", "crlf", "encoding", "bytes"))
    piece = pick(rng, ODD_TEXT)
    if action == "piece":
        place = int(rng.integers(len(text) + 1))
        return _encoded(text[:place] + piece + text[place:]), f"insert {_short(piece)} at {place}"
    if action == "line":
        return _encoded("\n".join([*lines[:at], piece, *lines[at:]])), f"insert the line {_short(piece)} at {at}"
    if action == "value":
        key = lines[at].partition(":")[0] if lines else "x"
        return _encoded("\n".join([*lines[:at], f"{key}: {piece}", *lines[at + 1 :]])), f"line {at} = {_short(piece)}"
    if action == "double":
        return _encoded("\n".join([*lines[:at], *lines[at : at + 1] * 2, *lines[at + 1 :]])), f"double line {at}"
    if action == "drop":
        return _encoded("\n".join([*lines[:at], *lines[at + 1 :]])), f"drop line {at}"
    if action == "tab":
        return _encoded(text.replace(" ", "\t")), "tabs for blanks"
    if action == "bom":
        return _encoded("\ufeff" + text), "a byte order mark"
    if action == "crlf":
        return _encoded(text.replace("\n", "\r\n")), "CRLF"
    if action == "encoding":
        name = pick(rng, ("utf-16", "utf-32", "latin-1"))
        return (text + "# ä\n").encode(name, "replace"), f"in {name}"
    return change_bytes(rng, text.encode())


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def change_state(rng: Rng, state: dict[str, np.ndarray]) -> tuple[bytes, str]:
    """Change one entry of a state dict, or what is around it, and pickle it."""
    state = dict(state)
    arrays = [name for name in sorted(state) if isinstance(state[name], np.ndarray)]
    if not arrays:  # the state of an optimizer that has none
        return change_bytes(rng, pickle.dumps(state, 4))
    name = pick(rng, arrays)
    value = np.asarray(state[name])
    values = {
        "gone": None, "nan": np.full_like(value, np.nan, dtype=np.float32), "inf": value * np.float32(np.inf),
        "longer": np.concatenate([value.reshape(-1)] * 2), "scalar": np.float32(0), "empty": np.zeros(0, np.float32),
        "float64": value.astype(np.float64), "float16": value.astype(np.float16), "int64": value.astype(np.int64),
        "bool": value.astype(bool), "complex": value.astype(np.complex64), "text": np.array(["x"]),
        "huge": value * 1e30, "bytes": b"x", "object": np.array([None, 1], object), "list": value.tolist(),
        "name": ("x", value),
        "date": np.array(["2001-01-01"], "datetime64[D]"), "uint16": value.astype(np.uint16),
    }  # fmt: skip
    kind = pick(rng, (*values, "renamed", "prefix", "wrapped", "number_as_name", "only_list", "nothing", "self"))
    if kind == "gone":
        del state[name]
    elif kind == "renamed":
        state[name + "x"] = state.pop(name)
    elif kind == "prefix":
        state = {f"module.{key}": part for key, part in state.items()}
    elif kind == "number_as_name":
        state[5] = state.pop(name)
    elif kind == "self":
        state[name] = state
    elif kind in values:
        state[name] = values[kind]
    content: Any = {"wrapped": {"state_dict": state}, "only_list": list(state), "nothing": {}}.get(kind, state)
    protocol = int(pick(rng, (2, 2, 4, 5)))
    return pickle.dumps(content, protocol), f"{name}: {kind}, protocol {protocol}"
