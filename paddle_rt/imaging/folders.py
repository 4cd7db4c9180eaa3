"""Images and labels in two folders, paired by their names."""

import os
from collections import Counter
from dataclasses import dataclass

from paddle_rt.errors import UserError
from paddle_rt.imaging.read_write import list_images


@dataclass(frozen=True)
class FolderPairs:
    """What two folders hold.

    Args:
        pairs: [image, label] of each image that has a label, sorted by image.
        images: Images without a label.
        labels: Labels without an image.
        twice: Two files of a folder whose names differ in their suffix alone, of which the first one counts.
    """

    pairs: list[list[str]]
    images: list[str]
    labels: list[str]
    twice: list[tuple[str, str]]


def pair_folders(images: str | os.PathLike[str], labels: str | os.PathLike[str]) -> FolderPairs:
    """Pair the images of a folder with the label images of another one, to any depth.

    An image and its label have the same name below their folders, but for the suffix and for one ending that all
    labels share, such as a.jpg and a_mask.png; a label without that ending has no image.

    Args:
        images: Folder of the images.
        labels: Folder of the labels.

    Raises:
        UserError: A folder is missing or holds no image.
    """
    twice: list[tuple[str, str]] = []
    image_files, label_files = _by_stem(images, twice), _by_stem(labels, twice)
    ending = _common_ending(set(image_files), sorted(label_files))
    others = [path for stem, path in label_files.items() if not stem.endswith(ending)]
    label_files = {stem.removesuffix(ending): path for stem, path in label_files.items() if stem.endswith(ending)}
    pairs = [[path, label_files[stem]] for stem, path in image_files.items() if stem in label_files]
    return FolderPairs(
        pairs,
        [path for stem, path in image_files.items() if stem not in label_files],
        sorted([path for stem, path in label_files.items() if stem not in image_files] + others),
        twice,
    )


def require_pairs(found: FolderPairs, images: str, labels: str) -> list[list[str]]:
    """Return the pairs of two folders.

    Raises:
        UserError: An image has no label, or a label no image, or two files of a folder differ in their suffix alone.
    """
    if found.twice:
        raise UserError(f"{' and '.join(found.twice[0])} differ in their suffix alone; remove one of them")
    sides = ((found.images, "image", "a label", labels), (found.labels, "label", "an image", images))
    for alone, kind, lacks, folder in sides:
        if alone:
            number = f"{len(alone)} {kind}{'s' * (len(alone) > 1)}"
            raise UserError(f"{number} without {lacks} of the same name in {folder}, such as {alone[0]}")
    return found.pairs


def _by_stem(folder: str | os.PathLike[str], twice: list[tuple[str, str]]) -> dict[str, str]:
    if not os.path.isdir(folder):
        raise UserError(f"no folder {folder}")
    files, root = list_images(folder)
    found: dict[str, str] = {}
    for path in files:
        stem = os.path.splitext(os.path.relpath(path, root))[0]
        if stem in found:
            twice.append((found[stem], path))
        found.setdefault(stem, path)
    return found


def _common_ending(images: set[str], labels: list[str]) -> str:
    """Return the ending that, taken from the labels that have it, leaves the names of the most images."""
    counts = Counter({"": sum(label in images for label in labels)})
    for label in labels:
        counts.update(label[length:] for length in range(1, len(label)) if label[:length] in images)
    return max(sorted(counts), key=counts.__getitem__)
