"""The same work on many files, on all cores, with a progress bar."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import cv2
from tqdm import tqdm

from paddle_rt.errors import InternalError
from paddle_rt.stderr import separate_python
from paddle_rt.workers import start_worker

FEWEST = 64  # items for which processes are started; fewer are done sooner than those have started


def map_on_all_cores(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    description: str,
    unit: str = "file",
    num_workers: int | None = None,
) -> Iterator[Any]:
    """Yield what a function returns for each item, in order, with a progress bar where that takes long.

    Args:
        function: Can be sent to another process; its exceptions end the work and are raised here.
        items: What it is called with.
        description: What the progress bar says.
        unit: What the progress bar counts.
        num_workers: Processes; None for one on each core, 0 or 1 for none beside this one.

    Raises:
        InternalError: A process was ended from outside, such as for want of memory.
    """
    workers = len(os.sched_getaffinity(0)) if num_workers is None else num_workers
    bar = {"desc": description, "total": len(items), "unit": unit, "delay": 2, "leave": False, "disable": None}
    if workers <= 1 or len(items) < FEWEST:
        yield from tqdm(map(function, items), **bar)
        return
    # New processes, since a copy of one that has imported Paddle has only a part of its threads.
    context, chunk = multiprocessing.get_context("spawn"), max(1, min(32, len(items) // (4 * workers)))
    pool = ProcessPoolExecutor(workers, context, _start)
    try:
        yield from tqdm(pool.map(function, items, chunksize=chunk), **bar)
    except BrokenProcessPool as error:
        raise InternalError("a process was ended from outside, perhaps for want of memory") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start() -> None:
    start_worker()
    separate_python()
    cv2.setNumThreads(1)  # each core has a process
