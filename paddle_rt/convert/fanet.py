"""FANet's names in the authors' training and speed code, and those of the ResNets that its trunk can start from."""

import numpy as np

from paddle_rt.convert.naming import Naming, State, stacked

_EPSILON = 1e-5  # of the authors' in-place activated normalisation, which scales by |weight| + epsilon


def _prepare(state: State) -> State:
    """Scales as the normalisation uses them; query, key and value as one convolution.

    Only the weights of normalisations have one dimension.
    """
    state = {name: abs(v) + _EPSILON if _is_scale(name, v) else v for name, v in state.items()}
    result = dict(state)
    for name in state:
        parts = [name.replace(".w_qs.", f".{part}.") for part in ("w_qs", "w_ks", "w_vs")]
        if ".w_qs." in name and all(part in state for part in parts):
            leaf_of_each = [result[part] for part in parts]
            if not name.endswith(".num_batches_tracked") and stacked(leaf_of_each):
                result[name.replace(".w_qs.", ".qkv.")] = np.concatenate(leaf_of_each)
                for part in parts:
                    del result[part]
    return result


def _is_scale(name: str, value: np.ndarray) -> bool:
    return name.endswith(".weight") and value.ndim == 1


_TRUNK = {
    "conv1": "resnet.conv1",
    "bn1": "resnet.bn1",
    "layer{n}.{b}.{w}": "resnet.layer{n}.{b}.{w}",
    "layer{n}.{b}.downsample.{w}": "resnet.layer{n}.{b}.downsample.{w}",
}

# Every module of the originals has both `up` and `smooth`; the two without use are neither ours.
_UNUSED = ("{m}_4.up.conv", "{m}_4.up.bn", "{m}_8.smooth.conv", "{m}_8.smooth.bn")

_TRAINING = Naming(
    source="FANet's training code",
    mark="ffm_32.w_qs.conv",
    prepare=_prepare,
    unused=tuple(name.format(m="ffm") for name in _UNUSED),
    modules={
        **{f"resnet.{theirs}": ours for theirs, ours in _TRUNK.items()},
        "ffm_{b}.{w}.conv": "ffm_{b}.{w}.conv",
        "ffm_{b}.{w}.bn": "ffm_{b}.{w}.bn",
        "clslayer_{b}.conv.conv": "clslayer_{b}.conv.conv",
        "clslayer_{b}.conv.bn": "clslayer_{b}.conv.bn",
        "clslayer_{b}.conv_out": "clslayer_{b}.conv_out",
    },
)

# The speed code skips its BatchNorms when it runs; its names are taken to stand for the trained network, whose scales
# are folded and whose BatchNorms count. It has no auxiliary heads.
_SPEED = Naming(
    source="FANet's speed code",
    mark="fam_32.w_qs.conv",
    prepare=_prepare,
    unused=tuple(name.format(m="fam") for name in _UNUSED),
    may_miss=("clslayer_32.*", "clslayer_16.*"),
    modules={
        **{f"resnet.{theirs}": ours for theirs, ours in _TRUNK.items()},
        "fam_{b}.{w}.conv": "ffm_{b}.{w}.conv",
        "fam_{b}.{w}.bn": "ffm_{b}.{w}.bn",
        "clslayer.conv.conv": "clslayer_8.conv.conv",
        "clslayer.conv.bn": "clslayer_8.conv.bn",
        "clslayer.conv_out": "clslayer_8.conv_out",
    },
)

# The first stage of ResNet-18 and 34 has no shortcut convolution where the stage keeps the size; FANet's halves it.
_TORCHVISION = Naming(
    source="torchvision's or paddle.vision's ResNet",
    mark="layer1.0.conv1",
    classifier=("fc",),
    trunk_only=True,
    may_miss=("resnet.layer1.0.downsample.*",),
    modules=_TRUNK,
)

# PaddleSeg ships the "vd" ResNets alone. Their stem is three 3x3 convolutions, for which ours of 7x7 has no place.
_PADDLESEG = Naming(
    source="PaddleSeg's ResNet_vd",
    mark="bb_0_0.conv0._conv",
    unused=tuple(f"conv1_{number}.{part}" for number in (1, 2, 3) for part in ("_conv", "_batch_norm")),
    classifier=("fc", "out"),
    trunk_only=True,
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
