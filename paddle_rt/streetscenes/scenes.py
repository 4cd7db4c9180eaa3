"""StreetScenes: street scenes that are generated from a number, with exact labels in Cityscapes' 19 train classes.

`make_scene(index)` lays out a street in world coordinates; `render(scene, height, width, time)` draws it at any size
and time. Needs NumPy and OpenCV only.
"""

import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.streetscenes.layout import BLOCKS, END, Plan, Side, lay_ground
from paddle_rt.streetscenes.mesh import palette, pick
from paddle_rt.streetscenes.render import Camera, Scene, Weather, render
from paddle_rt.streetscenes.traffic import (
    put_crossing_people,
    put_furniture,
    put_parked,
    put_pedestrians,
    put_traffic,
)

__all__ = ["SERIES", "Camera", "Scene", "Weather", "make_scene", "render"]

# The scenes of each mode of the data set: the index of the first, and the default number. Two modes share no scene.
SERIES = {"train": (0, 2000), "val": (10_000_000, 200), "test": (20_000_000, 200)}

# Light: sun strength, ambient, sine of the sun's height, sky above, sky below, haze distance, clouds, gain, noise.
SKIES = {
    "clear": (0.62, 0.58, (0.45, 0.85), (0x5C8FCB, 0xBFD3E4), (350, 900), (0.05, 0.45), (0.95, 1.15), (1.5, 4)),
    "overcast": (0.05, 0.95, (0.5, 0.9), (0xB4BAC0, 0xD9DBDC), (150, 500), (0.7, 1.0), (0.8, 1.05), (2, 5)),
    "low sun": (0.72, 0.52, (0.18, 0.4), (0x7E98B8, 0xE8CFA8), (250, 700), (0.2, 0.7), (0.9, 1.1), (2, 5)),
    "dusk": (0.10, 0.62, (0.3, 0.6), (0x46536E, 0x9A8F98), (200, 600), (0.3, 0.9), (0.75, 0.95), (4, 8)),
    "hazy": (0.25, 0.80, (0.4, 0.8), (0xA9B8C4, 0xD3D6D6), (70, 160), (0.3, 0.9), (0.9, 1.1), (2, 4)),
}


def make_scene(index: int, seed: int = 0) -> Scene:
    """Lay out a street.

    Args:
        index: Number of the scene, 0 or more; the same index gives the same scene in every process.
        seed: Seed of the series of scenes, 0 or more.

    Returns:
        The scene at t = 0, for `render`.

    Raises:
        UserError: `index` or `seed` is negative.
    """
    if index < 0 or seed < 0:
        raise UserError(f"scene index {index}, seed {seed}: both must be 0 or more")
    rng = np.random.default_rng([seed, index])
    weather, lit = make_weather(rng)
    plan = make_plan(rng, weather, lit)
    lay_ground(plan)
    for side in plan.sides:
        for block, kind in zip(plan.blocks(), side.kinds, strict=True):
            BLOCKS[kind](plan, side, *block)
        put_furniture(plan, side)
        put_parked(plan, side)
        put_pedestrians(plan, side)
    camera = _make_camera(plan)
    put_traffic(plan, camera)
    put_crossing_people(plan)
    curve = float(rng.choice((-1, 1)) * rng.uniform(0, 1 / 220) * (rng.random() < 0.5))
    return Scene(index, seed, curve, camera, weather, plan.things)


def make_weather(rng: np.random.Generator) -> tuple[Weather, float]:
    """Draw a weather; return it and the share of windows that are lit."""
    name = rng.choice(list(SKIES), p=[0.36, 0.24, 0.16, 0.1, 0.14])
    strength, ambient, rise, (top, low), haze, clouds, gain, noise = SKIES[name]
    up, around = rng.uniform(*rise), rng.uniform(0, 2 * np.pi)
    flat = np.sqrt(1 - up**2)
    sun = np.array((flat * np.sin(around), up, flat * np.cos(around)))
    sky_low = pick(rng, palette(low), 0.08)
    white = rng.normal(0, 0.015, 3) + np.array((-0.5, 0, 0.5)) * rng.normal(0, 0.08)
    weather = Weather(
        sun=sun,
        sun_strength=strength,
        ambient=ambient,
        shadow=0.55 * strength / (strength + 0.35 * ambient),
        sky_top=pick(rng, palette(top), 0.15),
        sky_low=sky_low,
        clouds=rng.uniform(*clouds),
        haze=sky_low * 0.96,
        haze_distance=rng.uniform(*haze),
        gains=(1 + white) * rng.uniform(*gain),
        contrast=rng.uniform(0.8, 1.15),
        blur=max(0.0, rng.normal(0.1, 0.25)),
        noise=rng.uniform(*noise),
    )
    return weather, {"dusk": 0.4, "overcast": 0.12}.get(str(name), 0.04)


def make_plan(rng: np.random.Generator, weather: Weather, lit: float) -> Plan:
    """Draw the plan of a street on which nothing stands yet."""
    style = str(rng.choice(["city", "suburb", "park", "mixed", "open"], p=[0.36, 0.22, 0.1, 0.2, 0.12]))
    lanes = int(rng.choice((2, 3, 4), p=[0.66, 0.16, 0.18]))
    lane = rng.uniform(2.9, 3.6)
    crossings, z = [], rng.uniform(14, 70)
    while z < END - 20:
        crossings.append((z, z + rng.uniform(6.5, 10)))
        z = crossings[-1][1] + rng.uniform(40, 110)
    if style == "open" and rng.random() < 0.6:
        crossings = []
    sides = [_make_side(rng, sign, style, lanes * lane / 2, len(crossings) + 1) for sign in (-1, 1)]
    drive = 1 if rng.random() < 0.7 else -1
    return Plan(rng, style, lanes, lane, drive, crossings, sides, weather, lit, [])


KINDS = {
    "city": (("shops", "flats", "houses", "green", "walled"), (0.46, 0.34, 0.08, 0.06, 0.06)),
    "suburb": (("houses", "flats", "green", "walled", "fenced"), (0.62, 0.1, 0.1, 0.08, 0.1)),
    "park": (("green", "fenced", "walled", "houses", "flats"), (0.5, 0.14, 0.12, 0.14, 0.1)),
    "mixed": (("shops", "flats", "houses", "green", "walled", "fenced"), (0.2, 0.2, 0.2, 0.16, 0.1, 0.14)),
    "open": (("green", "walled", "fenced", "houses", "flats"), (0.34, 0.2, 0.22, 0.14, 0.1)),
}


def _make_side(rng: np.random.Generator, sign: int, style: str, half: float, blocks: int) -> Side:
    parking = bool(rng.random() < {"city": 0.6, "suburb": 0.5, "mixed": 0.5}.get(style, 0.2))
    verge = rng.uniform(0.8, 2.6) if rng.random() < (0.2 if style == "city" else 0.45) else 0.0
    pavement = rng.uniform(2.2, 5.0) if style == "city" else rng.uniform(1.4, 3.0)
    if style == "open" and rng.random() < 0.4:
        pavement = 0.5
    names, p = KINDS[style]
    kinds = [str(k) for k in rng.choice(names, blocks, p=p)]
    return Side(sign, half + (2.2 if parking else 0.3), parking, verge, pavement, kinds)


def _make_camera(plan: Plan) -> Camera:
    rng = plan.rng
    x = plan.drive * plan.lane * (0.5 + rng.integers(0, max(1, plan.lanes // 2))) + rng.normal(0, 0.3)
    if rng.random() < 0.16:
        x = rng.uniform(-plan.sides[0].road + 0.5, plan.sides[1].road + 1.0)
    pitch = rng.normal(0.01, 0.05)
    return Camera(
        x=float(x),
        y=float(rng.choice((rng.uniform(1.15, 1.7), rng.uniform(1.7, 2.6)))),
        z=0.0,
        yaw=float(rng.normal(0, 0.06)),
        pitch=float(pitch),
        roll=float(rng.normal(0, 0.012)),
        focal=float(rng.uniform(0.95, 1.35)),
        speed=float(rng.uniform(3, 12)),
    )
