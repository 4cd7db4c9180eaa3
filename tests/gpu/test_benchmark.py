"""The benchmark of a GPU measures every engine, device and precision, one after the other."""

import pytest

from paddle_rt.benchmark import gpu
from paddle_rt.benchmark.plan import Plan
from tests.gpu.conftest import SIZE
from tests.gpu.test_inference import CHOICES, LEAST
from tests.helpers import smooth_image


@pytest.mark.slow
def test_every_choice_is_measured(gpu_export, nvidia, device, monkeypatch):
    monkeypatch.setattr(gpu.measure_block, "__defaults__", ((1, 0.0),))
    devices, exports = ["gpu", "tensorrt"], [str(gpu_export)]
    plan = Plan([], SIZE, devices=devices, precisions=["fp32", "fp16"], against=["none"], exports=exports, runs=2)
    rows = gpu.run(plan, [smooth_image(*SIZE, seed) for seed in range(2)])
    measured = [(row["backend"], row["device"], row["precision"]) for row in rows]
    expected = [choice for choice in CHOICES if choice[2] != "int8"]
    if device == "gpu":  # where the two TensorRTs may be of different versions
        expected = [choice for choice in expected if choice[:2] != ("paddle", "tensorrt") or choice in measured]
    assert sorted(measured) == sorted(expected), "one was left out"
    for row in rows:
        assert row["label_agreement"] >= LEAST[row["precision"]], row
        assert row["network_ms"] > 0 and row["with_copies_ms"] > 0 and row["end_to_end_ms"] > 0
        assert row["engines"] == (row["device"] == "tensorrt") and row["nodes_elsewhere"] == 0, row
        assert row["versions"]["driver"] == row["driver"] and row["gpu_states"][0][0]["sm_mhz"] is not None
