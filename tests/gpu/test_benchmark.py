"""The benchmark of a GPU measures every engine, device and precision, one after the other."""

import importlib.util

import pytest

from paddle_rt.benchmark import gpu
from paddle_rt.benchmark.plan import Plan
from tests.gpu.conftest import SIZE
from tests.gpu.test_inference import CHOICES, LEAST
from tests.helpers import smooth_image


@pytest.mark.slow
@pytest.mark.parametrize("place", ["gpu", "tensorrt"])
def test_every_choice_is_measured(gpu_export, nvidia, device, monkeypatch, place):
    monkeypatch.setattr(gpu.measure_block, "__defaults__", ((1, 0.0),))
    expected = [choice for choice in CHOICES if choice[1] == place and choice[2] != "int8"]
    if importlib.util.find_spec("paddle") is None:
        expected = [choice for choice in expected if choice[0] != "paddle"]
    backends, exports = list(dict.fromkeys(choice[0] for choice in expected)), [str(gpu_export)]
    plan = Plan([], SIZE, (), 19, [place], backends, ["fp32", "fp16"], ["none"], exports=exports, runs=2)
    rows = gpu.run(plan, [smooth_image(*SIZE, seed) for seed in range(2)])
    measured = [(row["backend"], row["device"], row["precision"]) for row in rows]
    if device == "gpu":  # where the two TensorRTs may be of different versions
        expected = [choice for choice in expected if choice[:2] != ("paddle", "tensorrt") or choice in measured]
    assert sorted(measured) == sorted(expected), "one was left out"
    for row in rows:
        assert row["label_agreement"] >= LEAST[row["precision"]], row
        assert row["network_ms"] > 0 and row["with_copies_ms"] > 0 and row["end_to_end_ms"] > 0
        assert row["engines"] == (row["device"] == "tensorrt") and row["nodes_elsewhere"] == 0, row
        assert row["versions"]["driver"] == row["driver"] and row["gpu_states"][0][0]["sm_mhz"] is not None
