"""A process of `benchmark.loops`: trains, and waits for its turn after every few iterations.

python -m paddle_rt.benchmark.loop_process LOOP CHOOSES_CPU CONFIG SAVE_DIR STEPS
"""

import sys
import time
from typing import Any


def main() -> None:
    """Train with the loop that the command line names."""
    loop, chooses_cpu, path, save_dir, steps = sys.argv[1:]
    if chooses_cpu == "True":
        from paddle_rt.cpu import import_paddle

        import_paddle()
    from paddle_rt.config import load_config
    from paddle_rt.tasks.segmentation.task import SegmentationTask
    from paddle_rt.training import TrainOptions, train

    if loop == "paddleseg":
        from paddle_rt.paddleseg.loop import train
    _wait_within(SegmentationTask, int(steps))
    train(load_config(path), TrainOptions(save_dir, "cpu", seed=0, log_iters=10, save_interval=10**9))


def _wait_within(task: type, steps: int) -> None:
    """Make the task's losses, which every iteration computes once, wait after `steps` iterations."""
    losses, calls, start = task.losses, 0, 0.0

    def paced(self: Any, outputs: Any, batch: Any) -> Any:
        nonlocal calls, start
        if calls % steps == 0:
            if calls:
                sys.stdout.write(f"seconds {time.perf_counter() - start}\n")
                sys.stdout.flush()
            sys.stdin.readline()
            start = time.perf_counter()
        calls += 1
        return losses(self, outputs, batch)

    task.losses = paced


if __name__ == "__main__":
    main()
