"""Train by a config, and resume a copy of the run from its middle: python -m tests.training.run_task CONFIG FOLDER"""

import pathlib
import shutil
import sys

import paddle

from paddle_rt.config import load_config
from paddle_rt.training import TrainOptions, train

ITERS, MIDDLE = 4, 2


def train_whole_and_resumed(config: str, folder: pathlib.Path) -> None:
    """Train the runs `whole` and `resumed` below a folder; in several processes, each has to call it."""
    settings = dict(device="cpu", seed=1, do_eval=True, use_ema=True, accumulate=2, log_iters=1, save_interval=MIDDLE)
    train(load_config(config, iters=ITERS), TrainOptions(str(folder / "whole"), **settings))
    if paddle.distributed.get_rank() == 0:
        shutil.copytree(folder / "whole", folder / "resumed")
        shutil.rmtree(folder / f"resumed/iter_{ITERS}")
    if paddle.distributed.get_world_size() > 1:
        paddle.distributed.barrier()
    train(load_config(config, iters=ITERS), TrainOptions(str(folder / "resumed"), resume_model="auto", **settings))


if __name__ == "__main__":
    train_whole_and_resumed(sys.argv[1], pathlib.Path(sys.argv[2]))
