"""What lower precision and token merging cost: the rows, and the tool from weights to the table."""

import json

import numpy as np
import pytest

from paddle_rt import create_model
from paddle_rt.benchmark.plan import Choice
from paddle_rt.benchmark.quality import Way, measure, rows_of
from paddle_rt.checkpoint import atomic_save
from paddle_rt.errors import UserError
from paddle_rt.export.publish import export
from paddle_rt.imaging.labels import write_label
from paddle_rt.imaging.palettes import palette
from paddle_rt.imaging.read_write import read_image, write_image
from paddle_rt.inference import load
from paddle_rt.tasks.segmentation.export import SegmentationExport
from tests.helpers import NORMALIZE, TINY, call_tool, randomize, refused, tiny_config
from tests.tools.conftest import call  # noqa: F401  a fixture


def test_rows_compare_with_the_first_way():
    """Two frames, of which the second way gets two pixels of class 1 wrong."""
    truth = np.array([[0, 0, 1, 1], [2, 2, 1, 255]], np.uint8)
    wrong = np.array([[0, 0, 1, 1], [2, 2, 0, 0]], np.uint8)
    right = np.where(truth == 255, 2, truth)
    ways = [Way("plain", Choice("openvino", "cpu", "fp32"), lambda frame: right),
            Way("plain", Choice("openvino", "cpu", "int8"), lambda frame: wrong)]  # fmt: skip
    measure(ways, [(np.zeros((2, 4, 3), np.uint8), truth)] * 2, 3, 255)
    first, second = rows_of(ways, ["road", "car", "sky"])
    assert first["mIoU"] == 1 and first["difference"] == 0 and first["worst"] == "none" and first["speed"] == 1
    assert second["label_agreement"] == 0.75 and second["images"] == 2
    assert second["mIoU"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3) and second["worst"] == "road -0.3333, car -0.3333"
    assert second["class_difference"]["sky"] == 0 and second["ms"] > 0
    assert first["standard_error"] == 0
    assert second["standard_error"] == pytest.approx(0), "the two frames are alike, so that every draw scores the same"


def test_the_standard_error_is_that_of_the_choice_of_images():
    """A way that gets every other image wrong scores half the share of right images: half the error of a coin."""
    frames = [np.full((1, 1, 3), number, np.uint8) for number in range(64)]
    samples = [(frame, np.zeros((1, 1), np.uint8)) for frame in frames]
    ways = [Way("plain", Choice("openvino", "cpu", "fp32"), lambda frame: frame[:, :, 0] * 0),
            Way("plain", Choice("openvino", "cpu", "int8"), lambda frame: frame[:, :, 0] % 2)]  # fmt: skip
    measure(ways, samples, 2, 255)
    _, second = rows_of(ways, ["road", "car"])
    expected = 0.5 * np.sqrt(0.25 / len(frames))
    print(f"standard error {second['standard_error']:.4f}, by the formula {expected:.4f}")
    assert second["difference"] == pytest.approx(-0.75)
    assert second["standard_error"] == pytest.approx(expected, rel=0.1), "500 draws know it to 3 %"


@pytest.mark.slow
def test_the_tool_measures_variants_and_precisions(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise UserError("int8 changes too much")

    monkeypatch.setattr("paddle_rt.export.quantize.quantize", refuse)
    network = create_model("rtformer_slim", **TINY)
    randomize(network)
    atomic_save(network.state_dict(), tmp_path / "model.pdparams")
    line = ["-c", tiny_config(tmp_path), "--model_path", tmp_path, "--variants", "plain", "use_injection=[True,True]"]
    line += [
        "--images",
        3,
        "--backends",
        "openvino",
        "onnxruntime",
        "mnn",
        "--precisions",
        "fp32",
        "fp16",
        "int8",
        "--threads",
        1,
    ]
    line += ["--output", tmp_path / "quality.json", "--markdown", tmp_path / "quality.md"]
    assert call_tool("benchmark_quality", *line) == 0
    content = json.loads((tmp_path / "quality.json").read_text())
    ways = [(row["variant"], row["backend"], row["precision"]) for row in content["rows"]]
    ways = [way for way in ways if way[2] != "fp16"]  # few processors compute in it
    assert ways == [(v, b, "fp32") for v in line[5:7] for b in ("openvino", "onnxruntime", "mnn")]
    assert sum("int8 changes too much" in reason for reason in content["left_out"]) == 2 and content["size"] == [
        64,
        128,
    ]
    assert all(row["label_agreement"] > 0.999 for row in content["rows"]), "one network in several engines"
    assert (tmp_path / "quality.md").read_text().count("\n") == 2 + len(content["rows"])


def test_exports_are_scored_on_a_folder(call, tmp_path):  # noqa: F811
    """The labels of the folder are those of the network, or do not count, so that it scores 1."""
    network = create_model("rtformer_slim", 5, **TINY)
    randomize(network)
    folder, data = tmp_path / "small", tmp_path / "data"
    export(network, folder, SegmentationExport([NORMALIZE]), [1, 3, 64, 96], "labels", ["onnx"], "gpu")
    rng, predict = np.random.default_rng(0), load(folder, "onnxruntime")
    for number in range(3):
        frame = rng.integers(0, 256, (64, 96, 3), np.uint8)
        labels = predict(frame)
        labels[:, :48] = 255
        write_image(data / "images" / f"{number}.png", frame)
        write_label(data / "labels" / f"{number}.png", labels, palette(None, 5))
    line = ["--export", folder, folder, "--data", data, "--output", tmp_path / "quality.json"]
    chart = ["--chart", tmp_path / "chart.png"]
    status, _, errors = call(
        "benchmark_quality", *line, *chart, "--devices", "cpu", "gpu", "--backends", "onnxruntime", "--images", 2
    )
    assert status == 0, errors
    drawn = read_image(tmp_path / "chart.png")
    assert drawn.shape[1] > 1000 and len(np.unique(drawn.reshape(-1, 3), axis=0)) > 20
    content = json.loads((tmp_path / "quality.json").read_text())
    found = [(row["variant"], row["device"], row["precision"], row["images"], row["mIoU"]) for row in content["rows"]]
    assert found == [("small", "cpu", "fp32", 2, 1.0)] * 2 and content["size"] == [64, 96]
    assert all("CUDA" in reason or "int8" in reason or "fp16" in reason for reason in content["left_out"])
    refused(call("benchmark_quality", *line[:3]), "--export needs --data", 2)
    refused(call("benchmark_quality", "--data", data), "it goes with --export", 2)
    refused(call("benchmark_quality", *line, "--opts", "a=1"), "goes without --config", 2)
    alone = ["--export", folder, *line[3:], *chart, "--backends", "onnxruntime", "--precisions", "fp32"]
    refused(call("benchmark_quality", *alone), "there is only one")
    write_label(data / "labels" / "0.png", np.full((64, 96), 7, np.uint8), palette(None, 19))
    refused(call("benchmark_quality", *line), "7")


def test_what_it_refuses(call, tmp_path):  # noqa: F811
    line = ["-c", tiny_config(tmp_path), "--model_path", tmp_path / "none", "--output", tmp_path / "x.json"]
    refused(
        call("benchmark_quality", *line, "--backends", "paddle", "--precisions", "int8"), "none of the backends has"
    )
    refused(call("benchmark_quality", *line[:2]), "required: --model_path", 2)
    refused(call("benchmark_quality", *line, "--variants", "token_merging", "--images", 1), "a model is given as NAME")
