"""`PoseEstimator` on a small graph whose heatmaps are the colours of a person: it finds dots where they are."""

import dataclasses
import json
import pathlib

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from paddle_rt.inference import KeypointSet, PoseEstimator, load
from paddle_rt.inference.deployment import VERIFICATION, Deployment, file_digest, load_deployment, save_deployment
from paddle_rt.inference.pose_estimator import PoseSettings, person_scores
from paddle_rt.inference.pose_geometry import box_to_center_scale, decode, fix_aspect, mirror_heatmaps, to_image
from tests.helpers import message, run_python, smooth_image

WIDTH, HEIGHT = 48, 64
DOTS = KeypointSet(("blue", "left_green", "right_red"), ((1, 2),), ((0, 1), (1, 2)), (0.1, 0.1, 0.1))
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def write_export(
    folder: pathlib.Path, batch: int | None = None, of: PoseSettings = PoseSettings(DOTS), **changes: object
) -> pathlib.Path:
    """Write an export whose heatmaps are the blue, green and red of a crop, the means of 4x4 pixels."""
    nodes = [
        helper.make_node("Cast", ["frame"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["means"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Mul", ["means", "scale"], ["y"]),
    ]
    frames = helper.make_tensor_value_info("frame", TensorProto.UINT8, [batch or "batch", HEIGHT, WIDTH, 3])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch or "batch", 3, HEIGHT // 4, WIDTH // 4])
    constants = [numpy_helper.from_array(np.float32(1 / 255), "scale")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [frames], [result], constants),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    (folder / VERIFICATION).write_text(json.dumps({"files": {"model.onnx": file_digest(folder / "model.onnx")}}))
    fields = {"onnx": "model.onnx", "settings": of.to_dict(), **changes}
    deployment = Deployment(
        folder, [{"type": "Normalize"}], [batch, 3, HEIGHT, WIDTH], "heatmaps", "pose", "uint8", "float32"
    )
    save_deployment(dataclasses.replace(deployment, **fields))
    return folder


def dotted(places: np.ndarray, height: int = 120, width: int = 160) -> np.ndarray:
    """Return a black frame with a dot of each colour for each person. Shape: [N, 3, 2] to [height, width, 3]."""
    frame = np.zeros((height, width, 3), np.uint8)
    for person in places:
        for place, colour in zip(person, COLOURS, strict=True):
            cv2.circle(frame, tuple(int(value) for value in place), 4, colour, -1)
    return frame


PLACES = np.array([[(30, 30), (22, 60), (44, 80)], [(110, 40), (100, 70), (130, 66)]], np.float64)
BOXES = np.array([[10, 15, 58, 95], [90, 25, 140, 85]], np.float64)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("batch", [None, 1, 3])
def test_keypoints_are_found_in_pixels_of_the_frame(tmp_path, backend, batch):
    estimator = load(write_export(tmp_path / "e", batch), backend, threads=1)
    assert isinstance(estimator, PoseEstimator) and estimator.warmup() > 0
    people = estimator(dotted(PLACES), BOXES)
    assert people.points.shape == (2, 3, 2) and people.points.dtype == people.scores.dtype == np.float32
    error = np.abs(people.points - PLACES).max()  # a cell is 4 pixels of 100 / 64 of the frame
    assert error < 4, f"the keypoints are off by {error:.2f} pixels"
    assert people.scores.min() > 0.5 and list(estimator.timings) == ["preprocess", "network", "labels"]
    again = estimator(dotted(PLACES), BOXES[::-1].tolist())
    np.testing.assert_array_equal(again.points, people.points[::-1])


@pytest.mark.parametrize("flip_test", [False, True])
@pytest.mark.parametrize("settings", [PoseSettings(DOTS), PoseSettings(DOTS, 1.5, True, "dark", 5, False)])
def test_the_steps_are_those_of_the_geometry(tmp_path, settings, flip_test):
    """The whole way again, by the functions whose results are compared with the original's."""
    frame, size = cv2.blur(dotted(PLACES), (5, 5)), (WIDTH, HEIGHT)
    centers, scales = box_to_center_scale(BOXES, settings.padding)
    scales, heatmaps = fix_aspect(scales, size), []
    for center, scale in zip(centers, scales, strict=True):
        length = np.array(size) - settings.udp
        corners = np.float32([(0, 0), (length[0], 0), (0, length[1])])
        image = corners / length * scale + center - scale / 2
        crop = cv2.warpAffine(frame, cv2.getAffineTransform(np.float32(image), corners), size)
        for view in (crop, crop[:, ::-1]):
            heatmaps.append(view.reshape(HEIGHT // 4, 4, WIDTH // 4, 4, 3).mean((1, 3)).transpose(2, 0, 1) / 255)
    heatmaps = np.float32(heatmaps)
    own = heatmaps[::2]
    if flip_test:
        own = (own + mirror_heatmaps(heatmaps[1::2], np.array([0, 2, 1]), settings.shift_heatmap)) / 2
    points, scores = decode(own, settings.decoding, settings.udp, 4, settings.blur_kernel)
    folder = write_export(tmp_path / "e", of=settings)
    people = PoseEstimator(folder, "onnxruntime", threads=1, flip_test=flip_test)(frame, BOXES)
    error = np.abs(people.points - to_image(points, centers, scales, size, settings.udp)).max()
    assert error < 0.05, f"the keypoints are off by {error:.3f} pixels"
    assert np.abs(people.scores - scores).max() < 0.01


@pytest.fixture(scope="module")
def estimator(tmp_path_factory: pytest.TempPathFactory) -> PoseEstimator:
    return PoseEstimator(write_export(tmp_path_factory.mktemp("pose") / "e"), "onnxruntime", threads=1)


@pytest.mark.parametrize("boxes", [[], np.zeros((0, 4))])
def test_a_frame_without_people_gives_empty_arrays(estimator, boxes):
    people = estimator(dotted(PLACES), boxes)
    assert people.points.shape == (0, 3, 2) and people.scores.shape == (0, 3) and len(people) == 0


def test_without_boxes_the_frame_is_one_box(estimator):
    frame = dotted(PLACES[:1])
    np.testing.assert_array_equal(estimator(frame).points, estimator(frame, [[0, 0, 160, 120]]).points)


def test_a_box_may_reach_beyond_the_frame(estimator):
    points = estimator(dotted(PLACES), [[-40, -20, 60, 130]]).points[0]
    error = np.abs(points - PLACES[0]).max()
    assert error < 8, f"the keypoints are off by {error:.2f} pixels"


def test_thousands_of_people_run_in_groups(estimator, monkeypatch):
    sizes, crop = [], PoseEstimator._crop
    monkeypatch.setattr(
        PoseEstimator, "_crop", lambda self, frame, *part: sizes.append(len(part[0])) or crop(self, frame, *part)
    )
    people = estimator(dotted(PLACES), np.tile(BOXES, (1000, 1)))
    most = 2**21 // (WIDTH * HEIGHT)
    assert max(sizes) == most and sum(sizes) == 2000
    np.testing.assert_array_equal(people.points, np.tile(people.points[:2], (1000, 1, 1)))


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([[1, 2, 3]], "boxes are numbers [N, 4] as x1 y1 x2 y2, got [1, 3]"),
        ([1, 2, 3, 4], "boxes are numbers [N, 4] as x1 y1 x2 y2, got [4]"),
        (np.zeros((3, 0)), "got [3, 0]"),
        ("people", "boxes are numbers [N, 4] as x1 y1 x2 y2, got 'people'"),
        ([[10, 10, 20, 20], [10, np.nan, 20, 20]], "box 1 of 2, 10 nan 20 20, has a coordinate that is no number"),
        ([[0, 0, np.inf, 9]], "has a coordinate that is no number"),
        ([[0, 0, 1e300, 9]], "has a coordinate that is no number"),
        ([[20, 10, 20, 30]], "box 0 of 1, 20 10 20 30, is empty"),
        ([[20, 10, 10, 30]], "is empty: x1 is below x2 and y1 below y2, unlike in COCO's form x y width height"),
        ([[170, 10, 180, 30]], "lies outside the frame of 160x120"),
        ([[-9, 10, 0, 30]], "lies outside the frame of 160x120"),
        ([[5, 120, 9, 130]], "lies outside the frame of 160x120"),
    ],
)
def test_boxes_that_are_none_are_refused(estimator, boxes, expected):
    text = message(estimator, dotted(PLACES), boxes)
    assert expected in text and "\n" not in text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"output_op": "none"}, "gives heatmaps; got input_dtype uint8 and output_op none"),
        ({"input_dtype": "float32"}, "input_dtype is uint8"),
        ({"state_shape": [1, 1, 1, 1]}, "takes single frames"),
        ({"input_shape": [None, 3, None, WIDTH]}, "takes crops of a fixed size, a multiple of 4"),
        ({"input_shape": [None, 3, HEIGHT, 50]}, "a multiple of 4, got [64, 50]"),
        ({"input_shape": [None, 4, HEIGHT, WIDTH]}, "takes 4 channels"),
        ({"settings": {}}, "settings"),
        ({"settings": {**PoseSettings(DOTS).to_dict(), "decoding": "dork"}}, "'argmax' or 'quarter' or 'dark'"),
        ({"settings": {**PoseSettings(DOTS).to_dict(), "paddign": 1}}, "did you mean 'padding'?"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path, changes, expected):
    assert expected in message(PoseEstimator, write_export(tmp_path / "e", **changes), "onnxruntime")


def test_what_does_not_fit_the_graph_is_refused(tmp_path):
    folder = write_export(tmp_path / "e")
    fewer = PoseSettings(KeypointSet(("a", "b"))).to_dict()
    save_deployment(dataclasses.replace(load_deployment(folder), settings=fewer))
    assert "the graph returns [1, 3, 16, 12], but deploy.yaml describes [1, 2, 16, 12]" in message(
        PoseEstimator(folder, "onnxruntime"), smooth_image(20, 20)
    )
    assert "keypoints.flip_pairs is missing" in message(PoseEstimator, folder, "onnxruntime", flip_test=True)


def test_frames_and_crops_are_checked(estimator):
    assert "a frame is uint8 BGR" in message(estimator, np.zeros((9, 9), np.uint8), BOXES)
    assert "a crop is (48, 64) (width, height), got (9, 9)" in message(
        estimator.predict_crop, np.zeros((9, 9, 3), np.uint8)
    )
    wide = np.zeros((1, 40_000, 3), np.uint8)
    assert "people cannot be cut out of a frame of [1, 40000, 3]" in message(estimator, wide, [[5, 0, 9, 1]])


def test_it_needs_no_paddle(tmp_path):
    code = (
        "import sys, numpy; from paddle_rt.inference import load; frame = numpy.zeros((9, 9, 3), numpy.uint8); "
        "points = load(sys.argv[1], 'onnxruntime', threads=1)(frame, [[1, 1, 5, 5]]).points; "
        "assert points.shape == (1, 3, 2); sys.exit(' '.join({'paddle', 'paddleseg'} & set(sys.modules)) or 0)"
    )
    done = run_python("-c", code, write_export(tmp_path / "e"))
    assert done.returncode == 0, done.stderr


def test_the_score_of_a_person_counts_the_keypoints_that_were_found():
    found = person_scores(np.array([1.0, 0.5, 1.0]), np.array([[0.9, 0.7, 0.1], [0.8, 0.2, 0.0], [0.1, 0.2, -1]]))
    np.testing.assert_allclose(found, [0.8, 0.4, 0.0])


@pytest.mark.parametrize(
    ("batch", "backend", "device", "expected"),
    [
        (None, "openvino", "cpu", {"batch": 1}),
        (None, "onnxruntime", "cpu", {"batch": 1}),
        (None, "paddle", "cpu", {}),
        (None, "onnxruntime", "gpu", {}),
        (None, "onnxruntime", "tensorrt", {"profile": [(n, HEIGHT, WIDTH) for n in (1, 8, 682)]}),
        (4, "openvino", "cpu", {}),
        (4, "onnxruntime", "tensorrt", {}),
    ],
)
def test_an_open_number_of_people_is_settled_by_engine(tmp_path, batch, backend, device, expected):
    estimator = PoseEstimator(write_export(tmp_path / "e", batch), "onnxruntime", threads=1)
    assert estimator.engine_settings(backend, device, None) == expected


def test_a_profile_bounds_the_groups(tmp_path):
    estimator = PoseEstimator(write_export(tmp_path / "e"), "onnxruntime", threads=1)
    profile = [(1, HEIGHT, WIDTH), (2, HEIGHT, WIDTH), (2, HEIGHT, WIDTH)]
    assert estimator.engine_settings("onnxruntime", "tensorrt", profile) == {"profile": profile}
    sizes = []
    estimator._engine.run = lambda images: sizes.append(len(images)) or np.zeros((len(images), 3, 16, 12), np.float32)
    assert estimator(dotted(PLACES), BOXES[:1].repeat(5, axis=0)).points.shape == (5, 3, 2)
    assert sizes == [2, 2, 1]
