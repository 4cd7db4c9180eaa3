"""Convert annotations or masks to a data set of type Dataset: images, indexed PNG labels, lists, names of the classes.

LabelMe:       paddle-rt prepare-data --format labelme --input DIR --output data/mine
COCO:          paddle-rt prepare-data --format coco --input train.json val.json --images DIR --output data/mine
CVAT:          paddle-rt prepare-data --format cvat --input annotations.xml --output data/mine
YOLO:          paddle-rt prepare-data --format yolo --input data.yaml --output data/mine
Masks:         paddle-rt prepare-data --format color_masks --input MASKS --images DIR --palette FILE --output data/mine
               binary_masks and class_masks likewise, without a palette
"""

import argparse
import importlib
import os

from paddle_rt.analysis.text import report_lines
from paddle_rt.cli.arguments import Parser, file_or_folder, output_folder, refused_flags, seed
from paddle_rt.cli.new_config import add_flags, print_head
from paddle_rt.cpu import import_paddle
from paddle_rt.errors import UserError
from paddle_rt.imaging.lists import read_lines
from paddle_rt.kinds import flag, number
from paddle_rt.registry import list_models
from paddle_rt.tasks.segmentation.prepare.samples import BACKGROUND, Options, clean_name
from paddle_rt.tasks.segmentation.prepare.splits import SPLITS, SplitRule
from paddle_rt.tasks.segmentation.prepare.write import check_new, prepare

_READERS = {  # module and function
    "labelme": "labelme.read",
    "coco": "coco.read",
    "cvat": "cvat.read",
    "yolo": "yolo.read",
    "color_masks": "masks.read_colour_masks",
    "binary_masks": "masks.read_binary_masks",
    "class_masks": "masks.read_class_masks",
}


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__.splitlines()[0])
    add = parser.add_argument
    add("--format", required=True, choices=list(_READERS), help="of the annotations")
    text = "folder of LabelMe's files or of masks, or the file of COCO, CVAT or YOLO; two or three are train, val, test"
    add("--input", nargs="+", type=file_or_folder, required=True, help=text)
    text = "folders of the images, where they are not beside the annotations"
    add("--images", nargs="+", type=file_or_folder, default=[], help=text)
    text = "of coloured masks: a file with red, green, blue and a name a line"
    add("--palette", type=file_or_folder, help=text)
    add("--output", type=output_folder, required=True, help="the folder to make")
    add("--classes", nargs="+", default=[], help="names of the classes in their order, or a file with one a line")
    text = "what pixels without a shape are: class 0, or neither trained nor scored"
    add("--unlabelled", choices=[BACKGROUND, "ignore"], default=BACKGROUND, help=text)
    text = "which of two shapes lies on top: the later or the smaller one; by default as the tool of the format does"
    add("--on_top", choices=["later", "smaller"], help=text)
    share = flag(number(0, 1, above=True))
    text = "shares of train, val and test; classes are spread evenly, and copies of an image stay together"
    add("--split", nargs="+", type=share, default=[0.8, 0.2], metavar="SHARE", help=text)
    text = "files that name the images of train, val and test, in place of shares"
    add("--lists", nargs="+", type=file_or_folder, default=[], help=text)
    text = "regular expression: images whose names have the same match, or the same group in brackets, stay together"
    add("--group", help=text)
    add("--seed", type=seed, default=0, help="of the split")
    text = "the network of the config that is written beside the data, or none, which needs no Paddle"
    add("--model", choices=[*list_models("segmentation"), "none"], default="rtformer_slim", help=text)
    add_flags(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with refused_flags():
        rule = SplitRule(args.split, args.lists, args.group, args.seed)
        for name in ("input", "images"):
            if len(getattr(args, name)) > len(SPLITS):
                raise UserError(f"--{name} takes at most {len(SPLITS)}, for {', '.join(SPLITS)}")
        if args.palette and args.format != "color_masks":
            raise UserError("--palette is for --format color_masks")
    classes = args.classes
    if len(classes) == 1 and os.path.isfile(classes[0]):
        classes = [line for _, line in read_lines(classes[0])]
    classes = list(dict.fromkeys(clean_name(name, "--classes") for name in classes))
    on_top = args.on_top or ("smaller" if args.format == "yolo" else "later")  # Ultralytics sorts by area
    options = Options(args.images, classes, args.unlabelled, on_top == "smaller", args.palette)
    module, function = _READERS[args.format].split(".")
    reader = getattr(importlib.import_module(f"paddle_rt.tasks.segmentation.prepare.{module}"), function)
    check_new(args.output)
    source = reader(args.input, options)
    report = prepare(source, args.output, rule)
    print(f"{args.output}: " + ", ".join(f"{split} {count}" for split, count in report.splits.items()))
    if report.overlap:
        other = "later" if on_top == "smaller" else "smaller"
        print(
            f"{report.overlap / report.pixels:.3%} of the pixels lie in shapes of several classes; the {on_top} one "
            f"lies on top (--on_top {other} for the other rule)"
        )
    _finish(args)


def _finish(args: argparse.Namespace) -> None:
    """Show the analysis of what was written, and write a config for it."""
    if args.model != "none":
        import_paddle()
    from paddle_rt.new_config.write import read_folder, write_config

    found = read_folder(args.output)
    print("\n".join(report_lines(found[1])))
    if not found[1].passed:
        raise UserError(f"{args.output} is written, but training on it would fail or learn nonsense; see above")
    if args.model != "none":
        config = os.path.join(args.output, f"{args.model}.yml")
        write_config(args.output, args.model, config, args.device, args.hours, found)
        print_head(config)
