"""The table of networks: one row for each name that `create_model` takes."""

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paddle_rt.arguments import BY_DATA, check_arguments
from paddle_rt.errors import UserError, unknown

if TYPE_CHECKING:
    from paddle_rt.models.base import Network


@dataclass(frozen=True)
class Entry:
    """One named network.

    Args:
        module: Name of the module that defines the class.
        class_name: Name of the class, which is also the `type` of a config's `model` section.
        variant: Name of the variant, which a config gives as `variant`.
        arguments: Arguments of the class in which this variant differs from its defaults or from other variants.
        task: What the network learns.
        converter: Module of `paddle_rt.convert` that knows the names in checkpoints of the PyTorch originals, if any.
        counterpart: Name of PaddleSeg's own implementation of the network, if there is one.
        outputs: Name of the argument that gives the number of outputs.
    """

    module: str
    class_name: str
    variant: str
    arguments: Mapping[str, Any]
    task: str = "segmentation"
    converter: str | None = None
    counterpart: str | None = None
    outputs: str = "num_classes"

    def network_class(self) -> "type[Network]":
        """Import the class of the network."""
        return getattr(importlib.import_module(self.module), self.class_name)


def _fanet(variant: str, **arguments: Any) -> Entry:
    return Entry("paddle_rt.models.fanet", "FANet", variant, arguments, converter="fanet")


def _rtformer(variant: str, **arguments: Any) -> Entry:
    return Entry("paddle_rt.models.rtformer", "RTFormer", variant, arguments, counterpart="RTFormer")


def _rtformer_cls(variant: str, **arguments: Any) -> Entry:
    return Entry("paddle_rt.models.rtformer_cls", "RTFormerClassifier", variant, arguments, task="classification")


def _segformerpp(variant: str, **arguments: Any) -> Entry:
    return Entry(
        "paddle_rt.models.segformer",
        "SegFormerPlusPlus",
        variant,
        arguments,
        converter="segformer",
        counterpart="SegFormer",
    )


def _segformerpp_pose(variant: str, **arguments: Any) -> Entry:
    return Entry(
        "paddle_rt.models.segformer_pose",
        "SegFormerPose",
        variant,
        arguments,
        task="pose",
        converter="segformer_pose",
        outputs="num_keypoints",
    )


_MIT = {
    "b0": {"embed_dim": 32, "depths": [2, 2, 2, 2]},
    "b1": {"embed_dim": 64, "depths": [2, 2, 2, 2]},
    "b2": {"embed_dim": 64, "depths": [3, 4, 6, 3]},
    "b3": {"embed_dim": 64, "depths": [3, 4, 18, 3]},
    "b4": {"embed_dim": 64, "depths": [3, 8, 27, 3]},
    "b5": {"embed_dim": 64, "depths": [3, 6, 40, 3]},
}
_DEFAULT_OUTPUTS = {"num_classes": 19, "num_keypoints": 17}

ENTRIES = {
    "fanet18": _fanet("18", depth=18),
    "fanet34": _fanet("34", depth=34),
    "fanet50": _fanet("50", depth=50),
    "rtformer_slim": _rtformer("slim", base_channels=32, head_channels=64, use_injection=[True, True]),
    "rtformer_base": _rtformer("base", base_channels=64, head_channels=128, use_injection=[True, False]),
    "rtformer_slim_cls": _rtformer_cls("slim", base_channels=32, feature_channels=1024),
    "rtformer_base_cls": _rtformer_cls("base", base_channels=64, feature_channels=2048),
    **{f"segformerpp_{variant}": _segformerpp(variant, **arguments) for variant, arguments in _MIT.items()},
    **{f"segformerpp_{variant}_pose": _segformerpp_pose(variant, **arguments) for variant, arguments in _MIT.items()},
}


def list_models(task: str | None = None) -> list[str]:
    """Return the names that `create_model` takes, sorted.

    Args:
        task: List the networks of this task only.
    """
    return sorted(name for name, entry in ENTRIES.items() if task in (None, entry.task))


def register_model(name: str, entry: Entry) -> None:
    """Add a network of your own to the table, for `create_model` and for the `model` section of configs."""
    ENTRIES[name] = entry


def find_entry(name: str) -> Entry:
    """Return the row of a name.

    Raises:
        UserError: The name is unknown.
    """
    if name not in ENTRIES:
        raise unknown("model", name, ENTRIES)
    return ENTRIES[name]


def entries_of(class_name: str) -> list[Entry]:
    """Return the rows of a class of networks, one for each variant; none if the class is not in the table."""
    return [entry for entry in ENTRIES.values() if entry.class_name == class_name]


def class_names(task: str) -> list[str]:
    """Return the names of the classes of networks for a task, which are the values of `model.type`."""
    return list(dict.fromkeys(entry.class_name for entry in ENTRIES.values() if entry.task == task))


def model_config(name: str) -> dict[str, Any]:
    """Return the `model` section of a config that describes a named network, with the variant's arguments spelled out.

    Raises:
        UserError: The name is unknown.
    """
    entry = find_entry(name)
    return {"type": entry.class_name, **entry.arguments}


def network_of(model_section: Mapping[str, Any]) -> "tuple[type[Network], dict[str, Any]]":
    """Resolve the `model` section of a config whose `type` is in the table; see `entries_of`.

    Args:
        model_section: Its `type` names a class and its `variant`, if there is one, a variant of it. All other keys are
            arguments of the class, which take precedence over those of the variant.

    Returns:
        The class and the arguments to build the network with.

    Raises:
        UserError: The type, the variant or an argument is unknown, or an argument is not what it may be.
    """
    arguments = dict(model_section)
    class_name = arguments.pop("type", None)
    entries = entries_of(class_name)
    if not entries:
        raise unknown("model type", class_name, {entry.class_name for entry in ENTRIES.values()})
    network_class = entries[0].network_class()
    if "variant" in arguments:
        name = str(arguments.pop("variant"))[:100]  # YAML reads FANet's `variant: 18` as a number
        variants = {entry.variant: entry.arguments for entry in entries}
        if name not in variants:
            raise unknown(f"variant of {class_name}", name, variants)
        arguments = {**variants[name], **arguments}
    check_arguments("model", network_class, arguments, supplied=BY_DATA)
    return network_class, arguments


def create_model(
    name: str, num_classes: int | None = None, checkpoint: str | os.PathLike | None = None, **arguments: Any
) -> "Network":
    """Build a network by name.

    Args:
        name: One of `list_models()`.
        num_classes: Number of classes, or of keypoints of a pose network, which also takes it as `num_keypoints`. None
            means 19 classes or 17 keypoints.
        checkpoint: A `.pdparams` or `.safetensors` file, a folder that holds model.pdparams or model.safetensors, or
            the name of trained weights of the package, such as "streetscenes"; `paddle_rt.list_weights()` gives all.
            Its names and shapes must be exactly those of the network.
        **arguments: Further arguments of the network's class, which take precedence over those of the variant.

    Returns:
        The network in training mode.

    Raises:
        UserError: The name or an argument is unknown or not what it may be, or the checkpoint does not fit.
    """
    entry = find_entry(name)
    outputs = _DEFAULT_OUTPUTS[entry.outputs] if num_classes is None else num_classes
    if num_classes is not None and entry.outputs in arguments:
        raise UserError(f"{name}: num_classes and {entry.outputs} are one number here; give {entry.outputs} alone")
    settings = {**entry.arguments, entry.outputs: outputs, **arguments}
    network_class = entry.network_class()
    check_arguments(entry.class_name, network_class, settings)
    network = network_class(**settings)
    if checkpoint is not None:
        from paddle_rt.checkpoint import load

        load(network, checkpoint)
    return network
