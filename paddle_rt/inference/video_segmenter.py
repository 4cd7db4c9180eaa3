"""Segmentation of video with an exported network that also reads earlier frames, through a state.

The state holds the attention contexts of the earlier frames of the window, a few small matrices for each frame. Every
frame costs as much as a single image, however long the video is.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.inference.deployment import VERIFICATION, file_digest
from paddle_rt.inference.engines import DeviceArray
from paddle_rt.inference.segmenter import Finish, FrameSegmenter

# Mean difference of thumbnails, out of 255. Measured: frames of one drive, 10 or more a second, differ by at most 16 in
# rendered streets; frames of different drives differ by at least 27 there and by at least 33 in CamVid.
SCENE_CUT = 25.0
_THUMBNAIL = (32, 16)  # width, height: small enough for noise and small movements to vanish


@dataclass(frozen=True, eq=False)
class VideoState:
    """The state of a `VideoSegmenter` between two frames.

    Args:
        contexts: The state that the graph takes beside the next frame; an array on the GPU where the engine is there,
            which `numpy.asarray` copies.
        frames: The number of frames in it, at most the network's temporal window less one.
        size: (height, width) of the last frame.
        thumbnail: The last frame at 32x16 pixels.
        export: The digest of the export's verification.json, which identifies the export.
    """

    contexts: np.ndarray | DeviceArray
    frames: int
    size: tuple[int, int]
    thumbnail: np.ndarray
    export: str


class VideoSegmenter(FrameSegmenter):
    """Label the frames of a video in their order with an exported network for video.

    A frame is labelled with the state that the frames before it left. The state is empty at the beginning, after
    `reset()`, after a scene cut, and where the size of the frames changes, since an image that is cropped or scaled
    differently is not a continuation. A frame that cannot be labelled leaves the state unchanged. A segmenter serves
    one thread and one video at a time; several videos need a segmenter each, or take turns by setting `state`.

    Args:
        export_dir: The export of a network with a temporal window above 1.
        *engine: The arguments of `Predictor` that follow the export.
        scene_cut: A scene is cut where a frame and the one before it, both reduced to 32x16 pixels, differ by more than
            this on average, out of 255. None for videos without cuts, or with so few frames a second that every frame
            differs.
        **options: Arguments of `Predictor` by name.

    Raises:
        UserError: As for `Predictor`; the export is of a network for images; or scene_cut is not a number above 0.
    """

    is_video = True

    def __init__(
        self, export_dir: str | os.PathLike, *engine: Any, scene_cut: float | None = SCENE_CUT, **options: Any
    ) -> None:
        super().__init__(export_dir, *engine, **options)
        self.scene_cut = scene_cut
        self._export = file_digest(self.deployment.folder / VERIFICATION)
        self._state: VideoState | None = None

    @property
    def scene_cut(self) -> float | None:
        """The mean difference of two frames above which a scene is cut; None where there are no cuts.

        Raises:
            UserError: The new value is not a number above 0.
        """
        return self._scene_cut

    @scene_cut.setter
    def scene_cut(self, threshold: float | None) -> None:
        number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
        if threshold is not None and not (number and threshold > 0):
            raise UserError(f"scene_cut must be a number above 0, or None for no cuts, got {threshold!r}")
        self._scene_cut = threshold

    def reset(self) -> None:
        """Clear the state: the next frame begins a video."""
        self._state = None

    @property
    def state(self) -> VideoState | None:
        """The state after the last frame, None if it is empty. It may be kept and set again to continue from there.

        Raises:
            UserError: The new value comes from another export.
        """
        return self._state

    @state.setter
    def state(self, state: VideoState | None) -> None:
        if state is not None and not isinstance(state, VideoState):
            raise UserError(f"a state is a value of VideoSegmenter.state or None, got {type(state).__name__}")
        if state is not None and state.export != self._export:
            raise UserError("the state comes from another export than this segmenter's; begin with reset()")
        self._state = state

    def warmup(self, size: Sequence[int] | None = None) -> float:
        """Warm up as `FrameSegmenter.warmup` does, and clear the state."""
        seconds = super().warmup(size)
        self.reset()
        return seconds

    def _run_frame(self, frame: np.ndarray, finish: Finish) -> Any:
        self.begin([frame])
        prepared = self.prepare(frame)
        with self.timed("preprocess"):
            thumbnail = _shrink(frame)
            before = self._state if self._continues(frame, thumbnail) else None
        shape = self.deployment.state_shape
        contexts = np.zeros(shape, np.float32) if before is None else before.contexts
        logits, contexts = self.run_engine(self._engine.step, prepared.image[np.newaxis], contexts)
        if list(contexts.shape) != shape or len(logits) != 1:
            raise UserError(
                f"the graph returns logits {list(logits.shape)} and a state {list(contexts.shape)}, but deploy.yaml "
                f"describes a state {shape}; are they from one export?"
            )
        result = finish(logits[0], prepared, frame.shape[:2])
        frames = min(shape[1], 1 + (before.frames if before else 0))
        self._state = VideoState(contexts, frames, frame.shape[:2], thumbnail, self._export)
        return result

    def _continues(self, frame: np.ndarray, thumbnail: np.ndarray) -> bool:
        """Return whether the frame continues the video of the state."""
        if self._state is None or self._state.size != frame.shape[:2]:
            return False
        return self._scene_cut is None or float(np.abs(thumbnail - self._state.thumbnail).mean()) <= self._scene_cut


def _shrink(frame: np.ndarray) -> np.ndarray:
    """Return a thumbnail, float32 [16, 32, 3]. For speed it reads only as many pixels as an image of 64 lines has."""
    step = max(1, min(frame.shape[:2]) // 64)
    return cv2.resize(frame[::step, ::step], _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
