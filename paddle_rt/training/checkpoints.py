"""The folders of a run: checkpoints that appear whole or not at all, the best model, and which one to resume from.

    save_dir/iter_N/        model.pdparams, model.pdopt, train_state.safetensors, with EMA also ema_model.pdparams
    save_dir/best_model/    model.pdparams and model.pdstates, its scores
    save_dir/ema_best_model/

A folder is written under another name and takes its own with one rename. Where a folder of that name is there, it steps
aside first; `clean` brings it back if the run was killed between the two renames.
"""

import logging
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import paddle

from paddle_rt.checkpoint import read_saved
from paddle_rt.errors import UserError
from paddle_rt.training.distributed import largest_of_all

_log = logging.getLogger(__name__)

PARAMETERS, OPTIMIZER, STATE = "model.pdparams", "model.pdopt", "train_state.safetensors"
EMA_PARAMETERS = "ema_model.pdparams"
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)\.part")
_ASIDE = re.compile(r"\.(?P<name>.+)\.old")


@contextmanager
def whole_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield a temporary folder to write to, which becomes `folder` when the block ends without an error.

    Raises:
        OSError: The disk is full or may not be written; what was in `folder` before is still there.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    aside = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.iterdir():
            _flush(file)
        _flush(temporary)
        if folder.exists():
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(folder, aside)
        os.rename(temporary, folder)
        _flush(folder.parent)
        shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        if error.filename is None:  # a full disk, which names no file
            error.filename = str(folder)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _flush(path: pathlib.Path) -> None:
    """Have the operating system write a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clean(save_dir: pathlib.Path) -> None:
    """Remove what processes that are gone have left half-written, and bring back folders that had stepped aside.

    Of a launch, the first process does it, and the others wait for it.
    """
    for path in sorted(save_dir.glob(".*")) if paddle.distributed.get_rank() == 0 else ():
        if (found := _ASIDE.fullmatch(path.name)) is not None:
            target = path.with_name(found["name"])
            if target.exists():
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.rename(path, target)
        elif (found := _TEMPORARY.fullmatch(path.name)) is not None and not _is_running(int(found["process"])):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    largest_of_all(0)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def iteration_of(folder: pathlib.Path) -> int:
    """Return the iteration that the name of a checkpoint's folder ends in.

    Raises:
        UserError: The folder is no checkpoint that training can resume from.
    """
    missing = [name for name in (PARAMETERS, OPTIMIZER) if not (folder / name).is_file()]
    found = re.search(r"_(\d+)$", folder.absolute().name)
    if missing or not found:
        reason = f"{missing[0]} is missing" if missing else "its name does not end in _<iteration>"
        raise UserError(
            f"cannot resume from {folder}: {reason}; give a folder like output/iter_1000 that training wrote "
            "(best_model has no optimizer state)"
        )
    return int(found[1])


def checkpoints(save_dir: pathlib.Path) -> list[pathlib.Path]:
    """Return the checkpoints of a run that can be resumed from, the newest first."""
    whole = [
        folder
        for folder in save_dir.glob("iter_*")
        if re.fullmatch(r"iter_\d+", folder.name) and all((folder / n).is_file() for n in (PARAMETERS, OPTIMIZER))
    ]
    return sorted(whole, key=iteration_of, reverse=True)


def keep_newest(save_dir: pathlib.Path, saved: list[int], number: int) -> list[int]:
    """Delete the oldest of the checkpoints that this run has saved, and return the iterations of the others."""
    if number == 0 or len(saved) <= number:
        return saved
    for iteration in saved[:-number]:
        shutil.rmtree(save_dir / f"iter_{iteration}", ignore_errors=True)
    return saved[-number:]


def save_best(
    network: paddle.nn.Layer, folder: pathlib.Path, file: str, scores: dict[str, float], iteration: int
) -> None:
    """Save a network and its scores as the best one so far.

    Args:
        network: The network.
        folder: save_dir/best_model or save_dir/ema_best_model.
        file: Name of its weights' file, "model.pdparams" or "ema_model.pdparams".
        scores: Its scores by name.
        iteration: When it had them.
    """
    with whole_folder(folder) as temporary:
        paddle.save(network.state_dict(), str(temporary / file))
        paddle.save({**scores, "iter": iteration}, str((temporary / file).with_suffix(".pdstates")))


def best_before(folder: pathlib.Path, file: str, key: str) -> tuple[float, int] | None:
    """Return the score and the iteration of the best model that a folder holds, or None.

    Args:
        folder: The folder of the best model.
        file: The name of its file of parameters.
        key: The name of the score.
    """
    states = (folder / file).with_suffix(".pdstates")
    if not (folder / file).is_file() or not states.is_file():
        return None
    try:
        values = read_saved(states)
        return float(values[key]), int(values["iter"])
    except (UserError, KeyError, TypeError, ValueError) as error:
        _log.warning(f"{states} cannot be read, so the best model starts anew: {error}")
        return None
