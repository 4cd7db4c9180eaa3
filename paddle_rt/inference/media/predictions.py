"""The table that tools write the classes of frames to."""

import contextlib
import csv
import os
from collections.abc import Callable, Iterator

from paddle_rt.files import whole_file
from paddle_rt.inference.classifier import TopK

PREDICTIONS = "predictions.csv"
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
