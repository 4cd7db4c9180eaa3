"""Label images with an exported model: python deploy/python/infer.py --config EXPORT/deploy.yaml --image_path FOLDER

Needs neither PaddleSeg nor, with the onnxruntime backend, Paddle.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
import numpy as np
from tqdm import tqdm

from paddle_rt.arguments import Parser, positive
from paddle_rt.data import images as pictures
from paddle_rt.data.classes import palette
from paddle_rt.errors import UserError, run_tool
from paddle_rt.files import output_names
from paddle_rt.inference import BACKENDS, Segmenter
from paddle_rt.inference.segmenter import DEVICES, PRECISIONS


def main() -> None:
    arguments = parse_arguments()
    segment = Segmenter(arguments.config, arguments.backend, arguments.precision, arguments.threads, arguments.device)
    files, root = pictures.list_images(arguments.image_path)
    segment.warmup()
    failures = infer(segment, files, output_names(files, root), pathlib.Path(arguments.save_dir))
    print(f"{len(files) - len(failures)} of {len(files)} images labelled, pictures in {arguments.save_dir}")
    if failures:
        raise UserError(f"{len(failures)} of {len(files)} images failed: {'; '.join(failures)}")


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--config", required=True, help="deploy.yaml of an export, or its folder")
    add("--image_path", required=True, help="an image, a folder with all below it, or a text list of images")
    add("--backend", default="onnxruntime", help=f"{' or '.join(BACKENDS)}")
    add("--device", default="cpu", help=f"{' or '.join(DEVICES)}")
    add("--precision", default="fp32", help=f"{' or '.join(PRECISIONS)}")
    add("--threads", "--cpu_threads", type=positive, help="CPU threads, one for every core if not given")
    add("--save_dir", default="./output", help="folder for the pictures")
    return parser.parse_args()


def infer(segment: Segmenter, files: Sequence[str], names: Sequence[pathlib.Path], save_dir: pathlib.Path) -> list[str]:
    """Label images at their own sizes and write two pictures for each.

    Args:
        segment: The exported model.
        files: The images.
        names: For each the relative name of its pictures, without suffix.
        save_dir: Gets pseudo_color_prediction/NAME.png (indexed colours, the pixel's value is its class) and
            added_prediction/NAME.jpg (image and colours mixed).

    Returns:
        What was wrong with the images that could not be labelled.
    """
    deployment = segment.deployment
    failures = []
    for file, name in zip(tqdm(files, desc="infer", unit="img", disable=None), names, strict=True):
        try:
            image = pictures.read_image(file)
            labels = segment(image)
        except UserError as error:
            failures.append(str(error) if file in str(error) else f"{file}: {error}")
            continue
        number = deployment.num_classes or int(labels.max()) + 1
        colours: np.ndarray = palette(deployment.dataset_type, number)
        pictures.write_png(save_dir / "pseudo_color_prediction" / f"{name}.png", labels, colours)
        pictures.write_image(save_dir / "added_prediction" / f"{name}.jpg", pictures.overlay(image, labels, colours))
    return failures


if __name__ == "__main__":
    run_tool(main)
