"""A run of classification from training to inference, with the command lines that users call."""

import csv
import json
import pathlib

import cv2
import numpy as np
import pytest
import yaml

from paddle_rt.checkpoint import read_state_dict
from paddle_rt.inference import Classifier, Segmenter, load
from paddle_rt.streetscenes.render import render
from paddle_rt.streetscenes.street_objects import CLASSES, make_object_scene
from tests.helpers import call_tool, message, read_video, relative_error, write_video, written
from tests.tasks.classification.helpers import write_config
from tests.tasks.classification.stand_in import StandIn


@pytest.fixture
def config(tmp_path) -> str:
    return write_config(tmp_path)


def train(config: str, folder: pathlib.Path, *flags: object) -> dict[str, np.ndarray]:
    arguments = ["-c", config, "--save_dir", folder, "--device", "cpu", "--seed", 1, *flags]
    assert call_tool("train", *arguments) == 0
    return read_state_dict(folder / "iter_6")


def rows(file: pathlib.Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def test_a_run_from_training_to_inference(config, tmp_path, capsys):
    run, export, result = tmp_path / "run", tmp_path / "export", tmp_path / "result"
    train(config, run, "--do_eval", "--save_interval", 3, "--use_ema")
    out = capsys.readouterr().out
    assert "[EVAL] #Images: 24 top1:" in out and "The model with the best validation top1" in out

    scores = tmp_path / "metrics.json"
    assert call_tool("val", "-c", config, "--model_path", run / "iter_6", "--output", scores, "--baseline") == 0
    report = json.loads(scores.read_text())
    assert np.sum(report["confusion_matrix"]) == report["images"] == 24
    assert report["top1"] == pytest.approx(np.trace(report["confusion_matrix"]) / 24)
    assert report["top1"] <= report["top5"] <= 1 and 0 <= report["colour_histograms_top1"] <= 1
    assert [row["name"] for row in report["classes"]] == list(CLASSES)

    flags = ["--model_path", run / "iter_6", "--input_size", 32, 32, "--save_dir", export]
    assert call_tool("export", "-c", config, *flags) == 0
    described = yaml.safe_load((export / "deploy.yaml").read_text())["Deploy"]
    assert described["task"] == "classification" and described["class_names"] == list(CLASSES)

    frames = [render(make_object_scene(index)[0], 40, 40)[0] for index in range(3)]
    (tmp_path / "images").mkdir()
    for index, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / f"images/{index}.png"), frame)
    flags = ["-c", config, "--model_path", run / "iter_6", "--image_path", tmp_path / "images", "--topk", 3]
    assert call_tool("predict", *flags, "--save_dir", result) == 0
    predicted = rows(result / "predictions.csv")
    assert [row["rank"] for row in predicted] == ["1", "2", "3"] * 3

    assert call_tool("infer", "--config", export, "--image_path", tmp_path / "images", "--save_dir", result) == 0
    inferred = rows(result / "predictions.csv")
    assert written(result / "added_prediction") == ["0.jpg", "1.jpg", "2.jpg"]
    first = [row for row in inferred if int(row["rank"]) <= 3]
    assert [row["name"] for row in first] == [row["name"] for row in predicted]
    error = max(abs(float(a["score"]) - float(b["score"])) for a, b in zip(first, predicted, strict=True))
    assert error < 1e-4, f"the scores of infer.py and predict.py differ by {error:.1e}"

    video = write_video(tmp_path / "film.mp4", [np.ascontiguousarray(frame) for frame in frames])
    assert call_tool("infer", "--config", export, "--image_path", video, "--save_dir", result, "--topk", 1) == 0
    assert len(rows(result / "predictions.csv")) == len(read_video(result / "film_overlay.mp4")[0]) == 3

    reference = probabilities(run, frames[0])
    for backend in ("onnxruntime", "openvino", "paddle"):
        classifier = load(export, backend, threads=1)
        found = classifier.predict(frames[0], 12)
        assert isinstance(classifier, Classifier) and classifier(frames[0]) == found.classes[0]
        error = relative_error(found.scores[np.argsort(found.classes)], reference)
        assert error < 1e-4, f"{backend} is off by {error:.1e}"
        assert found.names == [CLASSES[label] for label in found.classes]
    assert "for the task 'classification', not 'segmentation'" in message(Segmenter, export)


def probabilities(run: pathlib.Path, frame: np.ndarray) -> np.ndarray:
    """Return the probabilities of a frame's classes by the trained network in eager mode."""
    import paddle

    network = StandIn(12)
    network.set_state_dict(read_state_dict(run / "iter_6"))
    network.eval()
    image = cv2.resize(frame[..., ::-1], (32, 32)).astype(np.float64) / 255
    image = (image - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    logits = network(paddle.to_tensor(image.transpose(2, 0, 1)[np.newaxis].astype(np.float32)))[0]
    return paddle.nn.functional.softmax(logits, axis=1).numpy()[0]


def test_a_run_that_is_resumed_is_the_whole_run(config, tmp_path):
    whole = train(config, tmp_path / "whole", "--save_interval", 3)
    resumed = train(config, tmp_path / "parts", "--resume_model", tmp_path / "whole/iter_3", "--num_workers", 1)
    for name, value in whole.items():
        assert np.array_equal(value, resumed[name]), f"{name} differs by {np.abs(value - resumed[name]).max():.1e}"


@pytest.mark.slow
def test_int8_is_judged_by_top1_and_the_benchmark_measures_it(config, tmp_path, capsys):
    export, rows_file = tmp_path / "export", tmp_path / "bench.json"
    train(config, tmp_path / "run")
    flags = ["--model_path", tmp_path / "run/iter_6", "--input_size", 32, 32, "--save_dir", export]
    assert call_tool("export", "-c", config, *flags, "--formats", "onnx") == 0
    assert call_tool("quantize", "-c", config, "--export_dir", export, "--images", 12, "--agreement", 0.5) == 0
    assert "top1:" in capsys.readouterr().out
    assert load(export, precision="int8")(np.zeros((32, 32, 3), np.uint8)) in range(12)

    flags = ["--models", "stand_in", "--num_classes", 12, "--size", 32, 32, "--against", "none", "--runs", 2]
    engines = ["--backends", "openvino", "--precisions", "fp32", "int8", "--threads", 1]
    assert call_tool("benchmark", *flags, *engines, "--output", rows_file) == 0
    measured = json.loads(rows_file.read_text())
    assert [row["precision"] for row in measured] == ["fp32", "int8"]
    assert all(0 <= row["label_agreement"] <= 1 and row["end_to_end_ms"] > 0 for row in measured)


def test_an_export_for_gpus_gives_the_same_classes(tmp_path):
    import paddle

    from paddle_rt import create_model
    from paddle_rt.export.publish import export
    from paddle_rt.tasks.classification.export import ClassificationExport

    paddle.seed(0)
    network = create_model("rtformer_slim_cls", num_classes=4, base_channels=8, feature_channels=16, cross_size=3)
    spec = ClassificationExport([{"type": "NormalizeImage"}], list("abcd"))
    export(network, tmp_path / "e", spec, (1, 3, 64, 64), "softmax", target="gpu", precisions=["fp32", "fp16"])
    network.eval()
    frame = render(make_object_scene(5)[0], 64, 64)[0]
    image = (frame[..., ::-1] / 255.0 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    logits = network(paddle.to_tensor(image.transpose(2, 0, 1)[np.newaxis].astype(np.float32)))[0]
    expected = paddle.nn.functional.softmax(logits, axis=1).numpy()[0]
    for backend in ("onnxruntime", "paddle"):
        found = load(tmp_path / "e", backend, threads=1).predict(frame, 4)
        error = relative_error(found.scores[np.argsort(found.classes)], expected)
        assert error < 1e-4, f"{backend} is off by {error:.1e}"
