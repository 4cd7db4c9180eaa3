"""Layers in single precision on a CPU, for training and evaluation without a graph, by kernels of this project."""

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import paddle
from paddle.autograd import PyLayer
from paddle.base.dygraph.base import in_sot_simulation_mode

from paddle_rt.compiled import call_kernel
from paddle_rt.cpu import paddle_threads


def takes_compiled(x: paddle.Tensor, weight: paddle.Tensor) -> bool:
    """Return whether a layer with this input and weight may be computed by the functions of this module.

    A graph that is traced must consist of Paddle's operators, and so must everything on another device or in another
    precision.
    """
    if in_sot_simulation_mode() or not paddle.in_dynamic_mode():
        return False
    return x.place.is_cpu_place() and x.dtype == weight.dtype == paddle.float32


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


def _run_in_threads(kernel: Callable, lines: int, *arguments: Any, out: Callable[[], np.ndarray]) -> list[np.ndarray]:
    """Run a kernel on all image rows, in as many threads as Paddle has, and return what each thread filled.

    Args:
        kernel: Takes the arguments, the first and one past the last row, and what it fills.
        lines: The number of rows.
        *arguments: Passed on.
        out: Makes what a thread fills.
    """
    threads = max(1, min(paddle_threads(), lines))
    edges = [lines * thread // threads for thread in range(threads + 1)]
    outputs = [out() for _ in range(threads)]
    if threads == 1:
        call_kernel(kernel, *arguments, 0, lines, outputs[0])
    else:
        call_kernel(kernel, *arguments, 0, 0, outputs[0])  # compiles it
        tasks = zip(edges[:-1], edges[1:], outputs, strict=True)
        list(_pool(threads, os.getpid()).map(lambda task: kernel(*arguments, *task), tasks))
    return outputs


@functools.cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Return this process's threads; a process that was forked has none of those of its parent."""
    return ThreadPoolExecutor(threads)
