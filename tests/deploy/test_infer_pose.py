"""deploy/python/infer.py on exports for pose: boxes from files, skeletons, videos, and results in COCO's form."""

import json

import cv2
import numpy as np
import pytest

from paddle_rt.imaging import body_sides, draw_skeletons
from paddle_rt.inference import PoseEstimator
from paddle_rt.inference.keypoints import COCO, JBD
from tests.helpers import read_video, refused, write_video, written
from tests.inference import test_classifier
from tests.inference.test_pose_estimator import BOXES, DOTS, PLACES, dotted, write_export
from tests.tools.conftest import call  # noqa: F401  the fixture


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return write_export(tmp_path_factory.mktemp("pose") / "e")


@pytest.fixture
def infer(call, exported, tmp_path):  # noqa: F811
    """Run the tool on a path: exit code, stdout, stderr."""

    def run(path: object, *more: object) -> tuple[int, str, str]:
        engine = ("--backend", "onnxruntime", "--threads", "1")
        return call("infer", "--config", exported, "--image_path", path, "--save_dir", tmp_path / "out", *engine, *more)

    return run


def results(folder) -> list[dict]:
    return json.loads((folder / "out/keypoints.json").read_text())


def test_a_folder_with_boxes_of_a_detector(infer, exported, tmp_path):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    frame = dotted(PLACES)
    for name in ("000000000139.png", "sub/b.png", "nobody.png"):
        cv2.imwrite(str(folder / name), frame)
    x1, y1, x2, y2 = BOXES.T
    entries = [
        {"image_id": image, "bbox": box, "score": 0.5, "category_id": 1}
        for image in (139, "sub/b.png")
        for box in np.column_stack([x1, y1, x2 - x1, y2 - y1]).tolist()
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(entries))
    code, out, err = infer(folder, "--boxes", tmp_path / "boxes.json")
    assert (code, err) == (0, "") and "3 frames labelled" in out
    assert written(tmp_path / "out") == [
        *(f"added_prediction/{name}.jpg" for name in ("000000000139", "nobody", "sub/b")), "keypoints.json"
    ]  # fmt: skip
    found, people = results(tmp_path), PoseEstimator(exported, "onnxruntime", threads=1)(frame, BOXES)
    assert [entry["image_id"] for entry in found] == [139, 139, "sub/b.png", "sub/b.png"]
    numbers = np.array([entry["keypoints"] for entry in found[:2]]).reshape(2, 3, 3)
    np.testing.assert_allclose(numbers[..., :2], people.points, atol=1e-4)
    np.testing.assert_allclose(numbers[..., 2], people.scores, atol=1e-4)
    assert found[0]["score"] == pytest.approx(0.5 * people.scores[0].mean(), abs=1e-5)
    assert set(found[0]) == {"image_id", "category_id", "keypoints", "score"} and found[0]["category_id"] == 1


def test_people_enter_and_leave_a_video(infer, tmp_path):
    video = write_video(tmp_path / "v.mp4", [dotted(PLACES)] * 5)
    left, right = (" ".join(map(str, box)) for box in BOXES.tolist())
    (tmp_path / "boxes.txt").write_text(f"1 {left} 0.9\n2 {left} 0.9\n2 {right}\n9 {left}\n")
    code, out, err = infer(video, "--boxes", tmp_path / "boxes.txt", "--box_category", "4")
    assert code == 0 and "5 frames labelled" in out
    assert err == f"warning: no frame is one of 1 images of {tmp_path / 'boxes.txt'}, such as 9; " + (
        "docs/pose.md says how they are named\n"
    )
    found = results(tmp_path)
    assert [(entry["image_id"], entry["category_id"]) for entry in found] == [(1, 4), (2, 4), (2, 4)]
    images, fps = read_video(tmp_path / "out/v_overlay.mp4")
    assert len(images) == 5 and fps == 12.5
    plain, _ = read_video(video)
    changes = [np.abs(a.astype(int) - b).mean() for a, b in zip(images, plain, strict=True)]
    assert max(changes[0], changes[3], changes[4]) < min(changes[1], changes[2]), changes


def test_without_boxes_an_image_is_one_person(infer, tmp_path):
    cv2.imwrite(str(tmp_path / "x.png"), dotted(PLACES[:1]))
    code, _, err = infer(tmp_path / "x.png", "--save", "labels")
    assert (code, err) == (0, "") and written(tmp_path / "out") == ["keypoints.json"]
    (entry,) = results(tmp_path)
    error = np.abs(np.array(entry["keypoints"]).reshape(3, 3)[:, :2] - PLACES[0]).max()
    assert entry["image_id"] == "x.png"
    assert error < 13, f"the keypoints are off by {error:.2f} pixels"  # a cell is 17 pixels wide


def test_a_bad_box_fails_its_image_alone(infer, tmp_path):
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), dotted(PLACES))
    (tmp_path / "boxes.txt").write_text("a 1 2 50 60\nb 400 2 500 60\n")
    code, out, err = infer(tmp_path, "--boxes", tmp_path / "boxes.txt")
    assert code == 1 and "1 frame labelled" in out and err.count("\n") == 1
    assert "b.png: box 0 of 1, 400 2 500 60, lies outside the frame of 160x120" in err
    assert [entry["image_id"] for entry in results(tmp_path)] == ["a.png"]


def test_nobody_anywhere_gives_an_empty_list(infer, tmp_path):
    cv2.imwrite(str(tmp_path / "x.png"), dotted(PLACES))
    (tmp_path / "boxes.json").write_text("[]")
    assert infer(tmp_path / "x.png", "--boxes", tmp_path / "boxes.json")[0] == 0
    assert results(tmp_path) == []


def test_boxes_are_for_pose_alone(call, tmp_path):  # noqa: F811
    folder = test_classifier.write_export(tmp_path / "e")
    line = ("--config", folder, "--image_path", "x.png", "--backend", "onnxruntime", "--boxes", "b.txt")
    refused(call("infer", *line), "--boxes is for exports of the task pose, but .* is for classification", 2)


def test_the_sides_of_a_body():
    assert body_sides(COCO.names, COCO.flip_pairs)[5:7] == [1, 2] and body_sides(COCO.names, COCO.flip_pairs)[0] == 0
    sides = body_sides(JBD.names, JBD.flip_pairs)
    assert [sides[JBD.names.index(name)] for name in ("neck", "lsho", "rsho")] == [0, 1, 2]
    assert body_sides(("a", "b"), None) == [0, 0] and body_sides(("a", "b"), ((1, 0),)) == [2, 1]


def test_skeletons_are_drawn_by_side_and_score():
    frame, white, orange, blue = np.full((300, 300, 3), 100, np.uint8), [255] * 3, [0, 159, 230], [178, 114, 0]
    points = np.array([[(20, 20), (270, 20), (270, 270)]], np.float32)
    before, lines = frame.copy(), (DOTS.skeleton, [0, 1, 2], 0.5)
    drawn = draw_skeletons(frame, points, np.array([[0.9, 0.8, 0.2]]), *lines)
    assert np.array_equal(frame, before)
    assert drawn[20, 20].tolist() == white and drawn[20, 270].tolist() == drawn[20, 150].tolist() == orange
    assert np.array_equal(drawn[40:], frame[40:]), "what has a low score is not drawn"
    drawn = draw_skeletons(frame, points, np.ones((1, 3)), *lines)
    assert drawn[270, 270].tolist() == blue and drawn[150, 270].tolist() == white
    assert np.array_equal(draw_skeletons(frame, points[:0], np.ones((0, 3)), *lines), frame)
    assert draw_skeletons(frame, np.full((1, 3, 2), -1e30), np.ones((1, 3)), *lines).shape == frame.shape
    apart = np.array([[[-1e9, -1e9], [1e9, 1e9], [5, 5]]])  # of a box as large as boxes may be
    assert draw_skeletons(frame, apart, np.ones((1, 3)), *lines).shape == frame.shape
