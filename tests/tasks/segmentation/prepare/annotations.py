"""Made-up annotation files, as the tools write them."""

import base64
import json
import pathlib

import cv2
import numpy as np


def photo(seed: int, height: int = 60, width: int = 80) -> np.ndarray:
    """Return a smooth image that is not like that of any other seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def photos(folder: pathlib.Path, names: list[str]) -> list[pathlib.Path]:
    """Write an image of 80x60 for each name."""
    files = [folder / name for name in names]
    for seed, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(file), photo(seed))
    return files


def png(pixels: np.ndarray) -> str:
    """Return an image as PNG in base64."""
    return base64.b64encode(cv2.imencode(".png", pixels)[1].tobytes()).decode()


def shape(label: str, points: list, kind: str = "polygon", **more: object) -> dict:
    """Return a shape with all keys that LabelMe 5 writes."""
    return {"label": label, "points": points, "group_id": None, "description": "", "shape_type": kind, "flags": {},
            "mask": None, **more}  # fmt: skip


def labelme(file: pathlib.Path, shapes: object, image: str, **more: object) -> pathlib.Path:
    """Write a file as LabelMe 5 does, for an image of 80x60."""
    content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": image, "imageData": None,
               "imageHeight": 60, "imageWidth": 80, **more}  # fmt: skip
    file.write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")
    return file


def coco(file: pathlib.Path, names: list[str], annotations: list[dict], categories: dict[int, str]) -> pathlib.Path:
    """Write instance annotations for images of 80x60, the first of which has id 1."""
    images = [{"id": number, "file_name": name, "height": 60, "width": 80, "license": 1, "date_captured": ""}
              for number, name in enumerate(names, 1)]  # fmt: skip
    entries = [{"id": number, "iscrowd": 0, "area": 1, "bbox": [0, 0, 1, 1], **entry}
               for number, entry in enumerate(annotations, 1)]  # fmt: skip
    content = {"info": {"year": 2017}, "licenses": [], "images": images, "annotations": entries,
               "categories": [{"id": number, "name": name, "supercategory": ""}
                              for number, name in categories.items()]}  # fmt: skip
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def box(left: int, top: int, right: int, bottom: int) -> list[list[float]]:
    """Return the polygon of a rectangle as COCO has it, the edges included."""
    return [[left, top, right, top, right, bottom, left, bottom]]


def cvat(file: pathlib.Path, shapes: dict[str, str], labels: dict[str, str]) -> pathlib.Path:
    """Write annotations in the form of "CVAT for images 1.1", for images of 80x60.

    Args:
        file: The file to write.
        shapes: The elements of each image, by its name.
        labels: The colours of the labels, by their names.
    """
    names = "".join(f"<label><name>{name}</name><color>{colour}</color><type>any</type><attributes /></label>"
                    for name, colour in labels.items())  # fmt: skip
    images = "".join(f'<image id="{number}" name="{name}" width="80" height="60">{elements}</image>'
                     for number, (name, elements) in enumerate(shapes.items()))  # fmt: skip
    meta = f"<meta><task><id>1</id><name>t</name><labels>{names}</labels></task></meta>"
    text = f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>{meta}{images}</annotations>'
    file.write_text(text, encoding="utf-8")
    return file
