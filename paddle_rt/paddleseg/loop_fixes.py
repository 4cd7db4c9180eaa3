"""Faults of PaddleSeg's training loop, and of what it calls beside models and losses."""

import importlib
import math
import os
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

from paddle_rt.errors import UserError
from paddle_rt.paddleseg.patching import contains, mend


def _train_module() -> ModuleType:
    # `paddleseg.core.train` as an attribute is the function, not the module.
    return importlib.import_module("paddleseg.core.train")


def fix_train_loop_scalar_loss() -> bool:
    """The first log line ends the training.

    Symptom: `IndexError: too many indices for array: array is 0-dimensional, but 1 were indexed`.
    Cause: since Paddle 2.5 a loss has no dimension and the loop takes its element [0]; PaddleSeg issues 3520, 3616.
    Mended upstream in PRs 3361 and 3423. The loop itself is mended, so a model's own `loss_computation` is served too.
    """
    return mend(_train_module().train, {"l[0] / log_iters": "l.item() / log_iters"})


def fix_scaler_with_parameter_groups() -> bool:
    """Mixed precision fails with an optimizer that has parameter groups (`custom_cfg`).

    Symptom: `TypeError: ... argument (position 1) must be list of Tensor, but got dict at pos 0`.
    Cause: `scaler.minimize` does not take groups; PaddleSeg issue 3515. Mended upstream in PR 3262.
    """
    exchanges = {
        f"scaler.minimize({optimizer}, scaled)": f"scaler.step({optimizer})\nscaler.update()"
        for optimizer in ("optimizer", "optimizer.user_defined_optimizer")
    }
    return mend(_train_module().train, exchanges)


def fix_resume_of_finished_run() -> bool:
    """Resuming a run that has done all its iterations fails at the very end.

    Symptom: `UnboundLocalError: cannot access local variable 'images'`.
    Cause: the operations are counted on the last batch, and there was none; PaddleSeg issues 1446, 1952, open upstream.
    """
    test = "local_rank == 0 and not (precision == 'fp16' and amp_level == 'O2')"
    return mend(_train_module().train, {test: f"start_iter < iters and {test}"})


def fix_resume_folder_check() -> bool:
    """Resuming from a folder that is no checkpoint fails without saying why.

    Symptom: `ValueError: invalid literal for int() with base 10`, or an error about a missing model.pdopt (best_model).
    Cause: the iteration is read from the folder's name and nothing is checked; PaddleSeg issue 3348, open upstream.
    """
    call = "start_iter = resume(model, optimizer, resume_model)"
    names = {"check_resume_folder": check_resume_folder}
    return mend(_train_module().train, {call: f"check_resume_folder(resume_model)\n{call}"}, **names)


def check_resume_folder(folder: str) -> None:
    """Raise a UserError unless `folder` is a checkpoint that training can go on from."""
    files = [os.path.join(folder, name) for name in ("model.pdparams", "model.pdopt")]
    missing = [file for file in files if not os.path.isfile(file)]
    if missing or not re.search(r"_\d+$", os.path.normpath(folder)):
        reason = f"{missing[0]} is missing" if missing else "its name does not end in _<iteration>"
        raise UserError(
            f"cannot resume from {folder}: {reason}; give a folder like output/iter_1000 that training wrote "
            "(best_model has no optimizer state)"
        )


def fix_training_without_batches() -> bool:
    """Training waits for ever where the data set is smaller than one batch.

    Symptom: no output and no end. Cause: incomplete batches are dropped, so that an epoch has none, and the loop runs
    until it has seen enough of them. Not reported, open upstream.
    """
    names = {"batches_per_epoch": batches_per_epoch}
    exchange = {"len(batch_sampler)": "batches_per_epoch(batch_sampler, batch_size)"}
    return mend(_train_module().train, exchange, **names)


def batches_per_epoch(batch_sampler: object, batch_size: int) -> int:
    """Count the batches of an epoch, and raise a UserError where there is none."""
    if len(batch_sampler) == 0:
        raise UserError(
            f"the training data set has fewer images than one batch of {batch_size} on each card; "
            "use a smaller --batch_size or more images"
        )
    return len(batch_sampler)


def fix_best_model_after_resume() -> bool:
    """A resumed run overwrites the best model with a worse one.

    Symptom: best_model/ holds a model that scored less than the one before the interruption.
    Cause: the best score starts at -1 in each run; PaddleSeg issue 1621, PR 2000 (closed unmerged), open upstream,
    though later versions write the score beside the model as `model.pdstates`, which is what this fix does too.
    """
    exchanges = {"best_model_iter = -1": "pass"}
    for prefix in ("", "ema_"):
        best, network, folder = f"best_{prefix}mean_iou", f"{prefix}model", f"best_{prefix}model_dir"
        stem = f"{prefix}best_model/{network}"
        start = f"best_{prefix}model_iter, {best} = best_before(resume_model, os.path.join(save_dir, {stem!r}))"
        exchanges[f"{best} = -1.0"] = start
        exchanges[f"paddle.save({network}.state_dict(), os.path.join({folder}, '{network}.pdparams'))"] = (
            f"save_best({network}, os.path.join({folder}, {network!r}), {prefix}mean_iou, {prefix}acc, iter)"
        )
    return mend(_train_module().train, exchanges, best_before=best_before, save_best=save_best)


def best_before(resumed_from: str | None, stem: str) -> tuple[int, float]:
    """Read the iteration and score of the best model so far; (-1, -1.0) for a fresh run or where there is none."""
    import paddle

    if resumed_from is None or not all(os.path.isfile(stem + end) for end in (".pdparams", ".pdstates")):
        return -1, -1.0
    states = paddle.load(f"{stem}.pdstates")
    return states["iter"], states["mIoU"]


def save_best(model: object, stem: str, mean_iou: float, accuracy: float, iteration: int) -> None:
    """Save a model and then its score; a kill in between leaves no score that belongs to another model."""
    from paddle_rt.checkpoint import atomic_save

    if os.path.isfile(f"{stem}.pdstates"):
        os.remove(f"{stem}.pdstates")
    atomic_save(model.state_dict(), f"{stem}.pdparams")
    atomic_save({"mIoU": float(mean_iou), "Acc": float(accuracy), "iter": iteration}, f"{stem}.pdstates")


def fix_unsafe_saving() -> bool:
    """A killed run or a full disk leaves a truncated checkpoint under its final name.

    Cause: `paddle.save` writes in place. Not reported, open upstream.
    """
    return mend(_train_module().train, {"paddle.save": "save_whole"}, save_whole=save_whole)


def save_whole(obj: object, path: str) -> None:
    """Save a file of a checkpoint.

    Once new weights are on the disk, the optimizer state of an earlier run in the folder goes before they take their
    name, so that a kill in between leaves no pair that does not belong together.
    """
    import paddle

    from paddle_rt.files import whole_file

    with whole_file(path) as temporary:
        paddle.save(obj, str(temporary))
        old_states = os.path.join(os.path.dirname(path), "model.pdopt")
        if os.path.basename(path) == "model.pdparams" and os.path.isfile(old_states):
            os.remove(old_states)


def fix_loader_that_hangs() -> bool:
    """Training waits for ever on an image that cannot be read, or names no file where worker processes load.

    Cause: Paddle's DataLoader does not hand on what a dataset raises; see `paddle_rt.tasks.loader`.
    """
    from paddle_rt.tasks.loader import Loader

    return mend(_train_module().train, {"paddle.io.DataLoader": "Loader"}, Loader=Loader)


def fix_loss_that_is_no_number() -> bool:
    """Training goes on once the loss is NaN, until the backward pass of NaN corrupts memory on a CPU.

    Symptom: `malloc(): invalid next size`, or no output and no end. Not reported, open upstream.
    """
    return mend(_train_module().train, {"loss.backward()": "finite(loss, iter).backward()"}, finite=finite)


def finite(loss: Any, iteration: int) -> Any:
    """Give back the loss, or raise a UserError where it is no number.

    The loop asks in fp32 only: with fp16 the scaler passes over such steps.
    """
    if not math.isfinite(float(loss)):
        raise UserError(
            f"the loss is {float(loss)} at iteration {iteration}: try a lower --learning_rate or a longer warm-up; "
            "checkpoints saved before stay as they are"
        )
    return loss


def fix_operation_count() -> bool:
    """Training ends with a line for every kind of layer and a count of operations that takes attention's for none.

    Mended nowhere; the count is left out here.
    """
    count = "_ = paddle.flops(model, [1, c, h, w], custom_ops={paddle.nn.SyncBatchNorm: op_flops_funs.count_syncbn})"
    return mend(_train_module().train, {count: "pass"})


def fix_batch_norm_statistics_between_ranks() -> bool:
    """In training with several processes on CPUs, the score is that of a mixture of models, none of them saved.

    Cause: there is no SyncBatchNorm on a CPU, so that each rank has its own running statistics; each rank evaluates
    its share of the images with them, and rank 0's are saved. Not reported, open upstream. All ranks pass the end of
    each iteration, so that is where they agree, before the EMA copy, the evaluation and the saving see the model.
    """
    agree = (
        "if nranks > 1 and (iter % save_interval == 0 or iter == iters):\n"
        "    for network in [model, ema_model] if use_ema else [model]:\n"
        "        sync_batch_norm_buffers(network)"
    )
    names = {"sync_batch_norm_buffers": sync_batch_norm_buffers}
    clear = "model.clear_gradients()"
    return mend(_train_module().train, {clear: f"{clear}\n{agree}"}, **names)


def sync_batch_norm_buffers(model: object) -> None:
    """Give all ranks the average of their BatchNorm running means and variances; every rank has to call it.

    The average, because each rank's numbers are an equally good estimate of the same thing, and the average is the
    least noisy one. The variances are averaged as they are, without the spread of the means between ranks: training
    normalises each rank's batch by itself, and a single process with that batch size would record the same.

    Args:
        model: A paddle.nn.Layer. Layers of SyncBatchNorm agree already and are left out.
    """
    import paddle
    from paddle import nn

    ranks = paddle.distributed.get_world_size()
    if ranks == 1:
        return
    for layer in model.sublayers(include_self=True):
        if isinstance(layer, (nn.BatchNorm, nn.BatchNorm1D, nn.BatchNorm2D, nn.BatchNorm3D)):
            for buffer in (layer._mean, layer._variance):
                total = buffer.detach().clone()
                paddle.distributed.all_reduce(total)
                buffer.set_value(total / ranks)


def fix_profiler() -> bool:
    """`--profiler_options` fails when the profiled part begins.

    Symptom: `AttributeError: module 'paddle.utils' has no attribute 'profiler'`.
    Cause: that module was removed from Paddle. Mended upstream in PR 3312.
    """
    module = importlib.import_module("paddleseg.utils.train_profiler")
    if not contains(module.add_profiler_step, "paddle.utils.profiler"):
        return False
    module.add_profiler_step = _StepProfiler(module.ProfilerOptions)
    return True


class _StepProfiler:
    """Counts training steps and profiles those in `batch_range`, by PaddleSeg's option string."""

    def __init__(self, parse: Callable[[str], object]) -> None:
        self.parse, self.profiler, self.steps = parse, None, 0

    def __call__(self, options_str: str | None = None) -> None:
        from paddle import profiler

        if options_str is None:
            return
        options = self.parse(options_str)
        first, last = options["batch_range"]
        if self.profiler is None:
            state = options["state"]
            self.profiler = profiler.Profiler(
                targets=None if state == "All" else [getattr(profiler.ProfilerTarget, state)],
                scheduler=(first, last),
                on_trace_ready=profiler.export_chrome_tracing(options["profile_path"]),
            )
            self.profiler.start()
        else:
            self.profiler.step()
        if self.steps == last:
            self.profiler.stop()
            order = {"max": "CPUMax", "min": "CPUMin", "ave": "CPUAvg"}.get(options["sorted_key"], "CPUTotal")
            self.profiler.summary(sorted_by=getattr(profiler.SortedKeys, order))
            if options["exit_on_finished"]:
                raise SystemExit(0)
        self.steps += 1


def fix_mlu_device() -> bool:
    """`--device mlu` fails.

    Symptom: `AttributeError: module 'paddle' has no attribute 'is_compiled_with_mlu'`.
    Cause: the device became a plug-in. Mended upstream in PRs 3422 and 3550.
    """
    set_device = importlib.import_module("paddleseg.utils.utils").set_device
    mended = "'mlu' in paddle.device.get_all_custom_device_type()"
    return mend(set_device, {"paddle.is_compiled_with_mlu()": mended})


FIXES = (
    fix_train_loop_scalar_loss,
    fix_scaler_with_parameter_groups,
    fix_resume_of_finished_run,
    fix_resume_folder_check,
    fix_training_without_batches,
    fix_best_model_after_resume,  # before fix_unsafe_saving: it looks for paddle.save
    fix_unsafe_saving,
    fix_loader_that_hangs,
    fix_loss_that_is_no_number,
    fix_operation_count,
    fix_batch_norm_statistics_between_ranks,
    fix_profiler,
    fix_mlu_device,
)
