"""Train on PaddleSeg's own loop, with our evaluation in it."""

import importlib
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import paddle
from paddleseg.cvlibs import Config, SegBuilder
from paddleseg.utils import logger, utils
from paddleseg.utils.train_profiler import ProfilerOptions

from paddle_rt import paddleseg as compat
from paddle_rt.checkpoint import load, read_saved
from paddle_rt.config.build import build, class_names
from paddle_rt.errors import UserError, unknown
from paddle_rt.paddleseg.loop_fixes import check_resume_folder
from paddle_rt.tasks.segmentation.evaluate import evaluate, report
from paddle_rt.tasks.segmentation.metrics import scores
from paddle_rt.tasks.segmentation.tta import TestTime, test_time

_PROFILER_KEYS = ("batch_range", "state", "sorted_key", "tracer_option", "profile_path", "exit_on_finished")


def train(
    config: Config,
    save_dir: str = "./output",
    device: str = "gpu",
    do_eval: bool = False,
    resume_model: str | None = None,
    seed: int | None = None,
    num_workers: int = 0,
    save_interval: int = 1000,
    log_iters: int = 10,
    keep_checkpoint_max: int = 5,
    use_vdl: bool = False,
    use_ema: bool = False,
    precision: str = "fp32",
    amp_level: str = "O1",
    profiler_options: str | None = None,
    repeats: int = 1,
) -> None:
    """Train the model of a config; arguments are PaddleSeg's flags of the same names.

    Files go where PaddleSeg puts them: save_dir/iter_N/{model.pdparams, model.pdopt}, save_dir/best_model.

    Raises:
        UserError: The config, an argument, an image or a label does not work, or the loss is no number any more.
        OSError: A checkpoint cannot be written; those before it are whole.
    """
    compat.check_precision(precision, device)
    _check_profiler_options(profiler_options)
    _make_folder(save_dir)
    how, names = test_time(**config.test_config), class_names(config)
    if resume_model is not None and _is_finished(resume_model, config.iters):
        return
    set_up(device, seed)
    with (
        paddle.utils.unique_name.guard(),  # optimizer states carry generated names, which have to start from 0
        _fitting_optimizer(resume_model),
        _no_half_checkpoint(save_dir),
        _own_evaluation(how, names) as train_in_loop,
    ):
        parts = _build_parts(config, device, do_eval, repeats)
        if resume_model is not None:
            _check_states(parts["model"], resume_model)
        utils.set_seed(seed)  # again: building a model draws from the generator, and not every model draws as often
        train_in_loop(
            **parts,
            save_dir=save_dir,
            iters=config.iters,
            batch_size=config.batch_size,
            resume_model=resume_model,
            save_interval=save_interval,
            log_iters=log_iters,
            num_workers=num_workers,
            use_vdl=use_vdl,
            use_ema=use_ema,
            keep_checkpoint_max=keep_checkpoint_max,
            precision=precision,
            amp_level=amp_level,
            profiler_options=profiler_options,
            to_static_training=config.to_static_training,
        )


def set_up(device: str, seed: int | None = None) -> None:
    """Choose the device and, on a CPU, share its cores among the processes of the launch; seed the generators.

    OMP_NUM_THREADS, where it is set, decides the number of threads instead.
    """
    if paddle.distributed.ParallelEnv().nranks > 1 and not paddle.distributed.is_initialized():
        paddle.distributed.init_parallel_env()
    if "OMP_NUM_THREADS" not in os.environ:
        paddle.base.core.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_processes()))
    utils.set_seed(seed)
    utils.set_device(device)


def local_processes() -> int:
    """Processes of this launch on this machine; 1 without a launch. The gloo launcher names only their endpoints."""
    host = os.environ.get("PADDLE_CURRENT_ENDPOINT", "").rpartition(":")[0]
    endpoints = os.environ.get("PADDLE_TRAINER_ENDPOINTS", "").split(",")
    return max(1, sum(endpoint.rpartition(":")[0] == host for endpoint in endpoints))


def _build_parts(config: Config, device: str, do_eval: bool, repeats: int) -> dict[str, Any]:
    builder = SegBuilder(config)
    train_dataset = build(builder, "train_dataset")
    if repeats > 1:
        train_dataset.file_list *= repeats
    val_dataset = build(builder, "val_dataset") if do_eval else None
    model = utils.convert_sync_batchnorm(build(builder, "model"), device)
    for group in config.optimizer_cfg.get("custom_cfg") or []:
        if not any(group["name"] in name for name, _ in model.named_parameters()):
            raise UserError(f"optimizer.custom_cfg: no parameter has {group['name']!r} in its name")
    return {
        "train_dataset": train_dataset,
        "val_dataset": val_dataset,
        "model": model,
        "optimizer": build(builder, "optimizer"),
        "losses": build(builder, "loss"),
    }


def _evaluation(how: TestTime, names: list[str]) -> Callable:
    """What the loop calls as PaddleSeg's `evaluate`: our scores in its order."""

    def run(
        model: paddle.nn.Layer, dataset: paddle.io.Dataset, num_workers: int, precision: str, amp_level: str
    ) -> tuple[float, float, np.ndarray, np.ndarray, float]:
        confusion = evaluate(model, dataset, how, 1, num_workers, precision, amp_level)
        if paddle.distributed.get_rank() == 0:
            result = report(confusion, len(dataset), names)
        else:
            result = scores(confusion)
        return result["mIoU"], result["Acc"], result["class_iou"], result["class_precision"], result["Kappa"]

    return run


@contextmanager
def _own_evaluation(how: TestTime, names: list[str]) -> Iterator[Callable]:
    """Give PaddleSeg's `train` with our evaluation and message about losses in it, while the block lasts."""
    loop = importlib.import_module("paddleseg.core.train")  # as an attribute of its package it is the function
    theirs = loop.evaluate, loop.check_logits_losses, loop.loss_computation
    loop.evaluate, loop.check_logits_losses = _evaluation(how, names), _check_losses
    loop.loss_computation = partial(_compute_losses, theirs[2])
    try:
        yield loop.train
    finally:
        loop.evaluate, loop.check_logits_losses, loop.loss_computation = theirs


def _compute_losses(compute: Callable, **arguments: Any) -> list[paddle.Tensor]:
    """PaddleSeg's losses; what they say of arguments that do not fit them is the user's to hear, on one line."""
    try:
        return compute(**arguments)
    except UserError:
        raise
    except (ValueError, TypeError, AssertionError) as error:
        raise UserError(f"the config's loss cannot be computed: {str(error).split('[Hint')[0][:300]}") from error


def _check_losses(logits: list[paddle.Tensor], losses: dict) -> None:
    if len(logits) != len(losses["types"]):
        raise UserError(
            f"the model gives {len(logits)} outputs while training, but loss.coef has {len(losses['coef'])} entries"
        )


def _make_folder(save_dir: str) -> None:
    """Make the run's folder before anything takes time. PaddleSeg deletes a file that is in its place."""
    if os.path.exists(save_dir) and not os.path.isdir(save_dir):
        raise UserError(f"--save_dir {save_dir} is a file; give a folder")
    os.makedirs(save_dir, exist_ok=True)
    if not os.access(save_dir, os.W_OK):
        raise UserError(f"--save_dir {save_dir} cannot be written to")


def _check_profiler_options(options: str | None) -> None:
    for option in options.replace(" ", "").split(";") if options else ():
        key = option.partition("=")[0]
        if key not in _PROFILER_KEYS:
            raise unknown("profiler option", key, _PROFILER_KEYS)
    try:
        ProfilerOptions(options or "")
    except ValueError as error:
        raise UserError(f"--profiler_options takes key=value;key=value, got {options!r}: {error}") from error


def _is_finished(resume_model: str, iters: int) -> bool:
    """Whether the checkpoint to resume from is that of the last iteration or a later one; says so."""
    check_resume_folder(resume_model)
    done = int(os.path.normpath(resume_model).rpartition("_")[2])
    if done < iters:
        return False
    logger.info(f"{resume_model} has {done} of {iters} iterations: nothing is left to train (--iters sets the number)")
    return True


def _check_states(model: paddle.nn.Layer, resume_model: str) -> None:
    """Refuse a checkpoint that PaddleSeg's loop, which reads it next, would take over in part or fail on."""
    load(model, resume_model)
    file = pathlib.Path(resume_model) / "model.pdopt"
    states = read_saved(file)
    if not isinstance(states, dict) or "LR_Scheduler" not in states:
        raise UserError(f"{file} holds no optimizer's states; give a folder iter_N that training wrote")


@contextmanager
def _no_half_checkpoint(save_dir: str) -> Iterator[None]:
    """Remove the folder in whose making a full disk or Ctrl-C struck: it has no optimizer states to go on from."""
    folder_of = pathlib.Path(save_dir).glob
    broken_before = {folder for folder in folder_of("iter_*") if not (folder / "model.pdopt").is_file()}
    try:
        yield
    except (OSError, KeyboardInterrupt):
        for folder in set(folder_of("iter_*")) - broken_before:
            if paddle.distributed.get_rank() == 0 and not (folder / "model.pdopt").is_file():
                shutil.rmtree(folder)
        raise


@contextmanager
def _fitting_optimizer(resume_model: str | None) -> Iterator[None]:
    """Paddle finds out in the first step whether the states it was given are those of this optimizer."""
    try:
        yield
    except AssertionError as error:
        if resume_model is None or not re.search("should in state dict|Shape not match", str(error)):
            raise
        raise UserError(f"{resume_model}/model.pdopt is not of the config's optimizer and model: {error}") from error
