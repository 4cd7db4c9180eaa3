"""The ablation tables of RTFormer's paper, repeated: what is trained, how it is measured, and what the paper says."""

import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from paddle_rt.benchmark.floor import count_operations
from paddle_rt.errors import UserError, unknown
from paddle_rt.files import whole_file
from paddle_rt.run_logs import METRICS, read_metrics

_CROSS_SIZE, _LOW_STRIDE = 12, 32  # of RTFormer: the default, and that of the low-resolution branch
SIZES = ((512, 512), (1024, 2048))  # of the frames whose time is measured
SCORE = "mIoU"
EQUAL_TIME = 0.02  # times that differ by less than this share count as equal
_REPEATING = (
    "\\* at the size of the training the low-resolution branch has fewer rows or columns than the cross size, which "
    "repeats cells: the score says little about it"
)
FACTS = ("Trained", "Measured")  # what is said below the tables
_MOST_SCORES = 4 * 2**30  # bytes; a graph whose attention scores need more is not run
_SAVE_INTERVAL = 250
_RUN_TOOL = "from paddle_rt.cli import main; main()"


@dataclass(frozen=True)
class Row:
    """A network of the tables.

    Args:
        name: Its name in the tables.
        tables: The tables that it belongs to.
        arguments: The arguments of RTFormer in which it differs from the default.
        paper: What the paper reports about it, as far as known.
        seeds: The seeds that it is trained with.
    """

    name: str
    tables: tuple[str, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    paper: str = ""
    seeds: tuple[int, ...] = (0,)

    def folder(self, root: pathlib.Path, seed: int) -> pathlib.Path:
        """Return the folder of a training run."""
        name = "".join(c if c.isalnum() or c in ".=" else "_" for c in self.name)
        return root / f"{name}_seed{seed}"


def _both(attention: str, **arguments: Any) -> dict[str, Any]:
    return {"low_attention": attention, "high_attention": attention, **arguments}


DEFAULT = "gfa + cross"
_ATTENTION, _FEED_FORWARD, _GROUPS, _CROSS = "attention", "feed-forward", "groups", "cross size"
# In the order in which they are trained.
ROWS = (
    Row(DEFAULT, (_ATTENTION, _FEED_FORWARD, _CROSS), {}, "the published network; best in 5a and 5b", (0, 1, 2)),
    Row("gfa + gfa, 8+2", (_ATTENTION, _GROUPS), {"high_attention": "gfa"}, "below gfa + cross, at most 2 FPS faster; "
        "best groups in 5c"),
    Row("mhsa + mhsa", (_ATTENTION,), _both("mhsa"), "32.7 on ADE20K (supplement; data set inferred); about as "
        "accurate as gfa, slower"),
    Row("mhea + mhea, r 0.25", (_ATTENTION,), _both("mhea", mhea_ratio=0.25), "below mhsa and gfa"),
    Row("mhea + mhea, r 1", (_ATTENTION,), _both("mhea", mhea_ratio=1.0), "the best mhea; below mhsa and gfa, slower "
        "than gfa"),
    Row("mlp", (_FEED_FORWARD,), {"feed_forward": "mlp"}, "below conv in mIoU and in FPS"),
    Row("gfa + gfa, 1+1", (_GROUPS,), {"high_attention": "gfa", "low_groups": 1, "high_groups": 1},
        "below 8+2, as fast"),
    Row("gfa + gfa, 8+8", (_GROUPS,), {"high_attention": "gfa", "high_groups": 8}, "not known"),
    Row("cross size 4", (_CROSS,), {"cross_size": 4}, "not known"),
    Row("cross size 8", (_CROSS,), {"cross_size": 8}, "not known; the release's for ADE20K"),
    Row("linformer + linformer", (_ATTENTION,), _both("linformer"), "in the supplement, numbers not known"),
    Row("mhea + mhea, r 0.125", (_ATTENTION,), _both("mhea", mhea_ratio=0.125), "below mhsa and gfa"),
)  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """An ordering that the paper reports.

    Args:
        text: The claim.
        better: The row that is better by it, or equal.
        worse: The other row.
        measure: "mIoU", or "ms": the time at the larger size that both have.
        equal: Whether the two are said to be about equal.
    """

    text: str
    better: str
    worse: str
    measure: str
    equal: bool = False


CLAIMS = (
    Claim("cross attention in the high branch adds accuracy", DEFAULT, "gfa + gfa, 8+2", SCORE),
    Claim("gfa is about as accurate as mhsa", "gfa + gfa, 8+2", "mhsa + mhsa", SCORE, equal=True),
    Claim("gfa is faster than mhsa", "gfa + gfa, 8+2", "mhsa + mhsa", "ms"),
    Claim("gfa is more accurate than mhea, r 0.25", "gfa + gfa, 8+2", "mhea + mhea, r 0.25", SCORE),
    Claim("gfa is more accurate than mhea, r 1", "gfa + gfa, 8+2", "mhea + mhea, r 1", SCORE),
    Claim("gfa is faster than mhea, r 1", "gfa + gfa, 8+2", "mhea + mhea, r 1", "ms"),
    Claim("mhsa is more accurate than mhea, r 0.25", "mhsa + mhsa", "mhea + mhea, r 0.25", SCORE),
    Claim("mhsa is more accurate than mhea, r 1", "mhsa + mhsa", "mhea + mhea, r 1", SCORE),
    Claim("conv is more accurate than mlp", DEFAULT, "mlp", SCORE),
    Claim("conv is faster than mlp", DEFAULT, "mlp", "ms"),
    Claim("8+2 groups are more accurate than 1+1", "gfa + gfa, 8+2", "gfa + gfa, 1+1", SCORE),
    Claim("groups do not change the speed", "gfa + gfa, 8+2", "gfa + gfa, 1+1", "ms", equal=True),
)


def find_rows(names: Sequence[str] | None) -> list[Row]:
    """Return the rows of these names, or all.

    Raises:
        UserError: A name is unknown.
    """
    known = {row.name: row for row in ROWS}
    for name in names or []:
        if name not in known:
            raise unknown("row of the ablations", name, known)
    return [row for row in ROWS if not names or row.name in names]


def read_scores(folder: pathlib.Path) -> dict[int, float]:
    """Return the scores of a run by iteration; none if it has not begun."""
    rows = read_metrics(folder / METRICS) if (folder / METRICS).is_file() else []
    evaluations = [row for row in rows if row["kind"] == "eval" and row["model"] == "model"]
    return {row["iter"]: float(row[SCORE]) for row in evaluations}


def train(row: Row, seed: int, config: str, iters: int, size: Sequence[int], root: pathlib.Path) -> float:
    """Train a row by `paddle-rt train`, go on with a run that was interrupted, or read one that is finished.

    Args:
        row: The row.
        seed: The seed of the run.
        config: The config file.
        iters: Iterations of the run.
        size: (height, width) of the config's images, which a row with linformer needs.
        root: The folder of all runs.

    Returns:
        The score after the last iteration.

    Raises:
        UserError: The run failed; its log says why.
    """
    folder = row.folder(root, seed)
    if iters not in read_scores(folder):
        folder.mkdir(parents=True, exist_ok=True)
        options = [f"model.{key}={json.dumps(value)}" for key, value in network_arguments(row, size).items()]
        command = [sys.executable, "-c", _RUN_TOOL, "train", "--config", config, "--iters", str(iters), "--do_eval",
                   "--seed", str(seed), "--save_interval", str(min(_SAVE_INTERVAL, iters)), "--log_iters", "50",
                   "--keep_checkpoint_max", "1", "--save_dir", str(folder), "--resume_model", "auto",
                   *(["--opts", *options] if options else [])]  # fmt: skip
        with open(folder / "train.log", "a", encoding="utf-8") as log:
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise UserError(f"the training of {row.name!r} ended with {done.returncode}; see {folder / 'train.log'}")
    return read_scores(folder)[iters]


def network_arguments(row: Row, size: Sequence[int]) -> dict[str, Any]:
    """Return the arguments of a row's network for images of a size; linformer needs the size."""
    fixed = {"image_size": list(size)} if "linformer" in row.arguments.values() else {}
    return {**row.arguments, **fixed}


def count_parameters(row: Row, size: Sequence[int], num_classes: int) -> float:
    """Return the million parameters of a row's network for images of a size."""
    return sum(math.prod(p.shape) for p in _network(row, size, num_classes).parameters() if not p.stop_gradient) / 1e6


def _network(row: Row, size: Sequence[int], num_classes: int) -> Any:
    import paddle

    from paddle_rt.registry import create_model

    paddle.seed(0)
    return create_model("rtformer_slim", num_classes, **network_arguments(row, size))


def measure(
    rows: Sequence[Row], size: tuple[int, int], num_classes: int, runs: int, threads: int
) -> dict[str, dict[str, Any]]:
    """Export the networks with random weights and time their graphs in OpenVINO, fp32, in turns.

    Args:
        rows: The rows; one whose attention scores need more than 4 GiB is left out.
        size: (height, width) of the frames.
        num_classes: The number of classes.
        runs: Rounds whose times count.
        threads: CPU threads.

    Returns:
        By row: "gflop"; "ms", the median time from a frame's pixels to coarse logits; and "seconds", the times by
        round. Or "left_out", the reason.
    """
    from paddle_rt.inference.engines import OpenVino

    results: dict[str, dict[str, Any]] = {}
    graphs = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, row in enumerate(rows):
            scores = largest_scores(row, size)
            if scores > _MOST_SCORES:
                results[row.name] = {"left_out": f"needs {scores / 2**30:.0f} GiB"}
                continue
            file = export_graph(_network(row, size, num_classes), size, pathlib.Path(scratch) / str(number))
            results[row.name] = {"gflop": count_operations(file).direct / 1e9}
            graphs[row.name] = OpenVino(file, threads=threads)
        frames = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
        for name, seconds in time_in_turns(graphs, frames, runs).items():
            results[name].update(ms=1e3 * statistics.median(seconds), seconds=seconds)
    return results


def largest_scores(row: Row, size: Sequence[int]) -> int:
    """Return the bytes of the attention scores of mhsa in the high-resolution branch, 8 heads of N x N; or 0."""
    positions = math.prod(-(-length // 8) for length in size)
    return 8 * positions**2 * 4 if row.arguments.get("high_attention") == "mhsa" else 0


def export_graph(network: Any, size: Sequence[int], folder: pathlib.Path) -> pathlib.Path:
    """Export a network to ONNX, checked against it, and return the file."""
    from paddle_rt.export.publish import export
    from paddle_rt.paddleseg.pipeline import TRANSFORMS
    from paddle_rt.tasks.segmentation.export import SegmentationExport

    export(network, folder, SegmentationExport(TRANSFORMS), [1, 3, *size], "coarse", ["onnx"])
    return folder / "model.onnx"


def time_in_turns(graphs: Mapping[str, Any], frames: np.ndarray, runs: int) -> dict[str, list[float]]:
    """Run every engine once a round, in random order, and return the seconds of each by round."""
    seconds: dict[str, list[float]] = {name: [] for name in graphs}
    order, names = np.random.default_rng(0), list(graphs)
    for _ in range(runs):
        for index in order.permutation(len(names)):
            graphs[names[index]].run(frames)  # brings its weights and buffers back into the caches
            start = time.perf_counter()
            graphs[names[index]].run(frames)
            seconds[names[index]].append(time.perf_counter() - start)
    return seconds


def judge(claim: Claim, results: Mapping[str, Mapping[str, Any]]) -> str:
    """Say whether an ordering of the paper shows.

    A difference between scores says nothing if it may be noise: it has to be outside Student's interval of 95 %, for
    which the deviation is that of the default's seeds.

    Args:
        claim: The ordering.
        results: By row: "scores" by seed, and "sizes", the results of `measure` by size.
    """
    rows = [results.get(name, {}) for name in (claim.better, claim.worse)]
    if claim.measure == SCORE:
        if not all(row.get("scores") for row in rows):
            return "not measured"
        better, worse = (mean_score(row) for row in rows)
        seeds = results.get(DEFAULT, {}).get("scores", {}).values()
        if len(seeds) < 2:
            return f"not judged ({better:.4f} and {worse:.4f}; the noise is not known before two seeds of {DEFAULT})"
        noise = _noise(list(seeds), [len(row["scores"]) for row in rows])
        told = f"{better:.4f} and {worse:.4f}; differences up to {noise:.4f} may be noise"
        is_equal, is_ahead = abs(better - worse) <= noise, better > worse
    else:
        timed = [{size: m["seconds"] for size, m in row.get("sizes", {}).items() if "seconds" in m} for row in rows]
        common = [size for size in timed[1] if size in timed[0]]
        if not common:
            return "not measured"
        size = common[-1]
        ratio = statistics.median(worse / better for better, worse in zip(timed[0][size], timed[1][size], strict=True))
        told = f"{ratio:.2f} times the milliseconds at {size}"
        is_equal, is_ahead = abs(ratio - 1) <= EQUAL_TIME, ratio > 1
    if is_equal:
        return f"{'shows' if claim.equal else 'within the noise'} ({told})"
    return f"{'shows' if is_ahead and not claim.equal else 'does not show'} ({told})"


def _noise(scores: Sequence[float], runs: Sequence[int]) -> float:
    """Return the difference of two means, over these numbers of runs, that scores of one network allow at 95 %."""
    student = (12.706, 4.303, 3.182, 2.776)  # two-sided quantiles by degrees of freedom, from 1
    quantile = student[min(len(scores) - 1, len(student)) - 1]
    return quantile * statistics.stdev(scores) * math.sqrt(sum(1 / number for number in runs))


def mean_score(result: Mapping[str, Any]) -> float:
    """Return the mean of a row's scores over its seeds."""
    return statistics.fmean(result["scores"].values())


def table(rows: Iterable[Row], results: Mapping[str, Mapping[str, Any]], sizes: Sequence[str]) -> str:
    """Return the tables, in Markdown, with what the paper reports in the last column."""
    head = ["network", "million parameters", *(f"GFLOP at {s}" for s in sizes), *(f"ms at {s}" for s in sizes), SCORE]
    lines = []
    for name in (_ATTENTION, _FEED_FORWARD, _GROUPS, _CROSS):
        shown = [row for row in rows if name in row.tables]
        if shown:
            lines += [f"**{name}**", "", f"| {' | '.join([*head, 'the paper (not measured here)'])} |"]
            lines.append("|" + " --- |" * (len(head) + 1))
            cells = {row.name: _cells(results.get(row.name, {}), sizes) for row in shown}
            repeating = [r.name for r in shown if name == _CROSS and results.get(r.name, {}).get("repeats_cells")]
            for row_name in repeating:
                cells[row_name][-1] += " *" if cells[row_name][-1] else ""
            lines += [f"| {' | '.join([row.name, *cells[row.name], row.paper])} |" for row in shown]
            if repeating:
                lines += ["", _REPEATING]
            lines.append("")
    return "\n".join(lines)


def repeats_cells(row: Row, size: Sequence[int]) -> bool:
    """Return whether a row's square of tokens has a longer side than the low-resolution branch, whose cells it repeats.

    Args:
        row: A row of the table of cross sizes.
        size: (height, width) of the images that it is trained with.
    """
    cross_size = row.arguments.get("cross_size", _CROSS_SIZE)
    return _CROSS in row.tables and any(cross_size > -(-length // _LOW_STRIDE) for length in size)


def _cells(result: Mapping[str, Any], sizes: Sequence[str]) -> list[str]:
    measured = [result.get("sizes", {}).get(size, {}) for size in sizes]
    scores = list(result.get("scores", {}).values())
    score = f"{mean_score(result):.4f}" if scores else ""
    if len(scores) > 1:
        score += f" ({min(scores):.4f} to {max(scores):.4f}, {len(scores)} seeds)"
    return [
        f"{result['parameters']:.2f}" if "parameters" in result else "",
        *(f"{m['gflop']:.1f}" if "gflop" in m else m.get("left_out", "") for m in measured),
        *(f"{m['ms']:.1f}" if "ms" in m else m.get("left_out", "") for m in measured),
        score,
    ]


def draw(rows: Sequence[Row], results: Mapping[str, Mapping[str, Any]], sizes: Sequence[str], path: str) -> None:
    """Draw the scores of all seeds, with the range of the default's as a band, and the times at each size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shape = dict(figsize=(4 + 3.2 * len(sizes), 1 + 0.32 * len(rows)), sharey=True, layout="constrained")
    figure, panels = plt.subplots(1, 1 + len(sizes), squeeze=False, **shape)
    by_seed, *by_size = panels[0]
    for place, row in enumerate(rows):
        result = results.get(row.name, {})
        scores = list(result.get("scores", {}).values())
        by_seed.plot(scores, [place] * len(scores), "o", color="C0")
        if row.name == DEFAULT and scores:
            by_seed.axvspan(min(scores), max(scores), color="0.88")
        for panel, size in zip(by_size, sizes, strict=True):
            panel.barh(place, result.get("sizes", {}).get(size, {}).get("ms", 0.0), color="C1")
    by_seed.set(yticks=range(len(rows)), yticklabels=[row.name for row in rows], xlabel=SCORE)
    for panel, size in zip(by_size, sizes, strict=True):
        panel.set_xlabel(f"ms at {size}, OpenVINO fp32")
    for panel in panels[0]:
        panel.grid(alpha=0.3, axis="x")
    by_seed.invert_yaxis()
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)


def read_results(file: pathlib.Path) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Read the results and facts that earlier calls have written; none if there is no file."""
    contents = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    facts = {key: value for key, value in contents.get("facts", {}).items() if key in FACTS}
    return contents.get("results", {}), facts


def write_results(root: pathlib.Path, rows: Sequence[Row], results: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Write ablations.json, ablations.md and ablations.png to a folder; return the text of the tables.

    Args:
        root: The folder.
        rows: The rows of the tables.
        results: By row: "parameters", "repeats_cells", "scores" by seed, "sizes" with the results of `measure`.
        facts: How they came about, by the names of FACTS.
    """
    sizes = ["x".join(map(str, size)) for size in SIZES]
    claims = [f"| {c.text} | {judge(c, results)} |" for c in CLAIMS]
    told = ". ".join(f"{key}: {value}" for key, value in facts.items())
    text = "\n".join(
        [table(rows, results, sizes), "| the paper's ordering | here |", "| --- | --- |", *claims, "", told, ""]
    )
    contents = json.dumps({"facts": facts, "results": results}, indent=1)
    for name, content in (("ablations.json", contents), ("ablations.md", text)):
        with whole_file(root / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    draw(rows, results, sizes, str(root / "ablations.png"))
    return text
