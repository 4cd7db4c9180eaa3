"""`Classifier` on a small graph: the classes are those of a plain formula, and what does not fit is refused."""

import dataclasses
import json
import pathlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from paddle_rt.imaging import caption
from paddle_rt.inference import Classifier, Segmenter, load
from paddle_rt.inference.classifier import top_k
from paddle_rt.inference.deployment import VERIFICATION, Deployment, file_digest, load_deployment, save_deployment
from tests.helpers import message, smooth_image

NAMES = ["sky", "car", "Straße", "tram"]
WEIGHTS = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32) / 50


def write_export(folder: pathlib.Path, output_op: str = "logits", **changes: object) -> pathlib.Path:
    """Write an export whose logits are the mean colour of the frame, BGR, times WEIGHTS."""
    nodes = [
        helper.make_node("Cast", ["frame"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["logits"]),
        helper.make_node("Softmax" if output_op == "softmax" else "Identity", ["logits"], ["y"]),
    ]
    frames = helper.make_tensor_value_info("frame", TensorProto.UINT8, ["n", "h", "w_", 3])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph(nodes, "g", [frames], [result], [numpy_helper.from_array(WEIGHTS, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    digests = {"model.onnx": file_digest(folder / "model.onnx")}
    (folder / VERIFICATION).write_text(json.dumps({"files": digests}))
    fields = {"onnx": "model.onnx", "num_classes": 4, "class_names": NAMES, **changes}
    transforms = [{"type": "ResizeImage", "size": [32, 24]}, {"type": "CropImage", "size": 16}]
    deployment = Deployment(folder, transforms, [None, 3, None, None], output_op, "classification", "uint8", "float32")
    save_deployment(dataclasses.replace(deployment, **fields))
    return folder


@pytest.mark.parametrize("output_op", ["logits", "softmax"])
def test_the_most_likely_classes_of_a_frame(tmp_path, output_op):
    classifier = load(write_export(tmp_path / "e", output_op), "onnxruntime", threads=1)
    assert isinstance(classifier, Classifier)
    frame = np.zeros((24, 32, 3), np.uint8)
    frame[4:20, 8:24] = smooth_image(16, 16)  # what is cut out; the rest must not matter
    logits = frame[4:20, 8:24].mean((0, 1)) @ WEIGHTS
    expected = np.exp(logits) / np.exp(logits).sum()
    found = classifier.predict(frame, 3)
    assert found.classes.tolist() == np.argsort(-expected)[:3].tolist() and found.scores.dtype == np.float32
    error = np.abs(found.scores - np.sort(expected)[:0:-1]).max()
    assert error < 1e-5, f"the probabilities are off by {error:.1e}"
    assert found.names == [NAMES[label] for label in found.classes]
    assert classifier(frame) == found.classes[0] and list(classifier.timings) == ["preprocess", "network", "labels"]
    assert len(classifier.predict(frame, 99).classes) == 4


def test_equal_scores_keep_the_order_of_the_classes():
    assert top_k(np.array([0.2, 0.3, 0.3, 0.2]), NAMES, 4).classes.tolist() == [1, 2, 0, 3]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"output_op": "argmax"}, "unknown output_op 'argmax'"),
        ({"input_dtype": "float32"}, "takes single frames, so input_dtype is uint8"),
        ({"state_shape": [1, 1, 1, 1]}, "takes single frames"),
        ({"num_classes": None, "class_names": []}, "num_classes is missing"),
        ({"input_shape": [1, 4, None, None]}, "takes 4 channels"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path, changes, expected):
    assert expected in message(Classifier, write_export(tmp_path / "e", **changes), "onnxruntime")


def test_what_does_not_fit_the_graph_is_refused(tmp_path):
    names = [*NAMES, "bus"]
    classifier = Classifier(write_export(tmp_path / "e", num_classes=5, class_names=names), "onnxruntime")
    frame = smooth_image(24, 32)
    assert "the graph returns [4], but deploy.yaml describes 5 classes" in message(classifier, frame)
    assert "k must be a whole number of at least 1" in message(classifier.predict, frame, 0)
    assert "a frame is uint8 BGR" in message(classifier, frame[..., 0])


def test_a_segmenter_cuts_nothing_away(tmp_path):
    folder = write_export(tmp_path / "e", output_op="logits")
    save_deployment(dataclasses.replace(load_deployment(folder), task="segmentation", output_op="coarse"))
    assert "a transform cuts images, but every pixel of a frame gets a label" in message(Segmenter, folder)


def test_a_caption_is_drawn_on_a_copy():
    frame = smooth_image(48, 64)
    before, drawn = frame.copy(), caption(frame, ["Straße 0.9", "car 0.1"])
    assert np.array_equal(frame, before) and drawn.shape == frame.shape and not np.array_equal(drawn, frame)
