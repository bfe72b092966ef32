"""Draws a walking person: a small 3-D puppet, projected and painted with antialiased polygons."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from tracklearn.types import Array
from tracklearn.world.look import Colour, Look

_SHIFT = 4  # sub-pixel bits of OpenCV's drawing functions
_ONE = 1 << _SHIFT
_SKIN_EDGE = 0.86

Point = tuple[float, float]
Joint = tuple[float, float, float]  # right, forward, up, metres from the point between the feet


@dataclass(frozen=True)
class Pose:
    """Where and how a person stands in the picture.

    Args:
        x, y: the point on the ground between the feet, pixels.
        scale: pixels per metre at that depth.
        hx, hz: unit heading; hx to the right of the picture, hz away from the camera.
        phase: of the gait, radians; one full step pair per turn.
        amount: 0 standing to 1 walking.
        tilt: sine of the camera's downward pitch.
    """

    x: float
    y: float
    scale: float
    hx: float
    hz: float
    phase: float
    amount: float
    tilt: float


@dataclass(frozen=True)
class Sprite:
    """A premultiplied RGBA picture (h, w, 4) uint8 whose upper left corner lies at (left, top)."""

    image: Array
    left: int
    top: int


def _dark(colour: Colour, factor: float) -> Colour:
    return (int(colour[0] * factor), int(colour[1] * factor), int(colour[2] * factor))


class Canvas:
    """A transparent picture with its own origin, to draw on in frame coordinates."""

    def __init__(self, left: int, top: int, width: int, height: int) -> None:
        self.image: Array = np.zeros((height, width, 4), np.uint8)
        self.left, self.top = left, top

    def _fixed(self, value: float, origin: int) -> int:
        return round((value - origin) * _ONE)

    def poly(self, points: list[Point], colour: Colour) -> None:
        """A filled convex polygon."""
        left, top = self.left, self.top
        fixed = np.array([(round((x - left) * _ONE), round((y - top) * _ONE)) for x, y in points], np.int32)
        cv2.fillConvexPoly(self.image, fixed, (*colour, 255), cv2.LINE_AA, _SHIFT)

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        """A filled circle."""
        at = (self._fixed(centre[0], self.left), self._fixed(centre[1], self.top))
        cv2.circle(self.image, at, max(round(radius * _ONE), 1), (*colour, 255), -1, cv2.LINE_AA, _SHIFT)

    def oval(self, centre: Point, rx: float, ry: float, colour: Colour) -> None:
        """A filled upright ellipse."""
        at = (self._fixed(centre[0], self.left), self._fixed(centre[1], self.top))
        axes = (max(round(rx * _ONE), 1), max(round(ry * _ONE), 1))
        cv2.ellipse(self.image, at, axes, 0, 0, 360, (*colour, 255), -1, cv2.LINE_AA, _SHIFT)

    def limb(self, a: Point, b: Point, ra: float, rb: float, colour: Colour) -> None:
        """A tapered stroke from a to b, with a round end at b."""
        dx, dy = b[0] - a[0], b[1] - a[1]
        norm = math.hypot(dx, dy) or 1.0
        nx, ny = -dy / norm, dx / norm
        self.poly(
            [
                (a[0] + nx * ra, a[1] + ny * ra),
                (b[0] + nx * rb, b[1] + ny * rb),
                (b[0] - nx * rb, b[1] - ny * rb),
                (a[0] - nx * ra, a[1] - ny * ra),
            ],
            colour,
        )
        self.disc(b, rb, colour)


class _Figure:
    """One drawing of one person; the methods paint one part each."""

    def __init__(self, look: Look, pose: Pose) -> None:
        self.look, self.pose = look, pose
        size = look.height * pose.scale
        left, top = math.floor(pose.x - 0.5 * size), math.floor(pose.y - 1.1 * size)
        self.canvas = Canvas(left, top, math.ceil(size) + 2, math.ceil(1.28 * size) + 2)
        self.size = size  # pixels per body height: every length below is a fraction of the height
        self.cos_tilt = math.sqrt(1 - pose.tilt**2)
        self.sway = look.sway * math.sin(pose.phase) * pose.amount
        self.legs = [self._leg(side) for side in (-1, 1)]
        # The lower foot stands on the ground: this is the body's rise and fall.
        self.hip = 0.03 + max(0.5 - ankle[2] for _, _, ankle in self.legs)

    def at(self, joint: Joint) -> Point:
        """A point of the body in pixels."""
        r, f, u = joint
        pose = self.pose
        dx, dz = r * pose.hz + f * pose.hx, f * pose.hz - r * pose.hx
        return (
            pose.x + self.size * dx,
            pose.y - self.size * (u * self.cos_tilt + dz * pose.tilt),
        )

    def away(self, r: float, f: float) -> float:
        """Distance behind the body's axis seen from the camera."""
        return f * self.pose.hz - r * self.pose.hx

    def wide(self, half_r: float, half_f: float) -> float:
        """Half the width of an upright elliptic cross-section, pixels."""
        return self.size * math.hypot(half_r * self.pose.hz, half_f * self.pose.hx)

    def _leg(self, side: int) -> tuple[Joint, Joint, Joint]:
        phase = self.pose.phase + (0.0 if side < 0 else math.pi)
        amount, step = self.pose.amount, self.look.step
        thigh = step * math.sin(phase) * amount
        bend = (0.08 + 0.85 * max(0.0, math.cos(phase))) * amount
        r = side * 0.052 * self.look.girth
        knee = (r, 0.24 * math.sin(thigh), 0.5 - 0.24 * math.cos(thigh))
        shank = thigh - bend
        ankle = (r * 0.85, knee[1] + 0.23 * math.sin(shank), knee[2] - 0.23 * math.cos(shank))
        return (r, 0.0, 0.5), knee, ankle

    def leg(self, index: int, factor: float) -> None:
        look, size, girth = self.look, self.size, self.look.girth
        rise = self.hip - 0.5
        hip, knee, ankle = (self.at((r + self.sway, f, u + rise)) for r, f, u in self.legs[index])
        r, f, u = self.legs[index][2]
        toe = self.at((r + self.sway, f + 0.085, max(u + rise - 0.028, 0.008)))
        heel = self.at((r + self.sway, f - 0.02, max(u + rise - 0.018, 0.012)))
        cloth, skin = _dark(look.bottom, factor), _dark(look.skin, factor * _SKIN_EDGE)
        bare = look.legwear in ("shorts", "skirt")
        loose = 1.35 if look.legwear == "wide" else 1.0
        thigh_r, knee_r = 0.05 * girth * size, 0.037 * girth * size * (loose if not bare else 0.9)
        shank_r = (0.026 * girth if bare else 0.029 * girth * loose**1.5) * size
        self.canvas.limb(heel, toe, 0.021 * size, 0.017 * size, _dark(look.shoes, factor))
        self.canvas.limb(knee, ankle, knee_r, shank_r, skin if bare else cloth)
        self.canvas.limb(hip, knee, thigh_r, knee_r, skin if look.legwear == "skirt" else cloth)
        if look.legwear == "shorts":
            end = (knee[0] * 0.85 + hip[0] * 0.15, knee[1] * 0.85 + hip[1] * 0.15)
            self.canvas.limb(hip, end, thigh_r * 1.08, knee_r * 1.3, cloth)

    def arm(self, side: int, factor: float) -> None:
        look, size, girth = self.look, self.size, self.look.girth
        loaded = side > 0 and look.bag in ("hand", "shoulder")
        swing = look.swing * (0.35 if loaded else 1.0) * self.pose.amount
        angle = swing * math.sin(self.pose.phase + (math.pi if side < 0 else 0.0))
        bend = 0.12 + 0.5 * max(0.0, angle) + 0.15 * self.pose.amount * (not loaded)
        top = self.hip + 0.3
        r0, spread = side * 0.118 * girth + self.sway, side * 0.016
        shoulder = (r0, 0.0, top)
        elbow = (r0 + spread, 0.16 * math.sin(angle), top - 0.16 * math.cos(angle))
        hand = (
            elbow[0],
            elbow[1] + 0.15 * math.sin(angle + bend),
            elbow[2] - 0.15 * math.cos(angle + bend),
        )
        s, e, h = self.at(shoulder), self.at(elbow), self.at(hand)
        sleeve = _dark(look.top2 if look.sleeve == "contrast" else look.top, factor * 0.94)
        skin = _dark(look.skin, factor)
        bare = look.sleeve == "short"
        upper, lower = 0.037 * girth * size, 0.03 * girth * size
        if look.bag == "hand" and side > 0:
            self.hand_bag(hand, factor)
        self.canvas.disc(h, 0.026 * size, skin)
        self.canvas.limb(e, h, lower * (0.8 if bare else 1.0), lower * 0.78, skin if bare else sleeve)
        self.canvas.disc(s, upper, sleeve)
        self.canvas.limb(s, e, upper, lower * (0.85 if bare else 1.0), skin if bare else sleeve)
        if bare:
            mid = (s[0] * 0.35 + e[0] * 0.65, s[1] * 0.35 + e[1] * 0.65)
            self.canvas.limb(s, mid, upper * 1.05, upper, sleeve)
        if not bare or factor == 1.0:
            self.canvas.disc(h, 0.024 * size, skin)

    def hand_bag(self, hand: Joint, factor: float) -> None:
        x, y = self.at((hand[0], hand[1], hand[2] - 0.02))
        half = self.wide(0.025, 0.09) + 0.02 * self.size
        tall = 0.13 * self.size
        colour = _dark(self.look.bag_colour, factor)
        self.canvas.limb((x, y), (x - half * 0.6, y + tall * 0.35), 1.0, 1.0, _dark(colour, 0.6))
        self.canvas.limb((x, y), (x + half * 0.6, y + tall * 0.35), 1.0, 1.0, _dark(colour, 0.6))
        low, high = y + tall * 1.25, y + tall * 0.3
        self.canvas.poly(
            [(x - half * 0.85, high), (x + half * 0.85, high), (x + half, low), (x - half, low)], colour
        )

    def tube(
        self,
        levels: list[tuple[float, float, float]],
        span: tuple[float, float, float, float],
        colour: Colour,
    ) -> None:
        """Part of a garment: levels (height, half width, half depth), span (across −1..1 and down 0..1)."""
        a0, a1, v0, v1 = span
        top, low = levels[0][0], levels[-1][0]
        u0, u1 = top + (low - top) * v0, top + (low - top) * v1
        rows = [u0, *(u for u, _, _ in levels[1:-1] if u1 < u < u0), u1]
        left: list[Point] = []
        right: list[Point] = []
        for u in rows:
            x, y = self.at((self.sway, 0.0, u))
            half = self._half_width(levels, u)
            left.append((x + a0 * half, y))
            right.append((x + a1 * half, y))
        self.canvas.poly(left + right[::-1], colour)

    def _half_width(self, levels: list[tuple[float, float, float]], u: float) -> float:
        """Half the width of a garment at height u, pixels."""
        for (u0, r0, f0), (u1, r1, f1) in pairwise(levels):
            if u >= u1:
                part = (u - u1) / (u0 - u1)
                return self.wide(r1 + (r0 - r1) * part, f1 + (f0 - f1) * part)
        return self.wide(*levels[-1][1:])

    def torso(self) -> None:
        look, g, hip = self.look, self.look.girth, self.hip
        if look.legwear == "skirt":
            skirt = [
                (hip + 0.06, 0.088 * g, 0.066 * g),
                (hip - 0.04, 0.112 * g, 0.09 * g),
                (hip - 0.21, 0.135 * g, 0.12 * g),
            ]
            self.tube(skirt, (-1, 1, 0, 1), look.bottom)
            self.tube(skirt, (0.55, 1, 0, 1), _dark(look.bottom, 0.85))
        hem = hip + look.hem - 0.5
        flare = 0.02 if look.hem < 0.4 else 0.0
        levels = [
            (hip + 0.345, 0.052 * g, 0.045 * g),
            (hip + 0.325, 0.118 * g, 0.066 * g),
            (hip + 0.22, 0.122 * g, 0.08 * g),
            (hip + 0.09, 0.098 * g, 0.074 * g),
            (hip - 0.0, 0.108 * g, 0.084 * g),
            (hem - 0.01, 0.112 * g + flare, 0.088 * g + flare),
        ]
        self.tube(levels, (-1, 1, 0, 1), look.top)
        self._pattern(levels)
        self.tube(levels, (0.72, 1, 0.06, 1), _dark(look.top, 0.82))

    def _pattern(self, levels: list[tuple[float, float, float]]) -> None:
        look, n = self.look, self.look.count
        front = -self.pose.hz  # 1 when the face points at the camera
        if look.pattern == "bands":
            for i in range(n):
                self.tube(
                    levels, (-1, 1, 0.12 + 0.88 * (i + 0.1) / n, 0.12 + 0.88 * (i + 0.6) / n), look.top2
                )
        elif look.pattern == "pinstripes":
            for i in range(n):
                self.tube(levels, (-1 + 2 * (i + 0.28) / n, -1 + 2 * (i + 0.72) / n, 0.06, 1), look.top2)
        elif look.pattern == "checks":
            for row in range(n + 1):
                for col in range(row % 2, 4, 2):
                    span = (
                        col / 2 - 1,
                        col / 2 - 0.5,
                        0.06 + 0.94 * row / (n + 1),
                        0.06 + 0.94 * (row + 1) / (n + 1),
                    )
                    self.tube(levels, span, look.top2)
        elif look.pattern == "twotone":
            self.tube(levels, (-1, 1, 0.55, 1), look.top2)
        elif look.pattern == "yoke":
            self.tube(levels, (-1, 1, 0, 0.33), look.top2)
        elif look.pattern == "print" and abs(front) > 0.25:
            self.tube(levels, (-0.5, 0.5, 0.22, 0.5 if front > 0 else 0.66), look.top2)
        elif look.pattern == "open" and front > -0.35:
            middle = 0.75 * self.pose.hx
            self.tube(levels, (max(middle - 0.28, -1), min(middle + 0.28, 1), 0.04, 1), look.top2)

    def backpack(self, factor: float) -> None:
        look, g, size = self.look, self.look.girth, self.size
        half = self.wide(0.1, 0.062)
        depth = -(0.075 * g + 0.05)
        x, high = self.at((self.sway, depth, self.hip + 0.31))
        _, low = self.at((self.sway, depth, self.hip + 0.05))
        colour = _dark(look.bag_colour, factor)
        inset, corner = half * 0.75, 0.04 * size
        self.canvas.poly(
            [
                (x - inset, high),
                (x + inset, high),
                (x + half, high + corner),
                (x + half, low),
                (x - half, low),
                (x - half, high + corner),
            ],
            colour,
        )
        pocket = high + (low - high) * 0.55
        self.canvas.poly(
            [(x - inset, pocket), (x + inset, pocket), (x + inset, low - 2), (x - inset, low - 2)],
            _dark(colour, 0.78),
        )

    def straps(self) -> None:
        """What shows of a backpack from the front."""
        for side in (-1, 1):
            a = self.at((side * 0.07 + self.sway, 0.0, self.hip + 0.335))
            b = self.at((side * 0.085 + self.sway, 0.07, self.hip + 0.14))
            self.canvas.limb(a, b, 0.014 * self.size, 0.012 * self.size, _dark(self.look.bag_colour, 0.85))

    def shoulder_bag(self, factor: float) -> None:
        g, size = self.look.girth, self.size
        colour = _dark(self.look.bag_colour, factor)
        a = self.at((-0.06 + self.sway, 0.0, self.hip + 0.335))
        b = self.at((0.12 * g + self.sway, 0.0, self.hip + 0.05))
        self.canvas.limb(a, b, 0.011 * size, 0.011 * size, _dark(colour, 0.8))
        x, y = self.at((0.135 * g + self.sway, 0.0, self.hip + 0.05))
        half, tall = self.wide(0.035, 0.085) + 0.008 * size, 0.13 * size
        self.canvas.poly([(x - half, y), (x + half, y), (x + half, y + tall), (x - half, y + tall)], colour)
        self.canvas.poly(
            [(x - half, y), (x + half, y), (x + half, y + tall * 0.4), (x - half, y + tall * 0.4)],
            _dark(colour, 0.8),
        )

    def head(self) -> None:
        look, size = self.look, self.size
        rx, ry = 0.054 * look.head * size, 0.07 * look.head * size
        neck, centre = self.hip + 0.33, self.hip + 0.345 + 0.07 * look.head
        front, hx = -self.pose.hz, self.pose.hx
        x, y = self.at((self.sway, 0.012, centre))
        self.canvas.limb(
            self.at((self.sway, 0.0, neck)), (x, y), 0.032 * size, 0.032 * size, _dark(look.skin, 0.85)
        )
        style = look.hair_style
        hair = look.skin if style == "bald" else look.hair
        if style == "long" and front > -0.3:  # falls behind the face
            self.canvas.oval((x - hx * rx * 0.45, y + ry * 0.55), rx * 1.15, ry * 1.25, _dark(hair, 0.9))
        if style == "bun":
            self.canvas.disc((x - hx * rx * 0.9, y - ry * (0.95 - 0.5 * abs(hx))), rx * 0.5, hair)
        self.canvas.oval((x, y), rx, ry, hair)
        if front > -0.45:
            shown = min(1.0, (front + 0.45) / 0.8)
            self.canvas.oval(
                (x + hx * rx * 0.38, y + ry * 0.16), rx * (0.5 + 0.36 * shown), ry * 0.82, look.skin
            )
        if style == "long" and front <= -0.3:
            self.canvas.oval((x, y + ry * 0.5), rx * 1.12, ry * 1.35, hair)
        if style in ("cap", "beanie"):
            deep = 0.1 if style == "cap" else -0.15
            brow = y - ry * deep
            dome = [
                (x + rx * 1.08 * math.cos(t), brow - ry * 0.98 * math.sin(t))
                for t in (i * math.pi / 8 for i in range(9))
            ]
            self.canvas.poly(dome, look.hat)
            if style == "cap" and front > -0.5:
                tip = (x + hx * rx * 1.75, brow + ry * 0.12 * max(front, 0))
                self.canvas.limb(
                    (x + hx * rx * 0.3, brow),
                    tip,
                    ry * 0.13 + rx * 0.5 * max(front, 0),
                    ry * 0.1,
                    _dark(look.hat, 0.75),
                )


def draw(look: Look, pose: Pose) -> Sprite:
    """One person in one pose, as a transparent picture about 1.3 body heights tall.

    Parts are painted from far to near, so that a backpack hides the back and is hidden by the chest.
    """
    figure = _Figure(look, pose)
    bag_behind = figure.away(0.0, -0.12) > 0.02
    first = -1 if figure.away(-1, 0) > figure.away(1, 0) else 1  # the farther side
    if look.bag == "shoulder" and figure.away(0.135, 0.0) > 0.06:
        figure.shoulder_bag(0.8)
    if figure.away(first, 0) > 0.3:
        figure.arm(first, 0.78)
    if look.bag == "backpack" and bag_behind:
        figure.backpack(0.85)
    figure.leg(0 if first < 0 else 1, 0.82)
    figure.leg(1 if first < 0 else 0, 1.0)
    figure.torso()
    if look.bag == "backpack" and bag_behind:
        figure.straps()
    figure.head()
    if look.bag == "backpack" and not bag_behind:
        figure.backpack(1.0)
    if figure.away(first, 0) <= 0.3:
        figure.arm(first, 0.92)
    figure.arm(-first, 1.0)
    if look.bag == "shoulder" and figure.away(0.135, 0.0) <= 0.06:
        figure.shoulder_bag(1.0)
    image = figure.canvas.image
    # Light falls from the upper left: the right side of the body is darker.
    ramp = np.linspace(1.1, 0.82, image.shape[1], dtype=np.float32)
    limit = image[:, :, 3:].astype(np.float32)
    image[:, :, :3] = np.minimum(image[:, :, :3] * ramp[None, :, None], limit)
    return Sprite(image, figure.canvas.left, figure.canvas.top)
