"""Everything that a run needs to go on as if it had never stopped, saved and restored whole."""

import dataclasses
import json
import logging
import os
import pathlib
import random
from typing import Any

import numpy as np
import paddle
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from paddle_rt.checkpoint import MAX_BYTES, load, read_saved, save_weights, weights_file
from paddle_rt.errors import UserError, shown
from paddle_rt.files import check_plain_file, whole_file
from paddle_rt.kinds import MAPPING, SWITCH, Kind, listed, number, whole
from paddle_rt.training.checkpoints import (
    OPTIMIZER,
    STATE,
    checkpoints,
    iteration_of,
    whole_folder,
)
from paddle_rt.training.distributed import gather_objects
from paddle_rt.training.ema import ExponentialMovingAverage
from paddle_rt.training.order import GENERATORS

_log = logging.getLogger(__name__)
_VERSION = 1
_COUNT = whole(0, 10**12)
_NUMBER = Kind("a number", lambda value: isinstance(value, int | float))  # a loss of fp16 may be infinite
# What the fields of Progress hold in a file.
_FIELDS = {
    "iteration": _COUNT,
    "owes_evaluation": SWITCH,
    "best": Kind(
        "scores and their iterations",
        lambda value: (
            isinstance(value, dict)
            and all(
                isinstance(pair, list) and len(pair) == 2 and all(map(_NUMBER.accepts, pair)) for pair in value.values()
            )
        ),
    ),
    "losses": listed(listed(_NUMBER)),
    "below_best": _COUNT,
    "history": listed(
        Kind(
            "an evaluation",
            lambda row: (
                isinstance(row, dict)
                and row.keys() == {"iter", "model", "scores"}
                and isinstance(row["scores"], dict)
                and all(map(_NUMBER.accepts, row["scores"].values()))
            ),
        )
    ),
    "saved": listed(_COUNT),
    "seed": whole(0, 2**32 - 1),
    "conditions": MAPPING,
}


@dataclasses.dataclass
class Progress:
    """The numbers of a run; the first group changes, the second says what an exact resume depends on.

    Args:
        iteration: Iterations that are done.
        owes_evaluation: Whether a signal kept the last iteration from its evaluation.
        best: By the model's name ("model", "ema_model") the best score so far and its iteration.
        losses: The losses of the iterations since the last log line.
        below_best: Evaluations since the best one that scored less.
        history: Every evaluation: iteration, and scores by the model's name.
        saved: Iterations of the checkpoints that this run has saved; those deleted at the last save are still listed.
        seed: Seed of the augmentation.
        conditions: What the numbers of a run depend on beside its state: threads, code path, batch size and so on.
    """

    iteration: int = 0
    owes_evaluation: bool = False
    best: dict[str, tuple[float, int]] = dataclasses.field(default_factory=dict)
    losses: list[list[float]] = dataclasses.field(default_factory=list)
    below_best: int = 0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    saved: list[int] = dataclasses.field(default_factory=list)
    seed: int = 0
    conditions: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class TrainingState:
    """All that changes while a network is trained.

    Args:
        network: The network, without the wrapper of data-parallel training.
        optimizer: Its optimizer, which holds the scheduler of the learning rate.
        scaler: The gradient scaler of fp16, or None.
        ema: The moving average of the weights, or None.
        progress: The numbers.
        resumed_from: The checkpoint that the run resumed from, or None.
        weights_format: The suffix of the files of weights.
        unchecked_best: Names of the networks whose best model on the disk may be newer than this state.
    """

    network: paddle.nn.Layer
    optimizer: paddle.optimizer.Optimizer
    scaler: paddle.amp.GradScaler | None
    ema: ExponentialMovingAverage | None
    progress: Progress
    resumed_from: pathlib.Path | None = None
    weights_format: str = "pdparams"
    unchecked_best: set[str] = dataclasses.field(default_factory=set)

    def save(self, folder: pathlib.Path) -> None:
        """Write a checkpoint; every process of the launch has to call it, the first one writes.

        Raises:
            OSError: The disk is full or may not be written; earlier checkpoints stay as they are.
        """
        rest = self._pack_rest()
        if paddle.distributed.get_rank() > 0:
            return
        with whole_folder(folder) as temporary:
            save_weights(self.network.state_dict(), temporary / f"model.{self.weights_format}")
            paddle.save(self.optimizer.state_dict(), str(temporary / OPTIMIZER))
            if self.ema is not None:
                save_weights(self.ema.network.state_dict(), temporary / f"ema_model.{self.weights_format}")
            (temporary / STATE).write_bytes(rest)

    def save_rest(self, folder: pathlib.Path) -> None:
        """Write again what a checkpoint holds beside weights and optimizer, which have not changed since.

        Before the first step after a resume, Paddle's optimizers do not give out their state; so `save` cannot be used.
        """
        rest = self._pack_rest()
        if paddle.distributed.get_rank() == 0:
            with whole_file(folder / STATE) as temporary:
                temporary.write_bytes(rest)

    def _pack_rest(self) -> bytes:
        arrays, numbers = {}, []
        for rank, (process_arrays, process_numbers) in enumerate(gather_objects(_read_generators())):
            arrays.update({f"{name}.{rank}": array for name, array in process_arrays.items()})
            numbers.append(process_numbers)
        scaler = None if self.scaler is None else _plain(self.scaler.state_dict())
        content = {"version": _VERSION, **vars(self.progress), "scaler": scaler, "generators": numbers}
        return safetensors.numpy.save(arrays, metadata={"paddle_rt": json.dumps(content)})

    def restore(self, folder: pathlib.Path, iteration: int) -> None:
        """Take over a checkpoint, and log what it does not hold.

        Args:
            folder: A checkpoint's folder, of this project or of PaddleSeg.
            iteration: Iterations that it has done.

        Raises:
            UserError: The checkpoint is damaged, or of another network or optimizer.
        """
        _log.info(f"Resume from {folder}")
        load(self.network, folder)
        self._restore_optimizer(folder / OPTIMIZER)
        missing = self._restore_ema(weights_file(folder, "ema_model"))
        self.progress.iteration = iteration
        if (folder / STATE).exists():
            missing += self._restore_rest(folder / STATE)
        else:
            missing.append(f"{STATE}: sample order continues, random numbers start anew")
        self.resumed_from, self.unchecked_best = folder, {"model", "ema_model"}
        if missing:
            _log.warning(f"{folder} does not hold everything that an exact resume needs: {'; '.join(missing)}")

    def restore_newest(self, save_dir: pathlib.Path) -> None:
        """Take over the newest checkpoint of a run that can be read, or stay as it is where there is none.

        Raises:
            UserError: There are checkpoints, but none can be read.
        """
        *newer, oldest = checkpoints(save_dir) or [None]
        for folder in newer:
            try:
                return self.restore(folder, iteration_of(folder))
            except UserError as error:
                _log.warning(f"{folder} cannot be resumed from, trying the one before: {error}")
        if oldest is not None:
            return self.restore(oldest, iteration_of(oldest))
        _log.info(f"{save_dir} has no checkpoint to resume from: training starts anew")

    def _restore_optimizer(self, file: pathlib.Path) -> None:
        states = read_saved(file)
        if not isinstance(states, dict) or "LR_Scheduler" not in states:
            raise UserError(f"{file} holds no optimizer's state; give a folder iter_N that training wrote")
        _check_optimizer_state(self.optimizer, states, file)
        self.optimizer.set_state_dict(states)

    def _restore_ema(self, file: pathlib.Path | None) -> list[str]:
        if self.ema is None:
            return []
        if file is not None:
            load(self.ema.network, file)
            return []
        self.ema.network.set_state_dict(self.network.state_dict())
        return ["ema_model.pdparams: the moving average starts from the weights"]

    def _restore_rest(self, file: pathlib.Path) -> list[str]:
        arrays, content = _read_rest(file)
        now, rank = self.progress.conditions, paddle.distributed.get_rank()
        try:
            progress = _as_progress(content)
            if rank < len(content["generators"]):
                own = {name.rpartition(".")[0]: array for name, array in arrays.items() if name.endswith(f".{rank}")}
                _write_generators(own, content["generators"][rank])
            if self.scaler is not None and content["scaler"]:
                self.scaler.load_state_dict(content["scaler"])
        except (IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
            raise _damaged(file, error) from error
        named, self.progress = self.progress.iteration, dataclasses.replace(progress, conditions=now)
        if progress.iteration != named:
            _log.warning(
                f"{file} is of iteration {progress.iteration}, its folder's name says {named}: the former counts"
            )
        return [
            f"{name} is {value}, was {before}: numbers will differ from those of an unbroken run"
            for name, value in now.items()
            if (before := progress.conditions.get(name)) != value
        ]


def conditions(
    batch_size: int, accumulate: int, samples: int, repeats: int, precision: str, sampler: str | None = None
) -> dict[str, Any]:
    """Return what the numbers of a run depend on beside its state."""
    threads = os.environ.get("OMP_NUM_THREADS") or None
    return {
        "batch_size": batch_size,
        "accumulate": accumulate,
        "samples": samples,
        "repeats": repeats,
        "sampler": sampler,
        "processes": paddle.distributed.get_world_size(),
        "precision": precision,
        "device": paddle.device.get_device().partition(":")[0],
        "threads": int(threads) if threads and threads.isdecimal() else threads,  # "4,2" is for nested loops
        "MKL_DEBUG_CPU_TYPE": os.environ.get("MKL_DEBUG_CPU_TYPE"),
        "paddle": paddle.__version__,
    }


def _check_optimizer_state(optimizer: paddle.optimizer.Optimizer, states: dict, file: pathlib.Path) -> None:
    """Refuse the state of another optimizer or network, before Paddle finds out in the middle of the first step."""
    parameters = {parameter.name: parameter for parameter in _parameters(optimizer)}
    found: dict[str, set[str]] = {}
    for entry, value in states.items():
        if entry in ("LR_Scheduler", "master_weights"):
            continue
        owner = max((name for name in parameters if entry.startswith(f"{name}_")), key=len, default=None)
        shape = list(np.shape(value))
        if owner is None or (np.size(value) > 1 and shape != list(parameters[owner].shape)):
            raise UserError(
                f"{file} is not of the config's optimizer and network: {entry} {shape} belongs to no parameter"
            )
        if np.asarray(value).dtype.kind not in "fiu" or not np.isfinite(value).all():
            raise UserError(f"{file} holds what is no finite number in {entry}; resume from an earlier checkpoint")
        found.setdefault(owner, set()).add(entry[len(owner) + 1 :])
    expected = _accumulators(optimizer)
    for owner, names in found.items():
        if {name.rpartition("_")[0] for name in names} != expected:
            raise UserError(
                f"{file} is not of the config's optimizer {type(optimizer).__name__}: for {owner} it holds "
                f"{', '.join(sorted(names))}, expected {', '.join(sorted(expected)) or 'nothing'}"
            )
    if expected and not found:
        raise UserError(f"{file} holds no state of any parameter, expected {', '.join(sorted(expected))}")
    scheduler = optimizer._learning_rate
    if isinstance(scheduler, paddle.optimizer.lr.LRScheduler):
        _check_scheduler_state(scheduler.state_dict(), states["LR_Scheduler"], file)


def _check_scheduler_state(now: dict[str, Any], found: Any, file: pathlib.Path) -> None:
    if not isinstance(found, dict) or not now.keys() <= found.keys():
        missing = ", ".join(sorted(now.keys() - found.keys())) if isinstance(found, dict) else "everything"
        raise UserError(f"{file} is not of the config's lr_scheduler: of its state, {missing} is missing")
    for name, value in now.items():
        if isinstance(value, dict):
            _check_scheduler_state(value, found[name], file)
        elif found[name] != value and not number().accepts(found[name]):
            raise UserError(f"{file} holds {shown(found[name])} for {name} of the lr_scheduler, expected a number")


def _parameters(optimizer: paddle.optimizer.Optimizer) -> list[paddle.Tensor]:
    groups = optimizer._parameter_list
    flat = [p for group in groups for p in (group["params"] if isinstance(group, dict) else [group])]
    return [parameter for parameter in flat if not parameter.stop_gradient]


def _accumulators(optimizer: paddle.optimizer.Optimizer) -> set[str]:
    """Names of what an optimizer keeps for each parameter."""
    if isinstance(optimizer, paddle.optimizer.Adam | paddle.optimizer.AdamW):
        return {"moment1", "moment2", "beta1_pow_acc", "beta2_pow_acc"}
    return {"velocity"} if isinstance(optimizer, paddle.optimizer.Momentum) else set()


def _read_rest(file: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays and the numbers of a train_state.safetensors."""
    check_plain_file(file, "state of a run", MAX_BYTES)
    try:
        with safe_open(str(file), framework="np") as opened:
            content = json.loads(opened.metadata()["paddle_rt"])
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}
        version = content["version"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise _damaged(file, error) from error
    if version != _VERSION:
        raise UserError(f"{file} has version {version}, expected {_VERSION}; resume with the release that wrote it")
    return arrays, content


def _damaged(file: pathlib.Path, error: Exception) -> UserError:
    return UserError(
        f"{file} is damaged ({type(error).__name__}: {error}); remove it to resume without it, or give an earlier one"
    )


def _as_progress(content: dict[str, Any]) -> Progress:
    """Return the progress that a checkpoint holds.

    Raises:
        KeyError, ValueError: The content is not of the expected kind.
    """
    for key, kind in _FIELDS.items():
        if not kind.accepts(content[key]):
            raise ValueError(f"{key} is {shown(content[key])}")
    progress = Progress(**{key: content[key] for key in _FIELDS})
    progress.best = {name: (float(score), int(iteration)) for name, (score, iteration) in progress.best.items()}
    return progress


def _read_generators() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the states of this process's random generators: arrays, and the numbers beside them."""
    with GENERATORS:
        python, numpy = random.getstate(), np.random.get_state()
    arrays = {"numpy": numpy[1], "python": np.array(python[1], np.uint64)}
    numbers = {"numpy": numpy[2:], "python": [python[0], python[2]], "paddle": []}
    for device, state in enumerate(paddle.get_rng_state()):
        *head, engine = state.__getstate__()
        arrays[f"paddle_{device}"] = np.array(engine, np.uint8)
        numbers["paddle"].append(head)
    return arrays, numbers


def _write_generators(arrays: dict[str, np.ndarray], numbers: dict[str, Any]) -> None:
    version, gauss = numbers["python"]
    if arrays["numpy"].shape != (624,):
        raise ValueError("no state of NumPy's generator")
    with GENERATORS:
        random.setstate((version, tuple(map(int, arrays["python"])), gauss))
        np.random.set_state(("MT19937", arrays["numpy"], *numbers["numpy"]))
    states = []
    for device, now in enumerate(paddle.get_rng_state()[: len(numbers["paddle"])]):
        state = type(now).__new__(type(now))
        state.__setstate__((*numbers["paddle"][device], arrays[f"paddle_{device}"].tolist()))
        if not np.array_equal(state.__getstate__()[-1], arrays[f"paddle_{device}"]):
            raise ValueError("no state of Paddle's generator")
        states.append(state)
    paddle.set_rng_state(states)


def _plain(value: Any) -> Any:
    """Numbers of NumPy and Paddle as those of Python, which JSON takes."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.item() if isinstance(value, np.ndarray | np.generic | paddle.Tensor) else value
