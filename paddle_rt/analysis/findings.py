"""What is wrong with a data set, in the order in which one acts on it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

# A finding stops training, makes it learn or score nonsense, or is advice.
STOPS, NONSENSE, ADVICE = "stops training", "learns nonsense", "advice"
LEVELS = (STOPS, NONSENSE, ADVICE)
MOST_FILES = 10  # values or names in a message, and files in a finding
_RARE = 0.001  # share of the pixels
_MUCH = 0.5


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Args:
        level: STOPS, NONSENSE or ADVICE.
        code: A name for programs, such as "unknown_values".
        split: The data set that it is about, "" for all of them.
        message: One line: what was found, and what to do.
        count: How many files, values or classes it is about.
        files: The first of the files.
        details: What is wrong with each of these files.
        fix: Keys for the data sets of a config that repair it, such as {"label_map": {0: 0, 255: 1}}.
    """

    level: str
    code: str
    split: str
    message: str
    count: int = 1
    files: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    fix: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the finding as report.json has it."""
        values = asdict(self)
        if "label_map" in self.fix:  # JSON's keys are texts
            values["fix"] = {**self.fix, "label_map": [list(pair) for pair in self.fix["label_map"].items()]}
        return values


@dataclass
class ClassCounts:
    """The labels of a data set, counted by class.

    Args:
        pixels: Number of pixels of each class and of the ignored label.
        images: Number of labels in which each occurs.
        number: How many labels were looked at.
        total: How many there are.
        num_classes: The classes are 0 to `num_classes` - 1.
        ignore_index: The label of pixels that do not count.
        around: Number of labelled pixels, of any class, in the labels in which each class occurs.
    """

    pixels: Counter[int]
    images: Counter[int]
    number: int
    total: int
    num_classes: int
    ignore_index: int
    around: Counter[int] = field(default_factory=Counter)

    @property
    def classes(self) -> set[int]:
        """The classes that occur."""
        return {value for value, count in self.pixels.items() if count and value != self.ignore_index}

    @property
    def ignored_share(self) -> float:
        """The share of the pixels that do not count."""
        return self.pixels[self.ignore_index] / max(self.pixels.total(), 1)

    def add(self, pixels: Mapping[int, int]) -> None:
        """Count another label, of which the pixels of each class are given."""
        self.pixels.update(pixels)
        present = [label for label, count in pixels.items() if count]
        self.images.update(present)
        labelled = sum(count for label, count in pixels.items() if label != self.ignore_index)
        self.around.update(dict.fromkeys(present, labelled))
        self.number += 1


def class_findings(split: str, counts: ClassCounts, names: Sequence[str], is_training: bool) -> list[Finding]:
    """Look for labels from which nothing, or little, can be learned.

    Args:
        split: The data set.
        counts: Its labels.
        names: Names of the classes.
        is_training: Whether it is the data set to train on.
    """
    looked_at = f"{split}: {counts.number} of {counted(counts.total, 'label was', 'labels were')} looked at"
    ignored = counts.ignore_index
    found, known = [], dict(enumerate(names))
    if not counts.pixels.total():
        return []
    if not counts.classes:
        message = f"{looked_at}, and every pixel is {ignored}, which is ignored"
        found.append(Finding(NONSENSE, "nothing_labelled", split, message))
    elif counts.classes == {0} and counts.num_classes > 1 and counts.pixels[ignored]:
        message = (
            f"{looked_at}, and no label holds class 1: the labels hold 0 and {ignored}, and {ignored} is ignored. Are "
            f"these masks of 0 and {ignored}? Give the data sets label_map: {{0: 0, {ignored}: 1}}"
        )
        fix = {"label_map": {0: 0, ignored: 1}}
        found.append(Finding(NONSENSE, "binary_masks", split, message, fix=fix))
    elif len(counts.classes) == 1 and counts.num_classes > 1 and is_training:
        (only,) = counts.classes
        message = f"{looked_at}, and every labelled pixel is {known.get(only, only)}: there is nothing to tell apart"
        found.append(Finding(NONSENSE, "one_class", split, message))
    if ignored in known:
        message = f"{split}.ignore_index is {ignored}: {known.pop(ignored)} is neither trained nor scored"
        found.append(Finding(ADVICE, "class_ignored", split, message))
    missing = [name for number, name in known.items() if number not in counts.classes]
    if missing and is_training and not any(finding.level == NONSENSE for finding in found):
        message = f"{looked_at}, and none holds {listed(missing)}"
        found.append(Finding(ADVICE, "class_absent", split, message, len(missing)))
    return found + _share_findings(split, counts, known, is_training)


def _share_findings(split: str, counts: ClassCounts, known: Mapping[int, str], is_training: bool) -> list[Finding]:
    """Look for classes of few pixels, and for labels that ignore most of them."""
    labelled = counts.pixels.total() - counts.pixels[counts.ignore_index]
    found = []
    if _MUCH < counts.ignored_share < 1:
        message = f"{split}: {100 * counts.ignored_share:.0f} % of the pixels are not labelled"
        found.append(Finding(ADVICE, "much_ignored", split, message))
    rare = [name for label, name in known.items() if 0 < counts.pixels[label] < _RARE * labelled]
    if rare and is_training:
        message = (
            f"{split}: less than {100 * _RARE:g} % of the labelled pixels are {listed(rare)}; weigh the classes in the "
            "loss, or sample their images more often"
        )
        found.append(Finding(ADVICE, "class_rare", split, message, len(rare)))
    return found


def split_findings(counts: Mapping[str, ClassCounts], names: Sequence[str]) -> list[Finding]:
    """Look for classes that occur in one data set alone; the first data set is the one to train on."""
    (train, first), *others = counts.items()
    found = []
    for split, other in others:
        for have, lack, classes in ((split, train, other.classes - first.classes),
                                    (train, split, first.classes - other.classes)):  # fmt: skip
            if classes and first.number and other.number:
                which = listed([names[label] for label in sorted(classes)])
                cannot = "cannot be learned" if lack == train else f"cannot be scored on {split}"
                message = f"in {have} but not in {lack}, so that it {cannot}: {which}"
                found.append(Finding(ADVICE, "class_in_one_split", have, message, len(classes)))
    return found


def file_finding(
    level: str,
    code: str,
    split: str,
    what: tuple[str, str],
    cases: Sequence[tuple[str, str]],
    fix: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """Return a finding about files, or none where there are none.

    Args:
        level: As for `Finding`.
        code: As for `Finding`.
        split: The data set.
        what: What is wrong with one file, and with several, as `counted` takes it.
        cases: Each file, and what is said of it; the message has that of the first.
        fix: As for `Finding`.
    """
    if not cases:
        return []
    files, details = map(list, zip(*cases[:MOST_FILES], strict=True))
    message = f"{split}: {counted(len(cases), *what)}: {details[0]}"
    return [Finding(level, code, split, message, len(cases), files, details, dict(fix or {}))]


def counted(number: int, one: str, several: str) -> str:
    """Return a number and what it counts, such as "1 image is" or "2 images are"."""
    return f"{number} {one if number == 1 else several}"


def listed(values: Sequence[object]) -> str:
    """Return the first values, and how many more there are."""
    more = f" and {len(values) - MOST_FILES} more" if len(values) > MOST_FILES else ""
    return ", ".join(map(str, values[:MOST_FILES])) + more
