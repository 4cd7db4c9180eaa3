"""The images and labels of two folders for an analysis, which goes on where files are alone."""

import os

from paddle_rt.analysis.files import Pair
from paddle_rt.analysis.findings import STOPS, Finding, file_finding
from paddle_rt.imaging.folders import pair_folders


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
    what = "labels have no image of the same name"
    return pairs, file_finding(STOPS, "label_without_image", split, what, [(label, label) for label in found.labels])
