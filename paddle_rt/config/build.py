"""What a config describes: its task, its network and its optimizer."""

import logging
from typing import Any

import paddle
import yaml

from paddle_rt import components
from paddle_rt.checkpoint import load
from paddle_rt.config import optimizer
from paddle_rt.config.load import Config
from paddle_rt.models.base import Network
from paddle_rt.tasks import base

logger = logging.getLogger(__name__)


def build_task(config: Config) -> base.Task:
    """Return the task of a config."""
    return base.find_task(config.task_name)(config.values)


def build_network(config: Config) -> Network:
    """Build the network of a config, with its pretrained weights where it names some.

    Raises:
        UserError: The network refuses its arguments, or the weights cannot be read.
    """
    _log("model", config.values["model"])
    return components.build_network(config.values["model"])


def trained_network(config: Config, checkpoint: str) -> Network:
    """Build the network of a config with the weights of a checkpoint, which must fit to the last name.

    Args:
        config: Its `pretrained` weights are not read: every weight comes from the checkpoint.
        checkpoint: A path, as `paddle_rt.checkpoint.read_state_dict` takes it.

    Raises:
        UserError: The checkpoint cannot be read or does not fit.
    """
    section = without_pretrained(config.values["model"])
    network = components.build_network(section)
    load(network, checkpoint)
    return network


def without_pretrained(section: dict[str, Any]) -> dict[str, Any]:
    """Return a `model` section that starts from random weights."""
    section = {key: value for key, value in section.items() if key != "pretrained"}
    if isinstance(section.get("backbone"), dict):
        section["backbone"] = {key: value for key, value in section["backbone"].items() if key != "pretrained"}
    return section


def build_optimizer(config: Config, network: paddle.nn.Layer) -> paddle.optimizer.Optimizer:
    """Build the optimizer of a config for a network; its learning rate is the config's schedule.

    Raises:
        UserError: It refuses its arguments, or one of its groups has no parameter of the network.
    """
    _log("optimizer", config.values["optimizer"])
    schedule = optimizer.build_schedule(config.values["lr_scheduler"], config.iters)
    return optimizer.build_optimizer(config.values["optimizer"], network, schedule)


def _log(part: str, section: dict[str, Any]) -> None:
    logger.info("The config of the %s:\n%s", part, yaml.dump({part: section}).rstrip())
