"""PaddleSeg's networks, data sets, transforms and optimizers, by the names that its configs use."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from paddle_rt.models.base import Network

_REGISTRIES = {
    "networks": "MODELS",
    "backbones": "BACKBONES",
    "datasets": "DATASETS",
    "transforms": "TRANSFORMS",
    "optimizers": "OPTIMIZERS",
}


@functools.cache
def components(kind: str) -> dict[str, Callable]:
    """Return what PaddleSeg has of a kind, corrected where `paddle_rt.paddleseg.apply` corrects it.

    Args:
        kind: "networks", "backbones", "datasets", "transforms" or "optimizers". PaddleSeg's own RTFormer is the network
            "PaddleSegRTFormer", to be trained beside ours.

    Returns:
        Classes and functions by name. What the networks build is a subclass of `Network` too.
    """
    from paddleseg.cvlibs import manager

    from paddle_rt.paddleseg import apply

    apply()
    found = dict(getattr(manager, _REGISTRIES[kind]).components_dict)
    if kind == "networks":
        found["PaddleSegRTFormer"] = found.pop("RTFormer")
        return {name: _returns_network(component) for name, component in found.items()}
    return found


def _returns_network(component: Callable) -> Callable:
    """Wrap one of PaddleSeg's network classes, or functions that build one, so that the result is a `Network`."""

    @functools.wraps(component, updated=())
    def build(*arguments: Any, **options: Any) -> Network:
        network = component(*arguments, **options)
        network.__class__ = _network_class(type(network))
        return network

    return build


@functools.cache
def _network_class(paddleseg_class: type) -> type[Network]:
    return type(paddleseg_class.__name__, (paddleseg_class, Network), {"__doc__": paddleseg_class.__doc__})


def binary_edges(labels: np.ndarray, radius: int, num_classes: int) -> np.ndarray:
    """Return PaddleSeg's edges of a label map, 1 within `radius` pixels of where the class changes.

    Shape: [H, W] to [1, H, W].
    """
    from paddleseg.transforms import functional

    return functional.mask_to_binary_edge(labels, radius=radius, num_classes=num_classes)
