"""The order of the samples and the random numbers of their augmentation, both known for any iteration."""

import random
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle

from paddle_rt.errors import UserError

# The data set's transforms draw from the generators of `random` and NumPy, which all threads share.
GENERATORS = threading.Lock()


class SampleOrder(paddle.io.BatchSampler):
    """Batches of (epoch, index) from any iteration on, without an end.

    The order within an epoch is that of Paddle's DistributedBatchSampler, which PaddleSeg uses: it depends on the epoch
    and not on the seed. The last, incomplete batch of an epoch is left out.

    Args:
        length: Number of samples of an epoch.
        batch_size: Samples of a batch of this process.
        accumulate: Batches of one iteration, which are cut from one batch of `accumulate` times the size.
        start: Iterations that are done.

    Attributes:
        iterations_per_epoch: Iterations of an epoch.
        samples_per_iteration: Samples of an iteration in this process.

    Raises:
        UserError: The data set is smaller than the samples of one iteration.
    """

    def __init__(self, length: int, batch_size: int, accumulate: int = 1, start: int = 0) -> None:
        self.start, self.batch_size, self.samples_per_iteration = start, batch_size, batch_size * accumulate
        self._sampler = paddle.io.DistributedBatchSampler(
            range(length), batch_size=self.samples_per_iteration, shuffle=True, drop_last=True
        )
        self.iterations_per_epoch = len(self._sampler)
        if self.iterations_per_epoch == 0:
            raise UserError(
                f"the training data set has {length} images, fewer than one iteration takes ({batch_size} images x "
                f"{accumulate} batches x {self._sampler.nranks} processes); use a smaller --batch_size or more images"
            )

    def epoch(self, iteration: int) -> int:
        """Return the epoch, counted from 0, of an iteration, counted from 1."""
        return (iteration - 1) // self.iterations_per_epoch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, done = divmod(self.start, self.iterations_per_epoch)
        while True:
            self._sampler.set_epoch(epoch)
            for position, indices in enumerate(self._sampler):
                if position >= done:
                    for first in range(0, len(indices), self.batch_size):
                        yield [(epoch, index) for index in indices[first : first + self.batch_size]]
            epoch, done = epoch + 1, 0

    def __len__(self) -> int:
        return 2**31 - 1  # Paddle asks for a length; the loop takes as many batches as it needs


class SeededSamples(paddle.io.Dataset):
    """Samples by (epoch, index), whose random augmentation depends on these and a seed alone.

    Args:
        dataset: The data set, whose transforms draw from `random` and `numpy.random`.
        seed: Seed of the run.
        repeats: Number of times that an epoch visits each sample.
        weights: The probability with which each sample is drawn [N]; None for each of them once a repeat. An epoch
            then has as many samples, each as often as its probability says, rounded up or down. The draw depends on
            the seed and the epoch alone, so that a resumed run and all processes share it.
    """

    def __init__(
        self, dataset: paddle.io.Dataset, seed: int, repeats: int = 1, weights: np.ndarray | None = None
    ) -> None:
        self.dataset, self.seed, self.repeats = dataset, seed, repeats
        self._ends = None if weights is None else np.cumsum(weights) / np.sum(weights)
        self._drawn: tuple[int, np.ndarray] | None = None  # an epoch and its draw

    def __len__(self) -> int:
        return len(self.dataset) * self.repeats

    def __getitem__(self, key: tuple[int, int]) -> Any:
        epoch, index = key
        sample = index % len(self.dataset) if self._ends is None else int(self._draw(epoch)[index])
        words = np.random.SeedSequence([self.seed, epoch, index]).generate_state(8)
        with GENERATORS:
            before = random.getstate(), np.random.get_state()
            random.seed(int.from_bytes(words[:4].tobytes(), "little"))
            np.random.seed(words[4:])
            try:
                return self.dataset[sample]
            finally:
                random.setstate(before[0])
                np.random.set_state(before[1])

    def _draw(self, epoch: int) -> np.ndarray:
        """Return the sample at each place of an epoch: evenly spaced places among the sums of the probabilities."""
        drawn = self._drawn
        if drawn is None or drawn[0] != epoch:
            offset = np.random.default_rng([self.seed, epoch]).random()
            places = (np.arange(len(self)) + offset) / len(self)
            samples = np.minimum(np.searchsorted(self._ends, places, side="right"), len(self.dataset) - 1)
            self._drawn = drawn = (epoch, samples)
        return drawn[1]
