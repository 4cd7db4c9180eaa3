"""The tables of the ablations: rows, verdicts and the tool."""

import json

import pytest

from paddle_rt.benchmark import ablations
from paddle_rt.errors import UserError
from paddle_rt.registry import create_model
from tests.helpers import call_tool, tiny_config


def results_of(score: float, seconds: float) -> dict:
    return {"scores": {"0": score}, "sizes": {"64x64": {"ms": 1e3 * seconds, "seconds": [seconds] * 3, "gflop": 1.0}}}


def test_every_claim_names_two_rows():
    names = [row.name for row in ablations.ROWS]
    assert len(set(names)) == len(names)
    assert all({claim.better, claim.worse} <= set(names) for claim in ablations.CLAIMS)


@pytest.mark.parametrize("row", ablations.ROWS[1:], ids=lambda row: row.name)
def test_a_row_is_another_network(row):
    small = dict(base_channels=8, head_channels=8, spp_channels=8)
    network = create_model("rtformer_slim", 5, **small, **ablations.network_arguments(row, (64, 96)))
    default = create_model("rtformer_slim", 5, **small)
    changed = {**dict(low_groups=8), **row.arguments}
    assert changed != dict(low_groups=8)
    same_parameters = [list(p.shape) for p in network.parameters()] == [list(p.shape) for p in default.parameters()]
    assert same_parameters == ("cross_size" in row.arguments), "no parameter depends on cross_size alone"


@pytest.mark.parametrize(
    ("measure", "equal", "better", "worse", "verdict"),
    [
        ("mIoU", False, (0.5, 1), (0.4, 1), "shows (0.5000 and 0.4000"),
        ("mIoU", False, (0.4, 1), (0.5, 1), "does not show"),
        ("mIoU", False, (0.41, 1), (0.40, 1), "within the noise"),
        ("mIoU", True, (0.41, 1), (0.40, 1), "shows"),
        ("mIoU", True, (0.5, 1), (0.4, 1), "does not show"),
        ("ms", False, (0.4, 1), (0.4, 1.5), "shows (1.50 times the milliseconds at 64x64)"),
        ("ms", False, (0.4, 1), (0.4, 1.01), "within the noise"),
        ("ms", True, (0.4, 1), (0.4, 1.01), "shows"),
        ("ms", False, (0.4, 1), (0.4, 0.9), "does not show"),
    ],
)
def test_a_difference_counts_if_it_is_above_the_noise(measure, equal, better, worse, verdict):
    claim = ablations.Claim("", "a", "b", measure, equal)
    default = {"scores": {"0": 0.40, "1": 0.42, "2": 0.41}}
    results = {"a": results_of(*better), "b": results_of(*worse), ablations.DEFAULT: default}
    assert ablations.judge(claim, results).startswith(verdict)
    assert ablations.judge(claim, {"a": results_of(*better)}) == "not measured"


def test_scores_are_not_judged_before_the_noise_is_known():
    claim = ablations.Claim("", "a", "b", "mIoU")
    results = {"a": results_of(0.5, 1), "b": results_of(0.4, 1), ablations.DEFAULT: {"scores": {"0": 0.4}}}
    assert ablations.judge(claim, results).startswith("not judged (0.5000 and 0.4000; ")


def test_cross_sizes_that_repeat_cells_are_marked_in_their_table(tmp_path):
    rows = ablations.find_rows(["gfa + cross", "cross size 4", "cross size 8", "mlp"])
    assert [ablations.repeats_cells(row, (128, 256)) for row in rows] == [True, False, False, True]
    assert not any(ablations.repeats_cells(row, (384, 384)) for row in rows), "the branch is 12x12"
    results = {
        row.name: {"scores": {"0": 0.4}, "repeats_cells": ablations.repeats_cells(row, (128, 256))} for row in rows
    }
    del results["cross size 8"]["scores"]
    attention, cross = ablations.table(rows, results, []).split("**cross size**")
    assert "0.4000 *" not in attention and "fewer rows or columns" not in attention
    assert "| gfa + cross |  | 0.4000 * |" in cross and "| cross size 4 |  | 0.4000 |" in cross
    assert "| cross size 8 |  |  |" in cross and "repeats cells" in cross


def test_attention_that_does_not_fit_is_left_out():
    row = next(row for row in ablations.ROWS if row.name == "mhsa + mhsa")
    assert ablations.largest_scores(row, (1024, 2048)) == 32 * 2**30
    assert ablations.measure([row], (1024, 2048), 19, 1, 1) == {row.name: {"left_out": "needs 32 GiB"}}


def test_results_are_written_as_table_and_chart(tmp_path):
    rows = ablations.find_rows(["gfa + cross", "mlp"])
    results = {"gfa + cross": {**results_of(0.4, 1), "parameters": 5.4, "scores": {"0": 0.4, "1": 0.42}}, "mlp": {}}
    text = ablations.write_results(tmp_path, rows, results, {"Trained": "a.yml, 5 iterations"})
    assert "| gfa + cross | 5.40 |  |  |  |  | 0.4100 (0.4000 to 0.4200, 2 seeds) |" in text
    assert "| conv is faster than mlp | not measured |" in text
    assert text.endswith("Trained: a.yml, 5 iterations\n")
    assert ablations.read_results(tmp_path / "ablations.json") == (results, {"Trained": "a.yml, 5 iterations"})
    assert (tmp_path / "ablations.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="unknown row of the ablations 'mlpp', did you mean 'mlp'"):
        ablations.find_rows(["mlpp"])


@pytest.mark.slow
def test_the_tool_trains_measures_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(ablations, "SIZES", ((64, 96),))
    flags = ("-c", tiny_config(tmp_path, iters=2), "--output", tmp_path / "o", "--runs", 2, "--threads", 1)
    assert call_tool("ablations", *flags, "--rows", "mlp") in (0, None)
    row = json.loads((tmp_path / "o/ablations.json").read_text())["results"]["mlp"]
    assert set(row["scores"]) == {"0"} and row["sizes"]["64x96"]["ms"] > 0 and row["parameters"] > 3
    monkeypatch.setattr(ablations.subprocess, "run", lambda *_, **__: pytest.fail("a finished run is not repeated"))
    assert call_tool("ablations", *flags, "--rows", "mlp", "--steps", "train") in (0, None)
    again = json.loads((tmp_path / "o/ablations.json").read_text())["results"]["mlp"]
    assert again == row
