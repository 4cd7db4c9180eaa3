"""Load the predictor of an export, whatever its task is."""

import os
from collections.abc import Callable
from typing import Any

from paddle_rt.errors import unknown
from paddle_rt.inference.classifier import Classifier
from paddle_rt.inference.deployment import load_deployment
from paddle_rt.inference.engines import Profile
from paddle_rt.inference.pose_estimator import PoseEstimator
from paddle_rt.inference.segmenter import FrameSegmenter, Segmenter
from paddle_rt.inference.video_segmenter import VideoSegmenter

LibraryPredictor = FrameSegmenter | Classifier | PoseEstimator  # of the tasks whose results the tools show
_PREDICTORS: dict[str, Callable[..., Any]] = {}


def register_predictor(task: str, factory: Callable[..., Any]) -> None:
    """Make `load` use a predictor for the exports of a task.

    Args:
        task: The task's name in deploy.yaml.
        factory: A class or a function that takes the arguments of `load`, those with a name by position; most are a
            subclass of `Predictor`.
    """
    _PREDICTORS[task] = factory


def load(
    export_dir: str | os.PathLike,
    backend: str = "openvino",
    precision: str = "fp32",
    threads: int | None = None,
    device: str = "cpu",
    device_id: int = 0,
    profile: Profile | None = None,
    **options: Any,
) -> Any:
    """Load an export with the predictor of its task, which takes the arguments; `options` are those of its class alone.

    Returns:
        A `Segmenter` or `VideoSegmenter` for segmentation, a `Classifier` for classification, a `PoseEstimator` for
        pose, else what was registered for the task.

    Raises:
        UserError: The task has no predictor, or the predictor refuses the export or an argument.
    """
    task = load_deployment(export_dir).task
    if task not in _PREDICTORS:
        raise unknown("task with a predictor", task, _PREDICTORS)
    return _PREDICTORS[task](export_dir, backend, precision, threads, device, device_id, profile, **options)


def _load_segmenter(export_dir: str | os.PathLike, *arguments: Any, **options: Any) -> Segmenter | VideoSegmenter:
    is_video = load_deployment(export_dir).state_shape is not None
    return (VideoSegmenter if is_video else Segmenter)(export_dir, *arguments, **options)


register_predictor(FrameSegmenter.task, _load_segmenter)
register_predictor(Classifier.task, Classifier)
register_predictor(PoseEstimator.task, PoseEstimator)
