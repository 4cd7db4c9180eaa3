"""Looks at a folder of data and at the machine, and writes the config."""

import logging
import os
import statistics
import tempfile
import time
from pathlib import Path

from paddle_rt.analysis import Report, analyse
from paddle_rt.errors import UserError
from paddle_rt.files import whole_file
from paddle_rt.imaging.label_format import LabelFormat
from paddle_rt.imaging.lists import read_lines, read_pairs
from paddle_rt.new_config.choice import Choice, Machine, choose, iterations
from paddle_rt.new_config.text import Data, config_text
from paddle_rt.registry import list_models

SPLITS = ("train", "val", "test")
_RUNS = 3  # iterations that are measured; one is run before them
Lists = dict[str, str]


def read_folder(folder: str) -> tuple[Lists, Report]:
    """Find the lists of a folder, and read all that they name.

    Without labels.txt, what the labels hold decides how many classes there are.

    Args:
        folder: As `prepare_data` writes it: train.txt, val.txt, perhaps test.txt, and labels.txt.

    Returns:
        The list of each split, and the analysis, whose data sets have the names of the sections of a config.

    Raises:
        UserError: A list is missing or names files that are not there.
    """
    root = os.path.abspath(folder)
    lists = {split: os.path.join(root, f"{split}.txt") for split in SPLITS}
    lists = {split: path for split, path in lists.items() if os.path.exists(path)}
    for split in ("train", "val"):
        if split not in lists:
            raise UserError(f"no {split}.txt in {folder}; `paddle-rt prepare_data` makes a folder with lists")
    pairs = {f"{split}_dataset": read_pairs(path, root) for split, path in lists.items()}
    names_file = os.path.join(root, "labels.txt")
    if not os.path.exists(names_file):
        return lists, analyse(pairs)
    names = [name for _, name in read_lines(names_file)]
    return lists, analyse(pairs, LabelFormat(len(names)), class_names=names)


def write_config(
    folder: str,
    model: str,
    output: str,
    device: str = "gpu",
    hours: float = 3.0,
    found: tuple[Lists, Report] | None = None,
) -> Choice:
    """Write a config for the data of a folder.

    Args:
        folder: See `read_folder`.
        model: Name of a network for segmentation.
        output: The config's file; it must not be there yet.
        device: What is to train; the CPU where Paddle has no such device.
        hours: The longest that training may take.
        found: What `read_folder` returned, if that is known already.

    Raises:
        UserError: The folder is not as described, the config exists, or there is nothing to train on.
    """
    if os.path.exists(output):
        raise UserError(f"{output} exists, and may have been edited; name a new file by --output")
    if model not in list_models("segmentation"):
        raise UserError(f"{model} is no network for segmentation: {', '.join(list_models('segmentation'))}")
    lists, report = found or read_folder(folder)
    train = report.splits["train_dataset"]
    if not train.sizes or not train.counts.classes:
        raise UserError(f"{lists['train']} names nothing to train on; see paddle-rt check_data")
    machine = _machine(device)
    data, choice = Data(os.path.abspath(folder), lists, report.fix), choose(report, machine)
    first = config_text(output, model, data, report, machine, choice, choice.wanted_iters, None)
    seconds = _measure(first)
    iters = iterations(choice, seconds, hours)
    with whole_file(output) as part:
        part.write_text(config_text(output, model, data, report, machine, choice, iters, seconds), encoding="utf-8")
    return choice


def _machine(device: str) -> Machine:
    """Return what Paddle trains on, and make it Paddle's device."""
    import paddle

    from paddle_rt.training.devices import set_up

    set_up(device)
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    if paddle.device.get_device() == "cpu":
        return Machine("cpu", threads)
    return Machine("gpu", threads, paddle.device.cuda.get_device_properties().total_memory / 2**30)


def _measure(text: str) -> float:
    """Train the network of a config for a few iterations, and return the median of their seconds.

    Raises:
        UserError: The data cannot be trained on.
    """
    import paddle

    from paddle_rt.config import build_network, build_optimizer, build_task, load_config
    from paddle_rt.tasks.loader import Loader

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # what building says belongs to the training
    try:
        with tempfile.TemporaryDirectory() as folder, paddle.utils.unique_name.guard():
            path = Path(folder, "config.yml")
            path.write_text(text, encoding="utf-8")
            config = load_config(str(path))
            task = build_task(config)
            samples, network = task.build_data("train"), build_network(config)
            optimizer, durations = build_optimizer(config, network), []
            places = [place % len(samples) for place in range((_RUNS + 1) * config.batch_size)]
            loader = Loader(paddle.io.Subset(samples, places), task.collate, batch_size=config.batch_size)
            start = time.perf_counter()
            for batch in loader:
                loss = sum(task.losses(network(batch["img"]), batch))
                loss.backward()
                optimizer.step()
                optimizer.clear_grad()
                float(loss)  # waits for a GPU
                durations.append(time.perf_counter() - start)
                start = time.perf_counter()
    finally:
        logging.disable(before)
    return statistics.median(durations[1:])
