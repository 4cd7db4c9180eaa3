"""Layers for training in single precision on a CPU, by kernels of this project where those of Paddle are slow."""

import ctypes
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
from paddle.autograd import PyLayer
from paddle.base.dygraph.base import in_sot_simulation_mode

from paddle_rt.compiled import call_kernel
from paddle_rt.cpu import paddle_threads

if TYPE_CHECKING:
    from paddle_rt.models.cpu_kernels import Axis

_enabled = True


@contextmanager
def paddles_layers() -> Iterator[None]:
    """Compute everything inside the block by Paddle's operators, to compare the kernels with them."""
    global _enabled
    _enabled = False
    try:
        yield
    finally:
        _enabled = True


def takes_compiled(*tensors: paddle.Tensor) -> bool:
    """Return whether a layer with these inputs and weights may be computed by the functions of this module.

    A graph that is traced must consist of Paddle's operators, and so must everything on another device or in another
    precision. Without gradients Paddle's operators stay too, so that evaluation has their numbers to the last bit.
    """
    if in_sot_simulation_mode() or not (_enabled and paddle.in_dynamic_mode() and paddle.is_grad_enabled()):
        return False
    return all(tensor.place.is_cpu_place() and tensor.dtype == paddle.float32 for tensor in tensors)


def depthwise_3x3(
    tokens: paddle.Tensor, size: Sequence[int], weight: paddle.Tensor, bias: paddle.Tensor
) -> paddle.Tensor:
    """Convolve each channel of tokens with a 3x3 kernel of its own, at stride 1 with padding 1.

    Args:
        tokens: The rows of a map one after the other.
        size: Height and width of the map.
        weight: As `paddle.nn.Conv2D` has it.
        bias: As `paddle.nn.Conv2D` has it.

    Shape: tokens [B, h w, C], weight [C, 1, 3, 3] and bias [C] to [B, h w, C].
    """
    return _Depthwise3x3.apply(tokens, weight, bias, tuple(size))


class _Depthwise3x3(PyLayer):
    @staticmethod
    def forward(
        ctx: Any, tokens: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor, size: tuple[int, int]
    ) -> paddle.Tensor:
        ctx.save_for_backward(tokens, weight)
        ctx.size, ctx.wants = size, [not tensor.stop_gradient for tensor in (tokens, weight, bias)]
        return _convolve(tokens, _taps(weight), bias, size)

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        tokens, weight = ctx.saved_tensor()
        wants_tokens, wants_weight, wants_bias = ctx.wants
        of_tokens = of_weight = of_bias = None
        if wants_tokens:
            of_tokens = _convolve(gradient, _taps(weight)[::-1], paddle.zeros([weight.shape[0]]), ctx.size)
        if wants_weight or wants_bias:
            total = _weight_gradient(tokens, gradient, ctx.size)
            of_weight = paddle.to_tensor(total[:9].T.reshape(weight.shape)) if wants_weight else None
            of_bias = paddle.to_tensor(total[9]) if wants_bias else None
        return of_tokens, of_weight, of_bias


def resize_bilinear(x: paddle.Tensor, size: Sequence[int], align_corners: bool) -> paddle.Tensor:
    """Resize maps as `paddle.nn.functional.interpolate(mode="bilinear", align_mode=0)` does.

    Shape: [B, C, h, w] to [B, C, *size].
    """
    return _Resize.apply(x, tuple(size), align_corners)


class _Resize(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, size: tuple[int, int], align_corners: bool) -> paddle.Tensor:
        from paddle_rt.models.cpu_kernels import resize_planes

        ctx.places = [_places(*lengths, align_corners) for lengths in zip(x.shape[2:], size, strict=True)]
        ctx.shape, x = x.shape, x.contiguous()
        out = paddle.empty([*x.shape[:2], *size])
        _run_in_threads(resize_planes, x.shape[0] * x.shape[1], _planes(x), *ctx.places, out=lambda: _planes(out))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        from paddle_rt.models.cpu_kernels import resize_gradient

        gradient, out = gradient.contiguous(), paddle.empty(ctx.shape)
        arguments = (_planes(gradient), *ctx.places)
        _run_in_threads(resize_gradient, ctx.shape[0] * ctx.shape[1], *arguments, out=lambda: _planes(out))
        return out


def cross_entropy(logits: paddle.Tensor, labels: paddle.Tensor, ignore_index: int) -> paddle.Tensor:
    """Compute the cross-entropy of each pixel, 0 where it is ignored.

    Raises:
        ValueError: A label is neither a class nor ignored.

    Shape: logits [B, C, H, W] and labels int64 [B, H, W] to [B, H, W].
    """
    return _CrossEntropy.apply(logits, labels, ignore_index)


class _CrossEntropy(PyLayer):
    @staticmethod
    def forward(ctx: Any, logits: paddle.Tensor, labels: paddle.Tensor, ignore_index: int) -> paddle.Tensor:
        from paddle_rt.models.cpu_kernels import cross_entropy_rows

        logits, numbers, classes = logits.contiguous(), labels.numpy(), logits.shape[1]
        wrong = numbers[(numbers != ignore_index) & ((numbers < 0) | (numbers >= classes))]
        if wrong.size:
            raise ValueError(f"label {wrong[0]} is none of the {classes} classes and not the ignored {ignore_index}")
        out = paddle.empty([2, *numbers.shape])
        arguments = (_maps(logits), numbers, ignore_index)
        _run_in_threads(cross_entropy_rows, len(numbers) * numbers.shape[1], *arguments, out=lambda: _maps(out))
        ctx.ignore_index, ctx.labels = ignore_index, numbers
        ctx.save_for_backward(logits, out)
        return out[0]

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        from paddle_rt.models.cpu_kernels import cross_entropy_gradient

        (logits, found), gradient = ctx.saved_tensor(), gradient.contiguous()
        out = paddle.empty_like(logits)
        arguments = (_maps(logits), ctx.labels, _maps(found)[1], _planes(gradient.unsqueeze(1)), ctx.ignore_index)
        lines = logits.shape[0] * logits.shape[2]
        _run_in_threads(cross_entropy_gradient, lines, *arguments, out=lambda: _maps(out))
        return out


@functools.cache
def _places(coarse: int, fine: int, align_corners: bool) -> "Axis":
    """Place the values of an axis of length `fine` among those of one of length `coarse`.

    Source: paddle/phi/kernels/cpu/interpolate_kernel.cc.
    """
    from paddle_rt.models.cpu_kernels import Axis

    position = np.zeros(1)  # a single value lies on the first one
    if fine > 1 and align_corners:
        position = np.arange(fine) * ((coarse - 1) / (fine - 1))
    elif fine > 1:
        position = np.maximum((np.arange(fine) + 0.5) * (coarse / fine) - 0.5, 0)
    before = np.minimum(position.astype(np.uint64), coarse - 1).astype(np.uint64)
    after = np.minimum(before + np.uint64(1), coarse - 1).astype(np.uint64)
    return Axis(before, after, np.clip(position - before, 0, 1).astype(np.float32))


def _taps(weight: paddle.Tensor) -> np.ndarray:
    """Return the values of a depthwise kernel by their place. Shape: [C, 1, 3, 3] to [9, C]."""
    return weight.numpy().reshape(-1, 9).T


def _convolve(tokens: paddle.Tensor, taps: np.ndarray, bias: paddle.Tensor, size: tuple[int, int]) -> paddle.Tensor:
    from paddle_rt.models.cpu_kernels import convolve_rows

    tokens, bias, (height, width) = tokens.contiguous(), bias.contiguous(), size
    out = paddle.empty_like(tokens)
    arguments = (_rows(tokens), np.ascontiguousarray(taps), _rows(bias)[0], height, width)
    _run_in_threads(convolve_rows, tokens.shape[0] * height, *arguments, out=lambda: _rows(out))
    return out


def _weight_gradient(tokens: paddle.Tensor, gradient: paddle.Tensor, size: tuple[int, int]) -> np.ndarray:
    """Return the gradients of the weight, by place, and of the bias. Shape: [10, C]."""
    from paddle_rt.models.cpu_kernels import add_weight_gradient

    tokens, gradient, (height, width) = tokens.contiguous(), gradient.contiguous(), size
    arguments = (_rows(tokens), _rows(gradient), height, width)
    zeros = functools.partial(np.zeros, (10, tokens.shape[2]), np.float32)
    return sum(_run_in_threads(add_weight_gradient, tokens.shape[0] * height, *arguments, out=zeros))


def _rows(tensor: paddle.Tensor) -> np.ndarray:
    """Return a view of the memory of a contiguous tensor. Shape: [..., C] to [N, C].

    `Tensor.numpy` copies, which takes longer than the kernels. The view is valid as long as the tensor.
    """
    memory = (ctypes.c_float * tensor.size).from_address(tensor.data_ptr())
    return np.ctypeslib.as_array(memory).reshape(-1, tensor.shape[-1])


def _maps(maps: paddle.Tensor) -> np.ndarray:
    """Return such a view of maps, in their shape."""
    return _rows(maps).reshape(maps.shape)


def _planes(maps: paddle.Tensor) -> np.ndarray:
    """Return such a view of maps. Shape: [B, C, h, w] to [B C, h, w]."""
    return _rows(maps).reshape(-1, *maps.shape[2:])


def _run_in_threads(kernel: Callable, parts: int, *arguments: Any, out: Callable[[], np.ndarray]) -> list[np.ndarray]:
    """Run a kernel on all rows or planes, in as many threads as Paddle has, and return what each thread filled.

    Args:
        kernel: Takes the arguments, the first and one past the last part, and what it fills.
        parts: The number of rows or planes.
        *arguments: Passed on.
        out: Makes what a thread fills.
    """
    threads = max(1, min(paddle_threads(), parts))
    edges = [parts * thread // threads for thread in range(threads + 1)]
    outputs = [out() for _ in range(threads)]
    if threads == 1:
        call_kernel(kernel, *arguments, 0, parts, outputs[0])
    else:
        call_kernel(kernel, *arguments, 0, 0, outputs[0])  # compiles it
        tasks = zip(edges[:-1], edges[1:], outputs, strict=True)
        list(_pool(threads, os.getpid()).map(lambda task: kernel(*arguments, *task), tasks))
    return outputs


@functools.cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Return this process's threads; a process that was forked has none of those of its parent."""
    return ThreadPoolExecutor(threads)
