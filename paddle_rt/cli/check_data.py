"""Read all images and labels of a segmentation data set, and tell what is wrong with it and what is in it.

paddle-rt check_data -c CONFIG
paddle-rt check_data --images DIR --labels DIR --output output/check

Exit code 1 where training would fail, or would learn or score nonsense.
"""

import pathlib

from paddle_rt.analysis import ADVICE, Report, analyse, write_report
from paddle_rt.analysis.folders import divide_by_folder, pairs_and_findings
from paddle_rt.analysis.text import report_lines
from paddle_rt.cli.arguments import file_or_folder, import_paddle_for, new_parser, output_folder, side, workers
from paddle_rt.errors import FlagError, UserError
from paddle_rt.imaging.label_format import LabelFormat


def main() -> None:
    parser = new_parser(__doc__, needs_config=False)
    add = parser.add_argument
    add("--images", type=file_or_folder, help="folder of the images, in place of a config")
    add("--labels", type=file_or_folder, help="folder of the labels, of the same names as the images")
    add("--num_classes", type=side, help="number of classes of --labels; by default it is guessed from what they hold")
    add("--num_workers", type=workers, help="processes that read files; by default one for each core")
    add("--output", type=output_folder, help="also write report.json, contact_sheet.png and classes.png to this folder")
    arguments = parser.parse_args()
    if bool(arguments.config) == bool(arguments.images) or bool(arguments.images) != bool(arguments.labels):
        raise FlagError("give either --config, or --images and --labels")
    if arguments.config:
        report, colours = _of_config(arguments.config, arguments.opts, arguments.num_workers)
    else:
        report, colours = _of_folders(arguments.images, arguments.labels, arguments.num_classes, arguments.num_workers)
    print("\n".join(report_lines(report)))
    if arguments.output:
        from paddle_rt.analysis.drawing import draw_report

        draw_report(report, arguments.output, colours)
        write_report(report, arguments.output)
        print(f"written to {pathlib.Path(arguments.output)}")
    if not report.passed:
        faults = sum(finding.level != ADVICE for finding in report.findings)
        raise UserError(
            f"{faults} fault{'s' * (faults > 1)} with which training would fail or learn nonsense; see above"
        )


def _of_folders(images: str, labels: str, num_classes: int | None, num_workers: int | None) -> tuple[Report, list]:
    pairs, findings = pairs_and_findings("data", images, labels)
    known = None if num_classes is None else LabelFormat(num_classes)
    report = analyse(divide_by_folder(pairs, images), known, known=findings, num_workers=num_workers)
    if num_classes is None:
        guessed = report.labels.num_classes
        print(f"--num_classes is not given; by what the labels hold there are {guessed} classes\n")
    return report, []


def _of_config(path: str, opts: list[str] | None, num_workers: int | None) -> tuple[Report, list]:
    import_paddle_for(path)

    from paddle_rt.config import build_task, load_config
    from paddle_rt.tasks.segmentation.task import SegmentationTask

    config = load_config(path, opts)
    task = build_task(config)
    if not isinstance(task, SegmentationTask):
        raise UserError(f"check_data is for segmentation, but the task of {path} is {task.name}")
    return task.analyse_data(config.batch_size, num_workers), task.given_colours
