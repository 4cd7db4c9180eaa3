"""Placement of street furniture and traffic: lamps, signs, parked and moving vehicles, people."""

import numpy as np

from paddle_rt.streetscenes import objects, scenery
from paddle_rt.streetscenes.layout import END, START, Plan, Side, put_tree, ribbon
from paddle_rt.streetscenes.mesh import GROUND, ROAD, SMOOTH, Mesh, around, bgr
from paddle_rt.streetscenes.render import Camera

ANGLE = np.pi / 32  # vehicles turn in steps, so that few turned meshes have to be kept


def _free(plan: Plan, z: float, margin: float = 1.5) -> bool:
    """Return whether z lies outside the side streets."""
    return all(not a - margin < z < b + margin for a, b in plan.crossings)


def put_furniture(plan: Plan, side: Side) -> None:
    """Place lamps, signs, bollards, lights and street trees along the kerb."""
    rng, s = plan.rng, side.sign
    x, top = s * (side.road + 0.45), 0.12
    lamp, lamps = scenery.lamp_post(rng, s, plan.lit > 0.3), rng.random() < 0.7
    for z in np.arange(rng.uniform(4, 16), END - 30, rng.uniform(18, 34)):
        if lamps and _free(plan, z):
            plan.put("lamp", lamp, x, z, y=top, shadow=around(0.08, 0.08, 0.0, 7.0))
    for z in np.arange(rng.uniform(5, 18), 150, rng.uniform(12, 32)):
        if _free(plan, z) and rng.random() < 0.8:
            plan.put("sign", scenery.traffic_sign(rng), x, z + 0.7, y=top, shadow=around(0.06, 0.06, 0.0, 2.6))
    if rng.random() < 0.25:
        post = scenery.bollard(rng)
        for z in np.arange(rng.uniform(3, 6), rng.uniform(20, 60), 2.2):
            if _free(plan, z):
                plan.put("bollard", post, x, z, y=top)
    if plan.style in ("city", "mixed", "suburb") and rng.random() < 0.4:
        for z in np.arange(rng.uniform(6, 14), 150, rng.uniform(8, 16)):
            if _free(plan, z):
                put_tree(plan, s * (side.road + max(0.8, side.verge * 0.6)), z)
    lights = rng.random() < 0.65
    for z0, z1 in plan.crossings:
        if lights:
            z = z0 - 1.0 if s == plan.drive or rng.random() < 0.5 else z1 + 1.0
            mesh = scenery.traffic_light(rng, s, bool(rng.random() < 0.45))
            plan.put("light", mesh, x, z, y=top, shadow=around(0.1, 0.1, 0.0, 3.4))


def _vehicle(
    plan: Plan, kind: str, x: float, z: float, angle: float, vz: float = 0.0, vx: float = 0.0, y: float = 0.0
) -> float:
    """Place a vehicle on the road, with a rider if it is a two-wheeler that moves, and return its length."""
    rng, angle = plan.rng, round(angle / ANGLE) * ANGLE
    across = abs(np.sin(angle)) > 0.7
    if kind in ("bicycle", "motorcycle"):
        mesh, length, width, height = getattr(objects, kind)(rng).turned(angle), 1.8, 0.5, 1.6
        if vx or vz:
            rider = objects.rider(rng, kind, bool(across)).turned(0.0 if np.sin(angle) > -0.7 else np.pi)
            plan.put("rider", rider, x, z, vx=vx, vz=vz, bias=-1.0)
    else:
        mesh, length, width, height = getattr(objects, kind)(rng)
        mesh = mesh.turned(angle)
    half = (length / 2, width / 2) if across else (width / 2, length / 2)
    # Its near end decides when a vehicle is painted: whatever stands beside it is farther from the road's middle.
    plan.put(kind, mesh, x, z, y=y, vx=vx, vz=vz, bias=-half[1], shadow=around(*half, 0.0, height))
    return length


def put_parked(plan: Plan, side: Side) -> None:
    """Place cars along the kerb and two-wheelers on the pavement."""
    rng, s = plan.rng, side.sign
    along = 0.0 if s == plan.drive else np.pi
    if side.parking:
        z, share = rng.uniform(3, 12), rng.uniform(0.2, 0.85)
        while z < 170:
            if rng.random() < share and _free(plan, z, 6):
                kind = str(rng.choice(("car", "truck", "motorcycle"), p=(0.93, 0.03, 0.04)))
                z += _vehicle(plan, kind, s * (side.road - 1.05), z, along) / 2
            z += rng.uniform(3.2, 4.2)
    if rng.random() < 0.45 and side.pavement > 1.6:
        z, kind = rng.uniform(6, 30), str(rng.choice(("bicycle", "motorcycle"), p=(0.66, 0.34)))
        angle = rng.uniform(0.9, 2.2)
        for i in range(rng.integers(1, 7)):
            if _free(plan, z + i * 0.8):
                turn = angle + rng.normal(0, 0.08)
                _vehicle(plan, kind, s * (side.road + side.verge + 0.7), z + i * 0.8, turn, y=0.12)


def put_pedestrians(plan: Plan, side: Side) -> None:
    """Place people on the pavement, alone or in groups."""
    rng = plan.rng
    mean = {"city": 7.0, "mixed": 4.5, "suburb": 2.5, "park": 3.0, "open": 1.0}[plan.style]
    for _ in range(rng.poisson(mean)):
        z, sideways = 4 + 60 * rng.random() ** 1.6, rng.random() < 0.3
        x = side.road + side.verge + rng.uniform(0.2, max(0.3, side.pavement - 0.3))
        speed = 0.0 if rng.random() < 0.25 else rng.choice((-1, 1)) * rng.uniform(0.8, 1.7)
        for i in range(rng.integers(1, 4) if rng.random() < 0.3 else 1):
            mesh, height = objects.person(rng, bool(sideways), bool(rng.random() < 0.12))
            plan.put(
                "person",
                mesh,
                side.sign * x + 0.6 * i,
                z + rng.uniform(-0.4, 0.4),
                y=0.12,
                vz=0.0 if sideways else float(speed),
                shadow=around(0.22, 0.18, 0.0, height),
            )


def put_crossing_people(plan: Plan) -> None:
    """Place people and cyclists who cross the road at side streets."""
    rng = plan.rng
    for z0, _ in plan.crossings[:2]:
        for _ in range(rng.poisson(1.2)):
            way, (mesh, height) = rng.choice((-1, 1)), objects.person(rng, True, False)
            x = rng.uniform(-plan.sides[0].road, plan.sides[1].road)
            plan.put(
                "person",
                mesh,
                x,
                z0 - rng.uniform(1.8, 4.2),
                vx=float(way * rng.uniform(0.9, 1.6)),
                shadow=around(0.22, 0.18, 0.0, height),
            )
        if rng.random() < 0.3:
            way = int(rng.choice((-1, 1)))
            kind = str(rng.choice(("car", "bicycle", "motorcycle", "bus", "truck"), p=(0.35, 0.35, 0.1, 0.1, 0.1)))
            _vehicle(plan, kind, -way * rng.uniform(2, 14), z0 + 2.5, way * np.pi / 2, vx=float(way * 3.5))


def put_traffic(plan: Plan, camera: Camera) -> None:
    """Place vehicles in their lanes and, one time in four, a tram."""
    rng, half = plan.rng, plan.lanes * plan.lane / 2
    busy = rng.uniform(0.2, 1.0)
    for i in range(plan.lanes):
        x = -half + (i + 0.5) * plan.lane
        ahead = (x * plan.drive > 0) if plan.lanes % 2 == 0 else (i * plan.drive >= plan.drive * (plan.lanes // 2))
        z = rng.uniform(7, 30) if abs(x - camera.x) < plan.lane else rng.uniform(3, 30)
        speed = camera.speed * rng.uniform(0.9, 1.2) if ahead else -rng.uniform(5, 12)
        while z < 180:
            if rng.random() < busy:
                kind = str(
                    rng.choice(("car", "truck", "bus", "motorcycle", "bicycle"), p=(0.58, 0.12, 0.07, 0.1, 0.13))
                )
                kerb = plan.drive * plan.lane * (0.3 if ahead else -0.3)
                shift = kerb if kind == "bicycle" else rng.normal(0, 0.15)
                z += _vehicle(plan, kind, x + shift, z, 0.0 if ahead else np.pi, vz=float(speed))
            z += rng.uniform(6, 30)
    if rng.random() < 0.25:
        _tram(plan)


def _tram(plan: Plan) -> None:
    """Place a tram with its rails beside or on the oncoming lane."""
    rng, rails = plan.rng, Mesh()
    x = -plan.drive * (plan.sides[0 if plan.drive > 0 else 1].road - 1.7)
    vehicles = ("car", "truck", "bus", "motorcycle", "bicycle", "rider")
    plan.things[:] = [t for t in plan.things if t.name not in vehicles or abs(t.x - x) > 2.6]
    for rail in (-0.72, 0.72):
        ribbon(rails, (x + rail - 0.06, x + rail + 0.06), (START, END), bgr(0x6F7072), ROAD, SMOOTH, detail=True)
    plan.put("rails", rails, 0, 0, layer=GROUND)
    middle, speed = rng.uniform(14, 50), float(-rng.uniform(3, 9))
    for mesh, z in objects.tram(rng, int(rng.integers(2, 4))):
        plan.put("tram", mesh, x, middle + z, vz=speed, bias=-1.5, shadow=around(1.3, 1.5, 0.0, 3.5))
