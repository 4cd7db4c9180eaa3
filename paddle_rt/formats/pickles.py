"""A base for unpicklers that import nothing: every name in a pickle has a stand-in, or the file is refused."""

import functools
import pickle
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

from paddle_rt.errors import UserError


class BoundedStream:
    """A stream whose `read` allocates no more than is left, whatever length a damaged file claims.

    Args:
        stream: The file, positioned at its beginning.
        size: Its size in bytes.
    """

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream, self._size = stream, size

    def read(self, length: int) -> bytes:
        """Return the next `length` bytes, or those that are left."""
        return self._stream.read(max(0, min(length, self._size - self._stream.tell())))

    def readline(self) -> bytes:
        """Return the rest of the line."""
        return self._stream.readline()


# Python's own implementation, since the faster one in C allocates memory by sizes that a damaged file may claim.
class RestrictedUnpickler(pickle._Unpickler):
    """An unpickler that never imports a module: `stand_in` has what stands for each name that a pickle may use.

    A pickle may set attributes on what it gets. It therefore gets a new subclass of a class and a new wrapper around a
    function each time.
    """

    def __init__(self, stream: BinaryIO | BoundedStream) -> None:
        super().__init__(stream, encoding="latin1")

    def load_bytearray8(self) -> None:
        """Read a bytearray as bytes; Python's own method allocates the length that the file claims."""
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(length))

    dispatch = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: load_bytearray8}

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name in a pickle.

        Raises:
            UserError: It has no stand-in.
        """
        found = self.stand_in("builtins" if module == "__builtin__" else module, name)  # Python 2 has the other name
        if found is None:
            shown = ascii(f"{module}.{name}")[1:-1][:100]
            raise UserError(f"refused: the file asks for {shown}, which no tensor needs; it was not run")
        return type(found.__name__, (found,), {}) if isinstance(found, type) else functools.partial(found)

    def stand_in(self, module: str, name: str) -> Callable | None:
        """Return the class or function that stands for a name, or None where the name is refused."""
        raise NotImplementedError


class StandInDict(dict):
    """An OrderedDict that ignores the attributes which PyTorch attaches to it."""

    def __setstate__(self, state: Any) -> None:
        pass
