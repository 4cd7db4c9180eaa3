"""Export a trained model, checked against it.

paddle-rt export -c CONFIG --model_path output/best_model
"""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from paddle_rt.cli.arguments import (
    WEIGHTS_HELP,
    Size,
    complete_weights,
    file_or_folder,
    import_paddle_for,
    new_parser,
    output_folder,
    side,
)
from paddle_rt.errors import FlagError, unknown

if TYPE_CHECKING:  # it imports Paddle
    from paddle_rt.tasks.export import ExportSpec


def main() -> None:
    parser = new_parser(__doc__, needs_config=False)
    add = parser.add_argument
    add("--model_path", type=file_or_folder, help=WEIGHTS_HELP)
    add("--random_weights", action="store_true", help="export an untrained model instead, to measure its speed")
    add("--save_dir", type=output_folder, default="./output/inference_model", help="where graphs, deploy.yaml and "
        "verification.json go")  # fmt: skip
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--input_size", action=Size, help="one image of this size")
    size.add_argument("--input_shape", nargs=4, type=_length, metavar=("N", "C", "H", "W"),
        help="None or -1 leaves N, H or W open; without either flag all are open, but for pose N alone")  # fmt: skip
    add("--output_op", help="of segmentation: coarse (default: uint8 frames in, small logits out, for Segmenter), "
        "labels (uint8 frames in, uint8 labels out), or PaddleSeg's argmax, softmax, none (logits), which take "
        "images")  # fmt: skip
    add("--formats", nargs="+", choices=["paddle", "onnx", "mnn"], default=["paddle", "onnx"],
        help="any of them; mnn needs the package MNN")  # fmt: skip
    add("--target", default="cpu", help="cpu (default), or gpu: operators that TensorRT takes, and for Paddle's graph "
        "frames as float32 [N, 3, H, W]")  # fmt: skip
    add("--precision", nargs="+", default=["fp32"], help="fp32 (default), and fp16 for an ONNX graph in half precision "
        "with --target gpu")  # fmt: skip
    add("--triton", type=output_folder, help="also write a model for Triton Inference Server into this folder of its "
        "model repository; with --output_op labels and --input_size")  # fmt: skip
    parser.set_defaults(device="cpu")
    arguments = parser.parse_args()
    if bool(arguments.model_path) == arguments.random_weights:
        raise FlagError("give trained weights with --model_path, or ask for an untrained model with --random_weights")
    if arguments.model_path:
        complete_weights(arguments, parser)
    elif not arguments.config:
        raise FlagError("--random_weights needs a config: -c/--config")
    import_paddle_for(arguments.config)

    from paddle_rt import components
    from paddle_rt.config import build_task, load_config, trained_network
    from paddle_rt.config.build import without_pretrained
    from paddle_rt.export.publish import export
    from paddle_rt.export.triton import check_triton, write_triton
    from paddle_rt.training.devices import set_up

    config = load_config(arguments.config, arguments.opts)
    spec = build_task(config).export_spec()
    if arguments.output_op not in (None, *spec.output_ops):
        raise FlagError(str(unknown("output_op", arguments.output_op, spec.output_ops)))
    shape = _input_shape(arguments, spec, config.values["model"].get("in_channels", 3))
    if arguments.triton:
        check_triton(arguments.output_op, shape, arguments.formats)
    set_up(arguments.device, seed=0)
    if arguments.random_weights:
        print("warning: these weights are random, the export is good for measuring speed only", file=sys.stderr)
        network = components.build_network(without_pretrained(config.values["model"]))
    else:
        network = trained_network(config, arguments.model_path)
    report = export(
        network, arguments.save_dir, spec, shape, arguments.output_op, arguments.formats, arguments.target,
        arguments.precision,
    )  # fmt: skip
    _print_report(report, arguments)
    if arguments.triton:
        write_triton(arguments.save_dir, arguments.triton)
        print(f"the model for Triton is in {arguments.triton}")


def _print_report(report: dict[str, Any], arguments: argparse.Namespace) -> None:
    from paddle_rt.export.verify import TOLERANCE

    for row in [*report["comparisons"], *report.get("fp16", {}).get("comparisons", [])]:
        print("; ".join(f"{key} {f'{value:.4g}' if isinstance(value, float) else value}" for key, value in row.items()))
    if any(row.get("relative_error", 0) > TOLERANCE for row in report["comparisons"]):
        print("warning: these weights multiply rounding, so more than 1e-4 was allowed", file=sys.stderr)
    if arguments.target == "gpu" and "paddle" in arguments.formats and None in report["input_shape"]:
        print("warning: Paddle's TensorRT needs --input_size; open sizes run on Paddle's plain GPU", file=sys.stderr)
    print(f"exported {report['output_op']} {report['input_shape']} to {arguments.save_dir}")


def _input_shape(arguments: argparse.Namespace, spec: "ExportSpec", channels: int) -> list[int | None]:
    if arguments.input_size:
        return [1, channels, *arguments.input_size]
    if arguments.input_shape is None:
        return spec.input_shape(channels)
    if arguments.input_shape[1] != channels:
        raise FlagError(f"--input_shape has {arguments.input_shape[1]} channels, the model takes {channels}")
    return arguments.input_shape


def _length(text: str) -> int | None:
    return None if text in ("None", "-1") else side(text)
