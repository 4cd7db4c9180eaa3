"""Read PyTorch checkpoints without PyTorch and without running anything that a pickle asks for."""

import json
import math
import os
import pathlib
import struct
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from paddle_rt.convert.pickled import Storage, Tensor, unpickle
from paddle_rt.errors import UserError

# Keys under which training programs store the state dict: mmengine and NVlabs, FANet, and other common ones.
_WRAPPERS = ("state_dict", "model_state", "model", "module")
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LARGEST_HEADER = 100_000_000  # the limit of safetensors itself
_SAFETENSORS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16", "I64": "<i8", "I32": "<i4",
                "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?"}  # fmt: skip


def read_torch(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the state dict of a PyTorch checkpoint.

    Args:
        path: A file written by `torch.save` in its new or old format (.pth, .pt, .pkl, pytorch_model.bin), or a
            .safetensors file.

    Returns:
        Names and arrays in the order of the file. Floating-point numbers become float32. Dictionaries around the state
        dict and a `module.` before every name are removed.

    Raises:
        UserError: The file is missing, damaged or of another kind, or asks for something that tensors do not need.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise UserError(f"no checkpoint at {file}; expected a file that torch.save or safetensors wrote")
    with open(file, "rb") as stream:
        try:
            state = _reader(stream)(stream)
        except UserError as error:
            raise UserError(f"{file}: {error}") from error
        except Exception as error:  # with damaged bytes, zip, pickle and NumPy raise nearly anything
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise UserError(f"{file} ({file.stat().st_size} bytes) is not a complete checkpoint ({reason})") from error
    return _without_prefix(state)


def _reader(stream: BinaryIO) -> Callable[[BinaryIO], dict[str, np.ndarray]]:
    start = stream.read(9)
    stream.seek(0)
    if start[:4] == b"PK\x03\x04":
        return _read_zip
    if start[8:9] == b"{":
        return _read_safetensors
    if start[:1] == b"\x80":
        return _read_legacy
    raise UserError("neither a PyTorch checkpoint nor a safetensors file")


def _read_zip(stream: BinaryIO) -> dict[str, np.ndarray]:
    """PyTorch 1.6 and later: a zip archive of data.pkl and one uncompressed entry for each storage."""
    with zipfile.ZipFile(stream) as archive:
        names = archive.namelist()
        root = next((name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")), None)
        if root is None:
            raise UserError("a zip archive without data.pkl; expected a file written by torch.save")
        if root + "constants.pkl" in names:
            raise UserError("a TorchScript program; save the model's state_dict() with torch.save instead")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise UserError("a compressed zip archive, which torch.save does not write")
        if root + "byteorder" in names and archive.read(root + "byteorder") != b"little":
            raise UserError("written on a big-endian machine, which is not supported")
        pickled = unpickle(archive.open(root + "data.pkl"))
        return _tensors(pickled, lambda storage: archive.read(f"{root}data/{storage.key}"))


def _read_legacy(stream: BinaryIO) -> dict[str, np.ndarray]:
    """Before PyTorch 1.6: magic number, version, system, the object, the storages' keys, the storages."""
    if unpickle(stream) != _LEGACY_MAGIC:
        raise UserError("a pickle that torch.save did not write")
    unpickle(stream)
    if not unpickle(stream).get("little_endian", True):
        raise UserError("written on a big-endian machine, which is not supported")
    used: dict[str, Storage] = {}
    pickled = unpickle(stream, used)
    places = {}
    size = os.fstat(stream.fileno()).st_size
    for key in unpickle(stream):
        (count,) = struct.unpack("<Q", stream.read(8))
        places[key] = (stream.tell(), count * used[key].itemsize)
        if sum(places[key]) > size:
            raise UserError(f"truncated: storage {key} of {count} numbers goes beyond the file's {size} bytes")
        stream.seek(sum(places[key]))

    def data(storage: Storage) -> bytes:
        stream.seek(places[storage.key][0])
        return stream.read(places[storage.key][1])

    return _tensors(pickled, data)


def _read_safetensors(stream: BinaryIO) -> dict[str, np.ndarray]:
    """The header's length, the header as JSON, the data."""
    size = os.fstat(stream.fileno()).st_size
    (length,) = struct.unpack("<Q", stream.read(8))
    if length > min(size - 8, _LARGEST_HEADER):
        raise UserError(f"a header of {length} bytes in a file of {size}: truncated, or not a safetensors file")
    state = {}
    for name, entry in json.loads(stream.read(length)).items():
        if name == "__metadata__":
            continue
        (start, stop), shape = entry["data_offsets"], entry["shape"]
        if entry["dtype"] not in _SAFETENSORS:
            raise UserError(f"{name} has the type {entry['dtype']}; known are {', '.join(_SAFETENSORS)}")
        if not 0 <= start <= stop <= size - 8 - length:
            raise UserError(f"truncated: {name} goes beyond the file's {size} bytes")
        stream.seek(8 + length + start)
        flat = _numbers(stream.read(stop - start), _SAFETENSORS[entry["dtype"]])
        state[name] = _plain(flat.reshape(shape))
    return state


def _tensors(pickled: Any, data: Callable[[Storage], bytes]) -> dict[str, np.ndarray]:
    """Find the state dict in the object that a file holds, and read its tensors."""
    for _ in range(3):
        inner = next((pickled[k] for k in _WRAPPERS if isinstance(pickled, dict) and k in pickled), None)
        if not isinstance(inner, dict):
            break
        pickled = inner
    if not isinstance(pickled, dict) or not pickled:
        raise UserError(f"holds {type(pickled).__name__}, expected a state dict; save model.state_dict()")
    wrong = [name for name, value in pickled.items() if not isinstance(name, str) or not isinstance(value, Tensor)]
    if wrong:
        raise UserError(f"holds no state dict: {wrong[0]!r} is not a tensor; save model.state_dict()")
    return {name: _tensor(name, value, data) for name, value in pickled.items()}


def _tensor(name: str, tensor: Tensor, data: Callable[[Storage], bytes]) -> np.ndarray:
    """Copy one tensor to an array. Offset, shape and strides come from the file and are checked against its storage."""
    flat = _numbers(data(tensor.storage), tensor.storage.dtype)
    offset, shape, strides = tensor.offset, tuple(tensor.shape), tuple(tensor.strides)
    whole = all(type(number) is int and number >= 0 for number in (offset, *shape, *strides))
    if not whole or len(shape) != len(strides):
        raise UserError(f"{name} has the offset {offset}, the shape {shape} and the strides {strides}")
    if 0 in shape:
        return _plain(np.zeros(shape, flat.dtype))
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if last >= len(flat) or math.prod(shape) > len(flat):
        raise UserError(f"{name} of shape {shape} needs more than the {len(flat)} numbers of its storage")
    steps = [stride * flat.itemsize for stride in strides]
    return _plain(np.lib.stride_tricks.as_strided(flat[offset:], shape, steps))


def _numbers(data: bytes, dtype: str) -> np.ndarray:
    if dtype != "bfloat16":
        return np.frombuffer(data, dtype)
    return (np.frombuffer(data, "<u2").astype("uint32") << 16).view("float32")  # the upper half of a float32


def _plain(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # values outside float32's range become infinite; loading refuses them
        return np.array(array, "float32" if array.dtype.kind == "f" else None, order="C")


def _without_prefix(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Remove the `module.` that DataParallel puts before every name."""
    while state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state
