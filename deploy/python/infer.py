"""Label images with an exported model: python deploy/python/infer.py --config EXPORT/deploy.yaml --image_path FOLDER

Needs neither PaddleSeg nor, with the onnxruntime backend, Paddle.
"""

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from paddle_rt.data import images as pictures  # noqa: E402
from paddle_rt.data.classes import palette  # noqa: E402
from paddle_rt.errors import UserError, run_tool  # noqa: E402
from paddle_rt.inference import BACKENDS, Segmenter  # noqa: E402
from paddle_rt.inference.segmenter import DEVICES, PRECISIONS  # noqa: E402


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config", required=True, help="deploy.yaml of an export, or its folder")
    add("--image_path", required=True, help="an image, a folder with all below it, or a text list of images")
    add("--backend", default="onnxruntime", help=f"{' or '.join(BACKENDS)} (default: onnxruntime)")
    add("--device", default="cpu", help=f"{' or '.join(DEVICES)} (default: cpu)")
    add("--precision", default="fp32", help=f"{' or '.join(PRECISIONS)} (default: fp32)")
    add("--threads", "--cpu_threads", type=int, help="CPU threads (default: one for every core)")
    add("--save_dir", default="./output", help="folder for the pictures (default: ./output)")
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


def output_names(files: Sequence[str], root: str) -> list[pathlib.Path]:
    """Relative names without suffix, in the sub-folders that the images lie in and no two alike.

    An image outside `root`, which a list may name, keeps what of its path lies below the folder that they share. Where
    two images differ in their suffix alone, the later one keeps it.
    """
    base = pathlib.Path(os.path.abspath(root))
    names: dict[pathlib.Path, None] = {}  # keeps the order, and finds a name at once in a large folder
    for file in files:
        path = pathlib.Path(os.path.abspath(file))
        shared = next(parent for parent in (base, *base.parents) if path.is_relative_to(parent))
        relative = path.relative_to(shared)
        name = relative.with_suffix("")
        if name in names:
            name = relative
        while name in names:
            name = name.with_name(f"{name.name}_")
        names[name] = None
    return list(names)


if __name__ == "__main__":
    run_tool(main)
