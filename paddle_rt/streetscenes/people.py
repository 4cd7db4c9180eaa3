"""Articulated people: a pose moves the joints of a skeleton, around which the body, the clothes and the hair are built.

A person stands at the origin and faces +z: the right hand is at +x, the left one at -x. Bodies are closed tubes of
quadrilaterals that are painted from far to near, so limbs hide one another as solid bodies do.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from paddle_rt.streetscenes.mesh import BICYCLE, CLOTH, FENCE, PERSON, Mesh, bgr, palette, pick
from paddle_rt.streetscenes.objects import CLOTHES, HAIR, PAINT, SKIN, TROUSERS, TYRE

# COCO's 17 keypoints, in its order.
KEYPOINTS = (
    "nose",
    *(f"{side}_{part}" for part in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
      for side in ("left", "right")),
)  # fmt: skip

# How far in front of a joint, in shares of the body's height, the visible surface of the body may lie.
SURFACE = np.array([0.02, 0.02, 0.02, *(0.028,) * 2, *(0.055,) * 2, *(0.042,) * 2, *(0.036,) * 2, *(0.085,) * 2,
                    *(0.055,) * 2, *(0.045,) * 2])  # fmt: skip

_SIDES = (("left", -1.0), ("right", 1.0))
_WHITE = bgr(0xE8E6E0)
_BRIGHT = palette(0xD8342C, 0xE9B51E, 0x2F78C4, 0x2E9E5B, 0xF2F1EC, 0xE7733A, 0x8E4FA8, 0x101114, 0xD96A9B, 0x6FB7D6)
_TOPS = np.concatenate([CLOTHES, _BRIGHT])
_BOTTOMS = np.concatenate([TROUSERS, palette(0x39598C, 0x7F8EA3, 0xC8BFA8, 0x5B2E2E)])
_SEATS = palette(0x8A6B45, 0x77777A, 0xA9A49A, 0x39424E)
_SHOES = palette(0x14141A, 0x5A3A22, 0xE6E4DE, 0x8A2222, 0x2A4A7A)


def _flex(angle: float) -> np.ndarray:
    """Rotation of row vectors about the x axis; takes "down" forwards."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _abduct(angle: float) -> np.ndarray:
    """Rotation of row vectors about the z axis; takes "down" to the right."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def _twist(angle: float) -> np.ndarray:
    """Rotation of row vectors about the y axis; takes "forwards" to the right."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])


@dataclass
class Pose:
    """Angles in degrees; those of limbs are for the left and the right side.

    `hip` and `shoulder` lift a limb forwards, `spread` and `lift` sideways; `knee` and `elbow` bend it; `turn` rotates
    the upper arm about itself, which takes a bent forearm to the body's middle. On a bicycle, arms and legs reach for
    its bar and its pedals instead.
    """

    hip: tuple[float, float] = (0, 0)
    spread: tuple[float, float] = (4, 4)
    knee: tuple[float, float] = (4, 4)
    toe: tuple[float, float] = (0, 0)
    shoulder: tuple[float, float] = (0, 0)
    lift: tuple[float, float] = (9, 9)
    elbow: tuple[float, float] = (15, 15)
    turn: tuple[float, float] = (20, 20)
    lean: float = 2
    side: float = 0
    twist: float = 0
    bend: float = 0.45  # share of the lean that the pelvis has
    nod: float = 0
    look: float = 0
    rise: float = 0  # metres between the ground and the lowest foot
    pitch: float = 0  # of the whole body, backwards
    roll: float = 0  # of the whole body, the feet to the right
    prop: Literal["", "seat", "bicycle"] = ""
    crank: float = 0  # radians


@dataclass(frozen=True)
class Build:
    """Proportions of a body: the height in metres, and factors of the usual widths and of the head."""

    height: float
    girth: float
    shoulders: float
    hips: float
    head: float


def make_build(rng: np.random.Generator) -> Build:
    """Draw the proportions of an adult or, one time in six, of a child."""
    if rng.random() < 0.16:
        height = rng.uniform(1.0, 1.45)
        return Build(height, rng.uniform(0.95, 1.25), 0.95, 0.95, 1.0 + 0.38 * (1.62 - height))
    wide = rng.uniform(-1, 1)
    return Build(
        rng.uniform(1.52, 1.95), rng.uniform(0.86, 1.38), 1 + 0.09 * wide, 1 - 0.07 * wide, rng.uniform(0.96, 1.06)
    )


def _standing(rng: np.random.Generator) -> Pose:
    """Stand, with the arms in one of the ways in which people hold them."""
    shift = rng.uniform(-1, 1)
    pose = Pose(knee=(6 + 14 * max(0, shift), 6 + 14 * max(0, -shift)), side=3 * shift, spread=(5, 5))
    pose.hip = (pose.knee[0] * 0.6, pose.knee[1] * 0.6)
    kind = rng.choice(["down", "hips", "crossed", "phone", "point", "wave", "pocket", "carry", "raised"],
                      p=[0.26, 0.1, 0.1, 0.1, 0.1, 0.12, 0.06, 0.08, 0.08])  # fmt: skip
    one = int(rng.integers(2))
    if kind == "hips":
        pose.shoulder, pose.lift, pose.elbow, pose.turn = (-18, -18), (42, 42), (95, 95), (62, 62)
    elif kind == "crossed":
        pose.shoulder, pose.lift, pose.elbow, pose.turn = (24, 18), (8, 8), (98, 92), (72, 76)
    elif kind == "phone":
        _arm(pose, one, 42, 22, 138, 20)
    elif kind == "point":
        _arm(pose, one, rng.uniform(70, 95), rng.uniform(5, 60), 8, 0)
    elif kind == "wave":
        _arm(pose, one, 15, rng.uniform(95, 140), rng.uniform(30, 80), -75)
    elif kind == "pocket":
        pose.shoulder, pose.lift, pose.elbow, pose.turn = (-12, -12), (20, 20), (48, 48), (40, 40)
    elif kind == "carry":
        pose.shoulder, pose.lift, pose.elbow, pose.turn = (20, 20), (10, 10), (80, 80), (25, 25)
    elif kind == "raised":
        up = rng.uniform(135, 172)
        pose.shoulder, pose.lift, pose.elbow, pose.turn = (5, 5), (up, up - 8), (18, 18), (0, 0)
    return pose


def _arm(pose: Pose, one: int, shoulder: float, lift: float, elbow: float, turn: float) -> None:
    """Set the angles of one arm."""
    for name, value in (("shoulder", shoulder), ("lift", lift), ("elbow", elbow), ("turn", turn)):
        pair = list(getattr(pose, name))
        pair[one] = value
        setattr(pose, name, tuple(pair))


def _walking(rng: np.random.Generator) -> Pose:
    phase, size = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.15)
    swing = np.array((np.sin(phase), -np.sin(phase)))
    knee = 6 + 46 * size * np.maximum(0, np.cos((phase, phase + np.pi)))
    pose = Pose(hip=tuple(27 * size * swing + 0.25 * knee), knee=tuple(knee), lean=4, twist=-7 * size * swing[0])
    pose.shoulder = tuple(-24 * size * swing)
    pose.elbow = tuple(16 + 14 * np.maximum(0, -swing))
    pose.toe = tuple(np.where(swing < 0, 25, 12) * swing)
    if rng.random() < 0.2:
        _arm(pose, int(rng.integers(2)), 38, 14, 115, 30)
    return pose


def _running(rng: np.random.Generator) -> Pose:
    phase = rng.uniform(0, 2 * np.pi)
    swing = np.array((np.sin(phase), -np.sin(phase)))
    back = np.maximum(0, np.cos((phase, phase + np.pi)))
    pose = Pose(hip=tuple(42 * swing + 18 * back + 8), knee=tuple(20 + 85 * back), lean=13, twist=-13 * swing[0])
    pose.shoulder, pose.elbow, pose.turn = tuple(-40 * swing), tuple(88 + 10 * swing), (32, 32)
    pose.lift, pose.toe, pose.rise = (14, 14), tuple(12 * swing - 10), rng.uniform(0, 0.12)
    return pose


def _sitting(rng: np.random.Generator) -> Pose:
    knee = rng.uniform(70, 105, 2)
    pose = Pose(hip=tuple(rng.uniform(80, 94, 2)), knee=tuple(knee), spread=tuple(rng.uniform(2, 16, 2)), bend=0.1)
    pose.lean, pose.prop = rng.uniform(-12, 26), "seat"
    kind = rng.choice(["lap", "phone", "chin", "wave"], p=[0.5, 0.25, 0.15, 0.1])
    pose.shoulder, pose.elbow, pose.turn = (26, 26), (52, 52), (30, 30)
    if kind == "phone":
        pose.shoulder, pose.elbow, pose.turn, pose.nod = (35, 35), (95, 95), (45, 45), 22
    elif kind == "chin":
        _arm(pose, int(rng.integers(2)), 62, 12, 132, 35)
    elif kind == "wave":
        _arm(pose, int(rng.integers(2)), 15, 120, 50, -75)
    return pose


def _bending(rng: np.random.Generator) -> Pose:
    lean = rng.uniform(35, 95)
    pose = Pose(lean=lean, bend=0.55, knee=tuple(rng.uniform(4, 40, 2)), nod=-0.2 * lean)
    pose.hip = tuple(np.array(pose.knee) * 0.45)
    pose.shoulder = tuple(lean * 0.85 + rng.uniform(-18, 25, 2))
    return pose


def _squatting(rng: np.random.Generator) -> Pose:
    knee = rng.uniform(95, 132)
    pose = Pose(hip=(knee * 0.86,) * 2, knee=(knee,) * 2, lean=rng.uniform(20, 38), bend=0.3, spread=(12, 12))
    pose.shoulder, pose.elbow = tuple(rng.uniform(40, 95, 2)), tuple(rng.uniform(10, 60, 2))
    return pose


def _lunging(rng: np.random.Generator) -> Pose:
    front = rng.uniform(50, 80)
    angles, knees = [front, -rng.uniform(15, 32)], [front * 1.05, rng.uniform(15, 60)]
    if rng.random() < 0.5:
        angles, knees = angles[::-1], knees[::-1]
    pose = Pose(hip=tuple(angles), knee=tuple(knees), lean=rng.uniform(0, 22))
    pose.lift, pose.shoulder = tuple(rng.uniform(8, 95, 2)), tuple(rng.uniform(-20, 60, 2))
    return pose


def _jumping(rng: np.random.Generator) -> Pose:
    up = rng.uniform(80, 165)
    pose = Pose(spread=tuple(rng.uniform(8, 38, 2)), lift=(up, up), turn=(0, 0), rise=rng.uniform(0.0, 0.3))
    pose.knee = tuple(rng.uniform(3, 50, 2))
    pose.hip, pose.elbow = tuple(np.array(pose.knee) * 0.5), tuple(rng.uniform(4, 35, 2))
    return pose


def _kneeling(rng: np.random.Generator) -> Pose:
    both = rng.random() < 0.5
    angles = (rng.uniform(-8, 25), rng.uniform(-8, 25) if both else 88.0)
    knees = (rng.uniform(85, 105), rng.uniform(85, 105) if both else 90.0)
    if rng.random() < 0.5:
        angles, knees = angles[::-1], knees[::-1]
    pose = Pose(hip=angles, knee=knees, lean=rng.uniform(-5, 45), toe=(-60, -60) if both else (-30, 0))
    pose.shoulder, pose.elbow = tuple(rng.uniform(0, 90, 2)), tuple(rng.uniform(10, 100, 2))
    return pose


def _dancing(rng: np.random.Generator) -> Pose:
    """Arms and legs go anywhere."""
    pose = Pose(hip=tuple(rng.uniform(-35, 105, 2)), spread=tuple(rng.uniform(0, 55, 2)), lean=rng.uniform(-15, 55))
    pose.knee, pose.side = tuple(rng.uniform(2, 115, 2)), rng.normal(0, 18)
    pose.shoulder, pose.lift = tuple(rng.uniform(-45, 150, 2)), tuple(rng.uniform(0, 140, 2))
    pose.elbow, pose.turn = tuple(rng.uniform(2, 130, 2)), tuple(rng.uniform(-70, 70, 2))
    pose.roll, pose.rise, pose.twist = rng.normal(0, 14), rng.uniform(0, 0.2), rng.normal(0, 18)
    return pose


def _tumbling(rng: np.random.Generator) -> Pose:
    """Turn a cartwheel, stand on the hands, or fall."""
    pose = Pose(spread=tuple(rng.uniform(5, 60, 2)), lift=tuple(rng.uniform(110, 172, 2)), turn=(0, 0))
    pose.hip, pose.knee = tuple(rng.uniform(-15, 60, 2)), tuple(rng.uniform(2, 60, 2))
    pose.elbow, pose.roll, pose.toe = tuple(rng.uniform(2, 30, 2)), rng.uniform(-180, 180), (-40, -40)
    pose.pitch = rng.normal(0, 15)
    return pose


def _lying(rng: np.random.Generator) -> Pose:
    """Lie on the back, on the front or on a side, or stand on all fours."""
    if rng.random() < 0.35:
        pose = Pose(hip=tuple(90 + rng.uniform(-20, 20, 2)), knee=tuple(rng.uniform(75, 100, 2)), pitch=-88)
        pose.shoulder, pose.elbow, pose.nod = tuple(rng.uniform(70, 105, 2)), (8, 8), -25
        pose.toe, pose.lean, pose.bend = (-30, -30), 0, 1
        return pose
    pose = _dancing(rng)
    pose.hip, pose.lean, pose.side = tuple(rng.uniform(-5, 70, 2)), rng.uniform(-5, 20), rng.normal(0, 6)
    pose.rise, pose.pitch, pose.roll = 0, rng.choice((-90, 90, 0)) + rng.normal(0, 6), rng.normal(0, 6)
    if abs(pose.pitch) < 45:
        pose.roll += rng.choice((-90, 90))
    return pose


def _cycling(rng: np.random.Generator) -> Pose:
    crank = rng.uniform(0, 2 * np.pi)
    pose = Pose(lean=rng.uniform(16, 42), bend=0.6, nod=-14, prop="bicycle", crank=crank)
    return pose


POSES: dict[str, tuple[float, Callable[[np.random.Generator], Pose]]] = {
    "standing": (0.11, _standing),
    "walking": (0.10, _walking),
    "running": (0.09, _running),
    "sitting": (0.11, _sitting),
    "cycling": (0.09, _cycling),
    "bending": (0.08, _bending),
    "squatting": (0.06, _squatting),
    "kneeling": (0.05, _kneeling),
    "lunging": (0.06, _lunging),
    "jumping": (0.05, _jumping),
    "dancing": (0.09, _dancing),
    "tumbling": (0.06, _tumbling),
    "lying": (0.05, _lying),
}
_JITTER = {"hip": 5, "spread": 3, "knee": 4, "shoulder": 9, "lift": 6, "elbow": 9, "turn": 9}


def make_pose(rng: np.random.Generator) -> Pose:
    """Draw a pose: what the person does, and small changes of every angle."""
    names = list(POSES)
    name = str(rng.choice(names, p=[POSES[name][0] for name in names]))
    pose = POSES[name][1](rng)
    for key, spread in _JITTER.items():
        setattr(pose, key, tuple(np.array(getattr(pose, key)) + rng.normal(0, spread, 2)))
    pose.knee, pose.elbow = (tuple(np.maximum(value, 1)) for value in (pose.knee, pose.elbow))
    pose.lean, pose.side = pose.lean + rng.normal(0, 3), pose.side + rng.normal(0, 2.5)
    pose.look, pose.nod = rng.normal(0, 24), pose.nod + rng.normal(0, 9)
    return pose


@dataclass
class Skeleton:
    """Joints by name, in metres, and the axes (right, up, forwards; rows) of pelvis, chest and head."""

    joints: dict[str, np.ndarray]
    pelvis: np.ndarray
    chest: np.ndarray
    head: np.ndarray

    def keypoints(self) -> np.ndarray:
        """COCO's 17 keypoints, [17, 3]."""
        return np.stack([self.joints[name] for name in KEYPOINTS])


WHEEL, BASE, BRACKET, CRANK = 0.33, 0.52, (0.0, 0.29, -0.08), 0.165  # of a bicycle, metres


def pose_skeleton(build: Build, pose: Pose) -> Skeleton:
    """Place the joints of a body."""
    h, rad = build.height, np.deg2rad
    level = _abduct(rad(-0.5 * pose.side)) @ _twist(rad(-0.4 * pose.twist))
    pelvis = _flex(-rad(pose.lean * pose.bend)) @ level
    chest = _flex(-rad(pose.lean)) @ _abduct(rad(pose.side)) @ _twist(rad(pose.twist))
    head = _flex(-rad(pose.nod)) @ _twist(rad(np.clip(pose.look, -60, 60))) @ chest
    joints: dict[str, np.ndarray] = {"pelvis": np.zeros(3)}
    joints["waist"] = np.array((0, 0.105 * h, 0)) @ pelvis
    joints["neck"] = joints["waist"] + np.array((0, 0.195 * h, -0.006 * h)) @ chest
    for i, (name, s) in enumerate(_SIDES):
        hip = np.array((s * 0.053 * h * build.hips, 0, 0)) @ pelvis
        thigh = _flex(rad(pose.hip[i])) @ _abduct(s * rad(pose.spread[i])) @ level
        knee = hip + np.array((0, -0.245 * h, 0)) @ thigh
        shin = _flex(-rad(pose.knee[i])) @ thigh
        ankle = knee + np.array((0, -0.235 * h, 0)) @ shin
        foot = _flex(rad(pose.toe[i])) @ _twist(s * rad(8))
        shoulder = joints["waist"] + np.array((s * 0.104 * h * build.shoulders, 0.165 * h, 0)) @ chest
        upper = _flex(rad(pose.shoulder[i])) @ _abduct(s * rad(pose.lift[i])) @ chest
        elbow = shoulder + np.array((0, -0.17 * h, 0)) @ upper
        fore = _flex(rad(pose.elbow[i])) @ _twist(-s * rad(pose.turn[i])) @ upper
        wrist = elbow + np.array((0, -0.145 * h, 0)) @ fore
        joints |= {f"{name}_hip": hip, f"{name}_knee": knee, f"{name}_ankle": ankle, f"{name}_shoulder": shoulder}
        joints |= {f"{name}_elbow": elbow, f"{name}_wrist": wrist}
        joints[f"{name}_toe"] = ankle + np.array((0, -0.03 * h, 0.115 * h)) @ foot
        joints[f"{name}_heel"] = ankle + np.array((0, -0.03 * h, -0.035 * h)) @ foot
        joints[f"{name}_hand"] = wrist + np.array((0, -0.075 * h, 0)) @ fore
    joints["head"] = joints["neck"] + np.array((0, 0.11 * h, 0)) @ head
    _place(joints, build, pose)
    turn = _flex(rad(pose.pitch)) @ _abduct(rad(pose.roll))
    pelvis, chest, head = pelvis @ turn, chest @ turn, head @ turn
    _add_face(joints, build, head)
    return Skeleton(joints, pelvis, chest, head)


def _place(joints: dict[str, np.ndarray], build: Build, pose: Pose) -> None:
    """Put the lowest foot on the ground, or a cyclist on the bicycle."""
    h = build.height
    if pose.prop == "bicycle":
        for point in joints.values():
            point += (0.0, 0.03 + 0.545 * h, -0.24)
        bar = np.array((0.24, 1.02, 0.40 + 0.08 * (h - 1.7)))
        for i, (name, s) in enumerate(_SIDES):
            angle = pose.crank + i * np.pi
            pedal = np.array(BRACKET) + (s * 0.11, CRANK * np.sin(angle), CRANK * np.cos(angle))
            ankle = pedal + (0, 0.055 * h, -0.055 * h)
            knee = _reach(joints[f"{name}_hip"], ankle, 0.245 * h, 0.235 * h, np.array((s * 0.1, 0.3, 1.0)))
            wrist = bar * (s, 1, 1) + (0, 0.03, -0.05)
            elbow = _reach(joints[f"{name}_shoulder"], wrist, 0.17 * h, 0.145 * h, np.array((s * 0.8, -1.0, -0.2)))
            ankle, wrist = (_within(b, a, c) for b, a, c in ((knee, ankle, 0.235 * h), (elbow, wrist, 0.145 * h)))
            joints |= {f"{name}_ankle": ankle, f"{name}_knee": knee, f"{name}_elbow": elbow, f"{name}_wrist": wrist}
            joints[f"{name}_toe"] = ankle + (0, -0.045 * h, 0.11 * h)
            joints[f"{name}_heel"] = ankle + (0, -0.03 * h, -0.035 * h)
            joints[f"{name}_hand"] = wrist + (-s * 0.01, -0.01, 0.06)
        return
    turn = _flex(np.deg2rad(pose.pitch)) @ _abduct(np.deg2rad(pose.roll))
    for name in joints:
        joints[name] = joints[name] @ turn
    lowest = min(joints[name][1] - _BELOW.get(name.partition("_")[2] or name, 0.03) * h for name in joints)
    for point in joints.values():
        point += (0.0, pose.rise - lowest, 0.0)


# How far a body reaches below a joint that touches the ground, in shares of its height.
_BELOW = {
    "head": 0.075,
    "toe": 0.012,
    "heel": 0.012,
    "hip": 0.06,
    "pelvis": 0.06,
    "neck": 0.03,
    "knee": 0.036,
    "shoulder": 0.036,
}


def _reach(start: np.ndarray, end: np.ndarray, upper: float, lower: float, pole: np.ndarray) -> np.ndarray:
    """Return the knee or elbow of a limb from `start` to `end` that bends towards `pole`."""
    along = end - start
    distance = float(np.clip(np.linalg.norm(along), 1e-3, (upper + lower) * 0.999))
    along = along / max(np.linalg.norm(along), 1e-6)
    share = (upper**2 - lower**2 + distance**2) / (2 * distance)
    aside = pole - along * (pole @ along)
    return start + along * share + aside / np.linalg.norm(aside) * np.sqrt(max(upper**2 - share**2, 0.0))


def _within(start: np.ndarray, end: np.ndarray, length: float) -> np.ndarray:
    """Return the point at a distance from `start` in the direction of `end`."""
    return start + (end - start) * (length / max(np.linalg.norm(end - start), 1e-6))


def _add_face(joints: dict[str, np.ndarray], build: Build, head: np.ndarray) -> None:
    size = build.height * build.head * 1.06
    centre = joints["neck"] + np.array((0, 0.085 * build.height * (0.4 + 0.6 * build.head), 0.012 * size)) @ head
    joints["head"] = centre
    joints["nose"] = centre + np.array((0, -0.012, 0.066)) * size @ head
    for name, s in _SIDES:
        joints[f"{name}_eye"] = centre + np.array((s * 0.0185, 0.006, 0.0535)) * size @ head
        joints[f"{name}_ear"] = centre + np.array((s * 0.049, -0.003, -0.004)) * size @ head


@lru_cache(maxsize=64)
def _corners(rings: int, sides: int) -> np.ndarray:
    """Return the numbers of the points at the corners of a tube's quadrilaterals, [(rings - 1) * sides, 4]."""
    number = np.arange(rings * sides).reshape(rings, sides)
    beside = np.roll(number, -1, axis=1)
    return np.stack([number[:-1], beside[:-1], beside[1:], number[1:]], axis=2).reshape(-1, 4)


@lru_cache(maxsize=16)
def _circle(sides: int) -> tuple[np.ndarray, np.ndarray]:
    angle = (np.arange(sides) + 0.5) * (2 * np.pi / sides)
    return np.cos(angle)[:, None], np.sin(angle)[:, None]


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Vector product of [n, 3] and [n, 3]; NumPy's own is several times slower on small arrays."""
    (ax, ay, az), (bx, by, bz) = a.T, b.T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=1)


class _Body:
    """The quadrilaterals of a person, in tubes."""

    def __init__(self) -> None:
        self.label = PERSON  # of the tubes that are added next
        self.number = 0  # of points so far
        self.points: list[np.ndarray] = []
        # One array a tube: corners; colours; middles of rings; metres by which it counts as nearer, and its label
        self.quads: list[tuple[np.ndarray, ...]] = []

    def tube(
        self,
        centres: np.ndarray,
        u: np.ndarray,
        v: np.ndarray,
        colour: np.ndarray,
        sides: int = 8,
        nearer: float = 0.0,
        closed: bool = False,
    ) -> None:
        """Add a tube whose rings are the ellipses with these centres and half axes, [n, 3] each.

        Args:
            centres: Centres of the rings.
            u: First half axes.
            v: Second half axes.
            colour: One colour, or [rings - 1, sides, 3].
            sides: Corners of a ring.
            nearer: Metres by which the tube is painted later than its distance says.
            closed: Join the last ring to the first one.
        """
        if closed:
            centres, u, v = (np.concatenate([rows, rows[:1]]) for rows in (centres, u, v))
        cos, sin = _circle(sides)
        self.points.append((centres[:, None] + cos * u[:, None] + sin * v[:, None]).reshape(-1, 3))
        rings = len(centres)
        colours = np.broadcast_to(colour, (rings - 1, sides, 3)).reshape(-1, 3)
        middles = np.repeat((centres[:-1] + centres[1:]) / 2, sides, axis=0)
        order = np.array([(nearer, self.label)]).repeat(len(middles), axis=0)
        self.quads.append((_corners(rings, sides) + self.number, colours, middles, order))
        self.number += rings * sides

    def limb(self, a: np.ndarray, b: np.ndarray, radii: Sequence[float], colour: np.ndarray, **more: object) -> None:
        """Add a limb from a to b with round ends; `radii` at equal distances from the first to the last."""
        x, y, z = (b - a).tolist()
        length = max(math.sqrt(x * x + y * y + z * z), 1e-6)
        x, y, z = x / length, y / length, z / length
        # Two axes across the limb; which, does not matter.
        u = np.array((y, -x, 0.0) if abs(z) < 0.8 else (0.0, z, -y))
        u /= math.sqrt(u @ u)
        along = np.array((x, y, z))
        v = np.array((y * u[2] - z * u[1], z * u[0] - x * u[2], x * u[1] - y * u[0]))
        r = np.asarray(radii, dtype=float)
        first, last = r[0], r[-1]
        at = np.concatenate([(-first, -0.7 * first), np.linspace(0, length, len(r)),
                             (length + 0.7 * last, length + last)])  # fmt: skip
        r = np.concatenate([(0.15 * first, 0.7 * first), r, (0.7 * last, 0.15 * last)])[:, None]
        self.tube(a + at[:, None] * along, r * u, r * v, colour, **more)

    def mesh(self, angle: float, eye: np.ndarray) -> tuple[Mesh, np.ndarray]:
        """Turn the person so that it faces (sin angle, cos angle), and order it from far to near of a point.

        Returns:
            The mesh, and the points of what belongs to the person itself, [n, 3].
        """
        corners, colours, middles, order = (np.concatenate(part) for part in zip(*self.quads, strict=True))
        turn = _twist(angle)
        quads = (np.concatenate(self.points) @ turn)[corners]
        centres = quads.mean(1)
        out = _cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
        # All corners of a tube run the same way round, so one sign a tube makes its normals lead outwards.
        lengths = [len(part[0]) for part in self.quads]
        sums = np.add.reduceat((out * (centres - middles @ turn)).sum(1), np.cumsum([0, *lengths[:-1]]))
        out *= np.repeat(np.sign(sums), lengths)[:, None]
        far, labels = np.linalg.norm(centres - eye, axis=1) - order[:, 0], order[:, 1].astype(int)
        sequence, mesh = np.argsort(-far, kind="stable"), Mesh()
        for run in np.split(sequence, np.flatnonzero(np.diff(labels[sequence])) + 1):
            mesh.add(quads[run].astype(np.float32), colours[run], int(labels[run[0]]), out=out[run], material=CLOTH)
        return mesh, quads[labels == PERSON].reshape(-1, 3)


@dataclass(frozen=True)
class _Clothes:
    """What a person wears, as colours and as lengths."""

    skin: np.ndarray
    hair: np.ndarray
    top: np.ndarray
    legs: np.ndarray
    shoes: np.ndarray
    second: np.ndarray  # stripes, an open coat, a bag
    sleeve: float  # 0 none, 1 elbow, 2 wrist
    trousers: float  # 1 knee, 2 ankle
    kind: str  # plain, stripes, open, coat, dress
    style: str  # short, long, bald, cap, hood
    bag: str  # none, backpack, shoulder


def _dress(rng: np.random.Generator, pose: Pose) -> _Clothes:
    upright = pose.prop == "" and max(pose.hip) < 45 and max(pose.knee) < 60 and not pose.roll and not pose.pitch
    kinds, p = ["plain", "stripes", "open", "coat", "dress"], np.array([0.44, 0.16, 0.16, 0.12, 0.12])
    kind = str(rng.choice(kinds, p=p))
    if not upright and kind in ("coat", "dress"):
        kind = "plain"
    sleeve = 2.0 if kind in ("open", "coat") else float(rng.choice((0.0, 0.55, 1.0, 2.0), p=(0.1, 0.35, 0.1, 0.45)))
    bag = str(rng.choice(("none", "backpack"), p=(0.82, 0.18)))
    return _Clothes(
        skin=pick(rng, SKIN),
        hair=pick(rng, HAIR),
        top=pick(rng, _TOPS),
        legs=pick(rng, _BOTTOMS),
        shoes=pick(rng, _SHOES),
        second=pick(rng, _TOPS),
        sleeve=sleeve,
        trousers=1.0 if rng.random() < 0.25 else 2.0,
        kind=kind,
        style=str(rng.choice(("short", "long", "bald", "cap", "hood"), p=(0.42, 0.28, 0.06, 0.16, 0.08))),
        bag="none" if kind == "dress" else bag,
    )


@dataclass(frozen=True)
class Figure:
    """A person at the origin, in metres.

    Attributes:
        mesh: Body, clothes, and what the person sits on.
        outline: Corners of the body's and the clothes' surface, [n, 3].
        keypoints: COCO's 17 keypoints, [17, 3].
        height: Of the body, standing.
    """

    mesh: Mesh
    outline: np.ndarray
    keypoints: np.ndarray
    height: float


def make_person(rng: np.random.Generator, angle: float, eye: np.ndarray) -> Figure:
    """Draw a person who faces (sin angle, cos angle), as (x, z), and is seen from the point `eye`."""
    build, pose = make_build(rng), make_pose(rng)
    skeleton, clothes, body = pose_skeleton(build, pose), _dress(rng, pose), _Body()
    for add in (_add_legs, _add_torso, _add_arms, _add_head):
        add(body, skeleton, build, clothes)
    if pose.prop == "bicycle":
        body.label = BICYCLE
        _add_bicycle(body, pick(rng, PAINT), pose.crank, skeleton.joints["pelvis"])
    elif pose.prop == "seat":
        body.label = FENCE
        _add_seat(body, skeleton, build, pick(rng, _SEATS))
    return Figure(*body.mesh(angle, eye), skeleton.keypoints() @ _twist(angle), build.height)


def _add_legs(body: _Body, skeleton: Skeleton, build: Build, clothes: _Clothes) -> None:
    h, g, joints = build.height, build.girth * build.height, skeleton.joints
    bare = clothes.kind == "dress"
    upper = clothes.skin if bare else clothes.legs
    lower = clothes.skin if bare or clothes.trousers < 2 else clothes.legs * 0.96
    loose = 1.0 if lower is clothes.skin else 1.12
    for name, _ in _SIDES:
        hip, knee, ankle = (joints[f"{name}_{part}"] for part in ("hip", "knee", "ankle"))
        body.limb(hip, knee, np.array((0.052, 0.055, 0.050, 0.043, 0.038)) * g, upper)
        radii = np.array((0.036, 0.038, 0.036, 0.030, 0.024, 0.021)) * g
        body.limb(knee, ankle, np.maximum(radii, radii[-1] * loose) * (0.7 + 0.3 * loose), lower)
        heel, toe = joints[f"{name}_heel"], joints[f"{name}_toe"]
        up = np.array((0.0, 0.012 * h, 0.0))
        body.limb(heel + up, toe + up, np.array((0.021, 0.026, 0.023, 0.017)) * h, clothes.shoes, sides=6)
        body.limb(ankle, heel + 2 * up, np.array((0.022, 0.022)) * h, clothes.shoes, sides=6)


def _add_torso(body: _Body, skeleton: Skeleton, build: Build, clothes: _Clothes) -> None:
    h, g, joints = build.height, build.girth, skeleton.joints
    # Height above the origin of the axes, half width, half depth, all in shares of the body's height.
    low = np.array([(-0.062, 0.02, 0.02), (-0.055, 0.06, 0.045), (-0.03, 0.088, 0.064), (0.0, 0.095, 0.068),
                    (0.045, 0.088, 0.062), (0.09, 0.08, 0.056)])  # fmt: skip
    high = np.array([(0.02, 0.079, 0.056), (0.06, 0.084, 0.060), (0.10, 0.092, 0.065), (0.135, 0.098, 0.064),
                     (0.165, 0.096, 0.055), (0.182, 0.072, 0.045), (0.194, 0.036, 0.034),
                     (0.198, 0.01, 0.01)])  # fmt: skip
    wide = np.concatenate([np.full(len(low), build.hips), np.linspace(0.5, 1, len(high)) * (build.shoulders - 1) + 1])
    rows = np.concatenate([low, high])
    axes = np.stack([skeleton.pelvis] * len(low) + [skeleton.chest] * len(high))
    origin = np.stack([joints["pelvis"]] * len(low) + [joints["waist"]] * len(high))
    centres = origin + rows[:, :1] * h * axes[:, 1]
    u, v = rows[:, 1:2] * wide[:, None] * g**0.6 * h * axes[:, 0], rows[:, 2:] * g * h * axes[:, 2]
    sides = 12
    colour = np.broadcast_to(clothes.top, (len(rows) - 1, sides, 3)).copy()
    waistline = len(low) - 1
    colour[: waistline - 1] = clothes.top if clothes.kind in ("coat", "dress") else clothes.legs
    if clothes.kind == "stripes":
        colour[waistline::2] = clothes.second
    elif clothes.kind in ("open", "coat"):
        colour[waistline - 1 :, 2] = clothes.second  # the quadrilaterals in front
    body.tube(centres, u, v, colour, sides)
    if clothes.kind in ("coat", "dress"):
        _add_skirt(body, skeleton, build, clothes)
    if clothes.bag == "backpack":
        back = joints["waist"] + np.array((0, 0.01, -0.085 * g)) * h @ skeleton.chest
        top = joints["waist"] + np.array((0, 0.15, -0.085 * g)) * h @ skeleton.chest
        at = np.linspace(0, 1, 6)[:, None]
        size = np.array((0.1, 0.9, 1, 1, 0.85, 0.1))[:, None] * h
        body.tube(back + at * (top - back), size * 0.07 * skeleton.chest[0], size * 0.042 * skeleton.chest[2],
                  clothes.second * 0.8, 8)  # fmt: skip


def _add_skirt(body: _Body, skeleton: Skeleton, build: Build, clothes: _Clothes) -> None:
    """Add a cone from the waist to the knees that is wide enough for both legs."""
    h, joints = build.height, skeleton.joints
    knees = [joints[f"{name}_knee"] for name, _ in _SIDES]
    hem = (knees[0] + knees[1]) / 2 * 0.9 + joints["pelvis"] * 0.1
    apart = np.abs((knees[1] - knees[0]) @ skeleton.pelvis.T) / 2
    at = np.array((0.0, 0.02, 0.35, 0.7, 1.0))[:, None]
    start = joints["pelvis"] + np.array((0, 0.03 * h, 0)) @ skeleton.pelvis
    centres = start + at * (hem - start)
    wide = 0.097 * h * build.girth**0.6 * (1 - at) + (apart[0] + 0.065 * h * build.girth) * at
    deep = 0.073 * h * build.girth * (1 - at) + (apart[2] + 0.065 * h * build.girth) * at
    colour = np.broadcast_to(clothes.top * 0.95, (4, 12, 3)).copy()
    if clothes.kind == "coat":
        colour[:, 2] = clothes.second * 0.9
    body.tube(centres, wide * skeleton.pelvis[0], deep * skeleton.pelvis[2], colour, 12, nearer=0.03)


def _add_arms(body: _Body, skeleton: Skeleton, build: Build, clothes: _Clothes) -> None:
    h, g, joints = build.height, build.girth * build.height, skeleton.joints
    for name, _ in _SIDES:
        shoulder, elbow, wrist, hand = (joints[f"{name}_{part}"] for part in ("shoulder", "elbow", "wrist", "hand"))
        cut = min(clothes.sleeve, 1.0)
        radii = np.array((0.036, 0.034, 0.031, 0.027)) * g
        if cut < 1:
            body.limb(shoulder, elbow, radii * 0.88, clothes.skin)
        if cut > 0:
            body.limb(shoulder, shoulder + (elbow - shoulder) * cut, radii[: 4 if cut == 1 else 3], clothes.top * 0.97)
        else:
            body.limb(shoulder, shoulder + (elbow - shoulder) * 0.08, radii[:2] * 0.95, clothes.top * 0.97)
        sleeve = clothes.sleeve == 2
        body.limb(elbow, wrist, np.array((0.026, 0.025, 0.021, 0.017)) * g * (1.08 if sleeve else 0.95),
                  clothes.top * 0.94 if sleeve else clothes.skin)  # fmt: skip
        body.limb(wrist + (hand - wrist) * 0.2, hand, np.array((0.017, 0.022, 0.015)) * h, clothes.skin, sides=6)


def _add_head(body: _Body, skeleton: Skeleton, build: Build, clothes: _Clothes) -> None:
    joints, axes = skeleton.joints, skeleton.head
    size, centre, neck = build.height * build.head * 1.06, skeleton.joints["head"], skeleton.joints["neck"]
    body.limb(neck - axes[1] * 0.02 * size, centre - axes[1] * 0.03 * size,
              np.array((0.031, 0.029, 0.029)) * build.height * (0.6 + 0.4 * build.girth),
              clothes.skin * 0.93)  # fmt: skip
    at, sides = np.linspace(-np.pi / 2, np.pi / 2, 11), 14
    ring = np.maximum(np.cos(at), 0.08)[:, None] * size
    centres = centre + np.sin(at)[:, None] * 0.067 * size * axes[1]
    # The chin is narrower than the skull.
    narrow = np.where(at < 0, 1 - 0.22 * (np.sin(at) ** 2), 1)[:, None]
    body.tube(centres, ring * 0.048 * narrow * axes[0], ring * 0.057 * narrow * axes[2],
              _face_colours(clothes, at, sides), sides)  # fmt: skip
    _add_features(body, skeleton, size, clothes)
    if clothes.style in ("long", "hood"):
        colour = clothes.hair if clothes.style == "long" else clothes.top * 0.9
        start = centre + np.array((0, 0.03, -0.028)) * size @ axes
        end = joints["neck"] + np.array((0, -0.03, -0.04)) * size @ (0.5 * axes + 0.5 * skeleton.chest)
        t = np.linspace(0, 1, 6)[:, None]
        width = np.array((0.1, 0.8, 1.0, 1.0, 0.9, 0.1))[:, None] * size
        body.tube(start + t * (end - start), width * 0.056 * axes[0], width * 0.036 * axes[2], colour, 8)


def _face_colours(clothes: _Clothes, at: np.ndarray, sides: int) -> np.ndarray:
    """Return the colours of the head: skin in front, hair behind and on top."""
    height = np.sin((at[:-1] + at[1:]) / 2)[:, None]
    front = np.sin((np.arange(sides) + 1) * (2 * np.pi / sides))[None]  # of the quadrilaterals' middles
    hair = {
        "short": (height > 0.62) | ((front < -0.1) & (height > -0.45)) | ((front < 0.3) & (height > 0.2)),
        "long": (height > 0.6) | ((front < 0.1) & (height > -0.7)) | ((front < 0.45) & (height > 0.0)),
        "bald": (front < -2) & (height > 2),
        "cap": (height > 0.42) | ((front < 0.1) & (height > 0.25)),
        "hood": (height > 0.68) | (front < 0.3),
    }[clothes.style]
    cover = {"cap": clothes.second, "hood": clothes.top * 0.9}.get(clothes.style, clothes.hair)
    colours = np.where(np.broadcast_to(hair, (len(height), sides))[..., None], cover, clothes.skin)
    if clothes.style == "cap":  # hair shows behind, below the cap
        below = (height <= 0.25) & (height > -0.5) & (front < -0.15)
        colours = np.where(below[..., None], clothes.hair, colours)
    return colours


def _add_features(body: _Body, skeleton: Skeleton, size: float, clothes: _Clothes) -> None:
    """Add nose, eyes, brows, mouth, ears and the peak of a cap."""
    joints, axes, centre = skeleton.joints, skeleton.head, skeleton.joints["head"]

    def at(x: float, y: float, z: float) -> np.ndarray:
        return centre + np.array((x, y, z)) * size @ axes

    body.limb(at(0, 0.012, 0.054), joints["nose"] - axes[2] * 0.008 * size, np.array((0.005, 0.011)) * size,
              clothes.skin * 0.88, sides=6, nearer=0.02)  # fmt: skip
    body.limb(at(-0.014, -0.036, 0.0475), at(0.014, -0.036, 0.0475), np.array((0.0045, 0.006, 0.0045)) * size,
              clothes.skin * np.array((0.55, 0.5, 0.75)), sides=5, nearer=0.02)  # fmt: skip
    for name, s in _SIDES:
        eye = joints[f"{name}_eye"] - axes[2] * 0.004 * size
        body.limb(eye - axes[0] * 0.005 * size, eye + axes[0] * 0.005 * size, np.array((0.006, 0.006)) * size, _WHITE,
                  sides=6, nearer=0.015)  # fmt: skip
        body.limb(eye + axes[2] * 0.003 * size, eye + axes[2] * 0.004 * size, np.array((0.005, 0.005)) * size,
                  bgr(0x1E1612), sides=6, nearer=0.03)  # fmt: skip
        if clothes.style != "hood":
            body.limb(at(s * 0.01, 0.021, 0.0525), at(s * 0.028, 0.021, 0.047), np.array((0.0035, 0.0035)) * size,
                      clothes.hair * 0.8, sides=5, nearer=0.02)  # fmt: skip
            ear = joints[f"{name}_ear"]
            body.limb(ear + axes[1] * 0.008 * size, ear - axes[1] * 0.008 * size, np.array((0.008, 0.0065)) * size,
                      clothes.skin * 0.9, sides=6)  # fmt: skip
    if clothes.style == "cap":
        t = np.array((0.0, 0.3, 1.0))[:, None]
        start, end = at(0, 0.03, 0.045), at(0, 0.022, 0.095)
        wide = np.array((0.04, 0.042, 0.022))[:, None] * size
        body.tube(start + t * (end - start), wide * axes[0], wide * 0.12 * axes[1], clothes.second * 0.85, 6,
                  nearer=0.02)  # fmt: skip


def _add_bicycle(body: _Body, paint: np.ndarray, crank: float, pelvis: np.ndarray) -> None:
    x, y, z = np.eye(3)
    for at in (-BASE, BASE):
        angle = np.arange(18) * (2 * np.pi / 18)
        spoke = np.cos(angle)[:, None] * y + np.sin(angle)[:, None] * z
        centres = np.array((0, WHEEL, at)) + spoke * (WHEEL - 0.02)
        body.tube(centres, np.broadcast_to(0.018 * x, centres.shape), 0.022 * spoke, TYRE * 1.4, 4, closed=True)
    rear, front, low = np.array((0, WHEEL, -BASE)), np.array((0, WHEEL, BASE)), np.array(BRACKET)
    saddle = pelvis * (0, 1, 1) - (0, 0.085, 0)
    high, stem = low + (saddle - low) * 0.72, np.array((0, 0.88, 0.36))
    bar = np.array((0.24, 1.0, 0.38))
    for a, b in ((rear, low), (rear, high), (low, high), (high, stem), (low, stem - 0.12 * y), (stem, front)):
        body.limb(a, b, np.full(5, 0.019), paint, sides=5)
    body.limb(high, saddle, np.full(2, 0.014), TYRE * 2.5, sides=4)
    body.limb(saddle - 0.1 * z, saddle + 0.1 * z, np.array((0.055, 0.045, 0.02)), TYRE * 1.2, sides=6)
    body.limb(stem, bar * (0, 1, 1), np.full(2, 0.014), TYRE * 2.5, sides=4)
    body.limb(bar * (-1, 1, 1), bar, np.full(5, 0.014), TYRE * 1.5, sides=4)
    for i, (_, s) in enumerate(_SIDES):
        foot = low + CRANK * (np.sin(crank + i * np.pi) * y + np.cos(crank + i * np.pi) * z)
        body.limb(low + s * 0.05 * x, foot + s * 0.05 * x, np.full(3, 0.012), TYRE * 3, sides=4)
        body.limb(foot + s * 0.06 * x, foot + s * 0.15 * x, np.full(2, 0.016), TYRE, sides=4)


def _add_seat(body: _Body, skeleton: Skeleton, build: Build, colour: np.ndarray) -> None:
    """Add a block below the pelvis."""
    top = skeleton.joints["pelvis"] + (0, -0.062 * build.height, -0.03)
    at = np.array((0.0, 0.02, 0.25, 0.5, 0.75, 0.98, 1.0))[:, None]
    foot = top * (1, 0, 1)
    size = np.array((0.05, 0.19, 0.19, 0.19, 0.19, 0.2, 0.05))[:, None]
    x, _, z = np.eye(3)
    body.tube(foot + at * (top - foot), size * x, size * z, colour, 8)
