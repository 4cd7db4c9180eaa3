"""A report as lines of text."""

from typing import Any

from paddle_rt.analysis.findings import LEVELS, Finding, counted, listed
from paddle_rt.analysis.report import Report

_TITLES = dict(zip(LEVELS, ("Training would fail:", "Training would learn or score nonsense:", "Advice:"), strict=True))
_MOST_DETAILS = 5  # files of a finding; report.json has more


def report_lines(report: Report) -> list[str]:
    """Return findings, the table of classes, and the numbers from which a config is chosen."""
    lines = []
    for level, title in _TITLES.items():
        found = [finding for finding in report.findings if finding.level == level]
        lines += [title, *(line for finding in found for line in _finding(finding)), ""] if found else []
    lines += _table(report)
    for name, split in report.splits.items():
        described = split.to_json(report.class_names)
        sizes = ", ".join(f"{kind} {width}x{height}" for kind, (height, width) in described["sizes"].items())
        modes = ", ".join(f"{mode}: {count}" for mode, count in described["modes"].items())
        lines.append(f"{name}: {counted(len(split.facts), 'image', 'images')}; sizes: {sizes or 'unknown'}; {modes}")
        modes = ", ".join(f"{mode}: {count}" for mode, count in described["label_modes"].items())
        lines.append(f"{name}: labels: {modes or 'none'}; {100 * split.counts.ignored_share:.1f} % not labelled")
        values = [_value(row) for row in sorted(described["values"], key=lambda row: -row["pixel_share"])]
        lines.append(f"{name}: label values (pixels, labels, class): {listed(values) or 'none'}")
    return [
        *lines,
        f"mean: {report.mean}",
        f"std: {report.std}",
        f"class weights (median frequency): {report.class_weights}",
        f"crop_size that fits (height, width): {list(report.crop_size)}",
    ]


def _finding(finding: Finding) -> list[str]:
    """Return the message of a finding, and below it what is wrong with further files."""
    details = finding.details[1:_MOST_DETAILS]
    more = finding.count - 1 - len(details)
    lines = [f"    {detail}" for detail in details] + [f"    and {more} more"] * (more > 0)
    return [f"  {finding.message}", *(lines if details else ())]


def _value(row: dict[str, Any]) -> str:
    meaning = "unknown" if row["class"] is None else row["class"]
    return f"{row['value']} ({100 * row['pixel_share']:.3g} %, {100 * row['image_share']:.3g} %, {meaning})"


def _table(report: Report) -> list[str]:
    """Return a line for each class: its share of the labelled pixels and of the images of each data set."""
    splits = {name: split.to_json(report.class_names)["classes"] for name, split in report.splits.items()}
    width = max(len("class"), *map(len, report.class_names))
    columns = [max(len(name), len("100.000 %  100.0 %")) for name in splits]
    lines = [
        f"{'class':{width}}  "
        + "  ".join(f"{n:>{w}}" for n, w in zip(splits, columns, strict=True))
        + "  (pixels, images)"
    ]
    for label, name in enumerate(report.class_names):
        rows = [classes[label] for classes in splits.values()]
        cells = (f"{100 * row['pixel_share']:7.3f} %  {100 * row['image_share']:5.1f} %" for row in rows)
        lines.append(f"{name:{width}}  " + "  ".join(f"{c:>{w}}" for c, w in zip(cells, columns, strict=True)))
    return [*lines, ""]
