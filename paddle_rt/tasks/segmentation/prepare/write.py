"""Writes a prepared data set: images, labels, lists and the names of the classes, whole or not at all."""

import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from paddle_rt.analysis.findings import counted
from paddle_rt.errors import UserError
from paddle_rt.files import output_names
from paddle_rt.imaging.duplicates import find_duplicates, thumbnail
from paddle_rt.imaging.labels import count_values, write_label
from paddle_rt.imaging.palettes import palette
from paddle_rt.imaging.read_write import PNG_SIGNATURE, read_image
from paddle_rt.parallel import map_on_all_cores
from paddle_rt.tasks.segmentation.prepare.samples import IGNORED, Sample, Source
from paddle_rt.tasks.segmentation.prepare.splits import SPLITS, SplitRule, by_lists, by_shares, group_keys

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """What was written.

    Args:
        splits: Number of images of each split.
        pixels: Number of pixels.
        overlap: Number of pixels that shapes of different classes share.
    """

    splits: dict[str, int]
    pixels: int
    overlap: int


class _Job(NamedTuple):
    """An image to write: its sample and its name in the new data set, without suffix."""

    sample: Sample
    name: str


class _Done(NamedTuple):
    """An image that was written: its name, and what its labels and its thumbnail are."""

    image: str
    pixels: np.ndarray
    overlap: int
    without_area: int
    thumbnail: np.ndarray


def prepare(source: Source, output: str | os.PathLike, rule: SplitRule) -> Report:
    """Write images/, labels/, train.txt, val.txt, test.txt where there is such a split, and labels.txt.

    Args:
        source: What a reader found.
        output: The folder to make; it must not hold anything yet.
        rule: How the images are divided where the source does not say it.

    Raises:
        UserError: The output is not a new folder, an image or its annotations are wrong, or it cannot be divided.
    """
    for note in source.notes:
        _log.warning(note)
    _check_once(source.samples)
    jobs = [_Job(*pair) for pair in zip(source.samples, _names(source), strict=True)]
    keys = group_keys([job.name for job in jobs], rule.group) if rule.group else None
    with new_folder(output) as part:
        colours = palette("", len(source.names)) if source.colours is None else np.array(source.colours, np.uint8)
        done = list(map_on_all_cores(partial(_write, part, colours), jobs, "write images and labels", "image"))
        chosen = _divide(jobs, done, keys, rule)
        lines: dict[str, list[str]] = {split: [] for split in SPLITS}
        for job, one, split in zip(jobs, done, chosen, strict=True):
            if split is None:  # no list names it
                (part / "images" / one.image).unlink()
                (part / "labels" / f"{job.name}.png").unlink()
            else:
                lines[split].append(f"images/{one.image} labels/{job.name}.png\n")
        for split in SPLITS:
            if lines[split]:
                (part / f"{split}.txt").write_text("".join(lines[split]), encoding="utf-8")
        (part / "labels.txt").write_text("".join(f"{name}\n" for name in source.names), encoding="utf-8")
    without_area = sum(one.without_area for one in done)
    if without_area:
        _log.warning("shapes that were left out, since they cover no pixel: %d", without_area)
    pixels = sum(int(one.pixels.sum()) for one in done)
    return Report({split: len(text) for split, text in lines.items() if text}, pixels, sum(one.overlap for one in done))


def check_new(target: str | os.PathLike) -> None:
    """Raise unless a folder does not exist yet or is empty.

    Raises:
        UserError: It is not so.
    """
    target = Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"output {target} exists and is not an empty folder; name a new one")


@contextmanager
def new_folder(target: str | os.PathLike) -> Iterator[Path]:
    """Yield a folder beside `target` that becomes `target` when the block ends without an error, and is gone otherwise.

    Raises:
        UserError: The target exists and is not an empty folder.
    """
    check_new(target)
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield part
        part.chmod(0o755)  # mkdtemp keeps others out
        os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check_once(samples: Sequence[Sample]) -> None:
    """Raise if an image is annotated twice in a split, of which one would contradict the other."""
    counts = Counter((os.path.realpath(sample.image), sample.split) for sample in samples)
    twice = sorted(image for (image, _), count in counts.items() if count > 1)
    if twice:
        raise UserError(
            f"{counted(len(twice), 'image is', 'images are')} annotated more than once, such as {twice[0]}; keep one "
            "file or entry for each image"
        )


def _names(source: Source) -> list[str]:
    """Return a name for each image; blanks, which PaddleSeg's lists cannot hold, become underscores."""
    names: dict[str, None] = {}
    for path in output_names([sample.image for sample in source.samples], source.root):
        name = "_".join(path.as_posix().split())
        while name in names:
            name += "_"
        names[name] = None
    return list(names)


def _write(part: Path, colours: np.ndarray, job: _Job) -> _Done:
    sample = job.sample
    if sample.embedded is None:
        pixels = read_image(sample.image)
        suffix = os.path.splitext(sample.image)[1].lower()
    else:
        data = sample.embedded()
        suffix = ".png" if data.startswith(PNG_SIGNATURE) else ".jpg"
    name = f"{job.name}{suffix}"
    target = part / "images" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if sample.embedded is None:
        shutil.copyfile(sample.image, target)
    else:
        target.write_bytes(data)
        try:
            pixels = read_image(target)
        except UserError as error:
            reason = str(error).replace(str(target), "it")
            raise UserError(f"the image that {sample.image} holds cannot be used: {reason}") from error
    labels, overlap, without_area = sample.draw(pixels.shape[:2])
    write_label(part / "labels" / f"{job.name}.png", labels, colours)
    return _Done(name, count_values(labels), overlap, without_area, thumbnail(pixels))


def _divide(jobs: Sequence[_Job], done: Sequence[_Done], keys: list[str] | None, rule: SplitRule) -> list[str | None]:
    """Return the split of each image."""
    copies = find_duplicates([one.thumbnail for one in done])
    number = int(np.count_nonzero(copies != np.arange(len(copies))))
    if number:
        _log.info("images that are copies of others, re-encoded or of another size: %d", number)
    chosen = [job.sample.split for job in jobs]
    if rule.lists:
        chosen = by_lists([job.name for job in jobs], rule.lists)
    elif None in chosen:
        classes = np.array([one.pixels[:IGNORED] > 0 for one in done])
        return by_shares(_together(copies, keys or []), classes, rule)
    _warn_of_leaks(jobs, copies, chosen)
    return chosen


def _together(copies: np.ndarray, keys: Sequence[str]) -> np.ndarray:
    """Return a group for each image: copies and images with one key stay together, and so do those whom they link."""
    groups = copies.copy()
    if len(keys):
        _, number = np.unique(np.array(keys, object).astype(str), return_inverse=True)
        while True:  # the smallest index of a group spreads over its keys and its copies in turn
            before = groups.copy()
            for labels in (number, copies):
                smallest = np.full(labels.max() + 1, len(groups))
                np.minimum.at(smallest, labels, groups)
                groups = smallest[labels]
            if (groups == before).all():
                break
    return groups


def _warn_of_leaks(jobs: Sequence[_Job], copies: np.ndarray, chosen: Sequence[str | None]) -> None:
    leaks = [index for index, first in enumerate(copies.tolist())
             if None not in (chosen[index], chosen[first]) and chosen[index] != chosen[first]]  # fmt: skip
    if leaks:
        one, other = leaks[0], int(copies[leaks[0]])
        _log.warning(
            "images that are copies of an image in another split, so that scores say little: %d, such as %s (%s), "
            "which is %s (%s)",
            len(leaks), jobs[one].name, chosen[one], jobs[other].name, chosen[other],
        )  # fmt: skip
    counts = Counter(chosen)
    if counts[None]:
        _log.warning("images that no list names, which are left out: %d", counts[None])
    for split in ("train", "val"):
        if not counts[split]:
            raise UserError(f"there are no images in the split {split}")
