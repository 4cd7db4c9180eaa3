"""PyTorch's pickles, read with nothing in reach but dictionaries, numbers, and descriptions of tensors."""

import functools
import pickle
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from paddle_rt.errors import UserError

_STORAGES = {"DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "bfloat16",
             "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1",
             "ByteStorage": "u1", "BoolStorage": "?"}  # fmt: skip

# Training programs keep settings, logs and random states beside the weights. They are read as blanks: nothing of
# these modules is imported or called.
_BLANK = ("torch", "numpy", "mmengine", "mmcv", "addict", "argparse", "collections", "datetime", "pathlib", "_codecs")
_BLANK_BUILTINS = ("set", "frozenset", "slice", "complex", "bytearray", "range", "object")


@dataclass
class Storage:
    """Numbers of one type that lie in the file under a key. `dtype` is NumPy's name, or bfloat16."""

    key: str
    dtype: str

    @property
    def itemsize(self) -> int:
        return 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize


@dataclass
class Tensor:
    """A view of a storage: where it starts, its shape, and its strides in numbers; not checked yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def unpickle(stream: BinaryIO, storages: dict[str, Storage] | None = None) -> Any:
    """Read the next pickle of a stream.

    Args:
        stream: Where it starts.
        storages: Filled with the storages that the pickle's tensors use, by key.

    Returns:
        What the pickle holds, with a `Tensor` for each tensor.

    Raises:
        UserError: It names a function or class that a checkpoint does not need.
        Exception: Nearly any, where the bytes are damaged.
    """
    return _Unpickler(stream, {} if storages is None else storages).load()


# Python's own implementation, not the faster one in C, which allocates memory by numbers that the file makes up.
class _Unpickler(pickle._Unpickler):
    def __init__(self, stream: BinaryIO, storages: dict[str, Storage]) -> None:
        super().__init__(stream, encoding="latin1")
        self.storages = storages

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name. Each is new, since a pickle may set attributes on what it is given."""
        if (module, name) == ("collections", "OrderedDict"):
            return type("_Dict", (_Dict,), {})
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return functools.partial(_rebuild_tensor)
        if module == "torch._utils" and name == "_rebuild_parameter":
            return functools.partial(_rebuild_parameter)
        if module == "torch" and name in _STORAGES:
            return type("_StorageType", (), {"dtype": _STORAGES[name]})
        if module.split(".")[0] in _BLANK or (module in ("builtins", "__builtin__") and name in _BLANK_BUILTINS):
            return type("_Blank", (_Blank,), {})
        raise UserError(f"refused: the file asks for {module}.{name}, which no tensor needs and which was not run")

    def persistent_load(self, pid: Any) -> Storage:
        kind, storage_type, key, *_ = pid
        if kind != "storage" or not isinstance(key, str) or (len(pid) > 5 and pid[5] is not None):
            raise UserError(f"a storage of an unknown kind: {pid!r:.80}")
        if getattr(storage_type, "dtype", None) not in _STORAGES.values():
            raise UserError(f"storage {key} has an unknown type; known are {', '.join(_STORAGES)}")
        return self.storages.setdefault(key, Storage(key, storage_type.dtype))


class _Dict(dict):
    """OrderedDict without the attributes that PyTorch hangs on it."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Blank:
    """Stands for an object of a class that is not imported, and takes all that a pickle does to it."""

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
        raise UserError(f"a tensor on {storage!r:.80}, expected a storage")
    return Tensor(storage, offset, shape, strides)


def _rebuild_parameter(data: Tensor, *_: Any) -> Tensor:
    return data
