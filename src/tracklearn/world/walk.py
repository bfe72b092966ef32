"""Who walks where and when: visits with paths on the ground, alone, crossing, side by side, meeting."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tracklearn.types import Array
from tracklearn.world.camera import Camera
from tracklearn.world.look import Look

_MOST_AT_ONCE = 4
_OUTSIDE = 0.5  # metres beyond the frame border where a path starts and ends
_TICK = 0.25  # seconds, resolution of the timetable
_STAY_AWAY = 0.12  # share of (person, camera) pairs without a visit
_COME_AGAIN = 0.12  # share of visits followed by a second one
_IN_TWOS = 0.74  # share of visits that are shared with somebody

Waypoint = tuple[float, float, float]  # seconds from the start, x, z


@dataclass(frozen=True)
class Visit:
    """One passage of one person through one camera's view.

    Args:
        pid: person.
        start: first frame.
        x, z: (k,) ground position per frame, metres.
        hx, hz: (k,) unit heading per frame.
        phase: (k,) gait phase, radians.
        amount: (k,) 0 standing to 1 walking.
    """

    pid: int
    start: int
    x: Array
    z: Array
    hx: Array
    hz: Array
    phase: Array
    amount: Array

    @property
    def end(self) -> int:
        """One past the last frame."""
        return self.start + len(self.x)


def _mean(values: Array, window: int) -> Array:
    """Moving average with the ends held."""
    padded = np.concatenate([np.repeat(values[:1], window), values, np.repeat(values[-1:], window)])
    kernel = np.full(2 * window + 1, 1 / (2 * window + 1))
    return np.convolve(padded, kernel, mode="valid")


def _walk(points: list[Waypoint], look: Look, *, pid: int, start: float, fps: float) -> Visit:
    """The visit along timed waypoints; `start` in seconds."""
    times = np.array([p[0] for p in points])
    frame = np.arange(int(times[-1] * fps) + 1)
    window = max(round(0.25 * fps), 1)
    x = _mean(np.interp(frame / fps, times, [p[1] for p in points]), window)
    z = _mean(np.interp(frame / fps, times, [p[2] for p in points]), window)
    vx, vz = np.gradient(x) * fps, np.gradient(z) * fps
    speed = np.hypot(vx, vz)
    moving = speed > 0.25
    # Who stands still keeps the last direction.
    last = np.maximum.accumulate(np.where(moving, np.arange(len(x)), 0))
    hx, hz = (
        _mean(vx[last] / speed[last].clip(1e-6), window),
        _mean(vz[last] / speed[last].clip(1e-6), window),
    )
    norm = np.hypot(hx, hz).clip(1e-6)
    travelled = np.cumsum(speed) / fps
    phase = look.phase + 2 * np.pi * travelled / (look.stride * look.height)
    return Visit(
        pid, round(start * fps), x, z, hx / norm, hz / norm, phase, _mean(np.clip(speed / 0.9, 0, 1), 1)
    )


def _timed(corners: list[tuple[float, float]], speed: float) -> list[Waypoint]:
    points: list[Waypoint] = [(0.0, *corners[0])]
    for (x0, z0), (x1, z1) in pairwise(corners):
        points.append((points[-1][0] + float(np.hypot(x1 - x0, z1 - z0)) / speed, x1, z1))
    return points


def _delayed(points: list[Waypoint], delay: float) -> list[Waypoint]:
    return [(t + delay, x, z) for t, x, z in points]


class _Paths:
    """Draws paths in one camera's view."""

    def __init__(self, camera: Camera, rng: np.random.Generator) -> None:
        self.camera, self.rng = camera, rng

    def depth(self, low: float = 0.0, high: float = 1.0) -> float:
        return float(
            self.camera.z_near + (self.camera.z_far - self.camera.z_near) * self.rng.uniform(low, high)
        )

    def border(self, side: int, z: float) -> tuple[float, float]:
        return side * (self.camera.half_width(z) + _OUTSIDE), z

    def ways(self, looks: list[Look]) -> list[list[Waypoint]]:
        """Paths for one person or two."""
        if len(looks) == 1:
            return self.solo(looks[0])
        kind = self.rng.choice(3, p=[0.5, 0.12, 0.38])
        return (self.crossing, self.together, self.meeting)[kind](looks[0], looks[1])

    def solo(self, look: Look) -> list[list[Waypoint]]:
        """Straight across, or with a leg towards or away from the camera, or back to where one came from."""
        side = int(self.rng.choice((-1, 1)))
        kind = self.rng.random()
        if kind < 0.4:
            corners = [self.border(side, self.depth()), self.border(-side, self.depth())]
        else:
            near, far = self.depth(0.0, 0.15), self.depth(0.8, 1.0)
            z0, z1 = (near, far) if self.rng.random() < 0.5 else (far, near)
            x = float(self.rng.uniform(-0.55, 0.55)) * self.camera.half_width(near)
            leave = -side if kind < 0.75 else side
            turn = x + 0.4 * float(self.rng.uniform(-1, 1))
            corners = [self.border(side, z0), (x, z0), (turn, z1), self.border(leave, z1)]
        return [_timed(corners, look.speed)]

    def crossing(self, a: Look, b: Look) -> list[list[Waypoint]]:
        """Opposite ways at nearly the same depth: the nearer one hides the other in passing."""
        side, z = int(self.rng.choice((-1, 1))), self.depth(0.05, 0.9)
        other = z + float(self.rng.uniform(0.12, 0.4))
        first = _timed([self.border(side, z), self.border(-side, z)], a.speed)
        second = _timed([self.border(-side, other), self.border(side, other)], b.speed)
        late = (first[-1][0] - second[-1][0]) / 2
        return [_delayed(first, max(-late, 0)), _delayed(second, max(late, 0))]

    def together(self, a: Look, b: Look) -> list[list[Waypoint]]:
        """Side by side at one pace, then apart."""
        side, z = int(self.rng.choice((-1, 1))), self.depth(0.15, 0.7)
        pace = min(a.speed, b.speed)
        x = -side * float(self.rng.uniform(0.0, 0.5)) * self.camera.half_width(z)
        gap, behind = float(self.rng.uniform(0.25, 0.45)), side * float(self.rng.uniform(0.15, 0.5))
        start = self.border(side, z)
        first = [start, (x, z), self.border(-side, self.depth(0.0, 0.2))]
        second = [
            (start[0] + behind, z + gap), (x + behind, z + gap), self.border(-side, self.depth(0.7, 1.0))
        ]  # fmt: skip
        return [_timed(first, pace), _timed(second, pace)]

    def meeting(self, a: Look, b: Look) -> list[list[Waypoint]]:
        """Towards each other, a stop face to face, then each goes on or turns back."""
        side, z = int(self.rng.choice((-1, 1))), self.depth(0.1, 0.8)
        x = float(self.rng.uniform(-0.4, 0.4)) * self.camera.half_width(z)
        half, other = 0.21, z + float(self.rng.uniform(0.05, 0.25))
        come = [
            _timed([self.border(side, z), (x + side * half, z)], a.speed),
            _timed([self.border(-side, other), (x - side * half, other)], b.speed),
        ]
        late = come[0][-1][0] - come[1][-1][0]
        come = [_delayed(come[0], max(-late, 0)), _delayed(come[1], max(late, 0))]
        pause = float(self.rng.uniform(0.6, 1.8))
        back = self.rng.random() < 0.6
        paths = []
        for points, look, own in zip(come, (a, b), (side, -side), strict=True):
            t, x0, z0 = points[-1]
            x1, z1 = self.border(own if back else -own, z0)
            length = abs(x1 - x0)
            paths.append([*points, (t + pause, x0, z0), (t + pause + length / look.speed, x1, z1)])
        return paths


def timetable(
    cameras: tuple[Camera, ...],
    looks: dict[int, Look],
    *,
    seconds: float,
    fps: float,
    empty: float,
    seed: tuple[int, ...],
) -> tuple[tuple[Visit, ...], ...]:
    """All visits of all cameras.

    Everyone appears in most cameras, once or twice in each, nowhere twice at a time, and at most four
    people are in one view. A visit for which there is no room is left out.

    Args:
        cameras: the cameras.
        looks: person -> look.
        seconds: length of each video.
        fps: frames per second.
        empty: seconds without people at the start.
        seed: of the population and its ways.

    Returns:
        Per camera its visits by start.
    """
    rng = np.random.default_rng([*seed, 41])
    order = [int(pid) for pid in rng.permutation(sorted(looks))]
    busy = {pid: np.zeros(int(np.ceil(seconds / _TICK)) + 1, bool) for pid in order}
    table = []
    for index, camera in enumerate(cameras):
        crowd = np.zeros(int(np.ceil(seconds / _TICK)) + 1, int)
        paths = _Paths(camera, rng)
        visits: list[Visit] = []
        for when, group in _plan(order, index, len(cameras), rng):
            ways = paths.ways([looks[pid] for pid in group])
            length = max(way[-1][0] for way in ways)
            slot = _free_slot(when, length, group, busy, crowd, first=int(np.ceil(empty / _TICK)))
            if slot is None:
                continue
            crowd[slot] += len(group)
            for pid, way in zip(group, ways, strict=True):
                busy[pid][slot] = True
                visits.append(_walk(way, looks[pid], pid=pid, start=slot.start * _TICK, fps=fps))
        table.append(tuple(sorted(visits, key=lambda v: (v.start, v.pid))))
    return tuple(table)


def _plan(
    order: list[int], index: int, n_cameras: int, rng: np.random.Generator
) -> list[tuple[float, tuple[int, ...]]]:
    """Who should come to a camera when (0-1 of its time), alone or in twos."""
    wanted = []
    for rank, pid in enumerate(order):
        if n_cameras > 2 and rng.random() < _STAY_AWAY:
            continue
        # Everyone goes round the cameras in turn.
        when = rank / len(order) + index / n_cameras + rng.normal(0, 0.05)
        wanted.append((when % 1.0, pid))
        if rng.random() < _COME_AGAIN:
            wanted.append(((when + rng.uniform(0.35, 0.65)) % 1.0, pid))
    wanted.sort()
    plan: list[tuple[float, tuple[int, ...]]] = []
    while wanted:
        when, pid = wanted.pop(0)
        partner = next((i for i, (_, other) in enumerate(wanted[:3]) if other != pid), None)
        if partner is not None and rng.random() < _IN_TWOS:
            plan.append((when, (pid, wanted.pop(partner)[1])))
        else:
            plan.append((when, (pid,)))
    return plan


def _free_slot(
    when: float,
    length: float,
    group: tuple[int, ...],
    busy: dict[int, Array],
    crowd: Array,
    *,
    first: int,
) -> slice | None:
    """The ticks nearest to the wanted time at which all of the group are free and the view has room."""
    ticks = int(np.ceil(length / _TICK)) + 1
    starts = np.arange(first, len(crowd) - ticks)
    if not len(starts):
        return None
    want = first + when * (len(starts) - 1)
    for start in starts[np.argsort(np.abs(starts - want), kind="stable")]:
        slot = slice(int(start), int(start) + ticks)
        if crowd[slot].max() + len(group) <= _MOST_AT_ONCE and not any(busy[p][slot].any() for p in group):
            return slot
    return None
