"""The loss of top-down pose, with MMPose's name."""

import logging

import paddle

from paddle_rt.arguments import checks_arguments
from paddle_rt.components import Catalogue

_log = logging.getLogger(__name__)


class KeypointMSELoss:
    """Mean squared error of heatmaps, weighted by keypoint.

    The mean is over all cells of all heatmaps, those without weight too. A weight is not squared.

    Args:
        use_target_weight: Has no effect: the original never reads it, so that weights count whether it is set or not.
            To train without weights, `visible` would have to be 1 for every keypoint.
        skip_empty_channel: Leave out heatmaps whose target is 0 everywhere.
        loss_weight: Factor of the loss.

    Shape: heatmaps and targets [B, K, H, W] and weights [B, K], or None, to a number.

    Source: MMPose 1.2.0 `KeypointMSELoss`.
    """

    @checks_arguments
    def __init__(
        self, use_target_weight: bool = True, skip_empty_channel: bool = False, loss_weight: float = 1.0
    ) -> None:
        if not use_target_weight:
            _log.warning("use_target_weight of KeypointMSELoss has no effect, as in the original: weights count")
        self.skip_empty_channel, self.loss_weight = skip_empty_channel, loss_weight

    def __call__(
        self, output: paddle.Tensor, target: paddle.Tensor, weight: paddle.Tensor | None = None
    ) -> paddle.Tensor:
        errors = (output - target).square().mean(axis=[2, 3])  # [B, K]
        if weight is not None:
            errors = errors * weight
        if self.skip_empty_channel:
            errors = errors * (target != 0).any(axis=[2, 3]).astype(errors.dtype)
        return errors.mean() * self.loss_weight


LOSSES: Catalogue = {"KeypointMSELoss": KeypointMSELoss}
