"""Files beside an ONNX graph in which it keeps numbers, found without the package onnx."""

import pathlib
from collections.abc import Iterator

from paddle_rt.errors import UserError

# For each message of onnx.proto the fields that lead to a tensor, and the message that each of them holds.
_FIELDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_LENGTHS = {1: 8, 5: 4}  # of the fields of fixed size, by wire type


def external_files(graph: pathlib.Path) -> set[str]:
    """Return the names of the files that hold numbers of a graph, relative to its folder.

    Args:
        graph: The .onnx file.

    Raises:
        UserError: It is damaged.
    """
    try:
        return set(_locations(memoryview(graph.read_bytes()), "model"))
    except (IndexError, ValueError, RecursionError) as error:
        raise UserError(f"{graph} is damaged: it is no ONNX graph") from error


def _locations(message: memoryview, kind: str) -> Iterator[str]:
    for number, content in _fields(message):
        inner = _FIELDS[kind].get(number)
        if inner == "entry":
            entry = dict(_fields(content))
            if bytes(entry[1]) == b"location":
                yield bytes(entry[2]).decode("utf-8")
        elif inner is not None:
            yield from _locations(content, inner)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the number and the content of the fields of a protobuf message that have a length."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            _, at = _varint(message, at)
        elif wire_type == 2:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError("a field goes beyond its message")
            yield number, message[at : at + length]
            at += length
        elif wire_type in _LENGTHS:
            at += _LENGTHS[wire_type]
        else:
            raise ValueError(f"no wire type {wire_type}")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than 10 bytes")
