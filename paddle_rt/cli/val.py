"""Score a checkpoint on a config's validation images: paddle-rt val -c CONFIG --model_path output/best_model"""

import pathlib

from paddle_rt.cli.arguments import add_test_time, merge_test_config, new_parser, not_negative, positive
from paddle_rt.cpu import import_paddle
from paddle_rt.errors import UserError


def main() -> None:
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--model_path", required=True, help=".pdparams file, or a folder that holds model.pdparams")
    add("--batch_size", type=positive, default=1, help="images of one size that run together")
    add("--num_workers", type=not_negative, default=0, help="processes that load images")
    add("--absent_class", default="exclude", choices=["exclude", "zero", "one"],
        help="what a class counts in the mean that neither labels nor predictions hold: papers leave it out, "
        "PaddleSeg 2.8.0 counts 0, PaddleSeg 2.9 counts 1")  # fmt: skip
    add("--output", help="also write the scores and the confusion matrix to this JSON file")
    add("--data_format", default="NCHW", choices=["NCHW"], help="layout of the images")
    add_test_time(parser, "--aug_eval")
    arguments = parser.parse_args()
    import_paddle()

    import paddle

    from paddle_rt.config.build import SegBuilder, build, class_names, load_config, trained_model
    from paddle_rt.tasks.segmentation.evaluate import evaluate, report, write_metrics
    from paddle_rt.tasks.segmentation.tta import test_time
    from paddle_rt.training.train import set_up

    if arguments.output and pathlib.Path(arguments.output).is_dir():
        raise UserError(f"--output {arguments.output} is a folder; give a file such as metrics.json")
    config = load_config(arguments.config, arguments.opts)
    how = test_time(**merge_test_config(config.test_config, arguments, arguments.aug_eval))
    set_up(arguments.device)
    model = trained_model(config, arguments.model_path)
    dataset = build(SegBuilder(config), "val_dataset")
    confusion = evaluate(model, dataset, how, arguments.batch_size, arguments.num_workers)
    if paddle.distributed.get_rank() > 0:
        return
    names = class_names(config)
    result = report(confusion, len(dataset), names, arguments.absent_class)
    if arguments.output:
        about = {name: getattr(arguments, name) for name in ("config", "model_path", "absent_class", "opts")}
        write_metrics(arguments.output, result, confusion, names, images=len(dataset), **about)
