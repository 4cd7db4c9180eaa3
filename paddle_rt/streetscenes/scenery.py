"""The things that stand still in a street scene: buildings, plants, walls, fences, poles, signs and lights.

Builders for one side of the road take `side` (-1 left, 1 right); their x = 0 is the face towards the road and +x leads
away from it once `side` is applied. z = 0 is the end nearest to the camera.
"""

import numpy as np

from paddle_rt.streetscenes.mesh import (
    ASPHALT,
    BRICK,
    BUILDING,
    FENCE,
    GLOW,
    LEAVES,
    LIGHT,
    PLASTER,
    POLE,
    SIGN,
    VEGETATION,
    WALL,
    Mesh,
    bgr,
    disc_z,
    limb,
    palette,
    pick,
    rect_x,
    rect_z,
    with_variants,
)

FACADE = palette(
    0xC9BBA0,
    0xD8D2C4,
    0xA9A49B,
    0x8C8880,
    0xB58A63,
    0x9A5B45,
    0x7E4A3A,
    0xC2A878,
    0x9FA8A0,
    0xB7A7A0,
    0x6F7478,
    0x8A7F5C,
    0xD9C9A3,
    0x7C8B72,
    0x8B6B4E,
)
ROOF = palette(0x7A3B2A, 0x5A3A30, 0x4A4C50, 0x6B6A68, 0x3F4247)
SHOP = palette(0xB02A22, 0x1F4F8F, 0x2D6B43, 0xD9B23A, 0x2A2A2E, 0xE3E0D8, 0x7A3F78)
LEAF = palette(0x3F5B2A, 0x4E6B2F, 0x2F4A2A, 0x5F7238, 0x6F7A3E, 0x44583A, 0x7D6A33, 0x8A5A2C)
BARK = palette(0x4A3D30, 0x5E5346, 0x3A332B, 0x6F675C)
STONE = palette(0x9B968C, 0x7F7B74, 0xB3AC9E, 0x8A5747, 0x6B5D4C, 0xC4BEB0)
METAL = palette(0x4A4E50, 0x7C8083, 0x9DA1A3, 0x2D3335, 0x5B6B5A)
TIMBER = palette(0x6E5437, 0x8A6B45, 0x4F4232, 0xA39377, 0xD8D5CB, 0x4A5B45, 0x8D8F8C)
DARK = bgr(0x1A1D20)


def _windows(rng: np.random.Generator, number: int) -> np.ndarray:
    """Colours of panes: dark rooms, blinds, the sky's reflection."""
    base = palette(0x252C33, 0x39434B, 0x5C6B78, 0x8FA0AE, 0x1B2025, 0xB8B3A4)
    colours = base[rng.choice(6, number, p=[0.3, 0.25, 0.16, 0.08, 0.13, 0.08])]
    return colours * rng.uniform(0.85, 1.15, (number, 1)).astype(np.float32)


def _grid(columns: np.ndarray, rows: np.ndarray, width: float, height: float, plane: str, at: float) -> np.ndarray:
    """Rectangles [n, 4, 3] centred on every (column, row), in the plane x = at or z = at."""
    c, r = (v.ravel() for v in np.meshgrid(columns, rows))
    a = np.stack([c - width / 2, c - width / 2, c + width / 2, c + width / 2], axis=1)
    y = np.stack([r - height / 2, r + height / 2, r + height / 2, r - height / 2], axis=1)
    fixed = np.full_like(a, at)
    return np.stack([fixed, y, a] if plane == "x" else [a, y, fixed], axis=-1).astype(np.float32)


def _pierce(
    mesh: Mesh,
    rng: np.random.Generator,
    span: tuple[float, float],
    levels: tuple[float, float],
    plane: str,
    at: float,
    out: np.ndarray,
    style: dict,
) -> None:
    """Add rows of windows to one wall."""
    columns = int((span[1] - span[0] - 0.6) / style["spacing"])
    rows = int((levels[1] - levels[0]) / style["storey"])
    if columns < 1 or rows < 1:
        return
    c = (span[0] + span[1]) / 2 + (np.arange(columns) - (columns - 1) / 2) * style["spacing"]
    r = levels[0] + (np.arange(rows) + 0.55) * style["storey"]
    w, h = style["width"], style["height"]
    push = at + 0.02 * (out[0] if plane == "x" else out[2])
    mesh.add(_grid(c, r, w + 0.24, h + 0.24, plane, push), style["frame"], BUILDING, out=out, detail=True, level=1)
    panes = _grid(c, r, w, h, plane, push)
    mesh.add(panes, _windows(rng, len(panes)), BUILDING, out=out, detail=True, level=1)
    lit = rng.random(len(panes)) < style["lit"]
    if lit.any():
        mesh.add(
            panes[lit], bgr(0xE8C98A) * rng.uniform(0.7, 1.0), BUILDING, out=out, detail=True, level=1, material=GLOW
        )
    if style["bars"]:
        mesh.add(_grid(c, r, 0.07, h, plane, push), style["frame"], BUILDING, out=out, detail=True, level=1)


@with_variants(150)
def building(rng: np.random.Generator, side: int, kind: str, lit: float) -> tuple[Mesh, float, float, float]:
    """Build a building with windows towards the road and on its near end; `lit` is the share of lit windows.

    Returns:
        Mesh, length along the road, depth away from it, height.
    """
    mesh, colour = Mesh(), pick(rng, FACADE)
    length, depth = rng.uniform(8, 20), rng.uniform(9, 14)
    height = rng.uniform(*{"shops": (10, 22), "flats": (8, 26), "house": (3.2, 7.5)}[kind])
    gable = rng.random() < (0.85 if kind == "house" else 0.5 * (height < 13))
    shop = kind == "shops" and rng.random() < 0.8
    if kind == "house":
        length, depth = length * 0.7, depth * 0.75
    material = BRICK if rng.random() < 0.4 else PLASTER
    storey = rng.uniform(2.8, 3.6)
    style = {
        "spacing": rng.uniform(1.9, 3.4),
        "storey": storey,
        "width": rng.uniform(0.9, 1.5),
        "height": storey * rng.uniform(0.42, 0.66),
        "lit": lit,
        "bars": rng.random() < 0.5,
        "frame": colour * rng.uniform(0.55, 0.8) if rng.random() < 0.5 else pick(rng, palette(0xE2DED2, 0xC4BFB2)),
    }
    far = side * depth
    mesh.add(rect_x(0.0, (0, height), (0, length)), colour, BUILDING, out=(-side, 0, 0), material=material)
    ends = (min(0.0, far), max(0.0, far))
    mesh.add(rect_z(ends, (0, height), 0.0), colour * 0.95, BUILDING, out=(0, 0, -1), material=material)
    ground = storey * 1.15 if shop else 0.1
    toward, near = np.array((-side, 0.0, 0.0)), np.array((0.0, 0.0, -1.0))
    _pierce(mesh, rng, (0, length), (ground, height - 0.2), "x", 0.0, toward, style)
    if rng.random() < 0.75:
        _pierce(mesh, rng, ends, (0.2, height - 0.2), "z", 0.0, near, style)
    if shop:
        _shop_front(mesh, rng, side, length, ground)
    else:
        _door(mesh, rng, side, length)
    _roof(mesh, rng, side, length, depth, height, colour, gable)
    return mesh, length, depth, height


def _door(mesh: Mesh, rng: np.random.Generator, side: int, length: float) -> None:
    z = rng.uniform(0.2, 0.8) * length
    mesh.add(
        rect_x(-side * 0.03, (0, 2.3), (z - 0.6, z + 0.6)),
        pick(rng, TIMBER),
        BUILDING,
        out=(-side, 0, 0),
        detail=True,
        level=2,
    )
    mesh.add(
        rect_x(-side * 0.03, (2.3, 2.6), (z - 0.75, z + 0.75)),
        pick(rng, STONE),
        BUILDING,
        out=(-side, 0, 0),
        detail=True,
        level=2,
    )


def _shop_front(mesh: Mesh, rng: np.random.Generator, side: int, length: float, top: float) -> None:
    out, x = (-side, 0, 0), -side * 0.04
    number = max(1, int(length / rng.uniform(3.0, 5.0)))
    edges = np.linspace(0.3, length - 0.3, number + 1)
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        mesh.add(rect_x(x, (0.0, top), (a, b)), pick(rng, STONE) * 0.8, BUILDING, out=out, detail=True, level=2)
        mesh.add(
            rect_x(x * 1.2, (0.45, top - 0.8), (a + 0.25, b - 0.25)),
            _windows(rng, 1)[0],
            BUILDING,
            out=out,
            detail=True,
            level=2,
            material=GLOW if rng.random() < 0.15 else 0,
        )
        band = pick(rng, SHOP)
        mesh.add(rect_x(x * 1.3, (top - 0.7, top - 0.1), (a, b)), band, BUILDING, out=out, detail=True, level=2)
        if rng.random() < 0.35:
            slope = np.array(
                [(x, top - 0.7, a), (-side * 1.2, top - 1.15, a), (-side * 1.2, top - 1.15, b), (x, top - 0.7, b)]
            )
            mesh.add(slope, band * 1.1, BUILDING, level=3)


def _roof(
    mesh: Mesh,
    rng: np.random.Generator,
    side: int,
    length: float,
    depth: float,
    height: float,
    colour: np.ndarray,
    gable: bool,
) -> None:
    tiles, out = pick(rng, ROOF), (-side, 0, 0)
    if not gable:
        eave = -side * 0.25
        mesh.add(rect_x(eave, (height - 0.35, height + 0.25), (0, length)), colour * 0.8, BUILDING, out=out, level=3)
        ends = (min(eave, side * depth), max(eave, side * depth))
        mesh.add(rect_z(ends, (height - 0.35, height + 0.25), -0.05), colour * 0.75, BUILDING, out=(0, 0, -1), level=3)
        return
    ridge, rise = side * depth / 2, min(depth * rng.uniform(0.3, 0.5), 5.0)
    slope = np.array(
        [
            (-side * 0.4, height - 0.2, -0.3),
            (ridge, height + rise, -0.3),
            (ridge, height + rise, length),
            (-side * 0.4, height - 0.2, length),
        ]
    )
    for z in rng.uniform(0.15, 0.85, rng.integers(0, 3)) * length:
        mesh.box(
            tuple(sorted((ridge - 0.4, ridge + 0.4))),
            (height + rise * 0.6, height + rise + 0.9),
            (z, z + 0.7),
            colour * 0.7,
            BUILDING,
            material=BRICK,
            level=2,
        )
    mesh.add(slope, tiles, BUILDING, out=(-side, 1, 0), material=BRICK, level=3)
    mesh.add(
        np.array([(0, height, 0), (ridge, height + rise, 0), (side * depth, height, 0)]),
        colour * 0.95,
        BUILDING,
        out=(0, 0, -1),
        material=PLASTER,
        level=3,
    )


def _blob(rng: np.random.Generator, centres: np.ndarray, radii: np.ndarray, corners: int = 9) -> np.ndarray:
    """Ragged discs [n, corners, 3] that face the camera."""
    angle = np.arange(corners) * (2 * np.pi / corners) + rng.uniform(0, 6.3, (len(centres), 1))
    reach = radii[:, None] * rng.uniform(0.78, 1.12, (len(centres), corners))
    x, y = reach * np.sin(angle), reach * np.cos(angle)
    return (centres[:, None] + np.stack([x, y, np.zeros_like(x)], axis=-1)).astype(np.float32)


@with_variants(160)
def tree(rng: np.random.Generator, sun_side: int, simple: bool) -> tuple[Mesh, float]:
    """Build a deciduous tree or, one time in six, a conifer, lit from the sun's side; return mesh and height."""
    mesh, leaf, bark, height = Mesh(), pick(rng, LEAF, 0.2), pick(rng, BARK), rng.uniform(4, 13)
    trunk = height * 0.025 + 0.08
    if rng.random() < 0.16:
        mesh.add(limb((0, 0), (0, height * 0.3), trunk * 2), bark, VEGETATION)
        tiers = np.linspace(0.12, 0.8, 5)
        for t in tiers:
            w, y = height * 0.24 * (1.05 - t), t * height
            skirt = [
                (-w, y, 0),
                (-w * 0.5, y + 0.13 * height, 0),
                (0, y + 0.3 * height, 0),
                (w * 0.5, y + 0.13 * height, 0),
                (w, y, 0),
                (0, y - 0.03 * height, 0),
            ]
            mesh.add(np.array(skirt)[[0, 1, 2, 3, 4]], leaf * (0.6 + 0.4 * t), VEGETATION, material=LEAVES)
        return mesh, height
    bottom = height * rng.uniform(0.22, 0.42)
    mesh.add(
        limb((0, 0), (rng.uniform(-0.2, 0.2), bottom + 0.3 * (height - bottom)), trunk * 2, end=0.6), bark, VEGETATION
    )
    ry, rx = (height - bottom) / 2, height * rng.uniform(0.2, 0.36)
    middle = np.array((0.0, bottom + ry, 0.0))
    for side in (-1, 1):
        mesh.add(limb((0, bottom * 0.9), (side * rx * 0.5, bottom + ry * 0.7), trunk, end=0.4), bark * 0.9, VEGETATION)
    n = 9 if simple else int(rng.integers(20, 32))
    angle, radius = rng.uniform(0, 2 * np.pi, n), np.sqrt(rng.uniform(0.05, 1.0, n))
    offset = np.stack([np.sin(angle) * radius, np.cos(angle) * radius, np.zeros(n)], axis=1)
    light = offset @ np.array((sun_side * 0.4, 0.7, 0.0))
    order = np.argsort(light + 0.4 * rng.random(n))
    centres = middle + offset * np.array((rx * 0.72, ry * 0.78, 0.0))
    size = min(rx, ry) * (rng.uniform(0.5, 0.65, n) if simple else rng.uniform(0.28, 0.5, n))
    shade = 0.62 + 0.3 * (light + 0.8) * rng.uniform(0.8, 1.2, n)
    core = disc_z(0.0, middle[1], (rx * 0.8, ry * 0.82), 12)
    mesh.add(core, leaf * 0.58, VEGETATION, material=LEAVES)
    blobs = _blob(rng, centres, size)
    mesh.add(blobs[order], leaf * shade[order, None], VEGETATION, material=LEAVES)
    return mesh, height


@with_variants(60)
def bush(rng: np.random.Generator) -> Mesh:
    """Build a shrub."""
    mesh, leaf, width, height = Mesh(), pick(rng, LEAF, 0.2), rng.uniform(1.2, 3), rng.uniform(0.8, 1.8)
    n = 8
    centres = np.stack([rng.uniform(-0.35, 0.35, n) * width, rng.uniform(0.3, 0.65, n) * height, np.zeros(n)], axis=1)
    mesh.add(disc_z(0, height * 0.42, (width * 0.45, height * 0.45), 10), leaf * 0.6, VEGETATION, material=LEAVES)
    order = np.argsort(centres[:, 1])
    mesh.add(
        _blob(rng, centres[order], np.full(n, height * 0.33)),
        leaf * np.linspace(0.7, 1.1, n)[:, None],
        VEGETATION,
        material=LEAVES,
    )
    return mesh


def hedge(rng: np.random.Generator, side: int, length: float, height: float, colour: np.ndarray) -> Mesh:
    """Build a clipped hedge along the road with a ragged top."""
    mesh, depth = Mesh(), side * 0.9
    x = (min(0.0, depth), max(0.0, depth))
    mesh.box(x, (0, height), (0, length), colour, VEGETATION, material=LEAVES)
    n = max(2, int(length / 0.8))
    centres = np.stack([np.full(n, depth / 2), np.full(n, height), np.linspace(length, 0, n)], axis=1)
    mesh.add(
        _blob(rng, centres, rng.uniform(0.3, 0.5, n)),
        colour * rng.uniform(0.8, 1.1, (n, 1)),
        VEGETATION,
        material=LEAVES,
        level=1,
    )
    return mesh


def wall(side: int, length: float, height: float, colour: np.ndarray, material: int) -> Mesh:
    """Build a free-standing wall along the road with a coping."""
    mesh, x = Mesh(), tuple(sorted((0.0, side * 0.35)))
    mesh.box(x, (0, height), (0, length), colour, WALL, material=material)
    mesh.box((x[0] - 0.06, x[1] + 0.06), (height, height + 0.12), (0, length), colour * 0.82, WALL, level=1)
    if height > 2.2:
        posts = np.arange(0, length, 4.0)
        faces = np.stack([rect_x(-side * 0.05, (0, height), (z, z + 0.3)) for z in posts])
        mesh.add(faces, colour * 0.8, WALL, out=(-side, 0, 0), detail=True, level=1)
    return mesh


def fence(rng: np.random.Generator, side: int, length: float, height: float, colour: np.ndarray, kind: str) -> Mesh:
    """Build a fence along the road: "plank" (closed), "picket" (bars before a backing) or "guard" (a rail on posts)."""
    mesh, out = Mesh(), (-side, 0, 0)
    step = {"plank": 0.24, "picket": 0.3, "guard": 2.0}[kind]
    z = np.arange(0.05, length, step)
    if kind == "guard":
        posts = np.stack([rect_x(0.0, (0, height), (a, a + 0.14)) for a in z])
        mesh.add(posts, colour * 0.7, FENCE)
        for low, shade in ((height * 0.45, 0.85), (height * 0.62, 1.1), (height * 0.8, 0.9)):
            mesh.add(rect_x(-side * 0.05, (low, low + height * 0.2), (0, length)), colour * shade, FENCE)
        return mesh
    wide = 0.19 if kind == "plank" else 0.12
    mesh.add(rect_x(0.0, (0.05, height * 0.94), (0, length)), colour * (0.5 if kind == "plank" else 0.4), FENCE)
    tops = height * (rng.uniform(0.94, 1.04, len(z)) if kind == "plank" else np.ones(len(z)))
    bars = np.stack([rect_x(-side * 0.02, (0.02, t), (a, a + wide)) for a, t in zip(z, tops, strict=True)])
    mesh.add(bars, colour * rng.uniform(0.85, 1.1, (len(z), 1)), FENCE, material=PLASTER, level=1)
    for y in (0.25, 0.75):
        mesh.add(
            rect_x(-side * 0.03, (y * height - 0.05, y * height + 0.05), (0, length)),
            colour * 0.75,
            FENCE,
            out=out,
            detail=True,
            level=2,
        )
    return mesh


def lamp_post(rng: np.random.Generator, side: int, glow: bool) -> Mesh:
    """Build a street lamp whose arm leads away from `side`, over the road."""
    mesh, colour = Mesh(), pick(rng, METAL)
    height, reach = rng.uniform(5.5, 8.5), -side * rng.uniform(0.8, 2.2)
    mesh.add(limb((0, 0), (0, height), 0.2, end=0.6), colour, POLE)
    mesh.add(limb((0, height), (reach, height + 0.35), 0.11), colour, POLE)
    end = reach + np.sign(reach) * 0.5
    mesh.add(limb((reach, height + 0.33), (end, height + 0.38), 0.22), colour * 0.8, POLE)
    if glow:
        mesh.add(limb((reach, height + 0.25), (end, height + 0.3), 0.1), bgr(0xFFE9B8), POLE, material=GLOW)
    return mesh


def bollard(rng: np.random.Generator) -> Mesh:
    """Build a low post."""
    mesh, colour = Mesh(), pick(rng, METAL)
    mesh.add(limb((0, 0), (0, 0.95), 0.16), colour, POLE)
    mesh.add(limb((0, 0.7), (0, 0.82), 0.165), bgr(0xD8D5CC), POLE, detail=True)
    return mesh


def _plate(mesh: Mesh, rng: np.random.Generator, y: float, size: float) -> None:
    """Add one traffic sign around (0, y)."""
    red, blue, white = bgr(0xB01C22), bgr(0x1F4FA0), bgr(0xE8E6E0)
    kind = rng.choice(["ban", "warn", "duty", "stop", "board", "yield"])
    z = -0.06
    if kind == "board":
        w, h = size * rng.uniform(0.8, 1.5), size * rng.uniform(0.4, 0.8)
        field = palette(0x1F4FA0, 0x2B6B3F, 0xD9A520, 0xE4E2DC)[rng.integers(4)]
        mesh.add(rect_z((-w - 0.05, w + 0.05), (y - h - 0.05, y + h + 0.05), z), white, SIGN)
        mesh.add(rect_z((-w, w), (y - h, y + h), z), field, SIGN, detail=True)
        for row in (-0.45, 0.1, 0.5):
            mesh.add(
                rect_z((-w * 0.75, w * rng.uniform(0.1, 0.75)), (y + row * h, y + (row + 0.2) * h), z),
                white if field.sum() < 450 else DARK,
                SIGN,
                detail=True,
            )
        return
    corners = {"warn": 3, "yield": 3, "stop": 8}.get(kind, 14)
    r = size * (1.15 if corners == 3 else 1.0)
    turn = -1 if kind == "yield" else 1
    outer = disc_z(0, 0, (r, r), corners, z) if corners != 3 else _triangle(r, z)
    inner = outer * np.array((0.78, 0.78, 1.0))
    shift, flip = np.array((0, y, 0)), np.array((1, turn, 1))
    face = {"ban": white, "warn": white, "yield": white, "duty": blue, "stop": red}[kind]
    mesh.add(outer * flip + shift, white if kind == "duty" else red, SIGN)
    mesh.add(inner * flip + shift, face, SIGN, detail=True)
    if kind != "yield":
        glyph = white if kind in ("duty", "stop") else DARK
        mesh.add(rect_z((-r * 0.4, r * 0.4), (y - r * 0.13, y + r * 0.13), z), glyph, SIGN, detail=True)


def _triangle(r: float, z: float) -> np.ndarray:
    return np.array([(-0.95 * r, -0.6 * r, z), (0, r, z), (0.95 * r, -0.6 * r, z)], dtype=np.float32)


@with_variants(160)
def traffic_sign(rng: np.random.Generator) -> Mesh:
    """Build one or two plates on a pole."""
    mesh, size = Mesh(), rng.uniform(0.36, 0.52)
    top = rng.uniform(2.4, 3.0)
    mesh.add(limb((0, 0), (0, top + size), 0.1), pick(rng, METAL), POLE)
    _plate(mesh, rng, top, size)
    if rng.random() < 0.35:
        _plate(mesh, rng, top - 2.1 * size, size * 0.9)
    return mesh


def _lights(mesh: Mesh, x: float, y: float, state: int) -> None:
    """Add a housing with three lamps, with its bottom at (x, y)."""
    mesh.add(rect_z((x - 0.24, x + 0.24), (y, y + 1.1), -0.08), bgr(0x1E2222), LIGHT)
    lamps = palette(0x2BD67B, 0xF2B02C, 0xE8312A)
    for i in range(3):
        on = i == state
        mesh.add(
            disc_z(x, y + 0.2 + 0.35 * i, (0.145, 0.145), 9, -0.1),
            lamps[i] * (1.0 if on else 0.22),
            LIGHT,
            detail=True,
            material=GLOW if on else 0,
        )


@with_variants(60)
def traffic_light(rng: np.random.Generator, side: int, arm: bool) -> Mesh:
    """Build lights on a pole and, on request, on an arm over the road, away from `side`."""
    reach = -side * rng.uniform(2.5, 4.5) if arm else 0.0
    mesh, colour, state = Mesh(), pick(rng, METAL), int(rng.choice((0, 2, 2, 1)))
    height = 5.6 if reach else 3.5
    mesh.add(limb((0, 0), (0, height), 0.17, end=0.8), colour, POLE)
    if reach:
        mesh.add(limb((0, height - 0.1), (reach, height), 0.13), colour, POLE)
        _lights(mesh, reach, height - 1.2, state)
    _lights(mesh, 0.0, 2.4, state)
    return mesh


def skyline(rng: np.random.Generator, green: float) -> Mesh:
    """Build distant buildings and woods all around the view, so far away that they do not move."""
    mesh, x, far = Mesh(), -420.0, 330.0
    while x < 420.0:
        w = rng.uniform(10, 45)
        if rng.random() < green:
            n = 5
            centres = np.stack([x + np.linspace(0, w, n), rng.uniform(2, 7, n), np.full(n, far)], axis=1)
            leaf = pick(rng, LEAF)
            mesh.add(rect_z((x - 5, x + w + 5), (-3, 5), far), leaf * 0.8, VEGETATION, material=ASPHALT)
            mesh.add(_blob(rng, centres, rng.uniform(4, 9, n)), leaf, VEGETATION, material=ASPHALT)
        else:
            mesh.add(rect_z((x, x + w), (-3, rng.uniform(7, 26)), far), pick(rng, FACADE), BUILDING)
        x += w * rng.uniform(0.6, 1.0)
    return mesh
