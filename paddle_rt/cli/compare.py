"""Run PaddleSeg's model and ours with the same weights.

paddle-rt compare -c CONFIG --model_path CHECKPOINT
"""

import pathlib

from paddle_rt import imaging
from paddle_rt.cli.arguments import Size, count, file_or_folder, new_parser
from paddle_rt.cpu import import_paddle
from paddle_rt.errors import UserError


def checkpoints(path: str | None) -> list[str | None]:
    """Return the checkpoints to compare: a file, a folder's own, or all below it; None stands for random weights."""
    if path is None:
        return [None]
    root = pathlib.Path(path)
    if root.is_dir() and not (root / "model.pdparams").is_file():
        return sorted(map(str, root.rglob("*.pdparams"))) or [path]
    return [path]


def main() -> None:
    parser = new_parser(__doc__)
    add = parser.add_argument
    add(
        "--model_path",
        type=file_or_folder,
        help=".pdparams file, or folder of checkpoints; without it both get PaddleSeg's random weights",
    )
    add(
        "--image_path",
        type=file_or_folder,
        help="an image, a folder or a list, run as the config's validation does; else random images",
    )
    add("--input_size", action=Size, default=[512, 1024], help="size of random images")
    add("--images", type=count, default=3, help="how many random images, or how many of --image_path")
    arguments = parser.parse_args()
    import_paddle()

    import numpy as np

    from paddle_rt import components
    from paddle_rt.config import build_task, load_config
    from paddle_rt.config.build import without_pretrained
    from paddle_rt.paddleseg.compare import TOLERANCE, compare
    from paddle_rt.paddleseg.counterparts import paddleseg_model
    from paddle_rt.training.devices import set_up

    config = load_config(arguments.config, arguments.opts)
    set_up(arguments.device, seed=0)
    section = config.values["model"]
    theirs, ours = (
        paddleseg_model(section, section["num_classes"]),
        components.build_network(without_pretrained(section)),
    )
    if arguments.image_path:
        transforms = build_task(config).build_transforms()
        files = imaging.list_images(arguments.image_path)[0][: arguments.images]
        images = [transforms({"img": imaging.read_image(file).astype("float32")})["img"][np.newaxis] for file in files]
    else:
        shape = [1, section.get("in_channels", 3), *arguments.input_size]
        images = list(np.random.default_rng(0).standard_normal([arguments.images, *shape]).astype("float32"))
    failures = []
    for checkpoint in checkpoints(arguments.model_path):
        try:
            result = compare(ours, theirs, checkpoint, images)
        except UserError as error:  # the other checkpoints of a folder still count
            failures.append(str(error))
            continue
        if not result.equal:
            failures.append(f"{checkpoint or 'random weights'} give other logits than PaddleSeg's model")
        print(f"{checkpoint or 'random weights'}, {result.images} images, PaddleSeg's model and ours:")
        error, largest, times = result.relative_error, result.largest_difference, result.milliseconds
        print(f"  logits            relative error {error:.1e}, largest difference {largest:.1e}")
        print(f"  labels            {100 * result.label_agreement:.4f} % agree")
        print(f"  parameters        {result.parameters[0]:,} and {result.parameters[1]:,}")
        print(f"  forward, median   {times[0]:.0f} ms and {times[1]:.0f} ms, {result.speedup:.2f}x")
        print(f"  {'equal' if result.equal else 'NOT EQUAL'} at a relative error of {TOLERANCE:.0e}")
    if failures:
        raise UserError("; ".join(failures))
