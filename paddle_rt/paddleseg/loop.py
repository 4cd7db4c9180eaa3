"""PaddleSeg's own training loop, as a reference for ours and for those who want the original.

It trains the same network with the same optimizer, losses and data as our loop, and evaluates with our scores. Only
what keeps it from running on Paddle 3 is patched, and the statistics of BatchNorm, which its processes do not share.
"""

import functools
import importlib
import logging
import os
import re
import types
from collections.abc import Callable
from typing import Any

import paddle

from paddle_rt.checkpoint import load, read_saved
from paddle_rt.config import Config, build_network, build_optimizer, build_task
from paddle_rt.errors import UserError
from paddle_rt.paddleseg.components import import_paddleseg
from paddle_rt.paddleseg.patching import patched
from paddle_rt.tasks.base import Task
from paddle_rt.tasks.loader import Loader

logger = logging.getLogger(__name__)

_EXCHANGES = {
    # The first log line ends the training: since Paddle 2.5 a loss has no dimension (PaddleSeg's issues 3520, 3616).
    "l[0] / log_iters": "l.item() / log_iters",
    # `scaler.minimize` refuses parameter groups (PaddleSeg's issue 3515).
    "scaler.minimize(optimizer, scaled)": "scaler.step(optimizer)\nscaler.update()",
    "scaler.minimize(optimizer.user_defined_optimizer, scaled)": (
        "scaler.step(optimizer.user_defined_optimizer)\nscaler.update()"
    ),
    # Paddle's loader waits for ever where an image cannot be read.
    "paddle.io.DataLoader": "Loader",
    # The backward pass of numbers that are not finite corrupts memory on a CPU.
    "logits_list = ddp_model(images) if nranks > 1 else model(images)": (
        "with check_of(model).forward(images, iter):\n"
        "    logits_list = ddp_model(images) if nranks > 1 else model(images)"
    ),
    "loss.backward()": "check_of(model).loss(loss.item(), iter)\nloss.backward()\ncheck_of(model).gradients(iter)",
    # A CPU has no SyncBatchNorm: without this, each process scores a network of its own, and one of them is saved.
    "model.clear_gradients()": (
        "check_of(model).weights(iter)\nmodel.clear_gradients()\nsync_batch_norm_buffers(model)"
    ),
}


def train(config: Config, options: Any) -> None:
    """Train the network of a config in PaddleSeg's loop.

    Args:
        config: Of the task "segmentation".
        options: `paddle_rt.training.TrainOptions`.

    Raises:
        UserError: The config, an option, an image or a label does not work, the loop does not have an option, or the
            loss is not a number any more.
    """
    from paddle_rt.training.devices import set_seed, set_up
    from paddle_rt.training.distributed import sync_batch_norm_buffers
    from paddle_rt.training.finite import FiniteCheck
    from paddle_rt.training.precision import Precision
    from paddle_rt.training.profiling import StepProfiler
    from paddle_rt.training.run_folder import claim

    _refuse_unknown(config, options)
    if options.resume_model is not None and _is_finished(options.resume_model, config.iters):
        return
    set_up(options.device, options.seed)
    Precision(options.precision, options.amp_level)  # refuses what the device cannot do
    profiler = StepProfiler(options.profiler_options, options.save_dir)
    import_paddleseg()
    original = importlib.import_module("paddleseg.core.train")  # as an attribute of its package it is the function
    task = build_task(config)
    loop = patched(
        original.train,
        _EXCHANGES,
        Loader=Loader,
        sync_batch_norm_buffers=sync_batch_norm_buffers,
        resume=_resume,
        evaluate=_evaluation(task),
        loss_computation=_loss_computation(task),
        check_of=functools.cache(lambda network: FiniteCheck(network, may_skip=options.precision == "fp16")),
        train_profiler=types.SimpleNamespace(add_profiler_step=lambda _: _end_if(profiler.step())),
    )
    # The optimizer's state has generated names, which must start from 0.
    with claim(options.save_dir), paddle.utils.unique_name.guard():
        train_data, val_data = _build_data(config, options, task)
        task.check_data(train_data, val_data, config.batch_size)
        network = build_network(config)
        if paddle.distributed.get_world_size() > 1 and paddle.device.get_device() != "cpu":
            network = paddle.nn.SyncBatchNorm.convert_sync_batchnorm(network)
        optimizer = build_optimizer(config, network)
        if options.resume_model is not None:
            load(network, options.resume_model)  # PaddleSeg's loop would take over a part of what does not fit
        set_seed(options.seed)  # again, since not every network draws as often while it is built
        names = ("save_dir", "resume_model", "save_interval", "log_iters", "num_workers", "use_vdl", "use_ema")
        names += ("keep_checkpoint_max", "precision", "amp_level", "profiler_options")
        settings = {name: getattr(options, name) for name in names}
        settings |= {"iters": config.iters, "batch_size": config.batch_size}
        loop(network, train_data, val_data, optimizer, to_static_training=config.to_static_training, **settings)


def _build_data(config: Config, options: Any, task: Task) -> tuple[paddle.io.Dataset, paddle.io.Dataset | None]:
    train_data = task.build_data("train")
    if len(train_data) < config.batch_size * paddle.distributed.get_world_size():  # the loop would wait for ever
        raise UserError(
            f"the training data set has fewer images than one batch of {config.batch_size} on each card; "
            "use a smaller --batch_size or more images"
        )
    train_data.file_list = train_data.file_list * options.repeats
    return train_data, task.build_data("val") if options.do_eval else None


def _refuse_unknown(config: Config, options: Any) -> None:
    if config.task_name != "segmentation":
        raise UserError(f"PaddleSeg's loop trains segmentation only, and the config's task is {config.task_name!r}")
    for name, value in (("accumulate", 1), ("early_stop_intervals", None), ("weights_format", "pdparams")):
        if getattr(options, name) != value:
            raise UserError(f"PaddleSeg's loop has no --{name}; leave it out, or leave --loop out")
    if config.values.get("sampler"):
        raise UserError("PaddleSeg's loop has no sampler; leave it out of the config, or leave --loop out")
    if options.precision == "bf16":
        raise UserError("PaddleSeg's loop has no --precision bf16; use fp32 or fp16, or leave --loop out")


def _is_finished(folder: str, iters: int) -> bool:
    """Check a folder to resume from; tell whether it is of the last iteration or a later one, and log that it is."""
    files = [os.path.join(folder, name) for name in ("model.pdparams", "model.pdopt")]
    missing = [file for file in files if not os.path.isfile(file)]
    if missing or _iteration(folder) is None:
        reason = f"{missing[0]} is missing" if missing else "its name does not end in _<iteration>"
        raise UserError(
            f"cannot resume from {folder}: {reason}; give a folder like output/iter_1000 that training wrote "
            "(best_model has no optimizer state, and PaddleSeg's loop does not find the newest by itself)"
        )
    done = _iteration(folder)
    if done < iters:
        return False
    logger.info("%s has %d of %d iterations: nothing is left to train (--iters sets the number)", folder, done, iters)
    return True


def _iteration(folder: str) -> int | None:
    found = re.search(r"_(\d+)$", os.path.normpath(folder))
    return int(found[1]) if found else None


def _resume(_: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer, folder: str) -> int:
    """Take over the optimizer's state; PaddleSeg's own `resume` runs whatever the files ask for."""
    optimizer.set_state_dict(read_saved(os.path.join(folder, "model.pdopt")))
    return _iteration(folder)


def _evaluation(task: Task) -> Callable:
    """Return what the loop calls as PaddleSeg's `evaluate`: the task's scores, in its order."""

    def evaluate(
        network: paddle.nn.Layer, dataset: paddle.io.Dataset, num_workers: int, precision: str, amp_level: str
    ) -> tuple[float, float, None, None, None]:
        with paddle.amp.auto_cast(enable=precision == "fp16", level=amp_level):
            scores = task.evaluate(network, dataset, num_workers)
        for line in (scores.summary, *scores.details):
            logger.info(line)
        return scores.best, scores.values["Acc"], None, None, None

    return evaluate


def _loss_computation(task: Task) -> Callable:
    """Return what the loop calls to compute its losses: the task's."""

    def compute(
        logits_list: list[paddle.Tensor], labels: paddle.Tensor, edges: paddle.Tensor | None, losses: None
    ) -> list[paddle.Tensor]:
        return task.losses(logits_list, {"label": labels} if edges is None else {"label": labels, "edge": edges})

    return compute


def _end_if(finished: bool) -> None:
    if finished:
        raise SystemExit(0)
