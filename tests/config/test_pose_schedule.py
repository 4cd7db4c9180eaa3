"""The learning rate of SegFormer++'s pose networks, as it ran and as it was meant, in the terms of a config."""

import pytest

from paddle_rt.config.optimizer import build_schedule, check_schedule

EPOCH = 20  # iterations; the original's epochs are longer
WARMUP = {"learning_rate": 5e-4, "warmup_iters": 499, "warmup_start_lr": 5e-7}
AS_IT_RAN = {"type": "PolynomialDecay", "end_lr": 5e-4, "power": 1.0, **WARMUP}
AS_MEANT = {"type": "MultiStepDecay", "milestones": [170 * EPOCH - 499, 200 * EPOCH - 499], "gamma": 0.1, **WARMUP}


@pytest.mark.parametrize(
    ("section", "late"), [(AS_IT_RAN, (5e-4, 5e-4)), (AS_MEANT, (5e-5, 5e-6))], ids=["as it ran", "as meant"]
)
def test_the_rate_is_the_originals(section, late):
    """MMEngine's warm-up of 500 iterations reaches its end in the last of them, number 499."""
    check_schedule(section, 210 * EPOCH)
    schedule, rates = build_schedule(section, 210 * EPOCH), []
    for _ in range(210 * EPOCH):
        rates.append(schedule())
        schedule.step()
    assert rates[:500] == pytest.approx([5e-4 * (0.001 + 0.999 * step / 499) for step in range(500)], rel=1e-9)
    assert rates[500 : 170 * EPOCH] == pytest.approx([5e-4] * (170 * EPOCH - 500))
    assert rates[170 * EPOCH : 200 * EPOCH] == pytest.approx([late[0]] * 30 * EPOCH)
    assert rates[200 * EPOCH :] == pytest.approx([late[1]] * 10 * EPOCH)
