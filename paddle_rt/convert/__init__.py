"""Load checkpoints of the PyTorch originals: strictly, and without running anything that the file contains."""

import importlib
import logging
import re
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle_rt.checkpoint import load, shared_prefix, without_shared_prefix
from paddle_rt.convert.naming import Naming, State
from paddle_rt.convert.reading import read_torch
from paddle_rt.errors import UserError
from paddle_rt.registry import ENTRIES

if TYPE_CHECKING:
    from paddle import nn

__all__ = ["from_torch", "known_names", "load_torch", "model_arguments", "read_torch"]

# What PyTorch puts into the names of the parts that it compiles or shards.
_WRAPPERS = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")

_log = logging.getLogger(__name__)


def load_torch(net: "nn.Layer", state_dict: State, backbone_only: bool = False) -> None:
    """Load the weights of an original into a network of this project, or raise without changing it.

    Args:
        net: A network whose row in the registry has a converter, such as SegFormerPlusPlus or FANet.
        state_dict: Names of the original and arrays, as `read_torch` returns them.
        backbone_only: Load the backbone alone, as from an ImageNet checkpoint. The head of `net` is not changed, and
            the head or classifier in `state_dict` is ignored.

    Raises:
        UserError: The names belong to no known program, or some are missing, left over or of another shape.
    """
    load(net, *_converted(net, state_dict, backbone_only))


def from_torch(net: "nn.Layer", state_dict: State, backbone_only: bool = False) -> State:
    """Convert the weights of an original to our names and to Paddle's layout, and load them into `net`.

    Args:
        net: A network for which there is a converter; it determines which names and shapes there must be.
        state_dict: Names of the original and arrays, as `read_torch` returns them.
        backbone_only: Convert the backbone alone.

    Returns:
        Our names and arrays: of the whole network, or of the backbone if `backbone_only` is set.

    Raises:
        UserError: The names belong to no known program, or some are missing, left over or of another shape.
    """
    converted, may_miss = _converted(net, state_dict, backbone_only)
    load(net, converted, may_miss)
    return {name: value.numpy() for name, value in net.state_dict().items() if not backbone_only or name in converted}


def model_arguments(model_type: str, state_dict: State) -> dict[str, Any]:
    """Return the arguments of `create_model` that a state dict requires, such as the kind of its head.

    Args:
        model_type: Name of the network's class.
        state_dict: Names of the original and arrays.

    Raises:
        UserError: There is no converter for the class, or the names belong to no known program.
    """
    return dict(_find_naming(model_type, known_names(model_type, state_dict)).arguments)


def known_names(model_type: str, state_dict: State) -> State:
    """Take off the names what training programs add to them, and log it.

    This is what PyTorch adds when it compiles or shards a part, prefixes that all names share, such as "model." of
    Lightning or "module." of DataParallel, and a moving average among the buffers, which is left out. Where only some
    names have the prefix of a known program, as beside the parameters of a loss, the others are left out.

    Args:
        model_type: Name of the network's class.
        state_dict: Names of the original and arrays.

    Returns:
        Names and arrays, in the order of `state_dict`; names that belong to no known program stay as they are.

    Raises:
        UserError: There is no converter for the class, or two names become one.
    """
    namings = _converter(model_type).NAMINGS

    def is_known(names: State) -> bool:
        return any(naming.recognises(names) for naming in namings)

    state = {_WRAPPERS.sub("", name).removeprefix("."): value for name, value in state_dict.items()}
    if len(state) < len(state_dict):
        raise UserError("some names occur with and without what PyTorch adds to them; are these two checkpoints?")
    added = sorted({found[2] for name in state_dict for found in _WRAPPERS.finditer(name)})
    if added:
        _log.info("%s, which PyTorch has added to the names, is taken off", " and ".join(added))
    state = without_shared_prefix(state, is_known)
    if not is_known(state):
        state = _known_part(state, is_known)
    averages = {"ema_" + name.replace(".", "_") for name in state} & state.keys()
    if averages:
        _log.info("%d buffers ema_* hold a moving average of the weights and are left out", len(averages))
    return {name: value for name, value in state.items() if name not in averages}


def _known_part(state: State, is_known: Callable[[State], bool]) -> State:
    """Return the names below the one prefix that leads to known names, without it; `state` where there is none."""
    parts: dict[str, State] = {}
    for name, value in state.items():
        first, _, rest = name.partition(".")
        parts.setdefault(f"{first}.", {})[rest] = value
    inner = {prefix: shared_prefix(part, is_known) for prefix, part in parts.items()}
    known = [prefix for prefix in parts if inner[prefix] is not None]
    if not known:
        return state
    first = min(known, key=lambda prefix: "ema" in prefix.lower())  # the first that is no moving average
    taken = first + inner[first]
    bare = {name.removeprefix(taken): value for name, value in state.items() if name.startswith(first)}
    if any(name.partition(".")[0] + "." in parts for name in bare):  # parts of it that lack the prefix
        return state
    others = [f"{prefix}* ({len(part)})" for prefix, part in parts.items() if prefix != first]
    _log.info("The weights are taken from the names that begin with %r; left out are %s", taken, ", ".join(others))
    return bare


def _converter(model_type: str) -> ModuleType:
    converters = {entry.class_name: entry.converter for entry in ENTRIES.values() if entry.converter}
    if model_type not in converters:
        raise UserError(f"there is no conversion to {model_type}; there is one to {' and '.join(converters)}")
    return importlib.import_module(f"paddle_rt.convert.{converters[model_type]}")


def _find_naming(model_type: str, state: State) -> Naming:
    namings = _converter(model_type).NAMINGS
    found = next((naming for naming in namings if naming.recognises(state)), None)
    if found is None:
        sources = "; ".join(naming.source for naming in namings)
        raise UserError(f"names such as {', '.join(list(state)[:3]) or 'none'} belong to none of these: {sources}")
    return found


def _converted(net: "nn.Layer", state: State, backbone_only: bool) -> tuple[State, tuple[str, ...]]:
    """Return our names with arrays in Paddle's layout, and patterns of the names that may be missing."""
    model_type = type(net).__name__
    state = known_names(model_type, {name: np.asarray(value) for name, value in state.items()})
    naming = _find_naming(model_type, state)
    hint = "; its backbone is loaded with --backbone_only (in Python backbone_only=True)"
    if naming.backbone_only and not backbone_only:
        raise UserError(f"{naming.source} has no head for {model_type}{hint}")
    converted, unmatched = naming.rename(state)
    may_miss = naming.may_miss
    backbone = _converter(model_type).BACKBONE
    of_classifier = [name for name in unmatched if name.rpartition(".")[0] in naming.classifier]
    if backbone_only:
        converted = {name: value for name, value in converted.items() if name.startswith(backbone)}
        unmatched = [name for name in unmatched if name not in of_classifier]
        may_miss += tuple(name for name in net.state_dict() if not name.startswith(backbone))
    elif all(name.startswith(backbone) for name in converted) and unmatched == of_classifier:
        what = f"a classifier ({', '.join(of_classifier)})" if of_classifier else "a backbone alone"
        raise UserError(f"this is {what} of {naming.source}, without a head for {model_type}{hint}")
    if unmatched:
        few = ", ".join(unmatched[:3]) + (f" and {len(unmatched) - 3} more" if len(unmatched) > 3 else "")
        raise UserError(f"{naming.source} has no such names for {model_type}: {few}")
    return _paddle_layout(net, converted), may_miss


def _paddle_layout(net: "nn.Layer", state: State) -> State:
    """Transpose the weights of linear layers, which Paddle stores as [in, out] and PyTorch as [out, in].

    Some originals store them as the weight of a 1x1 convolution, [out, in, 1, 1].
    """
    from paddle import nn

    for name, layer in net.named_sublayers():
        weight = f"{name}.weight"
        if isinstance(layer, nn.Linear) and weight in state and state[weight].shape[2:] in ((), (1, 1)):
            state[weight] = state[weight].reshape(state[weight].shape[:2]).T
    return state
