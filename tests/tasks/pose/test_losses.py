"""The loss of pose on numbers whose result is known."""

import logging

import numpy as np
import paddle
import pytest

from paddle_rt.tasks.pose.losses import KeypointMSELoss


def test_the_mean_is_over_all_cells(caplog):
    output, target = paddle.zeros([2, 3, 4, 5]), paddle.zeros([2, 3, 4, 5])
    target[0, 1] = 2.0
    weight = paddle.to_tensor(np.array([[1, 0.5, 1], [0, 0, 1]], np.float32))
    assert float(KeypointMSELoss()(output, target)) == pytest.approx(4 / 6)
    assert float(KeypointMSELoss(loss_weight=3.0)(output, target, weight)) == pytest.approx(3 * 0.5 * 4 / 6)
    assert float(KeypointMSELoss(skip_empty_channel=True)(output + 1, target, weight)) == pytest.approx(0.5 / 6)
    with caplog.at_level(logging.WARNING, logger="paddle_rt"):
        assert float(KeypointMSELoss(use_target_weight=False)(output, target, weight)) == pytest.approx(2 / 6)
    assert "no effect" in caplog.text
