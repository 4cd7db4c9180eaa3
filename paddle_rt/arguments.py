"""What every argument of a config's components may be: from signatures, annotations, and the table of ranges below.

The kind of an argument is the first of: its row below its component's name, its row under "any", the kind that its
annotation allows, and the kind of its default. The default itself is always valid.
"""

import functools
import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from paddle_rt.errors import UserError, shown, unknown
from paddle_rt.kinds import (
    ANYTHING,
    LIST,
    MAPPING,
    NOTHING,
    NULL,
    SWITCH,
    TEXT,
    Kind,
    choice,
    either,
    kind_of_annotation,
    kind_of_default,
    listed,
    number,
    whole,
)

BY_DATA = (
    "num_classes",
    "num_keypoints",
    "in_channels",
)  # arguments that the data set determines where a network needs them
LONGEST_SIDE = 65_500  # pixels; the longest side of a JPEG
_COUNT = whole(1, 1_000_000)
_CHANNELS = whole(1, 65_536)
SIDE = whole(1, LONGEST_SIDE)
_SIZE = listed(SIDE, 2)
_SHARE = number(0, 1)
_RATE = number(0, 1, below=True)
_POSITIVE = number(0, above=True)
_NOT_NEGATIVE = number(0)
_WEIGHTS = either(listed(_NOT_NEGATIVE), NULL)
_STEPS = whole(1, 10**12)
_ITERATIONS = whole(0, 10**12)
SCALE = number(0, 100, above=True)
_PADDING = either(number(), listed(number(), 1, 3, 4))
_RESAMPLING = choice("nearest", "bilinear", "bicubic", "area", "lanczos")
_FOUR = listed(whole(1, 1000), 4, valid="four whole numbers from 1 to 1000")
_RTFORMER_TRUNK = {
    "layer_nums": _FOUR,
    "base_channels": _CHANNELS,
    "num_heads": _CHANNELS,
    "cross_size": whole(1, 1024),
    "bn_momentum": _SHARE,
    "mhea_ratio": number(0, 64, above=True),
    "low_groups": either(_CHANNELS, NULL),
    "high_groups": _CHANNELS,
    "image_size": either(_SIZE, NULL),
}
_SEGFORMER = {"embed_dim": _CHANNELS, "depths": _FOUR, "num_heads": _FOUR, "matching_every": whole(1, 1000)}

# Of the data sets that are rendered.
_RENDERED = {
    "num_samples": either(whole(1, 10_000_000), NULL),
    "seed": whole(0, 1 << 62),
    "cache_mb": whole(0, 1 << 20),
}
COLOURS = listed(listed(whole(0, 255), 3))
_NAME = Kind("a text on one line", lambda value: TEXT.accepts(value) and value.strip() != "" and value.isprintable())
_LABEL = whole(-100, 65_535)
_LABEL_MAP = Kind(
    "a mapping of label values to classes, whole numbers from 0 to 65535, such as {0: 0, 255: 1}",
    lambda value: isinstance(value, Mapping) and len(value) > 0
    and all(whole(0, 65_535).accepts(key) and _LABEL.accepts(label) for key, label in value.items()),
)  # fmt: skip
_FRAME = {"height": whole(16, 1 << 14), "width": whole(16, 1 << 14)}

RANGES: dict[str, dict[str, Kind]] = {
    "any": {
        "num_classes": _CHANNELS,
        "num_keypoints": _CHANNELS,
        "in_channels": _CHANNELS,
        "img_channels": whole(1, 4),
        "ignore_index": _LABEL,
        "pretrained": either(TEXT, NULL),
        "align_corners": SWITCH,
        "enable_auxiliary_loss": SWITCH,
        "drop_rate": _RATE,
        "drop_path_rate": _RATE,
        "dropout_prob": _RATE,
        "dropout_ratio": _RATE,
        "prob": _SHARE,
        "im_padding_value": _PADDING,
        "label_padding_value": whole(0, 65_535),
        "target_size": _SIZE,
        "backbone": MAPPING,
        "backbone_indices": listed(whole(-100, 100)),
        "transforms": LIST,
        "transforms1": either(LIST, NULL),
        "transforms2": either(LIST, NULL),
        "common_transforms": either(LIST, NULL),
        "dataset_root": TEXT,
        "learning_rate": _POSITIVE,
        "last_epoch": whole(-1, 10**12),
        "verbose": SWITCH,
    },
    # Sections of a config that have no type
    "config": {"batch_size": whole(1, 1_000_000), "iters": _STEPS, "to_static_training": SWITCH},
    "loss": {"types": LIST, "coef": listed(_NOT_NEGATIVE, valid="a list of numbers of at least 0")},
    "test_config": {
        "aug_eval": SWITCH,
        "scales": either(SCALE, listed(SCALE)),
        "flip_horizontal": SWITCH,
        "flip_vertical": SWITCH,
        "is_slide": SWITCH,
        "crop_size": either(_SIZE, NULL),
        "stride": either(_SIZE, NULL),
        "print_detail": SWITCH,  # PaddleSeg's configs carry it; the log always shows the scores
    },
    # Networks
    "RTFormer": {
        **_RTFORMER_TRUNK,
        "spp_channels": _CHANNELS,
        "head_channels": _CHANNELS,
        "use_injection": listed(SWITCH, 2, valid="two booleans"),
        "lr_mult": _NOT_NEGATIVE,
    },
    "RTFormerClassifier": {**_RTFORMER_TRUNK, "feature_channels": _CHANNELS},
    "FANet": {"depth": whole(1, 1000), "temporal_window": whole(1, 1000)},
    "SegFormerPlusPlus": {**_SEGFORMER, "head_channels": either(_CHANNELS, NULL)},
    "SegFormerPose": {**_SEGFORMER, "head_channels": _CHANNELS},
    "SegmentationTransformer": {  # the last three are those of its heads
        "head": choice("naive", "pup", "mla"),
        "lr_multiple": _NOT_NEGATIVE,
        "mla_channels": _CHANNELS,
        "mlahead_channels": _CHANNELS,
    },
    "MLATransformer": {"in_channels": either(_CHANNELS, listed(_CHANNELS))},  # of PaddleSeg, as all networks below
    "SINet": {"config": LIST},
    # Data sets
    "StreetScenes": {
        **_RENDERED,
        **_FRAME,
        "frames": whole(1, 1000),
        "fps": number(0.1, 1000),
        "end": either(_NOT_NEGATIVE, NULL),
    },
    "CamVid": {"frames": whole(1, 1000)},
    "Dataset": {
        "label_map": _LABEL_MAP,
        "palette": COLOURS,
        "colors": COLOURS,
        "class_names": listed(_NAME),
    },
    "PSSLDataset": {"imagenet_root": TEXT, "pssl_root": TEXT},
    "StreetObjects": {**_RENDERED, "size": whole(16, 1 << 12)},
    "CocoKeypoints": {"annotations": TEXT, "image_root": TEXT, "image_thre": number(0, 1)},
    "StreetPeople": {**_RENDERED, **_FRAME},
    # Transforms, all of PaddleSeg
    "Resize": {
        "size_divisor": either(SIDE, NULL),
        "interp": choice("NEAREST", "LINEAR", "CUBIC", "AREA", "LANCZOS4", "RANDOM"),
    },
    "ResizeByLong": {"long_size": SIDE},
    "ResizeByShort": {"short_size": either(SIDE, listed(SIDE)), "max_size": _POSITIVE},
    "LimitLong": {"max_long": either(SIDE, NULL), "min_long": either(SIDE, NULL)},
    "ResizeRangeScaling": {"min_value": number(1, LONGEST_SIDE), "max_value": number(1, LONGEST_SIDE)},
    "ResizeStepScaling": {
        "min_scale_factor": SCALE,
        "max_scale_factor": SCALE,
        "scale_step_size": number(0, 100),
    },
    "Normalize": {"mean": listed(number(), 1, 3, 4), "std": listed(_POSITIVE, 1, 3, 4)},
    "PaddingByAspectRatio": {"aspect_ratio": number(0.001, 1000)},
    "RandomPaddingCrop": {"crop_size": _SIZE, "category_max_ratio": _POSITIVE, "loop_times": _COUNT},
    "RandomCenterCrop": {"retain_ratio": listed(_SHARE, 2)},
    "RandomNoise": {"max_sigma": number(0, 1000)},
    "RandomBlur": {"blur_type": choice("gaussian", "median", "blur", "random")},
    "RandomRotation": {"max_rotation": number(0, 360)},
    "RandomScaleAspect": {"min_scale": _SHARE, "aspect_ratio": number(0, 1000)},
    "RandomDistort": {
        **{f"{name}_range": number(0, 10) for name in ("brightness", "contrast", "saturation", "sharpness")},
        **{f"{name}_prob": _SHARE for name in ("brightness", "contrast", "saturation", "hue", "sharpness")},
        "hue_range": number(0, 180),
    },
    "RandomAffine": {
        "size": _SIZE,
        "translation_offset": number(0, LONGEST_SIDE),
        "max_rotation": number(0, 360),
        "min_scale_factor": SCALE,
        "max_scale_factor": SCALE,
    },
    # Transforms of classification, with PaddleClas's names
    "ResizeImage": {
        "resize_short": either(SIDE, NULL),
        "size": either(SIDE, _SIZE, NULL),
        "interpolation": _RESAMPLING,
    },
    "CropImage": {"size": either(SIDE, _SIZE)},
    "NormalizeImage": {"mean": listed(number(), 1, 3), "std": listed(_POSITIVE, 1, 3)},
    "RandCropImage": {
        "size": either(SIDE, _SIZE),
        "scale": listed(number(0, 1, above=True), 2),
        "ratio": listed(number(0.01, 100), 2),
        "interpolation": _RESAMPLING,
    },
    "RandFlipImage": {"flip_code": choice(-1, 0, 1)},
    "RandAugment": {"num_layers": whole(0, 100), "magnitude": number(0, 10)},
    "RandomErasing": {
        "EPSILON": _SHARE,
        "sl": _SHARE,
        "sh": _SHARE,
        "r1": number(0.01, 1),
        "attempt": whole(1, 1000),
        "use_log_aspect": SWITCH,
        "mode": choice("const", "rand", "pixel"),
        "mean": listed(number(), 3),
    },
    "MixupOperator": {"alpha": _POSITIVE, "prob": _SHARE},
    "CutmixOperator": {"alpha": _POSITIVE, "prob": _SHARE},
    # Transforms of pose, with MMPose's names
    "GetBBoxCenterScale": {"padding": SCALE},
    "RandomHalfBody": {
        **{f"min_{part}_keypoints": whole(0, 65_536) for part in ("total", "upper", "lower")},
        "padding": SCALE,
        "upper_prioritized_prob": _SHARE,
    },
    "RandomBBoxTransform": {
        "shift_factor": number(0, 10),
        "scale_factor": listed(SCALE, 2),
        "rotate_factor": number(0, 360),
        **{f"{name}_prob": _SHARE for name in ("shift", "scale", "rotate")},
    },
    "TopdownAffine": {"input_size": _SIZE},
    "GenerateTarget": {"heatmap_size": _SIZE, "sigma": SCALE},
    # Losses
    "KeypointMSELoss": {"loss_weight": _NOT_NEGATIVE},
    "CELoss": {"epsilon": _RATE},
    "MixedLoss": {"losses": LIST, "coef": listed(_NOT_NEGATIVE)},
    "CrossEntropyLoss": {"weight": _WEIGHTS, "top_k_percent_pixels": number(0, 1, above=True)},
    "OhemCrossEntropyLoss": {"thresh": _SHARE, "min_kept": whole(0, 10**12)},
    "DiceLoss": {"weight": _WEIGHTS, "smooth": _NOT_NEGATIVE},
    "LovaszSoftmaxLoss": {"classes": either(choice("present", "all"), listed(whole(0, 65_535)))},
    "BCELoss": {"weight": either(choice("dynamic"), NULL), "pos_weight": either(_POSITIVE, choice("dynamic"), NULL)},
    "FocalLoss": {"alpha": _SHARE, "gamma": _NOT_NEGATIVE},
    "MultiClassFocalLoss": {"num_class": _CHANNELS, "alpha": _NOT_NEGATIVE, "gamma": _NOT_NEGATIVE},
    "BootstrappedCrossEntropyLoss": {"min_K": _COUNT, "loss_th": _NOT_NEGATIVE, "weight": _WEIGHTS},
    # Optimizers, all together, and their parts
    "optimizer": {
        "momentum": _RATE,
        "use_nesterov": SWITCH,
        "beta1": _RATE,
        "beta2": _RATE,
        "epsilon": _POSITIVE,
        "lazy_mode": SWITCH,
        "weight_decay": either(_NOT_NEGATIVE, NULL),
        "layerwise_decay": number(0, 1, above=True),
        "grad_clip_cfg": either(MAPPING, NULL),
        "custom_cfg": either(LIST, NULL),
        "one_dim_param_no_weight_decay": SWITCH,
    },
    "parameter group": {
        "name": Kind("a part of parameters' names", lambda value: isinstance(value, str) and value != ""),
        "lr_mult": _NOT_NEGATIVE,
        "weight_decay_mult": either(_NOT_NEGATIVE, NULL),
    },
    "ClipGradByValue": {"max": number(), "min": either(number(), NULL)},
    "ClipGradByNorm": {"clip_norm": _POSITIVE},
    "ClipGradByGlobalNorm": {"clip_norm": _POSITIVE},
    # Learning rate schedules
    "warm-up": {"warmup_iters": _ITERATIONS, "warmup_start_lr": _NOT_NEGATIVE},
    "NoamDecay": {"d_model": _COUNT, "warmup_steps": _STEPS},
    "PiecewiseDecay": {"boundaries": listed(_ITERATIONS), "values": listed(_NOT_NEGATIVE)},
    "NaturalExpDecay": {"gamma": _POSITIVE},
    "InverseTimeDecay": {"gamma": _NOT_NEGATIVE},
    "PolynomialDecay": {
        "decay_steps": _STEPS, "end_lr": _NOT_NEGATIVE, "power": _NOT_NEGATIVE, "cycle": SWITCH
    },
    "LinearWarmup": {"warmup_steps": _ITERATIONS, "start_lr": _NOT_NEGATIVE, "end_lr": _NOT_NEGATIVE},
    "ExponentialDecay": {"gamma": number(0, 1, above=True, below=True)},
    "MultiStepDecay": {"milestones": listed(_ITERATIONS), "gamma": number(0, 1, above=True, below=True)},
    "StepDecay": {"step_size": _STEPS, "gamma": number(0, 1, above=True, below=True)},
    "ReduceOnPlateau": {
        "mode": choice("min", "max"),
        "factor": number(0, 1, above=True, below=True),
        "patience": _ITERATIONS,
        "threshold": _NOT_NEGATIVE,
        "threshold_mode": choice("rel", "abs"),
        "cooldown": _ITERATIONS,
        "min_lr": _NOT_NEGATIVE,
        "epsilon": _NOT_NEGATIVE,
    },
    "CosineAnnealingDecay": {"T_max": _STEPS, "eta_min": _NOT_NEGATIVE},
    "CosineAnnealingWarmRestarts": {"T_0": _STEPS, "T_mult": _COUNT, "eta_min": _NOT_NEGATIVE},
    "OneCycleLR": {
        "max_learning_rate": _POSITIVE,
        "total_steps": _STEPS,
        "divide_factor": _POSITIVE,
        "end_learning_rate": _NOT_NEGATIVE,
        "phase_pct": _SHARE,
        "anneal_strategy": choice("cos", "linear"),
        "three_phase": SWITCH,
    },
    "CyclicLR": {
        "base_learning_rate": _POSITIVE,
        "max_learning_rate": _POSITIVE,
        "step_size_up": _STEPS,
        "step_size_down": either(_STEPS, NULL),
        "mode": choice("triangular", "triangular2", "exp_range"),
        "exp_gamma": _POSITIVE,
        "scale_fn": NOTHING,
        "scale_mode": choice("cycle", "iterations"),
    },
    "LinearLR": {
        "total_steps": _STEPS,
        "start_factor": number(0, 1, above=True),
        "end_factor": number(0, 1),
    },
}  # fmt: skip


class Description(NamedTuple):
    """The arguments of a component.

    Args:
        kinds: The kind of each argument by its name.
        required: The names of those without a default.
        is_open: Whether it takes arguments of other names too.
    """

    kinds: Mapping[str, Kind]
    required: tuple[str, ...]
    is_open: bool


@functools.cache
def describe(component: Callable) -> Description:
    """Describe the arguments of a class or function."""
    target = _constructor(component)
    own = RANGES.get(component.__name__, {})
    rows, kinds, required, is_open = {**RANGES["any"], **own}, {}, [], True
    for part in (target, *_bases(target)):
        parameters = inspect.signature(part).parameters.values()
        named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name not in kinds]
        hints = _annotations(part)
        kinds |= {p.name: _kind(p, rows.get(p.name), hints.get(p.name)) for p in named}
        required += [p.name for p in named if p.default is p.empty]
        is_open = any(p.kind is p.VAR_KEYWORD for p in parameters)
        if not is_open:
            break
    if is_open and _is_paddlesegs(target):  # what is not in the table it takes and forgets
        kinds, is_open = {**own, **kinds}, False
    # A function that hands all it is given to a class gives some arguments of the class itself.
    return Description(kinds, tuple(required) if target is inspect.unwrap(component) else (), is_open)


def _bases(target: Callable) -> list[type]:
    """Return the classes of PaddleSeg that the constructor of a class may hand other arguments to."""
    return [base for base in inspect.getmro(target)[1:] if _is_paddlesegs(base)] if inspect.isclass(target) else []


def _is_paddlesegs(target: Callable) -> bool:
    return target.__module__.startswith("paddleseg.")


def _kind(parameter: inspect.Parameter, row: Kind | None, annotation: Any) -> Kind:
    default = parameter.default
    if row is not None:
        kind = row
    elif annotation is not None:
        kind = kind_of_annotation(annotation)
    else:
        kind = ANYTHING if default is parameter.empty else kind_of_default(default)
    if default is None and not kind.accepts(None):
        return either(kind, NULL)
    return kind


def _constructor(component: Callable) -> Callable:
    """Return the class or function whose signature has the arguments of a component.

    Many of PaddleSeg's networks are functions that hand all they are given to a class, which is the first in their
    code.
    """
    target = inspect.unwrap(component)
    if not inspect.isfunction(target) or inspect.getfullargspec(target).varkw is None:
        return target
    names = (target.__globals__.get(name) for name in target.__code__.co_names)
    return next(filter(inspect.isclass, names), target)


def _annotations(target: Callable) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except NameError:  # Paddle imports some names for type checkers alone
        return {}


def check_arguments(
    where: str, component: Callable, arguments: Mapping[str, Any], name: str = "", supplied: Collection[str] = ()
) -> None:
    """Check the names, types and ranges of the arguments of a class or function.

    Args:
        where: The place of the arguments in the config, for messages.
        component: The class or function.
        arguments: What it is to be called with.
        name: The name of the component in configs; its own by default.
        supplied: Required arguments that are added later.

    Raises:
        UserError: An argument is unknown, missing, or not what it may be.
    """
    kinds, required, is_open = describe(component)
    kind = f"argument of {name or component.__name__}"
    required = [name for name in required if name not in supplied]
    check_section(where, arguments, kinds, required, kind, is_open)


def checks_arguments(constructor: Callable) -> Callable:
    """Decorate the constructor of a class so that it first checks its arguments by the description of the class."""
    signature = inspect.signature(constructor)

    @functools.wraps(constructor)
    def checked(self: Any, *arguments: Any, **named: Any) -> None:
        owner = next(cls for cls in type(self).__mro__ if vars(cls).get("__init__") is checked)
        given = dict(signature.bind(self, *arguments, **named).arguments)
        del given["self"]
        check_arguments(owner.__name__, owner, given)
        constructor(self, *arguments, **named)

    return checked


def check_section(
    where: str,
    section: Any,
    kinds: Mapping[str, Kind],
    required: Collection[str] = (),
    kind: str = "key",
    is_open: bool = False,
) -> None:
    """Check the keys and values of a mapping.

    Args:
        where: The place of the mapping in the config, for messages.
        section: What the config holds there.
        kinds: What the value of each key may be.
        required: Keys that it must have.
        kind: What a key is called in messages.
        is_open: Whether it may have other keys, with any values.

    Raises:
        UserError: It is no mapping, or a key is unknown, missing, or has a value that it may not have.
    """
    if not isinstance(section, Mapping):
        raise UserError(f"{where} must be a mapping with the keys {', '.join(kinds)}, got {shown(section)}")
    for key in section:
        if key not in kinds and not is_open:
            raise unknown(kind, key, kinds, where)
    for key in required:
        if key not in section:
            raise UserError(f"{where}.{key} is missing; it must be {kinds[key].valid}")
    for key, value in section.items():
        if key in kinds and not kinds[key].accepts(value):
            raise UserError(f"{where}.{key} must be {kinds[key].valid}, got {shown(value)}")
