"""Convert the jump broadcast data set (JBD) to annotations in COCO's form, which data set type CocoKeypoints reads.

paddle-rt prepare_jbd --keypoints jump_broadcast/keypoints --images jump_broadcast/annotated_frames
    --boxes jump_broadcast/bboxes_segmentations.csv --output jump_broadcast/annotations
"""

import argparse
import sys
from functools import partial

from tqdm import tqdm

from paddle_rt.cli.arguments import Parser, file_or_folder, output_folder
from paddle_rt.tasks.pose.jbd import convert


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__.splitlines()[0])
    text = "the folder of train.csv and val.csv"
    parser.add_argument("--keypoints", type=file_or_folder, required=True, help=text)
    text = "the folder of the frames, VIDEO/VIDEO_(FRAME).jpg"
    parser.add_argument("--images", type=file_or_folder, required=True, help=text)
    text = "CSV file of boxes; without it they are the extent of the keypoints and a quarter of it on each side"
    parser.add_argument("--boxes", type=file_or_folder, help=text)
    parser.add_argument("--output", type=output_folder, required=True, help="the folder for SPLIT_jump.json")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    progress = partial(tqdm, unit="frame", disable=None)
    for split, counts in convert(args.keypoints, args.images, args.output, args.boxes, progress).items():
        print(f"{args.output}/{split}_jump.json: {counts.written} frames")
        if counts.without_box:
            print(f"warning: {counts.without_box} frames of {split} are left out: they have no box", file=sys.stderr)
