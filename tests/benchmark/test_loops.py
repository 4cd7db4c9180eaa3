"""The benchmark of whole training iterations: every way to train runs, and the rows say what was measured."""

import pytest

from paddle_rt.benchmark.loops import CONTENDERS, LoopPlan, compare_loops


@pytest.mark.slow
def test_every_contender_runs_in_turn(tmp_path):
    rows = compare_loops(LoopPlan(batch_size=1, size=(64, 96), steps=1, rounds=2), tmp_path)
    assert [row["name"] for row in rows] == [contender.name for contender in CONTENDERS]
    assert rows[0]["speedup"] == 1.0 and all(row["iteration_ms"] > 0 for row in rows)
    assert (rows[0]["batch_size"], rows[0]["size"], rows[0]["rounds"]) == (1, (64, 96), 2)
