"""From a decoded frame to the keypoints of its people: our deployment and PaddleDetection's way, side by side."""

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from paddle_rt.benchmark.measure import STAGES, Record, measure, startup_and_memory, times_in_ms
from paddle_rt.benchmark.pipelines import Pipeline
from paddle_rt.errors import UserError, unknown
from paddle_rt.inference import KeyPoints, PoseEstimator, load
from paddle_rt.inference.engines import PaddleInference
from paddle_rt.inference.pose_estimator import PoseSettings
from paddle_rt.inference.pose_geometry import box_to_center_scale, decode, fix_aspect, to_image, warp, warp_matrix
from paddle_rt.registry import create_model, find_entry

if TYPE_CHECKING:
    from paddle_rt.tasks.pose.export import PoseExport

FRAME = (720, 1280)  # height and width
MERGINGS = ("bsm_hq", "bsm_fast", "n2d_2x2")
COLUMNS = (
    ("network", "model", "{}"), ("pipeline", "pipeline", "{}"), ("backend", "backend", "{}"),
    ("precision", "precision", "{}"), ("end to end ms", "end_to_end_ms", "{:.1f}"), ("p90 ms", "p90_ms", "{:.1f}"),
    ("crop", "preprocess_ms", "{:.2f}"), ("network ms", "network_ms", "{:.1f}"), ("decode", "labels_ms", "{:.2f}"),
    ("frames per s", "fps", "{:.1f}"), ("speed-up", "speedup", "{:.2f}"),
    ("against unmerged", "against_unmerged", "{:.2f}"), ("same keypoints", "keypoint_agreement", "{:.2%}"),
    ("peak MB", "peak_rss_mb", "{:.0f}"),
)  # fmt: skip
# Of PaddleDetection's deployment: by how much it enlarges boxes, and the blur of its decoding.
_EXPANSION, _KERNEL = 0.3, 3
_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

_CHOICES = (("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8"), ("onnxruntime", "fp32"))


@dataclass(frozen=True)
class PosePlan:
    """What a benchmark of pose estimation measures.

    Args:
        model: A network of `paddle_rt.list_models("pose")`.
        input_size: (height, width) of the network's input.
        people: How many people the frame has.
        checkpoint: Trained weights; None for random ones.
        mergings: The token mergings that are measured beside the network without.
        threads: CPU threads of every pipeline.
        runs: Rounds whose times count.

    Raises:
        UserError: The network is not one for pose, or a merging is unknown.
    """

    model: str = "segformerpp_b0_pose"
    input_size: tuple[int, int] = (256, 192)
    people: int = 8
    checkpoint: str | None = None
    mergings: Sequence[str] = MERGINGS
    threads: int = 2
    runs: int = 15

    def __post_init__(self) -> None:
        task = find_entry(self.model).task
        if task != PoseEstimator.task:
            raise UserError(f"{self.model} is a network for {task}; paddle-rt benchmark measures it")
        for merging in self.mergings:
            if merging not in MERGINGS:
                raise unknown("token merging", merging, MERGINGS)


@dataclass(frozen=True)
class PosePipeline(Pipeline):
    """One way to estimate the poses of the people in a frame.

    Args:
        input_size: (height, width) of the network's input.
        boxes: x1, y1, x2, y2 of each person.
    """

    input_size: tuple[int, int] = field(kw_only=True)
    boxes: Sequence[Sequence[float]] = field(kw_only=True)

    def load(self) -> "_InBoxes | PaddleDetectionsWay":
        """Return a function from frames to keypoints, as `Pipeline.load` does."""
        boxes = np.array(self.boxes, np.float32)
        if self.side == "paddledetection":
            return PaddleDetectionsWay(Path(self.folder), self.threads, self.input_size, boxes)
        return _InBoxes(load(self.folder, self.backend, self.precision, self.threads, self.device), boxes)


class _InBoxes:
    """A pose estimator with boxes that stay where they are."""

    def __init__(self, estimator: PoseEstimator, boxes: np.ndarray) -> None:
        self.estimator, self.boxes, self.warmup = estimator, boxes, estimator.warmup

    def __call__(self, frame: np.ndarray) -> KeyPoints:
        return self.estimator(frame, self.boxes)

    @property
    def timings(self) -> dict[str, float]:
        return self.estimator.timings


class PaddleDetectionsWay:
    """What PaddleDetection's joint deployment of a detector and a pose network does behind the detector.

    Each box is enlarged by 0.3, widened to 3:4 where it is tall, and cut to the frame; what is cut out is warped to the
    network's input and normalised in floating point, one person at a time. The network runs them as one batch in Paddle
    Inference with oneDNN. Each person's heatmaps are decoded by DARK with a blur of 3 cells and mapped back, one person
    at a time.

    Args:
        folder: Holds model.json and model.pdiparams of a graph that takes images.
        threads: CPU threads.
        input_size: (height, width) of the network's input.
        boxes: x1, y1, x2, y2 of each person.

    Source: PaddleDetection, deploy/python/det_keypoint_unite_infer.py and what it imports, by description.
    """

    def __init__(self, folder: Path, threads: int, input_size: tuple[int, int], boxes: np.ndarray) -> None:
        self._engine = PaddleInference(folder / "model.json", folder / "model.pdiparams", threads=threads)
        self._size, self._boxes = input_size[::-1], boxes
        self.timings: dict[str, float] = {}

    def warmup(self) -> float:
        """Do nothing, since PaddleDetection's deployment does nothing before the first frame."""
        return 0.0

    def __call__(self, frame: np.ndarray) -> KeyPoints:
        """Estimate the poses in a frame."""
        start = time.perf_counter()
        frame = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        regions = [self._region(box, frame.shape) for box in self._boxes]
        images = np.stack([self._prepare(frame, region) for region in regions])
        prepared = time.perf_counter()
        heatmaps = self._engine.run(images)
        run = time.perf_counter()
        found = [self._decode(maps, region) for maps, region in zip(heatmaps, regions, strict=True)]
        people = KeyPoints(*map(np.concatenate, zip(*found, strict=True)))
        seconds = np.diff([start, prepared, run, time.perf_counter()]).tolist()
        self.timings = dict(zip(STAGES, seconds, strict=True))
        return people

    def _region(self, box: np.ndarray, shape: Sequence[int]) -> tuple[int, int, int, int]:
        x1, y1, x2, y2 = map(int, box)
        half_width, half_height = (x2 - x1) * (1 + _EXPANSION) / 2, (y2 - y1) * (1 + _EXPANSION) / 2
        half_width = max(half_width, half_height * 0.75)
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        left, right = max(int(x - half_width), 0), min(int(x + half_width), shape[1] - 1)
        top, bottom = max(int(y - half_height), 0), min(int(y + half_height), shape[0] - 1)
        return left, top, right, bottom

    def _prepare(self, frame: np.ndarray, region: tuple[int, int, int, int]) -> np.ndarray:
        left, top, right, bottom = region
        center, scale = self._center_and_scale(region)
        image = warp(frame[top:bottom, left:right], warp_matrix(center, scale, self._size), self._size)
        return ((image.astype(np.float32) / 255 - np.float32(_MEAN)) / np.float32(_STD)).transpose(2, 0, 1)

    def _center_and_scale(self, region: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        left, top, right, bottom = region
        width = right - left
        scale = np.array([width, width * self._size[1] / self._size[0]])
        return np.round([width / 2, (bottom - top) / 2]), scale

    def _decode(self, maps: np.ndarray, region: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        points, scores = decode(maps[np.newaxis], "dark", blur_kernel=_KERNEL)
        center, scale = self._center_and_scale(region)
        points = to_image(points, center[np.newaxis], scale[np.newaxis], self._size)
        return points + np.float32(region[:2]), scores


def run(plan: PosePlan) -> list[dict[str, Any]]:
    """Measure PaddleDetection's way, the network without merging, and the network with each merging, in turns.

    Returns:
        A row for each pipeline; `speedup` is against the first row, and `against_unmerged` against our fp32 row of the
        network without merging in OpenVINO.
    """
    frame, boxes = scene(plan.people)
    with tempfile.TemporaryDirectory() as folder:
        pipelines = list(_prepare(plan, frame, boxes, Path(folder)))
        return _tabulate(plan, measure(pipelines, [frame], plan.runs))


def scene(people: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a frame of rendered streets, and boxes of people, x1, y1, x2, y2, of sizes from 150 to 600 pixels."""
    from paddle_rt.streetscenes.render import render
    from paddle_rt.streetscenes.scenes import make_scene

    rng, (height, width) = np.random.default_rng(0), FRAME
    heights = rng.uniform(150, 600, people)
    sizes = np.stack([heights * rng.uniform(0.3, 0.6, people), heights], axis=1)
    corners = rng.uniform(0, 1, (people, 2)) * (np.array([width, height]) - sizes)
    return render(make_scene(100_000), height, width)[0], np.hstack([corners, corners + sizes]).astype(np.float32)


def _prepare(plan: PosePlan, frame: np.ndarray, boxes: np.ndarray, folder: Path) -> Iterator[PosePipeline]:
    """Export the network without and with each merging, all with the same weights."""
    import paddle

    from paddle_rt.export.publish import export
    from paddle_rt.export.quantize import quantize
    from paddle_rt.export.trace import TracedNetwork, save_graph
    from paddle_rt.tasks.pose.export import PoseExport

    paddle.base.core.set_num_threads(plan.threads)  # of the network that graphs are compared with; 1 by default
    settings = PoseSettings()
    spec = PoseExport([{"type": "Normalize", "mean": _MEAN, "std": _STD}], settings, plan.input_size[::-1])
    crops = _crops(frame, boxes, spec)
    fixed = {"input_size": plan.input_size, "boxes": boxes.tolist()}
    for merging in (None, *plan.mergings):
        paddle.seed(0)
        network = create_model(
            plan.model, num_keypoints=len(settings.keypoints), checkpoint=plan.checkpoint, token_merging=merging
        )
        if merging is None:
            place = folder / "paddledetection"
            place.mkdir()
            save_graph(TracedNetwork(network, spec, "heatmaps", None), place, [None, 3, *plan.input_size])
            yield _pipeline("none", "paddledetection", ("paddle", "fp32"), place, plan.threads, **fixed)
        place = folder / str(merging)
        export(network, place, spec, spec.input_shape(3), formats=["onnx"])
        quantize(place, crops, [(crops[0], None)], spec)
        for choice in _CHOICES:
            yield _pipeline(merging or "none", "paddle_rt", choice, place, plan.threads, **fixed)


def _pipeline(
    merging: str, side: str, choice: tuple[str, str], folder: Path, threads: int, **fixed: Any
) -> PosePipeline:
    backend, precision = choice
    return PosePipeline(merging, "pose", side, backend, "cpu", precision, threads, str(folder), "pose", **fixed)


def _crops(frame: np.ndarray, boxes: np.ndarray, spec: "PoseExport") -> list[np.ndarray]:
    centers, scales = box_to_center_scale(boxes, spec.settings.padding)
    pairs = zip(centers, fix_aspect(scales, spec.input_size), strict=True)
    return [warp(frame, warp_matrix(*pair, spec.input_size), spec.input_size) for pair in pairs]


def _tabulate(plan: PosePlan, records: Sequence[Record]) -> list[dict[str, Any]]:
    from paddle_rt.tasks.pose.export import PoseExport

    first, unmerged = records[0], records[1]
    spec = PoseExport(input_size=plan.input_size[::-1])
    rows = []
    for record in records:
        pipeline, seconds = record.pipeline, record.seconds
        startup, memory = startup_and_memory(pipeline, FRAME)
        rows.append({
            "model": pipeline.model, "input_size": list(plan.input_size), "people": plan.people,
            "backend": pipeline.backend, "precision": pipeline.precision, "threads": pipeline.threads,
            "pipeline": pipeline.side, **times_in_ms("end_to_end", seconds),
            **{f"{stage}_ms": 1e3 * statistics.median(record.stages[stage]) for stage in STAGES},
            "fps": 1 / statistics.median(seconds), "speedup": _ratio(first, record),
            "against_unmerged": _ratio(unmerged, record),
            # The other way cuts people out otherwise, and so gets other keypoints.
            "keypoint_agreement": spec.agreement(unmerged.labels, record.labels) if record is not first else None,
            "startup_s": startup, "peak_rss_mb": memory, "runs": len(seconds),
        })  # fmt: skip
    return rows


def _ratio(reference: Record, record: Record) -> float:
    return statistics.median(a / b for a, b in zip(reference.seconds, record.seconds, strict=True))
