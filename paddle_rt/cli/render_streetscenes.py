"""Write StreetScenes frames and labels as files.

paddle-rt render_streetscenes --output data/streetscenes
"""

import pathlib

from tqdm import tqdm

from paddle_rt.cli.arguments import Parser, Size, count, output_folder
from paddle_rt.imaging.labels import write_label
from paddle_rt.imaging.palettes import palette
from paddle_rt.imaging.read_write import write_image
from paddle_rt.kinds import flag, whole
from paddle_rt.streetscenes.scenes import SERIES, make_scene, render


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--output", type=output_folder, required=True, help="folder for images/ and labels/")
    parser.add_argument("--mode", default="val", choices=list(SERIES), help="which series of scenes")
    parser.add_argument("--number", type=count, default=20, help="how many scenes")
    parser.add_argument("--size", action=Size, default=[256, 512], help="of a frame")
    parser.add_argument("--seed", type=flag(whole(0, 1 << 62)), default=0, help="as the dataset's")
    arguments = parser.parse_args()

    folder, first = pathlib.Path(arguments.output), SERIES[arguments.mode][0]
    for number in tqdm(range(arguments.number), desc="render", unit="img", disable=None):
        image, label = render(make_scene(first + number, arguments.seed), *arguments.size)
        write_image(folder / "images" / f"{number:05d}.png", image)
        write_label(folder / "labels" / f"{number:05d}.png", label, palette("StreetScenes", 19))
