"""The things that move in a street scene: cars, trucks, buses, trams, two-wheelers, riders and people.

Each builder returns a mesh around its foot point that faces +z; `Mesh.turned` turns it.
"""

import numpy as np

from paddle_rt.streetscenes.mesh import (
    BICYCLE,
    BUS,
    CAR,
    CLOTH,
    GLOW,
    MOTORCYCLE,
    PERSON,
    RIDER,
    SMOOTH,
    TRAIN,
    TRUCK,
    Mesh,
    bgr,
    disc_x,
    disc_z,
    limb,
    palette,
    pick,
    rect_x,
    rect_z,
    with_variants,
)

PAINT = palette(
    0x1B1D20,
    0x2C3036,
    0x8F9499,
    0xB9BDC0,
    0xE6E7E6,
    0x5E6468,
    0x7A1F1C,
    0x233C66,
    0x2D4A33,
    0x77705F,
    0x4E3A2C,
    0xA88B4A,
    0x9FB0A0,
)
TRUCK_PAINT = palette(0xE4E4E0, 0xD8D4C8, 0xC9A227, 0x24508A, 0x8B1E1E, 0x3E6B3A, 0x8A8D90, 0x6B5A48)
BUS_PAINT = palette(0xC8A415, 0xB02A22, 0xE2E2DC, 0x2B5FA0, 0x3F7A4A, 0xD9822B)
TRAM_PAINT = palette(0xC9B037, 0xA52823, 0x2F6B46, 0x3A5F99, 0xE5E3DA)
CLOTHES = palette(
    0x1C1E26,
    0x2E3A55,
    0x5A5D62,
    0x7B6A55,
    0x8C2B2B,
    0xC9C4B8,
    0x3D5A3C,
    0x94793F,
    0x5C3A5E,
    0xB5542B,
    0x24667A,
    0xE0DEDA,
)
TROUSERS = palette(0x1A1C22, 0x26324A, 0x46505E, 0x6E604C, 0x8A8478, 0x38302A)
SKIN = palette(0xE3B593, 0xC98F6B, 0x8F5E41, 0x5D3B29)
HAIR = palette(0x17130F, 0x3B2717, 0x6B4A26, 0xB38F55, 0x8C8984)
TYRE, RIM, GLASS, UNDER = bgr(0x17181A), bgr(0x8C9094), bgr(0x27313A), bgr(0x14161A)
TAIL, HEAD, PLATE = bgr(0xB3211E), bgr(0xF2F0DC), bgr(0xD9D7C4)

# Side profiles as fractions of length (0 rear, 1 front) and height: belt height, then the cabin's four z.
CAR_KINDS = {
    #        length        width         height        belt  rear0 rear1 front1 front0 nose
    "sedan": ((4.4, 5.0), (1.76, 1.88), (1.40, 1.50), 0.64, 0.15, 0.29, 0.58, 0.75, 0.80),
    "hatch": ((3.7, 4.4), (1.68, 1.82), (1.44, 1.58), 0.63, 0.01, 0.13, 0.57, 0.76, 0.80),
    "estate": ((4.5, 4.9), (1.76, 1.88), (1.45, 1.55), 0.62, 0.01, 0.10, 0.59, 0.75, 0.80),
    "suv": ((4.3, 4.8), (1.82, 1.95), (1.65, 1.82), 0.60, 0.01, 0.08, 0.60, 0.76, 0.92),
    "van": ((4.7, 5.4), (1.88, 2.02), (1.90, 2.20), 0.52, 0.00, 0.03, 0.74, 0.93, 0.88),
}


def _wheels(mesh: Mesh, label: int, half: float, radius: float, axles: list[float], level: int = 0) -> None:
    """Add tyres and rims on both sides, and the treads as seen from behind and from the front."""
    for z in axles:
        for side in (-1, 1):
            x = side * (half + 0.01)
            anchor = (x, radius, z)
            mesh.add(disc_x(x, radius, z, radius), TYRE, label, out=(side, 0, 0), level=level, anchor=anchor)
            mesh.add(
                disc_x(x, radius, z, radius * 0.62, 9),
                RIM,
                label,
                out=(side, 0, 0),
                detail=True,
                level=level,
                anchor=anchor,
            )
            tread = (x - side * 0.24, x) if side > 0 else (x, x + 0.24)
            for face in (-1, 1):
                mesh.add(
                    rect_z(tread, (0.0, radius * 1.5), z + face * radius * 0.75),
                    TYRE,
                    label,
                    out=(0, 0, face),
                    level=-1,
                )


@with_variants(240)
def car(rng: np.random.Generator) -> tuple[Mesh, float, float, float]:
    """Build a passenger car.

    Returns:
        Mesh, length, width, height.
    """
    kind = list(CAR_KINDS.values())[rng.choice(5, p=[0.28, 0.27, 0.15, 0.2, 0.1])]
    length, width, height = (rng.uniform(*r) for r in kind[:3])
    belt, rear0, rear1, front1, front0, nose = kind[3:]
    paint, mesh = pick(rng, PAINT), Mesh()
    half, low, waist = width / 2, 0.15 * height, belt * height
    along = lambda fraction: (fraction - 0.5) * length  # noqa: E731
    back, front, hood = along(0.0), along(1.0), nose * waist
    _wheels(mesh, CAR, half, 0.31 + 0.03 * height, [along(0.19), along(0.81)], level=1)
    side = [(back, low), (back + 0.05, waist), (along(front0), waist), (front - 0.1, hood), (front, low)]
    _skin(mesh, CAR, side, half, half, paint)
    roof = half * 0.80
    for face in (-1, 1):
        for z in (along(front0) - 0.25, along(0.44)):
            mesh.add(
                rect_x(face * (half + 0.004), (low + 0.15, waist), (z, z + 0.03)),
                paint * 0.5,
                CAR,
                out=(face, 0, 0),
                detail=True,
                level=1,
                anchor=(face * half, waist, 0.0),
            )
    cabin = [(along(rear0), waist), (along(rear1), height), (along(front1), height), (along(front0), waist)]
    _skin(mesh, CAR, cabin, half * 0.97, roof, paint, level=2)
    _glass(mesh, CAR, cabin, half * 0.97, roof, bgr(0x27313A) + rng.uniform(-8, 40))
    _car_ends(mesh, rng, half, (back, front), low, (waist, hood), paint)
    return mesh, length, width, height


def _car_ends(
    mesh: Mesh,
    rng: np.random.Generator,
    half: float,
    ends: tuple[float, float],
    low: float,
    tops: tuple[float, float],
    paint: np.ndarray,
) -> None:
    """Add lamps, bumpers, plates and the grille."""
    more = {"detail": True, "level": 2}
    for z, face, top, lamp, glow in zip(ends, (-1, 1), tops, (TAIL, HEAD), (0.2, 0.35), strict=True):
        out, tall, wide = (0, 0, face), rng.uniform(0.13, 0.24), rng.uniform(0.28, 0.42)
        # Ends lean inwards towards their top; what is fixed to them stands a little before them.
        z += face * 0.02
        mesh.add(rect_z((-half * 0.98, half * 0.98), (low, low + 0.22), z), paint * 0.5, CAR, out=out, **more)
        if face > 0:
            mesh.add(rect_z((-half * 0.5, half * 0.5), (low + 0.24, top - 0.1), z), UNDER, CAR, out=out, **more)
        else:
            mesh.add(rect_z((-half * 0.9, half * 0.9), (top - 0.06, top - 0.03), z), paint * 0.6, CAR, out=out, **more)
        mesh.add(rect_z((-0.26, 0.26), (low + 0.2, low + 0.33), z), PLATE, CAR, out=out, **more)
        material = GLOW if rng.random() < glow else SMOOTH
        for side in (-1, 1):
            x = sorted((side * half * 0.97, side * (half * 0.97 - wide)))
            mesh.add(
                rect_z((x[0], x[1]), (top - 0.1 - tall, top - 0.1), z), lamp, CAR, out=out, material=material, **more
            )


def _skin(
    mesh: Mesh, label: int, side: list[tuple[float, float]], low: float, high: float, paint: np.ndarray, level: int = 1
) -> None:
    """Add body panels between two copies of a side profile [(z, y)], with half widths `low` and `high`."""
    bottom, top = min(y for _, y in side), max(y for _, y in side)
    half = [low + (high - low) * (y - bottom) / (top - bottom) for _, y in side]
    for face in (-1, 1):
        panel = np.array([(face * h, y, z) for h, (z, y) in zip(half, side, strict=True)], dtype=np.float32)
        mesh.add(panel, paint * 0.96, label, out=(face, 0.05, 0), level=level)
    for (h0, (z0, y0)), (h1, (z1, y1)) in zip(
        zip(half, side, strict=True), list(zip(half, side, strict=True))[1:], strict=False
    ):
        strip = np.array([(-h0, y0, z0), (-h1, y1, z1), (h1, y1, z1), (h0, y0, z0)], dtype=np.float32)
        mesh.add(strip, paint, label, out=(0, z1 - z0, y0 - y1), level=level)


def _glass(mesh: Mesh, label: int, cabin: list[tuple[float, float]], low: float, high: float, tint: np.ndarray) -> None:
    """Add the windows of a cabin whose profile is [rear bottom, rear top, front top, front bottom]."""
    (zr0, y0), (zr1, y1), (zf1, _), (zf0, _) = cabin
    at = lambda t: (low + (high - low) * t, y0 + (y1 - y0) * t)  # noqa: E731
    (h0, b), (h1, t) = at(0.10), at(0.86)
    for face, bottom, top in ((-1, zr0, zr1), (1, zf0, zf1)):
        z0, z1 = bottom + (top - bottom) * 0.10 + face * 0.01, bottom + (top - bottom) * 0.86 + face * 0.01
        pane = np.array([(-h0 * 0.9, b, z0), (-h1 * 0.9, t, z1), (h1 * 0.9, t, z1), (h0 * 0.9, b, z0)])
        mesh.add(pane, tint * 1.15, label, out=(0, abs(bottom - top) + 0.05, face * (y1 - y0)), detail=True, level=3)
    middle = 0.5 * (zr1 + zf1)
    for side in (-1, 1):
        for near, far in ((0.0, 0.47), (0.53, 1.0)):
            z = [
                _mix(zr0, zf0, 0.08 + 0.82 * near),
                _mix(zr1, zf1, 0.06 + 0.88 * near),
                _mix(zr1, zf1, 0.06 + 0.88 * far),
                _mix(zr0, zf0, 0.08 + 0.82 * far),
            ]
            pane = np.array(
                [(side * (h + 0.01), y, zz) for h, y, zz in zip((h0, h1, h1, h0), (b, t, t, b), z, strict=True)]
            )
            mesh.add(pane, tint, label, out=(side, 0.05, 0), detail=True, level=3, anchor=(side * h0, b, middle))


def _mix(a: float, b: float, t: float) -> float:
    return a + (b - a) * t


@with_variants(80)
def truck(rng: np.random.Generator) -> tuple[Mesh, float, float, float]:
    """Build a lorry with a cargo box or a tipper, and return its mesh, length, width and height."""
    length, width, height = rng.uniform(6.0, 9.5), rng.uniform(2.2, 2.5), rng.uniform(2.9, 3.8)
    paint, cargo, half, mesh = pick(rng, TRUCK_PAINT), pick(rng, TRUCK_PAINT), width / 2, Mesh()
    cab, back, front = 2.1, -length / 2, length / 2
    bed = 1.0 if rng.random() < 0.75 else 1.7
    _wheels(mesh, TRUCK, half - 0.05, 0.48, [back + 1.0, back + 2.1, front - 1.1])
    mesh.box((-half * 0.9, half * 0.9), (0.5, 1.05), (back + 0.05, front - 0.3), UNDER * 1.6, TRUCK)
    cab_top = min(height - 0.2, 2.75)
    mesh.box((-half * 0.96, half * 0.96), (0.55, cab_top), (front - cab, front), paint, TRUCK, level=1)
    mesh.add(
        rect_z((-half * 0.86, half * 0.86), (cab_top - 1.15, cab_top - 0.3), front + 0.02),
        GLASS,
        TRUCK,
        out=(0, 0, 1),
        detail=True,
        level=2,
    )
    for side in (-1, 1):
        mesh.add(
            rect_x(side * (half * 0.96 + 0.01), (cab_top - 1.1, cab_top - 0.35), (front - 1.5, front - 0.35)),
            GLASS,
            TRUCK,
            out=(side, 0, 0),
            detail=True,
            level=2,
        )
        lamp = sorted((side * half * 0.85, side * half * 0.55))
        mesh.add(
            rect_z((lamp[0], lamp[1]), (0.75, 0.95), front + 0.02), HEAD, TRUCK, out=(0, 0, 1), detail=True, level=2
        )
        mesh.add(
            rect_z((lamp[0], lamp[1]), (0.6, 0.85), back - 0.02), TAIL, TRUCK, out=(0, 0, -1), detail=True, level=2
        )
    top = height if bed == 1.0 else 2.2
    mesh.box((-half, half), (1.0, top), (back, front - cab - 0.15), cargo, TRUCK, level=1)
    stripe = pick(rng, TRUCK_PAINT)
    y0, y1 = 1.0 + (top - 1.0) * 0.35, 1.0 + (top - 1.0) * rng.uniform(0.5, 0.75)
    for side in (-1, 1):
        mesh.add(
            rect_x(side * (half + 0.01), (y0, y1), (back + 0.6, front - cab - 0.8)),
            stripe,
            TRUCK,
            out=(side, 0, 0),
            detail=True,
            level=2,
        )
    mesh.add(rect_z((-0.03, 0.03), (1.05, top - 0.1), back - 0.01), UNDER, TRUCK, out=(0, 0, -1), detail=True, level=2)
    mesh.add(rect_z((-half * 0.9, half * 0.9), (0.5, 0.62), back - 0.03), UNDER * 2, TRUCK, out=(0, 0, -1), level=2)
    mesh.add(rect_z((-0.3, 0.3), (0.66, 0.84), back - 0.02), PLATE, TRUCK, out=(0, 0, -1), detail=True, level=2)
    return mesh, length, width, height


@with_variants(60)
def bus(rng: np.random.Generator) -> tuple[Mesh, float, float, float]:
    """Build a city bus and return its mesh, length, width and height."""
    length, width, height = rng.uniform(10, 12.5), 2.5, rng.uniform(2.95, 3.3)
    paint, mesh, half = pick(rng, BUS_PAINT), Mesh(), width / 2
    back, front = -length / 2, length / 2
    mesh.box((-half, half), (0.32, height), (back, front), paint, BUS)
    _wheels(mesh, BUS, half, 0.5, [back + 2.6, front - 2.4], level=1)
    edges = np.linspace(back + 0.4, front - 0.5, 8)
    for side in (-1, 1):
        panes = np.stack(
            [
                rect_x(side * (half + 0.01), (1.25, 2.45), (a + 0.06, b - 0.06))
                for a, b in zip(edges[:-1], edges[1:], strict=True)
            ]
        )
        mesh.add(panes, GLASS * rng.uniform(0.8, 1.5), BUS, out=(side, 0, 0), detail=True, level=1)
        mesh.add(
            rect_x(side * (half + 0.012), (0.45, 2.4), (front - 2.0, front - 0.8)),
            GLASS * 0.9,
            BUS,
            out=(side, 0, 0),
            detail=True,
            level=1,
        )
        mesh.add(
            rect_x(side * (half + 0.013), (0.6, 1.0), (back, front)),
            paint * rng.uniform(0.4, 0.8),
            BUS,
            out=(side, 0, 0),
            detail=True,
            level=1,
        )
    for z, face, glass in ((front + 0.02, 1, (0.95, 2.55)), (back - 0.02, -1, (1.55, 2.45))):
        mesh.add(rect_z((-half * 0.88, half * 0.88), glass, z), GLASS, BUS, out=(0, 0, face), detail=True, level=1)
        mesh.add(
            rect_z((-0.7, 0.7), (height - 0.42, height - 0.14), z),
            bgr(0xE59A2F),
            BUS,
            out=(0, 0, face),
            detail=True,
            level=1,
            material=GLOW,
        )
        for side in (-1, 1):
            lamp = sorted((side * half * 0.9, side * half * 0.7))
            mesh.add(
                rect_z((lamp[0], lamp[1]), (0.6, 0.95), z),
                HEAD if face > 0 else TAIL,
                BUS,
                out=(0, 0, face),
                detail=True,
                level=1,
            )
        mesh.add(rect_z((-half, half), (0.32, 0.5), z), UNDER, BUS, out=(0, 0, face), detail=True, level=1)
        mesh.add(rect_z((-0.26, 0.26), (0.62, 0.76), z * 1.001), PLATE, BUS, out=(0, 0, face), detail=True, level=1)
    return mesh, length, width, height


@with_variants(30)
def tram(rng: np.random.Generator, cars: int) -> list[tuple[Mesh, float]]:
    """Build a tram in slices of 3 m, short enough to be ordered by depth; return (mesh, z of its middle) of each."""
    paint, upper, roof = pick(rng, TRAM_PAINT), pick(rng, TRAM_PAINT), bgr(0x6E7072)
    half, height, slices = 1.3, 3.5, []
    number = cars * 4
    for i in range(number):
        mesh = Mesh()
        z = (-1.5, 1.5)
        joint = i % 4 == 0
        mesh.box((-half * 0.85, half * 0.85), (0.1, 0.5), z, UNDER * 2, TRAIN)
        mesh.box((-half, half), (0.4, 1.45), z, paint, TRAIN, level=1)
        mesh.box((-half, half), (1.45, height), z, upper, TRAIN, level=2)
        mesh.box((-half * 0.7, half * 0.7), (height, height + 0.35), (-1.2, 1.2), roof, TRAIN, level=3)
        for side in (-1, 1):
            x = side * (half + 0.01)
            mesh.add(rect_x(x, (1.55, 2.85), (-1.2, 1.35)), GLASS * 1.2, TRAIN, out=(side, 0, 0), detail=True, level=4)
            if joint:
                mesh.add(
                    rect_x(x, (0.45, height), (-1.5, -1.25)), UNDER * 1.5, TRAIN, out=(side, 0, 0), detail=True, level=5
                )
            if i % 4 == 2:
                mesh.add(rect_x(x, (0.5, 2.8), (-0.6, 0.7)), GLASS * 0.8, TRAIN, out=(side, 0, 0), detail=True, level=5)
        if i in (0, number - 1):
            _tram_face(mesh, half, height, paint, 1 if i else -1)
        slices.append((mesh, (i - (number - 1) / 2) * 3.0))
    return slices


def _tram_face(mesh: Mesh, half: float, height: float, paint: np.ndarray, face: int) -> None:
    z = face * 1.52
    pane = np.array([(-half * 0.8, 1.5, z), (-half * 0.7, 2.75, z), (half * 0.7, 2.75, z), (half * 0.8, 1.5, z)])
    mesh.add(pane, GLASS, TRAIN, out=(0, 0, face), detail=True, level=4)
    mesh.add(
        rect_z((-0.6, 0.6), (2.9, 3.2), z), bgr(0xE8B23A), TRAIN, out=(0, 0, face), detail=True, level=4, material=GLOW
    )
    mesh.add(rect_z((-half, half), (0.4, 0.62), z), paint * 0.4, TRAIN, out=(0, 0, face), detail=True, level=4)
    for x in (-0.85, 0.85):
        mesh.add(
            disc_z(x, 1.0, (0.14, 0.14), 8, z * 1.002),
            HEAD if face < 0 else TAIL,
            TRAIN,
            out=(0, 0, face),
            detail=True,
            level=4,
            material=GLOW,
        )


@with_variants(240)
def person(rng: np.random.Generator, sideways: bool, child: bool) -> tuple[Mesh, float]:
    """Build a standing or walking person who faces along or across the road; return mesh and height."""
    mesh, h = Mesh(), rng.uniform(0.95, 1.4) if child else rng.uniform(1.55, 1.92)
    top, legs, skin = pick(rng, CLOTHES), pick(rng, TROUSERS), pick(rng, SKIN)
    stride = rng.uniform(0.05, 0.17) * h if sideways else rng.uniform(0.0, 0.04) * h
    shoulder = (0.085 if sideways else 0.125) * h * rng.uniform(0.92, 1.15)
    hips, spread = shoulder * 0.78, shoulder * (0.25 if sideways else 0.5)
    coat = rng.random() < 0.3
    for side in (-1, 1):
        foot = (side * (stride if sideways else spread), 0.03)
        knee = (side * (spread + 0.5 * stride), 0.26 * h)
        mesh.add(limb((side * spread, 0.5 * h), knee, 0.085 * h, end=0.8), legs, PERSON, material=CLOTH)
        mesh.add(limb(knee, foot, 0.068 * h, end=0.7), legs * 0.93, PERSON, material=CLOTH)
        toe = 0.08 * h if sideways else 0.03 * h
        mesh.add(limb((foot[0] - 0.03 * h, 0.02), (foot[0] + toe, 0.02), 0.04 * h), UNDER * 1.5, PERSON)
    low = 0.33 * h if coat else 0.46 * h
    torso = np.array(
        [
            (-hips, low, 0),
            (-shoulder * 0.95, 0.66 * h, 0),
            (-shoulder, 0.79 * h, 0),
            (-shoulder * 0.45, 0.835 * h, 0),
            (shoulder * 0.45, 0.835 * h, 0),
            (shoulder, 0.79 * h, 0),
            (shoulder * 0.95, 0.66 * h, 0),
            (hips, low, 0),
        ]
    )
    mesh.add(torso, top, PERSON, material=CLOTH)
    swing = rng.uniform(-0.12, 0.12) * h if sideways else 0.0
    for side in (-1, 1):
        start = (side * shoulder * (0.2 if sideways else 0.93), 0.78 * h)
        elbow = (start[0] + side * 0.03 * h + swing * side, 0.62 * h)
        hand = (elbow[0] + (0.05 * h if sideways else 0.0), 0.46 * h)
        mesh.add(limb(start, elbow, 0.065 * h), top * 0.82, PERSON, material=CLOTH)
        mesh.add(limb(elbow, hand, 0.055 * h, end=0.7), top * 0.78, PERSON, material=CLOTH)
        mesh.add(disc_z(hand[0], hand[1], (0.02 * h, 0.025 * h), 6), skin, PERSON)
    mesh.add(limb((0, 0.82 * h), (0, 0.87 * h), 0.055 * h), skin * 0.85, PERSON)
    _head(mesh, rng, 0.0, 0.925 * h, h, PERSON, skin, turned_away=rng.random() < 0.5)
    if rng.random() < 0.35:
        bag, x = pick(rng, CLOTHES), shoulder * rng.choice((-1.1, 1.1))
        mesh.add(rect_z((x - 0.07 * h, x + 0.07 * h), (0.42 * h, 0.56 * h), 0.0), bag, PERSON, material=CLOTH)
    return mesh, h


def _head(
    mesh: Mesh, rng: np.random.Generator, x: float, y: float, h: float, label: int, skin: np.ndarray, turned_away: bool
) -> None:
    hair = pick(rng, HAIR)
    mesh.add(disc_z(x, y, (0.046 * h, 0.066 * h), 10), hair if turned_away else skin, label)
    if not turned_away:
        cap = disc_z(x, y + 0.012 * h, (0.05 * h, 0.06 * h), 12)
        mesh.add(cap[cap[:, 1] > y + 0.018 * h], hair, label)


@with_variants(120)
def rider(rng: np.random.Generator, kind: str, sideways: bool) -> Mesh:
    """Build a person who rides a "bicycle" or "motorcycle", seen along it or, `sideways`, facing +x."""
    seat = 0.92 if kind == "bicycle" else 0.8
    mesh, skin = Mesh(), pick(rng, SKIN)
    top, legs, helmet = pick(rng, CLOTHES), pick(rng, TROUSERS), pick(rng, CLOTHES)
    if sideways:
        knee, foot, neck, hand = (0.28, seat - 0.12), (0.12, 0.2), (0.16, seat + 0.58), (0.48, seat + 0.22)
        back = [(-0.17, seat - 0.02), (-0.1, seat + 0.45), (0.1, seat + 0.62), (0.24, seat + 0.5), (0.13, seat - 0.02)]
        head = (0.24, seat + 0.78)
        legs_at = [((-0.02, seat), knee, foot)]
        arms = [((0.16, seat + 0.5), (0.34, seat + 0.3), hand)]
    else:
        back = [
            (-0.17, seat - 0.03),
            (-0.23, seat + 0.5),
            (-0.1, seat + 0.62),
            (0.1, seat + 0.62),
            (0.23, seat + 0.5),
            (0.17, seat - 0.03),
        ]
        neck, head = (0.0, seat + 0.6), (0.0, seat + 0.8)
        legs_at = [((s * 0.1, seat), (s * 0.19, seat - 0.32), (s * 0.13, 0.22 + 0.1 * s)) for s in (-1, 1)]
        arms = [((s * 0.2, seat + 0.5), (s * 0.33, seat + 0.28), (s * 0.28, seat + 0.15)) for s in (-1, 1)]
    for hip, knee, foot in legs_at:
        mesh.add(limb(hip, knee, 0.17, end=0.75), legs, RIDER, material=CLOTH)
        mesh.add(limb(knee, foot, 0.13, end=0.65), legs * 0.9, RIDER, material=CLOTH)
        mesh.add(limb((foot[0] - 0.05, foot[1] - 0.03), (foot[0] + 0.12, foot[1] - 0.03), 0.08), UNDER, RIDER)
    mesh.add(np.array([(x, y, 0) for x, y in back]), top, RIDER, material=CLOTH)
    for shoulder, elbow, hand in arms:
        mesh.add(limb(shoulder, elbow, 0.12, end=0.8), top * 0.8, RIDER, material=CLOTH)
        mesh.add(limb(elbow, hand, 0.09, end=0.8), top * 0.75, RIDER, material=CLOTH)
    mesh.add(limb(neck, head, 0.1), skin, RIDER)
    _head(mesh, rng, head[0], head[1], 1.75, RIDER, skin, turned_away=not sideways)
    if rng.random() < 0.6:
        shell = disc_z(head[0], head[1] + 0.04, (0.11, 0.12), 12)
        mesh.add(shell[shell[:, 1] > head[1] + 0.01], helmet, RIDER)
    return mesh


@with_variants(60)
def bicycle(rng: np.random.Generator) -> Mesh:
    """Build a bicycle that faces +z."""
    mesh, paint = Mesh(), pick(rng, PAINT)
    rear, front, r = -0.52, 0.52, 0.34
    for z in (rear, front):
        mesh.add(disc_x(0.0, r, z, r, 14), TYRE, BICYCLE)
        mesh.add(disc_x(0.0, r, z, r * 0.84, 12), bgr(0x77797A) * rng.uniform(0.7, 1.4), BICYCLE, detail=True)
        mesh.add(disc_x(0.0, r, z, 0.05, 6), UNDER, BICYCLE, detail=True)
        mesh.add(rect_z((-0.04, 0.04), (0.0, 2 * r), z), TYRE, BICYCLE)
    bars = [
        ((rear, r), (-0.02, 0.28)),
        ((-0.02, 0.28), (-0.2, 0.88)),
        ((-0.02, 0.28), (0.38, 0.75)),
        ((-0.16, 0.78), (0.37, 0.78)),
        ((0.36, 0.95), (front, r)),
        ((rear, r), (-0.17, 0.78)),
    ]
    for a, b in bars:
        mesh.add(limb(a, b, 0.055)[:, [2, 1, 0]], paint, BICYCLE, level=1)
    mesh.box((-0.06, 0.06), (0.88, 0.95), (-0.34, -0.1), UNDER * 1.5, BICYCLE, level=1)
    mesh.add(limb((-0.3, 1.03), (0.3, 1.03), 0.06, z=0.34), UNDER * 1.5, BICYCLE, level=1)
    mesh.box((-0.05, 0.05), (0.3, 0.9), (-0.12, -0.06), paint, BICYCLE, level=1)
    mesh.add(rect_x(0.0, (0.98, 1.05), (0.2, 0.42)), UNDER * 1.5, BICYCLE, level=1)
    return mesh


@with_variants(60)
def motorcycle(rng: np.random.Generator) -> Mesh:
    """Build a motorcycle that faces +z."""
    mesh, paint, engine = Mesh(), pick(rng, PAINT), bgr(0x34373A)
    for z in (-0.68, 0.7):
        for x in (-0.07, 0.07):
            mesh.add(disc_x(x, 0.32, z, 0.32, 14), TYRE, MOTORCYCLE)
            mesh.add(disc_x(x * 1.01, 0.32, z, 0.21, 10), RIM * 0.7, MOTORCYCLE, detail=True)
            mesh.add(disc_x(x * 1.02, 0.32, z, 0.09, 8), UNDER, MOTORCYCLE, detail=True)
        mesh.add(rect_z((-0.08, 0.08), (0.0, 0.62), z - 0.25), TYRE, MOTORCYCLE)
    bars = [
        ((-0.68, 0.32), (-0.1, 0.42), 0.1, engine),
        ((0.7, 0.32), (0.4, 1.02), 0.09, RIM),
        ((-0.9, 0.4), (0.1, 0.28), 0.11, RIM),
        ((-0.25, 0.8), (-0.6, 0.4), 0.07, engine),
    ]
    for a, b, width, colour in bars:
        for x in (-0.1, 0.1):
            mesh.add(
                limb(a, b, width)[:, [2, 1, 0]] + np.array((x, 0, 0), dtype=np.float32), colour, MOTORCYCLE, level=1
            )
    parts = [
        ([(-0.34, 0.24), (-0.4, 0.66), (0.42, 0.7), (0.36, 0.24)], 0.16, engine),
        ([(-0.95, 0.8), (-0.98, 0.9), (-0.35, 0.84), (0.06, 0.86), (0.06, 0.66), (-0.4, 0.66)], 0.13, UNDER * 1.5),
        ([(-1.0, 0.66), (-0.98, 0.82), (-0.45, 0.76), (-0.4, 0.6)], 0.11, paint * 0.9),
        ([(-0.05, 0.66), (0.0, 0.88), (0.2, 1.0), (0.42, 0.98), (0.5, 0.78), (0.44, 0.6)], 0.18, paint),
        ([(0.4, 0.76), (0.42, 1.05), (0.55, 1.1), (0.66, 0.84), (0.62, 0.72)], 0.15, paint * 0.95),
    ]
    for level, (side, half, colour) in enumerate(parts, start=2):
        _skin(mesh, MOTORCYCLE, side, half, half * 0.9, colour, level=level)
    mesh.add(rect_z((-0.1, 0.1), (0.68, 0.79), -1.01), TAIL, MOTORCYCLE, out=(0, 0, -1), detail=True, level=8)
    mesh.add(rect_z((-0.1, 0.1), (0.5, 0.64), -0.99), PLATE, MOTORCYCLE, out=(0, 0, -1), level=8)
    mesh.add(disc_z(0.0, 0.93, (0.11, 0.11), 9, 0.68), HEAD, MOTORCYCLE, out=(0, 0, 1), detail=True, level=8)
    mesh.add(limb((-0.4, 1.08), (0.4, 1.08), 0.07, z=0.4), UNDER * 1.3, MOTORCYCLE, level=8)
    for x in (-0.42, 0.42):
        mesh.add(disc_z(x, 1.2, (0.08, 0.06), 6, 0.4), UNDER * 1.2, MOTORCYCLE, level=8)
    return mesh
