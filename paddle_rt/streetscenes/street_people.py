"""StreetPeople: images of people in streets with COCO's 17 keypoints, generated from a number.

`render_people(index)` puts one to five articulated people on a street of StreetScenes, in any weather, and draws them.
Positions are those of the joints, exact to the fraction of a pixel; visibility follows from the depth of each pixel.
Needs NumPy and OpenCV only.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.streetscenes import objects, scenery
from paddle_rt.streetscenes.layout import Plan
from paddle_rt.streetscenes.mesh import PERSON, Thing, around, pick
from paddle_rt.streetscenes.people import KEYPOINTS, SURFACE, Figure, make_person
from paddle_rt.streetscenes.render import Camera, Drawing, Scene, draw
from paddle_rt.streetscenes.scenes import make_plan, make_weather
from paddle_rt.streetscenes.street_objects import lay_street
from paddle_rt.streetscenes.traffic import put_furniture, put_parked

# The images of each mode of the data set: the index of the first, and the default number of people. None is shared.
SERIES = {"train": (0, 4800), "val": (10_000_000, 600), "test": (20_000_000, 600)}
PEOPLE = (2, 3, 4, 1, 3, 5, 2, 4)  # people of successive images, over and over

_STREAM = 2  # keeps the random numbers apart from those of the other data sets at the same index
_BEHIND = 40.0  # metres of street that are laid out behind the people
_TRIES = 60  # places that are drawn for a person until one leaves the others visible
_NEAREST = 1.7  # metres between the camera and a person, at least
_APART = 1.1  # metres between two people
_SHARE = 0.55  # of a person that others may cover, and that may lie outside the image
_SEEN = 4  # keypoints of a person that are visible, at least


@dataclass(frozen=True)
class Person:
    """A person of an image.

    Attributes:
        keypoints: float32 [17, 2], x and y in pixels; (0, 0) for those outside the image.
        visible: uint8 [17]: 2 for a visible joint, 1 for one that the body itself, another person or an object hides,
            0 for one outside the image.
        box: float32 [4], x1, y1, x2, y2: the whole body within the image, hidden parts included.
        area: The number of the pixels that show the person.
    """

    keypoints: np.ndarray
    visible: np.ndarray
    box: np.ndarray
    area: float


class _Place(NamedTuple):
    """Where a person stands: metres to the right of the camera's axis and along it, and the place on the screen."""

    across: float
    ahead: float
    screen: tuple[float, float, float, float]  # left, top, right, bottom; image heights from the image's middle


def image_of(person: int) -> tuple[int, int]:
    """Return the image that shows a person of a mode, both counted from 0, and the person's place in the image."""
    rounds, rest = divmod(person, sum(PEOPLE))
    image = 0
    while rest >= PEOPLE[image]:
        rest -= PEOPLE[image]
        image += 1
    return rounds * len(PEOPLE) + image, rest


def render_people(index: int, height: int, width: int, seed: int = 0) -> tuple[np.ndarray, list[Person]]:
    """Draw an image of people.

    Args:
        index: Number of the image, 0 or more; the same index gives the same image in every process.
        height: Rows of the image.
        width: Columns of the image; between a third of the height and three times the height.
        seed: Seed of the series of images, 0 or more.

    Returns:
        Image, uint8 BGR [height, width, 3], and the people; their number is `PEOPLE[index % len(PEOPLE)]`.

    Raises:
        UserError: `index` or `seed` is negative, or the size is not as described.
    """
    if index < 0 or seed < 0:
        raise UserError(f"image index {index}, seed {seed}: both must be 0 or more")
    if height < 16 or width < 16 or not 1 / 3 <= width / height <= 3:
        raise UserError(f"cannot render people at {width}x{height}: 16 pixels a side or more, and at most three to one")
    number, attempt = PEOPLE[index % len(PEOPLE)], 0
    while True:
        rng = np.random.default_rng([seed, index, _STREAM, attempt])
        scene, figures = _make_scene(rng, index, seed, width / height, number)
        drawing = draw(scene, height, width)
        people = [_annotate(drawing, scene, thing, figure) for thing, figure in figures]
        if all(np.count_nonzero(person.visible == 2) >= _SEEN for person in people) or attempt == 20:
            return drawing.image, people
        attempt += 1


def _make_scene(
    rng: np.random.Generator, index: int, seed: int, aspect: float, number: int
) -> tuple[Scene, list[tuple[int, Figure]]]:
    """Return a scene, and the people with their places in its list of things."""
    weather, lit = make_weather(rng)
    weather = replace(weather, gains=weather.gains * np.exp(rng.normal(0, 0.08, 3) + rng.normal(0, 0.15)))
    plan = make_plan(rng, weather, lit)
    left, right = plan.sides
    eye = np.array((rng.uniform(-left.road, right.road), rng.uniform(0.9, 2.2), 0.0))
    focal = rng.uniform(0.9, 1.7)
    yaw, roll = rng.normal(0, 0.12), rng.normal(0, 0.09)
    places = _draw_places(rng, plan, eye, focal, yaw, aspect, number)
    aim = places[int(rng.integers(number))]
    pitch = np.arctan((eye[1] - 0.9) / aim.ahead + rng.uniform(-0.22, 0.22) / focal)
    camera = Camera(eye[0], eye[1], 0.0, yaw, float(pitch), roll, focal, 0.0)
    far = max(place.ahead for place in places)
    lay_street(plan, far + _BEHIND)
    _furnish(plan, far + 2.0)
    figures = []
    for place in places:
        foot = _foot(plan, eye, yaw, place.across, place.ahead)
        figure = make_person(rng, rng.uniform(-np.pi, np.pi), eye - foot)
        figures.append((len(plan.things), figure))
        shadow = around(0.25, 0.22, 0.0, figure.height)
        plan.things.append(Thing("person", figure.mesh, foot[0], foot[2], foot[1], shadow=shadow))
    if rng.random() < 0.4:
        _put_obstacle(plan, eye, yaw, places[int(rng.integers(number))])
    return Scene(index, seed, 0.0, camera, weather, plan.things), figures


def _foot(plan: Plan, eye: np.ndarray, yaw: float, across: float, ahead: float) -> np.ndarray:
    """Return a point of the ground by its distances from the camera."""
    c, s = np.cos(yaw), np.sin(yaw)
    x, z = eye[0] + c * across + s * ahead, -s * across + c * ahead
    side = plan.sides[int(x > 0)]
    return np.array((x, 0.0 if abs(x) < side.road else 0.12, z))


def _draw_places(
    rng: np.random.Generator, plan: Plan, eye: np.ndarray, focal: float, yaw: float, aspect: float, number: int
) -> list[_Place]:
    """Draw where people stand, so that each is in the image for the greater part and hides little of the others."""
    places: list[_Place] = []
    middle = rng.uniform(np.log(0.36), np.log(0.95))
    while len(places) < number:
        best, least = None, np.inf
        for _ in range(_TRIES):
            size = min(np.exp(np.clip(middle + rng.normal(0, 0.35), np.log(0.3), np.log(1.7))), focal * 1.7 / _NEAREST)
            ahead = focal * 1.7 / size
            x = rng.uniform(-0.5, 0.5) * aspect
            place = _Place(x * ahead / focal, ahead, (x - 0.18 * size, -0.5 * size, x + 0.18 * size, 0.5 * size))
            fault = _fault(place, places, plan, eye, yaw, aspect)
            if fault < least:
                best, least = place, fault
            if fault <= 0:
                break
        places.append(best)
    return places


def _fault(place: _Place, others: list[_Place], plan: Plan, eye: np.ndarray, yaw: float, aspect: float) -> float:
    """Return how much is wrong with a place; 0 if nothing is."""
    frame = (-aspect / 2, -0.5, aspect / 2, 0.5)
    fault = max(0.0, 1 - _SHARE - _overlap(place.screen, frame))
    x = _foot(plan, eye, yaw, place.across, place.ahead)[0]
    fault += max(0.0, abs(x) - plan.sides[int(x > 0)].edge + 0.4)
    for other in others:
        far, near = (place, other) if place.ahead > other.ahead else (other, place)
        fault += max(0.0, _overlap(far.screen, near.screen) - _SHARE)
        fault += max(0.0, _APART - np.hypot(place.across - other.across, place.ahead - other.ahead))
    return fault


def _overlap(box: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the share of a box that another one covers."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return max(width, 0.0) * max(height, 0.0) / ((box[2] - box[0]) * (box[3] - box[1]))


def _furnish(plan: Plan, start: float) -> None:
    """Place street furniture and parked vehicles behind the people."""
    first = len(plan.things)
    for side in plan.sides:
        put_furniture(plan, side)
        if plan.rng.random() < 0.5:
            put_parked(plan, side)
    plan.things[first:] = [thing for thing in plan.things[first:] if thing.z + thing.bias > start]


def _put_obstacle(plan: Plan, eye: np.ndarray, yaw: float, place: _Place) -> None:
    """Place an object between the camera and a person, of whom it hides a part."""
    rng = plan.rng
    kind = str(rng.choice(("bollard", "bush", "bicycle", "sign", "lamp", "fence", "car"),
                          p=(0.16, 0.18, 0.18, 0.12, 0.1, 0.16, 0.1)))  # fmt: skip
    ahead = max(place.ahead * rng.uniform(0.6, 0.85), 1.4)
    across = place.across * ahead / place.ahead + rng.uniform(-0.3, 0.3)
    if kind == "car":
        ahead, across = max(place.ahead - 1.6, 3.5), across + rng.choice((-1, 1)) * rng.uniform(1.2, 2.2)
        mesh = objects.car(rng)[0].turned(np.pi / 2)
    elif kind == "bicycle":
        mesh = objects.bicycle(rng).turned(round(rng.uniform(0, 64)) * np.pi / 32)
    elif kind == "fence":
        mesh = scenery.fence(rng, 1, 1.4, rng.uniform(0.6, 0.95), pick(rng, scenery.TIMBER), "picket").turned(np.pi / 2)
    elif kind == "sign":
        mesh = scenery.traffic_sign(rng)
    elif kind == "lamp":
        mesh = scenery.lamp_post(rng, int(rng.choice((-1, 1))), False)
    else:
        mesh = {"bollard": scenery.bollard, "bush": scenery.bush}[kind](rng)
    foot = _foot(plan, eye, yaw, across, ahead)
    shadow = None if kind in ("sign", "lamp") else around(0.3, 0.2, 0.0, 0.8)
    plan.things.append(Thing(kind, mesh, foot[0], foot[2], foot[1], shadow=shadow))


def _annotate(drawing: Drawing, scene: Scene, number: int, figure: Figure) -> Person:
    """Return what an image shows of a person, the thing of a number."""
    thing, (height, width) = scene.things[number], drawing.label.shape
    foot = np.array((thing.x, thing.y, thing.z))
    points, depth = drawing.project(figure.keypoints + foot)
    inside = ((points >= 0) & (points <= (width - 1, height - 1))).all(1) & (depth > 0)
    column, row = np.rint(np.where(inside[:, None], points, 0)).astype(int).T
    seen = drawing.depth[row, column] >= depth - SURFACE * figure.height - 0.02
    visible = np.where(inside, np.where(seen, 2, 1), 0).astype(np.uint8)
    outline, far = drawing.project(figure.outline + foot)
    limits = np.clip([outline[far > 0].min(0), outline[far > 0].max(0)], 0, (width - 1, height - 1))
    area = np.count_nonzero((drawing.thing == number) & (drawing.label == PERSON))
    keypoints = np.where(inside[:, None], points, 0).astype(np.float32)
    return Person(keypoints, visible, limits.astype(np.float32).reshape(4), float(area))


__all__ = ["KEYPOINTS", "PEOPLE", "SERIES", "Person", "image_of", "render_people"]
