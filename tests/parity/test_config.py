"""Optimizers and learning rates beside those that PaddleSeg's own builder makes of the same sections."""

import copy

import numpy as np
import paddle
import pytest
from paddleseg.cvlibs import Config, SegBuilder

from paddle_rt.config import optimizer as ours
from paddle_rt.models.rtformer import RTFormer
from tests.helpers import TINY, randomize

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
        network = RTFormer(5, **TINY)
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
