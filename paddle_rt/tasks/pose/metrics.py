"""Scores of poses: PCK by the box and by the torso, and average precision by object keypoint similarity (OKS)."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paddle_rt.inference.pose_estimator import person_scores

COCO_STATS = ("AP", "AP50", "AP75", "AP_M", "AP_L", "AR", "AR50", "AR75", "AR_M", "AR_L")
THRESHOLDS = (0.05, 0.1)  # of PCK: those of the paper's tables
NMS_THRESHOLD = 0.9  # OKS above which the lower-scored of two poses is dropped
_INVERTED = 1e6  # pixels; what MMPose divides by where a box has a negative size

# Names of the keypoints of the torso, in COCO and in the jump broadcast data set.
_SHOULDERS = {"left": ("left_shoulder", "lsho"), "right": ("right_shoulder", "rsho")}
_HIPS = {"left": ("left_hip", "lhip"), "right": ("right_hip", "rhip")}


def box_norms(boxes: np.ndarray) -> np.ndarray:
    """Return the longer side of each box, which PCK by the box divides distances by.

    Args:
        boxes: x1, y1, x2, y2 of each person, [N, 4].

    Returns:
        float32 [N].
    """
    return (boxes[:, 2:] - boxes[:, :2]).max(axis=1).astype(np.float32)


def hits(points: np.ndarray, truths: np.ndarray, norms: np.ndarray, threshold: float) -> np.ndarray:
    """Return which keypoints lie nearer to their truths than a share of the norm of their person.

    A norm below 0, of an inverted box, counts as a million pixels, as in the original: every keypoint is right.

    Args:
        points: Predicted keypoints, [N, K, 2].
        truths: True keypoints, [N, K, 2].
        norms: What distances are divided by, [N].
        threshold: The share; a distance of exactly the share is too far.

    Returns:
        bool [N, K]; all False for a person whose norm is 0.

    Source: MMPose 1.3.2, keypoint_pck_accuracy.
    """
    norms = np.where(norms < 0, np.float32(_INVERTED), norms.astype(np.float32))
    safe = np.where(norms == 0, np.float32(1), norms)[:, np.newaxis, np.newaxis]
    difference = (points.astype(np.float32) - truths.astype(np.float32)) / safe
    return (np.linalg.norm(difference, axis=-1) < np.float32(threshold)) & (norms != 0)[:, np.newaxis]


def pck_by_box(
    points: np.ndarray, truths: np.ndarray, visible: np.ndarray, boxes: np.ndarray, threshold: float
) -> tuple[float, np.ndarray]:
    """Compute the share of right keypoints (PCK) by the longer side of the box, as the paper's tables have it.

    Args:
        points: Predicted keypoints, [N, K, 2].
        truths: True keypoints, [N, K, 2].
        visible: Which of them count, [N, K]; those above 0.
        boxes: x1, y1, x2, y2 of each person as annotated, not padded, [N, 4]. A person with an empty box is left out.
        threshold: The share of the longer side below which a distance is right.

    Returns:
        The mean over keypoints of their own shares, and these shares [K]. NaN where nothing is visible.
    """
    return pck(points, truths, visible, box_norms(boxes), threshold)


def pck(
    points: np.ndarray, truths: np.ndarray, visible: np.ndarray, norms: np.ndarray, threshold: float
) -> tuple[float, np.ndarray]:
    """Compute PCK by any norm of each person, [N]; see `pck_by_box`."""
    counted = (visible > 0) & (norms != 0)[:, np.newaxis]
    rates = _rates(hits(points, truths, norms, threshold) & counted, counted)
    seen = ~np.isnan(rates)
    return (float(rates[seen].mean()) if seen.any() else float("nan")), rates


def _rates(right: np.ndarray, counted: np.ndarray) -> np.ndarray:
    totals = counted.sum(axis=0)
    return np.divide(right.sum(axis=0), totals, out=np.full(len(totals), np.nan), where=totals > 0)


def torso_ends(names: Sequence[str]) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Find the two diagonals of the torso: left shoulder to right hip, and right shoulder to left hip.

    Args:
        names: Names of the keypoints.

    Returns:
        The indices of the ends of both diagonals, or None if a name is not there.
    """
    found = {
        (side, part): next((list(names).index(name) for name in known[side] if name in names), None)
        for part, known in (("shoulder", _SHOULDERS), ("hip", _HIPS))
        for side in ("left", "right")
    }
    if None in found.values():
        return None
    return (found["left", "shoulder"], found["right", "hip"]), (found["right", "shoulder"], found["left", "hip"])


def pck_by_torso(
    points: np.ndarray,
    truths: np.ndarray,
    visible: np.ndarray,
    ends: Sequence[tuple[int, int]],
    threshold: float,
) -> tuple[float, np.ndarray]:
    """Compute PCK by the diagonal of the torso, as the authors of the jump broadcast data set describe it.

    A person's norm is the length of the first diagonal whose ends are both visible and apart. A person without one is
    left out. (In the authors' own code a person whose second diagonal is not visible has a norm of one pixel, and the
    share is one keypoint too low. Neither is reproduced.)

    Args:
        points: Predicted keypoints, [N, K, 2].
        truths: True keypoints, [N, K, 2].
        visible: Which of them count, [N, K]; those above 0.
        ends: From `torso_ends`.
        threshold: The share of the norm up to which a distance is right.

    Returns:
        The share of all keypoints of all persons, and the shares of each keypoint [K]. NaN where nothing is visible.

    Source: kaulquappe23/all-keypoints-jump-broadcast, metrics/pck.py.
    """
    truths = truths.astype(np.float64)
    norms = np.zeros(len(truths))
    for first, second in ends:
        length = np.linalg.norm(truths[:, first] - truths[:, second], axis=1)
        usable = (visible[:, first] > 0) & (visible[:, second] > 0) & (norms == 0)
        norms = np.where(usable, length, norms)
    counted = (visible > 0) & (norms > 0)[:, np.newaxis]
    distances = np.linalg.norm(points.astype(np.float64) - truths, axis=2)
    right = (distances <= threshold * norms[:, np.newaxis]) & counted
    share = float(right.sum() / counted.sum()) if counted.any() else float("nan")
    return share, _rates(right, counted)


def oks_nms(points: np.ndarray, scores: np.ndarray, areas: np.ndarray, sigmas: Sequence[float]) -> np.ndarray:
    """Drop poses of one image that are nearly the same as one with a higher score.

    Args:
        points: Keypoints, [N, K, 2].
        scores: Scores of the persons, [N].
        areas: Their areas, [N]. Two poses are compared by the mean of their areas.
        sigmas: The deviation of each keypoint, [K].

    Returns:
        Indices of the poses that remain, from the highest score on.

    Source: MMPose 1.3.2, oks_nms.
    """
    order = list(np.argsort(-scores, kind="stable"))
    variances = (2 * np.asarray(sigmas, np.float64)) ** 2
    kept = []
    while order:
        best, *rest = order
        kept.append(best)
        squares = ((points[rest].astype(np.float64) - points[best]) ** 2).sum(axis=2)
        area = (areas[rest].astype(np.float64) + areas[best])[:, np.newaxis] / 2 + np.spacing(1)
        similarity = np.exp(-squares / variances / area / 2).mean(axis=1)
        order = [index for index, value in zip(rest, similarity, strict=True) if value <= NMS_THRESHOLD]
    return np.array(kept, np.int64)


def import_pycocotools() -> tuple[type, type]:
    """Return the classes COCO and COCOeval of pycocotools, which average precision alone needs.

    Raises:
        ModuleNotFoundError: It is not installed; tools answer with what to install.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return COCO, COCOeval


def average_precision(
    truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], sigmas: Sequence[float]
) -> dict[str, float]:
    """Compute COCO's ten scores of keypoints with any number of keypoints.

    pycocotools is given what it takes for granted: ids from 1 on, since it takes an annotation 0 for none, and
    `num_keypoints` as the visibility says.

    Args:
        truth: Images, annotations with `area`, and one category in COCO's form.
        results: Persons in COCO's form of results: image_id, category_id, keypoints (x, y, score) and score.
        sigmas: The deviation of each keypoint.

    Returns:
        The scores by the names of COCO_STATS; NaN where there is no person of that size.
    """
    coco_class, evaluation_class = import_pycocotools()
    people = [
        {**person, "id": number, "num_keypoints": int(np.count_nonzero(np.asarray(person["keypoints"])[2::3] > 0))}
        for number, person in enumerate(truth["annotations"], start=1)
    ]
    found = [{**result, "id": number, **_extent(result)} for number, result in enumerate(results, start=1)]
    with contextlib.redirect_stdout(io.StringIO()):  # its progress, which is no part of a tool's output
        sides = []
        for annotations in (people, found):
            side = coco_class()
            side.dataset = {**truth, "annotations": annotations}
            side.createIndex()
            sides.append(side)
        evaluation = evaluation_class(*sides, "keypoints")
        evaluation.params.kpt_oks_sigmas = np.asarray(sigmas, np.float64)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {
        name: float(value) if value >= 0 else float("nan")
        for name, value in zip(COCO_STATS, evaluation.stats, strict=True)
    }


def _extent(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return box and area of a result as pycocotools takes them: the extent of its keypoints."""
    points = np.asarray(result["keypoints"], np.float64).reshape(-1, 3)[:, :2]
    (x, y), (width, height) = points.min(axis=0), np.ptp(points, axis=0)
    return {"bbox": [x, y, width, height], "area": width * height, "iscrowd": 0}


def coco_results(people: Mapping[str, np.ndarray], category: int, sigmas: Sequence[float]) -> list[dict[str, Any]]:
    """Return the estimated persons in COCO's form of results, with their scores, after the suppression of doubles.

    Args:
        people: points [N, K, 2], scores [N, K], bbox_score [N], scale [N, 2] (of the padded boxes) and image_id [N].
        category: The category's id.
        sigmas: The deviation of each keypoint.
    """
    scores, results = person_scores(people["bbox_score"], people["scores"]), []
    images, places = np.unique(people["image_id"], return_inverse=True)
    for number, image in enumerate(images.tolist()):
        own = np.flatnonzero(places == number)
        areas = people["scale"][own].prod(axis=1)
        for index in own[oks_nms(people["points"][own], scores[own], areas, sigmas)]:
            keypoints = np.column_stack([people["points"][index], people["scores"][index]]).astype(float)
            person = {"image_id": image, "category_id": category, "keypoints": keypoints.ravel().tolist()}
            results.append({**person, "score": float(scores[index])})
    return results
