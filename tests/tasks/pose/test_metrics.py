"""Scores of poses by hand, and the originals' outputs where they are there."""

import json

import numpy as np
import pytest

from paddle_rt.inference.pose_estimator import person_scores
from paddle_rt.tasks.pose.metrics import (
    COCO_STATS,
    average_precision,
    oks_nms,
    pck_by_box,
    pck_by_torso,
    torso_ends,
)
from tests.helpers import SHARED

GOLDEN = SHARED / "golden_pose"
COCO_SIGMAS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the originals' outputs are not at {GOLDEN}")


def test_pck_by_the_box():
    truths = np.zeros((3, 2, 2), np.float32)
    points = truths + np.array([[[10, 0], [9, 0]], [[0, 5], [0, 0]], [[0, 0], [0, 0]]], np.float32)
    visible = np.array([[1, 1], [1, 0], [1, 1]], np.float32)
    boxes = np.array([[0, 0, 100, 40], [0, 0, 20, 30], [7, 7, 7, 7]], np.float32)  # the last one is empty
    mean, rates = pck_by_box(points, truths, visible, boxes, 0.1)
    assert rates.tolist() == [0, 1] and mean == 0.5, "a distance of exactly a tenth is wrong"
    mean, rates = pck_by_box(points, truths, visible, boxes, 0.2)
    assert rates.tolist() == [1, 1] and mean == 1
    mean, rates = pck_by_box(points, truths, visible * 0, boxes, 0.2)
    assert np.isnan(mean) and np.isnan(rates).all()


def test_pck_by_the_torso():
    names = ["nose", "left_shoulder", "right_shoulder", "left_hip", "right_hip"]
    ends = torso_ends(names)
    assert ends == ((1, 4), (2, 3)) and torso_ends(names[:-1]) is None
    assert torso_ends(["lsho", "rsho", "lhip", "rhip"]) == ((0, 3), (1, 2))
    person = np.array([[50, 0], [0, 0], [30, 0], [30, 40], [0, 100]], np.float64)
    truths = np.stack([person] * 3)
    visible = np.ones((3, 5))
    visible[1, 1] = 0  # the second diagonal, 40 pixels, counts
    visible[2, 1] = visible[2, 2] = 0  # no diagonal, so the person is left out
    points = truths + [[[10, 0]], [[5, 0]], [[0, 0]]]
    share, rates = pck_by_torso(points, truths, visible, ends, 0.1)
    assert share == pytest.approx(5 / 9), "exactly a tenth of 100 pixels is right, 5 of 40 are not"
    assert rates.tolist() == [0.5, 1, 0.5, 0.5, 0.5]


def test_scores_of_persons():
    scores = person_scores(np.array([0.5, 1.0]), np.array([[0.2, 0.4, 0.8], [0.1, 0.1, 0.0]]))
    assert scores.tolist() == pytest.approx([0.3, 0])


def people(number: int, keypoints: int, seed: int = 0) -> tuple[dict, list, np.ndarray]:
    """Return a truth of one person an image, results that are off by a few pixels, and sigmas."""
    rng = np.random.default_rng(seed)
    sigmas, annotations, results = rng.uniform(0.03, 0.1, keypoints), [], []
    for image in range(number):
        points, visible = rng.uniform(10, 110, (keypoints, 2)), rng.integers(0, 3, keypoints)
        visible[0] = 2
        annotation = {"id": image, "image_id": image, "category_id": 5, "iscrowd": 0, "bbox": [10, 10, 100, 100]}
        flat = np.column_stack([points, visible]).ravel().tolist()
        annotations.append({**annotation, "area": 5300.0, "num_keypoints": 0, "keypoints": flat})
        found = points + rng.normal(0, 3, points.shape)
        flat = np.column_stack([found, np.ones(keypoints)]).ravel().tolist()
        results.append({"image_id": image, "category_id": 5, "keypoints": flat, "score": float(rng.random())})
    category = {"id": 5, "name": "horse", "keypoints": [str(i) for i in range(keypoints)]}
    truth = {"images": [{"id": i} for i in range(number)], "annotations": annotations, "categories": [category]}
    return truth, results, sigmas


@pytest.mark.parametrize("keypoints", [1, 5, 20])
def test_average_precision_with_other_keypoints(keypoints, capsys):
    """With one person an image and no area twice, AP follows from the similarities and the scores alone."""
    truth, results, sigmas = people(12, keypoints)
    stats = average_precision(truth, results, sigmas)
    similarities = []
    for person, result in zip(truth["annotations"], results, strict=True):
        a, b = (np.reshape(x["keypoints"], (-1, 3)) for x in (person, result))
        error = ((a[:, :2] - b[:, :2]) ** 2).sum(1) / (2 * sigmas) ** 2 / 5300 / 2
        similarities.append(np.exp(-error)[a[:, 2] > 0].mean())
    order = np.argsort([-r["score"] for r in results])
    recalls, precisions = [], []
    for threshold in np.linspace(0.5, 0.95, 10):
        right = np.cumsum(np.array(similarities)[order] >= threshold)
        recalls.append(right[-1] / 12)
        precision = np.maximum.accumulate((right / np.arange(1, 13))[::-1])[::-1]
        at = np.searchsorted(right / 12, np.linspace(0, 1, 101), side="left")
        precisions.append(np.append(precision, 0)[at].mean())
    for name, expected in (("AP", np.mean(precisions)), ("AR", np.mean(recalls)), ("AP50", precisions[0])):
        assert abs(stats[name] - expected) < 1e-9, f"{name} is {stats[name]}, expected {expected}"
    assert np.isnan(stats["AP_L"]) and np.isnan(stats["AR_L"])
    assert average_precision(truth, [], sigmas)["AP"] == 0
    assert capsys.readouterr() == ("", "")


@golden
@pytest.mark.parametrize("threshold", [0.05, 0.1, 0.2])
def test_pck_of_the_original(threshold):
    data = np.load(GOLDEN / "pck.npz")
    mean, rates = pck_by_box(data["pred"], data["gt"], data["visible"], data["bbox"], threshold)
    error = max(
        abs(mean - data[f"pck_{threshold}"]),
        np.abs(np.nan_to_num(rates, nan=-1) - data[f"per_keypoint_{threshold}"]).max(),
    )
    assert error < 1e-12, f"PCK is off by {error:.1e}"
    assert np.count_nonzero(~np.isnan(rates)) == data[f"count_{threshold}"]


@golden
def test_average_precision_of_the_original():
    truth, results, stats = (json.loads((GOLDEN / f"coco_{n}.json").read_text()) for n in ("gt", "results", "stats"))
    ours = average_precision(truth, results, COCO_SIGMAS)
    error = np.abs(np.array([ours[name] for name in COCO_STATS]) - stats["pycocotools"]["stats"]).max()
    assert error < 1e-12, f"the scores are off by {error:.1e}"
    for person in truth["annotations"]:
        person["area"] = 0.53 * person["bbox"][2] * person["bbox"][3]
    ours = average_precision(truth, results, COCO_SIGMAS)
    error = np.abs(np.array([ours[name] for name in COCO_STATS]) - stats["xtcocotools_without_area"]["stats"]).max()
    assert error < 1e-12, f"the scores are off by {error:.1e}"


@golden
def test_persons_that_the_original_keeps():
    metric = json.loads((GOLDEN / "coco_stats.json").read_text())["coco_metric"]
    inputs = metric["inputs"]
    points, scores = (np.array([person[key] for person in inputs]) for key in ("keypoints", "scores"))
    width, height = 1.25 * np.array([person["bbox_xywh"][2:] for person in inputs]).T
    areas = np.maximum(width, 0.75 * height) * np.maximum(height, width / 0.75)
    total = person_scores(np.array([person.get("bbox_score", 1.0) for person in inputs]), scores)
    images, kept = np.array([person["image_id"] for person in inputs]), {}
    for image in np.unique(images):
        (own,) = np.nonzero(images == image)
        for index in own[oks_nms(points[own], total[own], areas[own], COCO_SIGMAS)]:
            kept[_key(image, np.column_stack([points[index], scores[index]]))] = total[index]
    expected = {_key(person["image_id"], person["keypoints"]): person["score"] for person in metric["kept"]}
    assert set(kept) == set(expected)
    error = max(abs(kept[key] - score) for key, score in expected.items())
    assert error < 1e-6, f"the scores are off by {error:.1e}"
    ours = average_precision(json.loads((GOLDEN / "coco_gt.json").read_text()), metric["kept"], COCO_SIGMAS)
    error = np.abs(np.array([ours[name] for name in COCO_STATS]) - list(metric["result"].values())).max()
    assert error < 1e-12, f"the scores are off by {error:.1e}"


def _key(image: int, keypoints: object) -> tuple:
    return int(image), tuple(np.float32(keypoints).ravel().tolist())
