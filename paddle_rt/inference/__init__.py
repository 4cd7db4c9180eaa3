"""Run an exported model: a frame goes in, labels come out.

Nothing here imports Paddle before the "paddle" backend is chosen, and nothing imports PaddleSeg.
"""

from paddle_rt.inference.deployment import Deployment, load_deployment
from paddle_rt.inference.engines import BACKENDS
from paddle_rt.inference.segmenter import Segmenter
from paddle_rt.inference.upsample import confidence_from_logits, labels_from_logits
from paddle_rt.inference.video_segmenter import VideoSegmenter, VideoState

__all__ = [
    "BACKENDS", "Deployment", "Segmenter", "VideoSegmenter", "VideoState", "confidence_from_logits",
    "labels_from_logits", "load_deployment",
]  # fmt: skip
