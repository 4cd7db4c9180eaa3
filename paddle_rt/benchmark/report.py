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


def _bar_name(row: dict[str, Any], with_model: bool) -> str:
    how = "PaddleSeg" if row["pipeline"] == "paddleseg" else f"{row['backend']} {row['precision']}"
    return f"{row['model']}, {how}" if with_model else how


def draw(rows: Sequence[dict[str, Any]], path: pathlib.Path) -> None:
    """A bar for each row, its stages side by side, models in panels."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    # What was measured in the same rounds shares a panel: each model alone, or all of them beside PaddleSeg's others.
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
