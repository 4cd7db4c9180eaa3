"""Batches of a dataset, in which an item that cannot be read ends the run with its own message.

Paddle's DataLoader waits for ever once reading fails without worker processes, and with them it says only that its
queue was killed. So here errors travel through it like data and are raised where the batch arrives.
"""

import json
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import paddle
from paddle.io.dataloader.collate import default_collate_fn

from paddle_rt.errors import UserError
from paddle_rt.workers import free_shared_memory, noted, start_worker

_ERROR = "error that was met while reading"


class Loader:
    """What `paddle.io.DataLoader` gives, and raises what the dataset raised.

    Args:
        dataset: Items by index.
        collate_fn: Makes a batch of a list of items.
        worker_init_fn: Is called in each process that loads items, with the number of the process.
        **arguments: What else `paddle.io.DataLoader` takes.
    """

    def __init__(
        self,
        dataset: paddle.io.Dataset,
        collate_fn: Callable = default_collate_fn,
        worker_init_fn: Callable[[int], None] | None = None,
        **arguments: Any,
    ) -> None:
        def prepare(number: int) -> None:
            start_worker()
            if worker_init_fn is not None:
                worker_init_fn(number)

        free_shared_memory()
        self.loader = paddle.io.DataLoader(
            _Items(dataset), collate_fn=_Collate(collate_fn), worker_init_fn=prepare, **arguments
        )

    def __iter__(self) -> Iterator[Any]:
        """Yield batches.

        Raises:
            UserError: A file cannot be read or is out of order, sizes in a batch differ, or a worker was killed.
            RuntimeError: The dataset failed in another way; the text is its traceback.
        """
        drawn = np.random.get_state()
        batches = iter(self.loader)
        workers = [process.pid for process in batches._workers] if self.loader.num_workers else []
        if workers:  # Paddle has drawn a seed for its processes from the generator of this one
            np.random.set_state(drawn)
        try:
            with noted(workers):
                while True:
                    try:
                        batch = next(batches)
                    except StopIteration:
                        return
                    except SystemError as error:  # what Paddle makes of a worker that is gone
                        raise UserError("a process that loads images was killed; try fewer --num_workers") from error
                    if isinstance(batch, dict) and _ERROR in batch:
                        raise _unpack(batch[_ERROR].numpy())
                    yield batch
        finally:
            # Paddle ends threads and processes by itself only where the last batch has been taken.
            if self.loader.num_workers == 0 and batches._thread is not None:
                batches._thread_done_event.set()
                batches._blocking_queue.close()
                batches._thread.join()  # Paddle would look for its end once a second
            batches._try_shutdown_all()


class _Caught:
    """Keeps an error, whatever it is, for the loader to deliver."""

    error: BaseException | None = None

    def __enter__(self) -> "_Caught":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        self.error = error
        return isinstance(error, Exception)


class _Items(paddle.io.Dataset):
    """Items, or the error that came in place of one."""

    def __init__(self, dataset: paddle.io.Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        with _Caught() as caught:
            return self.dataset[index]
        return {_ERROR: _pack(caught.error)}


class _Collate:
    def __init__(self, collate: Callable) -> None:
        self.collate = collate

    def __call__(self, items: list[Any]) -> Any:
        for item in items:
            if isinstance(item, dict) and _ERROR in item:
                return item
        with _Caught() as caught:
            return self.collate(items)
        return {_ERROR: _pack(_unequal_sizes(items) or caught.error)}


def _unequal_sizes(items: list[dict]) -> UserError | None:
    shapes = sorted({np.shape(item.get("img"))[:0:-1] for item in items})
    if len(shapes) == 1:
        return None
    return UserError(
        f"images of different sizes (width, height) in one batch: {', '.join(map(str, shapes))}; add a Resize or "
        "RandomPaddingCrop to the transforms, or use --batch_size 1"
    )


def _pack(error: Exception) -> np.ndarray:
    expected = isinstance(error, UserError | OSError | TypeError | ValueError | KeyError | cv2.error)
    text = str(error) if expected else "".join(traceback.format_exception(error))
    if expected and not isinstance(error, UserError | OSError):  # most often an argument that a transform cannot use
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"reading an item of the data set failed: {type(error).__name__}: {text} ({where.name}, {where.line})"
    return np.frombuffer(json.dumps([expected, text]).encode(), np.uint8)


def _unpack(packed: np.ndarray) -> Exception:
    expected, text = json.loads(packed.tobytes())
    return UserError(text) if expected else RuntimeError(f"the dataset failed:\n{text}")
