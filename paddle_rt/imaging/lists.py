"""Text files that name an image on each line, alone or with its label: one reader for data sets and tools."""

import os
import re
from collections.abc import Iterator

from paddle_rt.errors import UserError
from paddle_rt.files import check_plain_file

_MAX_BYTES = 2**28
_LONGEST = 10_000  # characters of a line, which holds two paths of 4,096 bytes at most
Pair = tuple[str, str | None]


def read_pairs(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str],
    separator: str = " ",
    may_lack_labels: bool = False,
    faults: list[UserError] | None = None,
) -> list[list[str | None]]:
    """Read a list of images and their labels.

    The list is UTF-8 with or without a byte order mark, with the line ends of any system; blank lines are skipped. A
    line may contain more than one separator, such as a name with blanks, as long as there is only one way to read it
    that gives files that exist.

    Args:
        path: The list.
        root: Folder that the names are relative to.
        separator: What stands between an image and its label; a blank also stands for several blanks and tabs.
        may_lack_labels: Whether a line may name an image alone.
        faults: Takes the errors of lines that name no files, which are left out then; None to raise the first one.

    Returns:
        [image, label] of each line; the label is None where the line has none.

    Raises:
        UserError: The list cannot be read or is empty, or a line of it names no files; the message has its number.
    """
    pairs = []
    for number, line in read_lines(path):
        readings: list[Pair] = [*_splits(line, separator), *([(line, None)] if may_lack_labels else [])]
        expected = f"an image and its label with {separator!r} between them"
        try:
            pairs.append(list(_only_reading(readings, root, expected, f"{path}, line {number}", line)))
        except UserError as error:
            if faults is None:
                raise
            faults.append(error)
    return pairs


def read_images(path: str | os.PathLike[str], root: str | os.PathLike[str]) -> list[str]:
    """Read a list of images; the path of a label behind an image on its line is ignored.

    Args:
        path: The list, as for `read_pairs`.
        root: Folder that the names are relative to.

    Raises:
        UserError: As for `read_pairs`.
    """
    images = []
    for number, line in read_lines(path):
        readings: list[Pair] = [(line, None), *((image, None) for image, _ in _splits(line, " "))]
        images.append(_only_reading(readings, root, "an image", f"{path}, line {number}", line)[0])
    return images


def read_classes(path: str | os.PathLike[str], root: str | os.PathLike[str], num_classes: int) -> list[tuple[str, int]]:
    """Read a list of images with the number of a class behind each.

    Args:
        path: The list, as for `read_pairs`; the class is what stands behind the last blank or tab of a line.
        root: Folder that the names are relative to.
        num_classes: Classes are 0 to `num_classes` - 1.

    Returns:
        The file and the class of each line.

    Raises:
        UserError: As for `read_pairs`, or a class is not one of these.
    """
    samples = []
    for number, line in read_lines(path):
        where, (name, *rest) = f"{path}, line {number}", line.rsplit(None, 1)
        label = rest[0] if rest else name
        if not rest or not re.fullmatch("[0-9]{1,9}", label):
            raise UserError(f"{where}: expected an image and the number of its class, got {_shown(line)}")
        if int(label) >= num_classes:
            raise UserError(f"{where}: the class is {label}, but classes are 0 to {num_classes - 1}")
        file = os.path.join(root, name)
        if not os.path.isfile(file):
            try:
                check_plain_file(file, "image")
            except UserError as error:
                raise UserError(f"{where}: {error}") from error
        samples.append((file, int(label)))
    return samples


def read_class_names(path: str | os.PathLike[str], num_classes: int) -> list[str]:
    """Read the names of classes: a number and a name on each line, in any order.

    Args:
        path: UTF-8, such as PaddleClas's imagenet1k_label_list.txt.
        num_classes: There must be a name for each of 0 to `num_classes` - 1.

    Raises:
        UserError: The file cannot be read, a line is not a number and a name, or a class has none or two names.
    """
    names: dict[int, str] = {}
    for number, line in read_lines(path):
        label, *name = line.split(None, 1)
        if not name or not re.fullmatch("[0-9]{1,9}", label) or int(label) >= num_classes:
            raise UserError(
                f"{path}, line {number}: expected a class from 0 to {num_classes - 1} and its name, got {_shown(line)}"
            )
        if int(label) in names:
            raise UserError(f"{path}, line {number}: class {label} has a name already, {names[int(label)]!r}")
        names[int(label)] = name[0]
    if len(names) != num_classes:
        lost = next(label for label in range(num_classes) if label not in names)
        raise UserError(f"{path} names {len(names)} of {num_classes} classes; class {lost} has no name")
    return [names[label] for label in range(num_classes)]


def read_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """Yield number and text of every line that is not blank.

    Args:
        path: UTF-8 with or without a byte order mark, with the line ends of any system.

    Raises:
        UserError: The file cannot be read, is empty, or a line is too long.
    """
    data, empty = check_plain_file(path, "list of images", _MAX_BYTES).read_bytes(), True
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8, the encoding of a list of images") from error
    for number, line in enumerate(re.split("\r\n|\n|\r", text), 1):
        if line.strip():
            if len(line) > _LONGEST:
                raise UserError(f"{path}, line {number}: {len(line)} characters, expected at most {_LONGEST}")
            empty = False
            yield number, line.strip()
    if empty:
        raise UserError(f"list of images {path} is empty")


def _splits(line: str, separator: str) -> list[tuple[str, str]]:
    """Return every way to split a line in two at a separator."""
    pattern = re.escape(separator) if separator.strip() else r"\s+"
    parts = [(line[: found.start()].strip(), line[found.end() :].strip()) for found in re.finditer(pattern, line)]
    return [(image, label) for image, label in parts if image and label]


def _only_reading(readings: list[Pair], root: str | os.PathLike[str], expected: str, where: str, line: str) -> Pair:
    """Return the files of the one reading of a line of which all exist."""
    files = [tuple(name and os.path.join(root, name) for name in reading) for reading in readings]
    found = [pair for pair in files if all(name is None or os.path.isfile(name) for name in pair)]
    if len(found) == 1:
        return found[0]
    shown = _shown(line)
    if found:
        raise UserError(f"{where}: {len(found)} readings of {shown} give files that exist; rename one of them")
    if len(files) != 1:
        raise UserError(f"{where}: expected {expected}, whose files exist below {root}, got {shown}")
    image, label = files[0]
    kind, name = ("label", label) if os.path.isfile(image) else ("image", image)
    try:
        check_plain_file(name, kind)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    raise UserError(f"{where}: no such {kind}: {name}")  # it has appeared meanwhile


def _shown(line: str) -> str:
    return repr(line if len(line) <= 200 else line[:200] + "...")
