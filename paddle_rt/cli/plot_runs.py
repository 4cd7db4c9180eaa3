"""Draw and tabulate training runs.

paddle-rt plot_runs --runs a=output/a b=output/b

Reads metrics.jsonl of each folder or, for a run of PaddleSeg's loop, its VisualDL logs.
"""

import pathlib

from paddle_rt.cli.arguments import Parser, file_or_folder, output_file
from paddle_rt.errors import FlagError, UserError
from paddle_rt.files import whole_file
from paddle_rt.run_logs import METRICS, read_metrics, read_scalars

Curve = dict[int, float]


def read_run(folder: pathlib.Path, score: str | None) -> tuple[str, Curve, Curve]:
    """Read the curves of a run.

    Args:
        folder: The run's save_dir.
        score: Name of the score, or None for the first one that the run has.

    Returns:
        The score's name, and training loss and score by iteration.

    Raises:
        UserError: The folder holds no log, or the log no evaluation with that score.
    """
    if not (folder / METRICS).is_file():
        return _read_vdl(folder, score or "mIoU")
    rows = read_metrics(folder / METRICS)
    if not rows:
        raise UserError(f"{folder / METRICS} holds no row of a run; it is empty or damaged")
    losses = {row["iter"]: row["loss"] for row in rows if row["kind"] == "train"}
    evaluations = [row for row in rows if row["kind"] == "eval" and row["model"] == "model"]
    names = [name for row in evaluations for name, value in row.items() if name != "iter" and _is_number(value)]
    score = score or next(iter(names), None)
    if score not in names:
        raise UserError(f"{folder / METRICS} holds no {score or 'evaluation'}; train with --do_eval")
    return score, losses, {row["iter"]: row[score] for row in evaluations if _is_number(row.get(score))}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read_vdl(folder: pathlib.Path, score: str) -> tuple[str, Curve, Curve]:
    logs = sorted(folder.glob("vdlrecords.*.log"))
    if not logs:
        raise UserError(f"{folder} holds neither {METRICS} nor a VisualDL log; give the save_dir of a run")
    curves: list[Curve] = [{}, {}]
    for log in logs:
        scalars = read_scalars(log)
        for curve, tag in zip(curves, ("Train/loss", f"Evaluate/{score}"), strict=True):
            curve.update(scalars.get(tag, {}))
    if not curves[1]:
        raise UserError(f"the VisualDL logs in {folder} hold no {score}; train with --do_eval")
    return score, *curves


def draw(curves: dict[str, tuple[Curve, Curve]], score: str, path: str) -> None:
    """Draw two panels: training loss, and the score on the validation data."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    styles = [dict(linestyle=line, linewidth=width) for line, width in (("-", 3.5), ("--", 1.6), ("-", 1.6), (":", 2))]
    for number, panel in enumerate(panels):
        for (name, run), style in zip(curves.items(), styles * len(curves), strict=False):
            if run[number]:
                steps, values = zip(*sorted(run[number].items()), strict=True)
                panel.plot(steps, values, label=name, marker="o" if number else None, markersize=4, **style)
        panel.set(xlabel="iteration", ylabel=["training loss", f"{score} (validation)"][number])
        panel.grid(alpha=0.3)
    panels[1].legend()
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "--runs", nargs="+", type=file_or_folder, required=True, metavar="NAME=FOLDER", help="in the legend's order"
    )
    parser.add_argument("--score", help="name of the score to draw; by default the first one that the runs have")
    parser.add_argument("--output", type=output_file, default="output/runs.png", help="the image")
    arguments = parser.parse_args()
    curves, score = {}, arguments.score
    for run in arguments.runs:
        name, equals, folder = run.partition("=")
        if not equals:
            raise FlagError(f"--runs takes NAME=FOLDER, got {run!r}")
        score, *curves[name] = read_run(pathlib.Path(folder), score)
    draw(curves, score, arguments.output)
    iterations = sorted({iteration for _, scores in curves.values() for iteration in scores})
    print("| iteration | " + " | ".join(curves) + " |\n|---|" + "---|" * len(curves))
    for iteration in iterations:
        cells = (f"{scores[iteration]:.4f}" if iteration in scores else "" for _, scores in curves.values())
        print(f"| {iteration} | " + " | ".join(cells) + " |")
