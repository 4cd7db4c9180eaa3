"""From heatmaps to scores, on people of three dots, whose keypoints are found without training."""

import dataclasses

import cv2
import numpy as np
import pytest

from paddle_rt.errors import UserError
from paddle_rt.inference.pose_estimator import PoseSettings
from paddle_rt.inference.preprocess import Normalize
from paddle_rt.tasks.pose.baseline import mean_pose, place
from paddle_rt.tasks.pose.evaluate import evaluate, summarize
from paddle_rt.tasks.pose.predict import Estimator, predict
from paddle_rt.tasks.pose.transforms import GetBBoxCenterScale, TopdownAffine
from tests.helpers import written
from tests.tasks.pose.helpers import DOTS, Dots, Seer

SETTINGS = PoseSettings(DOTS)


@pytest.fixture(scope="module")
def data() -> Dots:
    return Dots()


@pytest.mark.parametrize("flip_test", [True, False])
@pytest.mark.parametrize("settings", [SETTINGS, PoseSettings(DOTS, decoding="dark", blur_kernel=3)])
@pytest.mark.parametrize("batch_size", [4, 64])
def test_keypoints_come_back_to_their_places(flip_test, settings, batch_size, data):
    people = evaluate(Seer(), data, settings, flip_test, batch_size)
    error = np.abs(people["points"] - people["keypoints"]).max()
    assert error < 4, f"a keypoint is {error:.1f} pixels off"
    assert people["image_id"].tolist() == [7, 7, 8, 8, 9, 9] and people["id"].tolist() == list(range(6))


def test_workers_change_nothing(data):
    one, two = evaluate(Seer(), data, SETTINGS), evaluate(Seer(), data, SETTINGS, True, 4, num_workers=1)
    for key, values in one.items():
        assert np.array_equal(values, two[key]), key


def test_no_person_is_one_line():
    with pytest.raises(UserError, match="there is no person to score"):
        evaluate(Seer(), Dots(0), SETTINGS)


def test_scores(data):
    people, truth = evaluate(Seer(), data, SETTINGS), data.coco_ground_truth()
    scores = summarize(people, truth, DOTS, mean_pose(truth))
    assert scores.key == "PCK@0.1" and scores.best == 1 and scores.values["AP"] > 0.5, scores.values
    assert "PCK_torso@0.1" not in scores.values and any("No PCK by the torso" in line for line in scores.details)
    assert [row["name"] for row in scores.report["keypoints"]] == list(DOTS.names)
    assert [row["visible"] for row in scores.report["keypoints"]] == [4, 4, 5]
    assert 0 <= scores.report["mean_pose"]["PCK@0.1"] < 1 and "mean pose" in scores.details[-1]
    assert scores.report["images"] == 3 and scores.report["people"] == 6

    people["points"][0] += 30
    worse = summarize(people, truth, DOTS, None)
    assert worse.best == pytest.approx((3 / 4 + 3 / 4 + 4 / 5 + 0) / 3, abs=0.1) and "mean_pose" not in worse.report
    people["visible"][:] = 0
    detected = summarize(people, truth, DOTS, None)
    assert detected.key == "AP" and list(detected.values) == ["AP", "AP50", "AP75", "AR"]
    with pytest.raises(UserError, match="keypoints.sigmas is missing"):
        summarize(people, truth, dataclasses.replace(DOTS, sigmas=None), None)


def test_the_mean_pose(data):
    truth = data.coco_ground_truth()
    pose = mean_pose(truth)
    shares = [(person[2] - person[1][:2]) / (person[1][2:] - person[1][:2]) for person in data.people]
    expected = [np.mean([s[k] for s, p in zip(shares, data.people, strict=True) if p[3][k]], axis=0) for k in range(3)]
    assert np.abs(pose - expected).max() < 1e-6
    assert place(np.array([[0.5, 1.0]]), np.array([[10, 20, 30, 60]])).tolist() == [[[20, 60]]]
    for person in truth["annotations"]:
        person["iscrowd"] = 1
    with pytest.raises(UserError, match="no person with a box"):
        mean_pose(truth)


def test_predictions(data, tmp_path, caplog):
    (tmp_path / "in").mkdir()
    for number, image in enumerate(data.images):
        cv2.imwrite(str(tmp_path / f"in/{number + 7}.png"), image)
    lines = [f"{image + 7}.png {' '.join(map(str, box))} 0.5" for image, box, _, _ in data.people]
    (tmp_path / "boxes.txt").write_text("\n".join([*lines, "other.png 0 0 5 5"]))
    steps = [GetBBoxCenterScale(), TopdownAffine([64, 96]), Normalize([0.0] * 3, [1.0] * 3)]
    estimator = Estimator(Seer(), steps, SETTINGS)
    predict(estimator, str(tmp_path / "in"), str(tmp_path / "out"), str(tmp_path / "boxes.txt"))
    assert "no image is one of 1 images" in caplog.text and "'other.png'" in caplog.text
    assert written(tmp_path / "out") == [*(f"added_prediction/{number}.jpg" for number in (7, 8, 9)), "keypoints.json"]
    import json

    found = json.loads((tmp_path / "out/keypoints.json").read_text())
    assert [person["image_id"] for person in found] == [7, 7, 8, 8, 9, 9]
    for person, (_, _, points, _) in zip(found, data.people, strict=True):
        error = np.abs(np.reshape(person["keypoints"], (3, 3))[:, :2] - points).max()
        assert error < 4 and 0 < person["score"] < 0.5, f"a keypoint is {error:.1f} pixels off"
    predict(estimator, str(tmp_path / "in/7.png"), str(tmp_path / "whole"))
    assert len(json.loads((tmp_path / "whole/keypoints.json").read_text())) == 1
    (tmp_path / "boxes.txt").write_text("7.png 5 5 2 2")
    with pytest.raises(UserError, match=r"1 of 3 images could not be used: .*7.png: box 0 of 1, 5 5 2 2, is empty"):
        predict(estimator, str(tmp_path / "in"), str(tmp_path / "out"), str(tmp_path / "boxes.txt"))
