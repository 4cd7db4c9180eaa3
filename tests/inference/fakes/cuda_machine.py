"""A machine with an NVIDIA GPU below an engine, on a CPU: the driver's nvidia-smi, pip's libraries, and CUDA's memory.

Follows NVIDIA's CUDA Runtime API (cudaHostAlloc, cudaMemcpy, "API synchronization behavior"), cuDNN's and TensorRT's
functions for their versions, and what pip's packages load. Memory "on the GPU" is the CPU's. A copy is there only after
the synchronisation, as it is between streams.
"""

import ctypes
import pathlib
import stat
import sys
from types import ModuleType

import pytest

CUDA = ("libcudart.so.13", "libcudnn.so.9")
TENSORRT = ("libnvinfer.so.10", "libnvonnxparser.so.10")
TURING = "NVIDIA GeForce RTX 2080 Ti, 7.5, 580.65.06"


class Machine:
    """What is installed, what happens when TensorRT builds, and the calls that were made.

    Attributes:
        here: The machine that is installed, which the package tensorrt finds.
    """

    here: "Machine"

    def __init__(self, folder: pathlib.Path, gpu: str = TURING) -> None:
        self.calls, self.loaded, self.builds, self.memory, self.pending = [], set(), 0, {}, []
        self.packages = {"cuda": CUDA, "tensorrt": TENSORRT}  # the libraries that each package loads
        self.on_system: set[str] = set()  # libraries that the system finds by itself
        self.device = 0
        self.on_build = lambda: None
        program = folder / "nvidia-smi"
        program.write_text(f"#!/bin/sh\necho 'GPU-1, {gpu}'\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        (folder / "tensorrt.py").write_text(
            f"from {__name__} import Machine\nMachine.here.load_package('tensorrt')\n__version__ = '10.16.1.11'\n"
        )

    def install(self, patch: pytest.MonkeyPatch, folder: pathlib.Path, **modules: ModuleType) -> None:
        """Become the machine of a test, with these modules in the place of the real ones."""
        Machine.here = self
        patch.setattr("paddle_rt.inference.engines.cuda.load_library", self.load_library)
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        patch.delitem(sys.modules, "tensorrt", raising=False)
        patch.syspath_prepend(str(folder))
        patch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        patch.setenv("PADDLE_RT_CACHE", str(folder / "cache"))
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def load_package(self, name: str) -> None:
        self.calls.append(("load", name))
        self.loaded |= set(self.packages[name])

    def load_library(self, name: str) -> "Machine":
        if name not in self.loaded | self.on_system:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        self.loaded.add(name)
        return self

    def getInferLibVersion(self) -> int:  # noqa: N802
        return 101601

    def cudnnGetVersion(self) -> int:  # noqa: N802
        return 91300

    def cudaSetDevice(self, number: ctypes.c_int) -> int:  # noqa: N802
        self.device = number.value
        return 0

    def cudaHostAlloc(self, pointer: object, size: ctypes.c_size_t, flags: ctypes.c_uint) -> int:  # noqa: N802
        assert isinstance(size, ctypes.c_size_t) and isinstance(flags, ctypes.c_uint) and flags.value == 1
        buffer = ctypes.create_string_buffer(size.value)
        pointer._obj.value = ctypes.addressof(buffer)
        self.memory[pointer._obj.value] = buffer
        return 0

    def cudaFreeHost(self, pointer: ctypes.c_void_p) -> int:  # noqa: N802
        del self.memory[pointer.value]
        return 0

    def cudaMemcpy(self, target, source, size, kind) -> int:  # noqa: N802
        assert all(isinstance(a, ctypes.c_void_p) for a in (target, source)) and isinstance(size, ctypes.c_size_t)
        assert isinstance(kind, ctypes.c_int) and kind.value == 4
        self.pending.append((target.value, source.value, size.value))
        return 0

    def cudaStreamSynchronize(self, stream: ctypes.c_void_p) -> int:  # noqa: N802
        assert isinstance(stream, ctypes.c_void_p) and stream.value is None
        for copy in self.pending:
            self.calls.append(("copy", copy[2], self.device))
            ctypes.memmove(*copy)
        self.pending.clear()
        return 0
