"""Models for Triton Inference Server: config.pbtxt describes the graph beside it."""

import re

import numpy as np
import onnxruntime
import pytest

from paddle_rt.export.publish import export
from paddle_rt.export.triton import check_triton, write_triton
from paddle_rt.models.rtformer import RTFormer
from paddle_rt.tasks.segmentation.export import SegmentationExport
from tests.helpers import NORMALIZE, TINY, message, randomize, written


def test_config_describes_the_graph(tmp_path):
    net = RTFormer(num_classes=4, **TINY)
    randomize(net)
    net.eval()
    export(net, tmp_path / "e", SegmentationExport([NORMALIZE]), [1, 3, 32, 64], "labels", ["onnx"])
    write_triton(tmp_path / "e", tmp_path / "models/rtformer")
    assert written(tmp_path / "models") == ["rtformer/1/model.onnx", "rtformer/config.pbtxt"]
    config = (tmp_path / "models/rtformer/config.pbtxt").read_text()
    session = onnxruntime.InferenceSession(tmp_path / "models/rtformer/1/model.onnx")
    (frame,), (labels,) = session.get_inputs(), session.get_outputs()
    blocks = re.findall(r'(input|output) \{\n  name: "(\w+)"\n  data_type: (\w+)\n  dims: (\[.*\])\n\}', config)
    assert blocks == [
        ("input", frame.name, "TYPE_UINT8", str(frame.shape)), ("output", labels.name, "TYPE_UINT8", "[1, 32, 64]")
    ]  # fmt: skip
    assert frame.shape == [1, 32, 64, 3] and frame.type == labels.type == "tensor(uint8)"
    (result,) = session.run(None, {frame.name: np.zeros(frame.shape, np.uint8)})
    assert result.shape == (1, 32, 64) and "zero_data: true" in config and "KIND_CPU" in config


@pytest.mark.parametrize("kind", [
    ("coarse", [1, 3, 32, 64], ["onnx"]), (None, [1, 3, 32, 64], ["onnx"]), ("labels", [1, 3, None, 64], ["onnx"]),
    ("labels", [1, 3, 32, 64], ["paddle"]),
])  # fmt: skip
def test_other_exports_are_refused(kind):
    assert "--output_op labels --input_size H W --formats onnx" in message(check_triton, *kind)
