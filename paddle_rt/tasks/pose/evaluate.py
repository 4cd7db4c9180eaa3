"""Evaluation of a network that estimates poses: heatmaps, decoded and mapped back to the images."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import paddle
from tqdm import tqdm

from paddle_rt.errors import UserError
from paddle_rt.inference.keypoints import KeypointSet
from paddle_rt.inference.pose_estimator import PoseSettings
from paddle_rt.inference.pose_geometry import decode, mirror_heatmaps, to_image
from paddle_rt.tasks.base import Scores
from paddle_rt.tasks.loader import Loader
from paddle_rt.tasks.pose import baseline, metrics

_SHOWN = ("AP", "AP50", "AP75", "AR")  # of COCO's scores, in the log; the report has all
_KEPT = ("bbox", "bbox_score", "center", "scale", "keypoints", "visible", "image_id", "id")


def estimate(
    network: paddle.nn.Layer, images: paddle.Tensor, settings: PoseSettings, flip_test: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the keypoints of a batch.

    Args:
        network: In evaluation mode; returns a list whose first entry is heatmaps.
        images: Inputs of the network.
        settings: How heatmaps become keypoints.
        flip_test: Whether the mirror images run too and the heatmaps are averaged.

    Returns:
        Points in pixels of the inputs, and scores.

    Shape: [N, 3, H, W] to [N, K, 2] and [N, K].
    """
    heatmaps = network(images)[0].astype("float32").numpy()
    if flip_test:
        mirrored = network(images.flip(axis=[3]))[0].astype("float32").numpy()
        heatmaps = heatmaps + mirror_heatmaps(mirrored, settings.keypoints.flip_indices, settings.shift_heatmap)
        heatmaps *= np.float32(0.5)
    stride = images.shape[3] // heatmaps.shape[3]
    return decode(heatmaps, settings.decoding, settings.udp, stride, settings.blur_kernel)


def evaluate(
    network: paddle.nn.Layer,
    dataset: paddle.io.Dataset,
    settings: PoseSettings,
    flip_test: bool = True,
    batch_size: int = 32,
    num_workers: int = 0,
) -> dict[str, np.ndarray]:
    """Estimate the keypoints of every person of a data set.

    In several processes each takes its share of the persons, and all get all results.

    Args:
        network: Returns a list whose first entry is heatmaps. It is left in evaluation mode.
        dataset: Items of one person each, as `datasets` describes them.
        settings: How heatmaps become keypoints.
        flip_test: Whether the mirror images run too and the heatmaps are averaged.
        batch_size: Persons that run together.
        num_workers: Processes that load persons.

    Returns:
        In the order of the data set: the estimated `points` [N, K, 2] in the image and `scores` [N, K]; of the items
        bbox, bbox_score, center, scale, keypoints, visible, image_id and id.

    Raises:
        UserError: There is no person, or an image cannot be read.
    """
    if not len(dataset):
        raise UserError("there is no person to score, since the data set has no box")
    network.eval()
    rank, ranks = paddle.distributed.get_rank(), paddle.distributed.get_world_size()
    share = paddle.io.Subset(dataset, list(range(rank, len(dataset), ranks)))
    loader = Loader(share, batch_size=batch_size, num_workers=num_workers, collate_fn=_collate)
    parts = []
    hidden = rank > 0 or None  # None: shown on a terminal only
    with paddle.no_grad(), tqdm(total=len(share), desc="evaluate", unit="person", disable=hidden, leave=False) as bar:
        for batch in loader:
            part = {key: batch[key].numpy() for key in _KEPT}
            points, part["scores"] = estimate(network, batch["img"], settings, flip_test)
            size = batch["img"].shape[:1:-1]  # width and height
            part["points"] = to_image(points, part["center"], part["scale"], size, settings.udp)
            parts.append(part)
            bar.update(len(points))
    if ranks > 1:
        shares: list[list[dict[str, np.ndarray]]] = []
        paddle.distributed.all_gather_object(shares, parts)
        parts = [part for share_of_rank in shares for part in share_of_rank]
    order = np.argsort(np.concatenate([np.arange(start, len(dataset), ranks) for start in range(ranks)]))
    return {key: np.concatenate([part[key] for part in parts])[order] for key in parts[0]}


def summarize(
    people: Mapping[str, np.ndarray], truth: Mapping[str, Any], keypoints: KeypointSet, mean_pose: np.ndarray | None
) -> Scores:
    """Turn estimated persons into scores, with a table of keypoints.

    PCK needs boxes of the annotations: with those of a detector, no keypoint of `people` is visible, and AP picks the
    best model.

    Args:
        people: What `evaluate` returned.
        truth: The data set in COCO's form.
        keypoints: The keypoints.
        mean_pose: From `baseline.mean_pose`, to score it beside the network; or None.

    Raises:
        UserError: The sigmas of the keypoints are unknown.
    """
    sigmas = keypoints.oks_sigmas
    results = metrics.coco_results(people, truth["categories"][0]["id"], sigmas)
    stats = metrics.average_precision(truth, results, sigmas)
    shares, rates = _pck(people["points"], people, keypoints)
    found = _numbers({**{name: stats[name] for name in _SHOWN}, **shares})
    values = {name: value for name, value in found.items() if value is not None}
    images = len(np.unique(people["image_id"]))
    shown = " ".join(f"{name}: {value:.4f}" for name, value in values.items())
    visible = (people["visible"] > 0).sum(axis=0).tolist()
    columns = {name: list(_numbers(dict(enumerate(column.tolist()))).values()) for name, column in rates.items()}
    rows = [
        {"name": name, "visible": visible[i], **{key: column[i] for key, column in columns.items()}}
        for i, name in enumerate(keypoints.names)
    ]
    details = ["[EVAL] Keypoints:\n" + _table(rows)]
    report = {"images": images, "people": len(people["points"]), **_numbers({**stats, **shares}), "keypoints": rows}
    if not any(visible):
        details.append("[EVAL] No PCK: the boxes are a detector's, which have no keypoints of their own")
    elif metrics.torso_ends(keypoints.names) is None:
        details.append("[EVAL] No PCK by the torso: it needs both shoulders and both hips by COCO's or JBD's names")
    if mean_pose is not None:
        mean = _numbers(_pck(baseline.place(mean_pose, people["bbox"]), people, keypoints)[0])
        report["mean_pose"] = mean
        text = " ".join(f"{name}: {value:.4f}" for name, value in mean.items() if value is not None)
        details.append(f"[EVAL] The mean pose in the box: {text}")
    key = "PCK@0.1" if "PCK@0.1" in values else "AP"
    summary = f"[EVAL] #Images: {images} #People: {len(people['points'])} {shown}"
    return Scores(values, key, summary, details, report)


def _pck(
    points: np.ndarray, people: Mapping[str, np.ndarray], keypoints: KeypointSet
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return every PCK by its name, and that of each keypoint."""
    truths, visible, ends = people["keypoints"], people["visible"], metrics.torso_ends(keypoints.names)
    found = {
        f"PCK@{share}": metrics.pck_by_box(points, truths, visible, people["bbox"], share)
        for share in metrics.THRESHOLDS
    }
    if ends is not None:
        for share in metrics.THRESHOLDS:
            found[f"PCK_torso@{share}"] = metrics.pck_by_torso(points, truths, visible, ends, share)
    return {name: pair[0] for name, pair in found.items()}, {name: pair[1] for name, pair in found.items()}


def _numbers(values: Mapping[Any, float]) -> dict[Any, float | None]:
    """Return the numbers, None in place of NaN, which JSON does not have."""
    return {name: None if np.isnan(value) else float(value) for name, value in values.items()}


def _table(rows: list[dict[str, Any]]) -> str:
    names = [name for name in rows[0] if name.startswith("PCK")]
    width = max(len("keypoint"), *(len(row["name"]) for row in rows))
    lines = [f"{'keypoint':{width}}  visible  " + "  ".join(names)]
    for row in rows:
        shares = ["-" if row[name] is None else f"{row[name]:.4f}" for name in names]
        cells = "  ".join(f"{share:>{len(name)}}" for share, name in zip(shares, names, strict=True))
        lines.append(f"{row['name']:{width}}  {row['visible']:7}  {cells}")
    return "\n".join(lines)


def _collate(items: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    batch = {key: np.stack([np.asarray(item[key]) for item in items]) for key in ("img", *_KEPT)}
    batch["bbox_score"] = batch["bbox_score"].astype(np.float32)
    return batch
