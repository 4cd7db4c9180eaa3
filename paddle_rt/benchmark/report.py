"""The rows of a benchmark as a table, a page and a chart, and the machine that they were measured on."""

import json
import pathlib
import platform
import shlex
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from paddle_rt.files import whole_file

Columns = Sequence[tuple[str, str, str]]  # title, key of a row, format
CPU_COLUMNS = (
    ("model", "model", "{}"), ("pipeline", "pipeline", "{}"), ("backend", "backend", "{}"),
    ("precision", "precision", "{}"), ("end to end ms", "end_to_end_ms", "{:.1f}"), ("p90 ms", "p90_ms", "{:.1f}"),
    ("preprocess", "preprocess_ms", "{:.1f}"), ("network", "network_ms", "{:.1f}"), ("labels", "labels_ms", "{:.1f}"),
    ("fps", "fps", "{:.1f}"), ("speed-up", "speedup", "{:.2f}"), ("same labels", "label_agreement", "{:.4%}"),
    ("of floor", "share_of_floor", "{:.0%}"),
    ("of Winograd's", "share_of_winograd_floor", "{:.0%}"),
    ("first s", "startup_s", "{:.2f}"), ("peak MB", "peak_rss_mb", "{:.0f}"),
)  # fmt: skip


_PACKAGES = ("paddlepaddle", "paddlepaddle-gpu", "paddleseg", "onnxruntime", "onnxruntime-gpu", "openvino", "MNN",
             "numpy", "numba")  # fmt: skip
_RTFORMER_FAULT = """\
  With oneDNN, PaddleSeg's RTFormer is wrong from the second frame on: its cross attention is a convolution whose
  weights are computed from the frame, and oneDNN keeps those of the first frame. Its row shows what that costs.
"""


def machine() -> dict[str, str]:
    """Return the processor, the version of Python and those of the packages that are installed."""
    cpu = platform.processor() or platform.machine()
    info = pathlib.Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    found = {"cpu": cpu, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # another name on a machine with a GPU, or a package that the run did not need
            continue
    return found


def packages(about: dict[str, str]) -> str:
    """Return the versions of packages in what `machine` returned."""
    return ", ".join(f"{name} {about[name]}" for name in _PACKAGES if name in about)


def cells(rows: Sequence[dict[str, Any]], columns: Columns) -> list[list[str]]:
    """Return the head and the lines of the table as text; a dash stands for what is not known."""
    lines = [[title for title, _, _ in columns]]
    for row in rows:
        lines.append([form.format(row[key]) if row[key] is not None else "-" for _, key, form in columns])
    return lines


def text_table(rows: Sequence[dict[str, Any]], columns: Columns = CPU_COLUMNS) -> str:
    """Return the table in aligned columns for a terminal."""
    lines = cells(rows, columns)
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)


def markdown_table(rows: Sequence[dict[str, Any]], columns: Columns = CPU_COLUMNS) -> str:
    """Return the table in Markdown."""
    head, *body = ["| " + " | ".join(line) + " |" for line in cells(rows, columns)]
    return "\n".join([head, "|" + " --- |" * len(columns), *body])


def publish(content: Any, rows: Sequence[dict[str, Any]], columns: Columns, output: str, markdown: str | None) -> str:
    """Write what was measured and, where a file is given, its table in Markdown; return what a tool prints.

    Args:
        content: What is written as JSON, the rows with or without facts around them.
        rows: The rows of the table.
        columns: Its columns.
        output: The JSON file.
        markdown: The file of the table.
    """
    with whole_file(output) as part:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if markdown:
        with whole_file(markdown) as part:
            part.write_text(markdown_table(rows, columns) + "\n", encoding="utf-8")
    return f"{text_table(rows, columns)}\nrows in {output}"


def _bar_name(row: dict[str, Any], with_model: bool) -> str:
    pipeline = "PaddleSeg" if row["pipeline"] == "paddleseg" else f"{row['backend']} {row['precision']}"
    return f"{row['model']}, {pipeline}" if with_model else pipeline


def draw(rows: Sequence[dict[str, Any]], path: pathlib.Path) -> None:
    """Draw a chart with a bar for each row, its stages side by side, and a panel for each model.

    Args:
        rows: The rows.
        path: The PNG file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    # Rows that were measured in the same rounds share a panel: one model each, or all with other networks of PaddleSeg.
    together = any(row["label_agreement"] is None for row in rows)
    titles = ["all"] if together else list(dict.fromkeys(row["model"] for row in rows))
    height = 1 + 0.35 * max(sum(together or row["model"] == title for row in rows) for title in titles)
    figure, panels = plt.subplots(1, len(titles), figsize=(8 if together else 6 * len(titles), height),
                                  layout="constrained", squeeze=False)  # fmt: skip
    for panel, title in zip(panels[0], titles, strict=True):
        chosen = [row for row in rows if together or row["model"] == title][::-1]
        names = [_bar_name(row, together) for row in chosen]
        left = [0.0] * len(chosen)
        for stage, colour in (("preprocess", "#e69f00"), ("network", "#0072b2"), ("labels", "#009e73")):
            widths = [row[f"{stage}_ms"] for row in chosen]
            panel.barh(names, widths, left=left, color=colour, label=stage)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        for place, (row, end) in enumerate(zip(chosen, left, strict=True)):
            panel.text(end, place, f" {row['speedup']:.2f}x", va="center")
        size = "{}x{}".format(*chosen[0]["size"])
        panel.set(title=size if together else f"{title}, {size}", xlabel="ms a frame", xlim=(0, 1.15 * max(left)))
    panels[0][0].legend(loc="lower right")
    with whole_file(path) as part:
        figure.savefig(part, dpi=110, format="png")
    plt.close(figure)


def page(table: str, chart: str, rows: Sequence[dict[str, Any]], command: Sequence[str]) -> str:
    """Return a page in Markdown that says how the rows were measured, with the table and the chart.

    Args:
        table: The table in Markdown.
        chart: The name of the chart's file beside the page.
        rows: The rows.
        command: The flags of the command that measured them.
    """
    row = rows[0]
    about = row["machine"]
    floors = {(r["backend"], r["precision"]): r["floor_gflop_per_s"] for r in rows if r["floor_gflop_per_s"]}
    rates = ", ".join(f"{backend} {precision} {rate:.0f}" for (backend, precision), rate in floors.items())
    work = ", ".join(dict.fromkeys(f"{r['model']} {r['gflop']:.0f}" for r in rows if r["gflop"]))
    least = ", ".join(dict.fromkeys(f"{r['model']} {r['winograd_gflop']:.0f}" for r in rows if r["gflop"]))
    theirs = {r["model"] for r in rows if r["pipeline"] == "paddleseg" and r["label_agreement"] is not None}
    truth = "PaddleSeg's graph without oneDNN" if theirs else "the model's first row here"
    notes = _RTFORMER_FAULT if any(model.startswith("rtformer") for model in theirs) else ""
    if any(r["random_weights"] for r in rows):
        notes += "  The weights are random: what bf16 and int8 change says little about trained ones.\n"
    return f"""# Benchmarks

From a decoded frame of {row["size"][0]}x{row["size"][1]} to its labels, {row["threads"]} threads of {about["cpu"]},
CPython {about["python"]}, {packages(about)}. Written by

    python tools/benchmark.py {shlex.join(command)}

{table}

![Milliseconds a frame by stage]({chart})

- Every pipeline labels the same frame in turns, {row["runs"]} rounds, each in another random order, after a pause and
  an untimed frame of its own; times are medians, speed-up the median of the ratios within a round against the first row
  that was measured with it.
- `paddleseg` is PaddleSeg's deployment: its model class, with our weights where it is the counterpart of ours, its
  transforms, an argmax graph, Paddle Inference with oneDNN, or the same graph in OpenVINO.
- `same labels` is the share of pixels that get the label of {truth}.
{notes}\
- `of floor` is the network's rate as a share of that of one matrix product of 2048x2048 by 2048x2048 in the same
  library and precision, measured just before (GFLOP/s: {rates}). The networks need, in GFLOP a frame: {work}. A dash:
  the library has no such product.
- `of Winograd's` is the same for the work that is left where every 3x3 convolution of stride 1 is Winograd's with tiles
  of 6x6, whose transforms are not counted, in GFLOP: {least}. Only an engine that computes so may pass 100 % of
  the former.
- int8 is calibrated on the frames themselves. `first s` is the time from the
  start of a process that runs this pipeline alone to its first labels, and peak MB the most that it holds.
"""
