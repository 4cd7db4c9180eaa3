"""Estimate the poses of people in image files; write skeletons, and keypoints in COCO's form of results."""

import logging
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import paddle
from tqdm import tqdm

from paddle_rt import imaging
from paddle_rt.errors import UserError
from paddle_rt.files import output_names
from paddle_rt.inference.boxes import PERSON, BoxFile, whole_image
from paddle_rt.inference.media.predictions import KEYPOINTS, open_keypoints
from paddle_rt.inference.pose_estimator import KeyPoints, PoseSettings, check_boxes
from paddle_rt.inference.pose_geometry import to_image
from paddle_rt.tasks.pose.evaluate import estimate
from paddle_rt.tasks.pose.transforms import Transform, apply

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Estimator:
    """A network with all that turns the boxes of an image into keypoints.

    Args:
        network: In evaluation mode; returns a list whose first entry is heatmaps.
        transforms: The config's validation transforms.
        settings: Its keypoints, and how heatmaps become such.
        flip_test: Whether the mirror images run too and the heatmaps are averaged.
        batch_size: People that run together.
    """

    network: paddle.nn.Layer
    transforms: Sequence[Transform]
    settings: PoseSettings
    flip_test: bool = True
    batch_size: int = 32

    def __call__(self, image: np.ndarray, boxes: np.ndarray | None) -> KeyPoints:
        """Estimate the poses of the people of an image.

        Args:
            image: uint8 BGR [H, W, 3].
            boxes: x1, y1, x2, y2, [N, 4]; None for the whole image as one box.

        Raises:
            UserError: A box is empty, outside the image or no box.
        """
        boxes, count = check_boxes(boxes, image.shape), len(self.settings.keypoints)
        found = [np.zeros((0, count, 2), np.float32)], [np.zeros((0, count), np.float32)]
        for start in range(0, len(boxes), self.batch_size):
            items = [
                apply(self.transforms, {"img": image, "bbox": box}, self.settings.keypoints)
                for box in boxes[start : start + self.batch_size]
            ]
            images, centers, scales = (np.stack([item[key] for item in items]) for key in ("img", "center", "scale"))
            with paddle.no_grad():
                points, scores = estimate(self.network, paddle.to_tensor(images), self.settings, self.flip_test)
            found[0].append(to_image(points, centers, scales, images.shape[:1:-1], self.settings.udp))
            found[1].append(scores)
        return KeyPoints(*map(np.concatenate, found))


def predict(
    estimate_poses: Estimator,
    image_path: str,
    save_dir: str,
    box_file: str | None = None,
    category: int = PERSON,
    threshold: float = 0.3,
) -> None:
    """Estimate poses in an image, a folder or a list of images.

    Images with skeletons go to added_prediction/ below save_dir, and all people to keypoints.json, in COCO's form of
    results.

    Args:
        estimate_poses: The network with its transforms.
        image_path: An image, a folder (searched to the bottom), or a text file that lists images.
        save_dir: Folder of the results.
        box_file: A file of boxes, as `BoxFile` reads it; None for the whole image as one box.
        category: The number of the category of people in `box_file` and in the results.
        threshold: Keypoints with a lower score are not drawn.

    Raises:
        UserError: No image was found, or an image or its boxes could not be used; the others have been written by then.
    """
    files, root = imaging.list_images(image_path)
    boxes_of = None if box_file is None else BoxFile(box_file, category)
    estimate_poses.network.eval()
    keypoints, folder = estimate_poses.settings.keypoints, pathlib.Path(save_dir)
    sides = imaging.body_sides(keypoints.names, keypoints.flip_pairs)
    failures, count = [], 0
    with open_keypoints(folder / KEYPOINTS, category) as add:
        pairs = zip(files, output_names(files, root), strict=True)
        for file, name in tqdm(pairs, "predict", len(files), unit="img", disable=None):
            named = f"{name}{pathlib.Path(file).suffix}"
            try:
                image = imaging.read_image(file)
                boxes = whole_image(named) if boxes_of is None else boxes_of.of(file, named)
                people = estimate_poses(image, boxes.boxes)
                drawn = imaging.draw_skeletons(
                    image, people.points, people.scores, keypoints.skeleton, sides, threshold
                )
                imaging.write_image(folder / "added_prediction" / f"{name}.jpg", drawn)
            except UserError as error:
                failures.append(f"{file}: {error}" if file not in str(error) else str(error))
                continue
            add(people, boxes)
            count += len(people)
    logger.info("%d people in %d images, results in %s", count, len(files) - len(failures), save_dir)
    if boxes_of is not None and boxes_of.unused:
        names = boxes_of.unused
        logger.warning("no image is one of %d images of %s, such as %r", len(names), box_file, names[0])
    if failures:
        raise UserError(f"{len(failures)} of {len(files)} images could not be used: {'; '.join(failures[:10])}")
