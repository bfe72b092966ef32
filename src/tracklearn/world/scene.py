"""The generated world: configuration, rendering, ground truth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from tracklearn.types import Array, Refusal
from tracklearn.world.camera import Camera, Sensor, camera
from tracklearn.world.figure import Pose, Sprite, draw
from tracklearn.world.look import CLOTHES, Look, look
from tracklearn.world.place import Occluder, paint
from tracklearn.world.walk import Visit, timetable

_EMPTY = 2.0  # seconds without people at the start, in which a background model settles
_LEAST_SIDE = 2  # pixels; who shows less than this at the border is not reported


@dataclass(frozen=True)
class Config:
    """What to generate.

    Args:
        n_people: people of the world.
        n_cameras: cameras; the places take turns after the fifth.
        seconds: length of each camera's video.
        fps: frames per second.
        width, height: of the frame, pixels.
        seed: of cameras and places.
        people_seed: of the people and their ways.
        first_pid: pid of the first person; other pids are other people.
        cast: how much the cameras differ in colour and tone; 0 not at all.
        clothes: "any" colours of the palette, its "bright" half or its "dark" one.

    Raises:
        ValueError: a value is out of range.
    """

    n_people: int = 24
    n_cameras: int = 4
    seconds: float = 84.0
    fps: float = 12.0
    width: int = 480
    height: int = 270
    seed: int = 0
    people_seed: int = 0
    first_pid: int = 0
    cast: float = 1.0
    clothes: str = "any"

    def __post_init__(self) -> None:
        if self.clothes not in CLOTHES:
            raise Refusal(f"clothes are {self.clothes!r}, expected one of {', '.join(CLOTHES)}")
        for name, least in (
            ("n_people", 1),
            ("n_cameras", 1),
            ("seconds", 5.0),
            ("fps", 4.0),
            ("width", 160),
            ("height", 120),
            ("seed", 0),
            ("people_seed", 0),
            ("first_pid", 0),
            ("cast", 0.0),
        ):
            if not getattr(self, name) >= least:
                raise Refusal(f"{name} is {getattr(self, name)}, expected at least {least}")


@dataclass(frozen=True, eq=False)
class Boxes:
    """Ground truth of one frame.

    Args:
        pid: (k,) int64, ascending.
        box: (k, 4) float32, (x1, y1, x2, y2) in pixels around the whole person, hidden parts included,
            clipped to the frame.
        visibility: (k,) float32, share of the person that the frame shows, 0-1.
    """

    pid: Array
    box: Array
    visibility: Array

    def __len__(self) -> int:
        return len(self.pid)


class World:
    """A small scene seen by several cameras; every frame follows from the configuration alone.

    Args:
        config: what to generate.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.looks: dict[int, Look] = {
            pid: look(config.people_seed, pid, config.clothes)
            for pid in range(config.first_pid, config.first_pid + config.n_people)
        }
        self._cameras = tuple(
            camera(i, width=config.width, height=config.height, seed=config.seed)
            for i in range(config.n_cameras)
        )
        self.visits: tuple[tuple[Visit, ...], ...] = timetable(
            self._cameras,
            self.looks,
            seconds=config.seconds,
            fps=config.fps,
            empty=_EMPTY,
            seed=(config.seed, config.people_seed, config.first_pid),
        )

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras, distinct and fit for file names."""
        return tuple(c.name for c in self._cameras)

    @property
    def n_frames(self) -> int:
        """Frames per camera."""
        return round(self.config.seconds * self.config.fps)

    def frames(self, camera: int) -> Iterator[tuple[Array, Boxes]]:
        """The video of one camera, independent of the others.

        Args:
            camera: index into `cameras`.

        Yields:
            uint8 RGB (height, width, 3), an array of its own each time, and the frame's truth.

        Raises:
            ValueError: there is no such camera.
        """
        if not 0 <= camera < self.config.n_cameras:
            raise Refusal(f"camera is {camera}, expected 0 to {self.config.n_cameras - 1}")
        stage = _Stage(self, camera)
        return (stage.shoot(frame) for frame in range(self.n_frames))


class _Stage:
    """Renders one camera."""

    def __init__(self, world: World, index: int) -> None:
        config = world.config
        self.camera: Camera = world._cameras[index]
        self.looks, self.visits = world.looks, world.visits[index]
        self.background, self.occluders = _place(index, self.camera, config.seed)
        self.sensor = Sensor(
            index,
            n_cameras=config.n_cameras,
            width=config.width,
            height=config.height,
            seed=config.seed,
            cast=config.cast,
        )

    def shoot(self, frame: int) -> tuple[Array, Boxes]:
        """The recorded frame and its truth."""
        picture, truth = self.compose(frame)
        return self.sensor.record(picture, frame), truth

    def compose(self, frame: int) -> tuple[Array, Boxes]:
        """The clean picture before the sensor, and the truth."""
        picture = self.background.copy()
        owner = np.zeros(picture.shape[:2], np.uint8)  # 1 + position in `present` of the person on top
        present = [v for v in self.visits if v.start <= frame < v.end]
        things: list[tuple[float, int]] = [(o.base, -1 - i) for i, o in enumerate(self.occluders)]
        feet = [self._pose(v, frame - v.start) for v in present]
        things += [(pose.y, i) for i, pose in enumerate(feet)]
        drawn: dict[int, tuple[int, tuple[float, float, float, float]]] = {}
        for _, i in sorted(things):
            if i < 0:
                _blend(picture, owner, self.occluders[-1 - i].sprite, 0)
                continue
            _shadow(picture, feet[i])
            sprite = draw(self.looks[present[i].pid], feet[i])
            _blend(picture, owner, sprite, i + 1)
            drawn[i] = _extent(sprite)
        rows = []
        h, w = picture.shape[:2]
        for i, (total, (x1, y1, x2, y2)) in drawn.items():
            cut = (max(x1, 0.0), max(y1, 0.0), min(x2, float(w)), min(y2, float(h)))
            if min(cut[2] - cut[0], cut[3] - cut[1]) < _LEAST_SIDE:
                continue
            seen = int((owner[int(cut[1]) : int(cut[3]), int(cut[0]) : int(cut[2])] == i + 1).sum())
            rows.append((present[i].pid, cut, seen / total))
        rows.sort()
        return picture, Boxes(
            np.array([r[0] for r in rows], np.int64),
            np.array([r[1] for r in rows], np.float32).reshape(-1, 4),
            np.array([r[2] for r in rows], np.float32),
        )

    def _pose(self, visit: Visit, i: int) -> Pose:
        x, y = self.camera.foot(float(visit.x[i]), float(visit.z[i]))
        return Pose(
            x=x,
            y=y,
            scale=self.camera.scale(float(visit.z[i])),
            hx=float(visit.hx[i]),
            hz=float(visit.hz[i]),
            phase=float(visit.phase[i]),
            amount=float(visit.amount[i]),
            tilt=self.camera.tilt,
        )


@lru_cache(maxsize=8)
def _place(index: int, view: Camera, seed: int) -> tuple[Array, tuple[Occluder, ...]]:
    return paint(view, seed=seed, index=index)


def _blend(picture: Array, owner: Array, sprite: Sprite, mark: int) -> None:
    """Lay a sprite over the picture and mark the pixels it covers by more than half."""
    h, w = picture.shape[:2]
    sh, sw = sprite.image.shape[:2]
    y0, y1 = max(sprite.top, 0), min(sprite.top + sh, h)
    x0, x1 = max(sprite.left, 0), min(sprite.left + sw, w)
    if y0 >= y1 or x0 >= x1:
        return
    part = sprite.image[y0 - sprite.top : y1 - sprite.top, x0 - sprite.left : x1 - sprite.left]
    alpha = part[:, :, 3]
    keep = cv2.cvtColor(255 - alpha, cv2.COLOR_GRAY2RGB)
    region = picture[y0:y1, x0:x1]
    region[:] = cv2.add(cv2.multiply(region, keep, scale=1 / 255), cv2.cvtColor(part, cv2.COLOR_RGBA2RGB))
    owner[y0:y1, x0:x1][alpha > 127] = mark


def _extent(sprite: Sprite) -> tuple[int, tuple[float, float, float, float]]:
    """Covered pixels and their bounding box in the frame, unclipped."""
    mask = sprite.image[:, :, 3] > 127
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(mask.sum()), (
        float(sprite.left + columns[0]),
        float(sprite.top + rows[0]),
        float(sprite.left + columns[-1] + 1),
        float(sprite.top + rows[-1] + 1),
    )


def _shadow(picture: Array, pose: Pose) -> None:
    """A soft dark patch on the ground under a person."""
    h, w = picture.shape[:2]
    rx, ry = 0.27 * pose.scale, (0.03 + 0.1 * pose.tilt) * pose.scale
    y0, y1 = max(math.floor(pose.y - ry), 0), min(math.ceil(pose.y + ry) + 1, h)
    x0, x1 = max(math.floor(pose.x - rx), 0), min(math.ceil(pose.x + rx) + 1, w)
    if y0 >= y1 or x0 >= x1:
        return
    dy = (np.arange(y0, y1, dtype=np.float32) - pose.y) / ry
    dx = (np.arange(x0, x1, dtype=np.float32) - pose.x) / rx
    depth = np.clip(1 - dy[:, None] ** 2 - dx[None] ** 2, 0, 1)
    region = picture[y0:y1, x0:x1]
    region[:] = region * (1 - 0.32 * depth)[:, :, None]
