"""Who walks where and when: visits with paths on the ground, alone, crossing, side by side, meeting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracklearn.world.camera import Camera
from tracklearn.world.look import Look

_MOST_AT_ONCE = 4
_OUTSIDE = 0.5  # metres beyond the frame border where a path starts and ends
_TICK = 0.25  # seconds, resolution of the timetable

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
    x: NDArray[Any]
    z: NDArray[Any]
    hx: NDArray[Any]
    hz: NDArray[Any]
    phase: NDArray[Any]
    amount: NDArray[Any]

    @property
    def end(self) -> int:
        """One past the last frame."""
        return self.start + len(self.x)


def _mean(values: NDArray[Any], window: int) -> NDArray[Any]:
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
    for (x0, z0), (x1, z1) in zip(corners, corners[1:], strict=False):
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
        other = z + float(self.rng.uniform(0.2, 0.5))
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
        half, other = 0.26, z + float(self.rng.uniform(0.05, 0.3))
        come = [
            _timed([self.border(side, z), (x + side * half, z)], a.speed),
            _timed([self.border(-side, other), (x - side * half, other)], b.speed),
        ]
        late = come[0][-1][0] - come[1][-1][0]
        come = [_delayed(come[0], max(-late, 0)), _delayed(come[1], max(late, 0))]
        pause = float(self.rng.uniform(0.8, 2.2))
        back = self.rng.random() < 0.5
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
    pids = [int(p) for p in rng.permutation(sorted(looks))]
    ticks = int(np.ceil(seconds / _TICK)) + 1
    busy = {pid: np.zeros(ticks, bool) for pid in pids}
    span = seconds - empty
    table = []
    for index, camera in enumerate(cameras):
        crowd = np.zeros(ticks, int)
        paths = _Paths(camera, rng)
        planned = []
        for rank, pid in enumerate(pids):
            if len(cameras) > 2 and rng.random() < 0.1:
                continue
            base = rank / len(pids) + index / len(cameras) + rng.normal(0, 0.05)
            planned.append((base % 1.0, pid))
            if rng.random() < 0.15:
                planned.append(((base + rng.uniform(0.35, 0.65)) % 1.0, pid))
        planned.sort()
        visits: list[Visit] = []
        while planned:
            slot, pid = planned.pop(0)
            partner = next((i for i, p in enumerate(planned[:3]) if p[1] != pid), None)
            group = [pid]
            if partner is not None and rng.random() < 0.62:
                group.append(planned.pop(partner)[1])
            members = [looks[p] for p in group]
            if len(group) == 1:
                ways = paths.solo(members[0])
            else:
                kind = rng.choice(3, p=[0.45, 0.2, 0.35])
                ways = (paths.crossing, paths.together, paths.meeting)[kind](members[0], members[1])
            length = max(way[-1][0] for way in ways)
            room = int((span - length) / _TICK)
            if room < 1:
                continue
            want = int(slot * room)
            for tick in sorted(range(room), key=lambda t: abs(t - want)):
                first = int(empty / _TICK) + tick
                last = first + int(np.ceil(length / _TICK)) + 1
                free = not any(busy[p][first:last].any() for p in group)
                if free and crowd[first:last].max() + len(group) <= _MOST_AT_ONCE:
                    break
            else:
                continue
            crowd[first:last] += len(group)
            for person, way in zip(group, ways, strict=True):
                busy[person][first:last] = True
                visits.append(_walk(way, looks[person], pid=person, start=first * _TICK, fps=fps))
        table.append(tuple(sorted(visits, key=lambda v: (v.start, v.pid))))
    return tuple(table)
