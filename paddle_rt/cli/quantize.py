"""Add an int8 graph to an export: paddle-rt quantize -c CONFIG --export_dir output/inference_model

It is calibrated on training images, and judged by agreement with fp32 and by the task's score on validation images.
"""

import pathlib

from paddle_rt.cli.arguments import new_parser, positive
from paddle_rt.cpu import import_paddle


def main() -> None:
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--export_dir", required=True, help="what tools/export.py wrote, with output_op coarse and an ONNX graph")
    add("--images", type=positive, default=32, help="images to calibrate with, and as many to judge by")
    add("--agreement", type=float, default=0.97, help="share of results that must stay those of fp32")
    arguments = parser.parse_args()
    import_paddle()

    from paddle_rt.config import build_task, load_config
    from paddle_rt.export.quantize import quantize

    task = build_task(load_config(arguments.config, arguments.opts))
    calibration = [frame for frame, _ in task.raw_samples("train", arguments.images)]
    samples = task.raw_samples("val", arguments.images)
    report = quantize(arguments.export_dir, calibration, samples, task.export_spec(), arguments.agreement)
    for key, value in report.items():
        print(f"{key}: {', '.join(value) if isinstance(value, list) else value}")
    print(f"wrote {pathlib.Path(arguments.export_dir) / 'model_int8.onnx'}")
