"""Paints the place that a camera watches: wall, ground, and the things that stand in front of people."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from tracklearn.types import Array
from tracklearn.world.camera import Camera
from tracklearn.world.figure import Canvas, Point, Sprite
from tracklearn.world.look import PALETTE, Colour


@dataclass(frozen=True)
class Occluder:
    """A static thing that hides whoever walks behind it; `base` is its foot line, pixels."""

    sprite: Sprite
    base: float


@dataclass(frozen=True)
class _Theme:
    wall: Colour
    trim: Colour
    ground: Colour
    joint: Colour
    tile: tuple[float, float]  # metres across and in depth
    grain: float
    wall_kind: str
    things: tuple[str, ...]


_THEMES = {
    "plaza": _Theme(
        (176, 150, 128), (120, 98, 84), (168, 164, 156), (140, 136, 130), (1.0, 1.0), 5, "brick",
        ("pillar", "bench", "planter"),
    ),
    "lobby": _Theme(
        (206, 204, 196), (96, 104, 116), (150, 142, 134), (128, 120, 114), (1.4, 1.4), 2, "glass",
        ("plant", "pillar", "stand"),
    ),
    "street": _Theme(
        (124, 132, 142), (78, 84, 94), (112, 112, 116), (98, 98, 103), (2.4, 1.2), 6, "shops",
        ("post", "bench", "sign"),
    ),
    "garden": _Theme(
        (84, 116, 74), (62, 92, 58), (182, 168, 140), (168, 154, 126), (0.0, 0.0), 8, "hedge",
        ("planter", "lamp", "bench"),
    ),
    "platform": _Theme(
        (196, 190, 170), (150, 60, 58), (138, 140, 146), (116, 118, 124), (0.8, 0.8), 3, "tiles",
        ("pillar", "sign", "bench"),
    ),
}  # fmt: skip


def paint(camera: Camera, *, seed: int, index: int) -> tuple[Array, tuple[Occluder, ...]]:
    """The empty place.

    Args:
        camera: geometry and theme.
        seed: of the place, ≥ 0.
        index: camera, from 0.

    Returns:
        The background as uint8 RGB (height, width, 3), occluders not drawn, and the occluders.
    """
    rng = np.random.default_rng([seed, index, 31])
    theme = _THEMES[camera.theme]
    picture = np.empty((camera.height, camera.width, 3), np.uint8)
    edge = round(camera.foot(0.0, camera.z_far + 0.7)[1])  # where wall and ground meet
    picture[:] = theme.ground
    _ground(picture, camera, theme)
    _wall(picture, camera, theme, edge, rng)
    picture = _grain(picture, theme.grain, edge, rng)
    return picture, tuple(_occluders(camera, theme, rng))


def _toned(colour: Colour, factor: float) -> Colour:
    r, g, b = (min(round(c * factor), 255) for c in colour)
    return r, g, b


def _line(picture: Array, a: Point, b: Point, colour: Colour, thickness: int = 1) -> None:
    p, q = ((round(x * 16), round(y * 16)) for x, y in (a, b))
    cv2.line(picture, p, q, colour, thickness, cv2.LINE_AA, 4)


def _ground(picture: Array, camera: Camera, theme: _Theme) -> None:
    across, deep = theme.tile
    if across:
        for x in np.arange(-24 * across, 24.5 * across, across):
            _line(picture, camera.foot(x, camera.z_near * 0.8), camera.foot(x, camera.z_far + 2), theme.joint)
        for z in np.arange(deep, camera.z_far + 2, deep):
            y = camera.foot(0.0, z)[1]
            if y < camera.height + 4:
                _line(picture, (0, y), (camera.width, y), theme.joint)
    if camera.theme == "garden":  # a path between lawns
        for z0, z1 in ((camera.z_far + 0.25, camera.z_far + 1), (camera.z_near * 0.6, camera.z_near * 0.93)):
            y1, y0 = camera.foot(0.0, z0)[1], camera.foot(0.0, z1)[1]
            cv2.rectangle(
                picture, (0, round(min(y0, y1))), (camera.width, round(max(y0, y1))), (104, 138, 78), -1
            )
    if camera.theme == "platform":  # the yellow safety line
        y0, y1 = (camera.foot(0.0, camera.z_near * k)[1] for k in (0.99, 0.96))
        cv2.rectangle(picture, (0, round(y0)), (camera.width, round(y1)), (222, 190, 60), -1)
    if camera.theme == "street":  # kerb
        y = camera.foot(0.0, camera.z_far + 0.35)[1]
        _line(picture, (0, y), (camera.width, y), (150, 150, 150), 2)


def _wall(picture: Array, camera: Camera, theme: _Theme, edge: int, rng: np.random.Generator) -> None:
    width, metre = camera.width, camera.scale(camera.z_far + 0.7)
    picture[:edge] = theme.wall

    def box(x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        cv2.rectangle(picture, (round(x0), round(y0)), (round(x1), round(y1)), colour, -1)

    if theme.wall_kind == "brick":
        course = max(metre * 0.17, 4)
        for i, y in enumerate(np.arange(edge, -course, -course)):
            _line(picture, (0, y), (width, y), theme.trim)
            for x in np.arange((i % 2) * course, width, 2 * course):
                _line(picture, (x, y), (x, y - course), theme.trim)
        for x in np.arange(width * 0.12, width, width * 0.3):
            box(x, edge - 2.6 * metre, x + 1.1 * metre, edge - 1.0 * metre, (84, 102, 122))
            box(x - 3, edge - 1.0 * metre, x + 1.1 * metre + 3, edge - 0.92 * metre, (208, 200, 188))
    elif theme.wall_kind == "glass":
        for i, x in enumerate(np.arange(-0.3 * metre, width, 1.5 * metre)):
            tone = 186 + 14 * (i % 2)
            box(x, 0, x + 1.5 * metre, edge - 0.2 * metre, (tone - 30, tone, tone + 12))
            box(x - 2, 0, x + 3, edge, theme.trim)
        box(0, edge - 0.2 * metre, width, edge, theme.trim)
        box(0, edge - 2.3 * metre, width, edge - 2.2 * metre, theme.trim)
    elif theme.wall_kind == "shops":
        palette = ((146, 82, 72), (74, 108, 118), (158, 142, 96), (92, 84, 116))
        x, i = -0.2 * metre, int(rng.integers(4))
        while x < width:
            wide = float(rng.uniform(2.2, 3.2)) * metre
            colour = palette[i % 4]
            box(x, 0, x + wide - 4, edge, colour)
            box(x + 6, edge - 1.7 * metre, x + wide * 0.66, edge - 0.35 * metre, (52, 60, 72))
            box(x + wide * 0.72, edge - 1.9 * metre, x + wide - 12, edge, (66, 58, 54))
            box(x, edge - 2.25 * metre, x + wide - 4, edge - 1.9 * metre, (206, 200, 186))
            x, i = x + wide, i + 1
    elif theme.wall_kind == "hedge":
        picture[: max(round(edge - 1.5 * metre), 0)] = (176, 196, 206)
        for _ in range(260):
            at = (int(rng.uniform(0, width)), int(edge - 1.5 * metre * rng.uniform(0.0, 1.08)))
            leaf = _toned(theme.wall, float(rng.uniform(0.8, 1.25)))
            cv2.circle(picture, at, int(rng.integers(5, 14)), leaf, -1, cv2.LINE_AA)
    else:
        for y in np.arange(edge, -1, -metre * 0.3):
            _line(picture, (0, y), (width, y), (178, 172, 152))
        for x in np.arange(0, width, metre * 0.3):
            _line(picture, (x, 0), (x, edge), (178, 172, 152))
        box(0, edge - 1.5 * metre, width, edge - 1.25 * metre, theme.trim)
        for x in np.arange(width * 0.08, width, width * 0.34):
            box(x, edge - 2.6 * metre, x + 1.6 * metre, edge - 1.65 * metre, (60, 60, 64))
            box(
                x + 3,
                edge - 2.6 * metre + 3,
                x + 1.6 * metre - 3,
                edge - 1.65 * metre - 3,
                PALETTE[int(rng.integers(len(PALETTE)))],
            )
    _line(picture, (0, edge), (width, edge), _toned(theme.ground, 0.6), 2)


def _grain(picture: Array, amount: float, edge: int, rng: np.random.Generator) -> Array:
    """Fine and coarse unevenness, and the ground's shadow along the wall."""
    h, w = picture.shape[:2]
    fine = rng.normal(0, amount, (h, w, 1))
    coarse = cv2.resize(rng.normal(0, 1.0, (9, 16)), (w, h), interpolation=cv2.INTER_CUBIC)[:, :, None]
    out = picture + fine + 1.2 * amount**0.5 * coarse
    below = np.arange(h) - edge
    shadow = np.where(below >= 0, 1 - 0.22 * np.exp(-below / 10.0), 1.0)
    return np.clip(out * shadow[:, None, None], 0, 255).astype(np.uint8)


def _occluders(camera: Camera, theme: _Theme, rng: np.random.Generator) -> list[Occluder]:
    things = []
    slots = np.array([-0.62, 0.02, 0.6]) + rng.uniform(-0.12, 0.12, 3)
    depths = rng.permutation([0.1, 0.4, 0.6])
    for kind, slot, depth in zip(theme.things, slots, depths, strict=True):
        z = camera.z_near + (camera.z_far - camera.z_near) * float(depth + rng.uniform(-0.05, 0.05))
        x, y = camera.foot(float(slot) * camera.half_width(z), z)
        things.append(Occluder(_thing(kind, float(x), float(y), float(camera.scale(z)), theme), float(y)))
    return sorted(things, key=lambda thing: thing.base)


def _thing(kind: str, x: float, y: float, m: float, theme: _Theme) -> Sprite:
    """One occluder standing at (x, y); m is pixels per metre there."""
    left, top = round(x - 1.1 * m), round(min(y - 2.4 * m, -4))
    canvas = Canvas(left, top, round(2.2 * m), round(y - top + 0.3 * m))

    def box(x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """A rectangle in metres, up from the foot point."""
        left, right, low, high = x + x0 * m, x + x1 * m, y - y0 * m, y - y1 * m
        canvas.poly([(left, low), (right, low), (right, high), (left, high)], colour)

    canvas.oval((x, y), 0.32 * m if kind != "bench" else 0.9 * m, 0.07 * m, _toned(theme.ground, 0.6))
    if kind == "pillar":
        tall = (y - canvas.top) / m
        box(-0.2, 0, 0.2, tall, theme.trim)
        box(-0.2, 0, -0.06, tall, _toned(theme.trim, 1.25))
        box(0.12, 0, 0.2, tall, _toned(theme.trim, 0.75))
        box(-0.26, 0, 0.26, 0.16, _toned(theme.trim, 0.8))
    elif kind == "bench":
        for side in (-0.75, 0.65):
            box(side, 0, side + 0.1, 0.45, (60, 60, 64))
        box(-0.9, 0.4, 0.9, 0.5, (148, 104, 66))
        for high in (0.6, 0.75):
            box(-0.9, high, 0.9, high + 0.1, (136, 94, 58))
        for side in (-0.7, 0.62):
            box(side, 0.45, side + 0.07, 0.85, (60, 60, 64))
    elif kind in ("planter", "plant"):
        tall, wide = (0.5, 0.42) if kind == "planter" else (0.4, 0.24)
        leaves = 0.35 if kind == "planter" else 0.8
        box(-wide, 0, wide, tall, (150, 124, 104))
        box(-wide - 0.04, tall - 0.1, wide + 0.04, tall, (128, 104, 88))
        for i in range(26):
            angle, reach = i * 2.4, (i % 7) / 7
            leaf = (
                x + np.cos(angle) * wide * 1.15 * reach * m,
                y - (tall + leaves * (0.5 + 0.5 * np.sin(angle * 1.7) * reach)) * m,
            )
            canvas.disc(leaf, 0.11 * m, (46 + (i * 13) % 34, 104 + (i * 29) % 46, 52))
    elif kind == "sign":
        box(-0.05, 0, 0.05, 1.0, (90, 92, 98))
        box(-0.36, 0.75, 0.36, 1.75, (52, 74, 118))
        box(-0.29, 1.3, 0.29, 1.65, (216, 214, 206))
        box(-0.29, 0.95, 0.15, 1.05, (216, 214, 206))
    elif kind == "stand":
        box(-0.3, 0, 0.3, 1.0, (92, 72, 60))
        box(-0.36, 1.0, 0.36, 1.08, (64, 50, 44))
    else:  # a post or a lamp
        box(-0.07, 0, 0.07, 1.1 if kind == "post" else (y - canvas.top) / m, (54, 58, 62))
        box(-0.13, 0, 0.13, 0.14, (44, 47, 50))
        if kind == "post":
            box(-0.07, 0.85, 0.07, 0.98, (222, 196, 70))
    return Sprite(canvas.image, canvas.left, canvas.top)
