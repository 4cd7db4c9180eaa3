"""Unpickle PyTorch's files with nothing in reach but dictionaries, numbers and descriptions of tensors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.formats.pickles import RestrictedUnpickler, StandInDict

_STORAGES = {"DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "bfloat16",
             "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1",
             "ByteStorage": "u1", "BoolStorage": "?"}  # fmt: skip

# Training programs store settings, logs and random states beside the weights. Objects of these modules become blank
# placeholders: nothing of the modules is imported or called.
_BLANK = ("torch", "numpy", "mmengine", "mmcv", "addict", "argparse", "collections", "datetime", "pathlib", "_codecs")
_BLANK_BUILTINS = ("set", "frozenset", "slice", "complex", "bytearray", "range", "object")


@dataclass
class Storage:
    """A block of numbers of one type, stored in the file under a key. `dtype` is NumPy's name for it, or bfloat16."""

    key: str
    dtype: str

    @property
    def itemsize(self) -> int:
        return 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize


@dataclass
class Tensor:
    """A view of a storage, unchecked: its first number, its shape, and its strides counted in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def unpickle(stream: BinaryIO, storages: dict[str, Storage] | None = None) -> Any:
    """Read the next pickle in a file.

    Args:
        stream: The file, positioned at the pickle.
        storages: Receives the storages of the pickle's tensors, by key.

    Returns:
        The unpickled object, in which a `Tensor` stands for each tensor.

    Raises:
        UserError: The pickle names a function or class that a checkpoint does not need.
        Exception: The bytes are damaged; nearly any exception may be raised.
    """
    return _Unpickler(stream, {} if storages is None else storages).load()


class _Unpickler(RestrictedUnpickler):
    def __init__(self, stream: BinaryIO, storages: dict[str, Storage]) -> None:
        super().__init__(stream)
        self.storages = storages

    def stand_in(self, module: str, name: str) -> Callable | None:
        if (module, name) == ("collections", "OrderedDict"):
            return StandInDict
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return _rebuild_parameter
        if module == "torch" and name in _STORAGES:
            return type("_StorageType", (), {"dtype": _STORAGES[name]})
        is_blank = module.split(".")[0] in _BLANK or (module == "builtins" and name in _BLANK_BUILTINS)
        return _Blank if is_blank else None

    def persistent_load(self, pid: Any) -> Storage:
        kind, storage_type, key, *_ = pid
        if kind != "storage" or not isinstance(key, str) or (len(pid) > 5 and pid[5] is not None):
            raise UserError(f"a storage of an unknown kind: {pid!r:.80}")
        if getattr(storage_type, "dtype", None) not in _STORAGES.values():
            raise UserError(f"storage {key} has an unknown type; known are {', '.join(_STORAGES)}")
        return self.storages.setdefault(key, Storage(key, storage_type.dtype))


class _Blank:
    """Placeholder for an object of a class that is not imported; it ignores all that a pickle does to it."""

    def __new__(cls, *arguments: Any, **keywords: Any) -> "_Blank":
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    extend = add = update = append


def _rebuild_tensor(storage: Storage, offset: int, shape: tuple, strides: tuple, *_: Any) -> Tensor:
    if not isinstance(storage, Storage):
        raise UserError(f"a tensor refers to {storage!r:.80}, expected a storage")
    return Tensor(storage, offset, shape, strides)


def _rebuild_parameter(data: Tensor, *_: Any) -> Tensor:
    return data
