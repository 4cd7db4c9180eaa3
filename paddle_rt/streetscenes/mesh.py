"""The parts of a street scene: planar polygons in metres, grouped into things that stand on the road's plane.

Axes: x to the right, y up, z along the road. Things are placed in road coordinates; a curved road bends them at
render time. Everything is plain data, so that one scene can be drawn at any size and any time.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache, cached_property, wraps
from typing import Any

import numpy as np

ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, LIGHT, SIGN, VEGETATION, TERRAIN = range(10)
SKY, PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE = range(10, 19)

# Layers, painted in this order; things of the last one are painted far to near.
BACKDROP, GROUND, UPRIGHT = range(3)

# Materials: amplitude of the grain, of the brick pattern, of the slow stains; metres a texture tile spans; own light.
MATERIALS = np.array(
    [
        (0.03, 0.00, 0.05, 12.0, 0.0),  # SMOOTH: metal, plastic, glass
        (0.11, 0.00, 0.08, 12.0, 0.0),  # ASPHALT
        (0.10, 0.22, 0.14, 30.0, 0.0),  # PAVING
        (0.09, 0.00, 0.10, 12.0, 0.0),  # PLASTER
        (0.08, 0.35, 0.12, 12.0, 0.0),  # BRICK
        (0.34, 0.00, 0.26, 8.00, 0.0),  # LEAVES
        (0.22, 0.00, 0.30, 10.0, 0.0),  # GRASS
        (0.07, 0.00, 0.05, 4.00, 0.0),  # CLOTH
        (0.00, 0.00, 0.00, 12.0, 1.0),  # GLOW: lamps and lit windows
    ],
    dtype=np.float32,
)
SMOOTH, ASPHALT, PAVING, PLASTER, BRICK, LEAVES, GRASS, CLOTH, GLOW = range(9)

Vector = tuple[float, float, float]


def bgr(code: int) -> np.ndarray:
    """Return the colour 0xRRGGBB as three floats in OpenCV's order."""
    return np.array((code & 255, code >> 8 & 255, code >> 16 & 255), dtype=np.float32)


def palette(*codes: int) -> np.ndarray:
    """Return several colours, one in each row."""
    return np.stack([bgr(code) for code in codes])


def pick(rng: np.random.Generator, colours: np.ndarray, spread: float = 0.12) -> np.ndarray:
    """Draw a colour of a palette and vary its lightness and hue a little."""
    colour = colours[rng.integers(len(colours))] * (1 + spread * rng.uniform(-1, 1))
    return np.clip(colour + rng.normal(0, 5, 3), 4, 250).astype(np.float32)


def with_variants(number: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a builder return one of `number` variants, each of which is built when it is first used.

    Building meshes costs more than drawing them. A variant depends on its number and the arguments only, so every
    process has the same variants.
    """

    def wrap(build: Callable[..., Any]) -> Callable[..., Any]:
        kind = zlib.crc32(build.__name__.encode())

        @cache
        def variant(which: int, *arguments: object) -> Any:
            return build(np.random.default_rng([kind, which]), *arguments)

        @wraps(build)
        def draw(rng: np.random.Generator, *arguments: object) -> Any:
            return variant(int(rng.integers(number)), *arguments)

        return draw

    return wrap


@dataclass(slots=True)
class Patch:
    """Polygons of one kind: `points` [n, k, 3], `colours` [3] or [n, 3]; `out` [3] or [n, 3] points out of the body.

    Without `out` both sides are visible. A `detail` patch never changes the label below it, so it may be left out where
    it would be smaller than a pixel. `level` and `anchor` order the patches of one thing.
    """

    points: np.ndarray
    colours: np.ndarray
    label: int
    material: int
    out: Vector | np.ndarray | None
    detail: bool
    level: int
    anchor: Vector | np.ndarray | None


class Mesh:
    """The polygons of one thing around its foot point, in painting order; fixed once it has been drawn or turned."""

    def __init__(self) -> None:
        self.patches: list[Patch] = []
        self._turned: dict[float, Mesh] = {}

    def add(
        self,
        points: np.ndarray,
        colours: np.ndarray,
        label: int,
        *,
        out: Vector | np.ndarray | None = None,
        material: int = SMOOTH,
        detail: bool = False,
        level: int = 0,
        anchor: Vector | None = None,
    ) -> None:
        """Append polygons: `points` [k, 3] or [n, k, 3], one colour for all or one each."""
        points = points[None] if points.ndim == 2 else points
        self.patches.append(Patch(points, colours, label, material, out, detail, level, anchor))

    def box(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        z: tuple[float, float],
        colour: np.ndarray,
        label: int,
        *,
        material: int = SMOOTH,
        detail: bool = False,
        level: int = 0,
    ) -> None:
        """Append a box without its bottom: back, left, right, top, front."""
        faces = np.stack(
            [rect_z(x, y, z[1]), rect_x(x[0], y, z), rect_x(x[1], y, z), rect_y(x, y[1], z), rect_z(x, y, z[0])]
        )
        self.add(faces, colour, label, out=_BOX_OUT, material=material, detail=detail, level=level)

    def turned(self, angle: float) -> "Mesh":
        """Return the thing turned so that its front points to (sin angle, cos angle), ordered from far to near."""
        if angle not in self._turned:
            c, s = np.cos(angle), np.sin(angle)
            turn = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]], dtype=np.float32)
            mesh = Mesh()
            for p in self.patches:
                anchor = (p.points.reshape(-1, 3).mean(0) if p.anchor is None else np.array(p.anchor)) @ turn
                out = None if p.out is None else np.asarray(p.out) @ turn
                mesh.add(
                    p.points @ turn,
                    p.colours,
                    p.label,
                    out=out,
                    material=p.material,
                    detail=p.detail,
                    level=p.level,
                    anchor=anchor,
                )
            mesh.patches.sort(key=lambda p: (p.level, -p.anchor[2]))
            self._turned[angle] = mesh
        return self._turned[angle]

    @cached_property
    def flat(self) -> "Polygons":
        """Return all polygons as flat arrays."""
        return _flatten(self.patches)


_BOX_OUT = np.array([(0, 0, 1), (-1, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, -1)], dtype=np.float32)


@dataclass
class Thing:
    """One object of the scene at t = 0.

    `x`, `y`, `z`: its foot point in metres; `vx`, `vz`: metres a second. `bias` is added to z when things are ordered
    far to near. `shadow`: the box that stops the sun (left, right, near, far, bottom, top), metres from the foot point.
    """

    name: str
    mesh: Mesh
    x: float = 0.0
    z: float = 0.0
    y: float = 0.0
    vx: float = 0.0
    vz: float = 0.0
    layer: int = UPRIGHT
    bias: float = 0.0
    shadow: tuple[float, float, float, float, float, float] | None = None


@dataclass
class Polygons:
    """Flat arrays; V vertices, P polygons."""

    vertices: np.ndarray  # [V, 3] relative to the thing
    start: np.ndarray  # [P] first vertex
    count: np.ndarray  # [P]
    colours: np.ndarray  # [P, 3]
    labels: np.ndarray  # [P]
    materials: np.ndarray  # [P]
    detail: np.ndarray  # [P]
    normal: np.ndarray  # [P, 3] unit vector by the corners' order
    facing: np.ndarray  # [P] 0 both sides, else the sign that makes the normal lead outwards
    corners: np.ndarray  # [P, 3] three vertices that span the plane
    texture: np.ndarray  # [P, 3, 2] their texture coordinates, in metres


@dataclass
class Packed(Polygons):
    """All polygons of a scene, lit by the sun, and the thing that each vertex and polygon belongs to."""

    vertex_thing: np.ndarray  # [V]
    things: np.ndarray  # [P]


def around(half_width: float, half_length: float, bottom: float, top: float) -> tuple[float, ...]:
    """Return a `Thing.shadow` box that is centred on the foot point."""
    return -half_width, half_width, -half_length, half_length, bottom, top


def _flatten(patches: list[Patch]) -> Polygons:
    sizes = [p.points.shape[:2] for p in patches]
    number = np.array([n for n, _ in sizes], dtype=np.int64)
    count = np.repeat(np.array([k for _, k in sizes], dtype=np.int64), number)
    start = np.cumsum(count) - count
    vertices = np.concatenate([p.points.reshape(-1, 3) for p in patches]).astype(np.float32)
    colours, out = np.empty((len(count), 3), dtype=np.float32), np.zeros((len(count), 3), dtype=np.float32)
    first = 0
    for p, (n, _) in zip(patches, sizes, strict=True):
        colours[first : first + n] = p.colours
        if p.out is not None:
            out[first : first + n] = p.out
        first += n
    corners = start[:, None] + np.stack([np.zeros_like(count), count // 3, (2 * count) // 3], axis=1)
    a, b, c = (vertices[corners[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)

    def each(values: list[int], kind: type) -> np.ndarray:
        return np.repeat(np.array(values, dtype=kind), number)

    return Polygons(
        vertices,
        start,
        count,
        colours,
        each([p.label for p in patches], np.uint8),
        each([p.material for p in patches], np.int64),
        each([p.detail for p in patches], bool),
        normal,
        np.sign((normal * out).sum(1)),
        corners,
        _texture_coordinates(vertices, corners, normal),
    )


def pack(things: list[Thing], sun: np.ndarray, sun_strength: float, ambient: float) -> Packed:
    """Join a scene's meshes and compute the light that each polygon receives from its direction."""
    drawn = [(i, thing.mesh.flat) for i, thing in enumerate(things) if thing.mesh.patches]
    flats = [flat for _, flat in drawn]
    joined = {f.name: np.concatenate([getattr(flat, f.name) for flat in flats]) for f in fields(Polygons)}
    polygons = np.array([len(flat.start) for flat in flats])
    vertices = np.array([len(flat.vertices) for flat in flats])
    shift = np.repeat(np.cumsum(vertices) - vertices, polygons)
    joined["start"] = joined["start"] + shift
    joined["corners"] = joined["corners"] + shift[:, None]
    light = _light(joined["normal"], joined["facing"], sun, sun_strength, ambient)
    joined["colours"] = joined["colours"] * np.where(MATERIALS[joined["materials"], 4] > 0, 1.0, light)[:, None]
    owner = np.array([i for i, _ in drawn])
    return Packed(**joined, vertex_thing=np.repeat(owner, vertices), things=np.repeat(owner, polygons))


def _light(normal: np.ndarray, facing: np.ndarray, sun: np.ndarray, strength: float, ambient: float) -> np.ndarray:
    towards = (normal * facing[:, None]) @ sun
    # Flat stand-ins for round bodies (people, leaves) get the average of a cylinder under this sun.
    round_body = 0.35 - 0.3 * sun[2]
    direct = np.where(facing == 0, round_body, np.maximum(towards, 0.0))
    sky = np.where(facing == 0, 0.9, 0.88 + 0.12 * normal[:, 1] * facing)
    return (ambient * sky + strength * direct).astype(np.float32)


def _texture_coordinates(vertices: np.ndarray, corners: np.ndarray, normal: np.ndarray) -> np.ndarray:
    points = vertices[corners]
    flat = (np.abs(normal[:, 1]) > 0.7)[:, None]
    sideways = (np.abs(normal[:, 0]) > np.abs(normal[:, 2]))[:, None]
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    along = np.where(flat, x, np.where(sideways, z, x))
    return np.stack([along, np.where(flat, z, -y)], axis=-1)


def rect_z(x: tuple[float, float], y: tuple[float, float], z: float) -> np.ndarray:
    """Return an upright rectangle across the road, [4, 3]."""
    return np.array([(x[0], y[0], z), (x[0], y[1], z), (x[1], y[1], z), (x[1], y[0], z)], dtype=np.float32)


def rect_x(x: float, y: tuple[float, float], z: tuple[float, float]) -> np.ndarray:
    """Return an upright rectangle along the road, [4, 3]."""
    return np.array([(x, y[0], z[0]), (x, y[1], z[0]), (x, y[1], z[1]), (x, y[0], z[1])], dtype=np.float32)


def rect_y(x: tuple[float, float], y: float, z: tuple[float, float]) -> np.ndarray:
    """Return a level rectangle, [4, 3]."""
    return np.array([(x[0], y, z[0]), (x[0], y, z[1]), (x[1], y, z[1]), (x[1], y, z[0])], dtype=np.float32)


def disc_z(x: float, y: float, radius: tuple[float, float], corners: int = 10, z: float = 0.0) -> np.ndarray:
    """Return an ellipse that faces the camera, [corners, 3]."""
    angle = np.arange(corners) * (2 * np.pi / corners) + np.pi / corners
    return np.stack([x + radius[0] * np.sin(angle), y + radius[1] * np.cos(angle), np.full(corners, z)], axis=1).astype(
        np.float32
    )


def disc_x(x: float, y: float, z: float, radius: float, corners: int = 12) -> np.ndarray:
    """Return a disc in the plane along the road, such as a wheel, [corners, 3]."""
    angle = np.arange(corners) * (2 * np.pi / corners)
    return np.stack([np.full(corners, x), y + radius * np.cos(angle), z + radius * np.sin(angle)], axis=1).astype(
        np.float32
    )


def limb(a: tuple[float, float], b: tuple[float, float], width: float, z: float = 0.0, end: float = 1.0) -> np.ndarray:
    """Return a bar from point a to point b that faces the camera, `width` wide, `end` times that at b, [4, 3]."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    scale = width / 2 / max(np.hypot(dx, dy), 1e-6)
    nx, ny = -dy * scale, dx * scale
    return np.array(
        [
            (a[0] + nx, a[1] + ny, z),
            (b[0] + nx * end, b[1] + ny * end, z),
            (b[0] - nx * end, b[1] - ny * end, z),
            (a[0] - nx, a[1] - ny, z),
        ],
        dtype=np.float32,
    )
