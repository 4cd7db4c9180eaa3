"""Convert annotations or masks to a data set of type Dataset: images, indexed PNG labels, lists, names of the classes.

LabelMe:       paddle-rt prepare-data --format labelme --input DIR --output data/mine
COCO:          paddle-rt prepare-data --format coco --input train.json val.json --images DIR --output data/mine
"""

import argparse
import importlib
import os
from collections.abc import Sequence

from paddle_rt.cli.arguments import Parser, file_or_folder, output_folder, refused_flags, seed
from paddle_rt.errors import UserError
from paddle_rt.imaging.lists import read_lines
from paddle_rt.kinds import flag, number
from paddle_rt.tasks.segmentation.prepare.samples import BACKGROUND, IGNORED, Options, clean_name
from paddle_rt.tasks.segmentation.prepare.splits import SPLITS, SplitRule
from paddle_rt.tasks.segmentation.prepare.write import Report, check_new, prepare

_READERS = {  # module and function
    "labelme": "labelme.read",
    "coco": "coco.read",
}


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__.splitlines()[0])
    add = parser.add_argument
    add("--format", required=True, choices=list(_READERS), help="of the annotations")
    text = "folder of LabelMe's files, or COCO's file; two or three are train, val and test"
    add("--input", nargs="+", type=file_or_folder, required=True, help=text)
    text = "folders of the images, where they are not beside the annotations"
    add("--images", nargs="+", type=file_or_folder, default=[], help=text)
    add("--output", type=output_folder, required=True, help="the folder to make")
    add("--classes", nargs="+", default=[], help="names of the classes in their order, or a file with one a line")
    text = "what pixels without a shape are: class 0, or neither trained nor scored"
    add("--unlabelled", choices=[BACKGROUND, "ignore"], default=BACKGROUND, help=text)
    text = "which of two shapes lies on top: the later one in the file, or the smaller one"
    add("--on_top", choices=["later", "smaller"], default="later", help=text)
    share = flag(number(0, 1, above=True))
    text = "shares of train, val and test; classes are spread evenly, and copies of an image stay together"
    add("--split", nargs="+", type=share, default=[0.8, 0.2], metavar="SHARE", help=text)
    text = "files that name the images of train, val and test, in place of shares"
    add("--lists", nargs="+", type=file_or_folder, default=[], help=text)
    text = "regular expression: images whose names have the same match, or the same group in brackets, stay together"
    add("--group", help=text)
    add("--seed", type=seed, default=0, help="of the split")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with refused_flags():
        rule = SplitRule(args.split, args.lists, args.group, args.seed)
        for name in ("input", "images"):
            if len(getattr(args, name)) > len(SPLITS):
                raise UserError(f"--{name} takes at most {len(SPLITS)}, for {', '.join(SPLITS)}")
    classes = args.classes
    if len(classes) == 1 and os.path.isfile(classes[0]):
        classes = [line for _, line in read_lines(classes[0])]
    classes = list(dict.fromkeys(clean_name(name, "--classes") for name in classes))
    options = Options(args.images, classes, args.unlabelled, args.on_top == "smaller")
    module, function = _READERS[args.format].split(".")
    reader = getattr(importlib.import_module(f"paddle_rt.tasks.segmentation.prepare.{module}"), function)
    check_new(args.output)
    source = reader(args.input, options)
    _show(args, source.names, prepare(source, args.output, rule))


def _show(args: argparse.Namespace, names: Sequence[str], report: Report) -> None:
    total = report.pixels.sum()
    print(f"{args.output}: " + ", ".join(f"{split} {count}" for split, count in report.splits.items()))
    for index, name in enumerate(names):
        print(f"  {index:>3}  {report.pixels[index] / total:8.3%}  {name}")
    if report.pixels[IGNORED]:
        print(f"  {IGNORED:>3}  {report.pixels[IGNORED] / total:8.3%}  not labelled")
    if report.overlap:
        rule, other = ("smaller", "later") if args.on_top == "smaller" else ("later", "smaller")
        print(
            f"{report.overlap / total:.3%} of the pixels lie in shapes of several classes; the {rule} one lies on top "
            f"(--on_top {other} for the other rule)"
        )
