"""Run a checkpoint on images.

paddle-rt predict --image_path FOLDER
paddle-rt predict -c CONFIG --model_path output/best_model --image_path FOLDER

Without a config, images of streets are labelled with trained weights that come with the package.
"""

from paddle_rt.cli.arguments import WEIGHTS_HELP, file_or_folder, new_parser, output_folder, parse_for_task
from paddle_rt.weights import DEFAULT


def main() -> None:
    parser = new_parser(__doc__, needs_config=False)
    add = parser.add_argument
    add("--model_path", type=file_or_folder, help=f"{WEIGHTS_HELP}; {DEFAULT} without a config")
    add("--image_path", type=file_or_folder, required=True, help="an image, a folder, or a text file that lists images")
    add("--save_dir", type=output_folder, default="./output/result", help="folder of the results")
    arguments, config, task = parse_for_task(parser, "predict", DEFAULT)

    from paddle_rt.config import trained_network
    from paddle_rt.training.devices import set_up

    set_up(arguments.device)
    task.predict(trained_network(config, arguments.model_path), arguments.image_path, arguments.save_dir)
