"""Label images: paddle-rt predict -c CONFIG --model_path output/best_model --image_path FOLDER"""

from paddle_rt.cli.arguments import add_test_time, merge_test_config, new_parser
from paddle_rt.cpu import import_paddle
from paddle_rt.errors import UserError


def main() -> None:
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--model_path", required=True, help=".pdparams file, or a folder that holds model.pdparams")
    add("--image_path", required=True, help="an image, a folder, or a text file that lists images")
    add("--save_dir", default="./output/result", help="where the pictures go")
    add("--custom_color", nargs="+", type=int, metavar="R G B", help="colours of the first classes, three numbers each")
    add_test_time(parser, "--aug_pred")
    arguments = parser.parse_args()
    import_paddle()

    from paddleseg.transforms import Compose

    from paddle_rt.config.build import SegBuilder, build, load_config, palette, trained_model
    from paddle_rt.tasks.segmentation.predict import predict
    from paddle_rt.tasks.segmentation.tta import test_time
    from paddle_rt.training.train import set_up

    config = load_config(arguments.config, arguments.opts)
    test_config = {**config.test_config, "aug_eval": False}  # a config's own counts for evaluation, as in PaddleSeg
    how = test_time(**merge_test_config(test_config, arguments, arguments.aug_pred))
    set_up(arguments.device)
    model = trained_model(config, arguments.model_path)
    builder = SegBuilder(config)
    colours, custom = palette(config), arguments.custom_color or []
    if len(custom) % 3 or len(custom) > colours.size or not all(0 <= value <= 255 for value in custom):
        raise UserError(f"--custom_color takes three numbers of 0 to 255 for each class, got {custom}")
    colours.reshape(-1)[: len(custom)] = custom
    predict(model, Compose(build(builder, "val_transforms")), arguments.image_path, arguments.save_dir, colours, how)
