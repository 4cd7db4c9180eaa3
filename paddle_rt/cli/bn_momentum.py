"""Train with the release's momentum of BatchNorm and with the intended one, and draw what the scores make of it.

paddle-rt bn_momentum --configs weak=CONFIG strong=CONFIG --batch_sizes 4 16

Paddle's momentum is the share of the running statistics that stays. RTFormer's release sets 0.1, so that nine tenths of
the statistics come from the last batch. Each run ends with a second score, for which the statistics of its last weights
were computed anew as means over many batches: where that score is high and the first one is not, the weights are good
and the statistics are at fault. A run that was interrupted is resumed, and one that is finished is read.
"""

import argparse
import collections
import json
import pathlib
import statistics
from typing import Any

from paddle_rt.cli.arguments import (
    DEVICES,
    Parser,
    count,
    file_or_folder,
    import_paddle_for,
    output_folder,
    positive,
    seed,
    workers,
)
from paddle_rt.errors import FlagError, UserError
from paddle_rt.files import whole_file
from paddle_rt.kinds import flag, number
from paddle_rt.run_logs import METRICS, read_metrics

_BATCHES = 50  # from which statistics are computed anew
Row = dict[str, Any]


def main() -> None:
    arguments = parse_arguments()
    configs = dict(_pair(text) for text in arguments.configs)
    import_paddle_for(*configs.values())
    folder, rows = pathlib.Path(arguments.save_dir), []
    for name, file in configs.items():
        for batch_size in arguments.batch_sizes:
            for momentum in arguments.momenta:
                for run_seed in arguments.seeds:
                    place = folder / f"{name}_batch{batch_size}_momentum{momentum:g}_seed{run_seed}"
                    row = {"config": name, "batch_size": batch_size, "momentum": momentum, "seed": run_seed}
                    rows.append({**row, **_run(file, batch_size, momentum, run_seed, place, arguments)})
    with whole_file(folder / "bn_momentum.json") as part:
        part.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    draw(rows, folder / "bn_momentum.png")
    print(table(rows))
    print(f"rows and curves in {folder / 'bn_momentum.json'}, chart in {folder / 'bn_momentum.png'}")


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    quick = "configs/quick_start/rtformer_slim_street_objects_96x96"
    add("--configs", nargs="+", type=file_or_folder, default=[f"weak={quick}.yml", f"strong={quick}_strong.yml"],
        metavar="NAME=CONFIG", help="configs whose model takes bn_momentum")  # fmt: skip
    add("--momenta", nargs="+", type=flag(number(0, 1)), default=[0.1, 0.9], help="of every BatchNorm")
    add("--batch_sizes", nargs="+", type=count, default=[4, 16], help="images of a batch")
    add("--seeds", nargs="+", type=seed, default=[0], help="a run each")
    add("--iters", type=positive, help="iterations, in place of the config's")
    add("--save_interval", type=positive, default=100, help="iterations between scores")
    add("--num_workers", type=workers, default=0, help="processes that load images")
    add("--device", default="gpu", choices=DEVICES, help="falls back to cpu where Paddle has no other")
    add("--opts", nargs="+", help="overrides of config keys")
    add("--save_dir", type=output_folder, default="output/bn_momentum", help="folder of the runs and of the chart")
    return parser.parse_args()


def _pair(text: str) -> tuple[str, str]:
    name, equals, file = text.partition("=")
    if not equals or not name or not file:
        raise FlagError(f"--configs takes NAME=CONFIG, got {text!r}")
    return name, file


def _run(
    file: str, batch_size: int, momentum: float, run_seed: int, folder: pathlib.Path, arguments: argparse.Namespace
) -> Row:
    """Train, or go on with a run, and return its curve and its last scores."""
    from paddle_rt.config import load_config, trained_network
    from paddle_rt.training import TrainOptions, train

    opts = [*(arguments.opts or []), f"model.bn_momentum={momentum}"]
    config = load_config(file, opts, batch_size=batch_size, iters=arguments.iters)
    options = TrainOptions(
        save_dir=str(folder), device=arguments.device, do_eval=True, resume_model="auto", seed=run_seed,
        num_workers=arguments.num_workers, save_interval=arguments.save_interval, keep_checkpoint_max=1,
    )  # fmt: skip
    train(config, options)
    evaluations = [row for row in read_metrics(folder / METRICS) if row["kind"] == "eval" and row["model"] == "model"]
    if not evaluations:
        raise UserError(f"{folder / METRICS} holds no evaluation; remove the folder to train again")
    key = next(name for name in evaluations[0] if name not in ("kind", "iter", "model"))
    network = trained_network(config, str(folder / f"iter_{config.iters}"))
    anew = _score_with_new_statistics(config, network)
    curve = [[row["iter"], row[key]] for row in evaluations]
    return {"score": key, "curve": curve, "last": curve[-1][1], "with_new_statistics": anew}


def _score_with_new_statistics(config: Any, network: Any) -> float:
    import paddle

    from paddle_rt.config import build_task
    from paddle_rt.tasks.loader import Loader
    from paddle_rt.training.devices import set_seed
    from paddle_rt.training.statistics import recompute_statistics

    task = build_task(config)
    data = task.build_data("train")
    size = config.batch_size
    images = paddle.io.Subset(data, list(range(min(len(data), _BATCHES * size) // size * size)))
    set_seed(0)
    recompute_statistics(network, Loader(images, task.collate, batch_size=size))
    return task.evaluate(network, task.build_data("val")).best


def _groups(rows: list[Row]) -> dict[tuple[str, int], dict[float, list[Row]]]:
    """Return the rows by config and batch size, and in these by momentum."""
    groups: dict[tuple[str, int], dict[float, list[Row]]] = collections.defaultdict(dict)
    for row in rows:
        groups[row["config"], row["batch_size"]].setdefault(row["momentum"], []).append(row)
    return groups


def table(rows: list[Row]) -> str:
    """Return a table in Markdown with a line for each config, batch size and momentum, means over the seeds."""
    score = rows[0]["score"]
    lines = [f"| augmentation | batch | momentum | lowest {score} of the second half | last | statistics anew |"]
    lines.append("|---|" + "---|" * 5)
    for (name, batch_size), of_momentum in _groups(rows).items():
        for momentum, runs in of_momentum.items():
            lowest = statistics.fmean(min(value for _, value in run["curve"][len(run["curve"]) // 2 :]) for run in runs)
            last, anew = (statistics.fmean(run[key] for run in runs) for key in ("last", "with_new_statistics"))
            lines.append(f"| {name} | {batch_size} | {momentum:g} | {lowest:.4f} | {last:.4f} | {anew:.4f} |")
    return "\n".join(lines)


def draw(rows: list[Row], path: pathlib.Path) -> None:
    """Draw a panel for each config and batch size: the score by iteration, with the spread of the seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    groups = _groups(rows)
    figure, panels = plt.subplots(
        1, len(groups), figsize=(3.6 * len(groups), 3.4), sharey=True, squeeze=False, layout="constrained"
    )
    for panel, ((name, batch_size), of_momentum) in zip(panels[0], groups.items(), strict=True):
        for position, (momentum, runs) in enumerate(of_momentum.items()):
            colour, steps = f"C{position}", [step for step, _ in runs[0]["curve"]]
            values = [[value for _, value in run["curve"]] for run in runs]
            columns = list(zip(*values, strict=True))
            label = f"momentum {momentum:g}"
            panel.plot(steps, [statistics.fmean(column) for column in columns], color=colour, marker="o", label=label)
            panel.fill_between(steps, *([edge(c) for c in columns] for edge in (min, max)), color=colour, alpha=0.2)
            anew = statistics.fmean(run["with_new_statistics"] for run in runs)
            panel.plot(steps[-1], anew, color=colour, marker="*", markersize=12, linestyle="", markeredgecolor="black")
        panel.set(title=f"{name}, batch {batch_size}", xlabel="iteration", ylim=(0, 1))
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel(f"{rows[0]['score']} (validation); star: statistics anew")
    panels[0][-1].legend()
    with whole_file(path) as part:
        figure.savefig(part, dpi=110, format="png")
