"""Run an exported network: a frame goes in, the result of its task comes out.

Nothing here imports Paddle before the backend "paddle" is chosen, and nothing imports PaddleSeg.
"""

from paddle_rt.inference.classifier import Classifier, TopK
from paddle_rt.inference.deployment import Deployment, load_deployment
from paddle_rt.inference.engines import BACKENDS
from paddle_rt.inference.keypoints import KEYPOINT_SETS, KeypointSet
from paddle_rt.inference.loading import load, register_predictor
from paddle_rt.inference.pose_estimator import KeyPoints, PoseEstimator
from paddle_rt.inference.predictor import Predictor
from paddle_rt.inference.segmenter import Labels, Segmenter
from paddle_rt.inference.tiles import TiledSegmenter
from paddle_rt.inference.upsample import confidence_from_logits, labels_from_logits
from paddle_rt.inference.video_segmenter import VideoSegmenter, VideoState

__all__ = [
    "BACKENDS", "KEYPOINT_SETS", "Classifier", "Deployment", "KeyPoints", "KeypointSet", "Labels", "PoseEstimator",
    "Predictor", "Segmenter", "TiledSegmenter", "TopK", "VideoSegmenter", "VideoState",
    "confidence_from_logits", "labels_from_logits", "load", "load_deployment", "register_predictor",
]  # fmt: skip
