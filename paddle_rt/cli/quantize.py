"""Add an int8 graph to an export.

paddle-rt quantize -c CONFIG --export_dir output/inference_model

It is calibrated on samples of the config's train_dataset and judged on samples of its val_dataset.
"""

import pathlib

from paddle_rt.cli.arguments import count, file_or_folder, import_paddle_for, new_parser
from paddle_rt.kinds import flag, number


def main() -> None:
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--export_dir", type=file_or_folder, required=True, help="folder of an export with an ONNX graph of images")
    add("--images", type=count, default=100, help="images to calibrate with, and as many to judge by")
    add("--max_drop", type=flag(number(0, 1)), default=0.005, help="by which the score may fall, such as mIoU")
    add("--agreement", type=flag(number(0, 1)), default=0.0, help="share of results that must stay those of fp32")
    arguments = parser.parse_args()
    import_paddle_for(arguments.config)

    from paddle_rt.config import build_task, load_config
    from paddle_rt.export.quantize import quantize

    task = build_task(load_config(arguments.config, arguments.opts))
    calibration = [frame for frame, _ in task.raw_samples("train", arguments.images)]
    samples, spec = task.raw_samples("val", arguments.images), task.export_spec()
    report = quantize(arguments.export_dir, calibration, samples, spec, arguments.max_drop, arguments.agreement)
    agreement = report[spec.agreement_key]
    print(f"{spec.agreement_key.replace('_', ' ')} with fp32 on {report['images']} images: {agreement:.4f}")
    for name, value in report["differences"].items():
        print(f"{name.replace('_', ' ')}: {value:.4f}")
    for name in (key.removesuffix("_fp32") for key in report if key.endswith("_fp32")):
        print(f"{name}: {report[f'{name}_fp32']:.4f} in fp32, {report[f'{name}_int8']:.4f} in int8")
    print(f"in higher precision: {', '.join(report['higher_precision'])}")
    print(f"wrote {pathlib.Path(arguments.export_dir) / 'model_int8.onnx'}")
