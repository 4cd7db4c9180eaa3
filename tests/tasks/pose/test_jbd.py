"""The converter of the jump broadcast data set, on made-up files in its authors' form."""

import json
import re

import cv2
import numpy as np
import pytest

from paddle_rt.inference.keypoints import JBD
from paddle_rt.tasks.pose.coco import read_annotations
from paddle_rt.tasks.pose.datasets import CocoKeypoints
from paddle_rt.tasks.pose.jbd import convert, read_boxes, read_keypoints
from tests.helpers import call_tool, message, refused

HEADER = ";".join(["event", "frame_num", "athlete", "slowmotion", *(f"{n}_{c}" for n in JBD.names for c in "xys")])


def row(event: int, frame: int, shift: int = 0, seen: int = 20) -> str:
    points = [f"{20 + shift + i};{30 + 2 * i};{2 if i < seen else 0}" for i in range(20)]
    return f"{event};{frame};Some Athlete;0;{';'.join(points)}"


def write(folder, name: str, *lines: str) -> str:
    (folder / name).write_text("\n".join(lines) + "\n")
    return str(folder / name)


@pytest.fixture
def data(tmp_path):
    """Write two splits with their frames, and a file of boxes in which one frame is missing."""
    for name in ("keypoints", "frames/3", "frames/12"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("3/3_(00007)", "3/3_(00019)", "12/12_(01234)"):
        cv2.imwrite(str(tmp_path / f"frames/{name}.jpg"), np.full((80, 100, 3), 90, np.uint8))
    write(tmp_path / "keypoints", "train.csv", "#2;;;", HEADER, row(3, 7), row(3, 19, 5, 0))
    write(tmp_path / "keypoints", "val.csv", "#1", HEADER, row(12, 1234, 30))
    write(tmp_path, "boxes.csv", "# 2 boxes", "image_id, min_x, min_y, width, height", "3_(00007),10.9,5,40.7,70",
          "12_(01234),40,20,70,59")  # fmt: skip
    return tmp_path


def test_annotations_with_boxes_of_a_file(data):
    counts = convert(data / "keypoints", data / "frames", data / "out", data / "boxes.csv")
    assert counts == {"train": (1, 1), "val": (1, 0)}
    content = json.loads((data / "out/train_jump.json").read_text())
    assert content["images"] == [{"id": 300007, "file_name": "3/3_(00007).jpg", "width": 100, "height": 80}]
    (person,) = content["annotations"]
    assert (person["id"], person["image_id"], person["bbox"]) == (300007, 300007, [10, 5, 40, 70])
    assert person["area"] == pytest.approx(0.53 * 40 * 70) and person["num_keypoints"] == 20
    assert person["keypoints"][:6] == [20, 30, 1, 21, 32, 1] and len(person["keypoints"]) == 60
    val = CocoKeypoints([], str(data / "out/val_jump.json"), str(data / "frames"), "val")
    assert val.keypoints == JBD and val.file.category["skeleton"][0] == [1, 2]
    item = val.person(0)
    assert item["id"] == 1201234 and item["bbox"].tolist() == [40, 20, 99, 79]
    assert item["area"] == pytest.approx(0.53 * 59 * 59)


def test_boxes_follow_from_the_keypoints_without_a_file(data):
    assert convert(data / "keypoints", data / "frames", data / "out") == {"train": (1, 1), "val": (1, 0)}
    (person,) = read_annotations(data / "out/train_jump.json").annotations
    assert person["bbox"] == [16, 21, 27, 56], "x 20-39 and 4 more on each side, y 30-68 and 9 more"
    (person,) = read_annotations(data / "out/val_jump.json").annotations
    assert person["bbox"] == [46, 21, 27, 56]


def test_the_tool(data, capsys):
    arguments = ("--keypoints", data / "keypoints", "--images", data / "frames", "--output", data / "out")
    assert call_tool("data/prepare_jbd", *arguments) == 0
    out, err = capsys.readouterr()
    assert f"{data}/out/train_jump.json: 1 frames" in out
    assert "warning: 1 frames of train are left out: they have no box" in err
    code = call_tool("data/prepare_jbd", *arguments, "--boxes", data / "none.csv")
    refused((code, *capsys.readouterr()), "no file of boxes at")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((HEADER, row(1, 2)), "line 1: expected # and the number of rows"),
        (("#", HEADER), "line 1: expected # and the number of rows"),
        (("#2", HEADER, row(1, 2)), "line 1 says 2 rows, but there are 1"),
        (("#1", HEADER.replace("neck", "nack"), row(1, 2)), "'nack_x' in place of 'neck_x'"),
        (("#1", HEADER.replace(";", ","), row(1, 2)), "with ';' between"),
        (("#1",), "expected the names"),
        (("#1", HEADER, row(1, 2) + ";1"), "line 3: 65 values, expected 64"),
        (("#1", HEADER, row(1, 2).replace("1;2;", "a;2;")), "line 3: event and frame_num must be"),
        (("#1", HEADER, row(1, 2).replace("20;30", "20;x")), "line 3: expected finite numbers, got 'x'"),
        (("#1", HEADER, row(1, 2).replace("20;30", "nan;30")), "line 3: expected finite numbers, got 'nan'"),
        (("#2", HEADER, row(1, 2), row(1, 2)), r"line 4: the frame 1_\(00002\) stands there twice"),
    ],
)
def test_a_fault_of_a_file_of_keypoints_is_named(tmp_path, lines, expected):
    assert re.search(expected, message(read_keypoints, write(tmp_path, "train.csv", *lines)))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("1_(00002),1,2,3", "line 2: 4 values, expected 5"),
        ("1_(00002),1,2,3,x", "line 2: expected finite numbers"),
        ("1_(00002),1,2,-3,4", "line 2: width and height must not be negative"),
    ],
)
def test_a_fault_of_a_file_of_boxes_is_named(tmp_path, line, expected):
    path = write(tmp_path, "boxes.csv", "image_id, min_x, min_y, width, height", line)
    assert expected in message(read_boxes, path)


def test_an_error_in_one_split_leaves_no_file_of_another(data):
    (data / "frames/12/12_(01234).jpg").write_bytes(b"no image")  # of val, which comes after train
    assert "12_(01234).jpg" in message(convert, data / "keypoints", data / "frames", data / "out")
    assert not (data / "out").exists()


def test_missing_files(data, tmp_path):
    (data / "frames/3/3_(00019).jpg").unlink()
    text = message(convert, data / "keypoints", data / "frames", data / "out")
    assert "1 of 2 frames are missing; the first is" in text and "train.csv, line 4" in text
    assert "no train.csv, val.csv or test.csv in" in message(convert, data / "out", data / "frames", data / "out")
    (data / "keypoints/val.csv").write_bytes(b"#1\n\xff\n")
    assert "is not UTF-8, the encoding of a file of keypoints" in message(read_keypoints, data / "keypoints/val.csv")
