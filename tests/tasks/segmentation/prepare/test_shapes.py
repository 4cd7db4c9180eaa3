"""Shapes of LabelMe and COCO become the labels that these tools themselves make of them."""

import json
import math
import re

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from paddle_rt.imaging.polygons import find_polygons, open_coco, write_labelme
from paddle_rt.tasks.segmentation.prepare import coco, labelme
from paddle_rt.tasks.segmentation.prepare.samples import Options
from tests.helpers import message
from tests.tasks.segmentation.prepare import annotations as made

SIZE = (60, 80)
SHAPES = [
    made.shape("Straße", [[1, 1], [70.5, 2], [40, 50.2]]),
    made.shape("猫", [[30, 30], [10, 10]], "rectangle"),
    made.shape("disc", [[50, 40], [55, 40]], "circle"),
    made.shape("line", [[0, 0], [79, 59]], "line"),
    made.shape("dot", [[60, 10]], "point"),
    made.shape("strip", [[5, 50], [20, 55.5], [30, 45]], "linestrip"),
    made.shape("corners", [[62, 2], [78, 2], [78, 8], [62, 8]], "rectangle"),
    made.shape("turned", [[60, 50], [70, 45], [75, 50], [65, 57]], "oriented_rectangle"),
]


def labels_of(folder, shapes, **options):
    made.photos(folder, ["a.png"])
    made.labelme(folder / "a.json", shapes, "a.png")
    source = labelme.read([str(folder)], Options(**options))
    return source.names, source.samples[0].draw(SIZE)


def as_labelme_draws(shape):
    """Return the pixels of a shape by the calls of Pillow that LabelMe's documentation of its masks states."""
    image = Image.new("1", SIZE[::-1])
    draw, points, kind = ImageDraw.Draw(image), [tuple(point) for point in shape["points"]], shape["shape_type"]
    if kind in ("circle", "point"):
        (x, y), r = points[0], 5 if kind == "point" else math.dist(*points)
        draw.ellipse([x - r, y - r, x + r, y + r], outline=1, fill=1)
    elif kind == "rectangle":
        draw.rectangle([*np.min(points, 0), *np.max(points, 0)], outline=1, fill=1)
    elif kind in ("line", "linestrip"):
        draw.line(points, fill=1, width=10)
    else:
        draw.polygon(points, outline=1, fill=1)
    return np.array(image)


def test_every_shape_of_labelme_and_later_ones_on_top(tmp_path):
    names, drawn = labels_of(tmp_path, SHAPES)
    assert names == ["background", *sorted(shape["label"] for shape in SHAPES)]
    expected, covered = np.zeros(SIZE, np.uint8), np.zeros(SIZE, int)
    for shape in SHAPES:
        mask = as_labelme_draws(shape)
        assert mask.sum() > 10
        expected[mask] = names.index(shape["label"])
        covered += mask
    wrong = int((drawn.labels != expected).sum())
    print(f"pixels that differ from LabelMe's: {wrong}")
    assert wrong == 0 and drawn.overlap == (covered > 1).sum()


def test_masks_of_labelme_at_their_corner_and_cut_at_the_border(tmp_path):
    mask = np.zeros((11, 21), np.uint8)
    mask[3:8, :15] = 1
    inside = made.shape("a", [[10, 20], [30, 30]], "mask", mask=made.png(mask))
    outside = made.shape("b", [[70, -4], [90, 6]], "mask", mask=made.png(mask * 255))
    _, drawn = labels_of(tmp_path, [inside, outside])
    expected = np.zeros(SIZE, np.uint8)
    expected[23:28, 10:25] = 1
    expected[0:4, 70:80] = 2
    assert np.array_equal(drawn.labels, expected)


def test_names_are_one_in_every_unicode_form_and_ignore_is_255(tmp_path):
    shapes = [made.shape("Café ", [[0, 0], [9, 9]], "rectangle"),
              made.shape("Cafe\u0301", [[20, 0], [29, 9]], "rectangle"),
              made.shape("__ignore__", [[40, 0], [49, 9]], "rectangle"),
              made.shape("_background_", [[5, 5], [9, 9]], "rectangle")]  # fmt: skip
    names, drawn = labels_of(tmp_path, shapes)
    assert names == ["background", "Café"]
    assert [int(drawn.labels[2, x]) for x in (2, 22, 42, 60)] == [1, 1, 255, 0] and drawn.labels[7, 7] == 0
    names, drawn = labels_of(tmp_path, shapes[:3], unlabelled="ignore")
    assert names == ["Café"] and drawn.labels[2, 60] == 255 and drawn.labels[2, 2] == 0


def test_smaller_shapes_on_top_and_the_order_of_given_classes(tmp_path):
    shapes = [made.shape("small", [[10, 10], [19, 19]], "rectangle"),
              made.shape("large", [[0, 0], [50, 50]], "rectangle"),
              made.shape("flat", [[1, 1], [2, 2]])]  # fmt: skip
    names, drawn = labels_of(tmp_path, shapes, classes=["small", "large", "flat"])
    assert names == ["background", "small", "large", "flat"] and drawn.labels[15, 15] == 2
    _, drawn = labels_of(tmp_path, shapes, classes=["small", "large", "flat"], by_area=True)
    assert (drawn.labels[15, 15], drawn.labels[40, 40]) == (1, 2)
    assert (drawn.overlap, drawn.without_area) == (100, 1)


def test_images_of_labelme_beside_it_elsewhere_or_embedded(tmp_path):
    folder, other = tmp_path / "json", tmp_path / "photos"
    made.photos(folder, ["a.png", "not annotated.png"])
    made.photos(other, ["b.jpg"])
    shapes = [made.shape("x", [[0, 0], [9, 9]], "rectangle")]
    made.labelme(folder / "a.json", shapes, "a.png")
    made.labelme(folder / "b.json", shapes, "..\\photos somewhere\\b.jpg")
    made.labelme(folder / "c.json", shapes, "c.png", imageData=made.png(made.photo(7)))
    source = labelme.read([str(folder)], Options([str(other)]))
    images = [sample.image for sample in source.samples]
    assert images == [str(folder / "a.png"), str(other / "b.jpg"), str(folder / "c.json")]
    assert cv2.imdecode(np.frombuffer(source.samples[2].embedded(), np.uint8), 1).shape == (*SIZE, 3)
    assert len(source.notes) == 1 and "not annotated.png" in source.notes[0]


@pytest.mark.parametrize(("change", "expected"), [
    ({"shapes": {}}, "'shapes' must be a list"),
    ({"shapes": [made.shape(" ", [[0, 0], [1, 1]], "rectangle")]}, "shape 1: the name of a class"),
    ({"shapes": [made.shape("a", [[0, 0]], "rectangle")]}, "a rectangle has 2 or 4 points, got 1"),
    ({"shapes": [made.shape("a", [[0, 0], [1]], "line")]}, r"must be a list of \[x, y\]"),
    ({"shapes": [made.shape("a", [[0, 0], [1, float("nan")], [3, 3]])]}, "a point lies at nan"),
    ({"shapes": [made.shape("a", [[0, 0], [1, 1e9], [3, 3]])]}, "a point lies at 1000000000.0"),
    ({"shapes": [made.shape("a", [[0, 0]], "poligon")]}, "unknown shape_type 'poligon', did you mean 'polygon'"),
    ({"shapes": [made.shape("a", [[0, 0], [1, 1]], "mask", mask="?")]}, "mask must be an image in base64"),
    ({"shapes": [made.shape("a", [[0, 0], [1, 1]], "mask", mask="QUJD")]}, "cannot decode image of the mask in"),
    ({"shapes": [made.shape("b", [[0, 0], [1, 1]], "line")]}, "unknown class 'b'"),
    ({"imageHeight": 61}, "drawn on an image of 80x61, but its image is 80x60"),
    ({"imagePath": "gone.png"}, "no image 'gone.png' in .*--images"),
    ({"shapes": []}, "hold no class"),
])  # fmt: skip
def test_faults_of_labelme_files(tmp_path, change, expected):
    made.photos(tmp_path, ["a.png"])
    made.labelme(tmp_path / "a.json", **{"shapes": [], "image": "a.png", **change})
    classes = [] if change.get("shapes") == [] else ["a"]

    def read():
        labelme.read([str(tmp_path)], Options(classes=classes)).samples[0].draw(SIZE)

    assert re.search(expected, message(read))


@pytest.mark.parametrize(("text", "expected"), [
    (b"{", "is not valid JSON"),
    (b"\xff\xfe", "is not UTF-8"),
    (b"[]", "has no 'shapes'"),
    (b"[" * 100_000, "is not valid JSON"),
])  # fmt: skip
def test_files_that_are_no_annotations(tmp_path, text, expected):
    (tmp_path / "a.json").write_bytes(text)
    assert expected in message(labelme.read, [str(tmp_path)], Options())
    assert expected.replace("shapes", "images") in message(coco.read, [str(tmp_path / "a.json")], Options())


def coco_labels(folder, entries, categories=None, **options):
    made.photos(folder / "images", ["a.jpg", "b.jpg"])
    file = made.coco(folder / "instances.json", ["a.jpg", "b.jpg"], entries, categories or {90: "猫", 3: "dog"})
    source = coco.read([str(file)], Options([str(folder / "images")], **options))
    return source, source.samples[0].draw(SIZE)


def run_lengths(mask):
    flat, counts, value = mask.T.reshape(-1), [], 0
    edges = [0, *np.flatnonzero(np.diff(flat)) + 1, flat.size]
    for start, end in zip(edges, edges[1:], strict=False):
        if flat[start] != value:
            counts.append(0)
            value = flat[start]
        counts.append(int(end - start))
        value = 1 - value
    return counts


def test_polygons_and_run_lengths_of_coco_as_pycocotools_reads_them(tmp_path):
    from pycocotools import mask as reference
    from pycocotools.coco import COCO

    disc = np.zeros(SIZE, np.uint8)
    cv2.circle(disc, (40, 30), 12, 1, -1)
    packed = reference.encode(np.asfortranarray(disc))
    entries = [
        {"image_id": 1, "category_id": 3, "segmentation": [[1.5, 2, 70, 3.2, 30, 50], *made.box(60, 40, 70, 50)]},
        {"image_id": 1, "category_id": 90, "segmentation": {"size": [60, 80], "counts": packed["counts"].decode()}},
        {"image_id": 1, "category_id": 3, "iscrowd": 1,
         "segmentation": {"size": [60, 80], "counts": run_lengths(np.roll(disc, 9, 0))}},
    ]  # fmt: skip
    source, drawn = coco_labels(tmp_path, entries)
    assert source.names == ["background", "dog", "猫"]  # by their ids, 3 and 90
    assert source.notes == ["images without an annotation: 1 of 2"]
    api = COCO(str(tmp_path / "instances.json"))
    expected = np.zeros(SIZE, np.uint8)
    for number, value in ((3, 1), (1, 1), (2, 2)):  # the group first
        expected[api.annToMask(api.anns[number]) > 0] = value
    wrong = int((drawn.labels != expected).sum())
    print(f"pixels that differ from pycocotools': {wrong}")
    assert wrong == 0 and drawn.overlap > 0 and not source.samples[1].draw(SIZE).labels.any()


def test_the_smaller_annotation_on_top_on_request(tmp_path):
    entries = [{"image_id": 1, "category_id": 90, "segmentation": made.box(10, 10, 20, 20)},
               {"image_id": 1, "category_id": 3, "segmentation": made.box(0, 0, 50, 50)}]  # fmt: skip
    assert coco_labels(tmp_path, entries)[1].labels[15, 15] == 1
    assert coco_labels(tmp_path, entries, by_area=True)[1].labels[15, 15] == 2


GOOD = {"image_id": 1, "category_id": 3, "segmentation": made.box(0, 0, 9, 9)}


@pytest.mark.parametrize(("change", "expected"), [
    ({"image_id": 7}, "image_id 7 is no image"),
    ({"image_id": []}, r"image_id \[\] is no image"),
    ({"category_id": 7}, "category_id 7 is no category"),
    ({"segmentation": []}, "has no segmentation"),
    ({"segmentation": [[1, 2, 3]]}, "a polygon must be a list"),
    ({"segmentation": [["a", 2, 3, 4, 5, 6]]}, "points must be a list"),
    ({"segmentation": {"size": [80, 60], "counts": [4800]}}, r"the size \[60, 80\]"),
    ({"segmentation": {"size": [60, 80], "counts": [4799]}}, "must cover the 4800 pixels"),
    ({"segmentation": {"size": [60, 80], "counts": [-1, 4801]}}, "must cover the 4800 pixels"),
    ({"segmentation": {"size": [60, 80], "counts": "\x7f"}}, "no compressed run lengths"),
    ({"segmentation": {"size": [60, 80], "counts": "P"}}, "end within a number"),
])  # fmt: skip
def test_faults_of_coco_annotations(tmp_path, change, expected):
    assert re.search(expected, message(coco_labels, tmp_path, [{**GOOD, **change}]))


def test_faults_of_coco_files(tmp_path):
    _, _ = coco_labels(tmp_path, [GOOD])
    content = json.loads((tmp_path / "instances.json").read_text())

    def read(**change):
        (tmp_path / "changed.json").write_text(json.dumps({**content, **change}))
        source = coco.read([str(tmp_path / "changed.json")], Options([str(tmp_path / "images")]))
        return source.samples[0].draw(SIZE)

    first = content["images"][0]
    assert "must be a list that is not empty" in message(read, images=[])
    assert "the id 1 occurs twice" in message(read, images=[first, first])
    assert "no image 'gone.jpg'" in message(read, images=[{**first, "file_name": "gone.jpg"}, content["images"][1]])
    assert "for an image of 90x60, but it is 80x60" in message(
        read, images=[{**first, "width": 90}, content["images"][1]]
    )


def test_categories_of_several_files_of_coco(tmp_path):
    """Ids may be texts in one file and numbers in another, and may stand for other names there."""
    made.photos(tmp_path, ["a.png", "b.png"])
    shapes = [{"image_id": 1, "category_id": number, "segmentation": made.box(5, 5, 20, 20)} for number in (9, 10)]
    made.coco(tmp_path / "one.json", ["a.png"], shapes, {9: "nine", 10: "ten", 11: "eleven"})
    made.coco(tmp_path / "other.json", ["b.png"], shapes, {9: "ten", 10: "nine"})
    content = json.loads((tmp_path / "other.json").read_text())
    for entry in (*content["categories"], *content["images"], *content["annotations"]):
        entry |= {key: str(entry[key]) for key in ("id", "image_id", "category_id") if key in entry}
    (tmp_path / "other.json").write_text(json.dumps(content))
    source = coco.read([str(tmp_path / name) for name in ("one.json", "other.json")], Options())
    assert source.names == ["background", "nine", "ten", "eleven"]
    assert [np.unique(sample.draw(SIZE).labels).tolist() for sample in source.samples] == [[0, 2], [0, 1]]
    source = coco.read([str(tmp_path / "other.json")], Options())
    assert source.names == ["background", "ten", "nine"]


def test_polygons_of_results_come_back_as_the_same_labels(tmp_path):
    """All but pixels at borders, which LabelMe and COCO draw each in their own way."""
    (image,) = made.photos(tmp_path, ["a.png"])
    labels = (cv2.GaussianBlur(made.photo(3), (0, 0), 4)[..., 0].astype(int) // 50).clip(0, 3).astype(np.uint8)
    labels[20:40, 20:40], labels[26:34, 26:34], labels[50, 5:60] = 1, 2, 3  # a hole that is filled, and a line
    inner = cv2.dilate(labels, np.ones((5, 5))) == cv2.erode(labels, np.ones((5, 5)))
    names, polygons = ["background", "car", "person", "pole"], find_polygons(labels, range(4))
    write_labelme(tmp_path / "a.json", image, SIZE, polygons, names)
    options = Options([str(tmp_path)], names[1:])
    found = {"labelme": labelme.read([str(tmp_path)], options)}
    with open_coco(tmp_path / "coco.json", names) as add:
        add(image.name, SIZE, polygons)
    found["coco"] = coco.read([str(tmp_path / "coco.json")], options)
    for kind, source in found.items():
        drawn = source.samples[0].draw(SIZE).labels
        assert source.names == names and set(np.unique(drawn)) == set(np.unique(labels)) == {0, 1, 2, 3}
        wrong, share = int((drawn != labels)[inner].sum()), np.mean(drawn != labels)
        assert wrong == 0 and share < 0.06, f"{kind}: {wrong} pixels inside of regions, {share:.1%} of all differ"
