"""The table of scores at the end of a run."""

from paddle_rt.training.log import table


def test_names_of_scores_do_not_run_into_each_other():
    scores = {"mIoU": 0.5, "PCK_torso@0.05": 0.25, "PCK_torso@0.1": 1.0}
    header, row = table([{"iter": 10, "model": "model", "scores": scores}]).splitlines()
    assert header.split() == ["iter", "model", *scores] and len(header) == len(row)
    assert row.split() == ["10", "model", "0.5000", "0.2500", "1.0000"]
