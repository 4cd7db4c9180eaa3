"""Draw and tabulate training runs.

paddle-rt plot_runs --runs a=output/a b=output/b
paddle-rt plot_runs --runs scratch=output/scratch_{0,1,2} pretrained=output/pretrained_{0,1,2}

Reads metrics.jsonl of each folder or, for a run of PaddleSeg's loop, its VisualDL logs. Runs of one name, such as those
of several seeds, become one curve: their mean, with a band from the least to the largest value, at the iterations that
all of them have.
"""

import pathlib
import statistics
from collections.abc import Sequence

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


def values_of_all(curves: Sequence[Curve]) -> dict[int, list[float]]:
    """Return the values of several curves at the iterations that all of them have, in order."""
    common = sorted(set.intersection(*(set(curve) for curve in curves)))
    return {iteration: [curve[iteration] for curve in curves] for iteration in common}


def draw(runs: dict[str, tuple[dict[int, list[float]], ...]], score: str, path: str) -> None:
    """Draw two panels: training loss, and the score on the validation data.

    Args:
        runs: By name: `values_of_all` of the losses and of the scores.
        score: Name of the score.
        path: The image.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    styles = [dict(linestyle=line, linewidth=width) for line, width in (("-", 3.5), ("--", 1.6), ("-", 1.6), (":", 2))]
    for number, panel in enumerate(panels):
        for (name, run), style in zip(runs.items(), styles * len(runs), strict=False):
            if run[number]:
                steps, values = zip(*run[number].items(), strict=True)
                means = [statistics.fmean(row) for row in values]
                (line,) = panel.plot(steps, means, label=name, marker="o" if number else None, markersize=4, **style)
                if len(values[0]) > 1:
                    edges = ([edge(row) for row in values] for edge in (min, max))
                    panel.fill_between(steps, *edges, color=line.get_color(), alpha=0.2, linewidth=0)
        panel.set(xlabel="iteration", ylabel=["training loss", f"{score} (validation)"][number])
        panel.grid(alpha=0.3)
    panels[1].legend()
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "--runs",
        nargs="+",
        type=file_or_folder,
        required=True,
        metavar="NAME=FOLDER",
        help="in the legend's order; a name that is given again adds a run to its curve",
    )
    parser.add_argument("--score", help="name of the score to draw; by default the first one that the runs have")
    parser.add_argument("--output", type=output_file, default="output/runs.png", help="the image")
    arguments = parser.parse_args()
    curves: dict[str, list[tuple[Curve, Curve]]] = {}
    score = arguments.score
    for run in arguments.runs:
        name, equals, folder = run.partition("=")
        if not equals:
            raise FlagError(f"--runs takes NAME=FOLDER, got {run!r}")
        score, losses, scores = read_run(pathlib.Path(folder), score)
        curves.setdefault(name, []).append((losses, scores))
    runs = {name: tuple(map(values_of_all, zip(*found, strict=True))) for name, found in curves.items()}
    for name, (_, scores) in runs.items():
        if not scores:
            raise UserError(f"the {len(curves[name])} runs of {name!r} have no {score} at a common iteration")
    draw(runs, score, arguments.output)
    iterations = sorted({iteration for _, scores in runs.values() for iteration in scores})
    print("| iteration | " + " | ".join(runs) + " |\n|---|" + "---|" * len(runs))
    for iteration in iterations:
        cells = (_cell(scores.get(iteration, [])) for _, scores in runs.values())
        print(f"| {iteration} | " + " | ".join(cells) + " |")


def _cell(values: Sequence[float]) -> str:
    """Return the mean of the values, and if there are several, the least and the largest."""
    if not values:
        return ""
    spread = f" ({min(values):.4f} to {max(values):.4f})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{spread}"
