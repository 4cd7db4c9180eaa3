"""tools/plot_runs.py: curves of runs from metrics.jsonl and from VisualDL logs."""

import json

import cv2
import pytest

from paddle_rt.run_logs import METRICS
from paddle_rt.training import TrainOptions
from tests.helpers import refused
from tests.training.run_toy import run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name in ("one", "two"):
        options = TrainOptions(str(folder / name), "cpu", seed=1, save_interval=5, log_iters=5, use_vdl=True)
        run(10 if name == "one" else 15, options)
    (folder / "two" / METRICS).unlink()  # as a run of PaddleSeg's loop, which has VisualDL logs alone
    return folder


def test_curves_and_table(call, runs, tmp_path):
    image = tmp_path / "runs.png"
    flags = ["--runs", f"first={runs / 'one'}", f"second={runs / 'two'}", "--output", image]
    code, out, err = call("plot_runs", *flags)
    assert code == 0, err
    lines = out.strip().splitlines()
    assert lines[0] == "| iteration | first | second |" and [line.split()[1] for line in lines[2:]] == ["5", "10", "15"]
    first, second = (line.split("|")[2:4] for line in lines[2:4])
    assert first[0] == first[1] and second[0] == second[1], "two runs of one seed have other scores"
    assert cv2.imread(str(image)).shape[1] > 500


def write_run(folder, scores: dict[int, float]) -> str:
    folder.mkdir()
    rows = [{"kind": "eval", "iter": step, "model": "model", "mIoU": score} for step, score in scores.items()]
    rows += [{"kind": "train", "iter": step, "epoch": 1, "loss": 1 / step} for step in scores]
    (folder / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def test_runs_of_one_name_become_their_mean_and_spread(call, tmp_path):
    seeds = [{5: 0.25, 10: 0.5}, {5: 0.75, 10: 0.5, 15: 0.9}, {5: 0.5, 10: 0.5}]
    flags = [f"seeds={write_run(tmp_path / str(number), seed)}" for number, seed in enumerate(seeds)]
    flags.insert(1, f"alone={write_run(tmp_path / 'alone', {15: 0.125})}")
    code, out, err = call("plot_runs", "--runs", *flags, "--output", tmp_path / "x.png")
    assert code == 0, err
    assert out.strip().splitlines()[0] == "| iteration | seeds | alone |"
    assert out.strip().splitlines()[2:] == [
        "| 5 | 0.5000 (0.2500 to 0.7500) |  |", "| 10 | 0.5000 (0.5000 to 0.5000) |  |", "| 15 |  | 0.1250 |"
    ]  # fmt: skip
    assert cv2.imread(str(tmp_path / "x.png")) is not None
    flags = [flags[0], f"seeds={tmp_path / 'alone'}"]
    message = "the 2 runs of 'seeds' have no mIoU at a common iteration"
    refused(call("plot_runs", "--runs", *flags, "--output", tmp_path / "y.png"), message)


@pytest.mark.parametrize(
    "line, code, message",
    [
        ("one", 2, "--runs takes NAME=FOLDER, got 'one'"),
        ("a={empty}", 1, "holds neither metrics.jsonl nor a VisualDL log"),
        ("a={one} --score mIoU", 1, "holds no mIoU; train with --do_eval"),
    ],
)
def test_bad_runs_get_one_line(call, line, code, message, runs, tmp_path):
    flags = line.format(empty=tmp_path, one=runs / "one").split()
    refused(call("plot_runs", "--runs", *flags, "--output", tmp_path / "x.png"), message, code)
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    "name, data, message",
    [
        ("vdlrecords.1.log", b"\xff" * 64, r"vdlrecords.1.log is a damaged VisualDL log \(byte 0\)"),
        ("vdlrecords.1.log", b"\x03" + bytes(7) + b"\xff" * 64, "vdlrecords.1.log is a damaged VisualDL log"),
        (METRICS, b"\xff{]\n" * 9, f"{METRICS} holds no row of a run; it is empty or damaged"),
        (METRICS, b"", f"{METRICS} holds no row of a run; it is empty or damaged"),
    ],
)
def test_damaged_logs_are_called_so(call, name, data, message, tmp_path):
    (tmp_path / name).write_bytes(data)
    refused(call("plot_runs", "--runs", f"a={tmp_path}", "--output", tmp_path / "x.png"), message)
