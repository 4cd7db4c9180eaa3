"""The files that tools write the classes and the keypoints of frames to."""

import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterator

import numpy as np

from paddle_rt.files import whole_file
from paddle_rt.inference.boxes import ImageBoxes
from paddle_rt.inference.classifier import TopK
from paddle_rt.inference.pose_estimator import KeyPoints, person_scores

PREDICTIONS = "predictions.csv"
KEYPOINTS = "keypoints.json"
_COLUMNS = ("frame", "rank", "class", "score", "name")


@contextlib.contextmanager
def open_predictions(path: str | os.PathLike) -> Iterator[Callable[[str, TopK], None]]:
    """Open a CSV file with a row for each of the most likely classes of each frame.

    Args:
        path: The file, which appears when the block ends without an error.

    Yields:
        A function that adds the rows of a frame: the frame's name, the rank, which starts from 1, number and
        probability of the class, and its name.
    """
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file)
        table.writerow(_COLUMNS)

        def add(frame: str, found: TopK) -> None:
            ranks = zip(found.classes, found.scores, found.names, strict=True)
            table.writerows(
                (frame, rank, label, f"{score:.6f}", name) for rank, (label, score, name) in enumerate(ranks, 1)
            )

        yield add


@contextlib.contextmanager
def open_keypoints(path: str | os.PathLike, category: int) -> Iterator[Callable[[KeyPoints, ImageBoxes], None]]:
    """Open a JSON file with the people of all frames in COCO's form of results for keypoints.

    Args:
        path: The file, which appears when the block ends without an error.
        category: The number of the category of people.

    Yields:
        A function that adds the people of a frame and the boxes that they were found in: the id of the image, x, y and
        score of each keypoint, and the score of the person, which is that of the box times the mean of the keypoints'
        scores above 0.2.
    """
    with whole_file(path) as part, part.open("w", encoding="utf-8") as file:
        file.write("[")
        separator = "\n"

        def add(people: KeyPoints, boxes: ImageBoxes) -> None:
            nonlocal separator
            totals = person_scores(boxes.scores, people.scores)
            for points, scores, total in zip(people.points, people.scores, totals, strict=True):
                numbers = np.round(np.column_stack([points, scores]).astype(float), 4).ravel().tolist()
                entry = {"image_id": boxes.image_id, "category_id": category, "keypoints": numbers}
                file.write(separator + json.dumps({**entry, "score": round(float(total), 6)}))
                separator = ",\n"

        yield add
        file.write("\n]\n")
