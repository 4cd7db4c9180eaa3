"""Optimizers with parameter groups, and learning rate schedules with a warm-up, as PaddleSeg's configs have them."""

import logging
from collections.abc import Mapping
from typing import Any

import paddle
from paddle import nn

from paddle_rt.arguments import RANGES, check_section, describe
from paddle_rt.components import check_component, construct
from paddle_rt.errors import UserError, nearest, shown, unknown
from paddle_rt.kinds import choice

logger = logging.getLogger(__name__)

# LRScheduler is the base class; LambdaDecay and MultiplicativeDecay take a function, which a config cannot hold.
SCHEDULERS = {
    name: getattr(paddle.optimizer.lr, name)
    for name in paddle.optimizer.lr.__all__
    if name not in ("LRScheduler", "LambdaDecay", "MultiplicativeDecay")
}
_WARMUP = RANGES["warm-up"]

# The arguments that a config may give, with PaddleSeg's defaults.
_ADAM = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "lazy_mode": False}
_OPTIMIZERS: dict[str, tuple[type[paddle.optimizer.Optimizer], dict[str, Any]]] = {
    "SGD": (paddle.optimizer.SGD, {}),
    "Momentum": (paddle.optimizer.Momentum, {"momentum": 0.9, "use_nesterov": False}),
    "Adam": (paddle.optimizer.Adam, _ADAM),
    "AdamW": (paddle.optimizer.AdamW, {**_ADAM, "weight_decay": 0.01, "one_dim_param_no_weight_decay": False}),
}
# The argument of a schedule in which its end follows from the run's iterations where the config does not set it.
_ENDS = {"PolynomialDecay": "decay_steps", "CosineAnnealingDecay": "T_max"}
_COMMON = {"weight_decay": None, "grad_clip_cfg": None, "custom_cfg": None}
_LAYERWISE = ("AdamWDL", "AdamWDL_CAE")  # PaddleSeg's own
_CLIPS = ("ClipGradByValue", "ClipGradByNorm", "ClipGradByGlobalNorm")


def check_optimizer(section: Mapping[str, Any]) -> None:
    """Check the `optimizer` section of a config.

    Raises:
        UserError: The type or an argument is unknown, or a value is not what it may be.
    """
    if not isinstance(section.get("type"), str):
        raise UserError(f"optimizer must be a mapping with a 'type', got {shown(section)}")
    name, arguments = _resolve(section)
    if name in _LAYERWISE:
        defaults = describe(_layerwise()[name]).kinds
    elif name in _OPTIMIZERS:
        defaults = {**_COMMON, **_OPTIMIZERS[name][1]}
    else:
        raise unknown("optimizer type", name, (*_OPTIMIZERS, *_LAYERWISE))
    kinds = {key: RANGES["optimizer"][key] for key in defaults}
    check_section("optimizer", arguments, kinds, kind=f"argument of {name}")
    for position, group in enumerate(arguments.get("custom_cfg") or []):
        where = f"optimizer.custom_cfg[{position}]"
        check_section(where, group, RANGES["parameter group"], ["name"], "key of a parameter group")
    clip = arguments.get("grad_clip_cfg")
    if clip is not None:
        where, name = "optimizer.grad_clip_cfg", {"name": choice(*_CLIPS)}
        check_section(where, clip, name, ["name"], is_open=True)
        bounds = RANGES[clip["name"]]
        check_section(where, clip, {**name, **bounds}, [next(iter(bounds))], f"argument of {clip['name']}")


def build_optimizer(
    section: Mapping[str, Any], network: nn.Layer, schedule: paddle.optimizer.lr.LRScheduler
) -> paddle.optimizer.Optimizer:
    """Build the optimizer of a network.

    Args:
        section: The `optimizer` section of a config, checked.
        network: Its parameters are optimised, in the order of `parameters()`; with `custom_cfg`, in the order of its
            groups, of which a parameter joins the first whose `name` its own name contains. A group's `lr_mult`
            replaces the factor that the network gives its parameters. All others keep theirs, but for PaddleSeg's
            layerwise optimizers; PaddleSeg sets them to 1.
        schedule: The learning rate.

    Raises:
        UserError: A group has no parameter, or the optimizer refuses its arguments.
    """
    name, arguments = _resolve(section)
    groups = arguments.get("custom_cfg") or []
    members = _group_members(network, groups)
    if name in _LAYERWISE:
        if arguments.get("weight_decay") is not None:
            arguments["weight_decay"] = float(arguments["weight_decay"])  # PaddleSeg refuses a whole number
        make = construct("optimizer", _layerwise()[name], arguments)
        return construct("optimizer", make, {"model": network, "lr": schedule})
    optimizer, defaults = _OPTIMIZERS[name]
    settings = {**_COMMON, **defaults, **arguments}
    del settings["custom_cfg"]
    decay, clip = settings.pop("weight_decay"), settings.pop("grad_clip_cfg")
    if settings.pop("one_dim_param_no_weight_decay", False):
        decays = {parameter.name for parameter in network.parameters() if parameter.ndim > 1}
        settings["apply_decay_param_fun"] = decays.__contains__
    decay = None if decay is None else float(decay)
    if clip is not None:
        clip_settings = {key: value for key, value in clip.items() if key != "name"}
        settings["grad_clip"] = construct("optimizer.grad_clip_cfg", getattr(nn, clip["name"]), clip_settings)
        if groups and clip["name"] == "ClipGradByGlobalNorm":
            logger.warning("grad_clip_cfg: the norm is that of each group of custom_cfg, not that of all gradients")
    own = {p.name: (p.optimize_attr["learning_rate"], p.regularizer) for p in network.parameters()}
    parameters = _parameter_groups(groups, members, decay) if groups else network.parameters()
    settings |= {"learning_rate": schedule, "parameters": parameters, "weight_decay": decay}
    built = construct("optimizer", optimizer, settings)
    if groups:
        _restore_own(groups, members, own)
    return built


def _resolve(section: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the optimizer's name and arguments; PaddleSeg's configs write Momentum as SGD with a momentum."""
    arguments = {key: value for key, value in section.items() if key != "type"}
    name = {"adam": "Adam", "sgd": "SGD"}.get(section["type"], section["type"])
    return ("Momentum" if name == "SGD" and "momentum" in arguments else name), arguments


def _layerwise() -> dict[str, Any]:
    from paddle_rt.paddleseg.components import components

    return {name: components("optimizers")[name] for name in _LAYERWISE}


def _group_members(network: nn.Layer, groups: list[dict]) -> list[list[paddle.Tensor]]:
    """Return the parameters of each group, and last those of none.

    Raises:
        UserError: A group has no parameter.
    """
    members: list[list[paddle.Tensor]] = [[] for _ in range(len(groups) + 1)]
    names = dict(network.named_parameters())
    for name, parameter in names.items():
        found = (number for number, group in enumerate(groups) if group["name"] in name)
        members[next(found, -1)].append(parameter)
    for group, parameters in zip(groups, members, strict=False):
        if not parameters and any(group["name"] in name for name in names):
            raise UserError(
                f"optimizer.custom_cfg: all parameters with {group['name']!r} in their names belong to groups before; "
                "put the more specific name first"
            )
        if not parameters:
            near = nearest(group["name"], {name.split(".")[0] for name in names})
            hint = f"; did you mean {near!r}?" if near else ""
            raise UserError(f"optimizer.custom_cfg: no parameter has {group['name']!r} in its name{hint}")
    return [[parameter for parameter in parameters if not parameter.stop_gradient] for parameters in members]


def _parameter_groups(
    groups: list[dict], members: list[list[paddle.Tensor]], decay: float | None
) -> list[dict[str, Any]]:
    result = []
    for group, parameters in zip([*groups, {}], members, strict=True):
        options: dict[str, Any] = {"params": parameters}
        if decay is not None and group.get("weight_decay_mult") is not None:
            options["weight_decay"] = decay * group["weight_decay_mult"]
        elif group.get("weight_decay_mult") is not None:
            logger.warning("%s changes no weight decay, since optimizer.weight_decay is not set", group)
        result.append(options)
    return [options for options in result if options["params"]]  # a group of frozen parameters is empty


def _restore_own(groups: list[dict], members: list[list[paddle.Tensor]], own: Mapping[str, tuple[float, Any]]) -> None:
    """Give parameters back what Paddle overwrites with the defaults of their group, and log what each group changes.

    Args:
        groups: The groups of the config.
        members: Their parameters, and those of no group.
        own: The factor and the regularizer that the network gave each parameter.
    """
    for number, (group, parameters) in enumerate(zip([*groups, {}], members, strict=True)):
        replaced = set()
        for parameter in parameters:
            factor, regularizer = own[parameter.name]
            if group.get("lr_mult") is not None:
                replaced.add(factor)
                factor = group["lr_mult"]
            parameter.optimize_attr["learning_rate"] = factor
            if group.get("weight_decay_mult") is None and regularizer is not None:
                parameter.regularizer = regularizer
        instead = f", in place of the network's own lr_mult {sorted(replaced - {1.0})}" if replaced - {1.0} else ""
        title = f"Parameter group {number}: {group}" if group else "Parameters in no group:"
        logger.info("%s %d parameters%s", title, len(parameters), instead)


def check_schedule(section: Mapping[str, Any], iters: int) -> None:
    """Check the `lr_scheduler` section of a config for a run of `iters` iterations.

    Raises:
        UserError: The type or an argument is unknown, or a value is wrong.
    """
    arguments = {key: value for key, value in section.items() if key not in _WARMUP}
    supplied = [_ENDS[section["type"]]] if section.get("type") in tuple(_ENDS) else []
    check_component("lr_scheduler", arguments, SCHEDULERS, supplied=supplied)
    check_section("lr_scheduler", {key: section[key] for key in _WARMUP if key in section}, _WARMUP)
    if ("warmup_iters" in section) != ("warmup_start_lr" in section):
        raise UserError("lr_scheduler needs both warmup_iters and warmup_start_lr, or neither")
    if "warmup_iters" in section and "learning_rate" not in section:
        raise UserError("lr_scheduler needs a learning_rate, at which the warm-up ends")
    build_schedule(section, iters)  # costs nothing, and finds arguments that do not fit each other


def build_schedule(section: Mapping[str, Any], iters: int) -> paddle.optimizer.lr.LRScheduler:
    """Build the learning rate schedule.

    Args:
        section: The `lr_scheduler` section of a config, checked. With `warmup_iters`, the rate rises from
            `warmup_start_lr` to `learning_rate` on a line before the schedule begins.
        iters: Iterations of the run; with the last one PolynomialDecay reaches its end where `decay_steps` is not set,
            and CosineAnnealingDecay where `T_max` is not.

    Raises:
        UserError: The schedule refuses its arguments.
    """
    arguments = {key: value for key, value in section.items() if key not in ("type", *_WARMUP)}
    warmup = section.get("warmup_iters", 0)
    if warmup >= iters:
        logger.warning("lr_scheduler.warmup_iters is %d of %d iterations: the schedule does not begin", warmup, iters)
    if section["type"] in _ENDS:
        arguments.setdefault(_ENDS[section["type"]], max(iters - warmup, 1))
    schedule = construct("lr_scheduler", SCHEDULERS[section["type"]], arguments)
    if "warmup_iters" not in section:
        return schedule
    settings = {"start_lr": section["warmup_start_lr"], "end_lr": section["learning_rate"], "warmup_steps": warmup}
    warm = paddle.optimizer.lr.LinearWarmup
    return construct("lr_scheduler's warm-up", warm, {"learning_rate": schedule, **settings})
