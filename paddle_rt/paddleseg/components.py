"""PaddleSeg's networks, data sets, transforms and optimizers, by the names that its configs use."""

import functools
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from paddle_rt.checkpoint import read_state_dict, save_weights
from paddle_rt.downloads import local_weights
from paddle_rt.errors import UserError
from paddle_rt.files import temporary_home
from paddle_rt.models.base import Network
from paddle_rt.paddleseg.patching import patched
from paddle_rt.weights import find_weights

_REGISTRIES = {
    "networks": "MODELS",
    "backbones": "BACKBONES",
    "datasets": "DATASETS",
    "transforms": "TRANSFORMS",
    "optimizers": "OPTIMIZERS",
}

logger = logging.getLogger(__name__)


@functools.cache
def components(kind: str) -> dict[str, Callable]:
    """Return what PaddleSeg has of a kind.

    Args:
        kind: "networks", "backbones", "datasets", "transforms" or "optimizers". PaddleSeg's own RTFormer is the network
            "PaddleSegRTFormer", to be trained beside ours.

    Returns:
        Classes and functions by name. What the networks build is a subclass of `Network` too. Networks and backbones
        take the same addresses and files as `pretrained` that ours do. Data sets are not downloaded.
    """
    import_paddleseg()
    from paddleseg.cvlibs import manager

    found = dict(getattr(manager, _REGISTRIES[kind]).components_dict)
    if kind == "networks":
        found["PaddleSegRTFormer"] = found.pop("RTFormer")
        found = {name: _returns_network(component) for name, component in found.items()}
    if kind == "backbones":  # PaddleSeg 2.8.0 has functions of these names, which call a class that they do not import
        found = {name: component for name, component in found.items() if not name.startswith("CAE_")}
    if kind in ("networks", "backbones"):
        return {name: _reads_weights_safely(component) for name, component in found.items()}
    if kind == "datasets":
        return {name: _without_download(dataset) for name, dataset in found.items()}
    if kind == "transforms":
        found["RandomPaddingCrop"] = _correct_crop(found["RandomPaddingCrop"])
        found["ScalePadding"] = _correct_padding(found["ScalePadding"])
    return found


def _correct_crop(crop: type) -> type:
    """Correct RandomPaddingCrop, which destroys the image where `category_max_ratio` is below 1.

    PaddleSeg 2.8.0 assigns the crop of the label to the image, or leaves the image uncropped beside a cropped label
    (its issue 3605; corrected in its pull request 3548).
    """
    exchanges = {
        "data['img'] = seg_temp": "pass",
        "data['img'] = functional.crop(data['img'], crop_coordinates)": "pass",
        "data.get('gt_fields', [])": "['img', *data.get('gt_fields', [])]",
    }
    return type(crop.__name__, (crop,), {"__doc__": crop.__doc__, "__call__": patched(crop.__call__, exchanges)})


def import_paddleseg() -> None:
    """Import PaddleSeg without its folders for downloads, which are left to `paddle_rt.downloads`."""
    with temporary_home():
        import paddleseg  # noqa: F401


def _reads_weights_safely(component: Callable) -> Callable:
    """Wrap a network or a backbone, since PaddleSeg unpickles whatever `pretrained` names, and runs what it asks for.

    The file is read by `read_state_dict`, and PaddleSeg gets a copy that holds the arrays alone. It takes what fits, as
    ever, but a file of which nothing fits is refused.
    """

    @functools.wraps(component, updated=())
    def build(*arguments: Any, **options: Any) -> Any:
        if options.get("pretrained") is None:
            return component(*arguments, **options)
        source = options["pretrained"]
        logger.info("Pretrained weights: %s", source)
        state = read_state_dict(local_weights(find_weights(source)))
        with tempfile.TemporaryDirectory() as folder:
            copy = os.path.join(folder, "model.pdparams")
            save_weights(state, copy)
            network = component(*arguments, **{**options, "pretrained": copy})
        own, title = network.state_dict(), type(network).__name__
        taken = [name for name in own if name in state and list(state[name].shape) == list(own[name].shape)]
        if not taken:
            raise UserError(
                f"nothing in {source} fits {title}: it holds {next(iter(state))} and others, expected are "
                f"{next(iter(own))} and others"
            )
        broken = [name for name in taken if not np.isfinite(own[name].numpy()).all()]
        if broken:
            names = ", ".join(broken[:3])
            raise UserError(f"{source} does not fit {title}: {len(broken)} with numbers that are not finite ({names})")
        return network

    return build


def _without_download(dataset: type) -> type:
    """Keep a data set whose folder is missing from fetching it, by plain http and unpacked without a check."""
    address = vars(sys.modules[dataset.__module__]).get("URL")
    if address is None:
        return dataset

    @functools.wraps(dataset.__init__)
    def init(self: Any, *arguments: Any, **options: Any) -> None:
        root = options.get("dataset_root")
        if root is None or not os.path.isdir(root):
            raise UserError(
                f"{dataset.__name__}: no folder at dataset_root {root}, and nothing is downloaded unasked; unpack "
                f"{address} there"
            )
        dataset.__init__(self, *arguments, **options)

    return type(dataset.__name__, (dataset,), {"__doc__": dataset.__doc__, "__init__": init})


def _correct_padding(padding: type) -> type:
    """Correct ScalePadding, which interpolates between class numbers in PaddleSeg 2.8.0."""
    resize = "data['label'] = functional.resize(data['label'], self.target_size, interp=cv2.INTER_{})"
    exchanges = {resize.format("CUBIC"): resize.format("NEAREST")}
    return type(
        padding.__name__, (padding,), {"__doc__": padding.__doc__, "__call__": patched(padding.__call__, exchanges)}
    )


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
    import_paddleseg()
    from paddleseg.transforms import functional

    return functional.mask_to_binary_edge(labels, radius=radius, num_classes=num_classes)
