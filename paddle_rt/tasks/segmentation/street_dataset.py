"""StreetScenes, the rendered data set."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import paddle

from paddle_rt.arguments import checks_arguments
from paddle_rt.errors import UserError, unknown
from paddle_rt.streetscenes.scenes import SERIES, Scene, make_scene, render
from paddle_rt.tasks.cache import FirstResults
from paddle_rt.tasks.segmentation.clips import transform_clip
from paddle_rt.tasks.segmentation.datasets import add_edges
from paddle_rt.tasks.segmentation.transforms import Compose, Sample

LONGEST = 10  # seconds of a scene that look like a street


class StreetScenes(paddle.io.Dataset):
    """Rendered street scenes with exact labels in Cityscapes' 19 classes; needs no files.

    Items are those of PaddleSeg's data sets. With `frames` above 1 they are clips of a camera that drives through the
    scene, among moving cars and pedestrians, with the label of the last frame. Frames are rendered when they are asked
    for and kept in memory as bytes until `cache_mb` is full, in each worker process separately.

    Args:
        transforms: PaddleSeg's transforms.
        mode: "train", "val" or "test"; their scenes are disjoint.
        num_samples: Number of scenes; None: 2000 to train, 200 otherwise.
        height: Rows of a frame.
        width: Columns of a frame.
        seed: Which series of scenes.
        edge: Whether training items also hold the edges of the classes.
        cache_mb: Megabytes of rendered frames to keep; 0 keeps none.
        frames: Frames of a clip; 1 gives images.
        fps: Frames a second of a clip.
        end: Time of the last frame in seconds, so that clips of any length end with the same frame and label; None
            for clips that begin at time 0 of the scene.
        noise: Factor of the sensor's noise, whose standard deviation is 1.5 to 8 of 255 levels, by the weather. It is
            drawn anew for each frame. 0 takes it away.

    Raises:
        UserError: An argument is not as described.
    """

    NUM_CLASSES = 19
    IMG_CHANNELS = 3
    IGNORE_INDEX = 255

    @checks_arguments
    def __init__(
        self,
        transforms: Sequence[Any],
        mode: str = "train",
        num_samples: int | None = None,
        height: int = 256,
        width: int = 512,
        seed: int = 0,
        edge: bool = False,
        cache_mb: int = 256,
        frames: int = 1,
        fps: float = 10.0,
        end: float | None = None,
        noise: float = 1.0,
    ) -> None:
        if mode.lower() not in SERIES:
            raise unknown("mode of StreetScenes", mode, SERIES)
        first, default = SERIES[mode.lower()]
        num_samples = default if num_samples is None else num_samples
        long = _duration(frames, fps)
        end = long if end is None else end
        if not long <= end <= LONGEST:
            raise UserError(
                f"StreetScenes: end is {end!r}; {frames} frames at {fps} a second end at {long:g} s or "
                f"later, and after {LONGEST} s the street ends"
            )
        if not 0 <= noise < float("inf"):
            raise UserError(f"StreetScenes: noise is {noise!r}; give a factor of 0 or more")
        super().__init__()
        self.noise = noise
        self.transforms = Compose(transforms, self.IMG_CHANNELS, self.NUM_CLASSES, self.IGNORE_INDEX)
        self.mode, self.training = mode.lower(), mode.lower() == "train"
        self.num_classes, self.img_channels, self.ignore_index = self.NUM_CLASSES, self.IMG_CHANNELS, self.IGNORE_INDEX
        self.height, self.width, self.seed, self.edge = height, width, seed, edge
        self.file_list = list(range(first, first + num_samples))
        # Counted from the end, so that clips of different lengths share their frames to the bit.
        self.frames, self.fps, self.times = frames, fps, [max(0.0, end - k / fps) for k in reversed(range(frames))]
        self._clips = FirstResults(cache_mb * 2**20 // (frames * height * width * 4))

    def __len__(self) -> int:
        return len(self.file_list)

    def __getitem__(self, idx: int) -> Sample:
        """Return one transformed frame or clip.

        Shape:
            "img" [3, H, W] float32 RGB, of a clip [3 frames, H, W], the oldest first; "label" uint8 [H, W] of the last
            frame, in "val" and "test" [1, H, W]; "edge" [1, H, W].
        """
        images, labels = self.clip(idx)
        label = labels[-1].copy()
        # Scores are counted on the label at its own size, so that outside of training only the image is transformed.
        data = {"trans_info": [], "label": label, "gt_fields": ["label"] if self.training else []}
        data = transform_clip(self.transforms, images, data)
        if not self.training:
            data["label"] = data["label"][np.newaxis]
        elif self.edge:
            add_edges(data, self.num_classes)
        return data

    def clip(self, idx: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the frames and labels of a clip as they were rendered.

        Shape: uint8 BGR [frames, H, W, 3] and uint8 [frames, H, W].
        """
        return self._clips.result(self.file_list[idx], self._render)

    def _render(self, index: int) -> tuple[np.ndarray, ...]:
        scene = self._scene(index)
        rendered = [render(scene, self.height, self.width, time) for time in self.times]
        return tuple(np.stack(part) for part in zip(*rendered, strict=True))

    def _scene(self, index: int) -> Scene:
        scene = make_scene(index, self.seed)
        return replace(scene, weather=replace(scene.weather, noise=self.noise * scene.weather.noise))

    def video(self, idx: int, frames: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield frames and labels from time 0 of a scene on, rendered one by one and not kept.

        Shape: pairs of uint8 BGR [H, W, 3] and uint8 [H, W].

        Raises:
            UserError: The street ends before the last frame.
        """
        _duration(frames, self.fps)
        scene = self._scene(self.file_list[idx])
        return (render(scene, self.height, self.width, k / self.fps) for k in range(frames))


def _duration(frames: int, fps: float) -> float:
    """Seconds from the first frame to the last."""
    if (frames - 1) / fps > LONGEST:
        raise UserError(
            f"StreetScenes: {frames} frames at {fps} a second leave the street, which ends after "
            f"{LONGEST} s; give fewer frames or a higher fps"
        )
    return (frames - 1) / fps
