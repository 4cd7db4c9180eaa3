"""MNN, whose convolutions of 3x3 and stride 1 are Winograd's: fewer products than the convolution has."""

import contextlib
import ctypes
import functools
import os
import pathlib
import sys
import types
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.inference.engines.base import Engine, cores, loading

# MNN's numbers of a hint and of a mode, which the Python package does not name.
_WINOGRAD_LEVEL, _RELEASE = 3, 1
# The levels of the hint: 3 takes the fastest tile for each layer, mostly 6x6; 1 takes tiles of 2x2 only, which round as
# little as a direct convolution.
_LARGE_TILES = 3


@functools.cache
def mnn() -> types.ModuleType:
    """Import MNN without the line that it prints to stdout, which may be where a tool writes its result."""
    with _closed_stdout():
        import MNN
    return MNN


@contextlib.contextmanager
def _closed_stdout() -> Iterator[None]:
    sys.stdout.flush()
    flush = ctypes.CDLL(None).fflush  # what C has not written yet would come out after the block
    flush(None)
    before, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
    finally:
        flush(None)
        os.dup2(before, 1)
        os.close(before)
        os.close(nothing)


class Mnn(Engine):
    """MNN on an .mnn file, on the CPU, in single precision.

    It is run through its sessions, since they release Python's lock, unlike its modules.

    Args:
        graph: The file.
        device: "cpu".
        threads: CPU threads; None for every core.
        precision: "fp32".
        device_id: 0.
        batch: Fix an open length of the batch to this number; the plan is made for the size of the inputs anyway, and
            anew when it changes.

    Raises:
        UserError: The package is missing, or the file is damaged.
    """

    rounding = 10.0  # tiles of 6x6 were measured to be off by up to 4e-5 with trained weights, others by 3e-7

    def __init__(
        self,
        graph: pathlib.Path,
        device: str = "cpu",
        threads: int | None = None,
        precision: str = "fp32",
        device_id: int = 0,
        batch: int | None = None,
    ) -> None:
        try:
            self._mnn = mnn()
        except ImportError as error:
            raise UserError(f"backend mnn needs its package ({error}): pip install MNN") from error
        self._graph = graph
        # "normal" is single precision on a CPU, and "high" prints a line.
        self._settings = {"backend": "CPU", "numThread": threads or cores(), "precision": "normal"}
        with loading("MNN", graph):
            self._open()
        # An export has at most two of either, frame and state or fetch_name_0 and fetch_name_1: sorted, as in its ONNX.
        found = self._network.getSessionInputAll(self._session)
        self._inputs = {name: (found[name].getShape(), found[name].getDataType()) for name in sorted(found)}
        self._outputs = sorted(self._network.getSessionOutputAll(self._session))
        self._kinds = {
            np.dtype(np.uint8): self._mnn.Halide_Type_Uint8,
            np.dtype(np.int32): self._mnn.Halide_Type_Int,
            np.dtype(np.float32): self._mnn.Halide_Type_Float,
        }

    def _run(self, *inputs: np.ndarray) -> Sequence[np.ndarray]:
        for name, array in zip(self._inputs, inputs, strict=True):
            self._check(array, *self._inputs[name])
        shapes = [array.shape for array in inputs]
        if shapes != self._planned:
            self._plan(shapes)
        for name, array in zip(self._inputs, inputs, strict=True):
            tensor = self._network.getSessionInput(self._session, name)
            tensor.copyFrom(self._host(np.ascontiguousarray(array)))
        code = self._network.runSession(self._session)
        if code:  # its outputs are those of the run before
            raise RuntimeError(f"MNN cannot run the graph on {[list(array.shape) for array in inputs]}: code {code}")
        return [self._fetch(self._network.getSessionOutput(self._session, name)) for name in self._outputs]

    def _open(self) -> None:
        """Read the graph into a new session, which has no plan."""
        self._network = self._mnn.Interpreter(str(self._graph))
        self._network.setSessionMode(_RELEASE)
        self._network.setSessionHint(_WINOGRAD_LEVEL, _LARGE_TILES)
        self._session = self._network.createSession(self._settings)
        self._planned: list[tuple[int, ...]] = []

    def _plan(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Plan for inputs of these shapes.

        A session keeps the tiles that suit the first shapes it is given. Used for others as well, it would round
        differently by what it has seen before, by 5e-4 instead of 4e-5; and MNN for Python releases no single session.
        """
        if self._planned:
            self._open()
        for name, shape in zip(self._inputs, shapes, strict=True):
            self._network.resizeTensor(self._network.getSessionInput(self._session, name), shape)
        self._network.resizeSession(self._session)
        self._planned = list(shapes)

    def _check(self, array: np.ndarray, shape: tuple[int, ...], kind: int) -> None:
        """Raise where an array does not fit an input, since MNN would read other memory.

        An open length is -1, but 1 for the batch.
        """
        lengths = zip(array.shape[1:], shape[1:], strict=False)
        fits = array.ndim == len(shape) and all(wanted in (-1, length) for length, wanted in lengths)
        if not fits or self._kinds.get(array.dtype) != kind:
            raise ValueError(f"the graph takes {list(shape)}, got {array.dtype} {list(array.shape)}")

    def _host(self, array: np.ndarray) -> Any:
        """Return a tensor with an array's numbers in their order."""
        layout = self._mnn.Tensor_DimensionType_Caffe
        return self._mnn.Tensor(array.shape, self._kinds[array.dtype], array, layout)

    def _fetch(self, tensor: Any) -> np.ndarray:
        dtype = next(dtype for dtype, kind in self._kinds.items() if kind == tensor.getDataType())
        host = self._host(np.empty(tensor.getShape(), dtype))
        tensor.copyToHostTensor(host)
        return host.getNumpyData().copy()
