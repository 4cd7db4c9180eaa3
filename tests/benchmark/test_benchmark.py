"""The benchmark: what it reports is what happened, in the order that it says."""

import json
import pathlib
import subprocess
import time

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from paddle_rt.benchmark import measure as measuring
from paddle_rt.benchmark.floor import Work, count_operations
from paddle_rt.benchmark.measure import Record, measure, run, tabulate, true_labels
from paddle_rt.benchmark.pipelines import Pipeline, prepare
from paddle_rt.benchmark.plan import Model, Plan, read_model
from paddle_rt.benchmark.report import draw, machine, markdown_table, page, text_table
from paddle_rt.benchmark.training import TrainingPlan, compare_layers, compare_training
from paddle_rt.errors import UserError
from paddle_rt.inference.engines import UnsupportedError
from tests.helpers import run_python

KEYS = {
    "model", "size", "backend", "device", "precision", "threads", "pipeline", "end_to_end_ms", "p90_ms", "p99_ms",
    "network_ms", "preprocess_ms", "labels_ms", "fps", "label_agreement", "speedup", "startup_s", "peak_rss_mb",
    "gflop", "winograd_gflop", "floor_gflop_per_s", "share_of_floor", "share_of_winograd_floor", "runs",
}  # fmt: skip


class Fake:
    """A pipeline that notes its turns and needs a known time."""

    def __init__(self, name: str, turns: list[str], seconds: float = 0.0) -> None:
        self.name, self.turns, self.seconds = name, turns, seconds
        self.timings = {stage: seconds / 3 for stage in measuring.STAGES}

    def warmup(self) -> float:
        self.turns.append(f"{self.name} warm")
        return 0.0

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        self.turns.append(self.name)
        time.sleep(self.seconds)
        return np.full((2, 2), frame[0, 0, 0])


def pipeline(name: str, side: str = "paddle_rt") -> Pipeline:
    return Pipeline("net", "net", side, "openvino", "cpu", name, 1, "")


@pytest.fixture
def turns(monkeypatch) -> list[str]:
    seen: list[str] = []
    delays = {"a": 0.004, "b": 0.002, "c": 0.0}
    monkeypatch.setattr(Pipeline, "load", lambda self: Fake(self.precision, seen, delays[self.precision]))
    return seen


def frames(number: int) -> list[np.ndarray]:
    return [np.full((2, 2, 3), index, np.uint8) for index in range(number)]


def test_pipelines_take_turns_in_changing_order(turns):
    records = measure([pipeline("a"), pipeline("b"), pipeline("c")], frames(2), runs=8, pause=0.0)
    assert turns[:3] == ["a warm", "b warm", "c warm"]
    rounds = [tuple(turns[at : at + 6]) for at in range(3, len(turns), 6)]
    assert len(rounds) == 8
    for turn in rounds:
        assert turn[::2] == turn[1::2], f"the frame before the timed one must be the pipeline's own: {turn}"
        assert sorted(turn[::2]) == ["a", "b", "c"]
    assert len(set(rounds)) > 2, "nobody may always follow the same neighbour"
    assert [len(r.seconds) for r in records] == [8, 8, 8]
    assert all(len(r.labels) == 2 and r.labels[1].max() == 1 for r in records)


def test_every_frame_is_labelled_though_runs_are_fewer(turns):
    (record,) = measure([pipeline("a")], frames(5), runs=2, pause=0.0)
    assert len(record.seconds) == 2 and [int(x[0, 0]) for x in record.labels] == [0, 1, 2, 3, 4]


def test_a_precision_that_the_machine_lacks_is_left_out(monkeypatch, caplog):
    def load(self: Pipeline) -> Fake:
        if self.precision == "bf16":
            raise UnsupportedError("this CPU does not compute in bf16")
        return Fake(self.precision, [])

    monkeypatch.setattr(Pipeline, "load", load)
    records = measure([pipeline("bf16"), pipeline("fp32")], frames(1), runs=2, pause=0.0)
    assert [record.pipeline.precision for record in records] == ["fp32"] and len(records[0].seconds) == 2
    assert caplog.messages == ["left out: net, paddle_rt, openvino cpu bf16: this CPU does not compute in bf16"]
    with pytest.raises(UserError, match="nothing to measure: this CPU does not compute in bf16"):
        measure([pipeline("bf16")], frames(1), runs=2, pause=0.0)


def test_rows_hold_what_was_measured(monkeypatch):
    monkeypatch.setattr(measuring, "startup_and_memory", lambda *_: (0.5, 7.0))
    first, second = Record(pipeline("fp32")), Record(pipeline("bf16"))
    first.seconds, second.seconds = [0.2, 0.4, 0.6], [0.1, 0.1, 0.2]  # ratios 2, 4, 3
    for record in (first, second):
        record.stages = {"preprocess": [0.0], "network": [0.05], "labels": [0.01]}
    labels = np.arange(16).reshape(4, 4)
    first.labels, second.labels = [labels], [np.where(labels == 5, 0, labels)]
    floors = {("openvino", "fp32"): 4e10}
    rows = tabulate([first, second], {"net": true_labels([first, second], [])}, (4, 4), {"net": Work(1e9, 4e8)}, floors)
    assert all(set(row) == KEYS for row in rows)
    assert rows[1]["speedup"] == pytest.approx(3) and rows[0]["speedup"] == 1
    assert rows[1]["label_agreement"] == 15 / 16
    assert rows[0]["end_to_end_ms"] == pytest.approx(400) and rows[0]["fps"] == pytest.approx(2.5)
    assert rows[0]["share_of_floor"] == pytest.approx(1e9 / 0.05 / 4e10) and rows[1]["share_of_floor"] is None
    assert rows[0]["share_of_winograd_floor"] == pytest.approx(4e8 / 0.05 / 4e10) and rows[0]["startup_s"] == 0.5
    assert text_table(rows).splitlines()[2].split()[-4:] == ["-", "-", "0.50", "7"]
    assert len(markdown_table(rows).splitlines()) == 4


def test_the_chart_has_a_bar_for_each_row(tmp_path, monkeypatch):
    """In the colours of the stages, as long as the times."""
    monkeypatch.setattr(measuring, "startup_and_memory", lambda *_: (0.5, 7.0))
    records = []
    for name, network in (("fp32", 0.08), ("bf16", 0.04)):
        stages = {"preprocess": [0.01], "network": [network], "labels": [0.01]}
        records.append(Record(pipeline(name), [network + 0.02], stages, [np.zeros((2, 2))]))
    rows = tabulate(records, {"net": records[0].labels}, (2, 2), {"net": Work(1.0, 1.0)}, {})
    draw(rows, tmp_path / "chart.png")
    image = cv2.imread(str(tmp_path / "chart.png"))
    blue = (image == (178, 114, 0)).all(axis=2)  # BGR of the network's colour
    runs = {max(len(run) for run in "".join(" x"[pixel] for pixel in row).split()) for row in blue if row.any()}
    bars = sorted(run for run in runs if run > 100)  # the legend's patch is shorter
    assert 1.9 < bars[-1] / bars[0] < 2.1, f"lines of {sorted(runs)} pixels for 80 and 40 ms"


def product_graph(path: pathlib.Path, size: int | str, groups: int = 2) -> pathlib.Path:
    """A 3x3 convolution of 4 to 8 channels in groups, then a product with a matrix of 6 columns."""
    weights = [
        onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name)
        for name, shape in (("k", (8, 4 // groups, 3, 3)), ("m", (10, 6)))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["y"], pads=[1, 1, 1, 1], group=groups),
        helper.make_node("MatMul", ["y", "m"], ["z"]),
    ]
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)  # noqa: E731
    graph = helper.make_graph(nodes, "g", [value("x", [1, 4, size, 10])], [value("z", [1, 8, size, 6])], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_operations_of_a_known_graph(tmp_path):
    convolution, product = 2 * (2 * 9) * 8 * 5 * 10, 2 * (8 * 5 * 10) * 6
    assert count_operations(product_graph(tmp_path / "g.onnx", 5)) == (convolution + product,) * 2
    found = count_operations(product_graph(tmp_path / "whole.onnx", 5, groups=1))
    assert found == pytest.approx((2 * convolution + product, 2 * convolution * 64 / 324 + product))
    with pytest.raises(UserError, match="leaves sizes open"):
        count_operations(product_graph(tmp_path / "open.onnx", "h"))


def test_pairs_that_do_not_exist_are_named():
    plan = small_plan("rtformer_slim", backends=["openvino", "paddle"], precisions=["fp32", "bf16"])
    assert plan.choices == [
        ("openvino", "cpu", "fp32"), ("openvino", "cpu", "bf16"), ("paddle", "cpu", "fp32")
    ]  # fmt: skip
    assert len(plan.refusals) == 1 and "paddle has no precision bf16" in plan.refusals[0]
    with pytest.raises(UserError, match="nothing to measure"):
        small_plan("rtformer_slim", backends=["paddle"], precisions=["bf16"])
    with pytest.raises(UserError, match="openvino"):
        small_plan("rtformer_slim", backends=["openvin"])


def test_pose_networks_have_a_benchmark_of_their_own():
    with pytest.raises(UserError, match="segformerpp_b0_pose takes frames with boxes: .* benchmark_pose"):
        small_plan("rtformer_slim", "segformerpp_b0_pose:token_merging=bsm_hq")


def test_checkpoints_must_belong_to_measured_models():
    assert small_plan("rtformer_slim", checkpoints=["rtformer_slim=a=b"]).weights == {"rtformer_slim": "a=b"}
    for pairs, message in ((["rtformer_slim"], "MODEL=FILE"), (["rtformer_base=x"], "rtformer_base")):
        with pytest.raises(UserError, match=message):
            small_plan("rtformer_slim", checkpoints=pairs)


def test_models_are_read_with_their_arguments():
    groups = small_plan("segformerpp_b0:head=mlp,head_channels=8", "rtformer_slim", "segformerpp_b0").groups
    assert list(groups) == ["segformerpp_b0", "rtformer_slim"]
    assert [model.arguments for model in groups["segformerpp_b0"]] == [dict(head="mlp", head_channels=8), {}]
    for text, message in (("rtformer_slin", "rtformer_slim"), ("rtformer_slim:a", "key=value")):
        with pytest.raises(UserError, match=message):
            small_plan(text)


def small_plan(*models: str, **changes: object) -> Plan:
    """A plan for small frames and one thread, without PaddleSeg."""
    usual = {"num_classes": 5, "threads": 1, "against": ["none"], "backends": ["openvino"], "precisions": ["fp32"]}
    return Plan(models, (64, 96), **{**usual, **changes})


def run_tool(folder: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess:
    output = str(folder / "bench.json")
    return run_python("tools/benchmark.py", "--threads", 1, "--output", output, *arguments)


@pytest.mark.slow
def test_tool_end_to_end(tmp_path):
    page = tmp_path / "page.md"
    done = run_tool(tmp_path, "--models", "rtformer_slim", "--size", "64", "96", "--runs", "2", "--num_classes", "5",
                    "--precisions", "fp32", "--backends", "openvino", "paddle", "--markdown", str(page))  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "random weights" in done.stderr
    rows = json.loads((tmp_path / "bench.json").read_text())
    assert [(r["pipeline"], r["backend"]) for r in rows] == [
        ("paddleseg", "paddle"), ("paddle_rt", "openvino"), ("paddle_rt", "paddle")
    ]  # fmt: skip
    for row in rows:
        assert set(row) == KEYS | {"machine", "random_weights"} and row["random_weights"]
        assert row["size"] == [64, 96] and row["peak_rss_mb"] > 50
    # Labels of ours against PaddleSeg's own graph without oneDNN; random weights leave many near-ties.
    assert min(row["label_agreement"] for row in rows[1:]) > 0.999, [row["label_agreement"] for row in rows]
    assert page.is_file() and page.with_suffix(".png").is_file()


@pytest.mark.slow
def test_segformer_is_measured_against_paddlesegs(tmp_path):
    """Its graph in both engines gives the labels of ours."""
    model = "segformerpp_b0:head=mlp,embed_dim=8,head_channels=8"
    frames = [np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)]
    plan = small_plan(model, against=["paddleseg", "paddleseg-openvino"])
    pipelines, operations = prepare(plan, "segformerpp_b0", frames, tmp_path)
    assert [(p.side, p.backend) for p in pipelines] == [
        ("paddleseg", "paddle"), ("paddleseg", "openvino"), ("paddle_rt", "openvino")
    ]  # fmt: skip
    records = measure(pipelines, frames, 1, pause=0.0)
    same = [float((record.labels[0] == records[0].labels[0]).mean()) for record in records]
    assert min(same) > 0.999 and list(operations) == [model], f"{same} of the labels agree"


@pytest.mark.parametrize("model", ["fanet18", "segformerpp_b0", "segformerpp_b0:head=mlp,token_merging=n2d_2x2"])
def test_what_paddleseg_does_not_have_is_measured_alone(tmp_path, model):
    with pytest.raises(UserError, match=f"{model}: nothing to compare with: .*--against none") as refused:
        prepare(small_plan(model, against=["paddleseg"]), read_model(model).name, [], tmp_path)
    assert "\n" not in str(refused.value) and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_models_of_paddleseg_alone_are_measured_beside(monkeypatch):
    """In the same rounds, as the reference of times and of no labels."""
    monkeypatch.setattr(measuring, "startup_and_memory", lambda *_: (0.5, 7.0))
    frames = [np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)]
    ours, theirs = "segformerpp_b0:embed_dim=8,head_channels=8", "STDCSeg:backbone=STDC1"
    rows = run(small_plan(ours, beside=[theirs], runs=2), frames, {})
    assert [(row["model"], row["pipeline"], row["label_agreement"]) for row in rows] == [
        (theirs, "paddleseg", None), (ours, "paddle_rt", 1),
    ]  # fmt: skip
    assert rows[0]["speedup"] == 1 and rows[1]["speedup"] != 1 and rows[0]["gflop"] is None
    about = {"machine": machine(), "random_weights": True}
    assert "STDCSeg" in text_table(rows)
    assert "STDCSeg" in page(markdown_table(rows), "x.png", [row | about for row in rows], [])
    for text, message in {
        "DDRNet_24": "model of PaddleSeg 'DDRNet_24', did you mean 'DDRNet_23'",
        "STDCSeg": "backbone", "STDCSeg:backbone=STDC3": "did you mean 'STDC[12]'", "DDRNet_23:a": "key=value",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=message):
            run(small_plan(ours, beside=[text]), frames, {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--models", "rtformer"), "rtformer_slim"),
        (("--precisions", "fp31"), "fp32"),
        (("--runs", "0"), "--runs"),
        (("--frames", "nowhere"), "nowhere"),
    ],
)
def test_tool_refuses_in_one_line(tmp_path, arguments, message):
    done = run_tool(tmp_path, "--size", "64", "64", *arguments)
    assert done.returncode != 0 and message in done.stderr.strip().splitlines()[-1], done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "bench.json").exists()


def test_a_training_step_is_timed_with_paddles_layers_and_with_ours(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments = dict(embed_dim=8, depths=[1, 1, 1, 1], head_channels=16)
    row = compare_layers(
        TrainingPlan(Model("tiny", "segformerpp_b0_pose", arguments), (1, 3, 64, 64), 3, threads=1, runs=1)
    )
    assert row["speedup"] == pytest.approx(row["paddle_ms"] / row["kernels_ms"]) and row["speedup"] > 0


def test_a_training_step_is_timed_beside_paddlesegs():
    tiny = dict(embed_dim=8, depths=[1, 1, 1, 1], head_channels=16, head="mlp", drop_path_rate=0.0)
    model = Model("tiny", "segformerpp_b0", tiny)
    theirs, ours = compare_training(TrainingPlan(model, (1, 3, 64, 96), num_classes=5, threads=1, runs=2))
    assert [theirs["pipeline"], ours["pipeline"]] == ["paddleseg", "paddle_rt"]
    assert theirs["speedup"] == 1.0 and ours["runs"] == 2
    assert 0 < ours["step_mb"] < ours["peak_rss_mb"] and ours["step_ms"] > 0
    # One set of weights and one image; only what the head's dropout leaves out differs.
    assert abs(theirs["loss"] - ours["loss"]) < 0.05 * theirs["loss"], f"losses {theirs['loss']}, {ours['loss']}"
