"""Optimizers and learning rates beside those that PaddleSeg's own builder makes of the same sections."""

import copy

import numpy as np
import paddle
import pytest
from paddleseg.cvlibs import Config, SegBuilder

from paddle_rt.config import optimizer as ours
from paddle_rt.models.rtformer import RTFormer
from tests.helpers import TINY, message, randomize

ITERS = 12
POLYNOMIAL = {"type": "PolynomialDecay", "learning_rate": 0.01, "end_lr": 1e-5, "power": 0.9}
GROUPS = [
    {"name": "conv1", "lr_mult": 0.0},
    {"name": "seghead", "lr_mult": 10.0, "weight_decay_mult": 0.5},
    {"name": "bias", "weight_decay_mult": 0.0},
]
OPTIMIZERS = {
    "sgd": {"type": "sgd", "weight_decay": 4e-5},
    "sgd_with_momentum": {"type": "SGD", "momentum": 0.8, "weight_decay": 5e-4},
    "momentum": {"type": "Momentum", "use_nesterov": True},
    "adam": {"type": "adam", "beta1": 0.8, "weight_decay": 1e-3},
    "adamw": {"type": "AdamW"},
    "adamw_groups": {"type": "AdamW", "weight_decay": 0.1, "custom_cfg": GROUPS},
    "momentum_groups": {"type": "Momentum", "weight_decay": 0.1, "custom_cfg": GROUPS},
    "groups_without_decay": {"type": "SGD", "custom_cfg": GROUPS},
    "global_norm": {"type": "SGD", "grad_clip_cfg": {"name": "ClipGradByGlobalNorm", "clip_norm": 0.5}},
    "norm": {"type": "SGD", "grad_clip_cfg": {"name": "ClipGradByNorm", "clip_norm": 0.1}},
    "value": {"type": "Adam", "grad_clip_cfg": {"name": "ClipGradByValue", "max": 0.1}, "custom_cfg": GROUPS},
}
SCHEDULES = {
    "polynomial": POLYNOMIAL,
    "polynomial_warm": {**POLYNOMIAL, "warmup_iters": 4, "warmup_start_lr": 1e-6},
    "polynomial_steps": {**POLYNOMIAL, "decay_steps": 5},
    "long_warm": {**POLYNOMIAL, "warmup_iters": 20, "warmup_start_lr": 1e-6},
    "piecewise": {"type": "PiecewiseDecay", "boundaries": [3, 7], "values": [0.1, 0.01, 0.001]},
    "cosine_warm": {
        "type": "CosineAnnealingDecay",
        "learning_rate": 0.1,
        "T_max": 9,
        "warmup_iters": 3,
        "warmup_start_lr": 0,
    },
    "steps": {"type": "MultiStepDecay", "learning_rate": 0.1, "milestones": [2, 5], "gamma": 0.3},
}


class Sections(Config):
    """PaddleSeg's config of an optimizer and a schedule."""

    def __init__(self, optimizer: dict, schedule: dict) -> None:
        self.dic = {"iters": ITERS, "optimizer": copy.deepcopy(optimizer), "lr_scheduler": copy.deepcopy(schedule)}


class Builder(SegBuilder):
    """PaddleSeg's builder around a network that is there."""

    model = None


def tiny_network() -> RTFormer:
    with paddle.utils.unique_name.guard():
        network = RTFormer(5, **TINY, lr_mult=1.0)  # PaddleSeg's groups set the factors of all parameters to 1
    randomize(network)
    next(network.parameters().__iter__()).stop_gradient = True
    return network


def trained(network: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer) -> tuple[list[float], dict]:
    """Take steps with gradients of one seed; return learning rates and weights."""
    rng, rates = np.random.default_rng(0), []
    for _ in range(ITERS):
        for parameter in network.parameters():
            if not parameter.stop_gradient:
                parameter.grad = paddle.to_tensor(rng.standard_normal(parameter.shape).astype("float32"))
        rates.append(optimizer.get_lr())
        optimizer.step()
        optimizer._learning_rate.step()
    return rates, {name: value.numpy() for name, value in network.state_dict().items()}


def compare(optimizer: dict, schedule: dict) -> None:
    ours.check_optimizer(optimizer)
    ours.check_schedule(schedule, ITERS)
    theirs = tiny_network()
    builder = Builder(Sections(optimizer, schedule))
    builder.model = theirs
    expected_rates, expected = trained(theirs, builder.optimizer)
    network = tiny_network()
    built = ours.build_optimizer(optimizer, network, ours.build_schedule(schedule, ITERS))
    rates, weights = trained(network, built)
    assert rates == expected_rates
    assert type(built) is type(builder.optimizer)
    for name, value in expected.items():
        assert np.array_equal(weights[name], value), f"{name} differs by {np.abs(weights[name] - value).max():.1e}"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_is_paddlesegs(name):
    compare(OPTIMIZERS[name], POLYNOMIAL)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_is_paddlesegs(name):
    compare(OPTIMIZERS["sgd"], SCHEDULES[name])


def test_layerwise_decay_is_paddlesegs():
    """AdamWDL_CAE of PaddleSeg itself, built through the bridge."""
    section = {"type": "AdamWDL_CAE", "layerwise_decay": 0.65, "weight_decay": 0.05}
    ours.check_optimizer(section)

    class Trunk(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.patch_embed, self.blocks = paddle.nn.Linear(3, 3), paddle.nn.LayerList([paddle.nn.Linear(3, 3)])

        def no_weight_decay(self) -> set:
            return set()

        def get_num_layers(self) -> int:
            return 1

    class Whole(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = Trunk()

    schedule = ours.build_schedule(POLYNOMIAL, ITERS)
    built = ours.build_optimizer(section, Whole(), schedule)
    assert type(built).__name__ == "AdamWDL" and built._learning_rate is schedule


class Factors(paddle.nn.Layer):
    """Two layers with factors of the learning rate and one with a regularizer of its own, all with weights of 1."""

    def __init__(self) -> None:
        super().__init__()

        def layer(**settings: object) -> paddle.nn.Linear:
            attribute = paddle.ParamAttr(initializer=paddle.nn.initializer.Constant(1.0), **settings)
            return paddle.nn.Linear(1, 1, weight_attr=attribute, bias_attr=False)

        self.trunk, self.head = layer(), layer(learning_rate=10.0)
        self.plain = layer(regularizer=paddle.regularizer.L2Decay(0.0))


@pytest.mark.parametrize(
    ("groups", "factors", "decays"),
    [
        ([], (1, 10, 1), (1, 1, 0)),
        ([{"name": "trunk", "lr_mult": 0.0}], (0, 10, 1), (1, 1, 0)),
        ([{"name": "head", "weight_decay_mult": 0.5}], (1, 10, 1), (1, 0.5, 0)),
        ([{"name": "head", "lr_mult": 3.0}, {"name": "plain", "weight_decay_mult": 2.0}], (1, 3, 1), (1, 1, 2)),
        ([{"name": "weight"}], (1, 10, 1), (1, 1, 0)),
    ],
)
@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
def test_groups_change_only_what_they_name(kind, groups, factors, decays):
    """One step from weights of 1 with gradients of 1, beside the formulas of SGD and AdamW."""
    network = Factors()
    section = {"type": kind, "weight_decay": 0.1, **({"custom_cfg": groups} if groups else {})}
    ours.check_optimizer(section)
    built = ours.build_optimizer(section, network, ours.build_schedule({**POLYNOMIAL, "learning_rate": 0.01}, ITERS))
    for parameter in network.parameters():
        parameter.grad = paddle.ones_like(parameter)
    built.step()
    if kind == "AdamW":  # decays every weight that no group excepts, whatever its own regularizer
        decays = [decay or 1 for decay in decays]
        expected = [
            1 - 0.01 * factor * 0.1 * decay - 0.01 * factor for factor, decay in zip(factors, decays, strict=True)
        ]
    else:
        expected = [1 - 0.01 * factor * (1 + 0.1 * decay) for factor, decay in zip(factors, decays, strict=True)]
    found = [float(layer.weight) for layer in (network.trunk, network.head, network.plain)]
    error = np.abs(np.array(found) - expected).max()
    print(f"{kind}, {groups}: {error:.1e}")
    assert error < 1e-6


def test_groups_say_what_they_overrule(caplog):
    caplog.set_level("INFO", logger="paddle_rt.config.optimizer")
    schedule, network = ours.build_schedule(POLYNOMIAL, ITERS), Factors()
    ours.build_optimizer({"type": "SGD", "custom_cfg": [{"name": "head", "lr_mult": 2.0}]}, network, schedule)
    assert "in place of the network's own lr_mult [10.0]" in caplog.text
    clip = {"grad_clip_cfg": {"name": "ClipGradByGlobalNorm", "clip_norm": 1.0}}
    groups = {"custom_cfg": [{"name": "head", "weight_decay_mult": 0.0}]}
    ours.build_optimizer({"type": "SGD", **groups, **clip}, Factors(), schedule)
    assert "changes no weight decay, since optimizer.weight_decay is not set" in caplog.text
    assert "the norm is that of each group" in caplog.text
    twice = {"type": "SGD", "custom_cfg": [{"name": "hea", "lr_mult": 2.0}, {"name": "head", "lr_mult": 3.0}]}
    assert "belong to groups before" in message(ours.build_optimizer, twice, Factors(), schedule)
    frozen = Factors()
    frozen.trunk.weight.stop_gradient = True
    section = {"type": "AdamW", "custom_cfg": [{"name": "trunk", "lr_mult": 2.0}]}
    assert len(ours.build_optimizer(section, frozen, schedule)._param_groups) == 1
