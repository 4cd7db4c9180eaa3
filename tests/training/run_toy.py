"""Train the toy task in a process of its own: python -m tests.training.run_toy ITERS '{"save_dir": ...}'"""

import json
import logging
import sys

import paddle

from paddle_rt.training import Interrupted, TrainOptions, fit
from paddle_rt.training.devices import set_seed, set_up
from paddle_rt.training.loop import Parts
from paddle_rt.training.run_folder import claim
from tests.training.toy import BrightnessData, BrightnessNetwork, BrightnessTask

SCORED = 3  # every evaluation takes as long as a few iterations


def parts(network: paddle.nn.Layer, samples: int = 11, rate: float = 1e-2) -> Parts:
    """Build what the toy task trains; 11 samples in batches of 2 leave one out at the end of an epoch."""
    poly = paddle.optimizer.lr.PolynomialDecay(rate, 40)
    scheduler = paddle.optimizer.lr.LinearWarmup(poly, 3, 0.0, rate)
    optimizer = paddle.optimizer.AdamW(scheduler, parameters=network.parameters(), weight_decay=0.01)
    val_data = BrightnessData(SCORED, first=100, augment=False)
    return Parts(network, optimizer, BrightnessTask({}), BrightnessData(samples), val_data)


def run(iters: int, options: TrainOptions, batch_size: int = 2):
    """Train a new toy network and return the state at the end."""
    with claim(options.save_dir), paddle.utils.unique_name.guard():
        set_seed(options.seed)
        network = BrightnessNetwork()
        set_seed(options.seed)
        return fit(parts(network), options, iters, batch_size)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    chosen = TrainOptions(**{"device": "cpu", "seed": 1, "do_eval": True, **json.loads(sys.argv[2])})
    set_up("cpu")
    try:
        run(int(sys.argv[1]), chosen)
    except Interrupted as error:
        print(error.checkpoint, file=sys.stderr)
        sys.exit(error.exit_code)
