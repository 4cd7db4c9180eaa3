"""The images and labels of two folders for an analysis, which goes on where files are alone."""

import os
from collections.abc import Sequence

from paddle_rt.analysis.files import Pair
from paddle_rt.analysis.findings import STOPS, Finding, file_finding
from paddle_rt.imaging.folders import pair_folders

SPLITS = ("train", "training", "val", "valid", "validation", "test")  # folders of data sets, that to train on first


def pairs_and_findings(
    split: str, images: str | os.PathLike[str], labels: str | os.PathLike[str]
) -> tuple[list[Pair], list[Finding]]:
    """Return the pairs of two folders, with images that have no label, and what is wrong with labels that are alone.

    Args:
        split: The name of the data set.
        images: Folder of the images.
        labels: Folder of the labels.

    Raises:
        UserError: As for `pair_folders`.
    """
    found = pair_folders(images, labels)
    pairs = [*found.pairs, *((image, None) for image in found.images)]
    what = ("label has no image of the same name", "labels have no image of the same name")
    findings = file_finding(STOPS, "label_without_image", split, what, [(label, label) for label in found.labels])
    cases = [(other, f"{first} and {other}") for first, other in found.twice]
    what = "from another one in its suffix alone; remove one of them"
    return pairs, findings + file_finding(
        STOPS, "name_twice", split, (f"file differs {what}", f"files differ {what}"), cases
    )


def divide_by_folder(pairs: Sequence[Pair], images: str | os.PathLike[str]) -> dict[str, list[Pair]]:
    """Divide pairs into data sets by the folders train, val, test, ... of the images; what lies elsewhere is "data".

    Args:
        pairs: The pairs.
        images: The folder that the folders of the data sets lie in.
    """
    found: dict[str, list[Pair]] = {}
    for pair in pairs:
        first, *rest = os.path.relpath(pair[0], images).split(os.sep)
        found.setdefault(first if rest and first in SPLITS else "data", []).append(pair)
    return {name: found[name] for name in (*SPLITS, "data") if name in found}
