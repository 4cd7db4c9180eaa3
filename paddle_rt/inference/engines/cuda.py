"""CUDA's runtime library: page-locked memory, and copies to addresses on a GPU.

ONNX Runtime's Python interface makes arrays on a GPU, but neither page-locked ones nor copies into them.

Source: CUDA Runtime API, "Memory Management" and "API synchronization behavior".
"""

import ctypes
import math
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from paddle_rt.errors import InternalError

_PORTABLE = 1  # cudaHostAllocPortable: page-locked for every GPU
_BY_ADDRESS = 4  # cudaMemcpyDefault: the addresses tell the direction


def load_library(name: str) -> Any:
    """Load a shared library by its name, such as "libcudart.so.13"; one that the process has loaded is found at once.

    Raises:
        OSError: It is not there, or something that it needs.
    """
    return ctypes.CDLL(name)


class Cuda:
    """CUDA's runtime library for one GPU.

    Args:
        version: The version of CUDA, of which the first number names the library.
        device_id: The number of the GPU, from 0.

    Raises:
        OSError: The library is not there.
    """

    def __init__(self, version: str, device_id: int) -> None:
        self._library, self._device_id = load_library(f"libcudart.so.{version.split('.')[0]}"), device_id

    def page_locked(self, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        """Return an array in memory that is never paged out, from which and to which a GPU copies at its full speed.

        The memory is freed with the array, of which no view may outlive it.
        """
        size, pointer = math.prod(shape) * dtype.itemsize, ctypes.c_void_p()
        self._call("cudaSetDevice", ctypes.c_int(self._device_id))
        self._call("cudaHostAlloc", ctypes.byref(pointer), ctypes.c_size_t(size), ctypes.c_uint(_PORTABLE))
        memory = (ctypes.c_ubyte * size).from_address(pointer.value)
        array = np.frombuffer(memory, dtype).reshape(shape)
        # The end of the process frees the memory as well, after CUDA itself may have ended.
        weakref.finalize(array, self._library.cudaFreeHost, pointer).atexit = False
        return array

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy bytes between two addresses, of the GPU or of the CPU, and wait until they are there.

        A copy within the GPU does not wait by itself, and ONNX Runtime's stream does not wait for the default one.
        """
        self._call("cudaSetDevice", ctypes.c_int(self._device_id))
        addresses = ctypes.c_void_p(target), ctypes.c_void_p(source)
        self._call("cudaMemcpy", *addresses, ctypes.c_size_t(size), ctypes.c_int(_BY_ADDRESS))
        self._call("cudaStreamSynchronize", ctypes.c_void_p(None))

    def _call(self, function: str, *arguments: Any) -> None:
        code = getattr(self._library, function)(*arguments)
        if code:
            raise InternalError(f"CUDA's {function} fails on GPU {self._device_id} with error {code} (cudaError)")
