"""Train on PaddleSeg's own loop, with our evaluation in it."""

import importlib
import os
from collections.abc import Callable

import numpy as np
import paddle
from paddleseg.cvlibs import Config, SegBuilder
from paddleseg.utils import utils

from paddle_rt import compat
from paddle_rt.engine.config import build, class_names
from paddle_rt.engine.evaluate import evaluate, report
from paddle_rt.engine.infer import TestTime, test_time
from paddle_rt.engine.metrics import scores
from paddle_rt.errors import UserError
from paddle_rt.models.rtformer import RTFormer


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
        UserError: The config or an argument does not work; nothing was trained.
    """
    compat.check_precision(precision, device)
    set_up(device, seed)
    how = test_time(**config.test_config)
    builder = SegBuilder(config)
    train_dataset = build(builder, "train_dataset")
    train_dataset.file_list *= repeats
    val_dataset = build(builder, "val_dataset") if do_eval else None
    model = utils.convert_sync_batchnorm(build(builder, "model"), device)
    optimizer, losses = build(builder, "optimizer"), build(builder, "loss")
    _check_losses(model, losses)

    names = class_names(config)
    loop = importlib.import_module("paddleseg.core.train")  # as an attribute of its package it is the function
    loop.evaluate = _evaluation(how, names)
    utils.set_seed(seed)  # again: building a model draws from the generator, and not every model draws as often
    loop.train(
        model,
        train_dataset,
        val_dataset=val_dataset,
        optimizer=optimizer,
        save_dir=save_dir,
        iters=config.iters,
        batch_size=config.batch_size,
        resume_model=resume_model,
        save_interval=save_interval,
        log_iters=log_iters,
        num_workers=num_workers,
        use_vdl=use_vdl,
        use_ema=use_ema,
        losses=losses,
        keep_checkpoint_max=keep_checkpoint_max,
        precision=precision,
        amp_level=amp_level,
        profiler_options=profiler_options,
        to_static_training=config.to_static_training,
    )


def set_up(device: str, seed: int | None = None) -> None:
    """Choose the device and, on a CPU, use every core that the process may run on; seed the generators.

    OMP_NUM_THREADS, where it is set, decides the number of threads instead.
    """
    if paddle.distributed.ParallelEnv().nranks > 1 and not paddle.distributed.is_initialized():
        paddle.distributed.init_parallel_env()
    if "OMP_NUM_THREADS" not in os.environ:
        paddle.base.core.set_num_threads(len(os.sched_getaffinity(0)))
    utils.set_seed(seed)
    utils.set_device(device)


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


def _check_losses(model: paddle.nn.Layer, losses: dict) -> None:
    """PaddleSeg finds out after the first forward pass, in the middle of its loop."""
    outputs = 1 + bool(getattr(model, "use_aux_head", False))
    if isinstance(model, RTFormer) and outputs != len(losses["coef"]):
        raise UserError(f"the model gives {outputs} outputs while training, but loss.coef has {len(losses['coef'])} entries")
