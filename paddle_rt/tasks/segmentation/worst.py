"""The images that a network labels worst, on one sheet: each beside its true and its predicted classes."""

import heapq
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import paddle

from paddle_rt.imaging.charts import contact_sheet
from paddle_rt.imaging.draw import as_bgr
from paddle_rt.imaging.view import View, short_name
from paddle_rt.tasks.segmentation import metrics
from paddle_rt.tasks.segmentation.export import frame_of_item


class Scored(NamedTuple):
    """An image with its score, ordered so that the best of some images is the least.

    Args:
        rank: The negative mean IoU over the classes of its labels and its predictions.
        index: Its index in the data set.
        class_iou: The IoU of each class, NaN where it occurs in neither.
        labels: The predicted classes, uint8 [H, W].
    """

    rank: float
    index: int
    class_iou: tuple[float, ...]
    labels: np.ndarray


class WorstImages:
    """The images with the lowest scores, of which few are held.

    Args:
        number: How many.
    """

    def __init__(self, number: int) -> None:
        self._number, self._held = number, []

    def add(self, index: int, confusion: np.ndarray, labels: np.ndarray) -> None:
        """Add an image.

        Args:
            index: Its index in the data set.
            confusion: Its confusion matrix; without a pixel it does not count.
            labels: The predicted classes [H, W].
        """
        if not confusion.sum():
            return
        result = metrics.scores(confusion)
        scored = Scored(-result["mIoU"], -index, tuple(result["class_iou"]), labels.astype(np.uint8))
        if len(self._held) < self._number:
            heapq.heappush(self._held, scored)
        elif scored[:2] > self._held[0][:2]:
            heapq.heapreplace(self._held, scored)

    def gathered(self) -> list[Scored]:
        """Return the worst images of all processes, the worst one first; every process has to call it."""
        held = self._held
        if paddle.distributed.get_world_size() > 1:
            parts: list[list[Scored]] = []
            paddle.distributed.all_gather_object(parts, held)
            held = [scored for part in parts for scored in part]
        return sorted(held, key=lambda scored: scored[:2], reverse=True)[: self._number]


def draw_worst(worst: Sequence[Scored], dataset: paddle.io.Dataset, view: View) -> np.ndarray:
    """Draw the sheet: the image, its labels and its prediction side by side, with the IoU of its worst classes.

    Args:
        worst: What `WorstImages.gathered` returned.
        dataset: The data set without transforms.
        view: Names and colours of the classes.

    Returns:
        The sheet, uint8 BGR.
    """
    tiles, present = [], set()
    for number, scored in enumerate(worst, 1):
        index = -scored.index
        frame, truth = frame_of_item(dataset[index])
        truth = truth.astype(np.uint8)
        lowest = sorted((iou, label) for label, iou in enumerate(scored.class_iou) if not np.isnan(iou))[:3]
        names = ", ".join(f"{short_name(view.names[label], label)} {iou:.2f}" for iou, label in lowest)
        caption = f"{number}. {_name(dataset, index)}  mIoU {-scored.rank:.3f}: {names}"
        tiles.append((caption, [as_bgr(frame), view.draw(frame, truth), view.draw(frame, scored.labels)]))
        present.update(np.unique(truth).tolist(), np.unique(scored.labels).tolist())
    classes = [label for label in range(len(view.names)) if label in present]
    return contact_sheet(tiles, classes, view.names, view.palette, heads=("image", "labels", "prediction"))


def _name(dataset: paddle.io.Dataset, index: int) -> str:
    """Return the name of an image's file, or its number where it has none."""
    entry = dataset.file_list[index]
    return os.path.basename(entry[0]) if isinstance(entry, list | tuple) else f"image {index}"
