"""FANet's names in its authors' training and speed code, and the names in ResNets that pretrain its backbone."""

import numpy as np

from paddle_rt.convert.naming import Naming, State, stacked

_EPSILON = 1e-5  # the authors' in-place activated normalisation scales by |weight| + epsilon


def _prepare(state: State) -> State:
    """Compute the scales that the normalisations apply, and join query, key and value to one convolution."""
    state = {name: abs(v) + _EPSILON if _is_scale(name, v) else v for name, v in state.items()}
    result = dict(state)
    for name in state:
        parts = [name.replace(".w_qs.", f".{part}.") for part in ("w_qs", "w_ks", "w_vs")]
        if ".w_qs." in name and all(part in state for part in parts):
            arrays = [result[part] for part in parts]
            if not name.endswith(".num_batches_tracked") and stacked(arrays):
                result[name.replace(".w_qs.", ".qkv.")] = np.concatenate(arrays)
                for part in parts:
                    del result[part]
    return result


def _is_scale(name: str, value: np.ndarray) -> bool:
    # Only the weights of normalisations have one dimension.
    return name.endswith(".weight") and value.ndim == 1


BACKBONE = "resnet."  # what the names of our backbone begin with

_RESNET = {
    "conv1": "resnet.conv1",
    "bn1": "resnet.bn1",
    "layer{n}.{b}.{w}": "resnet.layer{n}.{b}.{w}",
    "layer{n}.{b}.downsample.{w}": "resnet.layer{n}.{b}.downsample.{w}",
}

# Each attention module of the original has both `up` and `smooth`; ours has only those that are used.
_UNUSED = ("{m}_4.up.conv", "{m}_4.up.bn", "{m}_8.smooth.conv", "{m}_8.smooth.bn")

_TRAINING = Naming(
    source="FANet's training code",
    recognised_by="ffm_32.w_qs.conv",
    prepare=_prepare,
    unused=tuple(name.format(m="ffm") for name in _UNUSED),
    modules={
        **{f"resnet.{theirs}": ours for theirs, ours in _RESNET.items()},
        "ffm_{b}.{w}.conv": "ffm_{b}.{w}.conv",
        "ffm_{b}.{w}.bn": "ffm_{b}.{w}.bn",
        "clslayer_{b}.conv.conv": "clslayer_{b}.conv.conv",
        "clslayer_{b}.conv.bn": "clslayer_{b}.conv.bn",
        "clslayer_{b}.conv_out": "clslayer_{b}.conv_out",
    },
)

# The speed code, which has no auxiliary heads, skips its BatchNorms when it runs. A checkpoint with its names is taken
# for one of the trained network, in which the BatchNorms matter.
_SPEED = Naming(
    source="FANet's speed code",
    recognised_by="fam_32.w_qs.conv",
    prepare=_prepare,
    unused=tuple(name.format(m="fam") for name in _UNUSED),
    may_miss=("clslayer_32.*", "clslayer_16.*"),
    modules={
        **{f"resnet.{theirs}": ours for theirs, ours in _RESNET.items()},
        "fam_{b}.{w}.conv": "ffm_{b}.{w}.conv",
        "fam_{b}.{w}.bn": "ffm_{b}.{w}.bn",
        "clslayer.conv.conv": "clslayer_8.conv.conv",
        "clslayer.conv.bn": "clslayer_8.conv.bn",
        "clslayer.conv_out": "clslayer_8.conv_out",
    },
)

# The first stage of ResNet-18 and 34 keeps the size and needs no shortcut convolution; FANet's halves the size.
_TORCHVISION = Naming(
    source="torchvision's or paddle.vision's ResNet",
    recognised_by="layer1.0.conv1",
    classifier=("fc",),
    backbone_only=True,
    may_miss=("resnet.layer1.0.downsample.*",),
    modules=_RESNET,
)

# PaddleSeg ships only the "vd" ResNets, whose stem of three 3x3 convolutions does not fit our single 7x7 convolution.
_PADDLESEG = Naming(
    source="PaddleSeg's ResNet_vd",
    recognised_by="bb_0_0.conv0._conv",
    unused=tuple(f"conv1_{number}.{part}" for number in (1, 2, 3) for part in ("_conv", "_batch_norm")),
    classifier=("fc", "out"),
    backbone_only=True,
    may_miss=("resnet.conv1.*", "resnet.bn1.*"),
    modules={
        "bb_{i}_{b}.conv0._conv": "resnet.layer{n}.{b}.conv1",
        "bb_{i}_{b}.conv0._batch_norm": "resnet.layer{n}.{b}.bn1",
        "bb_{i}_{b}.conv1._conv": "resnet.layer{n}.{b}.conv2",
        "bb_{i}_{b}.conv1._batch_norm": "resnet.layer{n}.{b}.bn2",
        "bb_{i}_{b}.conv2._conv": "resnet.layer{n}.{b}.conv3",
        "bb_{i}_{b}.conv2._batch_norm": "resnet.layer{n}.{b}.bn3",
        "bb_{i}_{b}.short._conv": "resnet.layer{n}.{b}.downsample.0",
        "bb_{i}_{b}.short._batch_norm": "resnet.layer{n}.{b}.downsample.1",
    },
)

NAMINGS = (_TRAINING, _SPEED, _TORCHVISION, _PADDLESEG)
