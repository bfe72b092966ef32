"""The generated world: the same everywhere from the same seed, and its truth is what it draws."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys

import cv2
import numpy as np
import pytest

from tracklearn import world
from tracklearn.world import scene, walk

SMALL = world.Config(n_people=8, n_cameras=2, seconds=24.0, fps=6.0, width=240, height=136)


def digest(config: world.Config, camera: int, n: int) -> str:
    total = hashlib.sha256()
    for image, truth in itertools.islice(world.make(config).frames(camera), n):
        for array in (image, truth.pid, truth.box, truth.visibility):
            total.update(array.tobytes())
    return total.hexdigest()


@pytest.fixture(scope="module")
def video() -> list[tuple[np.ndarray, world.Boxes]]:
    return list(world.make(SMALL).frames(0))


def test_same_config_same_bytes_in_another_process():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_world as t; print(t.digest(t.SMALL, 1, 40))"
    )
    here = __file__.rsplit("/", 1)[0]
    other = subprocess.run([sys.executable, "-c", code, here], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest(SMALL, 1, 40)


def test_a_camera_does_not_depend_on_others_having_been_rendered():
    made = world.make(SMALL)
    list(itertools.islice(made.frames(0), 30))
    second = [image for image, _ in itertools.islice(made.frames(1), 30)]
    alone = [image for image, _ in itertools.islice(world.make(SMALL).frames(1), 30)]
    np.testing.assert_array_equal(second, alone)


def test_shapes_and_types(video):
    assert len(video) == world.make(SMALL).n_frames == 144
    for image, truth in video:
        assert image.shape == (136, 240, 3)
        assert image.dtype == np.uint8
        assert truth.pid.dtype == np.int64
        assert truth.box.dtype == truth.visibility.dtype == np.float32
        assert truth.box.shape == (len(truth), 4)
        assert len(np.unique(truth.pid)) == len(truth)


def test_boxes_lie_inside_the_frame(video):
    box = np.concatenate([truth.box for _, truth in video])
    visibility = np.concatenate([truth.visibility for _, truth in video])
    assert len(box) > 100
    assert (box[:, :2] >= 0).all()
    assert (box[:, 2] <= 240).all()
    assert (box[:, 3] <= 136).all()
    assert (box[:, 2:] - box[:, :2] >= 2).all()
    assert (visibility >= 0).all()
    assert (visibility <= 1).all()
    assert (visibility > 0.9).mean() > 0.4


def test_starts_empty(video):
    assert all(len(truth) == 0 for _, truth in video[:12])
    assert any(len(truth) for _, truth in video[12:48])


def test_boxes_match_drawn_pixels():
    """Nobody is drawn outside the boxes (but for soft shadows and edges), and boxes fit tightly."""
    stage = scene._Stage(world.make(SMALL), 0)
    empty, nobody = stage.compose(0)
    assert len(nobody) == 0
    tight = 0
    for frame in range(12, 144, 3):
        picture, truth = stage.compose(frame)
        change = np.abs(picture.astype(int) - empty).max(2)
        changed, different = change > 12, change > 2
        outside = changed.copy()
        for (x1, y1, x2, y2), visibility in zip(truth.box.astype(int), truth.visibility, strict=True):
            outside[max(y1 - 1, 0) : y2 + 5, max(x1 - 4, 0) : x2 + 4] = False
            inside = changed[y1:y2, x1:x2]
            edges = different[y1:y2, x1:x2]
            if visibility > 0.995:
                assert inside.mean() > 0.25
                tight += 1
                assert edges[:2].any()
                assert edges[:, :2].any()
                assert edges[:, -2:].any()
            elif visibility > 0.3:
                assert inside.any()
        assert not outside.any()
    assert tight > 10


def test_occluders_and_people_lower_visibility():
    made = world.make(SMALL)
    part = [v for _, truth in made.frames(0) for v in truth.visibility]
    assert min(part) < 0.5


def test_same_cameras_other_people():
    first, second = (
        world.make(SMALL),
        world.make(world.Config(**{**vars(SMALL), "people_seed": 5, "first_pid": 100})),
    )
    assert first.cameras == second.cameras
    for camera in range(2):
        a, b = next(first.frames(camera))[0], next(second.frames(camera))[0]
        np.testing.assert_array_equal(a, b)
    seen = [
        {int(p) for camera in range(2) for _, t in w.frames(camera) for p in t.pid} for w in (first, second)
    ]
    assert seen[0]
    assert seen[1]
    assert not seen[0] & seen[1]
    assert not set(first.looks.values()) & set(second.looks.values())


def test_another_seed_gives_other_cameras():
    other = world.make(world.Config(**{**vars(SMALL), "seed": 1}))
    a, b = next(world.make(SMALL).frames(0))[0], next(other.frames(0))[0]
    assert np.abs(a.astype(int) - b).mean() > 3


def test_pids_beyond_first_pid_are_other_people():
    base, later = world.make(SMALL), world.make(world.Config(**{**vars(SMALL), "first_pid": 8}))
    assert set(base.looks) == set(range(8))
    assert set(later.looks) == set(range(8, 16))
    assert not set(base.looks.values()) & set(later.looks.values())


@pytest.mark.parametrize("seed", [0, 3])
def test_timetable_of_the_default_world(seed):
    made = world.make(world.Config(seed=seed))
    config, n = made.config, made.n_frames
    occupied: dict[int, np.ndarray] = {}
    for visits in made.visits:
        crowd = np.zeros(n, int)
        for visit in visits:
            assert visit.start >= config.fps * 2
            assert visit.end <= n
            crowd[visit.start : visit.end] += 1
            times = occupied.setdefault(visit.pid, np.zeros(n, int))
            times[visit.start : visit.end] += 1
        assert crowd.max() <= walk._MOST_AT_ONCE
        assert crowd.mean() > 1
    assert all(times.max() == 1 for times in occupied.values())  # nobody is in two places at a time
    cameras = [
        len({i for i, visits in enumerate(made.visits) for v in visits if v.pid == p}) for p in made.looks
    ]
    assert np.mean(cameras) > 0.75 * config.n_cameras
    assert min(cameras) >= 1


def test_visits_begin_and_end_outside_the_frame():
    made = world.make(SMALL)
    for camera, visits in zip(made._cameras, made.visits, strict=True):
        for visit in visits:
            x = camera.foot(visit.x, visit.z)[0]
            assert (x[0] < 0) or (x[0] > camera.width)
            assert (x[-1] < 0) or (x[-1] > camera.width)
            assert np.hypot(visit.hx, visit.hz) == pytest.approx(np.ones(len(x)))
            assert visit.z.min() > camera.z_near * 0.9
            assert visit.z.max() < camera.z_far * 1.1


def test_colours_differ_between_cameras_by_the_strength_of_the_cast():
    card = np.full((136, 240, 3), (150, 110, 90), np.uint8)

    def records(cast: float) -> np.ndarray:
        sensors = [scene.Sensor(i, n_cameras=4, width=240, height=136, seed=0, cast=cast) for i in range(4)]
        return np.array([sensor.record(card, 0).mean((0, 1)) for sensor in sensors])

    def spread(colour: np.ndarray) -> float:
        share = colour / colour.sum(1, keepdims=True)
        return float(share.std(0).mean())

    assert spread(records(1.0)) > 0.015
    assert spread(records(0.0)) < 0.004
    assert np.ptp(records(1.0).mean(1)) > 15


def test_noise_and_flicker_change_every_frame_but_not_the_picture_given():
    card = np.full((136, 240, 3), 120, np.uint8)
    sensor = scene.Sensor(0, n_cameras=2, width=240, height=136, seed=0, cast=1.0)
    first, second = sensor.record(card, 0), sensor.record(card, 1)
    assert (first != second).mean() > 0.3
    assert (card == 120).all()
    np.testing.assert_array_equal(first, sensor.record(card, 0))


def test_people_who_share_colours_look_different():
    pairs = 0
    for family in range(6):
        looks = [world.scene.look(0, 4 * family + i) for i in range(4)]
        assert len({look.bag for look in looks}) == 4
        assert len({(look.pattern, look.top, look.bottom, look.hem) for look in looks}) == 4
        pairs += sum(look.pattern in ("plain", "print", "open") for look in looks)
    assert pairs == 12  # two of each four wear one colour above and the other below


def test_a_figure_grows_with_scale_and_shows_its_side():
    from tracklearn.world.figure import Pose, draw

    look = scene.look(0, 0)

    def extent(scale: float, hx: float, hz: float) -> np.ndarray:
        sprite = draw(look, Pose(100, 200, scale, hx, hz, 0.0, 0.0, 0.1))
        _, y, w, h = cv2.boundingRect((sprite.image[:, :, 3] > 127).astype(np.uint8))
        assert abs(sprite.top + y + h - 200) < 0.06 * scale
        return np.array([w, h])

    small, large = extent(40, 1, 0), extent(80, 1, 0)
    assert large[1] == pytest.approx(2 * small[1], abs=4)
    assert large[1] == pytest.approx(look.height * 80, rel=0.08)
    assert extent(80, 0, -1)[0] > extent(80, 0.99, 0.1)[0] * 0.8


def test_more_cameras_than_places_have_distinct_names():
    names = world.make(world.Config(n_cameras=7, n_people=2, seconds=20)).cameras
    assert len(set(names)) == 7
    assert names[5:] == ("plaza-2", "lobby-2")


def test_wrong_values_are_refused():
    with pytest.raises(ValueError, match="n_people is 0, expected at least 1"):
        world.Config(n_people=0)
    with pytest.raises(ValueError, match="cast is nan"):
        world.Config(cast=float("nan"))
    with pytest.raises(ValueError, match="camera is 2, expected 0 to 1"):
        world.make(SMALL).frames(2)
