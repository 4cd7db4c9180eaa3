"""Run PaddleSeg's model and ours with the same weights.

paddle-rt compare -c CONFIG --model_path CHECKPOINT
paddle-rt compare --release rtformer_slim_cityscapes
"""

import argparse
import os
import pathlib
from typing import TYPE_CHECKING

from paddle_rt import imaging
from paddle_rt.checkpoint import WEIGHTS_FORMATS, weights_file
from paddle_rt.cli.arguments import Size, count, file_or_folder, import_paddle_for, new_parser
from paddle_rt.downloads import local_weights
from paddle_rt.errors import UserError
from paddle_rt.paddleseg.releases import ADDRESS, RELEASES, Release, find_release

if TYPE_CHECKING:
    import numpy as np

    from paddle_rt.config import Config
    from paddle_rt.paddleseg.compare import Comparison

ROOT = pathlib.Path(__file__).resolve().parents[2]


def checkpoints(path: str | None) -> list[str | None]:
    """Return the checkpoints to compare: a file, a folder's own, or all below it; None stands for random weights."""
    if path is None or not os.path.isdir(path) or weights_file(path):
        return [path]
    found = [file for suffix in WEIGHTS_FORMATS for file in pathlib.Path(path).rglob(f"*.{suffix}")]
    return sorted(str(file) for file in found if file.stem != "train_state") or [path]


def main() -> None:
    arguments = parse_arguments()
    release = find_release(arguments.release) if arguments.release else None
    if release:
        arguments.config = arguments.config or config_of(release)
        arguments.model_path = str(local_weights(release.address(arguments.mirror)))
    import_paddle_for(arguments.config)

    from paddle_rt import components
    from paddle_rt.config import load_config
    from paddle_rt.config.build import without_pretrained
    from paddle_rt.paddleseg.compare import compare
    from paddle_rt.paddleseg.counterparts import paddleseg_model
    from paddle_rt.training.devices import set_up

    config = load_config(arguments.config, arguments.opts)
    set_up(arguments.device, seed=0)
    section = config.values["model"]
    theirs = paddleseg_model(section, section.get("num_classes", 19))
    ours = components.build_network(without_pretrained(section))
    images, failures = read_images(arguments, config), []
    for checkpoint in checkpoints(arguments.model_path):
        try:
            result = compare(ours, theirs, checkpoint, images)
        except UserError as error:  # the other checkpoints of a folder still count
            failures.append(str(error))
            continue
        if not result.equal:
            failures.append(f"{checkpoint or 'random weights'} give other logits than PaddleSeg's model")
        report(checkpoint or "random weights", result)
    if failures:
        raise UserError("; ".join(failures))
    if release:
        print(f"expected mIoU {release.miou:.4f}, as published:")
        print(f"  python tools/val.py -c {arguments.config} --model_path {arguments.model_path}")


def parse_arguments() -> argparse.Namespace:
    parser = new_parser(__doc__, needs_config=False)
    add = parser.add_argument
    add("--release", help=f"download and compare trained weights of PaddleSeg: {', '.join(RELEASES)}")
    add("--mirror", default=ADDRESS, help="a copy of the address that the releases are downloaded from")
    add(
        "--model_path",
        type=file_or_folder,
        help="file of weights, or folder of checkpoints; without it both get PaddleSeg's random weights",
    )
    add(
        "--image_path",
        type=file_or_folder,
        help="an image, a folder or a list, run as the config's validation does; else random images",
    )
    add("--input_size", action=Size, default=[512, 1024], help="size of random images")
    add("--images", type=count, default=3, help="how many random images, or how many of --image_path")
    arguments = parser.parse_args()
    if not (arguments.release or arguments.config):
        parser.error("one of -c/--config and --release is required")
    if arguments.release and arguments.model_path:
        parser.error("--release and --model_path exclude each other")
    return arguments


def config_of(release: Release) -> str:
    """Return the path of a release's config in the repository, as short as possible."""
    path = ROOT / release.config
    if not path.is_file():
        raise UserError(f"no config at {path}; give that of the repository, {release.config}, with -c")
    return os.path.relpath(path) if path.is_relative_to(os.getcwd()) else str(path)


def read_images(arguments: argparse.Namespace, config: "Config") -> "list[np.ndarray]":
    """Return the batches that both networks run on: images of the user, or random ones."""
    import numpy as np

    from paddle_rt.config import build_task

    if arguments.image_path:
        transforms = build_task(config).build_transforms()
        files = imaging.list_images(arguments.image_path)[0][: arguments.images]
        frames = [imaging.read_image(file, transforms.img_channels).astype("float32") for file in files]
        return [transforms({"img": frame})["img"][np.newaxis] for frame in frames]
    shape = [arguments.images, 1, config.values["model"].get("in_channels", 3), *arguments.input_size]
    return list(np.random.default_rng(0).standard_normal(shape).astype("float32"))


def report(weights: str, result: "Comparison") -> None:
    """Print what a comparison found."""
    from paddle_rt.paddleseg.compare import TOLERANCE

    print(f"{weights}, {result.images} images, PaddleSeg's model and ours:")
    error, largest, times = result.relative_error, result.largest_difference, result.milliseconds
    print(f"  logits            relative error {error:.1e}, largest difference {largest:.1e}")
    print(f"  labels            {100 * result.label_agreement:.4f} % agree")
    print(f"  parameters        {result.parameters[0]:,} and {result.parameters[1]:,}")
    print(f"  forward, median   {times[0]:.0f} ms and {times[1]:.0f} ms, {result.speedup:.2f}x")
    print(f"  {'equal' if result.equal else 'NOT EQUAL'} at a relative error of {TOLERANCE:.0e}")
