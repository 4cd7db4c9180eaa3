"""Oversampling of rare classes: how often each image is drawn while training."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import paddle
from tqdm import tqdm

from paddle_rt.errors import UserError
from paddle_rt.imaging.labels import count_values
from paddle_rt.tasks.segmentation.data_check import read_labels_of

SAMPLERS = ("class_balanced",)


def class_balanced_weights(dataset: paddle.io.Dataset) -> np.ndarray:
    """Return the weights of images whose draws are those of a class first, each as often, and of an image that has it.

    All labels are read once; in several processes each reads its share. An image without a labelled pixel is not drawn.

    Args:
        dataset: The training data.

    Returns:
        The probability of each image, float64 [N].

    Raises:
        UserError: A label cannot be read, or no pixel of any is labelled.
    """
    rank, ranks = paddle.distributed.get_rank(), paddle.distributed.get_world_size()
    indices = range(rank, len(dataset), ranks)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = pool.map(lambda index: _classes_of(dataset, index), indices)
        bar = {"unit": "img", "delay": 2, "leave": False, "disable": rank > 0 or None}
        found = list(tqdm(rows, "classes of the images", len(indices), **bar))
    parts = [np.array(found, bool).reshape(-1, dataset.num_classes)]
    if ranks > 1:
        own, parts = parts[0], []
        paddle.distributed.all_gather_object(parts, own)
    present = np.zeros((len(dataset), dataset.num_classes), bool)
    for first, part in enumerate(parts):
        present[first::ranks] = part
    return balanced(present)


def balanced(present: np.ndarray) -> np.ndarray:
    """Return the probability of each image, given which classes it holds. Shape: bool [N, C] to float64 [N].

    Raises:
        UserError: No image holds a class.
    """
    images = present.sum(axis=0)  # of each class
    if not images.any():
        raise UserError("sampler class_balanced: no pixel of the training labels belongs to a class")
    return (present[:, images > 0] / images[images > 0]).mean(axis=1)


def _classes_of(dataset: paddle.io.Dataset, index: int) -> np.ndarray:
    present = count_values(read_labels_of(dataset, index)) > 0
    if 0 <= dataset.ignore_index < present.size:
        present[dataset.ignore_index] = False
    return present[: dataset.num_classes]
