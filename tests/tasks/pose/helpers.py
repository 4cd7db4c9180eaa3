"""What the tests of pose share: people of three dots, and a network that sees them."""

import json
import pathlib

import numpy as np
import paddle
import yaml

from paddle_rt.inference.keypoints import KeypointSet
from paddle_rt.inference.preprocess import Normalize
from paddle_rt.models.base import Network
from paddle_rt.tasks.pose.transforms import GetBBoxCenterScale, TopdownAffine, apply
from tests.helpers import NORMALIZE

TINY = {"embed_dim": 8, "depths": [1, 1, 1, 1], "head_channels": 16, "drop_path_rate": 0.0}

DOTS = KeypointSet(("blue", "green", "red"), flip_pairs=(), sigmas=(0.1, 0.1, 0.1), skeleton=((0, 1), (1, 2)))


class Seer(Network):
    """Gives the image at a quarter of its size: one heatmap for each colour, in the order blue, green, red."""

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        return [paddle.nn.functional.avg_pool2d(images, 4).flip(axis=[1])]


class Dots(paddle.io.Dataset):
    """Images of two people each, whose keypoints are dots in a colour of their own; every third dot is invisible."""

    keypoints = DOTS

    def __init__(self, images: int = 3) -> None:
        rng = np.random.default_rng(0)
        self.images, self.people = [], []
        for image in range(images):
            pixels = np.zeros((96, 160, 3), np.uint8)
            for left in (0, 80):
                box = np.array([left + 8, 10, left + 70, 86], np.float32)
                points = rng.integers(box[:2] + 8, box[2:] - 8, (3, 2))
                for channel, (x, y) in enumerate(points):
                    pixels[y - 2 : y + 3, x - 2 : x + 3, channel] = 255
                visible = (np.arange(3) != len(self.people) % 4).astype(np.float32)
                self.people.append((image, box, points.astype(np.float32), visible))
            self.images.append(pixels)

    def __len__(self) -> int:
        return len(self.people)

    def __getitem__(self, index: int) -> dict:
        image, box, points, visible = self.people[index]
        item = {"img": self.images[image], "bbox": box, "bbox_score": 1.0, "keypoints": points, "visible": visible}
        steps = [GetBBoxCenterScale(), TopdownAffine([64, 96]), Normalize([0.0] * 3, [1.0] * 3)]
        return apply(steps, {**item, "area": 1000.0, "image_id": image + 7, "id": index}, DOTS)

    def coco_ground_truth(self) -> dict:
        annotations = []
        for index, (image, box, points, visible) in enumerate(self.people):
            x1, y1, x2, y2 = map(float, box)
            flat = np.column_stack([points, 2 * visible]).ravel().tolist()
            person = {"id": index, "image_id": image + 7, "category_id": 3, "iscrowd": 0, "area": 2000.0}
            annotations.append({**person, "bbox": [x1, y1, x2 - x1, y2 - y1], "keypoints": flat})
        images = [{"id": image + 7, "width": 160, "height": 96} for image in range(len(self.images))]
        return {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "dots"}]}


def content(**changes: object) -> dict:
    """Return a config for a tiny network on a few rendered people, with keys replaced or added; a dot is "__"."""
    cut = [{"type": "GetBBoxCenterScale"}, {"type": "TopdownAffine", "input_size": [48, 64]}]
    target = {"type": "GenerateTarget", "heatmap_size": [12, 16], "sigma": 1.0}
    people = {"type": "StreetPeople", "num_samples": 8, "height": 72, "width": 96}
    result = {
        "task": "pose",
        "batch_size": 2,
        "iters": 4,
        "train_dataset": {**people, "transforms": [cut[0], {"type": "RandomFlip"}, cut[1], target, NORMALIZE]},
        "val_dataset": {**people, "num_samples": 3, "mode": "val", "transforms": [*cut, NORMALIZE]},
        "model": {"type": "SegFormerPose", "variant": "b0", **TINY},
        "optimizer": {"type": "AdamW", "weight_decay": 0.01},
        "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.001, "end_lr": 0.001, "power": 1.0},
        "loss": {"type": "KeypointMSELoss"},
    }
    result = json.loads(json.dumps(result))  # no section is part of two others
    for key, value in changes.items():
        *parents, last = (int(part) if part.isdecimal() else part for part in key.split("__"))
        section = result
        for part in parents:
            section = section[part]
        section[last] = value
    return result


def write_config(folder: pathlib.Path, **changes: object) -> str:
    """Write `content` to a file and return its path."""
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump(content(**changes)))
    return str(path)
