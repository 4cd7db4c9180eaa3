"""Files of boxes: which image gets which people, and what is no such file."""

import json
import pathlib

import numpy as np
import pytest

from paddle_rt.inference.boxes import BoxFile, whole_image
from tests.helpers import message


def write(path: pathlib.Path, content: object) -> pathlib.Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def result(image: object, box: list, **more: object) -> dict:
    return {"image_id": image, "bbox": box, **more}


def test_results_of_coco(tmp_path):
    people = [result(139, [10, 20, 30, 40.5], score=0.9, category_id=1), result(139, [1, 2, 3, 4], category_id=1)]
    others = [result(139, [0, 0, 9, 9], category_id=3), result(785, [5, 5, 1, 1], category_id=1, score=0.5)]
    file = BoxFile(write(tmp_path / "b.json", people + others))
    found = file.of("in/000000000139.jpg", "000000000139.jpg")
    np.testing.assert_array_equal(found.boxes, [[10, 20, 40, 60.5], [1, 2, 4, 6]])
    assert found.scores.tolist() == [np.float32(0.9), 1.0] and found.image_id == 139
    assert file.unused == [785]
    assert file.of("in/COCO_val2014_000000000785.jpg", "COCO_val2014_000000000785.jpg").image_id == 785
    assert file.unused == []
    nobody = file.of("in/a.jpg", "a.jpg")
    assert nobody.boxes.shape == (0, 4) and nobody.scores.shape == (0,) and nobody.image_id == "a.jpg"
    cars = BoxFile(tmp_path / "b.json", category=3)
    np.testing.assert_array_equal(cars.of("x/139.png", "139.png").boxes, [[0, 0, 9, 9]])


def test_ids_of_the_jump_broadcast_data_set_are_all_digits_of_a_name(tmp_path):
    file = BoxFile(write(tmp_path / "b", [result(300012, [0, 0, 1, 1]), result(12, [5, 0, 1, 1])]))
    assert file.of("j/3/3_(00012).jpg", "3/3_(00012).jpg").boxes[0, 0] == 0
    assert file.of("j/0/0_(00012).jpg", "0/0_(00012).jpg").boxes[0, 0] == 5


def test_annotations_name_their_files(tmp_path):
    content = {
        "images": [{"id": 7, "file_name": "a/x.jpg"}, {"id": 8, "file_name": "b/x.jpg"}],
        "annotations": [
            result(7, [0, 1, 2, 3], category_id=1, id=1),
            result(8, [4, 5, 6, 7], category_id=1, id=2),
            result(8, [4, 5, 60, 70], category_id=1, id=3, iscrowd=1),
        ],
    }
    file = BoxFile(write(tmp_path / "b.json", content))
    assert file.of("in/b/x.jpg", "b/x.jpg").boxes.tolist() == [[4, 5, 10, 12]]
    found = file.of("in/a/x.jpg", "a/x.jpg")
    assert found.boxes.tolist() == [[0, 1, 2, 4]] and found.image_id == 7


def test_lines_of_text(tmp_path):
    lines = [
        "a.jpg 1 2 3 4",
        "./sub/b 1.5 2 30 40 0.25",
        "",
        "my photo 12.png\t5 6 7 8 1",
        "003 9 9 19 19",
        "3 1 1 2 2 0",
    ]
    file = BoxFile(write(tmp_path / "b.txt", "\ufeff" + "\r\n".join(lines)))
    assert file.of("in/a.jpg", "a.jpg").boxes.tolist() == [[1, 2, 3, 4]]
    assert file.of("in/sub/b.jpeg", "sub/b.jpeg").scores.tolist() == [0.25]
    assert file.of("in/my photo 12.png", "my photo 12.png").boxes.tolist() == [[5, 6, 7, 8]]
    frame = file.of("v.mp4, frame 3", "000003")
    assert frame.boxes.tolist() == [[9, 9, 19, 19], [1, 1, 2, 2]] and frame.image_id == 3
    assert frame.scores.tolist() == [1, 0] and file.of("v.mp4, frame 4", "000004").boxes.shape == (0, 4)


def test_a_number_behind_a_name_is_no_score_above_one(tmp_path):
    file = BoxFile(write(tmp_path / "b.txt", "frame 12 10 20 30 40"))
    assert file.of("frame 12.jpg", "frame 12.jpg").boxes.tolist() == [[10, 20, 30, 40]]


@pytest.mark.parametrize("content", ["", "[]", '{"images": [], "annotations": []}'])
def test_a_file_may_have_nobody(tmp_path, content):
    file = BoxFile(write(tmp_path / "b", content))
    assert file.of("a.jpg", "a.jpg").boxes.shape == (0, 4) and file.unused == []


def test_one_name_stands_for_one_image(tmp_path):
    file = BoxFile(write(tmp_path / "b.txt", "1 1 2 3 4"))
    file.of("in/a/1.jpg", "a/1.jpg")
    file.of("in/a/1.jpg", "a/1.jpg")
    assert "1 stands for in/a/1.jpg and for in/b/1.jpg; give their paths" in message(file.of, "in/b/1.jpg", "b/1.jpg")


def test_without_a_file_an_image_is_one_box():
    found = whole_image("a/000012.jpg")
    assert found.boxes is None and found.scores.tolist() == [1] and found.image_id == 12
    assert whole_image("a/x12.jpg").image_id == "a/x12.jpg"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a 1 2 3", "line 1: expected image x1 y1 x2 y2 and, if there is one, a score from 0 to 1, got 'a 1 2 3'"),
        ("a 1 2 3 4\n1 2 3 4", "line 2: expected image"),
        ("a 1 2 nan 4", "line 1: expected image"),
        ('[{"image_id": 1, ', "is not whole or not JSON"),
        ("[" * 100_000, "is not whole or not JSON"),
        ("{}", "is neither COCO's results, a list, nor COCO's annotations, with images and annotations"),
        ('{"images": [{"id": 1}], "annotations": []}', "image 0: expected a mapping with id and file_name"),
        ('{"images": [{"id": [], "file_name": "a"}], "annotations": []}', "image 0: id is a number or a text"),
        ("[3]", "entry 0: expected a mapping with image_id"),
        ([result(1, [1, 2, 3, 4]), result(None, [1, 2, 3, 4])], "entry 1: expected a mapping with image_id"),
        ([result(True, [1, 2, 3, 4])], "entry 0: expected a mapping with image_id"),
        ([result(1, [1, 2, 3])], "entry 0: bbox is [x, y, width, height] and score a number"),
        ([result(1, [1, 2, 3, 4], score="high")], "entry 0: bbox is [x, y, width, height] and score a number"),
        ('[{"image_id": 1, "bbox": [NaN, 1, 1, 1]}]', "entry 0: bbox is"),
        ([result(1, [1, 2, 3, 4], category_id=0)], "has no box of category 1, only of 0; choose one"),
        ([result(1, [1, 2, 3, 4], category_id="1")], "entry 0: category_id is a whole number, got '1'"),
        ([result(1, [1, 2, 3, 4], category_id=[1])], "entry 0: category_id is a whole number, got [1]"),
    ],
)  # fmt: skip
def test_other_files_are_refused(tmp_path, content, expected):
    path = write(tmp_path / "b", content)
    text = message(BoxFile, path)
    assert expected in text and str(path) in text and "\n" not in text


def test_files_that_cannot_be_read_are_refused(tmp_path):
    assert "no file of boxes at" in message(BoxFile, tmp_path / "none")
    assert "is a folder" in message(BoxFile, tmp_path)
    (tmp_path / "latin").write_bytes("a 1 2 3 4\nß 1 2 3 4".encode("latin-1"))
    assert "latin, line 2: not UTF-8" in message(BoxFile, tmp_path / "latin")
