"""One training sample of Cityscapes' size, from its files to arrays: PaddleSeg's data set and ours, in turns."""

import pathlib
import random
import statistics
import time
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from paddle_rt.benchmark.training import SIDES
from paddle_rt.errors import InternalError
from paddle_rt.imaging import read_image, read_label
from paddle_rt.imaging.read_write import write_image
from paddle_rt.tasks.segmentation.transforms import check_same_size

SIZE = (1024, 2048)
CROP = (1024, 512)  # width, height
CLASSES = 19
NOISE = 1.0  # standard deviation that makes the file of a rendered image as large as a photograph's


def compare_loaders(runs: int, folder: pathlib.Path, image: str | None = None) -> list[dict[str, Any]]:
    """Time PaddleSeg's data set and ours with the transforms of RTFormer's Cityscapes recipe.

    In each round both load the same sample with the same random numbers, which sets the scale, and are compared.

    Args:
        runs: Rounds that count; one more is run before them.
        folder: Gets the files.
        image: A photograph of Cityscapes to load in the place of a rendered one with noise.

    Returns:
        PaddleSeg's row and ours: pipeline, sample_ms (median), reading_ms (the median of what ours takes to read and
        check the two files, and PaddleSeg's to decode them), speedup (median of the ratios within a round), runs.

    Raises:
        UserError: The photograph cannot be read, or has another size than 2048x1024.
        InternalError: The two samples are not the same.
    """
    _write_sample(folder, image)
    datasets = dict(zip(SIDES, _datasets(folder), strict=True))
    readers = {"paddleseg": _read_as_paddleseg, "paddle_rt": _read_as_we_do}
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    reading: dict[str, list[float]] = {side: [] for side in SIDES}
    for seed in tqdm(range(-1, runs), "samples", disable=None):
        samples = []
        for side in SIDES:
            random.seed(seed)
            np.random.seed(seed + 1)
            start = time.perf_counter()
            sample = datasets[side][0]
            samples.append([np.ascontiguousarray(sample[key]) for key in ("img", "label")])  # as a batch needs them
            loaded = time.perf_counter()
            readers[side](folder)
            if seed >= 0:
                seconds[side].append(loaded - start)
                reading[side].append(time.perf_counter() - loaded)
        if not all(np.array_equal(first, second) for first, second in zip(*samples, strict=True)):
            raise InternalError(f"the samples of the two data sets differ with seed {seed}")
    return [
        {
            "pipeline": side,
            "sample_ms": 1e3 * statistics.median(seconds[side]),
            "reading_ms": 1e3 * statistics.median(reading[side]),
            "speedup": statistics.median(a / b for a, b in zip(seconds["paddleseg"], seconds[side], strict=True)),
            "runs": runs,
        }
        for side in SIDES
    ]


def _write_sample(folder: pathlib.Path, photograph: str | None) -> None:
    from paddle_rt.streetscenes.scenes import make_scene, render

    image, labels = render(make_scene(0), *SIZE, 0.0)
    noise = NOISE * np.random.default_rng(0).standard_normal(image.shape)
    image = np.clip(image + noise, 0, 255).astype(np.uint8) if photograph is None else read_image(photograph)
    check_same_size(labels, image, "a label of Cityscapes", str(photograph))
    write_image(folder / "image.png", image)
    write_image(folder / "label.png", labels)  # grey, as Cityscapes has them
    (folder / "train.txt").write_text("image.png label.png\n", encoding="utf-8")


def _datasets(folder: pathlib.Path) -> tuple[Any, Any]:
    from paddle_rt.paddleseg.components import components
    from paddle_rt.tasks.segmentation.datasets import Dataset

    kinds = components("transforms")
    transforms = [
        kinds["ResizeStepScaling"](min_scale_factor=0.5, max_scale_factor=2.0, scale_step_size=0.25),
        kinds["RandomPaddingCrop"](crop_size=CROP),
        kinds["RandomHorizontalFlip"](),
        kinds["RandomDistort"](brightness_range=0.4, contrast_range=0.4, saturation_range=0.4),
        kinds["Normalize"](mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
    arguments = ("train", str(folder), transforms, CLASSES)
    lists = {"train_path": str(folder / "train.txt")}
    return components("datasets")["Dataset"](*arguments, **lists), Dataset(*arguments, **lists)


def _read_as_we_do(folder: pathlib.Path) -> None:
    read_image(folder / "image.png")
    read_label(folder / "label.png", CLASSES)


def _read_as_paddleseg(folder: pathlib.Path) -> None:
    from PIL import Image

    cv2.imread(str(folder / "image.png"), cv2.IMREAD_COLOR)
    np.asarray(Image.open(folder / "label.png"))
