"""What the page shows of an export: drawings, tables, times, videos and examples, without a browser or Gradio."""

import pathlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from paddle_rt import imaging
from paddle_rt.demo import media
from paddle_rt.demo.exports import Options, describe_time, in_channels, names_of, read_boxes
from paddle_rt.imaging.view import View
from paddle_rt.streetscenes import street_people
from tests.demo.exports import COLOURS, NAMES, halves, load_export
from tests.helpers import damaged_video, message, read_video, write_video, written
from tests.inference.test_pose_estimator import BOXES, DOTS, PLACES, dotted

BLUE, GREEN, RED = range(3)


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    return {kind: load_export(folder, kind) for kind in ("segmentation", "video", "pose", "classification")}


def test_areas_and_confidences_of_classes(exports):
    export, image = exports["segmentation"], halves(BLUE, RED, 0.75)
    found = export.find(image, confidence=True)
    rows = export.rows(found, Options())
    assert [(row.name, row.colour) for row in rows] == [("blue", (0, 0, 250)), ("red", (250, 0, 0))]
    assert [row.share for row in rows] == pytest.approx([0.75, 0.25], abs=0.02)
    mean = found.result.confidence[found.result.map == BLUE].mean()
    assert rows[0].more == f"{mean:.2f}" and 0.4 < mean < 0.6  # the softmax of 1, 0 and 0 is 0.576
    assert all(row.more is None for row in export.rows(export.find(image), Options())), "not computed unasked"
    assert [row.name for row in export.rows(found, Options(classes=["red", "none"]))] == ["red"]
    assert export.rows(found, Options(classes=[])) == []


def test_drawings_are_those_of_infer(exports):
    export, image = exports["segmentation"], halves(BLUE, RED)
    found, palette = export.find(image, confidence=True), np.array(COLOURS, np.uint8)
    options = Options(0.8, ["red"], contours=True)
    expected = View(NAMES, palette, 0.8, [RED], contours=True).draw(image, found.result.map)
    np.testing.assert_array_equal(export.draw(found, options), expected)
    heat_map = View(NAMES, palette, legend=True).heat_map(found.result.confidence)
    np.testing.assert_array_equal(export.draw(found, Options(view="confidence")), heat_map)
    plain = export.find(image)
    np.testing.assert_array_equal(
        export.draw(plain, Options(view="confidence")), View(NAMES, palette, 0.5).draw(image, plain.result)
    )


def test_people_in_boxes(exports):
    export, frame = exports["pose"], dotted(PLACES)
    boxes = read_boxes("\n".join(" ".join(map(str, box)) for box in BOXES) + "\n\n")
    np.testing.assert_array_equal(boxes, BOXES)
    found, options = export.find(frame, boxes, confidence=True), Options(threshold=0.4)
    people, sides = found.result, imaging.body_sides(DOTS.names, DOTS.flip_pairs)
    expected = imaging.draw_skeletons(frame, people.points, people.scores, DOTS.skeleton, sides, 0.4)
    np.testing.assert_array_equal(export.draw(found, options), expected)
    rows = export.rows(found, options)
    assert [(row.name, row.more) for row in rows] == [("person 1", "3 of 3"), ("person 2", "3 of 3")]
    assert [row.share for row in rows] == pytest.approx(people.scores.mean(1).tolist())
    assert len(export.find(frame).result) == 1, "without boxes, the whole frame is one"


@pytest.mark.parametrize("text", ["1 2 3", "1 2 3 x", "1,2,3,4,5"])
def test_boxes_that_are_none(text):
    assert message(read_boxes, f"0 0 4 4\n{text}").startswith("boxes, line 2: expected x1 y1 x2 y2 in pixels")
    assert read_boxes(" \n") is None


def test_classes_of_an_image(exports):
    export = exports["classification"]
    found = export.find(halves(BLUE, GREEN))
    rows = export.rows(found, Options())
    assert [row.name for row in rows] == found.result.names and sum(row.share for row in rows) == pytest.approx(1)
    lines = [f"{name} {score:.2f}" for name, score in zip(found.result.names, found.result.scores, strict=True)]
    np.testing.assert_array_equal(export.draw(found, Options()), imaging.caption(found.frame, lines))


def test_videos_of_two_users_are_kept_apart(exports):
    """The network for video labels what it sees now and saw before; each user continues a state of their own."""
    export, state = exports["video"], {}
    first = {"one": halves(BLUE, BLUE) // 8, "two": halves(RED, RED) // 8}
    dark = np.full((64, 96, 3), 10, np.uint8)
    for user in first:
        state[user] = export.find(first[user]).state
    labels = {user: export.find(dark, state=state[user]).result for user in first}
    assert (labels["one"] == BLUE).all() and (labels["two"] == RED).all()
    assert (export.find(dark).result == BLUE).all(), "a frame without a state is the first one of a video"


def test_users_at_the_same_time_get_their_own_results(exports):
    images = [halves(left, right, share) for left in range(3) for right in range(3) for share in (0.25, 0.5)]
    for kind in ("segmentation", "video"):
        expected = [exports[kind].find(image).result for image in images]
        with ThreadPoolExecutor(6) as threads:
            found = list(threads.map(exports[kind].find, images * 3))
        assert all(np.array_equal(one.result, expected[at % len(images)]) for at, one in enumerate(found))
        assert all(np.array_equal(one.frame, images[at % len(images)]) for at, one in enumerate(found))


@pytest.mark.parametrize("kind", ["segmentation", "video", "pose", "classification"])
def test_a_video_becomes_one_that_browsers_play(exports, tmp_path, kind):
    frames = [halves(BLUE, RED, share) for share in (0.25, 0.5, 0.75)]
    path, steps = write_video(tmp_path / "in.avi", [*frames, frames[-1]], "MJPG"), []
    output = tmp_path / "out" / "x.webm"
    arguments = (str(path), exports[kind], Options(), output, 3, lambda *step: steps.append(step))
    rows, time, failures = media.label_video(*arguments)
    assert failures == [] and steps == [(1, 3), (2, 3), (3, 3)] and time.startswith("3 frames; ")
    images, fps = read_video(output)
    assert len(images) == 3 and images[0].shape == (64, 96, 3) and fps == pytest.approx(12.5)
    assert output.read_bytes()[:4] == b"\x1a\x45\xdf\xa3" and written(tmp_path / "out") == ["x.webm"]
    if kind == "segmentation":
        assert {row.name: round(row.share, 1) for row in rows} == {"blue": 0.5, "red": 0.5}
        mean = images[1][8:56, 8:40].mean((0, 1))[::-1]
        error = np.abs(mean - (0, 0, 252)).max()  # half of the image, half of the colour of the class
        assert error < 12, f"the overlay is off by {error:.0f} of 255"
    elif kind != "video":
        assert rows == []


@pytest.mark.parametrize(("name", "expected"), [
    ("half", "cannot open video"), ("empty", "is empty"), ("list.txt", "list.txt is not a video; expected a file such"),
])  # fmt: skip
def test_what_is_no_video(exports, tmp_path, name, expected):
    """A list of images would be read, too, with the images that it names on this machine."""
    path = tmp_path / name if "." in name else damaged_video(tmp_path, name)
    if "." in name:
        path.write_text("/etc/hostname\n")
    assert expected in message(media.label_video, str(path), exports["segmentation"], Options(), tmp_path / "o.webm", 9)
    assert not list(tmp_path.glob("*o.webm*"))


def test_an_address_is_no_upload(exports, tmp_path):
    said = message(media.label_video, "http://127.0.0.1:9/x.mp4", exports["segmentation"], Options(), tmp_path / "o", 9)
    assert said.startswith("x.mp4 is not a video")


def test_examples_are_rendered_for_the_tasks_of_the_page(exports, tmp_path, monkeypatch):
    monkeypatch.setattr(media, "EXAMPLES", 1)
    chosen = [exports["pose"], exports["segmentation"], exports["classification"]]
    found = media.write_examples(chosen, tmp_path, 4)
    assert [path.name for path, _ in found] == ["people_4.png", "street_4.png"]
    for path, _ in found:
        assert imaging.read_image(path).shape == (*media.EXAMPLE_SIZE, 3)
    _, people = street_people.render_people(street_people.SERIES["test"][0] + 4, *media.EXAMPLE_SIZE)
    error = np.abs(read_boxes(found[0][1]) - [person.box for person in people]).max()
    assert error <= 0.5 and found[1][1] == "", f"the boxes are off by {error} pixels"


def test_names_tell_exports_from_each_other():
    folders = [pathlib.Path(name) for name in ("a/one/model", "a/two/model", "b/one/net")]
    assert names_of(folders) == ["one/model", "two/model", "one/net"] and names_of(folders[1:]) == ["model", "net"]
    assert message(names_of, [folders[0], folders[0]]).startswith("--config names an export twice")


def test_times_and_channels():
    text = describe_time({"preprocess": 0.002, "network": 0.01, "labels": 0.004}, 2, confidence=True)
    assert text == "8.0 ms a frame (preprocess 1.0, network 5.0, labels and confidence 2.0)"
    frame = halves(BLUE, RED)
    assert in_channels(frame, 3) is frame
    np.testing.assert_array_equal(in_channels(frame, 1), cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))
    assert "a webcam does not give" in message(in_channels, frame, 4)
