"""Values and colours of label files as classes, and images and labels that are paired by name."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from paddle_rt.imaging import write_label
from paddle_rt.imaging.folders import pair_folders, require_pairs
from paddle_rt.imaging.label_format import LabelFormat, read_colours
from paddle_rt.imaging.labels import read_label
from tests.helpers import message

COLOURS = [(0, 0, 0), (128, 64, 0), (1, 2, 3)]


def written(path: Path, values: list, kind: type = np.uint8) -> Path:
    """Write a grey label image of one row, or a coloured one of RGB values."""
    row = np.array([values], kind)
    cv2.imwrite(str(path), row[..., ::-1] if row.ndim == 3 else row)
    return path


@pytest.mark.parametrize(
    ("arguments", "values", "expected"),
    [
        ({}, [0, 2, 255], [0, 2, 255]),
        ({"label_map": {0: 0, 255: 1}}, [0, 255], [0, 1]),
        ({"label_map": {7: 0, 8: 2, 0: 255}}, [0, 7, 8, 255], [255, 0, 2, 255]),
        ({"label_map": {0: 0, 300: 1, 44: 2}, "ignore_index": -1}, [0, 44], [0, 2]),
        ({"reduce_zero_label": True}, [0, 1, 3, 255], [255, 0, 2, 255]),
        ({"ignore_index": 1}, [0, 1, 2], [0, 1, 2]),
        ({"palette": COLOURS}, [*COLOURS[::-1], COLOURS[0]], [2, 1, 0, 0]),
        ({"palette": [*COLOURS, (9, 9, 9)]}, [(9, 9, 9), (1, 2, 3)], [255, 2]),
        ({"palette": [(9, 9, 9), *COLOURS], "reduce_zero_label": True}, [(9, 9, 9), (1, 2, 3)], [255, 2]),
        ({"palette": COLOURS, "label_map": {0: 1, 1: 1, 2: 255}}, COLOURS, [1, 1, 255]),
        ({"palette": [(0, 0, 0), (255, 255, 255)], "num_classes": 2}, [0, 255], [0, 1]),  # a grey file
    ],
)
def test_values_become_classes(tmp_path: Path, arguments: dict, values: list, expected: list) -> None:
    labels = LabelFormat(**{"num_classes": 3, **arguments}).read(written(tmp_path / "a.png", values))
    assert labels.tolist() == [expected] and labels.dtype == (
        np.int16 if arguments.get("ignore_index") == -1 else np.uint8
    )


def test_an_indexed_file_has_indices_and_colours(tmp_path: Path) -> None:
    write_label(tmp_path / "a.png", np.array([[0, 1, 2]], np.uint8), np.array(COLOURS, np.uint8))
    assert LabelFormat(3).read(tmp_path / "a.png").tolist() == [[0, 1, 2]]
    assert LabelFormat(3, palette=COLOURS[::-1]).read(tmp_path / "a.png").tolist() == [[2, 1, 0]]


def test_numbers_beyond_a_byte_stay_what_they_are(tmp_path: Path) -> None:
    labels = read_label(written(tmp_path / "a.png", [0, 300, 999], np.uint16), 301, 999)
    assert labels.tolist() == [[0, 300, 999]]
    assert read_label(tmp_path / "a.png", 1000, -100).dtype == np.int16


@pytest.mark.parametrize(
    ("arguments", "values", "said"),
    [
        ({"label_map": {0: 0, 7: 1}}, [0, 5], "a.png: label_map says nothing of the label values 5; it has the values"),
        ({"palette": COLOURS, "label_map": {0: 0}}, [COLOURS[1]], "are none of the 1 in palette and label_map"),
        ({"reduce_zero_label": True}, [4], "a.png: reduce_zero_label says nothing of the label values 4"),
        ({"palette": COLOURS}, [(7, 8, 9)], "colours (7, 8, 9) (red, green, blue) are none of the 3 in palette"),
        ({}, [COLOURS[1]], "name its colours by palette in a data set of type Dataset"),
    ],
)  # fmt: skip
def test_what_the_format_says_nothing_about_is_refused(tmp_path: Path, arguments: dict, values: list, said: str):
    assert said in message(LabelFormat(3, **arguments).read, written(tmp_path / "a.png", values))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"label_map": {0: 3}}, "label_map gives 0 the class 3, but classes are 0 to 2, and 255 is ignored"),
        ({"label_map": {0: 0}, "reduce_zero_label": True}, "label_map and reduce_zero_label are both given"),
        ({"palette": COLOURS[:2]}, "palette has 2 colours, expected one for each of 3 labels"),
        ({"palette": COLOURS, "reduce_zero_label": True}, "palette has 3 colours, expected one for each of 4 labels"),
        ({"palette": [*COLOURS, COLOURS[1]]}, "palette names the colour (128, 64, 0) twice"),
        ({"palette": COLOURS, "label_map": {3: 0}}, "label_map names position 3 of palette, which has 3 colours"),
    ],
)
def test_contradictions_are_refused(arguments: dict, said: str) -> None:
    assert said in message(LabelFormat, 3, **arguments)


def test_colours_of_classes() -> None:
    mapped = LabelFormat(2, palette=COLOURS, label_map={0: 255, 1: 1, 2: 0})
    assert mapped.class_colours().tolist() == [list(COLOURS[2]), list(COLOURS[1])]
    assert LabelFormat(3, palette=COLOURS).class_colours().tolist() == [list(colour) for colour in COLOURS]
    assert LabelFormat(3).class_colours() is None
    assert LabelFormat(2, palette=COLOURS, label_map={0: 0}).class_colours() is None, "class 1 has no colour"


def test_colours_are_numbers(tmp_path: Path) -> None:
    assert [hex(code) for code in read_colours(written(tmp_path / "a.png", [(1, 2, 3)]))[0]] == ["0xff010203"]


def folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize("ending", ["", "_mask", "_gtFine_labelIds"])
def test_folders_are_paired_by_name(tmp_path: Path, ending: str) -> None:
    images = folder(tmp_path / "images", "b.jpg", "a.PNG", "x/a1.jpg", "x/a10.jpg")
    labels = folder(tmp_path / "labels", *(f"{name}{ending}.png" for name in ("a", "b", "x/a1", "x/a10")))
    pairs = require_pairs(pair_folders(images, labels), images, labels)
    assert [Path(image).stem for image, _ in pairs] == ["a", "b", "a1", "a10"]
    assert [Path(label).stem for _, label in pairs] == [f"{name}{ending}" for name in ("a", "b", "a1", "a10")]


def test_files_that_are_alone_are_refused(tmp_path: Path) -> None:
    images, labels = folder(tmp_path / "i", "a.jpg", "b.jpg", "c.jpg"), folder(tmp_path / "l", "a.png", "d.png")
    found = pair_folders(images, labels)
    assert [len(part) for part in (found.pairs, found.images, found.labels)] == [1, 2, 1]
    assert "2 images without a label of the same name in" in message(require_pairs, found, images, labels)
    (images / "b.jpg").unlink()
    (images / "c.jpg").unlink()
    assert "1 label without an image" in message(require_pairs, pair_folders(images, labels), images, labels)
    twice = pair_folders(folder(images, "a.png"), labels)
    assert "differ in their suffix alone" in message(require_pairs, twice, images, labels)
    assert "no folder" in message(pair_folders, tmp_path / "gone", labels)


def test_a_label_of_another_kind_hides_no_pair(tmp_path: Path) -> None:
    """One label without the ending of the others is alone, and does not leave all images without labels."""
    images = folder(tmp_path / "i", "a.jpg", "b.jpg", "c.jpg")
    labels = folder(tmp_path / "l", "A first.png", "a_mask.png", "b.png", "b_mask.png", "c_mask.png")
    found = pair_folders(images, labels)
    assert [Path(label).name for _, label in found.pairs] == ["a_mask.png", "b_mask.png", "c_mask.png"]
    assert found.images == [] and [Path(label).name for label in found.labels] == ["A first.png", "b.png"]
