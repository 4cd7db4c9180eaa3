"""StreetPeople: rendered people and their keypoints."""

import dataclasses

import numpy as np
import pytest

from paddle_rt.inference.keypoints import COCO
from paddle_rt.streetscenes import people, street_people
from paddle_rt.streetscenes.mesh import CAR, Mesh, Thing, rect_z
from paddle_rt.streetscenes.people import KEYPOINTS, make_person, make_pose, pose_skeleton
from paddle_rt.streetscenes.render import draw, render
from paddle_rt.streetscenes.scenes import make_scene
from paddle_rt.streetscenes.street_people import PEOPLE, image_of, render_people
from tests.helpers import message


@pytest.fixture(scope="module")
def images() -> list[tuple[np.ndarray, list[street_people.Person]]]:
    return [render_people(index, 120, 160) for index in range(5)]


def test_an_image_depends_on_its_number_and_seed_alone(images):
    again, found = render_people(3, 120, 160)
    assert np.array_equal(again, images[3][0])
    assert all(np.array_equal(a.keypoints, b.keypoints) for a, b in zip(found, images[3][1], strict=True))
    others = (render_people(3, 120, 160, 1)[0], render_people(10_000_003, 120, 160)[0], images[4][0])
    assert not any(np.array_equal(again, other) for other in others)


def test_the_order_of_the_people():
    assert KEYPOINTS == COCO.names
    places = [(image, place) for image in range(12) for place in range(PEOPLE[image % len(PEOPLE)])]
    assert [image_of(person) for person in range(len(places))] == places


def test_annotations_lie_in_the_image(images):
    for index, (image, found) in enumerate(images):
        assert image.shape == (120, 160, 3) and image.dtype == np.uint8 and len(found) == PEOPLE[index]
        for person in found:
            outside = person.visible == 0
            assert person.keypoints.dtype == np.float32 and set(person.visible.tolist()) <= {0, 1, 2}
            assert not person.keypoints[outside].any()
            inside = person.keypoints[~outside]
            assert ((inside >= 0) & (inside <= (159, 119))).all()
            x1, y1, x2, y2 = person.box
            assert 0 <= x1 < x2 <= 159 and 0 <= y1 < y2 <= 119
            assert ((inside >= (x1 - 1, y1 - 1)) & (inside <= (x2 + 1, y2 + 1))).all()
            assert 0 < person.area <= (x2 - x1 + 2) * (y2 - y1 + 2)
            assert np.count_nonzero(person.visible == 2) >= 4


def test_another_size_shows_the_same_people(images):
    _, larger = render_people(2, 240, 320)
    for small, large in zip(images[2][1], larger, strict=True):
        both = (small.visible > 0) & (large.visible > 0)
        error = np.abs(2 * small.keypoints[both] + 0.5 - large.keypoints[both]).max()
        assert both.sum() >= 4 and error < 1e-3, f"keypoints are {error} pixels apart"


def test_bones_keep_their_lengths_in_every_pose():
    rng = np.random.default_rng(0)
    bones = {"hip": ("knee", 0.245), "knee": ("ankle", 0.235), "shoulder": ("elbow", 0.17), "elbow": ("wrist", 0.145)}
    worst, props = 0.0, set()
    for _ in range(150):
        build, pose = people.make_build(rng), make_pose(rng)
        joints = pose_skeleton(build, pose).joints
        props.add(pose.prop)
        for side in ("left", "right"):
            for start, (end, share) in bones.items():
                length = np.linalg.norm(joints[f"{side}_{start}"] - joints[f"{side}_{end}"]) / build.height
                worst = max(worst, abs(length - share))
        assert np.linalg.norm(joints["left_hip"] - joints["right_hip"]) < 0.13 * build.height
    assert worst < 2e-3 and props == {"", "seat", "bicycle"}, f"a bone is {worst:.4f} of the height too long or short"


def test_left_and_right_are_those_of_the_person():
    eye = np.array((0.0, 1.5, -5.0))
    left, right = KEYPOINTS.index("left_hip"), KEYPOINTS.index("right_hip")
    away, towards = (make_person(np.random.default_rng(1), angle, eye).keypoints for angle in (0.0, np.pi))
    assert away[left, 0] < away[right, 0] and towards[left, 0] > towards[right, 0]
    assert towards[KEYPOINTS.index("nose"), 2] < away[KEYPOINTS.index("nose"), 2]


def test_what_stands_in_front_hides_joints():
    scene, figures = street_people._make_scene(np.random.default_rng(3), 0, 0, 4 / 3, 1)
    ((number, figure),) = figures
    open_view = street_people._annotate(draw(scene, 120, 160), scene, number, figure)
    mesh = Mesh()
    mesh.add(rect_z((-5, 5), (-5, 9), 0.0), np.full(3, 90.0), CAR)
    scene.things.append(Thing("wall", mesh, scene.camera.x, 1.05))
    walled = type(scene)(0, 0, 0.0, scene.camera, scene.weather, scene.things)
    hidden = street_people._annotate(draw(walled, 120, 160), walled, number, figure)
    assert np.count_nonzero(open_view.visible == 2) >= 4
    assert np.array_equal(hidden.visible, np.minimum(open_view.visible, 1)) and hidden.area == 0


def test_a_back_hides_the_face():
    scene, _ = street_people._make_scene(np.random.default_rng(0), 0, 0, 4 / 3, 1)
    place = np.array((scene.camera.x, 0.0, 4.0))
    camera = dataclasses.replace(scene.camera, yaw=0.0, pitch=0.0, focal=1.0)
    seen = {}
    for name, angle in {"away": 0.0, "towards": np.pi}.items():
        counts = []
        for seed in range(8):
            eye = np.array((camera.x, camera.y, 0.0)) - place
            figure = make_person(np.random.default_rng(seed), angle, eye)
            things = [Thing("person", figure.mesh, place[0], place[2])]
            alone = dataclasses.replace(scene, camera=camera, things=things)
            person = street_people._annotate(draw(alone, 120, 160), alone, 0, figure)
            counts.append(np.count_nonzero(person.visible[:3] == 2))
        seen[name] = np.mean(counts)
    assert seen["away"] < 0.8 < 1.8 < seen["towards"], seen


def test_a_drawing_knows_the_depth_of_its_pixels():
    scene = make_scene(4)
    drawing = draw(scene, 60, 120)
    image, label = render(scene, 60, 120)
    assert np.array_equal(drawing.image, image) and np.array_equal(drawing.label, label)
    assert drawing.depth.shape == drawing.thing.shape == (60, 120)
    assert (drawing.depth[drawing.thing < 0] > 9000).all() and (drawing.depth[drawing.thing >= 0] > 0).all()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [((-1, 64, 64), "must be 0 or more"), ((0, 64, 300), "at most three to one"), ((0, 8, 8), "16 pixels a side")],
)
def test_bad_arguments(arguments, expected):
    assert expected in message(render_people, *arguments)
