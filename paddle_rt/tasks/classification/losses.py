"""The loss of classification, with PaddleClas's name."""

import paddle
import paddle.nn.functional as F

from paddle_rt.components import Catalogue


class CELoss:
    """Cross entropy with label smoothing.

    Args:
        epsilon: The share of the truth that is spread evenly over all classes.

    Shape: logits [B, C] and truths [B, C], whose rows sum to 1, to a number.

    Source: Szegedy et al., Rethinking the Inception Architecture, arXiv 1512.00567, section 7.
    """

    def __init__(self, epsilon: float = 0.0) -> None:
        self.epsilon = epsilon

    def __call__(self, logits: paddle.Tensor, truths: paddle.Tensor) -> paddle.Tensor:
        truths = truths * (1 - self.epsilon) + self.epsilon / truths.shape[1]
        return -(truths * F.log_softmax(logits, axis=1)).sum(axis=1).mean()


LOSSES: Catalogue = {"CELoss": CELoss}
