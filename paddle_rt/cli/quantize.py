"""Add an int8 graph to an export: paddle-rt quantize -c CONFIG --export_dir output/inference_model

Calibrated on images of the config's train_dataset, judged by label agreement and mIoU on images of its val_dataset.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

from paddle_rt.cli.arguments import new_parser, positive
from paddle_rt.cpu import import_paddle

_UNCHANGED = ["train_dataset.transforms=[]", "val_dataset.transforms=[]"]  # frames as they are read


def main() -> None:
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--export_dir", required=True, help="what tools/export.py wrote, with output_op coarse and an ONNX graph")
    add("--images", type=positive, default=32, help="images to calibrate with, and as many to judge by")
    add("--agreement", type=float, default=0.97, help="share of labels that must stay those of fp32")
    arguments = parser.parse_args()
    import_paddle()

    from tqdm import tqdm

    from paddle_rt.config.build import SegBuilder, load_config
    from paddle_rt.export.quantize import quantize, take_frames

    def progress(items: Sequence, what: str) -> Any:
        return tqdm(items, desc=what, leave=False, disable=None)

    builder = SegBuilder(load_config(arguments.config, [*(arguments.opts or []), *_UNCHANGED]))
    calibration = [frame for frame, _ in take_frames(builder.train_dataset, arguments.images, progress)]
    samples = take_frames(builder.val_dataset, arguments.images, progress)
    ignored = builder.val_dataset.ignore_index
    report = quantize(arguments.export_dir, calibration, samples, ignored, arguments.agreement, progress)
    print(f"label agreement with fp32 on {report['images']} images: {report['label_agreement']:.4f}")
    print(f"mIoU: {report['mIoU_fp32']:.4f} in fp32, {report['mIoU_int8']:.4f} in int8")
    print(f"in higher precision: {', '.join(report['higher_precision'])}")
    print(f"wrote {pathlib.Path(arguments.export_dir) / 'model_int8.onnx'}")
