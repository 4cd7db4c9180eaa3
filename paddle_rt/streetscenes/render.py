"""The renderer: a street scene through a pinhole camera as an image and its exact label, at any size and time.

Polygons are painted far to near into one canvas that holds colour and polygon number together, so image and label
cannot disagree. Shading then goes by polygon number: each polygon's plane gives every pixel its depth (for haze) and
its place on the surface (for a texture that sticks to it when the camera or the object moves).
"""

from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import cv2
import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.streetscenes.mesh import BACKDROP, GROUND, MATERIALS, SKY, Packed, Thing, pack

NEAR = 0.35  # metres: polygons are cut there
CLEARANCE = 1.0  # metres: things that the camera would pass through are left out
TILE = 512  # texels a side of the texture
BAND = 16384  # pixels shaded at once, so that the intermediate arrays stay in cache
SUBPIXEL = 4  # fractional bits of the polygons' corners


@dataclass(frozen=True)
class Camera:
    """Pinhole camera at t = 0, in metres, radians and metres per second; `focal` in image heights."""

    x: float
    y: float
    z: float
    yaw: float
    pitch: float
    roll: float
    focal: float
    speed: float


@dataclass(frozen=True)
class Weather:
    """The light, and how the sensor records it. Colours are BGR."""

    sun: np.ndarray  # unit vector towards the sun
    sun_strength: float
    ambient: float
    shadow: float
    sky_top: np.ndarray
    sky_low: np.ndarray
    clouds: float
    haze: np.ndarray
    haze_distance: float
    gains: np.ndarray
    contrast: float
    blur: float
    noise: float


@dataclass
class Scene:
    """A street at t = 0 in world coordinates; nothing in it depends on an image size."""

    index: int
    seed: int
    curve: float  # 1 / radius of the road, metres
    camera: Camera
    weather: Weather
    things: list[Thing] = field(repr=False)

    @cached_property
    def packed(self) -> Packed:
        """Return the polygons of all things with their light."""
        w = self.weather
        return pack(self.things, w.sun, w.sun_strength, w.ambient)

    def bend(self, z: np.ndarray | float) -> np.ndarray | float:
        """Return the sideways shift of the road at z."""
        return 0.5 * self.curve * z * np.abs(z)


@dataclass
class _View:
    """Camera pose at one time and one image size."""

    position: np.ndarray
    turn: np.ndarray
    focal: float
    height: int
    width: int

    def project(self, points: np.ndarray) -> np.ndarray:
        """Camera coordinates [n, 3] to pixel coordinates [n, 2]; a pixel's centre is at whole numbers."""
        scale = self.focal / points[:, 2]
        return np.stack([self.width / 2 - 0.5 + points[:, 0] * scale, self.height / 2 - 0.5 - points[:, 1] * scale], 1)


def _view(scene: Scene, height: int, width: int, time: float) -> _View:
    c = scene.camera
    z = c.z + c.speed * time
    yaw = c.yaw + np.arctan(scene.curve * abs(z))
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(c.pitch), np.sin(c.pitch), np.cos(c.roll), np.sin(c.roll)
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    position = np.array([c.x + scene.bend(z), c.y, z])
    return _View(position, about_z @ about_x @ about_y, c.focal * height, height, width)


def render(scene: Scene, height: int, width: int, time: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene.

    Args:
        scene: What `make_scene` returned.
        height: Rows of the image.
        width: Columns of the image.
        time: Seconds since the scene's beginning; the camera and the traffic move, 0 to about 10.

    Returns:
        Image, uint8 BGR [height, width, 3], and label, uint8 [height, width] with Cityscapes' train ids 0 to 18.

    Raises:
        UserError: A size below 1 or a time below 0.
    """
    if height < 1 or width < 1 or time < 0:
        raise UserError(f"cannot render {height}x{width} at {time} s: sizes must be 1 or more, the time 0 or more")
    drawing = draw(scene, height, width, time)
    return drawing.image, drawing.label


@dataclass(frozen=True)
class Drawing:
    """An image of a scene, and what is known of its pixels.

    Attributes:
        image: uint8 BGR [H, W, 3].
        label: uint8 [H, W], Cityscapes' train ids.
        thing: int64 [H, W], the place in `Scene.things` of what a pixel shows; -1 for the sky.
        depth: float32 [H, W], metres between the camera's plane and what a pixel shows; 10,000 for the sky.
    """

    image: np.ndarray
    label: np.ndarray
    _view: _View = field(repr=False)
    _numbers: np.ndarray = field(repr=False)
    _owners: np.ndarray = field(repr=False)
    _planes: np.ndarray = field(repr=False)

    @cached_property
    def thing(self) -> np.ndarray:
        return self._owners[self._numbers]

    @cached_property
    def depth(self) -> np.ndarray:
        x, y = _rays(self._view)
        a, b, c = (row[self._numbers] for row in self._planes)
        return 1.0 / np.maximum(a * x + b * y[:, None] + c, 1e-4)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels [n, 2] and the depths [n] of points [n, 3] of a straight street."""
        seen = (points - self._view.position) @ self._view.turn.T
        return self._view.project(seen), seen[:, 2]


def draw(scene: Scene, height: int, width: int, time: float = 0.0) -> Drawing:
    """Draw a scene, as `render` does, and keep what is known of its pixels."""
    view = _view(scene, height, width, time)
    offsets = _offsets(scene, view, time)
    points = _to_camera(scene, view, offsets)
    order = _visible(scene, view, points, offsets)
    canvas, maps = _paint(scene.packed, view, points, order)
    shadow = _shadows(scene, view, offsets)
    numbers = canvas[..., 3]
    labels = np.concatenate([[SKY], scene.packed.labels[order]]).astype(np.uint8)
    image = _shade(scene, view, canvas, maps, order, shadow)
    owners = np.concatenate([[-1], scene.packed.things[order]])
    return Drawing(_expose(scene, image, time), labels[numbers], view, numbers, owners, maps[:, 6:9].T)


def _offsets(scene: Scene, view: _View, time: float) -> np.ndarray:
    """Return the position of each thing at a time, in road coordinates, [T, 3]."""
    rows = [
        (t.x + t.vx * time, t.y, t.z + t.vz * time) if t.layer != BACKDROP else tuple(view.position * (1, 0, 1))
        for t in scene.things
    ]
    return np.array(rows, dtype=np.float64)


def _to_camera(scene: Scene, view: _View, offsets: np.ndarray) -> np.ndarray:
    """Return all vertices in camera coordinates, [V, 3]."""
    packed = scene.packed
    world = packed.vertices + offsets[packed.vertex_thing]
    bends = np.array([t.layer != BACKDROP for t in scene.things])[packed.vertex_thing]
    world[:, 0] += np.where(bends, scene.bend(world[:, 2]), 0.0)
    return (world - view.position) @ view.turn.T


def _visible(scene: Scene, view: _View, points: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the polygons that reach the image, in painting order."""
    packed = scene.packed
    layer = np.array([t.layer for t in scene.things])
    depth = offsets[:, 2] + np.array([t.bias for t in scene.things])
    apart = offsets - (view.position - (scene.bend(view.position[2]), 0, 0))
    crossed = (layer > GROUND) & (np.hypot(apart[:, 0], apart[:, 2]) < CLEARANCE)
    far = np.maximum.reduceat(points[:, 2], packed.start)
    near = np.minimum.reduceat(points[:, 2], packed.start)
    keep = (far > NEAR) & ~crossed[packed.things]
    corners = points[packed.corners]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    keep &= (normal * corners[:, 0]).sum(1) * packed.facing <= 0
    pixels = view.project(np.where(points[:, 2:] > NEAR, points, (0, 0, NEAR)))
    low, high = np.minimum.reduceat(pixels, packed.start), np.maximum.reduceat(pixels, packed.start)
    size = high - low
    outside = (high < -1).any(1) | (low[:, 0] > view.width) | (low[:, 1] > view.height)
    tiny = np.where(packed.detail, size.min(1) < 0.4, size.max(1) < 0.4)
    keep &= (near < NEAR) | ~(outside | tiny)
    order = np.flatnonzero(keep)
    thing = packed.things[order]
    # Things on the ground plane keep the order in which they were laid; upright ones go far to near.
    key = np.where(layer[thing] == len((BACKDROP, GROUND)), -depth[thing], -np.inf)
    return order[np.lexsort((order, key, layer[thing]))]


def _clip(points: np.ndarray) -> np.ndarray:
    """Return the part of a polygon beyond the near plane."""
    kept = []
    for a, b in zip(points, np.roll(points, -1, axis=0), strict=True):
        if a[2] >= NEAR:
            kept.append(a)
        if (a[2] >= NEAR) != (b[2] >= NEAR):
            kept.append(a + (b - a) * ((NEAR - a[2]) / (b[2] - a[2])))
    return np.array(kept)


def _paint(packed: Packed, view: _View, points: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Canvas [H, W, 4]: blue, green, red, 1 + place in `order` (0: sky); and `order`'s surface maps, [n + 1, 9]."""
    canvas = np.zeros((view.height, view.width, 4), dtype=np.uint16)
    pixels = view.project(np.where(points[:, 2:] >= NEAR, points, (0, 0, NEAR)))
    fixed = np.rint(pixels * (1 << SUBPIXEL)).astype(np.int32)
    cut = (np.minimum.reduceat(points[:, 2], packed.start) < NEAR)[order].tolist()
    colours = np.rint(packed.colours[order] * COLOUR_SCALE).clip(0, 65535)
    numbers = np.arange(1, len(order) + 1)[:, None]
    fills = np.concatenate([colours, numbers], axis=1).tolist()
    starts = packed.start[order].tolist()
    ends = (packed.start + packed.count)[order].tolist()
    for start, end, fill, straddles in zip(starts, ends, fills, cut, strict=True):
        if straddles:
            corners = np.rint(view.project(_clip(points[start:end])) * (1 << SUBPIXEL)).astype(np.int32)
        else:
            corners = fixed[start:end]
        cv2.fillConvexPoly(canvas, corners, fill, cv2.LINE_8, SUBPIXEL)
    return canvas, _surface_maps(packed, points, order)


COLOUR_SCALE = 64.0  # canvas units a grey level


def _surface_maps(packed: Packed, points: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Per polygon the matrix that takes a viewing ray to (u, v, 1) / depth, u and v in metres on the surface."""
    corners = points[packed.corners[order]]
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    inverse = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)], axis=1)
    volume = (a * inverse[:, 0]).sum(1)
    volume = np.where(np.abs(volume) < 1e-9, 1e-9, volume)
    texture = np.concatenate([packed.texture[order], np.ones((len(order), 3, 1), dtype=np.float32)], axis=2)
    maps = np.einsum("pka,pkr->par", texture, inverse) / volume[:, None, None]
    return np.concatenate([np.zeros((1, 9)), maps.reshape(-1, 9)]).astype(np.float32)


def _shadows(scene: Scene, view: _View, offsets: np.ndarray) -> np.ndarray:
    """How much of the light is kept from the ground, float32 [H, W]: the sun's shadows and the dark below bodies."""
    mask = np.zeros((view.height, view.width), dtype=np.uint8)
    casters = [i for i, t in enumerate(scene.things) if t.shadow and -60 < offsets[i, 2] - view.position[2] < 110]
    if casters:
        boxes = np.array([scene.things[i].shadow for i in casters])
        feet, level = offsets[casters][:, [0, 2]], offsets[casters][:, 1]
        sun = scene.weather.sun
        slope = -sun[[0, 2]] / max(sun[1], 0.2)
        if scene.weather.shadow > 0.05:
            _fill_ground(mask, scene, view, _cast(boxes, slope) + feet[:, None], level, int(255 * scene.weather.shadow))
        near = boxes[:, 5] < 5.0
        below = _cast(boxes, 0 * slope) + feet[:, None]
        _fill_ground(mask, scene, view, below[near], level[near], 150)
    return cv2.blur(mask, (3, 3)).astype(np.float32) * np.float32(1 / 255)


def _cast(boxes: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Outlines on the ground of boxes' shadows, [n, 6, 2], where the sun shifts each metre of height by `slope`."""
    sign = np.where(slope < 0, -1.0, 1.0)
    shift = np.abs(slope)
    middle = np.stack([boxes[:, 0] + boxes[:, 1], boxes[:, 2] + boxes[:, 3]], axis=1) / 2
    half = np.stack([boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]], axis=1) / 2
    low, high = boxes[:, 4:5] * shift, boxes[:, 5:6] * shift
    (xa, za), (xb, zb), (w, d) = low.T, high.T, half.T
    x = np.stack([xa - w, xa + w, xb + w, xb + w, xb - w, xa - w], axis=1)
    z = np.stack([za - d, za - d, zb - d, zb + d, zb + d, za + d], axis=1)
    return np.stack([x, z], axis=-1) * sign + middle[:, None]


def _fill_ground(mask: np.ndarray, scene: Scene, view: _View, plans: np.ndarray, level: np.ndarray, value: int) -> None:
    """Fill polygons [n, k, 2] of (x, z) that lie `level` [n] metres above the ground."""
    x, z = plans[..., 0], plans[..., 1]
    world = np.stack([x + scene.bend(z), np.broadcast_to(level[:, None], x.shape), z], axis=-1)
    points = (world - view.position) @ view.turn.T
    for corners in points[points[..., 2].max(1) > NEAR]:
        pixels = view.project(_clip(corners) if corners[:, 2].min() < NEAR else corners)
        cv2.fillConvexPoly(mask, np.rint(pixels * (1 << SUBPIXEL)).astype(np.int32), value, cv2.LINE_8, SUBPIXEL)


@lru_cache(maxsize=1)
def _texture() -> np.ndarray:
    """A tile of fine grain, bricks and slow stains, uint8 [TILE, TILE, 3], that joins at its edges."""
    rng = np.random.default_rng(7)
    layers = []
    for cells in ((128, 256, 512), (8, 16, 32, 64)):
        total = np.zeros((TILE, TILE), dtype=np.float32)
        for n in cells:
            small = np.pad(rng.standard_normal((n, n)).astype(np.float32), 4, mode="wrap")
            step = TILE // n
            big = cv2.resize(small, None, fx=step, fy=step, interpolation=cv2.INTER_LINEAR)
            total += big[4 * step : -4 * step, 4 * step : -4 * step]
        layers.append(np.clip(128 + total / total.std() * 45, 0, 255))
    rows, columns = np.mgrid[:TILE, :TILE]
    course = rows // 4
    brick = (columns + 8 * (course % 2)) // 16 % (TILE // 16)
    tone = rng.integers(120, 190, (TILE // 4, TILE // 16))[course, brick]
    joint = (rows % 4 == 0) | ((columns + 8 * (course % 2)) % 16 == 0)
    layers.insert(1, np.where(joint, 60, tone))
    return np.stack(layers, axis=-1).astype(np.uint8)


def _rays(view: _View) -> tuple[np.ndarray, np.ndarray]:
    x = (np.arange(view.width, dtype=np.float32) + 0.5 - view.width / 2) / view.focal
    y = (view.height / 2 - 0.5 - np.arange(view.height, dtype=np.float32)) / view.focal
    return x, y


def _shade(
    scene: Scene, view: _View, canvas: np.ndarray, maps: np.ndarray, order: np.ndarray, shadow: np.ndarray
) -> np.ndarray:
    """Return the colours with texture, shadows, haze and sky, float32 [H, W, 3]."""
    table, weather = _table(scene, maps, order), scene.weather
    x, y = _rays(view)
    sky = _sky(scene, view)
    image = np.empty((view.height, view.width, 3), dtype=np.float32)
    haze = weather.haze.astype(np.float32)
    step = max(1, BAND // view.width)
    for top in range(0, view.height, step):
        rows = slice(top, min(top + step, view.height))
        number = canvas[rows, :, 3].astype(np.intp)
        ux, uy, u1, vx, vy, v1, wx, wy, w1, fine, brick, slow, scale, shaded = (row.take(number) for row in table)
        ray_y = y[rows, None]
        depth = 1.0 / np.maximum(wx * x + wy * ray_y + w1, 1e-4)
        scale *= depth
        u, v = (ux * x + uy * ray_y + u1) * scale, (vx * x + vy * ray_y + v1) * scale
        grain = cv2.remap(_texture(), u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP).astype(np.float32) - 128.0
        # Grain finer than a pixel would only flicker, so it fades with distance; stains stay.
        light = (grain[..., 0] * fine + grain[..., 1] * brick) / (1.0 + np.square(depth * (1 / 14.0)))
        light += 1.0 + grain[..., 2] * slow / (1.0 + depth * (1 / 60.0))
        light *= 1.0 - shadow[rows] * shaded
        veil = np.exp(depth * np.float32(-1 / weather.haze_distance))
        colour = canvas[rows, :, :3] * (light * veil * np.float32(1 / COLOUR_SCALE))[..., None]
        colour += (1.0 - veil)[..., None] * haze
        image[rows] = np.where(number[..., None] == 0, sky[rows], colour)
    return image


def _table(scene: Scene, maps: np.ndarray, order: np.ndarray) -> np.ndarray:
    """What shading needs to know of each polygon, [14, n + 1]: surface map, grain, brick, stains, scale, is ground."""
    packed = scene.packed
    material = MATERIALS[packed.materials[order]]
    table = np.zeros((14, len(order) + 1), dtype=np.float32)
    table[:9] = maps.T
    table[9:12, 1:] = material[:, :3].T / 64.0
    table[12, 1:] = TILE / material[:, 3]
    ground = np.array([t.layer == GROUND for t in scene.things])
    table[13, 1:] = ground[packed.things[order]]
    return table


def _sky(scene: Scene, view: _View) -> np.ndarray:
    """Return gradient and clouds, float32 [H, W, 3], computed at a quarter of the size."""
    weather = scene.weather
    rows, columns = -(-view.height // 4) + 1, -(-view.width // 4) + 1
    x = ((np.arange(columns) * 4 + 2 - view.width / 2) / view.focal)[None, :]
    y = ((view.height / 2 - np.arange(rows) * 4 - 2) / view.focal)[:, None]
    world = np.stack([x + 0 * y, y + 0 * x, np.ones((rows, columns))], axis=-1) @ view.turn
    world /= np.linalg.norm(world, axis=-1, keepdims=True)
    up = np.maximum(world[..., 1], 0.012)
    u, v = ((world[..., i] / (up + 0.08) * 90 + 37 * scene.index).astype(np.float32) for i in (0, 2))
    slow = cv2.remap(_texture()[..., 2], u % TILE, v % TILE, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    cover = np.clip((slow.astype(np.float32) - 128) / 70 + 2.2 * weather.clouds - 1.1, 0, 1) * np.clip(up * 8, 0, 1)
    height = np.sqrt(up)[..., None]
    clear = weather.sky_low + (weather.sky_top - weather.sky_low) * np.clip(height * 1.3, 0, 1)
    cloud = weather.sky_low * (0.80 + 0.25 * slow[..., None] / 255.0)
    small = (clear + (cloud - clear) * (0.85 * cover[..., None])).astype(np.float32)
    big = cv2.resize(small, (columns * 4, rows * 4), interpolation=cv2.INTER_LINEAR)
    return big[: view.height, : view.width]


@lru_cache(maxsize=1)
def _noise_pool() -> np.ndarray:
    return np.random.default_rng(11).standard_normal(1 << 20).astype(np.float32)


def _expose(scene: Scene, image: np.ndarray, time: float) -> np.ndarray:
    """Apply the sensor's blur, white balance, contrast and noise; uint8."""
    weather = scene.weather
    height, width = image.shape[:2]
    # Polygons have hard edges; a lens has not. Beyond that a share that grows with the image.
    sigma = 0.45 + weather.blur * height / 256
    image = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    image *= (weather.gains * weather.contrast).astype(np.float32)
    image += np.float32(118 * (1 - weather.contrast))
    rng, pool = np.random.default_rng([scene.seed, scene.index, int(round(time * 1000))]), _noise_pool()
    values, half = image.reshape(-1), len(pool) // 2
    for first in range(0, len(values), half):
        part = values[first : first + half]
        start = int(rng.integers(half))
        part += np.float32(weather.noise) * pool[start : start + len(part)]
    return np.clip(np.rint(image, out=image), 0, 255, out=image).astype(np.uint8)
