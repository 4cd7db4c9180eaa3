"""Checkpoints: strict loading, and saving that leaves a whole file or none."""

import os
import pathlib
from collections.abc import Iterable
from fnmatch import fnmatch
from typing import TYPE_CHECKING

import numpy as np

from paddle_rt.errors import UserError, nearest
from paddle_rt.files import whole_file

if TYPE_CHECKING:
    from paddle import nn

_LISTED = 3  # names that a message spells out before it goes on to count


def atomic_save(obj: object, path: str | os.PathLike) -> None:
    """Save a Paddle object so that `path` is either whole or as it was before.

    Args:
        obj: What `paddle.save` takes: a state dict of a layer or an optimizer.
        path: The file, whose folder is made.

    Raises:
        OSError: The disk is full or the folder cannot be written; no temporary file stays.
    """
    import paddle

    with whole_file(path) as temporary:
        paddle.save(obj, str(temporary))


def read_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read parameters and buffers by name.

    Args:
        path: A `.pdparams` file, or a folder that holds `model.pdparams` as training writes them.

    Returns:
        Name to array, in the file's order.

    Raises:
        UserError: Nothing is there, or it is not a Paddle state dict.
    """
    file = pathlib.Path(path)
    if file.is_dir():
        file = file / "model.pdparams"
    if not file.is_file():
        raise UserError(f"no checkpoint at {file}; expected a .pdparams file or a folder that holds model.pdparams")
    state = read_saved(file)
    if not isinstance(state, dict) or not state:
        raise UserError(f"{file} holds {type(state).__name__}, expected a state dict of names and arrays")
    if not all(isinstance(name, str) for name in state):
        raise UserError(f"{file} is no model's state dict: its entries have no names")
    wrong = [n for n, value in state.items() if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub"]
    if wrong:
        raise UserError(f"{file} is no model's state dict: {_few(wrong)} hold no array; is it an optimizer's file?")
    return state


def read_saved(file: pathlib.Path) -> object:
    """Read what `paddle.save` wrote to a file, with arrays in place of tensors.

    Raises:
        UserError: It is damaged or something else.
    """
    import paddle

    try:
        with open(file, "rb"):
            return paddle.load(str(file), return_numpy=True)
    except OSError:
        raise
    except Exception as error:  # unpickling a damaged file raises nearly anything
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{file} ({file.stat().st_size} bytes) is not a whole Paddle checkpoint; save it again, or convert it if "
            f"it comes from another framework ({type(error).__name__}: {reason})"
        ) from error


def load(
    model: "nn.Layer",
    source: str | os.PathLike | dict[str, np.ndarray],
    may_miss: Iterable[str] = (),
    may_skip: Iterable[str] = (),
) -> None:
    """Load every parameter and buffer of `model`, or raise without changing it.

    Args:
        model: A paddle.nn.Layer.
        source: A path for `read_state_dict`, or what it returns.
        may_miss: Patterns (fnmatch) of the model's names that the file need not bring in the right shape.
        may_skip: Patterns of names in the file that the model need not have.

    Raises:
        UserError: Names are missing, left over, of another shape, or hold what is no finite number; the message counts
            and names them.
    """
    where, state = ("the state dict", source) if isinstance(source, dict) else (source, read_state_dict(source))
    own = model.state_dict()
    matching = {name for name in own if name in state and list(state[name].shape) == list(own[name].shape)}
    missing = [n for n in own if n not in state and not _matches(n, may_miss)]
    extra = [n for n in state if n not in own and not _matches(n, may_skip)]
    misshapen = [n for n in own if n in state and n not in matching and not _matches(n, may_miss)]
    problems = []
    if misshapen:
        name = misshapen[0]
        got, want = list(state[name].shape), list(own[name].shape)
        problems.append(f"{len(misshapen)} of another shape ({name}: file {got}, model {want})")
    if missing:
        problems.append(f"{len(missing)} missing ({_few(missing)})")
    if extra:
        near = nearest(extra[0], missing or own)
        problems.append(f"{len(extra)} unknown ({_few(extra)}{f'; the first looks like {near}' if near else ''})")
    kinds = [n for n in sorted(matching) if (state[n].dtype.kind == "f") != (own[n].numpy().dtype.kind == "f")]
    if kinds:
        found = state[kinds[0]].dtype
        hint = ", which may be bfloat16; save the checkpoint as float32" if found == np.uint16 else ""
        problems.append(f"{len(kinds)} of another type ({kinds[0]}: {found}{hint})")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        values = {name: state[name].astype(own[name].numpy().dtype) for name in matching}
    broken = [n for n in sorted(matching) if not np.isfinite(values[n]).all()]
    if broken:
        problems.append(f"{len(broken)} with numbers that are not finite ({_few(broken)})")
    if problems:
        raise UserError(f"{where} does not fit {type(model).__name__}: {'; '.join(problems)}")
    for name in matching:
        own[name].set_value(values[name])


def load_pretrained(
    model: "nn.Layer", source: str, new_head: Iterable[str], optional: Iterable[str] = (), trunk: str = ""
) -> None:
    """Start a model from weights that were trained for something else.

    The trunk must be there in full. The head may be missing or shaped for other classes and is then left as it was
    initialised; names that only the file has are left out.

    Args:
        model: A paddle.nn.Layer.
        source: A file, a folder, or an http(s) address of PaddleSeg's model zoo.
        new_head: Patterns of the names that belong to the task.
        optional: Patterns of names in the trunk that not every variant has.
        trunk: What the names of the trunk begin with. A file in which no name does holds the trunk alone.

    Raises:
        UserError: The address cannot be reached, the file cannot be read, or the trunk does not fit.
    """
    if "://" in source:
        from paddle_rt.paddleseg.pretrained import download

        source = download(source)
    state = read_state_dict(source)
    if not any(name.startswith(trunk) for name in state):
        state = {trunk + name: value for name, value in state.items()}
    load(model, state, may_miss=[*new_head, *optional], may_skip=["*"])


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _few(names: list[str]) -> str:
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + rest
