"""Reading, writing and drawing of images and labels."""

import contextlib
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from paddle_rt import imaging
from paddle_rt.errors import UserError
from paddle_rt.imaging.read_write import PNG_SIGNATURE
from tests.helpers import message


def noise(height: int = 24, width: int = 32, channels: int = 3, kind: type = np.uint8) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(0).integers(0, np.iinfo(kind).max, shape).astype(kind)


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


# Reading


@pytest.mark.parametrize(
    ("suffix", "channels"),
    [(".jpg", 3), (".png", 3), (".bmp", 3), (".tif", 3), (".webp", 3), (".jpg", 1), (".png", 1), (".png", 4)],
)
@pytest.mark.parametrize("size", [(24, 32), (1, 1)])
def test_reads_what_opencv_reads(tmp_path: Path, suffix: str, channels: int, size: tuple) -> None:
    path = tmp_path / f"image{suffix}"
    assert cv2.imwrite(str(path), noise(*size, channels, np.uint8))
    ours, theirs = imaging.read_image(path), cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert ours.shape == (*size, 3) and ours.dtype == np.uint8
    assert np.array_equal(ours, theirs), f"largest difference {np.abs(ours.astype(int) - theirs).max()}"


def test_conversions(tmp_path: Path) -> None:
    alpha, grey, indexed = (tmp_path / f"{name}.png" for name in ("alpha", "grey", "indexed"))
    cv2.imwrite(str(alpha), np.full((2, 2, 4), (10, 20, 30, 0), np.uint8))
    cv2.imwrite(str(grey), np.full((2, 2), 77, np.uint8))
    imaging.write_label(indexed, np.full((2, 2), 1, np.uint8), np.array([[0, 0, 0], [1, 2, 3]], np.uint8))
    assert imaging.read_image(alpha)[0, 0].tolist() == [10, 20, 30]
    assert imaging.read_image(grey)[0, 0].tolist() == [77, 77, 77]
    assert imaging.read_image(indexed)[0, 0].tolist() == [3, 2, 1]


def test_obeys_exif_orientation(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(16, 40)).save(path, exif=exif)
    assert imaging.read_image(path).shape == (40, 16, 3)


@pytest.mark.parametrize("suffix", imaging.IMAGE_SUFFIXES)
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.9, 0.99, -1])
def test_refuses_cut_off_images(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"cut{suffix}"
    data = cv2.imencode(suffix, noise(64, 64))[1].tobytes()
    path.write_bytes(data[: int(kept * len(data))] if kept > 0 else data[:-1])
    assert str(path) in message(imaging.read_image, path)


@pytest.mark.parametrize("suffix", imaging.IMAGE_SUFFIXES)
def test_damage_prints_no_line_that_names_no_file(tmp_path: Path, capfd, caplog, suffix: str) -> None:
    data, choose = cv2.imencode(suffix, noise(64, 64))[1].tobytes(), np.random.default_rng(0)
    path, said = tmp_path / f"damaged{suffix}", 0
    for number in range(30):
        damaged = bytearray(data)
        for at in choose.integers(0, len(data), 4):
            damaged[at] ^= 0xFF
        path.write_bytes(damaged if number % 2 else data[: choose.integers(1, len(data))])
        with contextlib.suppress(UserError):
            imaging.read_image(path)
            said += bool(caplog.messages)
            assert all(text.startswith(f"image {path}: ") for text in caplog.messages)
            caplog.clear()
    assert capfd.readouterr().err == ""
    assert said or suffix not in (".jpg", ".jpeg"), "no file was damaged so that it can still be decoded"


def test_cut_off_jpeg_is_not_saved_by_its_thumbnail(tmp_path: Path) -> None:
    data = cv2.imencode(".jpg", noise(64, 64))[1].tobytes()
    thumbnail = cv2.imencode(".jpg", noise(8, 8))[1].tobytes()
    header = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    path = tmp_path / "thumbnail.jpg"
    path.write_bytes(data[:2] + header + data[2:])
    assert imaging.read_image(path).shape == (64, 64, 3)
    path.write_bytes(data[:2] + header + data[2:-2])
    assert "cut off" in message(imaging.read_image, path)


def test_refuses_what_is_no_noise(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("not an image")
    damaged = bytearray(cv2.imencode(".png", noise(64, 64))[1].tobytes())
    damaged[len(damaged) // 2] ^= 0xFF
    (tmp_path / "damaged.png").write_bytes(bytes(damaged))
    huge = PNG_SIGNATURE + chunk(b"IHDR", bytes([0, 0, 160, 0, 0, 0, 160, 0, 8, 2, 0, 0, 0]))
    (tmp_path / "huge.png").write_bytes(huge + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    expected = {"missing.png": "no image at", "": "is a folder", "empty.png": "0 bytes", "text.jpg": "not an image",
                "damaged.png": "damaged", "huge.png": "2^30"}  # fmt: skip
    for name, reason in expected.items():
        said = message(imaging.read_image, tmp_path / name)
        assert reason in said and str(tmp_path / name) in said and "\n" not in said, said


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_label_indices_equal_pillows(tmp_path: Path, bits: int) -> None:
    labels = (noise(channels=1) % min(2**bits, 20)).astype(np.uint8)
    indexed = Image.fromarray(labels, "P")
    indexed.putpalette([value * 7 % 256 for value in range(768)])
    indexed.save(tmp_path / "indexed.png", bits=bits)
    read = imaging.read_label(tmp_path / "indexed.png", 20)
    assert np.array_equal(read, labels), f"{(read != labels).sum()} labels differ"
    assert np.array_equal(np.asarray(Image.open(tmp_path / "indexed.png")), labels)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_labels_of_any_depth(tmp_path: Path, bits: int) -> None:
    """Written here byte for byte, since no library writes grey values of 2 or 4 bits."""
    labels = noise(9, 13, 1) % min(2**bits, 20)
    values = labels.astype(">u2").view(np.uint8) if bits == 16 else labels
    rows = np.unpackbits(values[..., None], axis=2).reshape(9, -1, 8)[..., -min(bits, 8) :].reshape(9, -1)
    packed = np.pad(np.packbits(rows, axis=1), ((0, 0), (1, 0)))  # a row begins with its filter, 0 for none
    header = struct.pack(">IIBBBBB", 13, 9, bits, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(packed.tobytes())), chunk(b"IEND", b"")
    (tmp_path / "grey.png").write_bytes(PNG_SIGNATURE + b"".join(chunks))
    read = imaging.read_label(tmp_path / "grey.png", 20)
    assert np.array_equal(read, labels), f"{(read != labels).sum()} labels differ"


def test_no_damage_changes_indexed_labels(tmp_path: Path) -> None:
    """Whichever byte of the pixels is damaged, the file is refused."""
    path = tmp_path / "label.png"
    imaging.write_label(path, noise(channels=1) % 11, imaging.palette("CamVid", 11))
    data = path.read_bytes()
    start, end = data.index(b"IDAT"), data.index(b"IEND") - 4
    for at in range(start, end):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :])
        said = message(imaging.read_label, path, 11)
        assert str(path) in said and "damaged" in said and "\n" not in said, said
    header = bytes([0, 0, 160, 0, 0, 0, 160, 0, 8, 3, 0, 0, 0])
    path.write_bytes(PNG_SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    assert "2^30" in message(imaging.read_label, path, 11)


def test_labels_in_and_out_of_range(tmp_path: Path) -> None:
    path = tmp_path / "label.png"
    for kind in (np.uint8, np.uint16):
        cv2.imwrite(str(path), np.array([[0, 10, 255]], kind))
        assert imaging.read_label(path, 11).tolist() == [[0, 10, 255]]
    said = message(imaging.read_label, path, 10)
    assert "10" in said and "0 to 9" in said and str(path) in said
    assert "255" in message(imaging.read_label, path, 11, ignore_index=0)
    cv2.imwrite(str(path), np.array([[0, 300]], np.uint16))
    assert "300" in message(imaging.read_label, path, 11)
    cv2.imwrite(str(path), noise())
    assert "3" in message(imaging.read_label, path, 11)


def test_list_images(tmp_path: Path) -> None:
    names = ["b.JPG", "a.png", "sub/c.TIF", "sub/d.webp", "with blank.bmp", "notes.md", ".hidden.png", ".dir/e.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files, root = imaging.list_images(tmp_path)
    assert [os.path.relpath(file, root) for file in files] == ["a.png", "b.JPG", "sub/c.TIF", "sub/d.webp", names[4]]
    assert imaging.list_images(tmp_path / "a.png") == ([str(tmp_path / "a.png")], str(tmp_path))
    (tmp_path / "list.txt").write_text("sub/c.TIF label.png\n\nwith blank.bmp\n")
    assert imaging.list_images(tmp_path / "list.txt")[0] == [str(tmp_path / "sub/c.TIF"), str(tmp_path / names[4])]
    (tmp_path / "list.txt").write_text("a.png\ngone.png\n")
    assert "line 2" in message(imaging.list_images, tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("\n")
    assert "empty" in message(imaging.list_images, tmp_path / "list.txt")
    (tmp_path / "film.mp4").write_bytes(b"\x00\xff\xfe")
    assert "not UTF-8, the encoding of a list of images" in message(imaging.list_images, tmp_path / "film.mp4")
    (tmp_path / "nothing").mkdir()
    assert "no images" in message(imaging.list_images, tmp_path / "nothing")
    assert "no image, folder or list" in message(imaging.list_images, tmp_path / "gone")


# Writing and drawing


def test_write_png_keeps_indices_and_colours(tmp_path: Path) -> None:
    labels, colours = (noise(channels=1) % 11).astype(np.uint8), imaging.palette("CamVid", 11)
    labels[0, 0] = 255
    imaging.write_label(tmp_path / "new/label.png", labels, colours)
    written = Image.open(tmp_path / "new/label.png")
    assert written.mode == "P" and np.array_equal(np.asarray(written), labels)
    assert np.array_equal(np.asarray(written.convert("RGB"))[..., ::-1], imaging.colorize(labels, colours))
    assert np.array_equal(imaging.read_label(tmp_path / "new/label.png", 11), labels)


@pytest.mark.parametrize(("suffix", "limit"), [(".jpg", 65500), (".webp", 16383), (".png", 1_000_000)])
def test_what_a_format_cannot_hold_is_named(tmp_path: Path, suffix: str, limit: int) -> None:
    said = message(imaging.write_image, tmp_path / f"x{suffix}", np.zeros((1, limit + 1, 3), np.uint8))
    assert f"x{suffix} of {limit + 1}x1: {suffix} holds at most {limit} pixels a side" in said
    assert list(tmp_path.iterdir()) == []
    if limit < 1_000_000:
        imaging.write_image(tmp_path / f"x{suffix}", np.zeros((1, limit, 3), np.uint8))
        assert (tmp_path / f"x{suffix}").is_file()


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "pipe.png is a named pipe" in message(imaging.read_image, tmp_path / "pipe.png")
    assert "pipe.png is a named pipe" in message(imaging.read_label, tmp_path / "pipe.png", 3)
    assert "pipe.png is a named pipe" in message(imaging.list_images, tmp_path / "pipe.png")


def test_nothing_is_left_where_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "suffix" in message(imaging.write_image, tmp_path / "image.xyz", noise())

    def full_disk(self: Path, data: bytes) -> int:
        with open(self, "wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        imaging.write_image(tmp_path / "image.png", noise())
    assert list(tmp_path.iterdir()) == []


def test_overlay_mixes_and_keeps_what_is_not_labelled() -> None:
    image, labels = np.full((1, 2, 3), 100, np.uint8), np.array([[0, 255]], np.uint8)
    mixed = imaging.overlay(image, labels, np.array([[200, 0, 0]], np.uint8))
    assert mixed.tolist() == [[[60, 60, 140], [100, 100, 100]]]
