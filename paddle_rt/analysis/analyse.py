"""The analysis of data sets of image files with a label file each."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from paddle_rt.analysis.files import Pair, PairFacts, look_at
from paddle_rt.analysis.findings import (
    ADVICE,
    MOST_FILES,
    NONSENSE,
    STOPS,
    ClassCounts,
    Finding,
    class_findings,
    counted,
    file_finding,
    listed,
    split_findings,
)
from paddle_rt.analysis.guess import IGNORED, guess_format
from paddle_rt.analysis.report import Report, SplitReport, sort_findings
from paddle_rt.imaging.duplicates import find_duplicates
from paddle_rt.imaging.label_format import LabelFormat, colour_of

MOST_CROP = (512, 1024)  # height and width, PaddleSeg's for Cityscapes
_SIDE = 32  # of which the sides of a crop are multiples


def analyse(
    splits: Mapping[str, Sequence[Pair]],
    labels: LabelFormat | Mapping[str, LabelFormat] | None = None,
    *,
    channels: int = 3,
    class_names: Sequence[str] = (),
    known: Sequence[Finding] = (),
    num_workers: int | None = None,
) -> Report:
    """Read all images and labels of data sets, and tell what is in them and what is wrong with them.

    Args:
        splits: (image, label) files of each data set by its name. The first data set is the one to train on.
        labels: How the files stand for classes, for all data sets or by their names; None to guess it from what they
            hold.
        channels: As what the images are read: 3, 1 or 4.
        class_names: A name for each class; none for their numbers.
        known: Findings of the caller, such as images without a label.
        num_workers: Processes that read files; None for one a core.

    Raises:
        InternalError: A process was ended from outside.
    """
    formats = labels if isinstance(labels, Mapping) else dict.fromkeys(splits, labels)
    facts = {
        name: look_at(pairs, channels, bool(formats[name] and formats[name].palette), num_workers, f"read {name}")
        for name, pairs in splits.items()
    }
    first, *_ = formats.values()
    guess = guess_format([one for part in facts.values() for one in part], first)
    first = first or guess.labels
    names = list(class_names) or [f"class {label}" for label in range(first.num_classes)]
    reports = {name: _count(part, formats[name] or first) for name, part in facts.items()}
    findings = [*known, *guess.findings]
    for number, (name, report) in enumerate(reports.items()):
        findings += _file_findings(name, report, guess.fix)
        of_classes = class_findings(name, report.counts, names, number == 0)
        said = {finding.code for finding in guess.findings}  # such as masks of 0 and 255, for which it knows better
        findings += [finding for finding in of_classes if finding.code not in said]
    findings += split_findings({name: report.counts for name, report in reports.items()}, names)
    findings += _duplicate_findings(facts)
    train, *_ = reports.values()
    mean, std = _mean_and_deviation(train.facts, channels)
    numbers = (mean, std, class_weights(train.counts), choose_crop(train.sizes))
    return Report(sort_findings(findings), reports, first, names, *numbers, guess.fix)


def _count(facts: list[PairFacts], labels: LabelFormat) -> SplitReport:
    """Count the values of the labels that are of the usual kind, and their classes."""
    read = [one for one in facts if one.label_size is not None]
    is_coloured = labels.palette is not None or (bool(read) and all(one.is_coloured for one in read))
    classes = labels.value_classes if is_coloured == (labels.palette is not None) else {}
    counts = ClassCounts(Counter(), Counter(), 0, len(facts), labels.num_classes, labels.ignore_index)
    pixels, images = Counter(), Counter()
    for one in read:
        if one.is_coloured == is_coloured:
            pixels.update(one.values)
            images.update(one.values.keys())
            found = Counter()
            for value, number in one.values.items():
                if value in classes:
                    found[classes[value]] += number
            counts.add(found)
    return SplitReport(facts, labels, counts, pixels, images, is_coloured)


def _file_findings(split: str, report: SplitReport, fix: dict) -> list[Finding]:
    facts = report.facts
    unlike = [one for one in facts if one.size and one.label_size and one.size != one.label_size]
    stops: dict[str, tuple[tuple[str, str], list[tuple[str, str]]]] = {
        "unreadable_image": (
            ("image cannot be read", "images cannot be read"),
            [(one.image, one.image_error) for one in facts if one.image_error],
        ),
        "unreadable_label": (
            ("label cannot be read", "labels cannot be read"),
            [(one.label, one.label_error) for one in facts if one.label_error],
        ),
        "sizes_differ": (
            ("label is not of the size of its image", "labels are not of the size of their images"),
            [
                (one.label, f"{one.label} is {_shown(one.label_size)}, but the image {one.image} is {_shown(one.size)}")
                for one in unlike
            ],
        ),
        "image_without_label": (
            ("image has no label", "images have no label"),
            [(one.image, one.image) for one in facts if one.label is None],
        ),
    }
    found = [finding for code, case in stops.items() for finding in file_finding(STOPS, code, split, *case)]
    found += _value_findings(split, report, fix)
    found += _binary_findings(split, report)
    lossy = [(one.label, one.label) for one in facts if one.label and one.label.lower().endswith((".jpg", ".jpeg"))]
    what = "JPEG, which keeps no exact numbers; write labels as PNG"
    found += file_finding(ADVICE, "lossy_labels", split, (f"label is {what}", f"labels are {what}"), lossy)
    damaged = [(one.image, one.said[0]) for one in facts if one.said]
    what = ("file is damaged, but can be read", "files are damaged, but can be read")
    return found + file_finding(ADVICE, "damaged_file", split, what, damaged)


def _shown(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def _value_findings(split: str, report: SplitReport, fix: dict) -> list[Finding]:
    """Look for coloured masks without a palette, and for values and colours that no class has."""
    labels, coloured = report.labels, [one.label for one in report.facts if one.is_coloured]
    found = []
    if labels.palette is None and coloured:
        advice = _palette_advice(report, fix)
        cases = [(file, f"{file}; {advice}" if file == coloured[0] else file) for file in coloured]
        what = ("label is coloured, not class numbers", "labels are coloured, not class numbers")
        found = file_finding(STOPS, "coloured_masks", split, what, cases, fix)
        if report.is_coloured:
            return found
    classes, total = labels.value_classes, max(sum(report.values.values()), 1)
    wrong = [value for value in sorted(report.values) if value not in classes]
    if not wrong:
        return found
    shares = [
        f"{colour_of(value) if report.is_coloured else value} ({100 * report.values[value] / total:.3g} % of the "
        f"pixels, {report.value_images[value]} of {counted(report.counts.number, 'label', 'labels')})"
        for value in wrong
    ]
    read = [one for one in report.facts if one.is_coloured == report.is_coloured]
    files = [one.label for one in read if not one.values.keys() <= classes.keys()]
    if report.is_coloured:
        code, what = "unknown_colours", "colours that palette does not name"
        how = "add them to palette, behind the last class where they are not labelled"
    else:
        how = f"raise num_classes ({labels.num_classes}), or name them in label_map"
        how = f"give the data sets label_map: {fix['label_map']}" if "label_map" in fix else how
        code, what = "unknown_values", "values that no class has"
    hold = counted(len(files), "label holds", "labels hold")
    message = f"{split}: {hold} {what}: {listed(shares)}, such as {files[0]}; {how}"
    return [*found, Finding(STOPS, code, split, message, len(wrong), files[:MOST_FILES], fix=fix)]


def _binary_findings(split: str, report: SplitReport) -> list[Finding]:
    """Look for masks of 0 and 255 among labels that hold classes."""
    labels, masks = report.labels, []
    if labels.is_plain and labels.ignore_index == IGNORED and report.counts.classes - {0}:
        masks = [(one.label, one.label) for one in report.facts if one.values.keys() == {0, IGNORED}]
    what = "0 and 255 alone, of which 255 is ignored; write class numbers if these are masks"
    return file_finding(ADVICE, "binary_masks", split, (f"label holds {what}", f"labels hold {what}"), masks)


def _palette_advice(report: SplitReport, fix: dict) -> str:
    if "palette" in fix:
        return f"give the data sets palette: {fix['palette']}, in the order of the classes"
    if report.is_coloured:
        return "too many colours for a palette: were the masks saved as JPEG, or with smooth edges?"
    codes = Counter()
    for one in report.facts:
        codes.update(one.values if one.is_coloured else {})
    colours = listed([colour_of(code) for code, _ in codes.most_common()])
    return f"others hold class numbers; write these in the same way; their colours (red, green, blue) are {colours}"


def _duplicate_findings(facts: Mapping[str, list[PairFacts]]) -> list[Finding]:
    """Look for images that stand in two data sets, and for those that stand in one of them twice."""
    read = [(name, one) for name, part in facts.items() for one in part if one.thumbnail is not None]
    firsts = find_duplicates([one.thumbnail for _, one in read])
    groups: dict[tuple[str, str], dict[str, str]] = {}  # by the data sets of both, the files and what is said of them
    for (name, one), first in zip(read, firsts.tolist(), strict=True):
        other, same = read[first]
        if same is not one:
            groups.setdefault((other, name), {})[one.image] = f"{same.image} and {one.image}"
    found = []
    for (other, name), cases in groups.items():
        if other == name:
            like = "the same as another one of the data set"
            what = (f"image looks {like}", f"images look {like}")
            found += file_finding(ADVICE, "images_twice", name, what, list(cases.items()))
        else:
            too = f"in {other} too, as the same file or saved again"
            what = (f"image is {too}; scores on it say little", f"images are {too}; scores on them say little")
            found += file_finding(NONSENSE, "images_in_two_splits", name, what, list(cases.items()))
    return found


def _mean_and_deviation(facts: Sequence[PairFacts], channels: int) -> tuple[list[float], list[float]]:
    """Return the mean and the standard deviation of each channel over all pixels of the images."""
    read = [one for one in facts if one.size is not None]
    if not read:
        return [0.5] * channels, [0.5] * channels
    pixels = sum(one.size[0] * one.size[1] for one in read)
    mean = np.sum([one.sums for one in read], axis=0) / pixels
    variance = np.sum([one.squares for one in read], axis=0) / pixels - mean**2
    return [round(float(value), 4) for value in mean], [round(float(value), 4) for value in np.sqrt(variance.clip(0))]


def class_weights(counts: ClassCounts) -> list[float]:
    """Return a weight for each class by median frequency; 1 for a class that does not occur.

    The frequency of a class is its share of the labelled pixels of those labels in which it occurs; a class of the
    median frequency has the weight 1.

    Source: Eigen and Fergus, "Predicting Depth, Surface Normals and Semantic Labels with a Common Multi-Scale
    Convolutional Architecture", 2015.
    """
    present = sorted(counts.classes)
    if not present:
        return [1.0] * counts.num_classes
    frequencies = {label: counts.pixels[label] / counts.around[label] for label in present}
    median = float(np.median(list(frequencies.values())))
    weights = {label: median / frequency for label, frequency in frequencies.items()}
    return [round(weights.get(label, 1.0), 4) for label in range(counts.num_classes)]


def choose_crop(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return height and width of a crop that fits into nine of ten images, multiples of 32, at most 512 x 1024."""
    if not sizes:
        return MOST_CROP
    sides = np.percentile(np.array(sizes), 10, axis=0)
    height, width = (
        max(int(min(side, most)) // _SIDE * _SIDE, _SIDE) for side, most in zip(sides, MOST_CROP, strict=True)
    )
    return height, width
