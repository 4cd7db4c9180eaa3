"""Score networks on videos of which every frame has a label: how right their labels are, and how steady."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import paddle
from tqdm import tqdm

from paddle_rt.errors import UserError
from paddle_rt.models.base import Network
from paddle_rt.models.layers import resize_as
from paddle_rt.tasks.segmentation import metrics
from paddle_rt.tasks.segmentation.street_dataset import StreetScenes
from paddle_rt.tasks.segmentation.tta import restore


@dataclass
class VideoScores:
    """What was counted of one network on all videos.

    Args:
        confusion: int64 [frames, C, C], by the position of a frame in its video; rows are true classes, columns
            predicted ones.
        changed: Of each video, the pixels whose prediction changed although the true class did not; see
            `metrics.flicker`.
        steady: Of each video, the pixels whose true class did not change.
        seconds: Of every frame, from the transformed image to its labels.
    """

    confusion: np.ndarray
    changed: list[int] = field(default_factory=list)
    steady: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


class _Stream:
    """One network on its way through one video; a network for single images labels each frame by itself."""

    def __init__(self, network: Network) -> None:
        self.network, self.state = network, None

    def label(self, image: paddle.Tensor, trans_info: list) -> np.ndarray:
        """Label the next frame at its own size. Shape: [1, 3, H, W] to [h, w]."""
        if self.network.temporal_window > 1:
            if self.state is None:
                self.state = paddle.zeros(self.network.state_shape())
            coarse, self.state = self.network.coarse_step(image, self.state)
        else:
            coarse = self.network.coarse_logits(image)
        logits = resize_as(coarse, image, self.network.align_corners)
        return restore(logits, trans_info).argmax(axis=1)[0].numpy()


def score_videos(
    networks: Sequence[Network], dataset: paddle.io.Dataset, videos: int, frames: int
) -> list[VideoScores]:
    """Stream videos frame by frame through networks that take turns, so that their times can be compared.

    Args:
        networks: Networks of one number of classes. They are left in evaluation mode.
        dataset: StreetScenes, with transforms that draw no random numbers.
        videos: Number of its videos to run.
        frames: Frames of each, 2 or more.

    Returns:
        Scores of each network.

    Raises:
        UserError: There are not so many videos or frames, or the data set has no videos.
    """
    if not isinstance(dataset, StreetScenes):
        raise UserError(f"{type(dataset).__name__} has no videos with a label for every frame; StreetScenes has")
    if frames < 2 or not 1 <= videos <= len(dataset):
        raise UserError(
            f"{videos} videos of {frames} frames: give at most {len(dataset)} videos (num_samples of the "
            "data set), at least 1, of at least 2 frames"
        )
    results = [VideoScores(np.zeros([frames, *[dataset.num_classes] * 2], np.int64)) for _ in networks]
    for network in networks:
        network.eval()
    with paddle.no_grad(), tqdm(total=videos * frames, desc="videos", unit="frame", disable=None, leave=False) as bar:
        for index in range(videos):
            _score_video(networks, dataset, index, results, bar)
    return results


def _score_video(
    networks: Sequence[Network], dataset: StreetScenes, index: int, results: list[VideoScores], bar: tqdm
) -> None:
    frames, ignore = len(results[0].confusion), dataset.ignore_index
    streams, before = [_Stream(network) for network in networks], None
    for result in results:
        result.changed.append(0)
        result.steady.append(0)
    for t, (frame, label) in enumerate(dataset.video(index, frames)):
        data = dataset.transforms({"img": frame.astype(np.float32), "trans_info": [], "gt_fields": []})
        image, predictions = paddle.to_tensor(data["img"]).unsqueeze(0), [None] * len(networks)
        for i in np.roll(range(len(networks)), t):  # so that no network is always the first after the rendering
            start = time.perf_counter()
            predictions[i] = streams[i].label(image, data["trans_info"])
            results[i].seconds.append(time.perf_counter() - start)
            results[i].confusion[t] += metrics.confusion_matrix(predictions[i], label, dataset.num_classes, ignore)
            if before is not None:
                pair = (before[0][i], predictions[i]), (before[1], label)
                changed, steady = metrics.flicker(*pair, ignore)
                results[i].changed[-1] += changed
                results[i].steady[-1] += steady
        before = predictions, label
        bar.update()


def summarize(results: list[VideoScores]) -> list[dict[str, Any]]:
    """Compute the numbers of a table, a row for each network.

    Returns:
        Each row has mIoU over all frames, and mIoU_by_frame by the position of a frame in its video; flicker, the share
        of pixels of steady truth whose prediction changed, and flicker_by_video; fps by the median time of a frame; and
        relative_fps, the median over frames of the first network's time divided by this one's.

    Raises:
        UserError: No pixel keeps its true class from one frame to the next.
    """
    if any(sum(result.steady) == 0 for result in results):
        raise UserError("no pixel keeps its true class from one frame to the next: there is nothing to compare")
    return [
        {
            "mIoU": metrics.scores(result.confusion.sum(axis=0))["mIoU"],
            "flicker": sum(result.changed) / sum(result.steady),
            "fps": float(1 / np.median(result.seconds)),
            "relative_fps": float(np.median(np.divide(results[0].seconds, result.seconds))),
            "mIoU_by_frame": [metrics.scores(confusion)["mIoU"] for confusion in result.confusion],
            "flicker_by_video": [c / s if s else None for c, s in zip(result.changed, result.steady, strict=True)],
        }
        for result in results
    ]


def require_same_data(configs: Sequence[Mapping[str, Any]]) -> None:
    """Refuse configs whose validation data differ in more than the time of their clips: their scores do not compare.

    Args:
        configs: The values of each config.

    Raises:
        UserError: Names the first key that differs.
    """
    times = ("frames", "end")
    first, *others = ({k: v for k, v in c.get("val_dataset", {}).items() if k not in times} for c in configs)
    for other in others:
        for key in first.keys() | other.keys():
            if first.get(key) != other.get(key):
                raise UserError(f"the configs differ in val_dataset.{key}: {first.get(key)} and {other.get(key)}")
