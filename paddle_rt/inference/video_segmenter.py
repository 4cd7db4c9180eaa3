"""Frames of a video in, labels out: a model that reads earlier frames too, with its state carried from frame to frame.

What is carried is what the attention drew from the window's earlier frames, a few small matrices each. Every frame
costs what a single image costs, however long the video is.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.inference.deployment import VERIFICATION, file_digest
from paddle_rt.inference.segmenter import FrameSegmenter

# Mean difference of thumbnails, of 255. Measured: frames of one drive at 10 a second or more differ by 16 at most in
# rendered streets; frames of different drives by 27 and more there and by 33 and more in CamVid.
SCENE_CUT = 25.0
_THUMBNAIL = (32, 16)  # width, height: small enough for noise and little movements to vanish


@dataclass(frozen=True, eq=False)
class VideoState:
    """What a `VideoSegmenter` remembers of a video.

    Args:
        contexts: What the graph takes beside the next frame.
        frames: How many frames it speaks of, at most those of the model's window but one.
        size: (height, width) of the last frame.
        thumbnail: The last frame, small.
        export: Digest of the export's verification.json, which names the export.
    """

    contexts: np.ndarray
    frames: int
    size: tuple[int, int]
    thumbnail: np.ndarray
    export: str


class VideoSegmenter(FrameSegmenter):
    """Label the frames of a video in their order, with an exported model for video.

    A frame is labelled with what the model remembers of those before it. Nothing is remembered at the beginning, after
    `reset()`, after a scene cut, and where frames change their size, since a picture cut or scaled otherwise is no
    continuation. A frame that cannot be labelled leaves the state as it was. For one thread and one video at a time;
    videos side by side need a segmenter each, or take turns through `state`.

    Args:
        export_dir: The folder that tools/export.py wrote for a model with a temporal window above 1.
        backend, precision, threads, device: As for `Segmenter`.
        scene_cut: A cut is where a frame and the one before it, both shrunk to 32x16 pixels, differ by more than this
            on average, of 255. None for videos without cuts, or with so few frames a second that all of them differ.

    Raises:
        UserError: As `Segmenter`; the export is of a model for images; or scene_cut is no number above 0.
    """

    is_video = True

    def __init__(
        self,
        export_dir: str | os.PathLike,
        backend: str = "openvino",
        precision: str = "fp32",
        threads: int | None = None,
        device: str = "cpu",
        scene_cut: float | None = SCENE_CUT,
    ) -> None:
        if scene_cut is not None and (isinstance(scene_cut, bool) or not isinstance(scene_cut, int | float)):
            raise UserError(f"scene_cut must be a number above 0, or None for no cuts, got {scene_cut!r}")
        if scene_cut is not None and not scene_cut > 0:
            raise UserError(f"scene_cut must be above 0, or None for no cuts, got {scene_cut}")
        super().__init__(export_dir, backend, precision, threads, device)
        self._scene_cut = scene_cut
        self._export = file_digest(self.deployment.folder / VERIFICATION)
        self._state: VideoState | None = None

    def reset(self) -> None:
        """Forget the frames so far: the next one begins a video."""
        self._state = None

    @property
    def state(self) -> VideoState | None:
        """What is remembered, None for nothing. It may be kept, and set again to go on from there.

        Raises:
            UserError: What is set comes from another export.
        """
        return self._state

    @state.setter
    def state(self, state: VideoState | None) -> None:
        if state is not None and not isinstance(state, VideoState):
            raise UserError(f"a state is what VideoSegmenter.state gave, or None, got {type(state).__name__}")
        if state is not None and state.export != self._export:
            raise UserError("the state comes from another export than this segmenter's; begin with reset()")
        self._state = state

    def warmup(self, size: Sequence[int] | None = None) -> float:
        """As `Segmenter.warmup`; the state is cleared."""
        seconds = super().warmup(size)
        self.reset()
        return seconds

    def __call__(self, frame: np.ndarray, confidence: bool = False) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Label the next frame.

        Args, Returns, Raises: As a call of `Segmenter`.
        """
        self._begin([frame], confidence)
        with self._timed("preprocess"):
            image, trail = self._prepare(frame)
            thumbnail = _shrink(frame)
            before = self._state if self._goes_on(frame, thumbnail) else None
        shape = self.deployment.state_shape
        contexts = np.zeros(shape, np.float32) if before is None else before.contexts
        logits, contexts = self._infer(self._engine.step, image[np.newaxis], contexts)
        if list(contexts.shape) != shape or len(logits) != 1:
            raise UserError(
                f"the graph gives logits {list(logits.shape)} and a state {list(contexts.shape)}, deploy.yaml says a "
                f"state {shape}; are they of one export?"
            )
        with self._timed("labels"):
            result = self._labels(logits[0], image.shape[:2], trail, frame.shape[:2], confidence)
        frames = min(shape[1], 1 + (before.frames if before else 0))
        self._state = VideoState(contexts, frames, frame.shape[:2], thumbnail, self._export)
        return result

    def _goes_on(self, frame: np.ndarray, thumbnail: np.ndarray) -> bool:
        """Whether the frame continues what is remembered."""
        if self._state is None or self._state.size != frame.shape[:2]:
            return False
        return self._scene_cut is None or float(np.abs(thumbnail - self._state.thumbnail).mean()) <= self._scene_cut


def _shrink(frame: np.ndarray) -> np.ndarray:
    """A thumbnail, float32 [16, 32, 3]. Pixels between the ones of a 64-line picture are left out, for speed."""
    step = max(1, min(frame.shape[:2]) // 64)
    return cv2.resize(frame[::step, ::step], _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
