"""Images and labels in two folders, paired by their names."""

import os
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
    """

    pairs: list[list[str]]
    images: list[str]
    labels: list[str]


def pair_folders(images: str | os.PathLike[str], labels: str | os.PathLike[str]) -> FolderPairs:
    """Pair the images of a folder with the label images of another one, to any depth.

    An image and its label have the same name below their folders, but for the suffix and for one ending that all
    labels share, such as a.jpg and a_mask.png.

    Args:
        images: Folder of the images.
        labels: Folder of the labels.

    Raises:
        UserError: A folder is missing or holds no image, or two files of a folder differ in their suffix alone.
    """
    image_files, label_files = _by_stem(images), _by_stem(labels)
    ending = _common_ending(set(image_files), sorted(label_files))
    label_files = {stem.removesuffix(ending): path for stem, path in label_files.items()}
    pairs = [[path, label_files[stem]] for stem, path in image_files.items() if stem in label_files]
    return FolderPairs(
        pairs,
        [path for stem, path in image_files.items() if stem not in label_files],
        [path for stem, path in label_files.items() if stem not in image_files],
    )


def require_pairs(found: FolderPairs, images: str, labels: str) -> list[list[str]]:
    """Return the pairs of two folders.

    Raises:
        UserError: An image has no label, or a label no image.
    """
    sides = ((found.images, "image", "a label", labels), (found.labels, "label", "an image", images))
    for alone, kind, lacks, folder in sides:
        if alone:
            number = f"{len(alone)} {kind}{'s' * (len(alone) > 1)}"
            raise UserError(f"{number} without {lacks} of the same name in {folder}, such as {alone[0]}")
    return found.pairs


def _by_stem(folder: str | os.PathLike[str]) -> dict[str, str]:
    if not os.path.isdir(folder):
        raise UserError(f"no folder {folder}")
    files, root = list_images(folder)
    found: dict[str, str] = {}
    for path in files:
        stem = os.path.splitext(os.path.relpath(path, root))[0]
        if stem in found:
            raise UserError(f"{found[stem]} and {path} differ in their suffix alone; remove one of them")
        found[stem] = path
    return found


def _common_ending(images: set[str], labels: list[str]) -> str:
    """Return the ending that, taken from every label, leaves the names of the most images."""
    first = next((label for label in labels if label not in images), "")
    ends = {first[length:] for length in range(1, len(first)) if first[:length] in images}
    shared = [end for end in ends if all(label.endswith(end) for label in labels)]
    return max(["", *sorted(shared)], key=lambda end: sum(label.removesuffix(end) in images for label in labels))
