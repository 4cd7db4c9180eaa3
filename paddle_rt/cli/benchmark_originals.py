"""Time the PyTorch originals of FANet and SegFormer++ on a GPU, with random weights and batch 1.

paddle-rt benchmark_originals --fanet FANet --segformerpp SegformerPlusPlus

The folders are clones of github.com/feinanshan/FANet and github.com/KieDani/SegformerPlusPlus. This needs PyTorch and,
for SegFormer++, torchvision, tomesd, addict, omegaconf, rich and yapf; nothing of Paddle.
"""

import json
import pathlib
import sys

from paddle_rt.cli.arguments import Parser, Size, count, file_or_folder, output_file
from paddle_rt.errors import FlagError
from paddle_rt.files import whole_file


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--fanet", type=file_or_folder, help="clone of FANet")
    add("--segformerpp", type=file_or_folder, help="clone of SegFormer++")
    add("--size", action=Size, default=[1024, 2048], help="height and width")
    add("--runs", type=count, default=200, help="runs that count, after 50 runs and 2 seconds")
    add("--device", choices=["cuda", "cpu"], default="cuda", help="cpu tries the command")
    add("--output", type=output_file, help="the rows as JSON")
    arguments = parser.parse_args()
    given = {"fanet": arguments.fanet, "segformerpp": arguments.segformerpp}
    clones = {name: pathlib.Path(folder) for name, folder in given.items() if folder}
    if not clones:
        raise FlagError("give a clone with --fanet, --segformerpp or both")
    from paddle_rt.benchmark.originals import run

    rows = []
    for row in run(clones, arguments.size, arguments.device, arguments.runs):
        print(
            f"{row['model']}, {row['precision']}: {row['to_labels_ms']:.2f} ms to labels", file=sys.stderr, flush=True
        )
        rows.append(row)
    if arguments.output:
        with whole_file(arguments.output) as part:
            part.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print("| original | precision | network ms | to labels ms |\n| --- | --- | --- | --- |")
    for row in rows:
        print(f"| {row['model']} | {row['precision']} | {row['network_ms']:.2f} | {row['to_labels_ms']:.2f} |")
