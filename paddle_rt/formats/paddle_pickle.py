"""Read what `paddle.save` writes: pickles of arrays, numbers, texts and containers, and nothing else."""

import re
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.formats.pickles import BoundedStream, RestrictedUnpickler, StandInDict

_NUMBERS = re.compile(r"[biufc](1|2|4|8|16)")  # codes of the data types whose values are bytes and no objects
_SPLIT, _NAMES = "UnpackBigParamInfor@@", "StructuredToParameterName@@"  # entries that Paddle itself adds


def read_paddle(stream: BinaryIO, size: int) -> Any:
    """Read what `paddle.save` wrote in any of its protocols, as `paddle.load(..., return_numpy=True)` returns it.

    Args:
        stream: The file, positioned at its beginning.
        size: Its size in bytes. Arrays that claim to be larger in all are refused.

    Returns:
        Numbers, texts, lists, tuples and dictionaries, with an array for each tensor. Parts of a large parameter are
        joined, and Paddle's table of names is left out.

    Raises:
        UserError: The pickle names a function or class that no array needs, or claims too much memory.
        Exception: The bytes are damaged; nearly any exception may be raised.
    """
    content = _Resolver(size).resolve(_Unpickler(BoundedStream(stream, size), size).load())
    if isinstance(content, dict):
        for name, parts in content.pop(_SPLIT, {}).items():
            slices = [content.pop(part) for part in parts["slices"]]
            content[name] = np.concatenate(slices).reshape(parts["OriginShape"])
        content.pop(_NAMES, None)
    return content


class _Unpickler(RestrictedUnpickler):
    def __init__(self, stream: BoundedStream, size: int) -> None:
        super().__init__(stream)
        self._budget = _Budget(size)

    def stand_in(self, module: str, name: str) -> Callable | None:
        return {
            "collections.OrderedDict": StandInDict,
            "numpy.ndarray": _Nothing,
            "numpy.dtype": _DataType,
            "numpy.core.multiarray._reconstruct": _new_array,
            "numpy.core.multiarray.scalar": _scalar,
            "numpy.core.numeric._frombuffer": _array_of_buffer,
            "builtins.tuple": _tuple,
            "builtins.eval": _static_tensor,
            "builtins.bytes": _no_bytes,
            "_codecs.encode": self._encode,
        }.get(f"{module.replace('numpy._core', 'numpy.core')}.{name}")  # NumPy 2 has the longer name

    def _encode(self, text: str, encoding: str) -> bytes:
        """Turn a text to the bytes that protocol 2 stores as one."""
        if encoding != "latin1":
            raise UserError(f"bytes are stored as {encoding!r:.40}, expected 'latin1'")
        self._budget.spend(len(text))
        return text.encode("latin1")


class _Nothing:
    """Stands for the class numpy.ndarray, which is an argument that nothing reads."""


def _new_array(*_: Any) -> "_Array":
    """Return an array whose shape, type and numbers follow."""
    return _Array()


def _array_of_buffer(data: bytes, dtype: Any, shape: Any, order: str) -> "_Array":
    return _Array(shape, dtype, data, order == "F")


def _tuple(items: tuple) -> tuple:
    """Return a tensor as Paddle stores it: the tuple of its name and its numbers."""
    return tuple(items)


def _no_bytes() -> bytes:
    """Return empty bytes, which protocol 2 stores as the call bytes()."""
    return b""


def _scalar(dtype: Any, data: bytes) -> "_Array":
    return _Array((), dtype, data, is_scalar=True)


def _static_tensor(text: str, variables: Any = None) -> Any:
    """Return a tensor of a static graph, which Paddle stores as the call eval("data", {"data": array})."""
    if text != "data" or not isinstance(variables, dict) or list(variables) != ["data"]:
        raise UserError(f"refused: the file asks to evaluate {text!r:.80}; it was not run")
    return variables["data"]


class _Budget:
    """Counts bytes, since a small pickle can name the same bytes again and again."""

    def __init__(self, size: int) -> None:
        self._left = size

    def spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise UserError("it claims more numbers than it has bytes")


class _DataType:
    """Stands for numpy.dtype."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "|"

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype | None:
        """Return NumPy's data type, or None for one that is no number."""
        if (
            not isinstance(self.code, str)
            or self.order not in ("<", ">", "|", "=")
            or not _NUMBERS.fullmatch(self.code)
        ):
            return None
        return np.dtype(self.order + self.code)


class _Array:
    """Stands for numpy.ndarray or a scalar of NumPy."""

    def __init__(
        self, shape: Any = None, dtype: Any = None, data: Any = b"", fortran: bool = False, is_scalar: bool = False
    ) -> None:
        self.shape, self.dtype, self.data, self.fortran, self.is_scalar = shape, dtype, data, fortran, is_scalar

    def __setstate__(self, state: tuple) -> None:
        self.shape, self.dtype, self.fortran, self.data = state[-4:]  # behind a version, except in very old files

    def numpy(self, budget: _Budget) -> np.ndarray | np.generic | None:
        """Return the array or the scalar, or None where its values are no numbers."""
        dtype = self.dtype.numpy() if isinstance(self.dtype, _DataType) else None
        if dtype is None:
            return None
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data  # a str of Python 2
        budget.spend(len(data))
        flat = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))
        array = flat.reshape(self.shape, order="F" if self.fortran else "C")
        return array[()] if self.is_scalar else array


class _Resolver:
    """Puts arrays in the place of their stand-ins; what occurs twice is made once."""

    def __init__(self, size: int) -> None:
        self._budget, self._done = _Budget(size), {}

    def resolve(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            return value
        if id(value) not in self._done:
            self._done[id(value)] = value, self._convert(value)  # the first keeps its id from being used again
        return self._done[id(value)][1]

    def _convert(self, value: Any) -> Any:
        if isinstance(value, _Array):
            array = value.numpy(self._budget)
            return value if array is None else array  # left as it is for the caller to say that it is no array
        if isinstance(value, dict):
            return {key: self.resolve(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item) for item in value]
        if isinstance(value, tuple):
            items = tuple(self.resolve(item) for item in value)
            is_tensor = len(items) == 2 and isinstance(items[0], str) and isinstance(items[1], np.ndarray)
            return items[1] if is_tensor else items
        raise UserError(f"it holds {type(value).__name__}, expected numbers, texts, lists, dictionaries and arrays")
