"""The benchmark on a GPU: blocks, what is timed in them, the driver's answers, the page; and exports without Paddle."""

import json
import re
from concurrent.futures.process import BrokenProcessPool

import cv2
import numpy as np
import pytest

import paddle_rt
from paddle_rt.benchmark import gpu, gpu_report, nvidia
from paddle_rt.benchmark.floor import Work
from paddle_rt.benchmark.gpu import SCOPES, Block, measure, measure_block, tabulate
from paddle_rt.benchmark.pipelines import Pipeline
from paddle_rt.benchmark.plan import Plan, export_size
from paddle_rt.errors import UserError
from paddle_rt.export.publish import export
from paddle_rt.tasks.segmentation.export import SegmentationExport
from tests.helpers import NORMALIZE, ROOT, TINY, call_tool, message, randomize, refused, run_python
from tests.inference.fakes.nvidia_smi import install_nvidia_smi, write_program

STATE = {"sm_mhz": 1350.0, "memory_mhz": 7000.0, "power_w": 215.5, "temperature_c": 71.0, "memory_mb": 400.0,
         "throttled": ["power limit", "temperature (driver)"]}  # fmt: skip
REPORT = {"nodes_elsewhere": 2, "engines": 1, "cache": "built", "versions": {"cuda": "12.6", "tensorrt": "10.5"}}


@pytest.fixture(autouse=True)
def driver(tmp_path, monkeypatch):
    """A driver with one GPU, of which nothing is remembered from another test."""
    nvidia._identity.cache_clear()
    install_nvidia_smi(tmp_path, monkeypatch)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield
    nvidia._identity.cache_clear()


class FakeEngine:
    """An engine that notes what is asked of it."""

    report = REPORT

    def __init__(self, turns: list[str], fails_at: str = "") -> None:
        self.turns, self.fails_at = turns, fails_at

    def note(self, what: str) -> None:
        self.turns.append(what)
        if what == self.fails_at:
            raise RuntimeError("CUDA failure 2: out of memory\nand a second line")

    def resident(self, *inputs):
        self.note("copy")
        return lambda: self.note("network")

    def run(self, images):
        self.note("with_copies")


class FakePredictor:
    """A pipeline with that engine."""

    timings = {"preprocess": 0.001, "network": 0.002, "labels": 0.003}

    def __init__(self, turns: list[str], fails_at: str) -> None:
        self.engine = FakeEngine(turns, fails_at)

    def warmup(self) -> None:
        self.engine.note("warmup")

    def __call__(self, frame):
        self.engine.note("end_to_end")
        return np.full((2, 2), frame[0, 0, 0])

    def engine_and_inputs(self, frame):
        return self.engine, (frame[np.newaxis],)


def pipeline(name: str, side: str = "paddle_rt") -> Pipeline:
    return Pipeline("net", "net", side, "onnxruntime", "tensorrt", name, 1, f"export of {side}")


FRAMES = [np.full((2, 2, 3), value, np.uint8) for value in (0, 1)]


@pytest.fixture
def turns(monkeypatch) -> list[str]:
    """What fake pipelines do within this process; one of precision "bad" fails in the middle."""
    seen: list[str] = []

    def load(self):
        seen.append(self.precision)
        return FakePredictor(seen, "with_copies" if self.precision == "bad" else "")

    monkeypatch.setattr(Pipeline, "load", load)
    monkeypatch.setattr(Pipeline, "in_own_process", lambda self, function, *arguments: function(self, *arguments))
    monkeypatch.setattr(measure_block, "__defaults__", ((3, 0.0),))
    return seen


def test_a_block_warms_up_and_times_each_scope_in_turn(turns):
    block = measure_block(pipeline("fp32"), FRAMES, runs=4)
    assert turns[:4] == ["fp32", "warmup", "end_to_end", "end_to_end"], "loaded, and every frame labelled"
    assert turns[4:] == ["copy", *["network"] * 7, *["with_copies"] * 7, *["end_to_end"] * 7], "3 to warm up, 4 timed"
    assert {scope: len(times) for scope, times in block.seconds.items()} == dict.fromkeys(SCOPES, 4)
    assert block.stages == {"preprocess": [0.001] * 4, "labels": [0.003] * 4}
    assert [int(result[0, 0]) for result in block.results] == [0, 1]
    assert block.states == [STATE] * 4 and block.report == REPORT and block.peak_rss_mb > 1


def test_a_warm_up_is_both_long_and_often(turns, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(gpu.time, "perf_counter", lambda: next(clock))
    runs = []
    gpu._warm_up([lambda: runs.append(0)], 3, 10)
    assert len(runs) == 12, "three, and ten seconds by a clock that advances a second where it is read"
    runs.clear()
    gpu._warm_up([lambda: runs.append(0)], 50, 1)
    assert len(runs) == 50


def test_the_order_of_the_blocks_is_turned(turns):
    blocks = measure([pipeline(name) for name in ("fp32", "fp16", "int8")], FRAMES, runs=2)
    assert [turn for turn in turns if turn[:2] in ("fp", "in")] == ["fp32", "fp16", "int8", "int8", "fp16", "fp32"]
    assert {pipeline.precision: len(found) for pipeline, found in blocks.items()} == {"fp32": 2, "fp16": 2, "int8": 2}


def test_one_that_fails_in_the_middle_is_left_out(turns, caplog):
    blocks = measure([pipeline("fp32"), pipeline("bad")], FRAMES, runs=2)
    assert [pipeline.precision for pipeline in blocks] == ["fp32"]
    expected = "left out: net, paddle_rt, onnxruntime tensorrt bad: .*CUDA failure 2: out of memory and"
    assert re.search(expected, caplog.text), caplog.text
    assert turns.count("bad") == 1, "it is not tried again"
    assert "nothing could be measured: " in message(measure, [pipeline("bad")], FRAMES, 2)


def test_an_engine_that_ends_its_process_is_left_out(turns, monkeypatch):
    def die(self, function, *arguments):
        raise BrokenProcessPool("A process in the process pool was terminated abruptly")

    monkeypatch.setattr(Pipeline, "in_own_process", die)
    assert "its engine ended the process" in message(measure, [pipeline("fp32")], FRAMES, 2)


def block(milliseconds: float, value: int = 0, memory: float | None = 100.0) -> Block:
    seconds = {scope: [share * milliseconds / 1e3] * 3 for scope, share in zip(SCOPES, (0.5, 0.7, 1.0), strict=True)}
    before, after = {**STATE, "memory_mb": memory}, {**STATE, "memory_mb": memory and memory + 300}
    results = [np.array([[0, value], [0, 0]])]
    return Block(seconds, {"preprocess": [0.0], "labels": [0.001]}, results, 60.0, 500.0, [before, after], REPORT)


def test_rows_hold_what_was_measured():
    theirs, ours = pipeline("fp32", "paddleseg"), pipeline("fp16")
    blocks = {theirs: [block(20), block(30)], ours: [block(10, value=1), block(10, value=1)]}
    rows = tabulate(blocks, {ours.folder: [np.zeros((2, 2), int)]}, (2, 2), {"net": Work(5e9, 4e9)})
    first, second = rows
    assert [row["pipeline"] for row in rows] == ["paddleseg", "paddle_rt"] and set(first) == set(second)
    assert second["speedup"] == pytest.approx(2.5), "the median of 2 and 3"
    assert second["network_ms"] == pytest.approx(5) and second["network_fps"] == pytest.approx(200)
    assert second["with_copies_ms"] == pytest.approx(7) and second["end_to_end_ms"] == pytest.approx(10)
    assert first["end_to_end_ms"] == pytest.approx(25) and first["p99_ms"] == pytest.approx(30)
    assert (first["label_agreement"], second["label_agreement"]) == (1.0, 0.75)
    assert second["gpu_memory_mb"] == 300 and second["runs"] == 6 and second["blocks"] == 2
    assert second["engines"] == 1 and second["nodes_elsewhere"] == 2 and second["versions"]["tensorrt"] == "10.5"
    assert second["labels_ms"] == pytest.approx(1) and second["gflop"] == 5
    unknown = tabulate({ours: [block(10, memory=None)] * 2}, {}, (2, 2), {})
    assert unknown[0]["gpu_memory_mb"] is None and unknown[0]["label_agreement"] is None


def test_the_drivers_answers_are_read(tmp_path, monkeypatch):
    assert nvidia.gpu_state() == STATE
    for name, changes, expected in (
        ("an older driver", {"clocks_event_reasons__active": None, "clocks_throttle_reasons.active": "0x0"},
         {**STATE, "throttled": []}),
        ("values that are not supported",
         {"power__draw": "[N/A]", "clocks__sm": "[Not Supported]", "clocks_event_reasons__active": "[N/A]"},
         {**STATE, "power_w": None, "sm_mhz": None, "throttled": None}),
        ("no such field", {"clocks_event_reasons__active": None}, {**STATE, "throttled": None}),
    ):  # fmt: skip
        nvidia._identity.cache_clear()
        install_nvidia_smi(tmp_path, monkeypatch, **changes)
        assert nvidia.gpu_state() == expected, name


def machine_rows() -> list[dict]:
    ours, theirs = pipeline("fp16"), pipeline("fp32", "paddleseg")
    rows = tabulate({theirs: [block(20)], ours: [block(10)]}, {ours.folder: [np.zeros((2, 2), int)]}, (2, 2), {})
    facts = {"gpu": "NVIDIA GeForce RTX 2080 Ti", "driver": "550.54", "random_weights": True}
    return [{**row, **facts, "machine": {"cpu": "a CPU", "python": "3.11", "numpy": "1.26"}} for row in rows]


def test_the_page_says_how_and_on_what():
    text = gpu_report.page(machine_rows(), ["--devices", "tensorrt"])
    for expected in (
        "NVIDIA GeForce RTX 2080 Ti, driver 550.54", "cuda 12.6, tensorrt 10.5", "numpy 1.26", "--devices tensorrt",
        "the clock was 1350 to 1350 MHz", "temperature 71 to 71 degrees", "power limit 2 times", "random",
        "| net | paddle_rt | onnxruntime | tensorrt | fp16 | 5.00 | 200.0 | 7.00 | 10.00 |", "recalled",
    ):  # fmt: skip
        assert expected in text, text
    assert "Unmeasured" not in text


def test_the_page_in_the_repository_is_what_the_benchmark_writes():
    text = (ROOT / "docs/benchmarks_gpu.md").read_text()
    expected = gpu_report.page([])
    if "Unmeasured" not in text:  # it has been measured; what does not depend on that is still the same
        text, expected = (part[part.index("## How it is measured") :] for part in (text, expected))
    assert text == expected


@pytest.fixture(scope="module")
def cpu_export(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "net"
    net = paddle_rt.create_model("rtformer_slim", 5, **TINY)
    randomize(net)
    export(net, folder, SegmentationExport([NORMALIZE]), [1, 3, 64, 96])
    return folder


def test_a_real_engine_is_measured_in_every_scope(cpu_export):
    """On the CPU, for which the two times of the network are the same."""
    folder = str(cpu_export)
    one = Pipeline(folder, folder, "paddle_rt", "onnxruntime", "cpu", "fp32", 1, folder)
    frames = [np.random.default_rng(seed).integers(0, 256, (64, 96, 3), np.uint8) for seed in (0, 1)]
    found = measure_block(one, frames, 3, (1, 0.0))
    assert all(time > 0 for times in found.seconds.values() for time in times)
    (row,) = tabulate({one: [found]}, {folder: gpu._results(one, frames)}, (64, 96), {})
    assert row["label_agreement"] == 1.0 and row["device"] == "cpu" and json.dumps(row)


@pytest.fixture
def call(capsys):
    def run(*arguments):
        code = call_tool("benchmark", *arguments, "--threads", 1)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.parametrize(
    ("arguments", "expected", "code"),
    [
        (["--devices", "tensorrd"], "unknown choice 'tensorrd', did you mean 'tensorrt'", 2),
        (["--devices", "gpu", "--backends", "openvino"], "nothing to measure: .*openvino's gpu is Intel's", 2),
        (["--devices", "gpu", "--backends", "onnxruntime", "--precisions", "bf16"], "no precision bf16", 2),
        (["--export", "nowhere"], "nowhere", 1),
        (["--export", "EXPORT", "--models", "rtformer_slim"], "only for --against paddleseg", 2),
        (["--export", "EXPORT", "--against", "paddleseg"], "got 1 exports and 0 models", 2),
        (["--export", "EXPORT", "--against", "paddleseg", "--models", "rtformer_slim"], "--checkpoint", 2),
        (["--export", "EXPORT", "--devices", "tensorrt"], "is for the target cpu.*--target gpu", 2),
        (["--devices", "cpu", "gpu", "--markdown", "OUT"], "a run of its own", 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_flags_are_refused_in_one_line(call, tmp_path, cpu_export, arguments, expected, code):
    words = {"EXPORT": str(cpu_export), "OUT": str(tmp_path / "page.md")}
    output = tmp_path / "bench.json"
    refused(call("--output", output, *[words.get(word, word) for word in arguments]), expected, code)
    assert not output.exists()


@pytest.mark.parametrize("program", ["absent", "no devices", "no driver"])
def test_a_machine_without_a_gpu_is_refused_in_one_line(call, tmp_path, monkeypatch, program):
    if program == "absent":
        monkeypatch.setenv("PATH", str(tmp_path))
    elif program == "no devices":
        write_program(tmp_path, monkeypatch, "echo 'No devices were found'; exit 6\n")
    else:
        write_program(tmp_path, monkeypatch, "echo 'NVIDIA-SMI has failed because it could not'; exit 9\n")
    refused(call("--output", tmp_path / "x.json", "--devices", "gpu", "tensorrt"), "driver", 1)


def test_exports_are_measured_without_paddle(tmp_path, cpu_export):
    cv2.imwrite(str(tmp_path / "frame.png"), np.zeros((64, 96, 3), np.uint8))
    export, frame, output = (str(path) for path in (cpu_export, tmp_path / "frame.png", tmp_path / "bench.json"))
    code = f"""
import runpy, sys
sys.modules["paddle"] = sys.modules["paddleseg"] = None  # importing either now fails
from paddle_rt.benchmark import floor, measure
measure.startup_and_memory, floor.matrix_rate = lambda *_: (0.0, 0.0), lambda *_: None  # which take seconds
sys.argv = ["benchmark", "--export", {export!r}, "--backends", "onnxruntime", "--precisions", "fp32", "--runs", "2",
            "--threads", "1", "--output", {output!r}, "--frames", {frame!r}]
runpy.run_path("tools/benchmark.py", run_name="__main__")
"""
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr[-1000:]
    (row,) = json.loads((tmp_path / "bench.json").read_text())
    assert (row["model"], row["size"], row["device"]) == (str(cpu_export), [64, 96], "cpu")
    assert row["label_agreement"] == 1.0 and row["gflop"] > 0 and row["random_weights"] is None


def test_what_an_export_does_not_have_is_left_out(tmp_path, cpu_export):
    """The rest is measured; a size that is open has to be given."""
    plan = Plan([], (64, 96), exports=[str(cpu_export)], against=["none"], precisions=["fp32", "int8"])
    pipelines, operations = gpu_prepare(plan, cpu_export)
    assert [(p.backend, p.precision) for p in pipelines] == [
        ("openvino", "fp32"), ("onnxruntime", "fp32"), ("paddle", "fp32")
    ]  # fmt: skip
    assert list(operations) == [str(cpu_export)] and export_size([str(cpu_export)]) == (64, 96)
    only = Plan([], (64, 96), exports=[str(cpu_export)], against=["none"], precisions=["int8"])
    with pytest.raises(UserError, match="nothing to measure: .*no int8 graph"):
        gpu_prepare(only, cpu_export)


def gpu_prepare(plan: Plan, folder):
    from paddle_rt.benchmark.pipelines import prepare

    return prepare(plan, str(folder), [], folder, "cpu")


def test_devices_have_their_own_defaults():
    plan = Plan(["rtformer_slim"], (64, 96), devices=["gpu", "tensorrt"], against=["none"])
    assert plan.targets == ["gpu"] and not plan.on("cpu")
    assert ("onnxruntime", "tensorrt", "int8") in plan.choices and ("paddle", "gpu", "fp16") in plan.choices
    assert [c for c in plan.choices if c.backend == "openvino"] == []
    assert plan.runs_on("gpu") == 200 and plan.runs_on("cpu") == 15 and not plan.short
    few = Plan(["rtformer_slim"], (64, 96), devices=["gpu"], runs=20)
    assert few.short and [tuple(choice) for choice in few.theirs("gpu")] == [("paddle", "gpu", "fp32")]
