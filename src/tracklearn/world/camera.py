"""One camera of the world: its geometry, and the sensor that gives its pictures their cast and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from tracklearn.types import Array

THEMES = ("plaza", "lobby", "street", "garden", "platform")
_NOISE_TILES = 6
_MARGIN = 48  # how far a noise tile can be shifted, pixels


@dataclass(frozen=True)
class Camera:
    """A pinhole camera above flat ground, in pixels and metres.

    The ground point (x, z), x to the right of the optical axis and z in front of the camera, appears
    at (width / 2 + x · focal / z, horizon + height_m · focal / z) and measures focal / z pixels a metre.
    """

    name: str
    theme: str
    width: int
    height: int
    focal: float
    horizon: float
    height_m: float
    z_near: float
    z_far: float
    tilt: float  # sine of the downward pitch

    def scale(self, z: Array | float) -> Any:
        """Pixels per metre at depth z."""
        return self.focal / z

    def foot(self, x: Any, z: Any) -> tuple[Any, Any]:
        """Where the ground point (x, z) appears, pixels."""
        scale = self.focal / z
        return self.width / 2 + x * scale, self.horizon + self.height_m * scale

    def half_width(self, z: float) -> float:
        """Metres from the optical axis to the frame border at depth z."""
        return self.width / 2 * z / self.focal


def camera(index: int, *, width: int, height: int, seed: int) -> Camera:
    """The geometry of one camera.

    Args:
        index: camera, from 0; it also chooses the place (`THEMES` in turn).
        width, height: of the frame, pixels.
        seed: of the place, ≥ 0.
    """
    rng = np.random.default_rng([seed, index, 21])
    theme = THEMES[index % len(THEMES)]
    turn = index // len(THEMES)
    unit = height / 270
    # Alternate low and high viewpoints, and near and far ones, so that neighbouring cameras differ clearly.
    height_m = float(rng.uniform(2.8, 3.2) if index % 2 == 0 else rng.uniform(3.8, 4.5))
    near = float(rng.uniform(73, 79) if index % 4 in (0, 3) else rng.uniform(65, 71)) * unit
    far = near * float(rng.uniform(0.57, 0.63))
    focal = 420.0 * unit
    horizon = 0.965 * height - near * height_m
    return Camera(
        name=theme if turn == 0 else f"{theme}-{turn + 1}",
        theme=theme,
        width=width,
        height=height,
        focal=focal,
        horizon=horizon,
        height_m=height_m,
        z_near=focal / near,
        z_far=focal / far,
        tilt=math.sin(math.atan2(height / 2 - horizon, focal)),
    )


class Sensor:
    """Turns a clean picture into what this camera records: light, colour cast, tone, blur, noise.

    The casts of the cameras of one world are spread evenly over the colour circle, and their tone curves
    over a range, so that any two cameras disagree about colours.

    Args:
        index: camera, from 0.
        n_cameras: cameras of the world.
        width, height: of the frame, pixels.
        seed: of the place, ≥ 0.
        cast: strength of the differences between cameras; 0 none, 1 the default.
    """

    def __init__(
        self, index: int, *, n_cameras: int, width: int, height: int, seed: int, cast: float
    ) -> None:
        world = np.random.default_rng([seed, 22])
        start = world.uniform(0, 2 * np.pi)
        # Tone curves alternate along the circle: neighbours in colour differ most in brightness.
        spread = np.linspace(-1, 1, n_cameras) if n_cameras > 1 else np.zeros(1)
        tone = float(world.permutation(spread)[index])
        rng = np.random.default_rng([seed, index, 23])
        angle = start + 2 * np.pi * (index + rng.uniform(-0.15, 0.15)) / n_cameras
        direction = np.cos(angle - np.array([0, 2, 4]) * np.pi / 3)
        gain = np.exp(cast * (0.11 * direction - 0.03 * tone + rng.normal(0, 0.012, 3)))
        saturation = 1 + cast * float(rng.uniform(-0.25, 0.06))
        grey = np.full((3, 3), 1 / 3)
        self._matrix = (gain[:, None] * (saturation * np.eye(3) + (1 - saturation) * grey)).astype(np.float32)
        self._gamma = np.exp(cast * (0.17 * tone + rng.normal(0, 0.04, 3)))
        self._contrast = 1 + cast * float(rng.uniform(-0.16, 0.06))
        self._lift = cast * float(rng.uniform(0, 14))
        self._blur = float(rng.uniform(0.35, 0.8))
        self._flicker = float(rng.uniform(0.002, 0.008))
        self._light = _light_map(rng, width, height)
        sigma = float(rng.uniform(2.0, 5.0))
        self._seed = [seed, index, 24]
        noise_rng = np.random.default_rng([seed, index, 25])
        noise = noise_rng.normal(0, sigma, (_NOISE_TILES, height + _MARGIN, width + _MARGIN, 3))
        # A colour sensor's noise is partly common to the three channels.
        noise = np.rint(0.6 * noise + 0.75 * noise[..., :1])
        self._bright = np.clip(noise, 0, 255).astype(np.uint8)
        self._dim = np.clip(-noise, 0, 255).astype(np.uint8)

    def _table(self, flicker: float) -> Array:
        level = np.arange(256)[:, None] / 255.0
        curve = np.clip(level * (1 + flicker), 0, 1) ** self._gamma
        out = 255 * (0.5 + self._contrast * (curve - 0.5)) + self._lift * (1 - curve)
        return np.clip(np.rint(out), 0, 255).astype(np.uint8)[None]

    def record(self, picture: Array, frame: int) -> Array:
        """The recorded picture, uint8 RGB like the clean one.

        Args:
            picture: (h, w, 3) uint8 RGB, not modified.
            frame: frame number, which chooses flicker and noise.
        """
        rng = np.random.default_rng([*self._seed, frame])
        flicker = self._flicker * (math.sin(frame * 0.9) + float(rng.normal(0, 0.5)))
        out = cv2.multiply(picture, self._light, scale=1 / 200)
        out = cv2.LUT(cv2.transform(out, self._matrix), self._table(flicker))
        out = cv2.GaussianBlur(out, (3, 3), self._blur)
        tile, dy, dx = (int(v) for v in rng.integers((_NOISE_TILES, _MARGIN, _MARGIN)))
        h, w = picture.shape[:2]
        out = cv2.add(out, self._bright[tile, dy : dy + h, dx : dx + w])
        return cv2.subtract(out, self._dim[tile, dy : dy + h, dx : dx + w])


def _light_map(rng: np.random.Generator, width: int, height: int) -> Array:
    """Uneven light over the frame as uint8 (h, w, 3), 200 = as painted."""
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    slope = rng.uniform(-0.1, 0.1) * x + rng.uniform(-0.04, 0.08) * y
    cx, cy = rng.uniform(-0.7, 0.7), rng.uniform(-0.2, 0.7)
    pool = 0.14 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.35)
    corner = -0.07 * (x**2 + y**2)
    light = np.clip(200 * (0.98 + slope + pool + corner), 0, 255)
    return np.repeat(np.rint(light).astype(np.uint8)[:, :, None], 3, axis=2)
