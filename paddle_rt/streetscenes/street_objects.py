"""StreetObjects: images of single objects of the street, generated from a number, for classification.

`make_object_scene(index)` puts one object on an otherwise empty street of StreetScenes, in any weather, and points a
camera at it; `render` draws the scene. Needs NumPy and OpenCV only.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.streetscenes import objects, scenery
from paddle_rt.streetscenes.layout import BLOCKS, Plan, lay_ground
from paddle_rt.streetscenes.mesh import Mesh, Thing, around
from paddle_rt.streetscenes.render import Camera, Scene
from paddle_rt.streetscenes.scenes import make_plan, make_weather

# The scenes of each mode of the data set: the index of the first, and the default number. Two modes share no scene.
SERIES = {"train": (0, 2400), "val": (10_000_000, 600), "test": (20_000_000, 600)}

_STREAM = 1  # keeps the random numbers apart from those of the street scene of the same index
_BEHIND = 45.0  # metres of street that are laid out behind the object
_IN_FRONT = -100.0  # metres by which the object is painted before its turn: nothing stands between it and the camera
_STEP = np.pi / 32  # objects turn in steps, so that few turned meshes have to be kept


@dataclass(frozen=True)
class _Part:
    """A mesh of an object, `x` and `z` metres from the object's foot point; parts of a higher level hide the others."""

    mesh: Mesh
    x: float = 0.0
    z: float = 0.0
    level: int = 0


@dataclass(frozen=True)
class _Object:
    """An object: its parts, the box of its shadow, and the height from which on the camera looks at it."""

    parts: list[_Part]
    shadow: tuple[float, float, float, float, float, float]
    low: float = 0.0


def _angle(rng: np.random.Generator) -> float:
    return round(rng.uniform(-np.pi, np.pi) / _STEP) * _STEP


def _vehicle(build: Callable[..., tuple[Mesh, float, float, float]]) -> Callable[[np.random.Generator], _Object]:
    def make(rng: np.random.Generator) -> _Object:
        mesh, length, width, height = build(rng)
        angle = _angle(rng)
        across, along = abs(np.sin(angle)), abs(np.cos(angle))
        half = (width * along + length * across) / 2, (length * along + width * across) / 2
        return _Object([_Part(mesh.turned(angle))], around(*half, 0.0, height))

    return make


def _tram(rng: np.random.Generator) -> _Object:
    angle = _angle(rng)
    slices = objects.tram(rng, 1)
    parts = [_Part(mesh.turned(angle), z * np.sin(angle), z * np.cos(angle)) for mesh, z in slices]
    half = 1.5 * len(slices)
    reach = 1.3 + (half - 1.3) * abs(np.sin(angle)), 1.3 + (half - 1.3) * abs(np.cos(angle))
    return _Object(parts, around(*reach, 0.0, 3.5))


def _two_wheeler(build: Callable[[np.random.Generator], Mesh]) -> Callable[[np.random.Generator], _Object]:
    def make(rng: np.random.Generator) -> _Object:
        return _Object([_Part(build(rng).turned(_angle(rng)))], around(0.5, 0.5, 0.0, 1.1))

    return make


def _rider(rng: np.random.Generator) -> _Object:
    kind = str(rng.choice(("bicycle", "motorcycle")))
    quarter = int(rng.integers(4))
    sideways, turned = quarter % 2 == 1, quarter >= 2
    angle = quarter * np.pi / 2 + round(rng.uniform(-0.35, 0.35) / _STEP) * _STEP
    wheels = getattr(objects, kind)(rng).turned(angle)
    person = objects.rider(rng, kind, sideways).turned(np.pi if turned else 0.0)
    return _Object([_Part(wheels), _Part(person, level=1)], around(0.5, 0.5, 0.0, 1.7))


def _person(rng: np.random.Generator) -> _Object:
    mesh, height = objects.person(rng, bool(rng.random() < 0.5), bool(rng.random() < 0.2))
    return _Object([_Part(mesh)], around(0.22, 0.18, 0.0, height))


def _sign(rng: np.random.Generator) -> _Object:
    return _Object([_Part(scenery.traffic_sign(rng))], around(0.06, 0.06, 0.0, 2.6), low=1.5)


def _light(rng: np.random.Generator) -> _Object:
    mesh = scenery.traffic_light(rng, int(rng.choice((-1, 1))), bool(rng.random() < 0.3))
    return _Object([_Part(mesh)], around(0.1, 0.1, 0.0, 3.4), low=2.0)


def _lamp(rng: np.random.Generator) -> _Object:
    mesh = scenery.lamp_post(rng, int(rng.choice((-1, 1))), bool(rng.random() < 0.3))
    return _Object([_Part(mesh)], around(0.08, 0.08, 0.0, 7.0))


def _bollard(rng: np.random.Generator) -> _Object:
    return _Object([_Part(scenery.bollard(rng))], around(0.08, 0.08, 0.0, 0.95))


_BUILDERS: dict[str, Callable[[np.random.Generator], _Object]] = {
    "person": _person,
    "rider": _rider,
    "car": _vehicle(objects.car),
    "truck": _vehicle(objects.truck),
    "bus": _vehicle(objects.bus),
    "tram": _tram,
    "motorcycle": _two_wheeler(objects.motorcycle),
    "bicycle": _two_wheeler(objects.bicycle),
    "traffic light": _light,
    "traffic sign": _sign,
    "street lamp": _lamp,
    "bollard": _bollard,
}
CLASSES = tuple(_BUILDERS)


def make_object_scene(index: int, seed: int = 0) -> tuple[Scene, int]:
    """Put one object on an empty street and point a camera at it.

    Args:
        index: Number of the scene, 0 or more; the same index gives the same scene in every process.
        seed: Seed of the series of scenes, 0 or more.

    Returns:
        The scene, for `render` with an image as high as it is wide, and the object's class, a place in `CLASSES`.
        Successive indices have successive classes.

    Raises:
        UserError: `index` or `seed` is negative.
    """
    if index < 0 or seed < 0:
        raise UserError(f"scene index {index}, seed {seed}: both must be 0 or more")
    rng, label = np.random.default_rng([seed, index, _STREAM]), index % len(CLASSES)
    weather, lit = make_weather(rng)
    # Light of any colour and strength: colours alone should not tell the class.
    weather = replace(weather, gains=weather.gains * np.exp(rng.normal(0, 0.15, 3) + rng.normal(0, 0.22)))
    plan = make_plan(rng, weather, lit)
    thing = _BUILDERS[CLASSES[label]](rng)
    points = np.concatenate([part.mesh.flat.vertices + (part.x, 0.0, part.z) for part in thing.parts])
    size = float(np.ptp(points, axis=0).max())
    distance = 1.0 + size * rng.uniform(1.2, 3.0)
    lay_street(plan, distance + _BEHIND)
    x, y = _place(plan, size)
    for part in thing.parts:
        bias = _IN_FRONT - part.level
        shadow = thing.shadow if part is thing.parts[0] else None
        plan.things.append(Thing("object", part.mesh, x + part.x, distance + part.z, y, bias=bias, shadow=shadow))
    camera = _aim(rng, plan, points[points[:, 1] >= thing.low] + (x, y, distance))
    return Scene(index, seed, 0.0, camera, weather, plan.things), label


def lay_street(plan: Plan, end: float) -> None:
    """Lay the ground, and build both sides of the street as far as `end`."""
    lay_ground(plan)
    for side in plan.sides:
        for (z0, z1), kind in zip(plan.blocks(), side.kinds, strict=True):
            if z0 < end:
                BLOCKS[kind](plan, side, z0, min(z1, end))


def _place(plan: Plan, size: float) -> tuple[float, float]:
    """Draw where an object stands across the street, and the height of the ground there."""
    side = plan.sides[plan.rng.integers(2)]
    x = plan.rng.uniform(0.0, max(side.edge - size / 2, 0.5))
    return side.sign * x, 0.0 if x < side.road else 0.12


def _aim(rng: np.random.Generator, plan: Plan, points: np.ndarray) -> Camera:
    """Return a camera at z = 0 that sees the points somewhere in the image, at a size that varies."""
    low, high = points.min(0), points.max(0)
    middle = (low + high) / 2
    left, right = -plan.sides[0].edge + 0.5, plan.sides[1].edge - 0.5
    x = float(np.clip(middle[0] + middle[2] * rng.uniform(-0.4, 0.4), left, right))
    # The horizon lies anywhere around the object, whatever it is, so that sky and ground do not tell the class.
    y = float(max(middle[1] + middle[2] * rng.uniform(-0.15, 0.3), 0.3))
    roll = rng.normal(0, 0.04)
    across, up, ahead = middle - (x, y, 0.0)
    yaw = np.arctan2(across, ahead)
    pitch = -np.arctan2(up, np.hypot(across, ahead))
    sy, cy, sp, cp = np.sin(yaw), np.cos(yaw), np.sin(pitch), np.cos(pitch)
    turn = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]]) @ np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    seen = (points - (x, y, 0.0)) @ turn.T
    seen = seen[:, :2] / np.maximum(seen[:, 2:], 0.5)
    focal = rng.uniform(0.45, 1.0) / float(np.ptp(seen, axis=0).max())
    room = 0.5 * (1 - focal * np.ptp(seen, axis=0)) * 0.9 + 0.03  # image heights between the object and the edges
    shift = rng.uniform(-1, 1, 2) * room / focal
    yaw, pitch = yaw + np.arctan(shift[0]), pitch + np.arctan(shift[1])
    return Camera(x, y, 0.0, float(yaw), float(pitch), float(roll), float(focal), 0.0)
