"""A model for Triton Inference Server, from an export that takes frames and gives labels."""

import os
import pathlib
import shutil
from collections.abc import Sequence

import onnx

from paddle_rt.errors import UserError
from paddle_rt.files import whole_file
from paddle_rt.inference.deployment import load_deployment

_CONFIG = """\
backend: "onnxruntime"
max_batch_size: 0
input {{
  name: "{frame}"
  data_type: TYPE_UINT8
  dims: {frame_shape}
}}
output {{
  name: "{labels}"
  data_type: TYPE_UINT8
  dims: {labels_shape}
}}
instance_group {{
  count: 1
  kind: {kind}
}}
model_warmup {{
  name: "black frame"
  batch_size: 1
  inputs {{
    key: "{frame}"
    value {{
      data_type: TYPE_UINT8
      dims: {frame_shape}
      zero_data: true
    }}
  }}
}}
"""


def check_triton(output_op: str | None, input_shape: Sequence[int | None], formats: Sequence[str]) -> None:
    """Raise a UserError unless an export of this kind can become a model for Triton."""
    if output_op != "labels" or None in input_shape or "onnx" not in formats:
        raise UserError(
            "a model for Triton is an ONNX graph of one size that takes frames and gives labels; export it with "
            "--output_op labels --input_size H W --formats onnx"
        )


def write_triton(export_dir: str | os.PathLike, folder: str | os.PathLike) -> None:
    """Write config.pbtxt and 1/model.onnx, the graph of an export; in half precision where it has one.

    Triton is given the folder above as its model repository, and calls the model by the folder's name.

    Args:
        export_dir: An export that `check_triton` accepts.
        folder: The model's folder, which is made.

    Raises:
        UserError: The export is damaged or of another kind.
        OSError: The folder cannot be written.
    """
    deployment, folder = load_deployment(export_dir), pathlib.Path(folder)
    formats = ["onnx"] if deployment.onnx else []
    check_triton(None if deployment.state_shape else deployment.output_op, deployment.input_shape, formats)
    batch, channels, height, width = deployment.input_shape
    file = deployment.folder / (deployment.fp16 or deployment.onnx)
    graph = onnx.load(file, load_external_data=False).graph
    with whole_file(folder / "1/model.onnx") as part:
        shutil.copyfile(file, part)
    with whole_file(folder / "config.pbtxt") as part:  # the last file, with which the model is whole
        text = _CONFIG.format(
            frame=graph.input[0].name,
            labels=graph.output[0].name,
            frame_shape=[batch, height, width, channels],
            labels_shape=[batch, height, width],
            kind="KIND_GPU" if deployment.target == "gpu" else "KIND_CPU",
        )
        part.write_text(text, encoding="utf-8")
