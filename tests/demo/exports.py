"""Tiny exports for the page: networks whose results follow from the colours of a frame."""

import dataclasses
import json
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from paddle_rt.demo.exports import Export
from paddle_rt.inference import load
from paddle_rt.inference.deployment import VERIFICATION, file_digest, load_deployment, save_deployment
from tests.inference import test_classifier, test_pose_estimator

NAMES = ["blue", "green <b>", "red"]
COLOURS = [[0, 0, 250], [0, 250, 0], [250, 0, 0]]


def write_segmentation(folder: pathlib.Path) -> pathlib.Path:
    """Write an export that labels each pixel with the brightest of blue, green and red."""
    fields = {"num_classes": 3, "class_names": NAMES, "colors": COLOURS, "settings": {}}
    return test_pose_estimator.write_export(folder, 1, output_op="coarse", task="segmentation", **fields)


def write_video(folder: pathlib.Path) -> pathlib.Path:
    """Write an export for video, which labels a frame as the one above does, but with the frame before added to it."""
    write_segmentation(folder)
    height, width = test_pose_estimator.HEIGHT // 4, test_pose_estimator.WIDTH // 4
    nodes = [
        helper.make_node("Cast", ["frame"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["means"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Mul", ["means", "scale"], ["now"]),
        helper.make_node("Reshape", ["state", "logits"], ["before"]),
        helper.make_node("Add", ["now", "before"], ["y"]),
        helper.make_node("Reshape", ["now", "flat"], ["next"]),
    ]
    state = [1, 1, 3, height * width]
    constants = {"scale": np.float32(1 / 255), "logits": np.array([1, 3, height, width]), "flat": np.array(state)}
    frame = helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, 4 * height, 4 * width, 3])
    inputs = [frame, helper.make_tensor_value_info("state", TensorProto.FLOAT, state)]
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, height, width]),
        helper.make_tensor_value_info("next", TensorProto.FLOAT, state),
    ]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / "model.onnx"
    )
    (folder / VERIFICATION).write_text(json.dumps({"files": {"model.onnx": file_digest(folder / "model.onnx")}}))
    save_deployment(dataclasses.replace(load_deployment(folder), state_shape=state))
    return folder


WRITERS = {
    "segmentation": write_segmentation,
    "video": write_video,
    "pose": test_pose_estimator.write_export,
    "classification": test_classifier.write_export,
}


def load_export(folder: pathlib.Path, kind: str) -> Export:
    """Write an export of a kind and load it for the page."""
    return Export(kind, load(WRITERS[kind](folder / kind), "onnxruntime", threads=1), "onnxruntime fp32, 1 thread")


def halves(left: int, right: int, share: float = 0.5, height: int = 64, width: int = 96) -> np.ndarray:
    """Return an image of two of the colours blue, green and red; the left one has a share of the width."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : round(share * width), left] = 255
    image[:, round(share * width) :, right] = 255
    return image
