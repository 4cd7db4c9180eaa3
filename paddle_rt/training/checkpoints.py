"""The folders of a run: checkpoints that appear whole or not at all, the best model, and which one to resume from.

    save_dir/iter_N/          model.pdparams, model.pdopt, train_state.safetensors, with EMA also ema_model.pdparams
    save_dir/best_model/      model.pdparams and model.pdstates, its scores
    save_dir/ema_best_model/  the same of the moving average

A folder is written under a hidden name. Then it takes its own name, or exchanges names with the folder that has it, in
one step. Where the file system cannot exchange names, the old folder is first moved aside, and `clean` brings it back
if the run was killed in between.
"""

import ctypes
import errno
import logging
import math
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import paddle

from paddle_rt.checkpoint import read_saved, save_weights, weights_file
from paddle_rt.errors import UserError
from paddle_rt.files import errors_name, flush
from paddle_rt.run_logs import METRICS

_log = logging.getLogger(__name__)

OPTIMIZER, STATE = "model.pdopt", "train_state.safetensors"
FOLDER_NAME = r"iter_\d+|best_model|ema_best_model"
_HIDDEN = re.compile(rf"\.(?P<name>{FOLDER_NAME}|{re.escape(METRICS)})\.(\d+\.part|old)")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of linux/fcntl.h and linux/fs.h


@contextmanager
def whole_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield a temporary folder to write to, which becomes `folder` when the block ends without an error.

    Raises:
        OSError: The disk is full or may not be written; what was in `folder` before is still there.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    temporary = _temporary_name(folder)
    _remove(temporary)
    temporary.mkdir(parents=True)
    try:
        with errors_name(folder):
            yield temporary
            for path in (*temporary.iterdir(), temporary):
                flush(path)
            _put_in_place(temporary, folder)
            flush(folder.parent)
    finally:
        _remove(temporary)  # which by now is the folder that was there before


def _temporary_name(folder: pathlib.Path) -> pathlib.Path:
    return folder.with_name(f".{folder.name}.{os.getpid()}.part")


def _put_in_place(temporary: pathlib.Path, folder: pathlib.Path) -> None:
    if not os.path.lexists(folder):
        os.rename(temporary, folder)
    elif not _exchange(temporary, folder):
        aside = folder.with_name(f".{folder.name}.old")
        _remove(aside)
        os.rename(folder, aside)
        try:
            os.rename(temporary, folder)
        except OSError:
            os.rename(aside, folder)
            raise
        _remove(aside)


def _exchange(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Exchange the names of two paths in one step; return False where the system or the file system cannot."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except AttributeError:  # not Linux
        return False
    return rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0


def _remove(path: pathlib.Path) -> None:
    """Remove a folder or a file as far as possible."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def clean(save_dir: pathlib.Path) -> None:
    """Remove what a run that was killed has left half-written, and bring back a folder that was moved aside.

    The caller holds the lock on the folder, so that no other run is writing these files.
    """
    for path in save_dir.glob(".*"):
        if (found := _HIDDEN.fullmatch(path.name)) is None:
            continue
        target = path.with_name(found["name"])
        if path.name.endswith(".old") and not os.path.lexists(target):
            os.rename(path, target)
        else:
            _remove(path)
    for path in save_dir.glob("*/.*.part"):  # of earlier releases
        if re.fullmatch(FOLDER_NAME, path.parent.name):
            _remove(path)


def iteration_of(folder: pathlib.Path) -> int:
    """Return the iteration that the name of a checkpoint's folder ends in.

    Raises:
        UserError: The folder is no checkpoint that training can resume from.
    """
    missing = _missing(folder)
    found = re.search(r"_(\d+)$", folder.absolute().name)
    if missing or not found:
        reason = f"{missing[0]} is missing" if missing else "its name does not end in _<iteration>"
        raise UserError(
            f"cannot resume from {folder}: {reason}; give a folder like output/iter_1000 that training wrote "
            "(best_model has no optimizer state)"
        )
    return int(found[1])


def _missing(folder: pathlib.Path) -> list[str]:
    """Return what a folder lacks of a checkpoint that training can resume from."""
    weights = [] if weights_file(folder) else ["model.pdparams"]
    return weights + ([] if (folder / OPTIMIZER).is_file() else [OPTIMIZER])


def checkpoints(save_dir: pathlib.Path) -> list[pathlib.Path]:
    """Return the checkpoints of a run that can be resumed from, the newest first."""
    whole = [
        folder for folder in save_dir.glob("iter_*") if re.fullmatch(r"iter_\d+", folder.name) and not _missing(folder)
    ]
    return sorted(whole, key=iteration_of, reverse=True)


def keep_newest(save_dir: pathlib.Path, saved: list[int], number: int) -> None:
    """Delete all but the newest of the checkpoints that this run has saved.

    Args:
        save_dir: The run's folder.
        saved: Their iterations.
        number: How many to keep; 0 keeps all.
    """
    for iteration in saved[:-number] if number else ():
        folder = save_dir / f"iter_{iteration}"
        if folder.exists():
            hidden = _temporary_name(folder)
            os.rename(folder, hidden)  # so that a kill leaves no half of a checkpoint
            _remove(hidden)


def save_best(
    network: paddle.nn.Layer, folder: pathlib.Path, file: str, scores: dict[str, float], iteration: int
) -> None:
    """Save a network and its scores as the best one so far.

    Args:
        network: The network.
        folder: save_dir/best_model or save_dir/ema_best_model.
        file: Name of its weights' file, such as "model.pdparams"; the suffix decides on the format.
        scores: Its scores by name.
        iteration: When it had them.
    """
    with whole_folder(folder) as temporary:
        save_weights(network.state_dict(), temporary / file)
        paddle.save({**scores, "iter": iteration}, str((temporary / file).with_suffix(".pdstates")))


def read_best(file: pathlib.Path, key: str) -> tuple[float, int] | None:
    """Return the score and the iteration of a best model, or None where they are not known.

    Args:
        file: The best model's weights.
        key: The name of the score.
    """
    states = file.with_suffix(".pdstates")
    if not states.is_file():
        return None
    try:
        values = read_saved(states)
        score, iteration = float(values[key]), int(values["iter"])
        if not math.isfinite(score):
            raise ValueError(f"{key} is {score}")
        return score, iteration
    except (UserError, KeyError, TypeError, ValueError, OverflowError) as error:
        _log.warning(f"{states} cannot be read, so the score of the best model is not known: {error}")
        return None
