"""PaddleSeg's own networks that compute what ours do, and others to measure beside them."""

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import paddle

from paddle_rt import registry
from paddle_rt.arguments import check_arguments, describe
from paddle_rt.components import build_component, construct
from paddle_rt.errors import UserError, unknown
from paddle_rt.models.base import Network
from paddle_rt.paddleseg.components import components


def paddleseg_model(section: Mapping[str, Any], num_classes: int) -> Network:
    """Build PaddleSeg's own network for the `model` section of a config.

    Args:
        section: Of one of our networks. `pretrained` and `bn_momentum` are left out.
        num_classes: Number of classes.

    Raises:
        UserError: PaddleSeg has no such network, or it does not know an argument.
    """
    counterparts = {entry.counterpart for entry in registry.entries_of(section["type"])} - {None}
    if not counterparts:
        raise UserError(f"nothing to compare with: PaddleSeg and this project do not both have a {section['type']!r}")
    network_class, arguments = registry.network_of({**section, "num_classes": num_classes})
    arguments = {key: value for key, value in arguments.items() if key not in ("pretrained", "bn_momentum")}
    if "SegFormer" in counterparts:
        bound = inspect.signature(network_class).bind(**arguments)
        bound.apply_defaults()
        return _segformer(**bound.arguments)
    theirs = components("networks")[f"PaddleSeg{counterparts.pop()}"]
    valid = describe(theirs).kinds
    for key in arguments:
        if key not in valid:
            raise UserError(f"nothing to compare with: PaddleSeg's {section['type']} has no argument {key!r}")
    return construct("PaddleSeg's network", theirs, arguments)


def paddleseg_network(name: str, num_classes: int, arguments: Mapping[str, Any]) -> Network:
    """Build a network that PaddleSeg alone has, such as DDRNet_23, with random weights.

    Args:
        name: Of the network in PaddleSeg's configs.
        num_classes: Number of classes.
        arguments: What it takes; `backbone` is the name of a backbone.

    Raises:
        UserError: PaddleSeg has no such network or backbone, or it does not take an argument.
    """
    wanted = (("model", "networks", name), ("backbone", "backbones", arguments.get("backbone")))
    for kind, group, name_in_group in wanted:
        if name_in_group is not None and name_in_group not in components(group):
            raise unknown(f"{kind} of PaddleSeg", name_in_group, components(group))
    network, settings = components("networks")[name], {"num_classes": num_classes, **arguments}
    if "backbone" in settings:
        settings["backbone"] = {"type": settings["backbone"]}
    check_arguments(f"PaddleSeg's {name}", network, settings)
    paddle.seed(0)
    catalogue = {**components("backbones"), **components("networks")}
    return build_component(f"PaddleSeg's {name}", {"type": name, **settings}, catalogue)


def _segformer(
    num_classes: int, embed_dim: int, depths: Sequence[int], num_heads: Sequence[int], head: str,
    head_channels: int | None, token_merging: object, drop_path_rate: float, in_channels: int, **_: object
) -> Network:  # fmt: skip
    """Build PaddleSeg's SegFormer with the arguments of ours."""
    if head != "mlp" or token_merging is not None:
        raise UserError(
            f"nothing to compare with: PaddleSeg's SegFormer has head 'mlp' and merges no tokens, got head {head!r}, "
            f"token_merging {token_merging!r}"
        )
    from paddleseg.models.backbones.mix_transformer import MixVisionTransformer

    backbone = MixVisionTransformer(
        patch_size=4, in_channels=in_channels, embed_dims=[embed_dim * heads for heads in num_heads],
        num_heads=list(num_heads), qkv_bias=True, norm_layer=functools.partial(paddle.nn.LayerNorm, epsilon=1e-6),
        depths=list(depths), drop_path_rate=drop_path_rate,
    )  # fmt: skip
    channels = head_channels or (768 if sum(depths) > 8 else 256)
    return components("networks")["SegFormer"](num_classes, backbone, channels)
