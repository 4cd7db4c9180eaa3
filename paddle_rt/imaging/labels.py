"""Label images: one channel of class numbers, read and written without a change to any number."""

import io
import os
import struct
import zlib

import cv2
import numpy as np
from PIL.Image import fromarray
from PIL.PngImagePlugin import PngImageFile

from paddle_rt.errors import UserError
from paddle_rt.files import whole_file
from paddle_rt.imaging.draw import color_table
from paddle_rt.imaging.read_write import PNG_SIGNATURE, decode, read_bytes

_MAX_PIXELS = 2**30  # OpenCV's limit, which holds for every other format
_DAMAGED = (OSError, SyntaxError, ValueError, IndexError, TypeError, struct.error, zlib.error)  # what Pillow raises


def read_label(path: str | os.PathLike[str], num_classes: int, ignore_index: int = 255) -> np.ndarray:
    """Read a label image: one channel of class numbers, either grey values or indices into a palette.

    Args:
        path: The label image.
        num_classes: Labels are 0 to `num_classes` - 1.
        ignore_index: The only other value that is allowed.

    Returns:
        The labels [H, W], of `label_type`.

    Raises:
        UserError: As for `read_image`, and where the image is in colour or a value is out of range.
    """
    labels = read_values(path)
    check_labels(labels, num_classes, ignore_index, str(path))
    return labels.astype(label_type(num_classes, ignore_index))


def read_values(path: str | os.PathLike[str]) -> np.ndarray:
    """Read the numbers of a label image as they are in the file: grey values, or indices into a palette.

    Args:
        path: The label image.

    Returns:
        Whole numbers [H, W], of the type that the file has.

    Raises:
        UserError: As for `read_image`, and where the image is in colour.
    """
    labels = decode_label(path)
    if labels.ndim == 3 or labels.dtype.kind == "f":
        channels = labels.shape[2] if labels.ndim == 3 else 1
        raise UserError(
            f"{path}: labels must be one channel of class numbers, but this image has {channels} of {labels.dtype}; "
            "name its colours by palette in a data set of type Dataset, or convert them to class numbers first"
        )
    return labels


def decode_label(path: str | os.PathLike[str]) -> np.ndarray:
    """Return what a label image holds, whatever it is: [H, W] of numbers or indices, or [H, W, C] of colours.

    Raises:
        UserError: As for `read_image`.
    """
    data = read_bytes(path)
    bits, kind = _png_format(data)
    if kind == 3:
        return _read_indices(path, data)
    labels = decode(path, data, cv2.IMREAD_UNCHANGED)
    # OpenCV stretches grey values of 1, 2 and 4 bits to 255
    return labels // (255 // (2**bits - 1)) if kind == 0 and bits < 8 else labels


def label_type(num_classes: int, ignore_index: int) -> type[np.integer]:
    """Return the type of labels: bytes where they hold all classes and the ignored value, or else wider numbers."""
    values = np.array([0, num_classes - 1, ignore_index])
    return next(kind for kind in (np.uint8, np.int16, np.int32) if np.array_equal(values.astype(kind), values))


def check_labels(labels: np.ndarray, num_classes: int, ignore_index: int, source: str) -> None:
    """Refuse labels that are out of range.

    Args:
        labels: Class numbers.
        num_classes: Labels are 0 to `num_classes` - 1.
        ignore_index: The only other value that is allowed.
        source: What the message begins with, such as the file's path.

    Raises:
        UserError: Some values are out of range; the message names them.
    """
    # A histogram, which takes a fiftieth of the time of sorting; labels of more bits are rare.
    present = np.flatnonzero(count_values(labels)) if labels.dtype == np.uint8 else np.unique(labels)
    wrong = [int(value) for value in present if not 0 <= value < num_classes and value != ignore_index]
    if wrong:
        more = f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise UserError(
            f"{source}: label values {', '.join(map(str, wrong[:10]))}{more} are out of range; "
            f"expected 0 to {num_classes - 1}, or {ignore_index} for pixels that are not labelled"
        )


def count_values(labels: np.ndarray) -> np.ndarray:
    """Return the number of pixels of each value of labels. Shape: [H, W] to int64 [256], or longer for wider types."""
    if labels.dtype != np.uint8:
        return np.bincount(labels.ravel(), minlength=256)
    return cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel().astype(np.int64)


def write_label(path: str | os.PathLike[str], labels: np.ndarray, palette: np.ndarray) -> None:
    """Write labels as an indexed PNG: its pixels are the class numbers, and viewers show the colours.

    Args:
        path: The file to write; its folder is made.
        labels: Class numbers, uint8 [H, W].
        palette: RGB colours, uint8 [N, 3]; numbers from N on are black.

    Raises:
        OSError: The disk is full or may not be written.
    """
    assert labels.ndim == 2 and labels.dtype == np.uint8, f"labels must be uint8 [H, W]: {labels.dtype} {labels.shape}"
    image, data = fromarray(labels), io.BytesIO()
    image.putpalette(color_table(palette).tobytes())
    image.save(data, "PNG", bits=8)
    with whole_file(path) as part:
        part.write_bytes(data.getvalue())


def _png_format(data: bytes) -> tuple[int, int]:
    """Return a PNG's bits a value and its kind of colour (0 grey, 3 indexed), or -1 twice for other formats."""
    return (data[24], data[25]) if data.startswith(PNG_SIGNATURE) and data[12:16] == b"IHDR" else (-1, -1)


def _read_indices(path: str | os.PathLike[str], data: bytes) -> np.ndarray:
    """Read the indices of an indexed PNG with Pillow; OpenCV reads its colours and no indices."""
    width, height = struct.unpack(">II", data[16:24])
    if width * height > _MAX_PIXELS:
        raise UserError(f"cannot decode image {path}: it has more than 2^30 pixels, OpenCV's limit")
    try:
        PngImageFile(io.BytesIO(data)).verify()  # the checksums, which reading does not look at
        return np.array(PngImageFile(io.BytesIO(data)))
    except _DAMAGED as error:
        raise UserError(f"cannot decode image {path}: it is damaged ({' '.join(str(error).split())})") from error
