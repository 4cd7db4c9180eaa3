"""Which image goes into which split: by the source, by lists, or by shares; what belongs together stays together."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paddle_rt.errors import UserError, shown
from paddle_rt.imaging.lists import read_lines

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class SplitRule:
    """How images are divided where their source does not say it.

    Args:
        shares: The share of the images of each split.
        lists: Files that name the images of each split; they take the place of the shares.
        group: Regular expression that is looked for in the name of an image. Images with the same match, or the same
            first group in brackets, stay together.
        seed: Of the random order in which shares are filled.

    Raises:
        UserError: The shares do not add up to 1, or the expression is not valid.
    """

    shares: Sequence[float] = (0.8, 0.2)
    lists: Sequence[str] = ()
    group: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= len(self.shares) <= 3 or min(self.shares) <= 0 or abs(sum(self.shares) - 1) > 1e-6:
            shares = " ".join(f"{share:g}" for share in self.shares)
            raise UserError(f"--split takes two or three shares that add up to 1, such as 0.8 0.2, got {shares}")
        if len(self.lists) > len(SPLITS):
            raise UserError(f"--lists takes files for {', '.join(SPLITS)}, got {len(self.lists)} files")
        try:
            re.compile(self.group or "")
        except re.error as error:
            raise UserError(f"--group is no regular expression ({error}): {shown(self.group)}") from error


def group_keys(names: Sequence[str], pattern: str) -> list[str]:
    """Return what a regular expression finds in each name.

    Raises:
        UserError: It is not found in a name.
    """
    found = [re.search(pattern, name) for name in names]
    lost = [name for name, match in zip(names, found, strict=True) if match is None]
    if lost:
        raise UserError(f"--group {shown(pattern)} finds nothing in {len(lost)} names of images, such as {lost[0]}")
    return [match[1] if match.re.groups and match[1] is not None else match[0] for match in found]


def by_lists(names: Sequence[str], lists: Sequence[str]) -> list[str | None]:
    """Return the split of each image by lists; None for images that no list names.

    A line of a list is the name of an image with or without folders and suffix; what follows behind a blank is ignored.

    Args:
        names: Names of the images with their folders, without suffix.
        lists: A file for each split, in the order of `SPLITS`.

    Raises:
        UserError: A list cannot be read, a line names no image or several, or two lists name one image.
    """
    places: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        for key in {name, os.path.basename(name)}:
            places.setdefault(key, []).append(index)
    result: list[str | None] = [None] * len(names)
    for split, path in zip(SPLITS, lists, strict=False):
        for number, line in read_lines(path):
            index = _place(line, places, f"{path}, line {number}")
            if result[index] not in (None, split):
                raise UserError(f"{path}, line {number}: {names[index]} is in the list of {result[index]} too")
            result[index] = split
    return result


def _place(line: str, places: dict[str, list[int]], where: str) -> int:
    for text in (line, line.split()[0]):
        name = os.path.splitext(text.replace("\\", "/"))[0]
        for key in (text, name, os.path.basename(name)):
            found = places.get(key, [])
            if len(found) == 1:
                return found[0]
            if found:
                raise UserError(f"{where}: {shown(line)} may be any of {len(found)} images; write it with its folders")
    raise UserError(f"{where}: {shown(line)} is no image of the data")


def by_shares(groups: Sequence[int], classes: np.ndarray, rule: SplitRule) -> list[str]:
    """Divide images by shares, so that every split gets its share of every class too, where that is possible.

    Rare classes are divided first (Sechidis et al., "On the stratification of multi-label data", 2011).

    Args:
        groups: The group of each image; a group stays together.
        classes: Whether a class occurs in an image, [N, C].
        rule: The shares, and the seed of the order.

    Raises:
        UserError: There are fewer groups than splits.
    """
    keys, members = np.unique(groups, return_inverse=True)
    splits = SPLITS[: len(rule.shares)]
    if len(keys) < len(splits):
        raise UserError(
            f"there are {len(keys)} groups of images that must stay together, too few for {len(splits)} splits; add "
            "images, or divide them by --lists"
        )
    # What each group holds: images of each class, and images.
    content = np.zeros((len(keys), classes.shape[1] + 1))
    np.add.at(content, members, np.column_stack([classes, np.ones(len(members))]))
    wanted = np.outer(rule.shares, content.sum(0))  # [splits, classes + 1], what is still to come
    choice = np.full(len(keys), -1)
    order = np.random.default_rng(rule.seed).permutation(len(keys))
    order = order[np.argsort(-content[order, -1], kind="stable")]  # large groups first, while there is room for them
    for column in np.argsort(np.count_nonzero(content, 0), kind="stable"):
        for group in order[content[order, column] > 0]:
            if choice[group] < 0:
                choice[group] = max(range(len(splits)), key=lambda s: (wanted[s, column], wanted[s, -1]))
                wanted[choice[group]] -= content[group]
    for split in range(len(splits)):  # tiny data: no split stays empty
        if not (choice == split).any():
            largest = np.bincount(choice, minlength=len(splits)).argmax()
            choice[min(np.flatnonzero(choice == largest), key=lambda group: content[group, -1])] = split
    return [splits[number] for number in choice[members]]
