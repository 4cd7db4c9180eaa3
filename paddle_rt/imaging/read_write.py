"""Images on disk: reading names every fault, and writing leaves a whole file or none."""

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.files import check_plain_file, whole_file

PathLike = str | os.PathLike[str]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_SIDES = {".jpg": 65500, ".jpeg": 65500, ".webp": 16383, ".png": 1_000_000}  # pixels that the encoders accept
_MAX_IMAGE_BYTES = 2**31 - 1  # OpenCV's limit


def read_image(path: PathLike) -> np.ndarray:
    """Read an image in colour as OpenCV's `imread` does, and name every fault.

    Grey and indexed images become colour, images of 16 bits keep their high byte, an alpha channel is dropped without
    a change to the colours, and EXIF orientation is applied.

    Args:
        path: A JPEG, PNG, BMP, TIFF or WebP file, or another that the installed OpenCV decodes.

    Returns:
        The image, uint8 BGR [H, W, 3].

    Raises:
        UserError: The file is missing, no regular file, unreadable, empty, cut off or not an image, or it has more than
            2^30 pixels.
    """
    return decode(path, read_bytes(path), cv2.IMREAD_COLOR)


def read_bytes(path: PathLike) -> bytes:
    """Return the bytes of an image file.

    Raises:
        UserError: The file is missing, no regular file, unreadable, empty, cut off or larger than 2 GiB.
    """
    file = check_plain_file(path, "image", _MAX_IMAGE_BYTES)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read image {path}: {error.strerror}") from error
    if not data:
        raise UserError(f"image {path} is empty (0 bytes)")
    if _is_cut_off(data):
        raise UserError(f"image {path} is cut off: it has no end marker; copy or download it again")
    return data


def decode(path: PathLike, data: bytes, flags: int) -> np.ndarray:
    """Decode an image with OpenCV.

    Args:
        path: The file that the message of an error names.
        data: The bytes of the file.
        flags: How `cv2.imdecode` decodes it.

    Raises:
        UserError: The bytes are damaged or not an image, or it has more than 2^30 pixels.
    """
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise UserError(f"cannot decode image {path}: {error.err} (OpenCV's limit is 2^30 pixels)") from error
    if image is None:
        raise UserError(f"cannot decode image {path}: it is damaged, or not an image ({len(data)} bytes)")
    return image


def _is_cut_off(data: bytes) -> bool:
    """Return whether a JPEG or PNG has lost its end.

    OpenCV decodes such a JPEG and fills the rest with grey. It refuses files of other formats that are cut off.
    """
    if data.startswith(b"\xff\xd8"):
        return data.find(b"\xff\xd9", _scan_start(data)) < 0
    return data.startswith(PNG_SIGNATURE) and b"IEND" not in data


def _scan_start(data: bytes) -> int:
    """Return where a JPEG's pixels begin: behind the headers, whose thumbnails have end markers of their own."""
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


def list_images(path: PathLike) -> tuple[list[str], str]:
    """Find the images that a path on a command line stands for.

    Args:
        path: An image; a folder, whose images at any depth are found; or a text file with the path of an image on each
            line, relative to the text file's folder. The path of a label behind it on the line is ignored.

    Returns:
        The files, sorted where they come from a folder, and the folder that their relative names start from.

    Raises:
        UserError: There is no such path, it holds no image, or a line of the text file names no file.
    """
    if os.path.isdir(path):
        files = sorted(_walk(os.fspath(path)))
        if not files:
            raise UserError(f"no images ({', '.join(IMAGE_SUFFIXES)}) in folder {path}")
        return files, os.fspath(path)
    check_plain_file(path, "image, folder or list of images")
    root = os.path.dirname(path) or "."
    return ([os.fspath(path)] if is_image(path) else _read_list(path, root)), root


def is_image(path: PathLike) -> bool:
    """Return whether the suffix of a file is that of an image, in lower or upper case."""
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES


def _walk(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(parent, name) for name in files if is_image(name) and not name.startswith("."))


def _read_list(path: PathLike, root: str) -> list[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is neither an image ({', '.join(IMAGE_SUFFIXES)}) nor a text list") from error
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
            raise UserError(f"{path}, line {number}: no such image: {names[1]}")
        files.append(found)
    if not files:
        raise UserError(f"list of images {path} is empty")
    return files


def write_image(path: PathLike, image: np.ndarray) -> None:
    """Write a grey or BGR image in the format of the file's suffix; a fault leaves no file.

    Args:
        path: The file to write; its folder is made.
        image: The image, [H, W] or [H, W, 3].

    Raises:
        UserError: The suffix is not that of an image, or the image is too large for the format.
        OSError: The disk is full or may not be written.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in IMAGE_SUFFIXES:
        raise UserError(f"cannot write image {path}: suffix {suffix!r} is none of {', '.join(IMAGE_SUFFIXES)}")
    height, width = image.shape[:2]
    if max(height, width) > (limit := _MAX_SIDES.get(suffix, 2**31)):
        raise UserError(f"cannot write image {path} of {width}x{height}: {suffix} holds at most {limit} pixels a side")
    _, data = cv2.imencode(suffix, image)
    with whole_file(path) as part:
        part.write_bytes(data.tobytes())
