"""Reading, writing and drawing of pictures and labels."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from paddle_rt.imaging import images
from paddle_rt.imaging import palettes as classes
from tests.helpers import message


def picture(height: int = 24, width: int = 32, channels: int = 3, kind: type = np.uint8) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(0).integers(0, np.iinfo(kind).max, shape).astype(kind)


# Reading


@pytest.mark.parametrize(
    ("suffix", "channels", "kind"),
    [(".jpg", 3, np.uint8), (".png", 3, np.uint8), (".bmp", 3, np.uint8), (".tif", 3, np.uint8),
     (".webp", 3, np.uint8), (".jpg", 1, np.uint8), (".png", 1, np.uint8), (".png", 4, np.uint8),
     (".png", 1, np.uint16), (".png", 3, np.uint16), (".png", 4, np.uint16), (".tif", 3, np.uint16)],
)  # fmt: skip
@pytest.mark.parametrize("size", [(24, 32), (1, 1)])
def test_reads_what_opencv_reads(tmp_path: Path, suffix: str, channels: int, kind: type, size: tuple) -> None:
    path = tmp_path / f"image{suffix}"
    assert cv2.imwrite(str(path), picture(*size, channels, kind))
    ours, theirs = images.read_image(path), cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert ours.shape == (*size, 3) and ours.dtype == np.uint8
    assert np.array_equal(ours, theirs), f"largest difference {np.abs(ours.astype(int) - theirs).max()}"


def test_conversions(tmp_path: Path) -> None:
    deep, alpha, grey, indexed = (tmp_path / f"{name}.png" for name in ("deep", "alpha", "grey", "indexed"))
    cv2.imwrite(str(deep), np.full((2, 2, 3), 0xC8FF, np.uint16))
    cv2.imwrite(str(alpha), np.full((2, 2, 4), (10, 20, 30, 0), np.uint8))
    cv2.imwrite(str(grey), np.full((2, 2), 77, np.uint8))
    images.write_png(indexed, np.full((2, 2), 1, np.uint8), np.array([[0, 0, 0], [1, 2, 3]], np.uint8))
    assert abs(int(images.read_image(deep)[0, 0, 0]) - 0xC8) <= 1
    assert images.read_image(alpha)[0, 0].tolist() == [10, 20, 30]
    assert images.read_image(grey)[0, 0].tolist() == [77, 77, 77]
    assert images.read_image(indexed)[0, 0].tolist() == [3, 2, 1]


def test_obeys_exif_orientation(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(16, 40)).save(path, exif=exif)
    assert images.read_image(path).shape == (40, 16, 3)


@pytest.mark.parametrize("suffix", images.IMAGE_SUFFIXES)
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.9, 0.99, -1])
def test_refuses_cut_off_pictures(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"cut{suffix}"
    data = cv2.imencode(suffix, picture(64, 64))[1].tobytes()
    path.write_bytes(data[: int(kept * len(data))] if kept > 0 else data[:-1])
    assert str(path) in message(images.read_image, path)


def test_cut_off_jpeg_is_not_saved_by_its_thumbnail(tmp_path: Path) -> None:
    data = cv2.imencode(".jpg", picture(64, 64))[1].tobytes()
    thumbnail = cv2.imencode(".jpg", picture(8, 8))[1].tobytes()
    header = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    path = tmp_path / "thumbnail.jpg"
    path.write_bytes(data[:2] + header + data[2:])
    assert images.read_image(path).shape == (64, 64, 3)
    path.write_bytes(data[:2] + header + data[2:-2])
    assert "cut off" in message(images.read_image, path)


def test_refuses_what_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("not a picture")
    damaged = bytearray(cv2.imencode(".png", picture(64, 64))[1].tobytes())
    damaged[len(damaged) // 2] ^= 0xFF
    (tmp_path / "damaged.png").write_bytes(bytes(damaged))
    huge = images.PNG_SIGNATURE + images._png_chunk(b"IHDR", bytes([0, 0, 160, 0, 0, 0, 160, 0, 8, 2, 0, 0, 0]))
    (tmp_path / "huge.png").write_bytes(huge + images._png_chunk(b"IDAT", b"") + images._png_chunk(b"IEND", b""))
    expected = {"missing.png": "No such file", "": "is a folder", "empty.png": "0 bytes", "text.jpg": "not a picture",
                "damaged.png": "damaged", "huge.png": "2^30"}  # fmt: skip
    for name, reason in expected.items():
        said = message(images.read_image, tmp_path / name)
        assert reason in said and str(tmp_path / name) in said and "\n" not in said, said


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_label_indices_equal_pillows(tmp_path: Path, bits: int) -> None:
    labels = (picture(channels=1) % min(2**bits, 20)).astype(np.uint8)
    indexed = Image.fromarray(labels, "P")
    indexed.putpalette([value * 7 % 256 for value in range(768)])
    indexed.save(tmp_path / "indexed.png", bits=bits)
    read = images.read_label(tmp_path / "indexed.png", 20)
    assert np.array_equal(read, labels), f"{(read != labels).sum()} labels differ"
    assert np.array_equal(np.asarray(Image.open(tmp_path / "indexed.png")), labels)


def test_labels_in_and_out_of_range(tmp_path: Path) -> None:
    path = tmp_path / "label.png"
    for kind in (np.uint8, np.uint16):
        cv2.imwrite(str(path), np.array([[0, 10, 255]], kind))
        assert images.read_label(path, 11).tolist() == [[0, 10, 255]]
    said = message(images.read_label, path, 10)
    assert "10" in said and "0 to 9" in said and str(path) in said
    assert "255" in message(images.read_label, path, 11, ignore_index=0)
    cv2.imwrite(str(path), np.array([[0, 300]], np.uint16))
    assert "300" in message(images.read_label, path, 11)
    cv2.imwrite(str(path), picture())
    assert "3" in message(images.read_label, path, 11)


def test_list_images(tmp_path: Path) -> None:
    names = ["b.JPG", "a.png", "sub/c.TIF", "sub/d.webp", "with blank.bmp", "notes.md", ".hidden.png", ".dir/e.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files, root = images.list_images(tmp_path)
    assert [os.path.relpath(file, root) for file in files] == ["a.png", "b.JPG", "sub/c.TIF", "sub/d.webp", names[4]]
    assert images.list_images(tmp_path / "a.png") == ([str(tmp_path / "a.png")], str(tmp_path))
    (tmp_path / "list.txt").write_text("sub/c.TIF label.png\n\nwith blank.bmp\n")
    assert images.list_images(tmp_path / "list.txt")[0] == [str(tmp_path / "sub/c.TIF"), str(tmp_path / names[4])]
    (tmp_path / "list.txt").write_text("a.png\ngone.png\n")
    assert "line 2" in message(images.list_images, tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("\n")
    assert "empty" in message(images.list_images, tmp_path / "list.txt")
    (tmp_path / "film.mp4").write_bytes(b"\x00\xff\xfe")
    assert "neither" in message(images.list_images, tmp_path / "film.mp4")
    (tmp_path / "nothing").mkdir()
    assert "no pictures" in message(images.list_images, tmp_path / "nothing")
    assert "no such" in message(images.list_images, tmp_path / "gone")


# Writing and drawing


def test_write_png_keeps_indices_and_colours(tmp_path: Path) -> None:
    labels, colours = (picture(channels=1) % 11).astype(np.uint8), classes.palette("CamVid", 11)
    labels[0, 0] = 255
    images.write_png(tmp_path / "new/label.png", labels, colours)
    written = Image.open(tmp_path / "new/label.png")
    assert written.mode == "P" and np.array_equal(np.asarray(written), labels)
    assert np.array_equal(np.asarray(written.convert("RGB"))[..., ::-1], images.colorize(labels, colours))
    assert np.array_equal(images.read_label(tmp_path / "new/label.png", 11), labels)


def test_nothing_is_left_where_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "suffix" in message(images.write_image, tmp_path / "image.xyz", picture())

    def full_disk(self: Path, data: bytes) -> int:
        with open(self, "wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        images.write_image(tmp_path / "image.png", picture())
    assert list(tmp_path.iterdir()) == []


def test_overlay_mixes_and_keeps_what_is_not_labelled() -> None:
    image, labels = np.full((1, 2, 3), 100, np.uint8), np.array([[0, 255]], np.uint8)
    mixed = images.overlay(image, labels, np.array([[200, 0, 0]], np.uint8))
    assert mixed.tolist() == [[[60, 60, 140], [100, 100, 100]]]


def test_side_by_side_shows_every_picture_and_every_colour() -> None:
    colours, names = classes.palette("CamVid", 11), classes.class_names("CamVid", 11)
    labels = np.arange(12, dtype=np.uint8).repeat(20)[None].repeat(60, 0)
    labels[labels == 11] = 255
    entries = images.legend_entries([labels], names, colours)
    assert [name for name, _ in entries] == names
    drawn = images.side_by_side([("input", picture(60, 240)), ("truth", images.colorize(labels, colours))], entries)
    strip = images.legend(entries, drawn.shape[1])
    for colour in colours:
        assert (strip == colour[::-1]).all(axis=-1).any(), f"colour {colour} is not in the legend"
    assert drawn.shape[0] > 60 + strip.shape[0] and (picture(60, 240) == drawn[28:88, 6:246]).all()
