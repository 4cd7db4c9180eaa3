"""Read PyTorch checkpoints without PyTorch and without running anything that a pickle asks for."""

import math
import os
import struct
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from paddle_rt.checkpoint import MAX_BYTES, named_values, weights_file
from paddle_rt.convert.pickled import Storage, Tensor, unpickle
from paddle_rt.errors import UserError
from paddle_rt.files import check_plain_file
from paddle_rt.formats.safetensors import as_numbers, is_safetensors, read_safetensors

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_MOST_SHARED = 8  # tensors may share a storage, and those of half precision become twice as large


def read_torch(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the state dict of a PyTorch checkpoint.

    Args:
        path: A file written by `torch.save` in its new or old format (.pth, .pt, .pkl, pytorch_model.bin), or a
            .safetensors file, or a folder that holds model.safetensors.

    Returns:
        Names and arrays in the order of the file. Floating-point numbers become float32. Dictionaries around the state
        dict are removed; where there is more than one state dict, it is logged which one is taken.

    Raises:
        UserError: The file is missing, damaged or of another kind, or asks for something that tensors do not need.
    """
    file = (weights_file(path) if os.path.isdir(path) else None) or path
    file = check_plain_file(file, "checkpoint", MAX_BYTES)
    with open(file, "rb") as stream:
        try:
            return _reader(stream)(stream)
        except UserError as error:
            raise UserError(f"{file}: {error}") from error
        except Exception as error:  # with damaged bytes, zip, pickle and NumPy raise nearly anything
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise UserError(f"{file} ({file.stat().st_size} bytes) is not a complete checkpoint ({reason})") from error


def _reader(stream: BinaryIO) -> Callable[[BinaryIO], dict[str, np.ndarray]]:
    start = stream.read(9)
    stream.seek(0)
    if start[:4] == b"PK\x03\x04":
        return _read_zip
    if is_safetensors(start):
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
        size = os.fstat(stream.fileno()).st_size
        return _tensors(pickled, lambda storage: archive.read(f"{root}data/{storage.key}"), size)


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

    return _tensors(pickled, data, size)


def _read_safetensors(stream: BinaryIO) -> dict[str, np.ndarray]:
    state = read_safetensors(stream, os.fstat(stream.fileno()).st_size)
    return {name: _plain(value) for name, value in state.items()}


def _tensors(pickled: Any, data: Callable[[Storage], bytes], size: int) -> dict[str, np.ndarray]:
    """Find the state dict in the object that a file of `size` bytes holds, and read its tensors."""
    state, left = named_values(pickled, Tensor), _MOST_SHARED * size
    if state is None:
        if not isinstance(pickled, dict) or not pickled:
            raise UserError(f"holds {type(pickled).__name__}, expected a state dict; save model.state_dict()")
        wrong = next((name for name, value in pickled.items() if not isinstance(value, Tensor)), next(iter(pickled)))
        raise UserError(f"holds no state dict: {wrong!r:.100} is not a tensor; save model.state_dict()")
    arrays = {}
    for name, tensor in state.items():
        arrays[name] = _tensor(name, tensor, data)
        left -= arrays[name].nbytes
        if left < 0:
            raise UserError(f"its tensors claim more than {_MOST_SHARED} times its {size} bytes")
    return arrays


def _tensor(name: str, tensor: Tensor, data: Callable[[Storage], bytes]) -> np.ndarray:
    """Copy one tensor to an array. Offset, shape and strides come from the file and are checked against its storage."""
    flat = as_numbers(data(tensor.storage), tensor.storage.dtype)
    offset, shape, strides = tensor.offset, tuple(tensor.shape), tuple(tensor.strides)
    whole = all(type(number) is int and number >= 0 for number in (offset, *shape, *strides))
    if not whole or len(shape) != len(strides):
        raise UserError(f"{name!r:.100} has the offset {offset}, the shape {shape} and the strides {strides}")
    if 0 in shape:
        return _plain(np.zeros(shape, flat.dtype))
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if last >= len(flat) or math.prod(shape) > len(flat):
        raise UserError(f"{name!r:.100} of shape {shape} needs more than the {len(flat)} numbers of its storage")
    steps = [stride * flat.itemsize for stride in strides]
    return _plain(np.lib.stride_tricks.as_strided(flat[offset:], shape, steps))


def _plain(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # values outside float32's range become infinite; loading refuses them
        return np.array(array, "float32" if array.dtype.kind == "f" else None, order="C")
