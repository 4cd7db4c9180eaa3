"""Data sets of pose estimation, one item a person: annotations in COCO's form, and rendered people."""

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import paddle

from paddle_rt.arguments import checks_arguments
from paddle_rt.errors import UserError, unknown
from paddle_rt.imaging import read_image
from paddle_rt.inference.keypoints import COCO, KeypointSet, keypoint_set
from paddle_rt.streetscenes.street_people import SERIES, Person, image_of, render_people
from paddle_rt.tasks.cache import FirstResults
from paddle_rt.tasks.pose.coco import CocoFile, parse, read_annotations, read_detections
from paddle_rt.tasks.pose.transforms import Transform, apply

logger = logging.getLogger(__name__)
_MODES = ("train", "val", "test")
_MOST_FRAMES = 32  # decoded images of a CocoKeypoints that are kept, since the people of one follow each other


class PoseDataset(paddle.io.Dataset):
    """Persons in images.

    Before the transforms an item has "img", uint8 BGR [H, W, 3]; "bbox", float32 [4], x1, y1, x2, y2, and "bbox_score";
    "keypoints", float32 [K, 2] in pixels, and "visible", float32 [K], 0 or 1; "area", "image_id", "id", "image_path".

    Args:
        transforms: What is done to an item, in this order.
        keypoints: The keypoints of each person.

    Attributes:
        keypoints: The same.
    """

    def __init__(self, transforms: Sequence[Transform], keypoints: KeypointSet) -> None:
        super().__init__()
        self.transforms, self.keypoints = list(transforms), keypoints

    def __getitem__(self, index: int) -> dict[str, Any]:
        return apply(self.transforms, self.person(index), self.keypoints)

    def person(self, index: int) -> dict[str, Any]:
        """Return an item before the transforms.

        Raises:
            UserError: Its image cannot be read.
        """
        raise NotImplementedError

    def coco_ground_truth(self, most: int | None = None) -> dict[str, Any]:
        """Return the annotations of all images, or the first `most` of them, in COCO's form, as COCOeval takes them."""
        raise NotImplementedError


def _as_set(keypoints: KeypointSet | str | Mapping[str, Any] | None) -> KeypointSet | None:
    return keypoints if keypoints is None or isinstance(keypoints, KeypointSet) else keypoint_set(keypoints)


def _mode(name: str, mode: str) -> str:
    if mode not in _MODES:
        raise unknown(f"mode of {name}", mode, _MODES)
    return mode


class CocoKeypoints(PoseDataset):
    """Persons of an annotation file in COCO's form.

    Left out, as by MMPose, are crowds, persons without keypoints and boxes that are empty within the image.

    Args:
        transforms: What is done to a person.
        annotations: The annotation file, JSON.
        image_root: Folder that the file's names of images are relative to.
        mode: "train", "val" or "test".
        keypoints: The keypoints, if they are not to be taken from the file: a name, a mapping or a set.
        bbox_file: Boxes of a detector, COCO's form of results; for scores only.
        use_gt_bbox: Whether to take the boxes of the annotations, or those of `bbox_file`.
        image_thre: Boxes of `bbox_file` with a lower score are left out.

    Raises:
        UserError: A file is missing or out of order, no person is left, or the arguments contradict each other.
    """

    @checks_arguments
    def __init__(
        self,
        transforms: Sequence[Any],
        annotations: str,
        image_root: str,
        mode: str = "train",
        keypoints: Any = None,
        bbox_file: str | None = None,
        use_gt_bbox: bool = True,
        image_thre: float = 0.0,
    ) -> None:
        _check_boxes(_mode("CocoKeypoints", mode), bbox_file, use_gt_bbox)
        if not os.path.isdir(image_root):
            raise UserError(f"CocoKeypoints: no folder {image_root}; set image_root to the folder of the images")
        self.file = read_annotations(annotations, _as_set(keypoints))
        super().__init__(transforms, self.file.keypoints)
        self._columns = _people(self.file) if use_gt_bbox else _detected(self.file, bbox_file, image_thre)
        if not len(self) and use_gt_bbox:
            raise UserError(f"{annotations} has no person with keypoints and a box, of {len(self.file.images)} images")
        images = self.file.images
        self._paths = {image: os.path.join(image_root, images[image]["file_name"]) for image in self._images()}
        missing = [path for path in self._paths.values() if not os.path.isfile(path)]
        if missing:
            raise UserError(
                f"{len(missing)} of the {len(self._paths)} images with people in {annotations} are missing; the first "
                f"is {missing[0]}; check image_root"
            )
        self._frames: OrderedDict[int, np.ndarray] = OrderedDict()

    @staticmethod
    def keypoints_of(section: Mapping[str, Any]) -> KeypointSet:
        """Return the keypoints of a section of a config.

        Raises:
            UserError: They are not in the section and the annotation file cannot be read.
        """
        given = _as_set(section.get("keypoints"))
        return read_annotations(section["annotations"]).keypoints if given is None else given

    def __len__(self) -> int:
        return len(self._columns["id"])

    def _images(self) -> list[int]:
        return np.unique(self._columns["image_id"]).tolist()

    def person(self, index: int) -> dict[str, Any]:
        row = {key: column[index] for key, column in self._columns.items()}
        number = int(row["image_id"])
        try:
            image = self._frame(number)
        except UserError as error:
            raise UserError(f"{self.file.path}, annotation {row['id']}: {error}") from error
        single = {key: row[key].item() for key in ("bbox_score", "area", "image_id", "id")}
        copies = {key: row[key].copy() for key in ("bbox", "keypoints", "visible")}
        return {"img": image, **copies, **single, "image_path": self._paths[number]}

    def _frame(self, number: int) -> np.ndarray:
        """Return an image by its id; the last few are kept."""
        if number in self._frames:
            self._frames.move_to_end(number)
            return self._frames[number]
        image, declared = read_image(self._paths[number]), self.file.images[number]
        if image.shape[:2] != (declared["height"], declared["width"]):
            raise UserError(
                f"image {self._paths[number]} has {image.shape[1]}x{image.shape[0]} pixels, but the file says "
                f"{declared['width']}x{declared['height']}"
            )
        self._frames[number] = image
        if len(self._frames) > _MOST_FRAMES:
            self._frames.popitem(last=False)
        return image

    def coco_ground_truth(self, most: int | None = None) -> dict[str, Any]:
        truth = self.file.ground_truth()
        return {**truth, "annotations": truth["annotations"][:most]}


def _check_boxes(mode: str, bbox_file: str | None, use_gt_bbox: bool) -> None:
    if use_gt_bbox and bbox_file is not None:
        raise UserError(
            "CocoKeypoints: use_gt_bbox takes the boxes of the annotations; set use_gt_bbox: False for those of "
            "bbox_file, or leave bbox_file out"
        )
    if not use_gt_bbox and bbox_file is None:
        raise UserError("CocoKeypoints: use_gt_bbox: False needs bbox_file, the boxes of a detector")
    if not use_gt_bbox and mode == "train":
        raise UserError("CocoKeypoints: boxes of a detector have no keypoints; train with use_gt_bbox: True")


def _people(file: CocoFile) -> dict[str, np.ndarray]:
    """Return what is known of the persons that are kept, one row each."""
    rows = []
    for annotation in file.annotations:
        if "keypoints" not in annotation:  # a crowd
            continue
        image = file.images[annotation["image_id"]]
        parsed = parse(annotation, image["width"], image["height"])
        if parsed.kept:
            rows.append((annotation["id"], annotation["image_id"], parsed))
    number = len(file.keypoints)
    return {
        "id": np.array([row[0] for row in rows], np.int64),
        "image_id": np.array([row[1] for row in rows], np.int64),
        "bbox": np.array([row[2].bbox for row in rows], np.float32).reshape(-1, 4),
        "bbox_score": np.ones(len(rows)),
        "keypoints": np.array([row[2].keypoints for row in rows], np.float32).reshape(-1, number, 2),
        "visible": np.array([row[2].visible for row in rows], np.float32).reshape(-1, number),
        "area": np.array([row[2].area for row in rows], np.float64),
    }


def _detected(file: CocoFile, bbox_file: str, least_score: float) -> dict[str, np.ndarray]:
    """Return a detector's boxes, one row each; no keypoint of theirs is visible."""
    found = read_detections(bbox_file, file, least_score)
    if found.empty:
        logger.warning("%s: %d boxes without extent are left out", bbox_file, found.empty)
    number, boxes = len(file.keypoints), found.boxes
    return {
        "id": np.arange(len(boxes)),
        "image_id": found.image_ids,
        "bbox": boxes,
        "bbox_score": found.scores.astype(np.float64),
        "keypoints": np.zeros((len(boxes), number, 2), np.float32),
        "visible": np.zeros((len(boxes), number), np.float32),
        "area": np.prod(boxes[:, 2:] - boxes[:, :2], axis=1, dtype=np.float64),
    }


class StreetPeople(PoseDataset):
    """Rendered people in streets with COCO's 17 keypoints; needs no files.

    Images have one to five people and are rendered when one of these is asked for. They are kept in memory until
    `cache_mb` is full, in each worker process separately; beyond that the last one alone.

    Args:
        transforms: What is done to a person.
        mode: "train", "val" or "test"; their images are disjoint.
        num_samples: Number of people; None: 4800 to train, 600 otherwise.
        height: Rows of an image.
        width: Columns of an image; between a third of the height and three times the height.
        seed: Which series of images.
        cache_mb: Megabytes of rendered images to keep.
        keypoints: None, or COCO's keypoints with other flip pairs, sigmas or weights.

    Raises:
        UserError: An argument is not as described.
    """

    @checks_arguments
    def __init__(
        self,
        transforms: Sequence[Any],
        mode: str = "train",
        num_samples: int | None = None,
        height: int = 240,
        width: int = 320,
        seed: int = 0,
        cache_mb: int = 512,
        keypoints: Any = None,
    ) -> None:
        super().__init__(transforms, self.keypoints_of({"keypoints": keypoints}))
        self.first, default = SERIES[_mode("StreetPeople", mode)]
        self.number = default if num_samples is None else num_samples
        self.height, self.width, self.seed = height, width, seed
        if not 1 / 3 <= width / height <= 3:
            raise UserError(f"StreetPeople: images of {width}x{height}; one side is at most three times the other")
        self._frames = FirstResults(cache_mb * 2**20 // (height * width * 3))
        self._last: tuple[int, np.ndarray | None] = (-1, None)
        self._people: dict[int, list[Person]] = {}

    @staticmethod
    def keypoints_of(section: Mapping[str, Any]) -> KeypointSet:
        """Return COCO's keypoints, with what a section of a config changes of them.

        Raises:
            UserError: The section has others.
        """
        given = _as_set(section.get("keypoints"))
        if given is not None and given.names != COCO.names:
            raise UserError(f"StreetPeople has COCO's keypoints, {', '.join(COCO.names)}; got {', '.join(given.names)}")
        return COCO if given is None else given

    def __len__(self) -> int:
        return self.number

    def person(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.number:
            raise IndexError(index)
        number, place = image_of(index)
        image, person = self._render(number), self._people[number][place]
        return {
            "img": image,
            "bbox": person.box.copy(),
            "bbox_score": 1.0,
            "keypoints": person.keypoints.copy(),
            "visible": np.minimum(person.visible, 1).astype(np.float32),
            "area": person.area,
            "image_id": number + 1,
            "id": index + 1,
            "image_path": self._name(number),
        }

    def frame(self, index: int) -> np.ndarray:
        """Return the image of a person, uint8 BGR [H, W, 3]."""
        return self._render(image_of(index)[0])

    def _render(self, number: int) -> np.ndarray:
        if self._last[0] != number:  # people of one image follow one another
            self._last = number, self._frames.result(number, self._make)
        return self._last[1]

    def _make(self, number: int) -> np.ndarray:
        image, self._people[number] = render_people(self.first + number, self.height, self.width, self.seed)
        return image

    def _name(self, number: int) -> str:
        return f"street_people_{self.seed}_{self.first + number:08d}.png"

    def coco_ground_truth(self, most: int | None = None) -> dict[str, Any]:
        annotations = []
        for index in range(self.number)[:most]:
            number, place = image_of(index)
            if number not in self._people:
                self._render(number)
            person = self._people[number][place]
            x1, y1, x2, y2 = person.box.tolist()
            points = np.concatenate([person.keypoints, person.visible[:, None]], axis=1, dtype=np.float64)
            annotations.append({
                "id": index + 1,
                "image_id": number + 1,
                "category_id": 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": person.area,
                "iscrowd": 0,
                "num_keypoints": int(np.count_nonzero(person.visible)),
                "keypoints": points.reshape(-1).tolist(),
            })  # fmt: skip
        images = [
            {"id": number + 1, "file_name": self._name(number), "width": self.width, "height": self.height}
            for number in range(image_of(self.number - 1)[0] + 1)
        ]
        skeleton = [[a + 1, b + 1] for a, b in self.keypoints.skeleton]
        category = {"id": 1, "name": "person", "keypoints": list(self.keypoints.names), "skeleton": skeleton}
        return {"images": images, "categories": [category], "annotations": annotations}


DATASETS: dict[str, Callable] = {cls.__name__: cls for cls in (CocoKeypoints, StreetPeople)}
