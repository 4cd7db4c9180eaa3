"""The layout of what stands still in a street scene: ground, markings, and both sides of the street block by block."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from paddle_rt.streetscenes import scenery
from paddle_rt.streetscenes.mesh import (
    ASPHALT,
    BACKDROP,
    BRICK,
    GRASS,
    GROUND,
    PAVING,
    PLASTER,
    ROAD,
    SIDEWALK,
    TERRAIN,
    Mesh,
    Thing,
    around,
    palette,
    pick,
    rect_x,
    rect_y,
)
from paddle_rt.streetscenes.render import Weather

END = 230.0  # metres of street ahead of the camera's first position
START = -12.0

ASPHALTS = palette(0x5A5B5D, 0x6C6B69, 0x4A4C50, 0x7D7A75, 0x8A857C, 0x62605C)
PAVINGS = palette(0x9A958B, 0x86827B, 0xA99C8A, 0x8F7F72, 0xA08A7E, 0x77767A, 0xB3AFA6)
GRASSES = palette(0x5F6E38, 0x74783F, 0x8A7F52, 0x4F6234, 0x7A6A48, 0x927E5A, 0x66743A)
MARKS = palette(0xD9D7CF, 0xC4C2B8, 0xE6E3D8)
PIECE = 6.0  # metres of a wall, hedge or fence that are painted as one


@dataclass
class Side:
    """One side of the street, +1 for right and -1 for left; distances are metres from the road's middle."""

    sign: int
    road: float  # where the carriageway ends
    parking: bool
    verge: float  # green strip between kerb and pavement
    pavement: float
    kinds: list[str]  # what stands there, one a block between side streets

    @property
    def edge(self) -> float:
        """Distance at which the pavement ends."""
        return self.road + self.verge + self.pavement


@dataclass
class Plan:
    """Data that the builders of one scene share."""

    rng: np.random.Generator
    style: str
    lanes: int
    lane: float
    drive: int  # +1: traffic keeps right
    crossings: list[tuple[float, float]]
    sides: list[Side]
    weather: Weather
    lit: float
    things: list[Thing]

    def put(self, name: str, mesh: Mesh, x: float, z: float, **more: object) -> None:
        """Place a mesh on the street."""
        self.things.append(Thing(name, mesh, x, z, **more))

    def blocks(self) -> list[tuple[float, float]]:
        """Stretches between side streets."""
        cuts = [START, *(z for crossing in self.crossings for z in crossing), END]
        return [(a, b) for a, b in zip(cuts[::2], cuts[1::2], strict=True) if b - a > 2]


def ribbon(
    mesh: Mesh,
    x: tuple[float, float],
    z: tuple[float, float],
    colour: np.ndarray,
    label: int,
    material: int,
    y: float = 0.0,
    detail: bool = False,
) -> None:
    """Add a strip of ground along the road, between x and between z, in pieces short enough to bend."""
    edges = np.linspace(*z, max(2, int((z[1] - z[0]) / 12) + 2))
    quads = np.stack([rect_y((min(x), max(x)), y, (a, b)) for a, b in zip(edges[:-1], edges[1:], strict=True)])
    mesh.add(quads, colour, label, material=material, out=(0, 1, 0), detail=detail)


def lay_ground(plan: Plan) -> None:
    """Build the skyline, grass, side streets, road, markings and pavements."""
    rng, mesh = plan.rng, Mesh()
    plan.put("skyline", scenery.skyline(rng, float(rng.uniform(0.2, 0.9))), 0, 0, layer=BACKDROP)
    asphalt, paving, grass = pick(rng, ASPHALTS), pick(rng, PAVINGS), pick(rng, GRASSES)
    mesh.add(rect_y((-500, 500), 0.0, (-30, 700)), grass, TERRAIN, material=GRASS, out=(0, 1, 0))
    for side in plan.sides:
        s = side.sign
        for (z0, z1), kind in zip(plan.blocks(), side.kinds, strict=True):
            paved = kind == "shops" or (kind == "flats" and rng.random() < 0.5)
            if paved:
                ribbon(mesh, (s * side.road, s * (side.edge + 14)), (z0, z1), paving, SIDEWALK, PAVING)
    for z0, z1 in plan.crossings:
        mesh.add(rect_y((-90, 90), 0.0, (z0 - 1.5, z0)), paving, SIDEWALK, material=PAVING, out=(0, 1, 0))
        mesh.add(rect_y((-90, 90), 0.0, (z1, z1 + 1.5)), paving, SIDEWALK, material=PAVING, out=(0, 1, 0))
        mesh.add(rect_y((-90, 90), 0.0, (z0, z1)), asphalt, ROAD, material=ASPHALT, out=(0, 1, 0))
    left, right = plan.sides
    # Chords of a bend differ between strips; the road reaches under the kerbs so that no slit stays open.
    ribbon(mesh, (-left.road - 0.4, right.road + 0.4), (START - 10, 600), asphalt, ROAD, ASPHALT)
    _wear(plan, mesh, asphalt)
    _marks(plan, mesh)
    for side in plan.sides:
        for z0, z1 in plan.blocks():
            _pavement(mesh, side, z0, z1, paving, grass, rng)
    plan.put("ground", mesh, 0, 0, layer=GROUND)


def _pavement(
    mesh: Mesh, side: Side, z0: float, z1: float, paving: np.ndarray, grass: np.ndarray, rng: np.random.Generator
) -> None:
    s, road, top = side.sign, side.road, 0.12
    edges = np.linspace(z0, z1, max(2, int((z1 - z0) / 12) + 2))
    kerb = np.stack([rect_x(s * road, (0.0, top), (a, b)) for a, b in zip(edges[:-1], edges[1:], strict=True)])
    mesh.add(kerb, paving * 0.8, SIDEWALK, out=(-s, 0, 0))
    mesh.add(
        np.array([(s * road, 0, z0), (s * road, top, z0), (s * side.edge, top, z0), (s * side.edge, 0, z0)]),
        paving * 0.8,
        SIDEWALK,
        out=(0, 0, -1),
    )
    ribbon(mesh, (s * road, s * side.edge), (z0, z1), paving, SIDEWALK, PAVING, top)
    ribbon(mesh, (s * road, s * (road + 0.15)), (z0, z1), paving * 1.12, SIDEWALK, PLASTER, top, detail=True)
    if side.verge:
        ribbon(mesh, (s * (road + 0.15), s * (road + side.verge)), (z0 + 2, z1 - 2), grass, TERRAIN, GRASS, top)
    if rng.random() < 0.2 and side.pavement > 2:
        tint = paving * np.array((0.75, 0.75, 1.15))
        near = road + side.verge + 0.2
        ribbon(mesh, (s * near, s * (near + 1.1)), (z0, z1), tint, SIDEWALK, PAVING, top, detail=True)


def _wear(plan: Plan, mesh: Mesh, asphalt: np.ndarray) -> None:
    """Build repaired stretches, manhole covers and tyre tracks."""
    rng, half = plan.rng, plan.sides[1].road
    for _ in range(rng.integers(2, 9)):
        x, z = rng.uniform(-half, half - 1), rng.uniform(2, 70)
        quad = rect_y((x, min(x + rng.uniform(0.6, 3), half)), 0.0, (z, z + rng.uniform(1, 12)))
        mesh.add(quad, asphalt * rng.uniform(0.75, 1.2), ROAD, material=ASPHALT, out=(0, 1, 0), detail=True)
    for _ in range(rng.integers(0, 4)):
        x, z = rng.uniform(-half + 1, half - 1), rng.uniform(4, 40)
        angle = np.arange(10) * 0.6283
        disc = np.stack([x + 0.35 * np.sin(angle), np.zeros(10), z + 0.35 * np.cos(angle)], axis=1)
        mesh.add(disc, asphalt * 0.6, ROAD, out=(0, 1, 0), detail=True)
    for track in plan.lane * (np.arange(2 * plan.lanes) / 2 + 0.25) - plan.lanes * plan.lane / 2:
        if rng.random() < 0.5:
            ribbon(
                mesh,
                (track - 0.25, track + 0.25),
                (START, END),
                asphalt * rng.uniform(0.86, 1.04),
                ROAD,
                ASPHALT,
                detail=True,
            )


def _marks(plan: Plan, mesh: Mesh) -> None:
    """Build lane lines, edge lines and zebra crossings."""
    rng, paint = plan.rng, pick(plan.rng, MARKS) * plan.rng.uniform(0.8, 1.0)
    half, add = plan.lanes * plan.lane / 2, dict(label=ROAD, material=ASPHALT, out=(0, 1, 0), detail=True)
    if rng.random() < 0.15 and plan.style != "open":
        half = 0.0
    free = plan.blocks()
    for i in range(1, plan.lanes) if half else ():
        x, solid = -half + i * plan.lane, rng.random() < 0.25
        for z0, z1 in free:
            starts = np.arange(z0 + 1, z1 - 3, 9.0)
            if solid:
                ribbon(mesh, (x - 0.07, x + 0.07), (z0, z1), paint, ROAD, ASPHALT, detail=True)
            elif len(starts):
                mesh.add(np.stack([rect_y((x - 0.08, x + 0.08), 0.0, (z, z + 3)) for z in starts]), paint, **add)
    if half and rng.random() < 0.55:
        for x in (-half, half):
            for z0, z1 in free:
                ribbon(mesh, (x - 0.07, x + 0.07), (z0, z1), paint * 0.95, ROAD, ASPHALT, detail=True)
    for z0, _ in plan.crossings:
        if rng.random() < 0.7:
            x = np.arange(-plan.sides[0].road + 0.5, plan.sides[1].road - 0.6, 1.0)
            mesh.add(np.stack([rect_y((a, a + 0.5), 0.0, (z0 - 4.5, z0 - 1.5)) for a in x]), paint, **add)


def _put_building(plan: Plan, side: Side, kind: str, x: float, z: float, bias: float = 0.0) -> float:
    """Place a building x metres from the road's middle and return its length; its far end orders the painting."""
    mesh, length, depth, height = scenery.building(plan.rng, side.sign, kind, plan.lit)
    across = (0.0, depth) if side.sign > 0 else (-depth, 0.0)
    plan.put(kind, mesh, side.sign * x, z, bias=length + bias, shadow=(*across, 0.0, length, 0.0, height))
    return length


def _row(plan: Plan, side: Side, kind: str, z0: float, z1: float) -> None:
    """Place buildings wall to wall, with an occasional gap."""
    rng, z, x = plan.rng, z0 + 0.5, side.edge + (0.0 if kind == "shops" else plan.rng.uniform(0, 2.5))
    while z < z1 - 14:
        z += _put_building(plan, side, kind, x, z) + (rng.uniform(2, 6) if rng.random() < 0.12 else 0.0)
    _border(plan, side, z, z1, ("wall", "fence", "none"), (0.4, 0.4, 0.2), (1.5, 2.5))


def _shops(plan: Plan, side: Side, z0: float, z1: float) -> None:
    _row(plan, side, "shops", z0, z1)


def _flats(plan: Plan, side: Side, z0: float, z1: float) -> None:
    _row(plan, side, "flats", z0, z1)


def _houses(plan: Plan, side: Side, z0: float, z1: float) -> None:
    rng, z, setback = plan.rng, z0 + plan.rng.uniform(0.5, 4), plan.rng.uniform(2, 8)
    while z < z1 - 13:
        length = _put_building(plan, side, "house", side.edge + setback, z)
        gap = rng.uniform(2, 9)
        if gap > 4 and rng.random() < 0.6:
            put_tree(plan, side.sign * (side.edge + setback + rng.uniform(-1, 5)), z + length + gap / 2)
        z += length + gap
    _border(plan, side, z0, z1, ("hedge", "wall", "fence", "none"), (0.3, 0.22, 0.26, 0.22), (0.8, 1.8))


def _green(plan: Plan, side: Side, z0: float, z1: float) -> None:
    rng = plan.rng
    for z in np.arange(z0 + 3, z1 - 2, rng.uniform(4, 9)):
        put_tree(plan, side.sign * (side.edge + rng.uniform(1.5, 9)), z + rng.uniform(-1.5, 1.5))
        if rng.random() < 0.5:
            put_tree(plan, side.sign * (side.edge + rng.uniform(10, 25)), z + rng.uniform(-2, 2), bias=20.0)
        if rng.random() < 0.4:
            plan.put("bush", scenery.bush(rng), side.sign * (side.edge + rng.uniform(1, 8)), z + 2)
    _border(plan, side, z0, z1, ("hedge", "fence", "none"), (0.2, 0.25, 0.55), (0.8, 1.5))


def _walled(plan: Plan, side: Side, z0: float, z1: float) -> None:
    _border(plan, side, z0, z1, ("wall",), (1.0,), (1.8, 3.8))
    _behind(plan, side, z0, z1)


def _fenced(plan: Plan, side: Side, z0: float, z1: float) -> None:
    _border(plan, side, z0, z1, ("fence",), (1.0,), (1.3, 2.4))
    _behind(plan, side, z0, z1)


def _behind(plan: Plan, side: Side, z0: float, z1: float) -> None:
    """Place trees or a building behind a wall or fence."""
    rng = plan.rng
    for z in np.arange(z0 + 2, z1, rng.uniform(6, 14)):
        if rng.random() < 0.7:
            put_tree(plan, side.sign * (side.edge + rng.uniform(3, 9)), z, bias=8.0)
        elif z1 - z > 18:
            _put_building(plan, side, "flats", side.edge + 12, z, bias=8.0)


def _border(
    plan: Plan,
    side: Side,
    z0: float,
    z1: float,
    names: tuple[str, ...],
    p: tuple[float, ...],
    height: tuple[float, float],
) -> None:
    """Place a hedge, wall or fence at the pavement's edge, in pieces of 6 m, with gaps for gates."""
    rng, s = plan.rng, side.sign
    name, high = str(rng.choice(names, p=p)), rng.uniform(*height)
    stone, timber, leaf = pick(rng, scenery.STONE), pick(rng, scenery.TIMBER), pick(rng, scenery.LEAF)
    material = BRICK if rng.random() < 0.5 else PLASTER
    fence = str(rng.choice(("plank", "picket", "guard"), p=(0.4, 0.4, 0.2)))
    if fence == "guard":
        high, timber = 0.85, pick(rng, scenery.METAL) * 1.2
    builders: dict[str, Callable[[float], Mesh]] = {
        "hedge": lambda n: scenery.hedge(rng, s, n, high, leaf),
        "wall": lambda n: scenery.wall(s, n, high, stone, material),
        "fence": lambda n: scenery.fence(rng, s, n, high, timber, fence),
    }
    if name == "none" or z1 - z0 < 1.5:
        return
    whole = builders[name](PIECE)
    for z in np.arange(z0 + 0.3, z1 - 0.5, PIECE):
        if rng.random() > 0.1:
            length = min(PIECE, z1 - z)
            mesh = whole if length == PIECE else builders[name](length)
            across = (0.0, 0.3) if s > 0 else (-0.3, 0.0)
            plan.put(name, mesh, s * (side.edge + 0.05), z, bias=length, shadow=(*across, 0.0, length, 0.0, high))


def put_tree(plan: Plan, x: float, z: float, bias: float = 0.0) -> None:
    """Place a tree at (x, z)."""
    sun_side = int(np.sign(np.round(plan.weather.sun[0] * 1.5)))
    mesh, height = scenery.tree(plan.rng, sun_side, bool(z > 60))
    plan.put("tree", mesh, x, z, bias=bias, shadow=around(height * 0.22, height * 0.18, height * 0.4, height))


# What may stand in a block; each takes (plan, side, near end, far end).
BLOCKS = {"shops": _shops, "flats": _flats, "houses": _houses, "green": _green, "walled": _walled, "fenced": _fenced}
