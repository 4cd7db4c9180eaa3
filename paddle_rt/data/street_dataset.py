"""StreetScenes as a PaddleSeg dataset."""

import numpy as np
import paddle
from paddleseg.cvlibs import manager
from paddleseg.transforms import Compose
from paddleseg.transforms import functional as F

from paddle_rt.data.streetscenes import make_scene, render
from paddle_rt.errors import UserError, unknown

# Modes draw from series of scenes that cannot meet: (first index, default number).
SERIES = {"train": (0, 2000), "val": (10_000_000, 200), "test": (20_000_000, 200)}
MOST = 10_000_000
SMALLEST = 16  # pixels a side


@manager.DATASETS.add_component
class StreetScenes(paddle.io.Dataset):
    """Rendered street scenes with exact labels in Cityscapes' 19 classes; needs no files.

    Items are what PaddleSeg's own datasets yield. Frames are drawn when they are asked for and kept in memory as bytes
    until `cache_mb` is full, in every worker process on its own.

    Args:
        transforms: PaddleSeg's transforms.
        mode: "train", "val" or "test"; their scenes are disjoint.
        num_samples: Number of scenes; None: 2000 to train, 200 otherwise.
        height: Rows of a frame.
        width: Columns of a frame.
        seed: Which series of scenes.
        edge: Whether training items hold the labels' edges as well.
        cache_mb: Megabytes of drawn frames to keep; 0 keeps none.

    Raises:
        UserError: An argument that none of the above describes.
    """

    NUM_CLASSES = 19
    IMG_CHANNELS = 3
    IGNORE_INDEX = 255

    def __init__(
        self,
        transforms: list,
        mode: str = "train",
        num_samples: int | None = None,
        height: int = 256,
        width: int = 512,
        seed: int = 0,
        edge: bool = False,
        cache_mb: int = 256,
    ) -> None:
        if mode.lower() not in SERIES:
            raise unknown("mode of StreetScenes", mode, SERIES)
        first, default = SERIES[mode.lower()]
        num_samples = default if num_samples is None else num_samples
        for name, value, low, high in (("num_samples", num_samples, 1, MOST), ("height", height, SMALLEST, 1 << 14),
                                       ("width", width, SMALLEST, 1 << 14), ("seed", seed, 0, 1 << 62),
                                       ("cache_mb", cache_mb, 0, 1 << 20)):
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise UserError(f"StreetScenes: {name} is {value!r}; give a whole number from {low} to {high}")
        if not isinstance(transforms, list):
            raise UserError(f"StreetScenes: transforms is {transforms!r}; give a list, empty for none")
        super().__init__()
        self.transforms = Compose(transforms, img_channels=self.IMG_CHANNELS)
        self.mode = mode.lower()
        self.num_classes, self.img_channels, self.ignore_index = self.NUM_CLASSES, self.IMG_CHANNELS, self.IGNORE_INDEX
        self.height, self.width, self.seed, self.edge = height, width, seed, edge
        # PaddleSeg's trainer repeats this list to make epochs longer.
        self.file_list = list(range(first, first + num_samples))
        self._room = cache_mb * 2**20 // (height * width * 4)
        self._frames: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.file_list)

    def __getitem__(self, idx: int) -> dict:
        """One transformed frame.

        Shape:
            "img" [3, H, W] float32 RGB; "label" uint8 [H, W], in "val" and "test" [1, H, W]; "edge" [1, H, W].
        """
        image, label = self._frame(self.file_list[idx])
        data = {"trans_info": [], "img": image.astype(np.float32), "label": label.copy(), "gt_fields": []}
        if self.mode != "train":
            # Scores are counted on the label at its own size, so only the image is transformed. PaddleSeg's datasets
            # transform it in mode "test" as well, which its evaluation cannot score.
            data = self.transforms(data)
            data["label"] = data["label"][np.newaxis]
            return data
        data["gt_fields"].append("label")
        data = self.transforms(data)
        if self.edge:
            data["edge"] = F.mask_to_binary_edge(data["label"], radius=2, num_classes=self.num_classes)
        return data

    def _frame(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        frame = self._frames.get(index)
        if frame is None:
            frame = render(make_scene(index, self.seed), self.height, self.width)
            if len(self._frames) < self._room:
                self._frames[index] = frame
        return frame
