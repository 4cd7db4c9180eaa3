"""Training of any task: the loop, what it saves, and how it goes on after an interruption."""

from paddle_rt.training.loop import fit, train
from paddle_rt.training.options import TrainOptions
from paddle_rt.training.signals import Interrupted

__all__ = ["Interrupted", "TrainOptions", "fit", "train"]
