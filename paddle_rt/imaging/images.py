"""Pictures and labels on disk: read with every fault named, written whole or not at all.

Needs numpy and OpenCV alone: the deploy side uses it too.
"""

import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.files import whole_file

PathLike = str | os.PathLike[str]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FONT = (cv2.FONT_HERSHEY_SIMPLEX, 0.5)


def read_image(path: PathLike) -> np.ndarray:
    """Read a picture as OpenCV's `imread` does in colour, but name every fault.

    Grey and palette pictures become colour, 16-bit ones keep their high byte, alpha is dropped (the colour under it
    stays as it is stored), and EXIF orientation is obeyed.

    Args:
        path: JPEG, PNG, BMP, TIFF, WebP or whatever else the installed OpenCV decodes.

    Returns:
        The picture, uint8 BGR.

    Shape:
        [H, W, 3]

    Raises:
        UserError: The file is missing, a folder, unreadable, empty, cut off, not a picture, or has more pixels than
            OpenCV decodes (2^30).
    """
    return _decode(path, _read_picture_bytes(path), cv2.IMREAD_COLOR)


def read_label(path: PathLike, num_classes: int, ignore_index: int = 255) -> np.ndarray:
    """Read a label picture: one channel of class numbers, either grey values or indices into a palette.

    Args:
        path: The label picture.
        num_classes: Labels are 0 to `num_classes` - 1.
        ignore_index: The one value beside them that is allowed.

    Returns:
        The labels, uint8.

    Shape:
        [H, W]

    Raises:
        UserError: As for `read_image`, and for a colour picture or a value out of range.
    """
    data, scale = _palette_as_grey(_read_picture_bytes(path))
    labels = _decode(path, data, cv2.IMREAD_UNCHANGED)
    if labels.ndim == 3 or labels.dtype.kind == "f":
        channels = labels.shape[2] if labels.ndim == 3 else 1
        raise UserError(
            f"{path}: labels must be one channel of class numbers, but this picture has {channels} of {labels.dtype}; "
            "convert its colours to class numbers first"
        )
    labels = labels // scale
    check_labels(labels, num_classes, ignore_index, str(path))
    return labels.astype(np.uint8)


def check_labels(labels: np.ndarray, num_classes: int, ignore_index: int, source: str) -> None:
    """Refuse labels out of range.

    Args:
        labels: Class numbers.
        num_classes: Valid are 0 to `num_classes` - 1,
        ignore_index: and this one.
        source: The file, or whatever else the message should begin with.

    Raises:
        UserError: Names the values that are out of range.
    """
    present = np.unique(labels)
    wrong = [int(value) for value in present if not 0 <= value < num_classes and value != ignore_index]
    if wrong:
        more = f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise UserError(
            f"{source}: label values {', '.join(map(str, wrong[:10]))}{more} are out of range; "
            f"expected 0 to {num_classes - 1}, or {ignore_index} for what is not labelled"
        )


def _read_picture_bytes(path: PathLike) -> bytes:
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder, not a picture")
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read picture {path}: {error.strerror}") from error
    if not data:
        raise UserError(f"picture {path} is empty (0 bytes)")
    if _is_cut_off(data):
        raise UserError(f"picture {path} is cut off: it has no end marker; copy or download it again")
    return data


def _decode(path: PathLike, data: bytes, flags: int) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        reason = "it has more than 2^30 pixels, OpenCV's limit" if "CV_IO_MAX" in str(error) else error.err
        raise UserError(f"cannot decode picture {path}: {reason}") from error
    if image is None:
        raise UserError(f"cannot decode picture {path}: it is damaged, or not a picture ({len(data)} bytes)")
    return image


def _is_cut_off(data: bytes) -> bool:
    """True for a JPEG or PNG without its end. OpenCV decodes such a JPEG half-way and paints the rest grey; for the
    other formats its decoders fail on their own."""
    if data.startswith(b"\xff\xd8"):
        return data.find(b"\xff\xd9", _scan_start(data)) < 0
    return data.startswith(PNG_SIGNATURE) and b"IEND" not in data


def _scan_start(data: bytes) -> int:
    """Where a JPEG's pixels begin: behind the headers, whose embedded thumbnails have end markers of their own."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a length
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at


def _palette_as_grey(data: bytes) -> tuple[bytes, int]:
    """Turn an indexed PNG into a grey one with the same pixels, since OpenCV has no way to read indices.

    Returns:
        The picture to decode, and what to divide its values by: decoders stretch grey of 1, 2 and 4 bits to 255.
    """
    if not data.startswith(PNG_SIGNATURE):
        return data, 1
    chunks = list(_png_chunks(data))
    if not chunks or chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13:
        return data, 1
    header = bytearray(chunks[0][1])
    bits, kind = header[8], header[9]
    if kind == 3:
        header[9] = 0
        kept = [(b"IHDR", bytes(header)), *((name, body) for name, body in chunks[1:] if name in (b"IDAT", b"IEND"))]
        data = PNG_SIGNATURE + b"".join(_png_chunk(name, body) for name, body in kept)
    return data, 255 // (2**bits - 1) if kind in (0, 3) and bits in (1, 2, 4) else 1


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def list_images(path: PathLike) -> tuple[list[str], str]:
    """Find the pictures that a command line means.

    Args:
        path: A picture; a folder, searched with all below it; or a text file that names one picture a line, relative
            to the file's folder (a label named behind it is passed over).

    Returns:
        The files, those of a folder sorted; and the folder that their relative names start from.

    Raises:
        UserError: Nothing is there, or nothing in it is a picture.
    """
    if os.path.isdir(path):
        files = sorted(_walk(os.fspath(path)))
        if not files:
            raise UserError(f"no pictures ({', '.join(IMAGE_SUFFIXES)}) in folder {path}")
        return files, os.fspath(path)
    if not os.path.isfile(path):
        raise UserError(f"no such picture, folder or list of pictures: {path}")
    root = os.path.dirname(path) or "."
    return ([os.fspath(path)] if is_image(path) else _read_list(path, root)), root


def is_image(path: PathLike) -> bool:
    """Tell from the name alone, in any case, whether a file is a picture."""
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES


def _walk(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(parent, name) for name in files if is_image(name) and not name.startswith("."))


def _read_list(path: PathLike, root: str) -> list[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is neither a picture ({', '.join(IMAGE_SUFFIXES)}) nor a text list") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    files = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        # A name with blanks in it is taken whole if it is there; "image label" lines give their first word.
        names = [os.path.join(root, line.strip()), os.path.join(root, line.split()[0])]
        found = next((name for name in names if os.path.isfile(name)), None)
        if found is None:
            raise UserError(f"{path}, line {number}: no such picture: {names[1]}")
        files.append(found)
    if not files:
        raise UserError(f"list of pictures {path} is empty")
    return files


def write_image(path: PathLike, image: np.ndarray) -> None:
    """Write a grey or BGR picture in the format of its suffix; folders are made, a fault leaves no file.

    Raises:
        UserError: The suffix is no picture format that OpenCV writes.
        OSError: The disk is full or may not be written.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in IMAGE_SUFFIXES:
        raise UserError(f"cannot write picture {path}: suffix {suffix!r} is none of {', '.join(IMAGE_SUFFIXES)}")
    _, data = cv2.imencode(suffix, image)
    with whole_file(path) as part:
        part.write_bytes(data.tobytes())


def write_png(path: PathLike, labels: np.ndarray, palette: np.ndarray) -> None:
    """Write labels as an indexed PNG: its pixels are the class numbers, and viewers show the colours.

    Args:
        path: Where to.
        labels: Class numbers [H, W], uint8.
        palette: RGB colours [N, 3], uint8; numbers from N on are black.

    Raises:
        OSError: The disk is full or may not be written.
    """
    assert labels.ndim == 2 and labels.dtype == np.uint8, f"labels must be uint8 [H, W]: {labels.dtype} {labels.shape}"
    height, width = labels.shape
    rows = np.pad(labels, ((0, 0), (1, 0)))  # each row begins with its filter: 0, none
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"PLTE", _table(palette).tobytes()), (b"IDAT", zlib.compress(rows.tobytes()))]
    with whole_file(path) as part:
        part.write_bytes(PNG_SIGNATURE + b"".join(_png_chunk(*chunk) for chunk in [*chunks, (b"IEND", b"")]))


def _table(palette: np.ndarray) -> np.ndarray:
    """All 256 values' colours, black from the palette's end on. [256, 3]"""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette[:256]
    return table


def colorize(labels: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Paint labels.

    Args:
        labels: Class numbers [H, W], uint8.
        palette: RGB colours [N, 3], uint8; numbers from N on (255, not labelled) become black.

    Returns:
        uint8 BGR.

    Shape:
        [H, W, 3]
    """
    return _table(palette)[:, ::-1][labels]


def overlay(image: np.ndarray, labels: np.ndarray, palette: np.ndarray, weight: float = 0.6) -> np.ndarray:
    """Lay the colours of labels over their picture; what is not labelled keeps the picture.

    Args:
        image: uint8 BGR [H, W, 3].
        labels: Class numbers [H, W], uint8.
        palette: RGB colours [N, 3], uint8.
        weight: The picture's share; 0.6 as in PaddleSeg.

    Returns:
        uint8 BGR.

    Shape:
        [H, W, 3]
    """
    mixed = cv2.addWeighted(image, weight, colorize(labels, palette), 1 - weight, 0)
    return np.where((labels < len(palette))[..., None], mixed, image)


def legend_entries(
    labels: Iterable[np.ndarray], names: Sequence[str], palette: np.ndarray
) -> list[tuple[str, tuple[int, int, int]]]:
    """The names and RGB colours of the classes that occur in any of the label pictures, in class order."""
    present = set().union(*(np.unique(picture).tolist() for picture in labels))
    return [(name, tuple(palette[index].tolist())) for index, name in enumerate(names) if index in present]


def legend(entries: Sequence[tuple[str, tuple[int, int, int]]], width: int) -> np.ndarray:
    """Draw a strip that says which colour is which class, in as many rows as `width` needs.

    Args:
        entries: Names and RGB colours.
        width: Of the strip, in pixels.

    Returns:
        uint8 BGR.

    Shape:
        [H, width, 3]
    """
    row, box, gap = 26, 16, 8
    places, x, y = [], gap, 0
    for name, _ in entries:
        needed = box + gap + _text_width(name) + 2 * gap
        if x + needed > width and x > gap:
            x, y = gap, y + row
        places.append((x, y))
        x += needed
    strip = np.full((y + row, width, 3), 255, np.uint8)
    for (name, colour), (x, y) in zip(entries, places, strict=True):
        cv2.rectangle(strip, (x, y + 5), (x + box, y + 5 + box), colour[::-1], cv2.FILLED)
        cv2.rectangle(strip, (x, y + 5), (x + box, y + 5 + box), (90, 90, 90), 1)
        _write_text(strip, name, x + box + gap, y + 18)
    return strip


def side_by_side(
    pictures: Sequence[tuple[str, np.ndarray]], entries: Sequence[tuple[str, tuple[int, int, int]]] = ()
) -> np.ndarray:
    """Set pictures of one size beside each other, each under its title, with a legend below.

    Args:
        pictures: Titles and uint8 BGR pictures; narrow ones are enlarged so that their titles fit.
        entries: Names and RGB colours for the legend; none, no legend.

    Returns:
        uint8 BGR.

    Shape:
        [H', W', 3]
    """
    assert len({image.shape for _, image in pictures}) == 1, [image.shape for _, image in pictures]
    bar, gap = 28, 6
    tiles = []
    for title, image in pictures:
        factor = -(-240 // image.shape[1])
        tile = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
        tile = cv2.copyMakeBorder(tile, bar, gap, gap, gap, cv2.BORDER_CONSTANT, value=(255, 255, 255))
        _write_text(tile, title, gap, 19)
        tiles.append(tile)
    joined = np.hstack(tiles)
    return np.vstack([joined, legend(entries, joined.shape[1])]) if entries else joined


def _text_width(text: str) -> int:
    return cv2.getTextSize(text, *_FONT, 1)[0][0]


def _write_text(image: np.ndarray, text: str, x: int, y: int) -> None:
    cv2.putText(image, text, (x, y), *_FONT, (20, 20, 20), 1, cv2.LINE_AA)
