"""What is wrong with data sets as a whole, found before anything is trained on them.

Single files are checked where they are read. Here a bounded number of them is read ahead, and what no single file can
show is looked for: classes that no label holds, labels that ignore everything, images that occur twice, and sizes that
do not fit into one batch. What makes training pointless is refused, the rest is a warning.
"""

import logging
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import paddle
from tqdm import tqdm

from paddle_rt.errors import UserError
from paddle_rt.imaging import check_labels, read_image, read_label
from paddle_rt.imaging.labels import count_values
from paddle_rt.tasks.loader import Loader
from paddle_rt.tasks.segmentation.datasets import LabelledImages
from paddle_rt.tasks.segmentation.street_dataset import StreetScenes
from paddle_rt.tasks.segmentation.transforms import check_same_size

logger = logging.getLogger(__name__)

MOST_LABELS = 200  # that are read of each data set
MOST_IMAGES = 16
MOST_SECONDS = 10.0  # for the labels, and for the images, of each data set
_MOST_SIZES = 4  # of images that are put into one batch
_SHOWN = 10  # names in a message


def check_data(datasets: Mapping[str, paddle.io.Dataset], class_names: Sequence[str], batch_size: int) -> None:
    """Look at the data sets of a training run; StreetScenes, which is not read from files, is left out.

    Args:
        datasets: "train_dataset" and, where there is one, "val_dataset", as the task builds them.
        class_names: Names of the classes.
        batch_size: Samples of a training batch.

    Raises:
        UserError: A file that was read ahead is missing or wrong, no label or only one class besides the ignored label
            is there to learn from, or images of different sizes would meet in one batch.
    """
    from_files = {part: data for part, data in datasets.items() if not isinstance(data, StreetScenes)}
    _warn_of_duplicates(from_files)
    for part, dataset in from_files.items():
        lossy = [label for _, label in dataset.file_list if label.lower().endswith((".jpg", ".jpeg"))]
        if lossy:
            logger.warning("%s: labels are no exact numbers in JPEG, such as %s; write them as PNG", part, lossy[0])
        labels, images = _read_labels(part, dataset), _read_images(part, dataset)
        logger.info(
            "%s: %d of %d labels and %d images were looked at; %.0f %% of the pixels are not labelled",
            part, labels.number, len(dataset), len(images), 100 * labels.ignored_share,
        )  # fmt: skip
        _check_classes(part, dataset, labels, class_names)
        if part == "train_dataset":
            _try_batch(dataset, images, batch_size)


@dataclass
class _Labels:
    """What was counted in the labels of a data set.

    Args:
        pixels: Number of pixels of each value.
        number: How many labels were looked at.
        ignore_index: The value of pixels that do not count.
    """

    pixels: Counter[int]
    number: int
    ignore_index: int

    @property
    def classes(self) -> set[int]:
        """The classes that occur."""
        return {value for value, count in self.pixels.items() if count and value != self.ignore_index}

    @property
    def ignored_share(self) -> float:
        """The share of the pixels that do not count."""
        return self.pixels[self.ignore_index] / max(self.pixels.total(), 1)


def _sample(length: int, most: int) -> list[int]:
    """Return evenly spaced indices in an order in which every beginning is spread over the whole, too."""
    indices = np.unique(np.linspace(0, length - 1, min(most, length)).astype(int))
    return np.random.default_rng(0).permutation(indices).tolist()


def _in_time(indices: Sequence[int], description: str) -> Iterator[int]:
    """Yield indices until the time is over, with a progress bar where it takes long."""
    end = time.monotonic() + MOST_SECONDS
    for index in tqdm(indices, desc=description, unit="file", delay=2, leave=False, disable=None):
        yield index
        if time.monotonic() > end:
            return


def _read_labels(part: str, dataset: paddle.io.Dataset) -> _Labels:
    found = _Labels(Counter(), 0, dataset.ignore_index)
    for index in _in_time(_sample(len(dataset), MOST_LABELS), f"check the labels of {part}"):
        found.pixels.update(dict(enumerate(count_values(_read_label(dataset, index)).tolist())))
        found.number += 1
    return found


def _read_label(dataset: paddle.io.Dataset, index: int) -> np.ndarray:
    image, label = dataset.file_list[index]
    labels = dataset.read_label(label) if isinstance(dataset, LabelledImages) else label
    if isinstance(labels, str):
        return read_label(labels, dataset.num_classes, dataset.ignore_index)
    check_labels(labels, dataset.num_classes, dataset.ignore_index, f"the label of {image}")
    return labels


def _read_images(part: str, dataset: paddle.io.Dataset) -> dict[int, tuple[int, int]]:
    """Return the size (width, height) of each image that was looked at, by its index."""
    sizes = {}
    for index in _in_time(_sample(len(dataset), MOST_IMAGES), f"check the images of {part}"):
        image, label = dataset.file_list[index]
        pixels = read_image(image, dataset.img_channels)
        check_same_size(_read_label(dataset, index), pixels, label, image)
        sizes[index] = pixels.shape[1::-1]
    return sizes


def _check_classes(part: str, dataset: paddle.io.Dataset, labels: _Labels, class_names: Sequence[str]) -> None:
    """Refuse labels from which nothing can be learned if all were looked at, and warn of them otherwise."""
    looked_at = f"{part}: {labels.number} of {len(dataset)} labels were looked at"
    problem, ignored = None, labels.ignore_index
    if not labels.classes:
        problem = f"{looked_at}, and every pixel is {ignored}, which is ignored"
    elif labels.classes == {0} and dataset.num_classes > 1 and labels.pixels[ignored]:
        problem = (
            f"{looked_at}, and no label holds class 1: the labels hold 0 and {ignored}, and {ignored} is ignored. Are "
            f"these masks of 0 and {ignored}? Write 1 in the place of {ignored}, or set ignore_index to another number"
        )
    if problem is not None and labels.number == len(dataset):
        raise UserError(problem)
    names = dict(enumerate(class_names))
    if ignored in names:
        logger.warning("%s.ignore_index is %d: %s is neither trained nor scored", part, ignored, names.pop(ignored))
    missing = [name for number, name in names.items() if number not in labels.classes]
    if problem is not None:
        logger.warning(problem)
    elif missing and part == "train_dataset":
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        logger.warning("%s, and none holds %s%s", looked_at, ", ".join(missing[:_SHOWN]), more)


def _warn_of_duplicates(datasets: Mapping[str, paddle.io.Dataset]) -> None:
    images = {part: Counter(os.path.abspath(pair[0]) for pair in data.file_list) for part, data in datasets.items()}
    for part, count in images.items():
        twice = [image for image, number in count.items() if number > 1]
        if twice:
            logger.warning("%s: images that occur more than once: %d, such as %s", part, len(twice), twice[0])
    common = sorted(set.intersection(*map(set, images.values()))) if len(images) > 1 else []
    if common:
        text = "images that are in both train_dataset and val_dataset: %d, such as %s; scores on them say little"
        logger.warning(text, len(common), common[0])


def _try_batch(dataset: paddle.io.Dataset, sizes: Mapping[int, tuple[int, int]], batch_size: int) -> None:
    """Run the transforms on an image of each size that was found, which in a batch must give one size."""
    indices = list({size: index for index, size in sizes.items()}.values())[:_MOST_SIZES]
    with _same_random_numbers():
        for _ in Loader(paddle.io.Subset(dataset, indices), batch_size=len(indices) if batch_size > 1 else 1):
            pass


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Leave the generators that transforms draw from as they were."""
    before = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
