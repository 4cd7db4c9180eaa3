"""Data sets of pose: what they give, and what they refuse."""

import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest

from paddle_rt.errors import UserError
from paddle_rt.inference.keypoints import COCO, JBD, KeypointSet
from paddle_rt.tasks.loader import Loader
from paddle_rt.tasks.pose.coco import parse, read_annotations, read_detections
from paddle_rt.tasks.pose.datasets import CocoKeypoints, StreetPeople
from paddle_rt.tasks.pose.transforms import GetBBoxCenterScale, Normalize, TopdownAffine
from tests.helpers import message

STEPS = [GetBBoxCenterScale(), TopdownAffine([24, 32]), Normalize()]
POINTS = [10, 12, 2, 30, 8, 1, 0, 0, 0]


def person(number: int = 1, **changes: object) -> dict:
    entry = {"id": number, "image_id": 7, "category_id": 3, "bbox": [5, 4, 30, 20], "keypoints": POINTS, **changes}
    return {key: value for key, value in entry.items() if value is not None}


def content(*people: dict, **changes: object) -> dict:
    """Return an annotation file of one image of 48x36 and persons with three keypoints."""
    return {
        "images": [{"id": 7, "file_name": "a/x.png", "width": 48, "height": 36}],
        "categories": [
            {"id": 1, "name": "dog"},
            {"id": 3, "name": "jumper", "keypoints": ["head", "left", "right"], "skeleton": [[1, 2], [1, 3]]},
        ],
        "annotations": list(people) or [person()],
        **changes,
    }


@pytest.fixture
def files(tmp_path):
    """Write an image, and return a function that writes a file of annotations or detections and returns its path."""
    image = np.random.default_rng(0).integers(0, 256, (36, 48, 3), np.uint8)
    (tmp_path / "a").mkdir()
    cv2.imwrite(str(tmp_path / "a/x.png"), image)

    def write(value: object, name: str = "people.json") -> str:
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        (tmp_path / name).write_bytes(text)
        return str(tmp_path / name)

    write.image, write.root = image, str(tmp_path)
    return write


def test_an_item_of_an_annotation(files):
    data = CocoKeypoints([], files(content(person(area=55, bbox=[-4, 30, 20, 20]))), files.root)
    item = data.person(0)
    assert len(data) == 1 and np.array_equal(item["img"], files.image)
    assert item["bbox"].tolist() == [0, 30, 16, 35] and item["bbox"].dtype == np.float32
    assert item["keypoints"].tolist() == [[10, 12], [30, 8], [0, 0]] and item["visible"].tolist() == [1, 1, 0]
    assert (item["area"], item["image_id"], item["id"], item["bbox_score"]) == (55, 7, 1, 1)
    assert item["image_path"] == f"{files.root}/a/x.png"


def test_keypoints_come_from_the_category(files):
    path = files(content())
    found = CocoKeypoints.keypoints_of({"annotations": path})
    assert (found.names, found.skeleton, found.category) == (("head", "left", "right"), ((0, 1), (0, 2)), "jumper")
    assert found.flip_pairs is None and found.sigmas is None
    jbd = files(
        content(categories=[{"id": 3, "name": "athlete", "keypoints": list(JBD.names)}], annotations=[]), "jbd.json"
    )
    assert read_annotations(jbd).keypoints == replace(JBD, category="athlete")
    given = {"names": ["a", "b", "c"], "flip_pairs": [[1, 2]], "category": "jumper"}
    assert CocoKeypoints([], path, files.root, keypoints=given).keypoints.flip_pairs == ((1, 2),)
    assert CocoKeypoints.keypoints_of({"annotations": "none", "keypoints": given}).names == ("a", "b", "c")


def test_who_is_left_out(files):
    people = [
        person(1),
        person(2, iscrowd=1, keypoints=None),
        person(3, num_keypoints=0),
        person(4, keypoints=[0] * 9),
        person(5, bbox=[50, 0, 9, 9]),
        person(6, bbox=[5, 4, 30, 0]),
        person(7, category_id=1, keypoints=None),
        person(8, keypoints=[-4, -5, 2, 0, 0, 0, 0, 0, 0]),
        person(0, num_keypoints=2),
    ]
    data = CocoKeypoints([], files(content(*people)), files.root)
    assert [data.person(i)["id"] for i in range(len(data))] == [1, 0]
    truth = data.coco_ground_truth()
    assert [entry["id"] for entry in truth["annotations"]] == [2, 3, 4, 5, 6, 7, 9, 1], "ids start with 1"
    assert [entry["num_keypoints"] for entry in truth["annotations"]] == [2, 0, 0, 0, 2, 2, 1, 2]
    assert truth["annotations"][0]["area"] == pytest.approx(0.53 * 30 * 20) and truth["categories"][0]["id"] == 3
    assert truth["annotations"][1]["iscrowd"] == 1 and truth["annotations"][1]["keypoints"] == [0] * 9


def test_missing_numbers_follow_mmpose():
    found = parse(person(keypoints=[25, 25, 2, 30, 30, 0, 0, 0, 0], bbox=[40, 30, 30, 30]), 48, 36)
    assert found.num_keypoints == 2, "coordinates count, not visibility"
    assert found.area == np.float32(0.53 * 7 * 5) and found.visible.tolist() == [1, 0, 0] and found.kept


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"{", "is not valid JSON: .* in line 1, column 2"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"[" * 100_000, "lie too deep"),
        (b'{"images": ' + b"1" * 5000 + b"}", "a number that is too long"),
        ([], "the file must be a mapping with the keys images"),
        (content(images=None), "images must be a list, got None"),
        ({"images": [], "categories": []}, "annotations is missing"),
        (content(images=[3]), r"images\[0\] must be a mapping"),
        (content(images=[{"id": 7, "file_name": "x", "width": 0, "height": 3}]), r"images\[0\].width must be"),
        (content(images=[{"id": "7", "file_name": "x", "width": 1, "height": 3}]), r"images\[0\].id must be a whole"),
        (content(images=[content()["images"][0]] * 2), r"images\[1\]: the id 7 stands twice"),
        (content(categories=[{"id": 3, "name": "person"}]), "no category has keypoints .*'person'"),
        (content(categories=content()["categories"][1:] * 2), r"categories\[1\]: the id 3 stands twice"),
        (
            content(categories=[{"id": i, "name": f"p{i}", "keypoints": ["a"]} for i in (3, 4)]),
            "no category is named 'person'; the file has 'p3', 'p4'",
        ),
        (content(categories=[{"id": 3, "name": "p", "keypoints": ["a"] * 3}]), "all different"),
        (content(categories=[{"id": 3, "name": "p", "keypoints": ["a"], "skeleton": [[0, 1]]}]), "the first being 1"),
        (content(person(), person()), r"annotations\[1\]: the id 1 stands twice"),
        (content(person(id=None)), r"annotations\[0\].id is missing"),
        (content(person(image_id=8)), "annotation 1: there is no image with the id 8"),
        (content(person(category_id=9)), "annotation 1: there is no category with the id 9"),
        (content(person(keypoints=None)), "annotation 1 has no keypoints; use a file of keypoint annotations"),
        (content(person(keypoints=POINTS[:8])), "annotation 1 has 8 values in keypoints, expected 9"),
        (content(person(keypoints=[float("nan")] * 9)), "annotation 1.keypoints must be a list of finite numbers"),
        (content(person(keypoints=["1"] * 9)), "annotation 1.keypoints must be a list of finite numbers"),
        (content(person(keypoints=[10**400] * 9)), "annotation 1.keypoints must be a list of finite numbers"),
        (content(person(bbox=None)), "annotation 1.bbox is missing"),
        (content(person(bbox=[1, 2, -3, 4])), "annotation 1.bbox must be .* not negative"),
        (content(person(bbox=[1, 2, 3])), "annotation 1.bbox must be .*four finite numbers"),
        (content(person(bbox=[1, 2, 3, float("inf")])), "annotation 1.bbox must be"),
        (content(person(area=-1)), "annotation 1.area must be a number of at least 0"),
        (content(person(num_keypoints=2.5)), "annotation 1.num_keypoints must be a whole number"),
        (content(person(iscrowd=2)), "annotation 1.iscrowd must be 0 or 1"),
    ],
)
def test_a_fault_of_an_annotation_file_is_named(files, value, expected):
    path = files(value)
    text = message(read_annotations, path)
    assert text.startswith(path) and "\n" not in text
    assert re.search(expected, text), text


def test_annotations_that_do_not_fit_the_config(files):
    path = files(content())
    assert "no category is named 'person'" in message(read_annotations, path, COCO)
    names = KeypointSet(("a", "b"), category="jumper")
    assert "has 3 keypoints, but 2 are expected" in message(read_annotations, path, names)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"image_root": "/none"}, "no folder /none"),
        ({"mode": "vall"}, "did you mean 'val'"),
        ({"bbox_file": "b.json"}, "set use_gt_bbox: False"),
        ({"use_gt_bbox": False, "mode": "val"}, "needs bbox_file"),
        ({"use_gt_bbox": False, "bbox_file": "b.json"}, "train with use_gt_bbox: True"),
        ({"image_thre": 2}, "image_thre must be a number from 0 to 1"),
    ],
)
def test_arguments_that_do_not_fit(files, arguments, expected):
    path = files(content())
    assert expected in message(lambda: CocoKeypoints(**{"transforms": [], "annotations": path, "image_root": files.root,
                                                        **arguments}))  # fmt: skip


def test_images_that_are_missing_or_broken(files, tmp_path):
    two = [*content()["images"], {"id": 8, "file_name": "b.png", "width": 48, "height": 36}]
    path = files(content(person(), person(2, image_id=8), images=two))
    text = message(CocoKeypoints, [], path, files.root)
    assert f"1 of the 2 images with people in {path} are missing; the first is {files.root}/b.png" in text
    (tmp_path / "b.png").write_text("text")
    data = CocoKeypoints(STEPS, path, files.root)
    assert data[0]["img"].shape == (3, 32, 24)
    assert message(data.person, 1).startswith(f"{path}, annotation 2: cannot decode image {files.root}/b.png")
    cv2.imwrite(str(tmp_path / "b.png"), files.image[1:])
    assert "annotation 2: image" in message(data.person, 1) and "has 48x35 pixels, but the file" in message(
        data.person, 1
    )
    empty = files(content(person(num_keypoints=0)))
    assert "no person with keypoints and a box, of 1 images" in message(CocoKeypoints, [], empty, files.root)


def detection(**changes: object) -> dict:
    return {"image_id": 7, "category_id": 3, "bbox": [1, 2, 10.5, 20], "score": 0.75, **changes}


def test_boxes_of_a_detector(files, caplog):
    boxes = [detection(), detection(category_id=1), detection(score=0.2), detection(bbox=[40, 30, 20, 20]),
             detection(bbox=[3, 3, 0, 9]), detection(bbox=[500, 3, 1e-6, 9])]  # fmt: skip
    path = files(boxes, "boxes.json")
    data = CocoKeypoints(STEPS, files(content()), files.root, "val", bbox_file=path, use_gt_bbox=False, image_thre=0.3)
    assert len(data) == 2 and "2 boxes without extent are left out" in caplog.text
    item = data.person(1)
    assert item["bbox"].tolist() == [40, 30, 60, 50], "not clipped, as in the original"
    assert (item["bbox_score"], item["image_id"], item["id"]) == (0.75, 7, 1) and not item["visible"].any()
    assert data[0]["img"].shape == (3, 32, 24) and len(data.coco_ground_truth()["annotations"]) == 1
    none = CocoKeypoints([], files(content()), files.root, "val", bbox_file=files([], "n.json"), use_gt_bbox=False)
    assert len(none) == 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"[}", "is not valid JSON"),
        ({}, "expected a list of detections"),
        ([3], "entry 0 must be a mapping"),
        ([detection(), detection(image_id=8)], "entry 1: image_id 8 is no image of"),
        ([detection(score="1")], "entry 0.score must be a number"),
        ([detection(score=float("nan"))], "entry 0.score must be a number"),
        ([detection(bbox=[0, 0, -1, 1])], "entry 0.bbox must be .* not negative"),
        ([{"image_id": 7}], "entry 0.category_id is missing"),
        ([detection(category_id=1)], r"has no box of category 3 \(jumper\)"),
    ],
)
def test_a_fault_of_a_file_of_detections_is_named(files, value, expected):
    path, annotations = files(value, "boxes.json"), read_annotations(files(content()))
    assert re.search(expected, message(read_detections, path, annotations))


WRONG = (None, True, -1, 10**30, float("nan"), "x", [[]])


def changed(value: object):
    """Yield copies of a value of JSON in each of which one part, or all, is replaced by something wrong or is gone."""
    yield from WRONG
    if isinstance(value, list | dict):
        for key in range(len(value)) if isinstance(value, list) else list(value):
            for part in changed(value[key]):
                copy = value.copy()
                copy[key] = part
                yield copy
            copy = value.copy()
            del copy[key]
            yield copy


def test_no_file_raises_anything_but_a_users_error(files):
    """Each file is read, or refused in one line that begins with its name."""
    image, good = files.root, files(content())
    results = [0, 0]
    for broken in changed(content(person(area=5.5, iscrowd=0, num_keypoints=2))):
        path = files(broken)
        try:
            CocoKeypoints([], path, image).coco_ground_truth()
            results[0] += 1
        except UserError as error:
            assert path in str(error) and "\n" not in str(error), broken
            results[1] += 1
    files(content())
    for broken in changed([detection()]):
        path = files(broken, "boxes.json")
        try:
            len(CocoKeypoints([], good, image, "val", bbox_file=path, use_gt_bbox=False))
            results[0] += 1
        except UserError as error:
            assert str(error).startswith(path) and "\n" not in str(error), broken
            results[1] += 1
    assert results[0] > 20 and results[1] > 400, results


def test_rendered_people_as_a_data_set():
    data, again = (StreetPeople(STEPS, "val", 5, 60, 80, cache_mb=mb) for mb in (8, 0))
    assert len(data) == 5 and data.keypoints is COCO
    items = [data.person(i) for i in range(5)]
    assert [item["image_id"] for item in items] == [1, 1, 2, 2, 2] and [item["id"] for item in items] == [1, 2, 3, 4, 5]
    for index in (4, 0):
        other = again.person(index)
        assert np.array_equal(other["img"], items[index]["img"])
        assert np.array_equal(other["keypoints"], items[index]["keypoints"])
    assert not again._frames and len(data._frames) == 2
    assert items[0]["visible"].dtype == np.float32 and set(np.unique(items[0]["visible"])) <= {0, 1}
    truth = again.coco_ground_truth()
    assert [image["id"] for image in truth["images"]] == [1, 2] and len(truth["annotations"]) == 5
    for item, entry in zip(items, truth["annotations"], strict=True):
        x, y, w, h = entry["bbox"]
        assert np.allclose([x, y, x + w, y + h], item["bbox"], atol=1e-4) and entry["area"] == item["area"]
        points = np.reshape(entry["keypoints"], (17, 3))
        assert np.array_equal(points[:, :2].astype(np.float32), item["keypoints"])
        assert entry["num_keypoints"] == item["visible"].sum()
    json.dumps(truth)


def test_rendered_people_have_coco_s_keypoints_only():
    changed = replace(COCO, sigmas=(0.1,) * 17)
    assert StreetPeople([], num_samples=1, keypoints=changed).keypoints.sigmas == (0.1,) * 17
    assert "StreetPeople has COCO's keypoints" in message(StreetPeople, [], keypoints="jbd")
    assert "at most three times the other" in message(StreetPeople, [], height=32, width=320)


def test_worker_processes_give_the_same_items():
    data = StreetPeople(STEPS, "val", 4, 48, 64)
    batches = [batch["img"].numpy() for batch in Loader(data, batch_size=2, num_workers=2)]
    assert np.array_equal(np.concatenate(batches), np.stack([data[i]["img"] for i in range(4)]))
