"""Time exported models on an NVIDIA GPU with ONNX Runtime.

benchmark_gpu.py EXPORT... --output output/gpu.json

Each export (output_op coarse, fixed size) runs in single and half precision in three ways: the network alone, with its
input and output on the GPU; with labels at the frame's size computed on the GPU; and with labels computed on the CPU.
Needs onnxruntime-gpu, onnx, numpy and numba; neither Paddle nor PaddleSeg.
"""

import json
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from paddle_rt.cli.arguments import Parser, positive
from paddle_rt.cli.run import run_tool
from paddle_rt.errors import UserError
from paddle_rt.files import whole_file
from paddle_rt.inference import Deployment, labels_from_logits, load_deployment
from paddle_rt.inference.engines import switch_off_telemetry

WAYS = ("network alone", "labels on GPU", "labels on CPU")
_KEEP_FLOAT = ["ReduceSum", "Pow", "Sqrt"]  # operators that would overflow in half precision


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("exports", nargs="+", help="folders that tools/export.py --input_size H W wrote")
    parser.add_argument("--runs", type=positive, default=50, help="rounds in which each way processes one frame")
    parser.add_argument("--output", default="output/gpu.json", help="the rows")
    arguments = parser.parse_args()
    onnxruntime = require_cuda()
    rows = [row for export in arguments.exports for row in measure(load_deployment(export), arguments.runs, "cuda")]
    about = f"{gpu_name()}, onnxruntime {onnxruntime.__version__}, numpy {np.__version__}"
    with whole_file(arguments.output) as part:
        part.write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(f"{about}\n\n{table(rows)}\n\nrows in {arguments.output}")


def require_cuda() -> Any:
    """Return the package onnxruntime, which must have CUDA."""
    switch_off_telemetry()
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"this needs onnxruntime-gpu ({error}): pip install onnxruntime-gpu") from error
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise UserError(
            f"this onnxruntime {onnxruntime.__version__} has no CUDA: pip uninstall onnxruntime && pip install "
            "onnxruntime-gpu, on a machine with an NVIDIA GPU; on a CPU use tools/benchmark.py"
        )
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA and cuDNN from NVIDIA's wheels, where they are installed
    return onnxruntime


def gpu_name() -> str:
    """Return the names of the GPU and its driver, as nvidia-smi reports them."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "GPU of unknown name"


def measure(deployment: Deployment, runs: int, device: str) -> list[dict[str, Any]]:
    """Run one export in every precision and way in turns.

    Args:
        deployment: An export with output_op "coarse" and a fixed size.
        runs: Rounds that count, after three that do not.
        device: "cuda", or "cpu" to try the script out.

    Returns:
        Rows with export, size, precision, way, ms, p90_ms, fps and label_agreement, the share of pixels whose label is
        that of single precision.

    Raises:
        UserError: The export is of another kind.
    """
    batch, _, *size = deployment.input_shape
    if deployment.output_op != "coarse" or not deployment.onnx or None in (batch, *size):
        raise UserError(f"{deployment.folder} is not an export of coarse logits of fixed size; use --input_size H W")
    frame = np.random.default_rng(0).integers(0, 256, (batch, *size, 3), np.uint8)
    choices = {
        (precision, way): start(deployment, precision, way, frame, device)
        for precision in ("fp32", "fp16")
        for way in WAYS
    }
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in choices}
    labels: dict[tuple[str, str], np.ndarray] = {}
    for number in tqdm(range(-3, runs), str(deployment.folder.name), disable=None):
        for key, run in choices.items():
            begin = time.perf_counter()
            result = run()
            spent = time.perf_counter() - begin
            if number >= 0:
                seconds[key].append(spent)
            labels[key] = result
    rows = []
    for (precision, way), times in seconds.items():
        found, truth = labels[precision, way], labels["fp32", way]
        rows.append({
            "export": deployment.folder.name, "size": list(size), "precision": precision, "way": way,
            "ms": 1e3 * statistics.median(times), "p90_ms": 1e3 * float(np.percentile(times, 90)),
            "fps": batch / statistics.median(times),
            "label_agreement": None if way == WAYS[0] else float((found == truth).mean()),
        })  # fmt: skip
    return rows


def start(
    deployment: Deployment, precision: str, way: str, frame: np.ndarray, device: str
) -> Callable[[], np.ndarray | None]:
    """Return a function that processes the frame once in one way and waits for the result."""
    switch_off_telemetry()
    import onnxruntime

    model = graph(deployment, precision, with_labels=way == "labels on GPU")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    provider = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}[device]
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[provider])
    if session.get_providers()[0] != provider:
        raise UserError("onnxruntime cannot start CUDA: CUDA or cuDNN of the version that it was built for is missing")
    source, target = session.get_inputs()[0].name, session.get_outputs()[0].name
    binding = session.io_binding()
    if way == "network alone":
        binding.bind_ortvalue_input(source, onnxruntime.OrtValue.ortvalue_from_numpy(frame, device, 0))
        binding.bind_output(target, device, 0)

        def alone() -> None:
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return alone
    if way == "labels on GPU":
        return lambda: session.run([target], {source: frame})[0]
    size, corners = frame.shape[1:3], deployment.align_corners
    return lambda: np.stack(
        [
            labels_from_logits(logits, size, align_corners=corners)
            for logits in session.run([target], {source: frame})[0]
        ]
    )


def graph(deployment: Deployment, precision: str, with_labels: bool) -> Any:
    """Return the export's ONNX graph in a precision, with a bilinear resize and an argmax behind it if wanted."""
    import onnx
    from onnx import TensorProto, helper
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    model = onnx.load(str(deployment.folder / deployment.onnx))
    if precision == "fp16":
        model = convert_float_to_float16(model, keep_io_types=True, op_block_list=DEFAULT_OP_BLOCK_LIST + _KEEP_FLOAT)
    if not with_labels:
        return model
    logits = model.graph.output.pop()
    batch, channels = (dim.dim_value for dim in logits.type.tensor_type.shape.dim[:2])
    size = [batch, channels, *deployment.input_shape[2:]]
    mode = "align_corners" if deployment.align_corners else "half_pixel"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(size, np.int64), "full_size"))
    model.graph.node.extend([
        helper.make_node("Resize", [logits.name, "", "", "full_size"], ["full_logits"], mode="linear",
                         coordinate_transformation_mode=mode),
        helper.make_node("ArgMax", ["full_logits"], ["best"], axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["labels"], to=TensorProto.UINT8),
    ])  # fmt: skip
    model.graph.output.append(helper.make_tensor_value_info("labels", TensorProto.UINT8, [batch, *size[2:]]))
    return model


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as a table in Markdown."""
    lines = ["| export | size | precision | way | ms | p90 ms | fps | same labels as fp32 |", "|" + " --- |" * 8]
    for row in rows:
        same = "-" if row["label_agreement"] is None else f"{row['label_agreement']:.4%}"
        size = "x".join(map(str, row["size"]))
        lines.append(
            f"| {row['export']} | {size} | {row['precision']} | {row['way']} | {row['ms']:.2f} | {row['p90_ms']:.2f} | "
            f"{row['fps']:.1f} | {same} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    run_tool(main)
