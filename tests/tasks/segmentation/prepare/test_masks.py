"""Masks in colours, of two values and of class numbers; YOLO's polygons and CVAT's XML."""

import re

import cv2
import numpy as np
import pytest

from paddle_rt.imaging.labels import read_label
from paddle_rt.tasks.segmentation.prepare import cvat, yolo
from paddle_rt.tasks.segmentation.prepare.masks import read_palette
from paddle_rt.tasks.segmentation.prepare.samples import Options
from tests.helpers import call_tool, message, refused
from tests.tasks.segmentation.prepare import annotations as made

SIZE = (60, 80)
CLASSES = np.zeros(SIZE, np.uint8)
CLASSES[10:30, 10:40], CLASSES[40:, 50:] = 1, 2
NUMBER = 4  # of images


def masks(folder, draw, suffix=".png", ending=""):
    """Write images and the masks that a function makes of their class numbers."""
    made.photos(folder / "images", [f"{i}.jpg" for i in range(NUMBER)])
    (folder / "masks").mkdir()
    for i in range(NUMBER):
        mask = draw(CLASSES)
        if isinstance(mask, bytes):
            (folder / f"masks/{i}{ending}{suffix}").write_bytes(mask)
        else:
            cv2.imwrite(str(folder / f"masks/{i}{ending}{suffix}"), mask)


def run(folder, kind, *flags):
    line = [
        "--input",
        folder / "masks",
        "--images",
        folder / "images",
        "--output",
        folder / "out",
        "--model",
        "none",
        *flags,
    ]
    return call_tool("data/prepare_data", "--format", kind, *line)


def written(folder, number):
    """Return the labels that were written, which are all alike, and the names."""
    labels = [read_label(folder / f"out/labels/{i}.png", number) for i in range(NUMBER)]
    assert all(np.array_equal(labels[0], other) for other in labels)
    return labels[0], (folder / "out/labels.txt").read_text(encoding="utf-8").splitlines()


COLOURS = np.array([[0, 0, 0], [10, 200, 30], [7, 8, 9]], np.uint8)  # red, green, blue


def test_coloured_masks_become_classes_with_their_colours(tmp_path):
    masks(tmp_path, lambda classes: COLOURS[classes][..., ::-1], ending="_L")
    (tmp_path / "palette.txt").write_text("# a comment\n10 200 30\tÄpfel\n#070809 Birnen\nvoid_is_ground: 0,0,0\n")
    assert run(tmp_path, "color_masks", "--palette", tmp_path / "palette.txt") == 0
    labels, names = written(tmp_path, 3)
    assert names == ["Äpfel", "Birnen", "void_is_ground"]
    assert np.array_equal(labels, np.array([2, 0, 1], np.uint8)[CLASSES])
    shown = cv2.imread(str(tmp_path / "out/labels/0.png"))[..., ::-1]
    assert np.array_equal(shown, COLOURS[CLASSES])


def test_several_colours_of_one_class_and_ignored_ones(tmp_path):
    masks(tmp_path, lambda classes: COLOURS[classes][..., ::-1])
    (tmp_path / "palette.txt").write_text("0 0 0 __ignore__\n10 200 30 fruit\n7 8 9 fruit\n")
    assert run(tmp_path, "color_masks", "--palette", tmp_path / "palette.txt") == 0
    labels, names = written(tmp_path, 1)
    assert names == ["fruit"] and np.array_equal(labels, np.where(CLASSES == 0, 255, 0))


def test_without_a_palette_the_colours_are_shown(tmp_path, capsys):
    masks(tmp_path, lambda classes: COLOURS[classes][..., ::-1])
    assert run(tmp_path, "color_masks") == 1
    err = capsys.readouterr().err
    assert "3 colours were found\n0 0 0 name0\n" in err
    (tmp_path / "p.txt").write_text("0 0 0 a\n10 200 30 b\n")
    refused(
        (run(tmp_path, "color_masks", "--palette", tmp_path / "p.txt"), *capsys.readouterr()), r"\(7, 8, 9\).* none of"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("line", "expected"), [
    ("0 0 256 a", "up to 255"), ("0 0 a", "expected a colour"), ("1 2 3", "expected a colour"),
    ("1 2 3 a\n1,2,3 b", "has a name already, 'a'"), ("1 2 3 __ignore__", "names no class"),
])  # fmt: skip
def test_faults_of_palettes(tmp_path, line, expected):
    (tmp_path / "p.txt").write_text(line)
    assert expected in message(read_palette, tmp_path / "p.txt")


def test_palettes_of_cvat_and_camvid(tmp_path):
    (tmp_path / "p.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\n64 128 64\t\tAnimal\n1;2;3;Big cat\n"
    )
    assert read_palette(tmp_path / "p.txt") == [
        ((0, 0, 0), "background"),
        ((64, 128, 64), "Animal"),
        ((1, 2, 3), "Big cat"),
    ]


def soft(classes):
    """Return a JPEG of a mask of 0 and 255, whose edges are neither."""
    return cv2.imencode(".jpg", np.where(classes > 0, 255, 0).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])[
        1
    ].tobytes()


@pytest.mark.parametrize(("name", "draw", "suffix"), [
    ("0 and 255", lambda classes: np.where(classes > 0, 255, 0).astype(np.uint8), ".png"),
    ("0 and 1", lambda classes: (classes > 0).astype(np.uint8), ".png"),
    ("black and white", lambda classes: np.dstack([np.where(classes > 0, 255, 0).astype(np.uint8)] * 3), ".bmp"),
    ("black and red", lambda classes: np.array([[0, 0, 0], [0, 0, 200]], np.uint8)[(classes > 0).astype(int)], ".png"),
    ("JPEG", soft, ".jpg"),
])  # fmt: skip
def test_binary_masks(tmp_path, name, draw, suffix):
    masks(tmp_path, draw, suffix)
    assert run(tmp_path, "binary_masks", "--classes", "猫") == 0
    labels, names = written(tmp_path, 2)
    wrong = int((labels != (CLASSES > 0)).sum())
    print(f"{name}: {wrong} pixels differ")
    assert names == ["background", "猫"] and wrong <= (20 if name == "JPEG" else 0)


def test_class_masks_with_and_without_names(tmp_path):
    masks(tmp_path, lambda classes: np.where(classes == 2, 255, classes).astype(np.uint8))
    assert run(tmp_path, "class_masks") == 0
    labels, names = written(tmp_path, 2)
    assert names == ["class 0", "class 1"] and np.array_equal(labels, np.where(CLASSES == 2, 255, CLASSES))
    (tmp_path / "out").rename(tmp_path / "first")
    (tmp_path / "names.txt").write_text("a\nb\nc c\n")
    assert run(tmp_path, "class_masks", "--classes", tmp_path / "names.txt") == 0
    assert written(tmp_path, 3)[1] == ["a", "b", "c c"]


FAULTS = {
    "several values": ("binary_masks", lambda classes: classes * 60, [], "holds 3 values, such as 0, 60, 120"),
    "grey levels": ("class_masks", lambda classes: classes * 60, [], "0, 60, 120, which leave large gaps"),
    "0 and 255": ("class_masks", lambda classes: np.where(classes > 0, 255, 0).astype(np.uint8), [], "binary_masks"),
    "beyond": ("class_masks", lambda classes: classes, ["--classes", "a", "b"], "label values 2 are out of range"),
    "colours": ("class_masks", lambda classes: COLOURS[classes], [], "must be one channel of class numbers"),
    "three names": ("binary_masks", lambda classes: classes, ["--classes", "a", "b", "c"], "--classes names 3"),
    "size": ("class_masks", lambda classes: classes[1:], [], r"is \(80, 59\), but its image is \(80, 60\)"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_masks_that_are_refused(tmp_path, capsys, name):
    kind, draw, flags, expected = FAULTS[name]
    masks(tmp_path, draw)
    refused((run(tmp_path, kind, *flags), *capsys.readouterr()), expected)
    assert {path.name for path in tmp_path.iterdir()} == {"images", "masks"}


def test_pairs_that_are_not_whole(tmp_path, capsys):
    masks(tmp_path, lambda classes: classes)
    (tmp_path / "masks/3.png").unlink()
    refused((run(tmp_path, "class_masks"), *capsys.readouterr()), "1 image without a label of the same name")
    line = ["--format", "class_masks", "--input", tmp_path / "masks", "--output", tmp_path / "out", "--model", "none"]
    refused((call_tool("data/prepare_data", *line), *capsys.readouterr()), "masks need --images")


def yolo_data(folder, text="1 0.25 0.5 0.75 0.5 0.5 0.9\n0 0 0 1 0 1 0.2 0 0.2\n1 0 0 1 1\n", **changes):
    for split in ("train", "val"):
        made.photos(folder / f"images/{split}", ["a.jpg", "b.jpg"])
        (folder / f"labels/{split}").mkdir(parents=True)
        (folder / f"labels/{split}/a.txt").write_text(text)
    lines = {
        "path": "/somewhere/else",
        "train": "images/train",
        "val": "images/val",
        "names": "{0: 狗, 1: cat}",
        **changes,
    }
    (folder / "data.yaml").write_text("".join(f"{key}: {value}\n" for key, value in lines.items() if value is not None))
    return yolo.read([str(folder / "data.yaml")], Options())


def test_polygons_of_yolo_as_ultralytics_fills_them(tmp_path):
    source = yolo_data(
        tmp_path, "1 0.25 0.5 0.75 0.5 0.5 0.9\n0 0 0 1 0 1 0.2 0 0.2\n1 0 0 1 1 \n".replace("\n1 0 0 1 1 ", "")
    )
    assert (
        source.names == ["background", "狗", "cat"] and [s.split for s in source.samples] == ["train"] * 2 + ["val"] * 2
    )
    expected = np.zeros(SIZE, np.uint8)
    cv2.fillPoly(expected, [np.array([[20, 30], [60, 30], [40, 54]], np.int32)], 2)
    cv2.fillPoly(expected, [np.array([[0, 0], [80, 0], [80, 12], [0, 12]], np.int32)], 1)
    drawn = source.samples[0].draw(SIZE)
    assert np.array_equal(drawn.labels, expected) and not source.samples[1].draw(SIZE).labels.any()
    assert source.notes == ["images without a .txt, which are without objects: 2 of 4"]


def test_the_smaller_polygon_of_yolo_lies_on_top(tmp_path, capsys):
    yolo_data(tmp_path, "1 0.2 0.2 0.4 0.2 0.4 0.4 0.2 0.4\n0 0 0 1 0 1 1 0 1\n")
    line = ["--format", "yolo", "--input", tmp_path / "data.yaml", "--model", "none", "--output"]
    call_tool("data/prepare_data", *line, tmp_path / "out")  # ends with 1: the images of the splits are the same
    assert "the smaller one lies on top (--on_top later for the other rule)" in capsys.readouterr().out
    assert read_label(tmp_path / "out/labels/train/a.png", 3)[15, 25] == 2
    call_tool("data/prepare_data", *line, tmp_path / "later", "--on_top", "later")
    assert read_label(tmp_path / "later/labels/train/a.png", 3)[15, 25] == 1


@pytest.mark.parametrize(("text", "changes", "expected"), [
    ("1 0 0 1 1\n", {}, "line 1: this is a box"),
    ("2 0 0 1 1 1 0\n", {}, "line 1: the class must be a number from 0 to 1, got '2'"),
    ("1 0 0 1 1 1\n", {}, "expected a class and pairs of numbers"),
    ("1 0 0 1 1 x 1\n", {}, "expected a class and pairs of numbers"),
    ("", {"names": "{1: a}"}, "'names' must list the classes from 0 on"),
    ("", {"train": "gone"}, "train names 'gone', which is neither"),
    ("", {"train": None, "val": None}, "names no images"),
])  # fmt: skip
def test_faults_of_yolo(tmp_path, text, changes, expected):
    assert re.search(expected, message(lambda: yolo_data(tmp_path, text, **changes).samples[0].draw(SIZE)))


POLYGON = '<polygon label="猫" source="manual" occluded="0" points="10.5,10;60,12;30,50" z_order="1"></polygon>'
BOX = '<box label="car" occluded="0" xtl="5.00" ytl="5.00" xbr="40.00" ybr="30.00" z_order="0"></box>'
MASK = '<mask label="car" rle="3, 2, 3" left="70" top="50" width="4" height="2" z_order="2"></mask>'
LABELS = {"car": "#ff0010", "猫": "#00ff00"}


def cvat_labels(folder, elements, labels=None):
    made.photos(folder / "images", ["a.jpg", "b.jpg"])
    file = made.cvat(
        folder / "annotations.xml", {"a.jpg": elements, "b.jpg": '<tag label="car"></tag>'}, labels or LABELS
    )
    source = cvat.read([str(file)], Options())
    return source, source.samples[0].draw(SIZE)


def test_shapes_of_cvat_by_their_z_order(tmp_path):
    from pycocotools import mask as reference

    source, drawn = cvat_labels(tmp_path, POLYGON + BOX + MASK)
    assert source.names == ["background", "car", "猫"] and list(source.colours) == [
        (0, 0, 0),
        (255, 0, 16),
        (0, 255, 0),
    ]
    expected = np.zeros(SIZE, np.uint8)
    expected[5:30, 5:40] = 1
    polygon = reference.decode(reference.merge(reference.frPyObjects([[10.5, 10, 60, 12, 30, 50]], *SIZE)))
    expected[polygon > 0] = 2  # its z_order is larger
    expected[50, 73] = expected[51, 70] = 1
    assert np.array_equal(drawn.labels, expected) and drawn.overlap > 0
    assert source.notes == ["images without a shape: 1 of 2"]


def test_ellipses_and_turned_boxes_of_cvat(tmp_path):
    ellipse = '<ellipse label="car" cx="40" cy="30" rx="20" ry="10" z_order="0"></ellipse>'
    _, drawn = cvat_labels(tmp_path, ellipse)
    assert abs(int(drawn.labels.sum()) - np.pi * 200) < 15
    _, drawn = cvat_labels(tmp_path, BOX.replace("<box", '<box rotation="90"'))
    expected = np.zeros(SIZE, np.uint8)
    expected[0:35, 10:35] = 1
    assert (drawn.labels != expected).mean() < 0.02


@pytest.mark.parametrize(("elements", "expected"), [
    (POLYGON.replace("10.5,10", "10.5"), "points must be a list of"),
    (POLYGON.replace("10.5", "x"), "points must be x,y"),
    (POLYGON.replace("猫", "dog"), "unknown class 'dog'"),
    (BOX.replace('xtl="5.00"', ""), "xtl ytl xbr ybr must be numbers"),
    (MASK.replace("3, 2, 3", "3, 2"), "the run lengths must cover a box"),
    (MASK.replace('left="70"', 'left="78"'), "the run lengths must cover a box in the image"),
    ('<points label="car" points="1,1"></points>', "a points has no area"),
    ("<track", "is not valid XML"),
    ("<track></track>", "holds tracks of a video"),
])  # fmt: skip
def test_faults_of_cvat(tmp_path, elements, expected):
    assert expected in message(cvat_labels, tmp_path, elements)


def test_class_numbers_that_were_saved_as_colours(tmp_path):
    masks(tmp_path, lambda classes: classes[..., None].repeat(3, 2))
    assert run(tmp_path, "class_masks") == 0
    labels, names = written(tmp_path, 3)
    assert np.array_equal(labels, CLASSES) and names == ["class 0", "class 1", "class 2"]


def test_masks_of_0_1_and_255_are_not_binary(tmp_path, capsys):
    """255 is not labelled there, and must not become the class while 1 becomes the background."""
    masks(tmp_path, lambda classes: np.array([0, 1, 255], np.uint8)[classes])
    refused((run(tmp_path, "binary_masks"), *capsys.readouterr()), "holds 3 values, such as 0, 1, 255; .*class_masks")
    assert run(tmp_path, "class_masks") == 0
    assert np.array_equal(written(tmp_path, 2)[0], np.array([0, 1, 255])[CLASSES])


def test_soft_edges_of_coloured_masks_are_named(tmp_path, capsys):
    (tmp_path / "colours.txt").write_text("0 0 0 background\n10 200 30 leaf\n7 8 9 stem\n")
    masks(tmp_path, lambda classes: cv2.GaussianBlur(COLOURS[classes][..., ::-1], (5, 5), 0))
    line = run(tmp_path, "color_masks", "--palette", tmp_path / "colours.txt")
    refused((line, *capsys.readouterr()), "are none of the 3 in palette.*without soft edges")


def test_paths_of_roboflow(tmp_path):
    """They lead out of the folder of data.yaml, in which the images are."""
    folder = tmp_path / "deep"
    folder.mkdir()
    source = yolo_data(folder, "1 0.25 0.5 0.75 0.5 0.5 0.9\n", path=None, train="../images/train", val="../images/val")
    assert [sample.split for sample in source.samples] == ["train"] * 2 + ["val"] * 2
