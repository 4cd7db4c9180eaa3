"""What `analyse` found: findings and numbers, and report.json."""

import json
import os
import pathlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from paddle_rt.analysis.files import PairFacts
from paddle_rt.analysis.findings import ADVICE, LEVELS, ClassCounts, Finding
from paddle_rt.files import whole_file
from paddle_rt.imaging.label_format import LabelFormat, colour_of

FORMAT = 1  # of report.json
REPORT = "report.json"


@dataclass
class SplitReport:
    """The numbers of one data set.

    Args:
        facts: What was found in each image and its label.
        labels: How its files stand for classes.
        counts: The labels by class.
        values: Number of pixels of each value of the labels; of coloured ones, of each colour.
        value_images: Number of labels in which each value occurs.
        is_coloured: Whether the values are colours.
    """

    facts: list[PairFacts]
    labels: LabelFormat
    counts: ClassCounts
    values: dict[int, int]
    value_images: dict[int, int]
    is_coloured: bool

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of each image that can be read."""
        return [facts.size for facts in self.facts if facts.size is not None]

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the numbers as report.json has them."""
        sizes = sorted(self.sizes, key=lambda size: size[0] * size[1])
        places = {"smallest": 0, "median": len(sizes) // 2, "largest": -1} if sizes else {}
        pixels, number = max(sum(self.values.values()), 1), max(self.counts.number, 1)
        known = self.labels.value_classes if self.is_coloured == (self.labels.palette is not None) else {}
        labelled = max(self.counts.pixels.total() - self.counts.pixels[self.labels.ignore_index], 1)
        return {
            "images": len(self.facts),
            "sizes": {name: list(sizes[place]) for name, place in places.items()},
            "modes": _counted(facts.mode for facts in self.facts),
            "label_modes": _counted(facts.label_mode for facts in self.facts if facts.label is not None),
            "values": [
                {
                    "value": list(colour_of(value)) if self.is_coloured else value,
                    "class": known.get(value),
                    "pixel_share": count / pixels,
                    "image_share": self.value_images[value] / number,
                }
                for value, count in sorted(self.values.items())
            ],
            "ignored_share": self.counts.ignored_share,
            "classes": [
                {
                    "class": label,
                    "name": name,
                    "pixels": self.counts.pixels[label],
                    "pixel_share": self.counts.pixels[label] / labelled,
                    "images": self.counts.images[label],
                    "image_share": self.counts.images[label] / number,
                }
                for label, name in enumerate(names)
            ],
        }  # fmt: skip


def _counted(words: Iterable[str]) -> dict[str, int]:
    return dict(Counter(word for word in words if word).most_common())


@dataclass
class Report:
    """What is in data sets and what is wrong with them.

    Args:
        findings: Sorted: first what stops training, then what makes it learn nonsense, then advice.
        splits: The data sets by name.
        labels: How the files stand for classes: what `analyse` was given, or else what the files suggest.
        class_names: A name for each class.
        mean: The mean of each channel of the training images, RGB from 0 to 1.
        std: The standard deviation of each channel.
        class_weights: A weight for each class by median frequency; 1 for one that does not occur.
        crop_size: Height and width of a crop for training.
        fix: Keys with which data sets of type Dataset can read these labels.
    """

    findings: list[Finding]
    splits: dict[str, SplitReport]
    labels: LabelFormat
    class_names: list[str]
    mean: list[float]
    std: list[float]
    class_weights: list[float]
    crop_size: tuple[int, int]
    fix: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether training would neither fail nor learn nonsense."""
        return all(finding.level == ADVICE for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return what report.json holds."""
        return {
            "format": FORMAT,
            "passed": self.passed,
            "findings": [finding.to_json() for finding in self.findings],
            "num_classes": self.labels.num_classes,
            "ignore_index": self.labels.ignore_index,
            "class_names": self.class_names,
            "mean": self.mean,
            "std": self.std,
            "class_weights": self.class_weights,
            "crop_size": list(self.crop_size),
            "fix": Finding(ADVICE, "", "", "", fix=self.fix).to_json()["fix"],
            "splits": {name: split.to_json(self.class_names) for name, split in self.splits.items()},
        }


def sort_findings(findings: Sequence[Finding]) -> list[Finding]:
    """Return findings in the order in which one acts on them."""
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def write_report(report: Report, folder: str | os.PathLike[str]) -> None:
    """Write report.json.

    Raises:
        OSError: The folder cannot be written.
    """
    with whole_file(pathlib.Path(folder) / REPORT) as part:
        part.write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")
