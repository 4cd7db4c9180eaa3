"""What a person looks at first: images with their labels on one sheet, and a chart of the classes."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from paddle_rt.analysis.files import PairFacts
from paddle_rt.analysis.report import Report
from paddle_rt.errors import UserError
from paddle_rt.files import whole_file
from paddle_rt.imaging import overlay, palette, read_image, write_image
from paddle_rt.imaging.charts import contact_sheet
from paddle_rt.imaging.label_format import LabelFormat

SHEET, CHART = "contact_sheet.png", "classes.png"
_TILES, _COLUMNS = 24, 3  # images on the sheet, and beside each other
_HEADS = ("image", "labels")
_MOST_BARS = 60  # classes in the chart
_LEAST = 0.01  # % of the pixels at which the bars begin


def draw_report(report: Report, folder: str | os.PathLike[str], colours: Sequence[Sequence[int]] = ()) -> None:
    """Write the contact sheet and the chart of the classes.

    Args:
        report: What was found.
        folder: The folder to write into.
        colours: RGB colours of the classes; none for those of the masks, or of Pascal VOC.

    Raises:
        OSError: The folder cannot be written.
    """
    labels, given = report.labels, report.labels.class_colours()
    default = palette("", labels.num_classes) if given is None else given
    chosen = np.array(colours, np.uint8) if len(colours) else default
    tiles = [_tile(name, facts, labels, chosen) for name, facts in _choose(report)]
    if tiles := [tile for tile in tiles if tile is not None]:
        sheet = contact_sheet(tiles, range(len(report.class_names)), report.class_names, chosen, _COLUMNS, _HEADS)
        write_image(pathlib.Path(folder) / SHEET, sheet)
    _draw_chart(report, pathlib.Path(folder) / CHART)


def _choose(report: Report) -> list[tuple[str, PairFacts]]:
    """Choose images so that each class is seen, the rarest first, and then evenly over the data sets."""
    good = [
        (name, facts)
        for name, split in report.splits.items()
        for facts in split.facts
        if facts.size is not None and facts.size == facts.label_size
    ]
    classes = report.labels.value_classes
    shown = [{classes.get(value) for value in facts.values} for _, facts in good]
    images = {
        label: [i for i, found in enumerate(shown) if label in found] for label in range(report.labels.num_classes)
    }
    chosen: dict[int, None] = {}
    for label in sorted(images, key=lambda label: len(images[label])):
        if images[label] and not any(label in shown[i] for i in chosen):
            chosen[images[label][len(images[label]) // 2]] = None
    chosen |= dict.fromkeys(np.linspace(0, len(good) - 1, min(_TILES, len(good))).astype(int).tolist())
    return [good[i] for i in sorted(list(chosen)[:_TILES])]


def _tile(
    split: str, facts: PairFacts, labels: LabelFormat, colours: np.ndarray
) -> tuple[str, list[np.ndarray]] | None:
    """Return a caption, an image and its labels, or None where they cannot be read as classes."""
    try:
        image, classes = read_image(facts.image), labels.read(facts.label)
    except UserError:
        return None
    return f"{split}: {os.path.basename(facts.image)}", [image, overlay(image, classes, colours, 0.35)]


def _draw_chart(report: Report, path: pathlib.Path) -> None:
    """Draw the share of the pixels and of the images of each class, the most frequent classes first."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    splits = {name: split.to_json(report.class_names)["classes"] for name, split in report.splits.items()}
    first = next(iter(splits.values()))
    order = sorted(range(len(first)), key=lambda label: -first[label]["pixels"])[:_MOST_BARS]
    figure, panels = plt.subplots(1, 2, figsize=(10, 1.2 + 0.28 * len(order)), layout="constrained", sharey=True)
    height = 0.8 / len(splits)
    for panel, key, title in zip(panels, ("pixel_share", "image_share"), ("labelled pixels", "images"), strict=True):
        for number, (name, classes) in enumerate(splits.items()):
            places = [row + number * height for row in range(len(order))]
            panel.barh(places, [100 * classes[label][key] for label in order], height, label=name)
        panel.set(xlabel=f"% of the {title}")
        panel.grid(axis="x", alpha=0.3)
    panels[0].set(xscale="log", xlim=(_LEAST, 100))
    panels[0].xaxis.set_major_formatter("{x:g}")
    panels[0].set_yticks([row + 0.4 - height / 2 for row in range(len(order))], [report.class_names[i] for i in order])
    panels[0].invert_yaxis()
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside upper right", ncols=len(splits))
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)
