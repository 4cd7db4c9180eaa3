"""Images on disk: reading names every fault, and writing leaves a whole file or none."""

import logging
import os
import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.files import check_plain_file, whole_file
from paddle_rt.imaging.lists import read_images
from paddle_rt.stderr import library_messages

PathLike = str | os.PathLike[str]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_SIDES = {".jpg": 65500, ".jpeg": 65500, ".webp": 16383, ".png": 1_000_000}  # pixels that the encoders accept
_MAX_IMAGE_BYTES = 2**31 - 1  # OpenCV's limit
_log = logging.getLogger(__name__)
_COLOURS_OF_8_BITS = (b"\xff\xd8", b"BM", b"RIFF")  # JPEG, BMP and WebP, which have nothing else


def read_image(path: PathLike, channels: int = 3) -> np.ndarray:
    """Read an image of 8 bits a channel as OpenCV's `imread` does, and name every fault.

    With 3 channels, grey and indexed images become colour, an alpha channel is dropped without a change to the colours,
    and EXIF orientation is applied; with 1, colours become grey. 4 channels are taken as they are in the file.

    Args:
        path: A JPEG, PNG, BMP, TIFF or WebP file, or another that the installed OpenCV decodes.
        channels: 3 for colour, 1 for grey, or 4 for files that have as many.

    Returns:
        The image, uint8: BGR [H, W, 3], grey [H, W], or [H, W, 4] in the file's order with blue before red.

    Raises:
        UserError: The file is missing, no regular file, unreadable, empty, cut off or not an image, or it has more than
            2^30 pixels, more than 8 bits a channel, or other channels.
    """
    return decode_image(path, _read(path), channels)


def decode_image(path: PathLike, data: bytes, channels: int = 3) -> np.ndarray:
    """Decode an image of 8 bits a channel as `read_image` does.

    Args:
        path: The file that the message of an error names.
        data: The bytes of the file.
        channels: As for `read_image`.

    Raises:
        UserError: The bytes are none, cut off or not an image, or it is one that `read_image` refuses.
    """
    _check_whole(path, data)
    if not data.startswith(_COLOURS_OF_8_BITS):
        _check_depth(path, data)
    image = decode(path, data, {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR, 4: cv2.IMREAD_UNCHANGED}[channels])
    found = 1 if image.ndim == 2 else image.shape[2]
    if found != channels:
        raise UserError(f"image {path} has {found} channels, expected {channels}")
    return image


def _check_depth(path: PathLike, data: bytes) -> None:
    """Refuse an image with more than 8 bits or 4 channels, most of which OpenCV would cut down without a word."""
    if data.startswith(PNG_SIGNATURE):
        bits, channels = data[24:25] == b"\x10" and 16, 1
    elif data.startswith((b"II*\0", b"MM\0*")):
        bits, channels = _tiff_format(data)
    else:
        image = decode(path, data, cv2.IMREAD_UNCHANGED)
        bits, channels = 8 * image.itemsize, 1 if image.ndim == 2 else image.shape[2]
    if bits > 8:
        raise UserError(f"image {path} has {bits} bits a channel, expected 8; convert it first")
    if channels > 4:
        raise UserError(f"image {path} has {channels} channels, expected 1, 3 or 4")


def _tiff_format(data: bytes) -> tuple[int, int]:
    """Return the bits a channel and the number of channels by the header, or zeros where it is damaged."""
    order = "<" if data.startswith(b"II") else ">"
    bits, channels = 1, 1
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, number, value = struct.unpack_from(f"{order}HHIH", data, entry)
            if tag == 277:  # samples per pixel
                channels = value
            elif tag == 258:  # bits per sample; more than two numbers stand elsewhere
                place = entry + 8 if number <= 2 else struct.unpack_from(f"{order}I", data, entry + 8)[0]
                (bits,) = struct.unpack_from(f"{order}H", data, place)
    except struct.error:
        return 0, 0
    return bits, channels


def read_bytes(path: PathLike) -> bytes:
    """Return the bytes of an image file.

    Raises:
        UserError: The file is missing, no regular file, unreadable, empty, cut off or larger than 2 GiB.
    """
    data = _read(path)
    _check_whole(path, data)
    return data


def _read(path: PathLike) -> bytes:
    file = check_plain_file(path, "image", _MAX_IMAGE_BYTES)
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read image {path}: {error.strerror}") from error


def _check_whole(path: PathLike, data: bytes) -> None:
    """Refuse a file that is empty, cut off or, where checksums say so, damaged."""
    if not data:
        raise UserError(f"image {path} is empty (0 bytes)")
    if _is_cut_off(data):
        raise UserError(f"image {path} is cut off: it has no end marker; copy or download it again")
    if data.startswith(PNG_SIGNATURE) and not _has_whole_chunks(data):
        raise UserError(f"cannot decode image {path}: it is damaged; copy or download it again")


def decode(path: PathLike, data: bytes, flags: int) -> np.ndarray:
    """Decode an image with OpenCV.

    What OpenCV's libraries say of an image that they decode all the same becomes a warning that names the file.

    Args:
        path: The file that the message of an error names.
        data: The bytes of the file.
        flags: How `cv2.imdecode` decodes it.

    Raises:
        UserError: The bytes are damaged or not an image, or it has more than 2^30 pixels.
    """
    try:
        with library_messages() as messages:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise UserError(f"cannot decode image {path}: {error.err} (OpenCV's limit is 2^30 pixels)") from error
    if image is None:
        raise UserError(f"cannot decode image {path}: it is damaged, or not an image ({len(data)} bytes)")
    if messages:
        _log.warning(f"image {path}: {messages[0]}")
    return image


def _is_cut_off(data: bytes) -> bool:
    """Return whether a JPEG or PNG has lost its end.

    OpenCV decodes such a JPEG and fills the rest with grey. It refuses files of other formats that are cut off.
    """
    if data.startswith(b"\xff\xd8"):
        return data.find(b"\xff\xd9", _scan_start(data)) < 0
    return data.startswith(PNG_SIGNATURE) and data.rfind(b"IEND") < 0  # searched from the end, near which it is


def _has_whole_chunks(data: bytes) -> bool:
    """Return whether the chunks of a PNG have the checksums that they should have.

    Without this check libpng finds the damage, and prints a line of its own on stderr.
    """
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if end + 4 > len(data) or zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return False
        if name == b"IEND":
            return True
        at = end + 4
    return False


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
        files = sorted(file for file in walk_files(path) if is_image(file))
        if not files:
            raise UserError(f"no images ({', '.join(IMAGE_SUFFIXES)}) in folder {path}")
        return files, os.fspath(path)
    check_plain_file(path, "image, folder or list of images")
    root = os.path.dirname(path) or "."
    return ([os.fspath(path)] if is_image(path) else read_images(path, root)), root


def is_image(path: PathLike) -> bool:
    """Return whether the suffix of a file is that of an image, in lower or upper case."""
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES


def walk_files(folder: PathLike) -> Iterator[str]:
    """Yield the files of a folder at any depth, but for hidden ones; links to folders are followed, not in a circle."""
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        place = os.stat(parent)
        if (place.st_dev, place.st_ino) in seen:
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(parent, name) for name in files if not name.startswith("."))


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
