"""Read .safetensors files: the header's length, the header as JSON, the data."""

import json
import struct
from typing import BinaryIO

import numpy as np

from paddle_rt.errors import UserError

_LARGEST_HEADER = 100_000_000  # the limit of safetensors itself
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16", "I64": "<i8", "I32": "<i4", "I16": "<i2",
          "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?"}  # fmt: skip


def is_safetensors(start: bytes) -> bool:
    """Return whether a file that starts with these (at least nine) bytes is a safetensors file."""
    return start[8:9] == b"{" and start[:1] != b"\x80"  # a pickle


def read_safetensors(stream: BinaryIO, size: int) -> dict[str, np.ndarray]:
    """Read every tensor of a file.

    Args:
        stream: The file, positioned at its beginning.
        size: Its size in bytes.

    Returns:
        Names and arrays, in the order of the header. bfloat16 becomes float32.

    Raises:
        UserError: The file is cut off, or holds a tensor of an unknown type.
        Exception: The header is damaged; nearly any exception may be raised.
    """
    (length,) = struct.unpack("<Q", stream.read(8))
    if length > min(size - 8, _LARGEST_HEADER):
        raise UserError(f"a header of {length} bytes in a file of {size}: truncated, or not a safetensors file")
    state, left = {}, size - 8 - length
    for name, entry in json.loads(stream.read(length)).items():
        if name == "__metadata__":
            continue
        (start, stop), shape = entry["data_offsets"], entry["shape"]
        if entry["dtype"] not in _TYPES:
            raise UserError(f"{name!r:.100} has the type {entry['dtype']!r:.20}; known are {', '.join(_TYPES)}")
        if not 0 <= start <= stop <= size - 8 - length:
            raise UserError(f"truncated: {name!r:.100} goes beyond the file's {size} bytes")
        left -= stop - start
        if left < 0:
            raise UserError(f"{name!r:.100} and other tensors share bytes")
        stream.seek(8 + length + start)
        state[name] = as_numbers(stream.read(stop - start), _TYPES[entry["dtype"]]).reshape(shape)
    return state


def as_numbers(data: bytes, dtype: str) -> np.ndarray:
    """Return bytes as a flat array; `dtype` is NumPy's name of it, or "bfloat16", which becomes float32."""
    if dtype != "bfloat16":
        return np.frombuffer(data, dtype)
    return (np.frombuffer(data, "<u2").astype("uint32") << 16).view("float32")  # the upper half of a float32
