"""Configs in PaddleSeg's schema: read, overridden, checked to the last key, and built."""

from paddle_rt.config.build import build_network, build_optimizer, build_task, trained_network
from paddle_rt.config.load import Config, load_config

__all__ = ["Config", "build_network", "build_optimizer", "build_task", "load_config", "trained_network"]
