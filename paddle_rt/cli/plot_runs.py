"""Draw and tabulate runs that were trained with --use_vdl.

paddle-rt plot_runs --runs a=output/a b=output/b
"""

import pathlib

from paddle_rt.cli.arguments import Parser
from paddle_rt.errors import UserError
from paddle_rt.files import whole_file


def read_scalars(folder: str, tag: str) -> dict[int, float]:
    """One curve of a run, iteration to value, from every VisualDL log in its folder."""
    from visualdl import LogReader

    logs = sorted(pathlib.Path(folder).glob("vdlrecords.*.log"))
    if not logs:
        raise UserError(f"no VisualDL log in {folder}; train with --use_vdl")
    curve = {}
    for log in logs:
        reader = LogReader(file_path=str(log))
        if tag in reader.get_tags().get("scalar", []):
            curve.update({point.id: point.value for point in reader.get_data("scalar", tag)})
    if not curve:
        raise UserError(f"the logs in {folder} hold no {tag}; train with --do_eval")
    return curve


def draw(curves: dict[str, tuple[dict[int, float], dict[int, float]]], path: str) -> None:
    """A picture of two panels: training loss and mIoU on the validation images."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    styles = [dict(linestyle=line, linewidth=width) for line, width in (("-", 3.5), ("--", 1.6), ("-", 1.6), (":", 2))]
    for i, panel in enumerate(panels):
        for (name, curve), style in zip(curves.items(), styles * len(curves), strict=False):
            steps, values = zip(*sorted(curve[i].items()), strict=True)
            panel.plot(steps, values, label=name, marker="o" if i else None, markersize=4, **style)
        panel.set(xlabel="iteration", ylabel=["training loss", "mIoU (validation)"][i])
        panel.grid(alpha=0.3)
    panels[1].legend()
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--runs", nargs="+", required=True, metavar="NAME=FOLDER", help="in the legend's order")
    parser.add_argument("--output", default="output/runs.png", help="the picture")
    arguments = parser.parse_args()
    curves = {}
    for run in arguments.runs:
        name, equals, folder = run.partition("=")
        if not equals:
            raise UserError(f"--runs takes NAME=FOLDER, got {run!r}")
        curves[name] = (read_scalars(folder, "Train/loss"), read_scalars(folder, "Evaluate/mIoU"))
    draw(curves, arguments.output)
    iterations = sorted({i for _, scores in curves.values() for i in scores})
    print("| iteration | " + " | ".join(curves) + " |\n|---|" + "---|" * len(curves))
    for iteration in iterations:
        cells = (f"{scores[iteration]:.4f}" if iteration in scores else "" for _, scores in curves.values())
        print(f"| {iteration} | " + " | ".join(cells) + " |")
