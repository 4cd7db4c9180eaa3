"""What tools write beside the labels of images where a view asks for it: heat maps of confidence, and polygons."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator

import numpy as np

from paddle_rt.imaging.polygons import COCO, LABELME, find_polygons, open_coco, write_labelme
from paddle_rt.imaging.read_write import write_image
from paddle_rt.imaging.view import View

HEAT_MAPS = "confidence"
# Adds an image: its file, the relative name of its outputs, its labels, and their confidence where it is known.
AddLabels = Callable[[str, pathlib.Path, np.ndarray, np.ndarray | None], None]


@contextlib.contextmanager
def open_label_files(folder: str | os.PathLike, view: View, heat_maps: str = HEAT_MAPS) -> Iterator[AddLabels]:
    """Open the files that a view asks for.

    Heat maps go to confidence/NAME.png, LabelMe's polygons to labelme/NAME.json, and COCO's of all images to
    coco_annotations.json.

    Args:
        folder: The folder of the outputs.
        view: What is asked for.
        heat_maps: The folder of the heat maps within it.

    Yields:
        A function that adds an image. COCO's file appears when the block ends without an error.
    """
    folder = pathlib.Path(folder)
    classes = np.flatnonzero(view.shown).tolist()
    wants_coco = "coco" in view.polygons
    with open_coco(folder / COCO, view.names) if wants_coco else contextlib.nullcontext() as add_coco:

        def add(file: str, name: pathlib.Path, labels: np.ndarray, confidence: np.ndarray | None) -> None:
            if confidence is not None:
                write_image(folder / heat_maps / f"{name}.png", view.heat_map(confidence))
            if not view.polygons:
                return
            polygons = find_polygons(labels, classes, view.min_area)
            if add_coco:
                suffix = pathlib.Path(file).suffix
                add_coco(str(name if name.suffix == suffix else f"{name}{suffix}"), labels.shape, polygons)
            if "labelme" in view.polygons:
                path = folder / LABELME / f"{name}.json"
                write_labelme(path, file, labels.shape, polygons, view.names)

        yield add
