"""The training loop: one function that reads downwards, for any task."""

import contextlib
import logging
import math
import pathlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import paddle

from paddle_rt.checkpoint import load, weights_file
from paddle_rt.config import Config, build_network, build_optimizer, build_task
from paddle_rt.errors import UserError
from paddle_rt.tasks.base import Scores, Task
from paddle_rt.tasks.loader import Loader
from paddle_rt.training import checkpoints
from paddle_rt.training.devices import set_seed, set_up
from paddle_rt.training.distributed import gather_objects, max_across_processes, sync_batch_norm_buffers
from paddle_rt.training.ema import ExponentialMovingAverage
from paddle_rt.training.finite import FiniteCheck
from paddle_rt.training.log import RunLog, table
from paddle_rt.training.options import TrainOptions
from paddle_rt.training.order import SampleOrder, SeededSamples
from paddle_rt.training.precision import Precision
from paddle_rt.training.profiling import StepProfiler
from paddle_rt.training.run_folder import claim
from paddle_rt.training.signals import Interrupted, Interruption
from paddle_rt.training.state import Progress, TrainingState, conditions

_log = logging.getLogger(__name__)


def train(config: Config, options: TrainOptions) -> None:
    """Train the network of a config.

    Raises:
        UserError: The config, an option, an image or a label does not work, or the loss is not a number any more.
        OSError: A checkpoint cannot be written; those before it are whole.
        Interrupted: A signal ended the run; it names the checkpoint that resumes it.
    """
    set_up(options.device, options.seed)
    # The optimizer's state has generated names, which must start from 0.
    with claim(options.save_dir), paddle.utils.unique_name.guard():
        task = build_task(config)
        train_data = task.build_data("train")
        val_data = task.build_data("val") if options.do_eval else None
        task.check_data(train_data, val_data, config.batch_size)
        network = build_network(config)
        if paddle.distributed.get_world_size() > 1 and paddle.device.get_device() != "cpu":
            network = paddle.nn.SyncBatchNorm.convert_sync_batchnorm(network)
        optimizer = build_optimizer(config, network)
        set_seed(options.seed)  # again, since not every network draws as often while it is built
        fit(
            Parts(network, optimizer, task, train_data, val_data),
            options,
            config.iters,
            config.batch_size,
            config.to_static_training,
        )


@dataclass(frozen=True)
class Parts:
    """What a run trains, and on what.

    Args:
        network: Returns a list of outputs; the task's losses judge them.
        optimizer: Its learning rate is a scheduler of Paddle.
        task: Knows losses and scores.
        train_data: Samples to train on.
        val_data: Samples to score on, or None to score nothing.
    """

    network: paddle.nn.Layer
    optimizer: paddle.optimizer.Optimizer
    task: Task
    train_data: paddle.io.Dataset
    val_data: paddle.io.Dataset | None = None


def fit(parts: Parts, options: TrainOptions, iters: int, batch_size: int, to_static: bool = False) -> TrainingState:
    """Train until `iters` iterations are done.

    The order of operations is PaddleSeg's: forward pass, backward pass, optimizer, scheduler, log, moving average,
    evaluation, checkpoint.

    Args:
        parts: Network, optimizer, task and data.
        options: How to train, log and save. The caller has claimed the folder `save_dir`.
        iters: Iterations of the whole run, those before a resume included.
        batch_size: Samples of a batch in this process.
        to_static: Compile the network's Python code into a graph first.

    Returns:
        The state at the end.

    Raises:
        UserError, OSError, Interrupted: As `train`.
    """
    save_dir = pathlib.Path(options.save_dir)
    precision = Precision(options.precision, options.amp_level)
    state = _begin(parts, options, precision, batch_size)
    progress = state.progress
    if _is_finished(state, iters, options.early_stop_intervals):
        return state
    samples = _samples(parts, progress.seed, options.repeats)
    order = SampleOrder(len(samples), batch_size, options.accumulate, start=progress.iteration)
    log = RunLog(save_dir, iters, progress, options.log_iters, options.use_vdl)
    evaluate = _Evaluation(parts, state, options, precision, log)
    step = _Step(parts.task, state, precision, to_static)
    profiler = StepProfiler(options.profiler_options, save_dir / "profile")
    state.network.train()
    stops, loader = False, _batches(samples, order, options, parts.task)
    with Interruption().catch() as interruption, loader as batches, contextlib.closing(log):
        if progress.owes_evaluation and parts.val_data is not None:
            stops = evaluate(interruption)
            _stop_if(interruption, progress.iteration, state.resumed_from)
            if state.resumed_from.parent.samefile(save_dir):
                state.save_rest(state.resumed_from)
        while progress.iteration < iters and not stops:
            group = [next(batches) for _ in range(options.accumulate)]
            log.batch_read()
            losses, gradients = step(group, progress.iteration + 1)
            rate = state.optimizer.get_lr()
            _advance_scheduler(state.optimizer, sum(losses))
            sync_batch_norm_buffers(state.network)
            progress.iteration += 1
            log.step(progress.iteration, order, losses, rate, gradients)
            if state.ema is not None:
                state.ema.update(state.network, progress.iteration)

            is_due = progress.iteration % options.save_interval == 0 or progress.iteration == iters
            stops = profiler.step()
            if is_due and parts.val_data is not None:
                stops = evaluate(interruption) or stops
            if is_due or stops or max_across_processes(interruption.number):
                _save(state, save_dir, options.keep_checkpoint_max)
                _stop_if(interruption, progress.iteration, save_dir / f"iter_{progress.iteration}")
    _report(state, save_dir)
    return state


def _samples(parts: Parts, seed: int, repeats: int) -> SeededSamples:
    weights = parts.task.sample_weights(parts.train_data)
    return SeededSamples(parts.train_data, seed, repeats, weights)


def _begin(parts: Parts, options: TrainOptions, precision: Precision, batch_size: int) -> TrainingState:
    """Return the state of a new run, or of the checkpoint that the options name."""
    save_dir = pathlib.Path(options.save_dir)
    seed = gather_objects(secrets.randbits(32))[0] if options.seed is None else options.seed
    numbers = (batch_size, options.accumulate, len(parts.train_data), options.repeats)
    depends_on = conditions(*numbers, options.precision, parts.task.config.get("sampler"))
    ema = ExponentialMovingAverage(parts.network) if options.use_ema else None
    network, optimizer = precision.decorate(parts.network, parts.optimizer)
    state = TrainingState(network, optimizer, precision.scaler, ema, Progress(seed=seed, conditions=depends_on))
    state.weights_format = options.weights_format
    if options.resume_model == "auto":
        state.restore_newest(save_dir)
    elif options.resume_model is not None:
        folder = pathlib.Path(options.resume_model)
        state.restore(folder, checkpoints.iteration_of(folder))
    if state.resumed_from is not None and not state.resumed_from.parent.samefile(save_dir):
        state.progress.saved = []  # those of the other folder are not this run's to delete
    if paddle.distributed.get_rank() == 0:
        if options.resume_model != "auto":
            _warn_of_later_checkpoints(save_dir, state.progress.iteration)
        # The run may have been killed before it came to this.
        checkpoints.keep_newest(save_dir, state.progress.saved, options.keep_checkpoint_max)
    return state


def _warn_of_later_checkpoints(save_dir: pathlib.Path, iteration: int) -> None:
    later = [f.name for f in checkpoints.checkpoints(save_dir) if checkpoints.iteration_of(f) > iteration]
    if later:
        _log.warning(
            f"{save_dir} already holds {', '.join(later)} of another run, from which --resume_model auto would go on; "
            "remove them or give another --save_dir"
        )


@contextlib.contextmanager
def _batches(samples: SeededSamples, order: SampleOrder, options: TrainOptions, task: Task) -> Iterator[Iterator[Any]]:
    """Yield an endless iterator of batches, and end the processes behind it."""
    loader = Loader(samples, task.collate, batch_sampler=order, num_workers=options.num_workers)
    batches = iter(loader)
    try:
        yield batches
    finally:
        batches.close()


class _Step:
    """Runs one iteration: forward and backward passes of its batches, and the optimizer.

    Args:
        task: Knows the losses.
        state: Network, optimizer and scaler.
        precision: In which the passes run.
        to_static: Compile the network's Python code into a graph first.
    """

    def __init__(self, task: Task, state: TrainingState, precision: Precision, to_static: bool) -> None:
        self.task, self.precision, self.network, self.optimizer = task, precision, state.network, state.optimizer
        self.parallel, self.resumed_from = None, state.resumed_from
        if paddle.distributed.get_world_size() > 1:
            self.parallel = paddle.DataParallel(self.network)
        if to_static:
            paddle.jit.to_static(self.network)  # changes its forward in place
            _log.info("Successfully applied @to_static")
        self.check = FiniteCheck(self.network, may_skip=precision.scaler is not None)

    def __call__(self, group: Sequence[Any], iteration: int) -> tuple[list[float], float]:
        """Train on the batches of an iteration; return the mean of their losses and the norm of the gradients.

        Raises:
            UserError: Losses, gradients or weights are not finite; such weights are not saved.
        """
        totals: list[float] = []
        for number, batch in enumerate(group, start=1):
            last = number == len(group)
            with contextlib.nullcontext() if last or self.parallel is None else self.parallel.no_sync():
                losses = self._pass(batch, len(group), iteration)
            totals = [a + b for a, b in zip(totals, losses, strict=True)] if totals else losses
        self.precision.unscale(self.optimizer)
        gradients = self.check.gradients(iteration)
        try:
            self.precision.step(self.optimizer)
        except AssertionError as error:  # Paddle looks for a parameter's state when it first updates the parameter
            if self.resumed_from is None:
                raise
            raise UserError(
                f"{self.resumed_from / checkpoints.OPTIMIZER} is not of the config's optimizer and network: {error}"
            ) from error
        self.check.weights(iteration)
        self.network.clear_gradients()
        return [total / len(group) for total in totals], gradients

    def _pass(self, batch: Any, batches: int, iteration: int) -> list[float]:
        """Run forward and backward pass of one batch, and return its losses."""
        with self.precision.autocast(), self.check.forward(batch["img"], iteration):
            outputs = (self.parallel or self.network)(batch["img"])
            losses = self.task.losses(outputs, batch)
            loss = sum(losses)
        values = [float(value) for value in losses]
        self.check.loss(sum(values), iteration)
        self.precision.backward(loss if batches == 1 else loss / batches)
        return values


def _advance_scheduler(optimizer: paddle.optimizer.Optimizer, loss: float) -> None:
    scheduler = optimizer._learning_rate
    if isinstance(scheduler, paddle.optimizer.lr.ReduceOnPlateau):
        scheduler.step(loss)
    elif isinstance(scheduler, paddle.optimizer.lr.LRScheduler):
        scheduler.step()


class _Evaluation:
    """Scores the networks of a run and keeps the best of each.

    Args:
        parts: Task and validation data.
        state: The networks, and the best scores so far.
        options: Where the best models go, and when to stop early.
        precision: In which the networks run.
        log: Gets the scores.
    """

    def __init__(
        self, parts: Parts, state: TrainingState, options: TrainOptions, precision: Precision, log: RunLog
    ) -> None:
        self.parts, self.state, self.options, self.precision, self.log = parts, state, options, precision, log
        self.save_dir = pathlib.Path(options.save_dir)

    def __call__(self, interruption: Interruption) -> bool:
        """Score the networks; return whether the run ends here because its scores no longer grow."""
        progress, found = self.state.progress, {}
        networks = {"model": self.state.network}
        if self.state.ema is not None:
            networks["ema_model"] = self.state.ema.network

        def score_networks() -> None:
            workers = min(self.options.num_workers, 1)
            with self.precision.autocast():
                for name, network in networks.items():
                    found[name] = self.parts.task.evaluate(network, self.parts.val_data, workers)

        if paddle.distributed.get_world_size() > 1:
            score_networks()  # to the end, since the other processes take part
            progress.owes_evaluation = False
        else:
            progress.owes_evaluation = not interruption.attempt(score_networks)
        self.state.network.train()
        if progress.owes_evaluation:
            return False
        for name, network in networks.items():
            scores = found[name]
            progress.history.append({"iter": progress.iteration, "model": name, "scores": scores.values})
            self._keep_best(name, network, scores)  # before the log, so that it never has a better score than the best
            self.log.evaluation(progress.iteration, name, scores)
            best, iteration = progress.best.get(name, (math.nan, 0))
            _log.info(
                f"[EVAL] The {'model' if name == 'model' else 'EMA model'} with the best validation {scores.key} "
                f"({best:.4f}) was saved at {_shown(iteration)}."
            )
        if not _stops_early(progress, self.options.early_stop_intervals):
            return False
        _log.info(f"stopping early: {progress.below_best} evaluations scored below the best")
        return True

    def _keep_best(self, name: str, network: paddle.nn.Layer, scores: Scores) -> None:
        progress = self.state.progress
        folder = self.save_dir / ("best_model" if name == "model" else "ema_best_model")
        file = f"{name}.{self.options.weights_format}"
        if name in self.state.unchecked_best:
            self.state.unchecked_best.discard(name)
            self._compare_with_disk(name, network, folder / file, scores.key)
        best, iteration = progress.best.get(name, (-math.inf, 0))
        if scores.best > best:
            progress.best[name] = (scores.best, progress.iteration)
            if paddle.distributed.get_rank() == 0:
                checkpoints.save_best(network, folder, file, scores.values, progress.iteration)
        if name == "model":
            # After a resume, the best model may be the one of the evaluation that is repeated here.
            if scores.best > best or iteration == progress.iteration:
                progress.below_best = 0
            elif scores.best < best:
                progress.below_best += 1

    def _compare_with_disk(self, name: str, network: paddle.nn.Layer, file: pathlib.Path, key: str) -> None:
        """Correct the best score of a checkpoint that the run has resumed from.

        A kill may have struck between the best model and the next checkpoint, and a run that resumes from another
        folder has no best model yet.
        """
        weights = weights_file(file.parent, name)
        # The first process reads, before it writes a new one.
        weights, on_disk = gather_objects((weights, checkpoints.read_best(file, key)))[0]
        if weights is not None and on_disk is None:
            on_disk = self._score_again(network, weights)
        best = self.state.progress.best
        if weights is None:
            best.pop(name, None)
        elif on_disk is not None and on_disk[0] > best.get(name, (-math.inf, 0))[0]:
            best[name] = on_disk

    def _score_again(self, network: paddle.nn.Layer, file: pathlib.Path) -> tuple[float, int] | None:
        """Score a best model whose score is lost; return it and the iteration 0, or None for damaged weights."""
        _log.warning(f"{file} has no score beside it and is scored again")
        current = {key: value.clone() for key, value in network.state_dict().items()}
        try:
            load(network, file)
            with self.precision.autocast():
                scores = self.parts.task.evaluate(network, self.parts.val_data, min(self.options.num_workers, 1))
            return scores.best, 0
        except UserError as error:
            _log.warning(f"{file} is no model of this run, and its place is taken: {error}")
            return None
        finally:
            network.set_state_dict(current)
            self.state.network.train()


def _stops_early(progress: Progress, limit: int | None) -> bool:
    return limit is not None and progress.below_best >= limit


def _save(state: TrainingState, save_dir: pathlib.Path, keep: int) -> None:
    progress = state.progress
    progress.saved = [n for n in progress.saved[-keep:] if n != progress.iteration] + [progress.iteration]
    state.save(save_dir / f"iter_{progress.iteration}")
    if paddle.distributed.get_rank() == 0:
        checkpoints.keep_newest(save_dir, progress.saved, keep)


def _is_finished(state: TrainingState, iters: int, early_stop_intervals: int | None) -> bool:
    """Tell whether a resumed run has nothing left to do, and log it."""
    progress = state.progress
    if progress.owes_evaluation:
        return False
    if progress.iteration >= iters:
        done = f"{state.resumed_from} has {progress.iteration} of {iters} iterations"
        _log.info(f"{done}: nothing is left to train (--iters sets the number)")
        return True
    if _stops_early(progress, early_stop_intervals):
        _log.info(f"{state.resumed_from} stopped early: nothing is left to train (see --early_stop_intervals)")
        return True
    return False


def _stop_if(interruption: Interruption, iteration: int, checkpoint: pathlib.Path) -> None:
    """End the run where a signal has arrived in any process."""
    if signal := max_across_processes(interruption.number):
        raise Interrupted(signal, iteration, str(checkpoint))


def _report(state: TrainingState, save_dir: pathlib.Path) -> None:
    """Log every evaluation of the run and where its best model is."""
    if not state.progress.history:
        return
    _log.info("Scores of this run:\n" + table(state.progress.history))
    if "model" in state.progress.best:
        score, iteration = state.progress.best["model"]
        _log.info(f"The best model, of {_shown(iteration)} with {score:.4f}, is in {save_dir / 'best_model'}")


def _shown(iteration: int) -> str:
    """Name the iteration of a best model; 0 stands for that of one whose score was lost, which is not known."""
    return f"iter {iteration}" if iteration else "an earlier iter"
