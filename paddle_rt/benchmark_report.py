"""A benchmark's rows as a table, a page and a chart."""

import pathlib
from collections.abc import Sequence
from typing import Any

from paddle_rt.files import whole_file

_COLUMNS = (
    ("model", "model", "{}"), ("pipeline", "pipeline", "{}"), ("backend", "backend", "{}"),
    ("precision", "precision", "{}"), ("end to end ms", "end_to_end_ms", "{:.1f}"), ("p90 ms", "p90_ms", "{:.1f}"),
    ("preprocess", "preprocess_ms", "{:.1f}"), ("network", "network_ms", "{:.1f}"), ("labels", "labels_ms", "{:.1f}"),
    ("fps", "fps", "{:.1f}"), ("speed-up", "speedup", "{:.2f}"), ("same labels", "label_agreement", "{:.4%}"),
    ("of floor", "share_of_floor", "{:.0%}"), ("peak MB", "peak_rss_mb", "{:.0f}"),
)  # fmt: skip


def cells(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The table's head and its lines as text; what is not known is a dash."""
    lines = [[title for title, _, _ in _COLUMNS]]
    for row in rows:
        lines.append([form.format(row[key]) if row[key] is not None else "-" for _, key, form in _COLUMNS])
    return lines


def text_table(rows: Sequence[dict[str, Any]]) -> str:
    """Aligned columns for a terminal."""
    lines = cells(rows)
    widths = [max(len(line[i]) for line in lines) for i in range(len(_COLUMNS))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)


def markdown_table(rows: Sequence[dict[str, Any]]) -> str:
    """The same table in Markdown."""
    head, *body = ["| " + " | ".join(line) + " |" for line in cells(rows)]
    return "\n".join([head, "|" + " --- |" * len(_COLUMNS), *body])


def draw(rows: Sequence[dict[str, Any]], path: pathlib.Path) -> None:
    """A bar for each row, its stages side by side, models in panels."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    models = list(dict.fromkeys(row["model"] for row in rows))
    height = 1 + 0.35 * max(sum(row["model"] == model for row in rows) for model in models)
    figure, panels = plt.subplots(1, len(models), figsize=(6 * len(models), height), layout="constrained",
                                  squeeze=False)  # fmt: skip
    for panel, model in zip(panels[0], models, strict=True):
        chosen = [row for row in rows if row["model"] == model][::-1]
        names = ["PaddleSeg" if r["pipeline"] == "paddleseg" else f"{r['backend']} {r['precision']}" for r in chosen]
        left = [0.0] * len(chosen)
        for stage, colour in (("preprocess", "#e69f00"), ("network", "#0072b2"), ("labels", "#009e73")):
            widths = [row[f"{stage}_ms"] for row in chosen]
            panel.barh(names, widths, left=left, color=colour, label=stage)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        for place, (row, end) in enumerate(zip(chosen, left, strict=True)):
            panel.text(end, place, f" {row['speedup']:.2f}x", va="center")
        panel.set(title=f"{model}, {row['size'][0]}x{row['size'][1]}", xlabel="ms a frame", xlim=(0, 1.15 * max(left)))
    panels[0][0].legend(loc="lower right")
    with whole_file(path) as part:
        figure.savefig(part, dpi=110, format="png")
    plt.close(figure)
