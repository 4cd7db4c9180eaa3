"""Score checkpoints on videos, by how right and how steady their labels are.

paddle-rt video_metrics -c CONFIG [CONFIG ...] --model_path FILE [FILE ...] --output metrics.json
"""

import argparse
import json

from paddle_rt.cli.arguments import DEVICES, WEIGHTS_HELP, Parser, count, file_or_folder, import_paddle_for, output_file
from paddle_rt.errors import FlagError
from paddle_rt.files import whole_file


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add(
        "-c",
        "--config",
        nargs="+",
        type=file_or_folder,
        required=True,
        help="configs whose val_dataset has videos, a checkpoint each",
    )
    add(
        "--model_path",
        nargs="+",
        type=file_or_folder,
        required=True,
        help=WEIGHTS_HELP,
    )
    add("--videos", type=count, default=50, help="so many of the validation scenes")
    add("--frames", type=count, default=16, help="frames of a video")
    add("--device", default="gpu", choices=DEVICES, help="falls back to cpu where Paddle has no other")
    add("--opts", nargs="+", help="overrides of keys in every config, such as val_dataset.fps=5")
    add("--output", type=output_file, help="also write the scores to this JSON file")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    pairs = list(zip(arguments.config, arguments.model_path, strict=False))
    if len(arguments.config) != len(arguments.model_path):
        raise FlagError(f"{len(arguments.config)} configs, but {len(arguments.model_path)} checkpoints: give as many")

    import_paddle_for(*arguments.config)

    from paddle_rt.config import build_task, load_config, trained_network
    from paddle_rt.tasks.segmentation.video_scores import require_same_data, score_videos, summarize
    from paddle_rt.training.devices import set_up

    configs = [load_config(config, arguments.opts) for config, _ in pairs]
    require_same_data([config.values for config in configs])
    set_up(arguments.device)
    dataset = build_task(configs[0]).build_data("val")
    networks = [trained_network(config, path) for config, (_, path) in zip(configs, pairs, strict=True)]
    rows = summarize(score_videos(networks, dataset, arguments.videos, arguments.frames))
    print(f"{'  mIoU':8}{'flicker':>9}{'fps':>9}{'relative':>10}  checkpoint")
    for row, (_, path) in zip(rows, pairs, strict=True):
        print(f"{row['mIoU']:8.4f}{row['flicker']:9.4f}{row['fps']:9.2f}{row['relative_fps']:10.3f}  {path}")
    if arguments.output:
        runs = [{"config": c, "model_path": path, **row} for (c, path), row in zip(pairs, rows, strict=True)]
        content = {"videos": arguments.videos, "frames": arguments.frames, "opts": arguments.opts, "runs": runs}
        with whole_file(arguments.output) as part:
            part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
