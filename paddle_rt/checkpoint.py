"""Checkpoints: strict loading, and saving that leaves a whole file or none."""

import logging
import os
import pathlib
from collections.abc import Callable, Collection, Iterable, Iterator
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle_rt.downloads import local_weights
from paddle_rt.errors import UserError, nearest
from paddle_rt.files import check_plain_file, errors_name, whole_file
from paddle_rt.formats.paddle_pickle import read_paddle
from paddle_rt.formats.safetensors import is_safetensors, read_safetensors
from paddle_rt.weights import described, find_weights

if TYPE_CHECKING:
    from paddle import nn

State = dict[str, np.ndarray]

WEIGHTS_FORMATS = ("pdparams", "safetensors")  # suffixes of files of weights
MAX_BYTES = 2**35  # 32 GiB, far more than any network for images
_LISTED = 3  # names that a message spells out before it goes on to count

_log = logging.getLogger(__name__)


def save_weights(state: dict, path: str | os.PathLike) -> None:
    """Save a state dict in the format of the file's suffix: .safetensors, or else Paddle's.

    Args:
        state: The state dict of a layer, or names and arrays; for Paddle's format also that of an optimizer.
        path: The file, which is not complete before this returns.

    Raises:
        OSError: The disk is full or the folder cannot be written.
    """
    _write(state, pathlib.Path(path), pathlib.Path(path).suffix)


def atomic_save(state: dict, path: str | os.PathLike) -> None:
    """Save as `save_weights` does, so that `path` is either whole or as it was before.

    Raises:
        OSError: The disk is full or the folder cannot be written; no temporary file stays.
    """
    with whole_file(path) as temporary:
        _write(state, temporary, pathlib.Path(path).suffix)


def _write(state: dict, file: pathlib.Path, suffix: str) -> None:
    if suffix != ".safetensors":
        import paddle

        paddle.save(state, str(file))
        return
    from safetensors.numpy import save

    # `save_file` would raise an error of its own where the disk is full.
    file.write_bytes(save({name: np.asarray(_as_array(value), order="C") for name, value in state.items()}))


def _as_array(value: Any) -> np.ndarray:
    import paddle

    if isinstance(value, paddle.Tensor):
        # NumPy has no bfloat16, and what Paddle gives in its place, uint16, would be read as whole numbers.
        return (value.astype("float32") if value.dtype == paddle.bfloat16 else value).numpy()
    return value


def weights_file(folder: str | os.PathLike, stem: str = "model") -> pathlib.Path | None:
    """Return the file of weights that a folder holds, or None.

    Args:
        folder: The folder.
        stem: The name of the file without its suffix, which is one of WEIGHTS_FORMATS.

    Raises:
        UserError: It holds two.
    """
    candidates = [pathlib.Path(folder) / f"{stem}.{suffix}" for suffix in WEIGHTS_FORMATS]
    found = [file for file in candidates if os.path.lexists(file)]
    if len(found) > 1:
        raise UserError(f"{folder} holds {found[0].name} and {found[1].name}; name the file, or remove one of them")
    return found[0] if found else None


def read_state_dict(path: str | os.PathLike) -> State:
    """Read parameters and buffers by name.

    Args:
        path: A `.pdparams` or `.safetensors` file, a folder that holds model.pdparams or model.safetensors or, like
            ema_best_model, only ema_model of these formats, or the name of weights of the package.

    Returns:
        Name to array, in the file's order. Dictionaries around the state dict, with an epoch or an optimizer beside it,
        are removed as `named_values` does.

    Raises:
        UserError: Nothing is there, or it is not a state dict.
    """
    file = pathlib.Path(find_weights(path))
    if file.is_dir():
        file = weights_file(file) or weights_file(file, "ema_model") or file / "model.pdparams"
    if not os.path.lexists(file) and "\0" not in str(file):
        raise UserError(
            f"no checkpoint at {file}; expected a .pdparams or .safetensors file, or a folder that holds "
            f"model.pdparams or model.safetensors, or one of the trained weights of the package: {described()}"
        )
    state = read_saved(file)
    if isinstance(state, dict) and not any(isinstance(value, np.ndarray) for value in state.values()):
        state = named_values(state, np.ndarray) or state
    if not isinstance(state, dict) or not state:
        raise UserError(f"{file} holds {type(state).__name__}, expected a state dict of names and arrays")
    if not all(isinstance(name, str) for name in state):
        raise UserError(f"{file} is no model's state dict: its entries have no names")
    wrong = [n for n, value in state.items() if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub"]
    if wrong:
        raise UserError(f"{file} is no model's state dict: {_few(wrong)} hold no array; is it an optimizer's file?")
    return state


def read_saved(path: str | os.PathLike) -> object:
    """Read what `paddle.save` or safetensors wrote to a file, with arrays in place of tensors, and run none of it.

    Args:
        path: A .pdparams, .pdopt, .pdstates or .safetensors file; its first bytes decide, whatever its suffix is.

    Raises:
        UserError: It is missing, no regular file, damaged or something else, or a pickle in it asks for more than
            arrays and containers.
    """
    file = check_plain_file(path, "checkpoint", MAX_BYTES)
    with open(file, "rb") as stream, errors_name(file):
        size = os.fstat(stream.fileno()).st_size
        start = stream.read(9)
        stream.seek(0)
        try:
            return (read_safetensors if is_safetensors(start) else read_paddle)(stream, size)
        except OSError:
            raise
        except UserError as error:
            raise UserError(f"{file}: {error}") from error
        except Exception as error:  # a damaged file raises nearly anything
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise UserError(
                f"{file} ({size} bytes) is not a whole Paddle checkpoint; save it again, or convert it if it comes "
                f"from another framework ({reason})"
            ) from error


def named_values(content: Any, kind: type) -> dict[str, Any] | None:
    """Return the dictionary of named arrays or tensors in the content of a file.

    It is the largest one, but no moving average and no optimizer's state beside another one; the choice is logged.

    Args:
        content: What the file holds.
        kind: The class of the arrays or tensors.
    """
    found = dict(_dictionaries(content, kind, "", 4))
    if not found:
        return None
    largest = max(map(len, found.values()))
    rivals = {place: state for place, state in found.items() if len(state) > largest // 4}  # others are of few tensors
    words = ("ema", "optim")
    taken = min(rivals, key=lambda place: (any(word in place.lower() for word in words), -len(rivals[place])))
    if len(rivals) > 1:
        others = ", ".join(repr(place) for place in rivals if place != taken)
        _log.info("The checkpoint holds several state dicts: %r is taken, and not %s", taken, others)
    return found[taken]


def _dictionaries(content: Any, kind: type, place: str, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the dictionaries that hold named values of a kind and nothing else, with the keys that lead to them."""
    if not isinstance(content, dict) or not content:
        return
    if all(isinstance(name, str) and isinstance(value, kind) for name, value in content.items()):
        yield place, content
    elif depth:
        for key, value in content.items():
            if isinstance(key, str):  # an optimizer of PyTorch numbers its parameters
                yield from _dictionaries(value, kind, f"{place}.{key}".lstrip("."), depth - 1)


def shared_prefix(state: State, fits: Callable[[State], bool]) -> str | None:
    """Return what is to be taken off the names for them to fit, or None if no prefix that all share makes them fit.

    Args:
        state: Names and arrays.
        fits: Returns whether names are known.
    """
    taken, bare = "", state
    while bare and not fits(bare):
        prefix = next(iter(bare)).partition(".")[0] + "."
        if not all(name.startswith(prefix) and name != prefix for name in bare):
            return None
        bare = {name.removeprefix(prefix): value for name, value in bare.items()}
        taken += prefix
    return taken


def without_shared_prefix(state: State, fits: Callable[[State], bool]) -> State:
    """Take a prefix that all names share, such as "model.", off the names if they fit then, and log what was taken."""
    taken = shared_prefix(state, fits)
    if not taken:
        return state
    _log.info("All names of the checkpoint begin with %r, which is taken off", taken)
    return {name.removeprefix(taken): value for name, value in state.items()}


def load(
    model: "nn.Layer",
    source: str | os.PathLike | State,
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
    if isinstance(source, dict):
        where, state = "the state dict", source
    else:
        where, state = source, read_state_dict(find_weights(source, type(model).__name__))
    _load(model, where, state, may_miss, may_skip)


def _load(
    model: "nn.Layer", where: object, state: State, may_miss: Iterable[str] = (), may_skip: Iterable[str] = ()
) -> None:
    own = model.state_dict()
    state = without_shared_prefix(state, lambda names: any(name in own for name in names))
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
        hint = _other_task(own, state) if missing and extra and not (misshapen or kinds or broken) else ""
        raise UserError(f"{where} {hint or f'does not fit {type(model).__name__}: ' + '; '.join(problems)}")
    for name in matching:
        own[name].set_value(values[name])


def _other_task(own: Collection[str], state: State) -> str:
    """Return what a checkpoint is that has the trunk of a model and the head of another task; "" if it is not one.

    It is one if each of the two has parts that the other lacks, and the file has most of the model's names. A part is
    what stands before the first dot of a name.
    """
    ours, theirs = (dict.fromkeys(name.partition(".")[0] for name in names) for names in (own, state))
    lacking, unknown = [part for part in ours if part not in theirs], [part for part in theirs if part not in ours]
    if not (lacking and unknown) or sum(name in state for name in own) <= len(own) / 2:
        return ""
    return (
        f"is of a network for another task: the trunk is this model's, but it has {', '.join(unknown)} in place of "
        f"{', '.join(lacking)}; to start from its trunk, give it as model.pretrained"
    )


def load_pretrained(
    model: "nn.Layer", source: str, new_head: Iterable[str], optional: Iterable[str] = (), trunk: str = ""
) -> None:
    """Start a model from weights that were trained for something else.

    The trunk must be there in full. The head may be missing or shaped for other classes and is then left as it was
    initialised; names that only the file has are left out.

    Args:
        model: A paddle.nn.Layer.
        source: A file, a folder, the name of weights of the package, or an https address as `local_weights` takes it.
        new_head: Patterns of the names that belong to the task.
        optional: Patterns of names in the trunk that not every variant has.
        trunk: What the names of the trunk begin with. A file in which no name does holds the trunk alone.

    Raises:
        UserError: The address cannot be reached, the file cannot be read, or the trunk does not fit.
    """
    own = model.state_dict()
    state = read_state_dict(local_weights(find_weights(source, type(model).__name__)))
    state = without_shared_prefix(state, lambda names: any(name in own or trunk + name in own for name in names))
    if not any(name.startswith(trunk) for name in state):
        state = {trunk + name: value for name, value in state.items()}
    _load(model, source, state, may_miss=[*new_head, *optional], may_skip=["*"])
    taken = {name for name in own if name in state and list(state[name].shape) == list(own[name].shape)}
    new, left = (_parts([name for name in names if name not in taken], taken) for names in (own, state))
    _log.info(
        f"Took {len(taken)} of {len(own)} parameters and buffers from {source}; new: {', '.join(new) or 'none'}; "
        f"left out of the file: {', '.join(left) or 'none'}"
    )


def _parts(names: Iterable[str], taken: Iterable[str]) -> list[str]:
    """Return the parts of a model that names belong to, with the number of names of each.

    A part is what stands before the first dot, or before the second where other names of that part were taken.
    """
    touched, counts = {name.partition(".")[0] for name in taken}, {}
    for name in names:
        first, *rest = name.split(".")
        part = ".".join([first, *rest[:1]]) if first in touched else first
        counts[part] = counts.get(part, 0) + 1
    return [f"{part} ({count})" for part, count in counts.items()]


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _few(names: list[str]) -> str:
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(name if len(name) <= 200 else f"{name[:200]}..." for name in names[:_LISTED]) + rest
