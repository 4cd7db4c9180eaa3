"""Lists of images: encodings, separators, blanks and lines that cannot be read."""

from pathlib import Path

import pytest

from paddle_rt.imaging.lists import read_images, read_pairs
from tests.helpers import message

PLAIN = "a.png b.png\nc.png d.png\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "c.png", "d.png", "with two blanks.png", "its label.png", "with two", "grün.png"):
        (tmp_path / name).touch()
    return tmp_path


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "list.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        "\ufeff" + PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.replace("\n", "\n\n  \n"),
        PLAIN.replace(" ", "\t"),
        PLAIN.replace(" ", "  "),
        PLAIN.rstrip("\n"),
        PLAIN.replace("\n", " \n"),
    ],
)
def test_what_is_no_content_is_skipped(folder: Path, content: str) -> None:
    path = write(folder, content)
    assert read_pairs(path, folder) == [
        [str(folder / a), str(folder / b)] for a, b in (("a.png", "b.png"), ("c.png", "d.png"))
    ]
    assert read_images(path, folder) == [str(folder / "a.png"), str(folder / "c.png")]


def test_separators_blanks_and_lacking_labels(folder: Path) -> None:
    path = write(folder, f"with two blanks.png its label.png\n{folder}/grün.png b.png\n")
    assert read_pairs(path, folder)[0] == [str(folder / "with two blanks.png"), str(folder / "its label.png")]
    assert read_pairs(path, folder)[1] == [str(folder / "grün.png"), str(folder / "b.png")]
    path = write(folder, "with two blanks.png, its label.png\n")
    assert read_pairs(path, folder, ",") == [[str(folder / "with two blanks.png"), str(folder / "its label.png")]]
    path = write(folder, "a.png\nb.png c.png\nwith two blanks.png\n")
    expected = [["a.png", None], ["b.png", "c.png"], ["with two blanks.png", None]]
    expected = [[name and str(folder / name) for name in pair] for pair in expected]
    assert read_pairs(path, folder, may_lack_labels=True) == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a.png b.png\nc.png\n", "line 2: expected an image and its label with ' ' between them"),
        ("a.png,b.png\n", "line 1: expected an image and its label"),
        ("a.png b.png c.png\n", "line 1: expected an image and its label"),
        ("a.png b.png\n\ngone.png d.png\n", "line 3: no image at "),
        ("a.png gone.png\n", "line 1: no label at "),
        ("images\\a.png b.png\n", "line 1: no image at "),
        ("a.png b\0.png\n", "cannot be the name of a file (label)"),
        ("with two blanks.png\n", "line 1: expected an image and its label"),
        (b"a.png b.png\nb.png " + "照片.png\n".encode("gbk"), "line 2: not UTF-8"),
        ("a.png b.png\n" + "a " * 9_000 + "b.png\n", "line 2: 18005 characters, expected at most 10000"),
        ("n" * 5_000 + " b.png\n", "line 1: "),
        (b"\n \n", "is empty"),
        (b"", "is empty"),
    ],
)
def test_other_lines_are_refused_by_number(folder: Path, content: str | bytes, said: str) -> None:
    path = write(folder, content)
    text = message(read_pairs, path, folder)
    assert said in text and str(path) in text and len(text) < 500, text


def test_lines_with_two_meanings_are_refused(folder: Path) -> None:
    (folder / "blanks.png its").touch()
    (folder / "label.png").touch()
    path = write(folder, "with two blanks.png its label.png\n")
    (folder / "with two blanks.png its").touch()
    assert "line 1: 2 readings" in message(read_pairs, path, folder)
    assert "no list of images" in message(read_pairs, folder / "gone.txt", folder)
    assert "is a folder" in message(read_pairs, folder, folder)
