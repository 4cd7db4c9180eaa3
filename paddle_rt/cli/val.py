"""Score a checkpoint on a config's validation data.

paddle-rt val -c CONFIG --model_path output/best_model
"""

import json
import logging
import os

from paddle_rt.cli.arguments import (
    WEIGHTS_HELP,
    file_or_folder,
    new_parser,
    output_file,
    output_folder,
    parse_for_task,
    workers,
)
from paddle_rt.files import whole_file
from paddle_rt.imaging.read_write import write_image

logger = logging.getLogger(__name__)


def main() -> None:
    parser = new_parser(__doc__, needs_config=False)
    add = parser.add_argument
    add("--model_path", type=file_or_folder, help=WEIGHTS_HELP)
    add("--num_workers", type=workers, default=0, help="processes that load the data")
    add("--output", type=output_file, help="also write all scores to this JSON file")
    add("--save_dir", type=output_folder, default="./output/val", help="folder of the images that flags ask for")
    add("--data_format", default="NCHW", choices=["NCHW"], help="layout of the images")
    arguments, config, task = parse_for_task(parser, "val")

    import paddle

    from paddle_rt.config import trained_network
    from paddle_rt.training.devices import set_up

    set_up(arguments.device)
    network = trained_network(config, arguments.model_path)
    scores = task.evaluate(network, task.build_data("val"), arguments.num_workers)
    for line in (scores.summary, *scores.details):
        logger.info(line)
    if paddle.distributed.get_rank() == 0:
        for name, image in scores.images.items():
            write_image(os.path.join(arguments.save_dir, name), image)
            logger.info("%s is written", os.path.join(arguments.save_dir, name))
    if arguments.output and paddle.distributed.get_rank() == 0:
        flags = {name: getattr(arguments, name) for name in ("config", "model_path", "opts")}
        with whole_file(arguments.output) as part:
            part.write_text(json.dumps({**flags, **scores.report}, indent=1) + "\n", encoding="utf-8")
