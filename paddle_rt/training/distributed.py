"""What the processes of one launch agree on."""

from typing import Any

import paddle
from paddle import nn


def sync_batch_norm_buffers(network: nn.Layer) -> None:
    """Give all processes the average of their BatchNorm running statistics; every process has to call it.

    A CPU has no SyncBatchNorm, so each process keeps statistics of its own share of the images. Each is an equally good
    estimate, and their average is the least noisy one. The variances are averaged without the spread of the means:
    training normalises each process's batch by itself, and a single process with that batch size would record the
    same. Layers of SyncBatchNorm agree already and are left out.

    Args:
        network: The network of this process.
    """
    processes = paddle.distributed.get_world_size()
    if processes == 1:
        return
    kinds = (nn.BatchNorm, nn.BatchNorm1D, nn.BatchNorm2D, nn.BatchNorm3D)
    layers = [layer for layer in network.sublayers(include_self=True) if isinstance(layer, kinds)]
    buffers = [buffer.detach() for layer in layers for buffer in (layer._mean, layer._variance)]
    if not buffers:
        return
    total = paddle.concat([buffer.flatten() for buffer in buffers])
    paddle.distributed.all_reduce(total)
    averages = paddle.split(total / processes, [buffer.size for buffer in buffers])
    for buffer, average in zip(buffers, averages, strict=True):
        buffer.set_value(average.reshape(buffer.shape))


def max_across_processes(number: int) -> int:
    """Return the largest number that any process of the launch passes; every process has to call it."""
    if paddle.distributed.get_world_size() == 1:
        return number
    tensor = paddle.to_tensor([number], dtype="int32")
    paddle.distributed.all_reduce(tensor, op=paddle.distributed.ReduceOp.MAX)
    return int(tensor)


def gather_objects(item: Any) -> list[Any]:
    """Return what every process passes, in the order of their ranks; every process has to call it."""
    if paddle.distributed.get_world_size() == 1:
        return [item]
    items: list[Any] = []
    paddle.distributed.all_gather_object(items, item)
    return items
