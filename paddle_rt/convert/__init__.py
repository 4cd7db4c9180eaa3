"""PyTorch checkpoints of the originals, for our models: strict, and with nothing in the file run."""

from typing import TYPE_CHECKING, Any

import numpy as np

from paddle_rt.checkpoint import load
from paddle_rt.convert import fanet, segformer
from paddle_rt.convert.naming import Naming, State
from paddle_rt.convert.reading import read_torch
from paddle_rt.errors import UserError

if TYPE_CHECKING:
    from paddle import nn

__all__ = ["from_torch", "load_torch", "model_arguments", "read_torch"]

# By the model's class: the namings that fit it, and what its trunk's names start with.
_NAMINGS = {"SegFormerPlusPlus": (segformer.NAMINGS, "backbone."), "FANet": (fanet.NAMINGS, "resnet.")}


def load_torch(net: "nn.Layer", state_dict: State, backbone_only: bool = False) -> None:
    """Load an original's weights into one of our models, or raise without changing it.

    Args:
        net: SegFormerPlusPlus or FANet.
        state_dict: The original's names, and arrays as `read_torch` gives them.
        backbone_only: Take the trunk alone, as from an ImageNet checkpoint. The model's head stays as it is, and the
            file's head or classifier is left out.

    Raises:
        UserError: The names are no known program's, or some are missing, left over or of another shape.
    """
    load(net, *_fitted(net, state_dict, backbone_only))


def from_torch(net: "nn.Layer", state_dict: State, backbone_only: bool = False) -> State:
    """The same under our names and in Paddle's layout, with `net` as the measure of what must be there.

    Args:
        net, state_dict, backbone_only: As `load_torch` takes them; `net` gets the weights as well.

    Returns:
        Our names to arrays: of the whole model, or of what the file brought where `backbone_only` is set.

    Raises:
        UserError: As `load_torch`.
    """
    converted, may_miss = _fitted(net, state_dict, backbone_only)
    load(net, converted, may_miss)
    return {name: value.numpy() for name, value in net.state_dict().items() if not backbone_only or name in converted}


def model_arguments(model_type: str, state_dict: State) -> dict[str, Any]:
    """What `create_model` must be given for the network that a state dict belongs to, such as the kind of its head.

    Raises:
        UserError: The model or the names are not known.
    """
    return dict(_naming(model_type, state_dict).arguments)


def _naming(model_type: str, state: State) -> Naming:
    if model_type not in _NAMINGS:
        raise UserError(f"there is no conversion to {model_type}; there is one to {' and '.join(_NAMINGS)}")
    namings = _NAMINGS[model_type][0]
    found = next((naming for naming in namings if naming.recognises(state)), None)
    if found is None:
        sources = "; ".join(naming.source for naming in namings)
        raise UserError(f"names such as {', '.join(list(state)[:3]) or 'none'} belong to none of these: {sources}")
    return found


def _fitted(net: "nn.Layer", state: State, backbone_only: bool) -> tuple[State, tuple[str, ...]]:
    """Our names and values in Paddle's layout, and patterns of names that may be missing."""
    model_type = type(net).__name__
    state = {name: np.asarray(value) for name, value in state.items()}
    naming = _naming(model_type, state)
    if naming.trunk_only and not backbone_only:
        raise UserError(f"{naming.source} has no head for {model_type}; take its trunk with backbone_only")
    converted, unmatched = naming.rename(state)
    may_miss = naming.may_miss
    if backbone_only:
        trunk = _NAMINGS[model_type][1]
        converted = {name: value for name, value in converted.items() if name.startswith(trunk)}
        unmatched = [name for name in unmatched if name.rpartition(".")[0] not in naming.classifier]
        may_miss += tuple(name for name in net.state_dict() if not name.startswith(trunk))
    if unmatched:
        few = ", ".join(unmatched[:3]) + (f" and {len(unmatched) - 3} more" if len(unmatched) > 3 else "")
        raise UserError(f"{naming.source} has no such names for {model_type}: {few}")
    return _paddle_layout(net, converted), may_miss


def _paddle_layout(net: "nn.Layer", state: State) -> State:
    """Paddle keeps the weight of a linear layer as [in, out]; PyTorch as [out, in], or as a 1x1 convolution's."""
    from paddle import nn

    for name, layer in net.named_sublayers():
        weight = f"{name}.weight"
        if isinstance(layer, nn.Linear) and weight in state and state[weight].shape[2:] in ((), (1, 1)):
            state[weight] = state[weight].reshape(state[weight].shape[:2]).T
    return state
