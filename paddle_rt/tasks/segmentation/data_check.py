"""What is wrong with data sets as a whole, found before anything is trained on them.

Single files are checked where they are read. Before training a bounded number of them is read ahead, and what no single
file can show is looked for: classes that no label holds, labels that ignore everything, images that occur twice, and
sizes that do not fit into one batch. What makes training pointless is refused, the rest is a warning. `analyse_config`
reads everything, and goes on after the first fault.
"""

import logging
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import paddle
from tqdm import tqdm

from paddle_rt.analysis import ADVICE, STOPS, Finding, Report, analyse
from paddle_rt.analysis.findings import ClassCounts, class_findings, file_finding
from paddle_rt.analysis.folders import pairs_and_findings
from paddle_rt.components import build_component
from paddle_rt.errors import UserError
from paddle_rt.imaging import check_labels, read_image, read_label
from paddle_rt.imaging.label_format import LabelFormat
from paddle_rt.imaging.labels import count_values
from paddle_rt.imaging.lists import read_pairs
from paddle_rt.tasks.loader import Loader
from paddle_rt.tasks.segmentation.completion import DATASETS, label_format
from paddle_rt.tasks.segmentation.datasets import Dataset, LabelledImages, dataset_catalogue
from paddle_rt.tasks.segmentation.street_dataset import StreetScenes
from paddle_rt.tasks.segmentation.transforms import check_same_size, transform_catalogue

logger = logging.getLogger(__name__)

MOST_LABELS = 200  # that are read of each data set
MOST_IMAGES = 16
MOST_SECONDS = 10.0  # for the labels, and for the images, of each data set
_NO_FILES = ("line of the list names no files", "lines of the list name no files")
_MOST_SIZES = 4  # of images that are put into one batch


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
        findings = class_findings(part, labels, class_names, part == "train_dataset")
        _report(findings, labels.number == len(dataset))
        if part == "train_dataset":
            try_batch(dataset, images, batch_size)


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


def _read_labels(part: str, dataset: paddle.io.Dataset) -> ClassCounts:
    found = ClassCounts(Counter(), Counter(), 0, len(dataset), dataset.num_classes, dataset.ignore_index)
    for index in _in_time(_sample(len(dataset), MOST_LABELS), f"check the labels of {part}"):
        counts = count_values(read_labels_of(dataset, index))
        found.add({int(value): int(counts[value]) for value in np.flatnonzero(counts)})
    return found


def read_labels_of(dataset: paddle.io.Dataset, index: int) -> np.ndarray:
    """Read the labels of an image as classes, without any transform. Shape: [H, W].

    Raises:
        UserError: They cannot be read, or a value is out of range.
    """
    if isinstance(dataset, StreetScenes):
        return dataset.clip(index)[1][-1]
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
        check_same_size(read_labels_of(dataset, index), pixels, label, image)
        sizes[index] = pixels.shape[1::-1]
    return sizes


def _report(findings: Sequence[Finding], looked_at_all: bool) -> None:
    """Refuse labels from which nothing can be learned if all were looked at, and warn of them otherwise."""
    for finding in findings:
        if finding.level != ADVICE and looked_at_all:
            raise UserError(finding.message)
        logger.warning(finding.message)


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


def try_batch(dataset: paddle.io.Dataset, sizes: Mapping[int, tuple[int, int]], batch_size: int) -> None:
    """Run the transforms on an image of each size that was found, which in a batch must give one size.

    Args:
        dataset: The training data.
        sizes: The size of each image that was looked at, by its index.
        batch_size: Samples of a training batch.

    Raises:
        UserError: The sizes of a batch differ, or a transform does not fit an image.
    """
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


def analyse_config(config: Mapping[str, Any], class_names: Sequence[str], num_workers: int | None = None) -> Report:
    """Analyse all data sets of a config of segmentation that are read from files, and go on after the first fault.

    Args:
        config: The config, checked.
        class_names: Names of the classes.
        num_workers: Processes that read files; None for one a core.

    Raises:
        UserError: All data sets are rendered, or a process was killed.
    """
    pairs, labels, findings = {}, {}, []
    for part in DATASETS:
        if config.get(part, {}).get("type") not in (None, StreetScenes.__name__):
            pairs[part], labels[part], found = _files_of(part, config[part], config["model"]["num_classes"])
            findings += found
    if not pairs:
        raise UserError("the config's data sets are rendered; there are no files to look at")
    channels = next(iter(config[part].get("img_channels", 3) for part in pairs))
    report = analyse(pairs, labels, channels=channels, class_names=class_names, known=findings, num_workers=num_workers)
    if "val_dataset" not in config:
        message = "the config has no val_dataset, on whose scores the best model is chosen"
        report.findings.append(Finding(ADVICE, "no_validation", "", message))
    return report


def batch_findings(dataset: paddle.io.Dataset, report: Report, batch_size: int) -> list[Finding]:
    """Try the transforms of the training data on images of different sizes; see `try_batch`."""
    sizes = {index: facts.size for index, facts in enumerate(report.splits["train_dataset"].facts)}
    try:
        try_batch(dataset, sizes, batch_size)
    except UserError as error:
        return [Finding(STOPS, "batch", "train_dataset", f"train_dataset: {error}")]
    return []


def _files_of(
    part: str, section: Mapping[str, Any], num_classes: int
) -> tuple[list[Sequence[str | None]], LabelFormat, list[Finding]]:
    """Return the files of a data set, how its labels stand for classes, and what is wrong with its lists or folders."""
    try:
        plain = {**section, "transforms": []}
        dataset = build_component(part, plain, {**transform_catalogue(), **dataset_catalogue()})
    except UserError as error:
        is_own = section["type"] == Dataset.__name__
        labels = label_format(section) if is_own else LabelFormat(num_classes)
        pairs, findings = _files_that_are_there(part, section) if is_own else ([], [])
        return pairs, labels, findings or [Finding(STOPS, "data_set", part, f"{part}: {error}")]
    if isinstance(dataset, LabelledImages):
        return dataset.file_list, dataset.label_format, []
    return dataset.file_list, LabelFormat(dataset.num_classes, dataset.ignore_index), []


def _files_that_are_there(part: str, section: Mapping[str, Any]) -> tuple[list[Sequence[str | None]], list[Finding]]:
    """Read the list or the folders of a data set of type Dataset as far as they can be read."""
    root, folders = section["dataset_root"], (section.get("image_root"), section.get("label_root"))
    file = section.get(f"{section['mode']}_path")
    try:
        if None not in folders:
            return pairs_and_findings(part, *(os.path.join(root, folder) for folder in folders))
        faults: list[UserError] = []
        pairs = read_pairs(file, root, section.get("separator", " "), section["mode"] == "test", faults) if file else []
    except UserError:
        return [], []
    lines = [(str(fault), str(fault)) for fault in faults]
    return pairs, file_finding(STOPS, "missing_file", part, _NO_FILES, lines)
