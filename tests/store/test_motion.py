"""The detector motion: drawn scenes, the generated world, real footage; its law of size, and what it says."""

import numpy as np
import pytest
from tests.store.test_detect import _score

from tracklearn import world
from tracklearn.core.noise import match_boxes
from tracklearn.store.detect.blobs import Blob, cut, find, join
from tracklearn.store.detect.detector import open_detector
from tracklearn.store.detect.hog import PersonCheck
from tracklearn.store.detect.motion import MotionDetector
from tracklearn.store.detect.size import SizeLaw
from tracklearn.store.film.mot import Boxes, detection_f1, read_truth
from tracklearn.store.film.track import open_tracker
from tracklearn.store.film.video import open_frames


def _scene(seed=0, height=270, width=480):
    """A textured background and how to put people and noise before it."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 200, (height // 15, width // 15, 3), dtype=np.uint8)
    background = np.kron(coarse, np.ones((15, 15, 1), np.uint8))

    def picture(people, gain=1.0):
        image = background.astype(np.int16)
        for x, y, w, h, colour in people:
            neck, waist = y + h // 6, y + h // 2
            image[y:neck, x + w // 4 : x + 3 * w // 4] = (200, 160, 140)
            image[neck:waist, x : x + w] = colour
            image[waist : y + h, x + w // 8 : x + w - w // 8] = (30, 30, 60)
        image = image * gain + rng.normal(0, 3, image.shape)
        return image.clip(0, 255).astype(np.uint8)

    return picture


def _walkers(i):
    return [
        (10 + 3 * i, 150, 34, 100, (220, 30, 30)),
        (430 - 3 * i, 60, 24, 70, (20, 220, 40)),
    ]


def _truth(i):
    return np.array([[x, y, x + w, y + h] for x, y, w, h, _ in _walkers(i)], float)


def test_motion_finds_people_who_walk_once_it_has_settled():
    picture, detector = _scene(), open_detector("motion")
    for i in range(15):
        box, score = detector(picture([]), i)
        assert len(box) == 0
    rows, truth = [], []
    for i in range(100):
        box, score = detector(picture(_walkers(i)), 15 + i)
        assert ((score >= 0.5) & (score <= 1)).all()
        rows += [(i, -1, *b) for b in box]
        truth += [(i, -1, *b) for b in _truth(i)]
    rows, truth = np.array(rows), np.array(truth)
    boxes, true = (Boxes(r[:, 0], r[:, 1], r[:, 2:], np.ones(len(r))) for r in (rows, truth))
    assert detection_f1(boxes, true)["f1"] > 0.9


def test_motion_is_silent_while_it_settles_and_repeats_itself():
    runs = []
    for _ in range(2):
        picture, detector = _scene(), open_detector("motion")
        runs.append([detector(picture(_walkers(i)), i)[0].tolist() for i in range(30)])
    assert runs[0] == runs[1]
    assert not any(runs[0][:10])


def test_motion_says_nothing_when_the_light_changes_and_recovers():
    picture, detector = _scene(), open_detector("motion")
    for i in range(20):
        detector(picture([]), i)
    for i in range(20, 60):
        box, _ = detector(picture([], gain=1.6), i)
        assert len(box) == 0
    counts = [len(detector(picture(_walkers(i), gain=1.6), 60 + i)[0]) for i in range(40)]
    assert np.mean(np.array(counts[5:]) == 2) > 0.8


def test_motion_drops_what_is_no_person():
    picture, detector = _scene(), open_detector("motion")
    for i in range(15):
        detector(picture([]), i)
    for i in range(30):
        flat = (40 + 3 * i, 200, 200, 30, (250, 250, 0))  # a car: wide and low
        speck = (300, 20 + 2 * i, 8, 10, (250, 0, 250))  # a bird
        box, _ = detector(picture([flat, speck]), 15 + i)
        assert len(box) == 0


def test_motion_leaves_no_ghost_of_someone_who_leaves():
    picture, detector = _scene(), MotionDetector(history=60)
    still = (200, 100, 40, 110, (220, 30, 30))
    for i in range(80):
        detector(picture([still]), i)
    for i in range(12):
        box, _ = detector(picture([]), 80 + i)
        assert len(box) == 0


def test_motion_cuts_people_who_walk_side_by_side():
    picture, detector = _scene(), open_detector("motion")
    for i in range(15):
        detector(picture([]), i)
    for i in range(60):
        detector(picture([(10 + 5 * i, 120, 36, 100, (220, 30, 30))]), 15 + i)
    counts = []
    for i in range(40):
        x = 40 + 5 * i
        pair = [(x, 120, 36, 100, (220, 30, 30)), (x + 33, 122, 36, 100, (20, 220, 40))]
        counts.append(len(detector(picture(pair), 75 + i)[0]))
    assert np.mean(np.array(counts) == 2) > 0.8


def test_motion_threshold_and_small_pictures():
    picture, detector = _scene(height=30, width=45), open_detector("motion", threshold=2.0)
    for i in range(15):
        assert len(detector(picture([(i, 4, 8, 20, (250, 0, 0))]), i)[0]) == 0


def _watch(detector, pictures, first=0):
    """Boxes and scores of pictures in a row."""
    return [detector(picture, first + i) for i, picture in enumerate(pictures)]


def _f1(found, truths):
    rows, true = (np.array([(i, *b) for i, boxes in enumerate(x) for b in boxes]) for x in (found, truths))
    boxes = (Boxes(r[:, 0], 0 * r[:, 0], r[:, 1:], np.ones(len(r))) for r in (rows, true))
    return detection_f1(*boxes)["f1"]


def test_motion_bears_with_a_camera_that_changes_its_exposure_and_white_balance():
    """By less than what counts as a sudden change of light: a tenth, within ten pictures."""
    picture, detector = _scene(), open_detector("motion")
    _watch(detector, [picture([]) for _ in range(15)])
    gain = [1 + min(max(i - 40, 0), 10) / 10 * np.array([0.04, 0.07, 0.15]) for i in range(100)]
    found = _watch(detector, [picture(_walkers(i), gain=gain[i]) for i in range(100)], first=15)
    assert _f1([box for box, _ in found], [_truth(i) for i in range(100)]) > 0.9
    assert sum(len(box) for box, _ in found) < 230


def _crowd(i):
    """Many who walk past each other in three rows, and so are seldom apart, taller the nearer they are."""
    people = []
    for row, (foot, tall) in enumerate([(120, 50), (180, 80), (250, 115)]):
        for k in range(7):
            x = (k * 75 + 30 * row + (4 if row != 1 else -4) * i) % 520 - 40
            people.append((x, foot - tall, round(0.36 * tall), tall, (200, 40 + 20 * k, 60 * row)))
    return people


def test_motion_learns_the_law_of_size_and_a_crowd_does_not_pull_it_down():
    picture, detector = _scene(), open_detector("motion")
    _watch(detector, [picture([]) for _ in range(15)])
    lone = [[(10 + 5 * (i % 90), f - t, round(0.36 * t), t, (220, 30, 30))]
            for f, t in [(120, 50), (180, 80), (250, 115)] for i in range(40)]  # fmt: skip
    _watch(detector, [picture(people) for people in lone], first=15)
    slope = (115 - 50) / (250 - 120)
    assert detector.law.slope == pytest.approx(slope, rel=0.1)
    assert detector.law.at(180)[0] == pytest.approx(80, rel=0.05)
    assert detector.law.share > 0.9
    found = _watch(detector, [picture(_crowd(i)) for i in range(120)], first=200)
    assert detector.law.at(120)[0] == pytest.approx(50, rel=0.12)
    assert detector.law.at(250)[0] == pytest.approx(115, rel=0.12)
    tall = np.concatenate([box[:, 3] - box[:, 1] for box, _ in found])
    assert np.median(tall) > 60


# 120 rows, people of 40 at row 60 and of 80 at row 110.
LAW = SizeLaw(-8, 0.8, 0.4, 1.0, 100, 60.0, 110.0, False)


def _mask(*boxes):
    mask = np.zeros((120, 160), np.uint8)
    for x, y, w, h in boxes:
        mask[y : y + h, x : x + w] = 1
    return mask


def test_fragments_of_one_person_are_joined_and_those_of_two_are_not():
    whole = _mask((20, 30, 30, 30), (22, 64, 26, 46))  # trunk and legs of one of 80
    beside = _mask((100, 40, 12, 25), (100, 70, 12, 39), (130, 40, 12, 69))
    blobs, _ = find(whole | beside, None, least_area=20)
    joined = sorted(b.corners for b in join(blobs, LAW))
    assert joined == [(20, 30, 50, 110), (100, 40, 112, 109), (130, 40, 142, 109)]
    assert len(join(find(_mask((20, 0, 30, 40), (20, 64, 30, 46)), None, least_area=20)[0], LAW)) == 2


def test_a_gap_in_the_background_that_somebody_left_is_no_blob():
    mask = _mask((20, 30, 30, 60), (90, 30, 30, 60))
    edges = np.full(mask.shape, 50.0, np.float32)
    edges[:, 80:] = -50
    blobs, label = find(mask, edges, least_area=20)
    assert [b.corners for b in blobs] == [(20, 30, 50, 90)]
    assert blobs[0].pixels(label).sum() == 30 * 60


@pytest.mark.parametrize("n", [2, 3, 4])
def test_wide_blobs_are_cut_into_as_many_people(n):
    tall, wide = 72, 29  # of feet at row 100
    part = np.zeros((tall, n * (wide + 2)), np.uint8)
    for k in range(n):
        x = k * (wide + 2)
        part[8:, x : x + wide + 2] = 1  # shoulders touch
        part[:8, x + 9 : x + 20] = 1  # heads do not
    found = sorted(box for box, _ in cut(part, LAW, None, left=10, top=28, rows=120))
    assert len(found) == n
    for k, box in enumerate(found):
        assert box == pytest.approx((10 + k * 31, 28, 10 + k * 31 + 30, 100), abs=8)


def test_people_one_behind_the_other_are_cut_by_their_rows():
    """Feet at row 70, 48 tall, and at row 110, 80 tall, heads and feet apart."""
    mask = _mask((40, 22, 18, 48), (55, 30, 32, 80))
    (blob,), label = find(mask, None, least_area=20)
    found = sorted(box for box, _ in cut(blob.pixels(label), LAW, None, left=blob.x, top=blob.y, rows=120))
    assert len(found) == 2
    assert found[0] == pytest.approx((40, 22, 59, 70), abs=6)
    assert found[1] == pytest.approx((55, 30, 87, 110), abs=8)


def test_feet_outside_the_picture_are_known_from_the_height():
    detector = MotionDetector()
    detector._size.law = LAW
    box, _ = detector.people(_mask((20, 20, 40, 100)))  # taller than any whole person could be, cut off below
    assert box.tolist() == [[20, 20, 60, 120]]


def test_what_stands_too_high_in_the_picture_or_is_too_low_is_nobody():
    detector = MotionDetector()
    mask = _mask((20, 12, 8, 20), (60, 90, 8, 18))
    assert len(detector.people(mask)[0]) == 2
    detector._size.law = LAW
    assert len(detector.people(mask)[0]) == 0


def test_blob_arithmetic():
    a, b = Blob(2, 3, 4, 5, 10, (1,)), Blob(5, 1, 4, 3, 12, (2,))
    assert a.joined(b) == Blob(2, 1, 7, 7, 22, (1, 2))
    assert (a.foot, a.corners, a.fill) == (8, (2, 3, 6, 8), 0.5)


# --- who is a whole person ----------------------------------------------------------------------------


def _world_frames(n, **settings):
    made = world.make(world.Config(n_people=6, n_cameras=1, seconds=n / 12, **settings))
    return made, list(made.frames(0))


def test_the_law_of_a_world_is_that_of_its_camera():
    """Found from its film alone; the truth is a line through its true boxes."""
    _, frames = _world_frames(300, seed=11, people_seed=23)
    detector = open_detector("motion")
    for i, (image, _) in enumerate(frames):
        detector(image, i)
    box = np.concatenate([truth.box[(truth.box[:, 1] > 1) & (truth.box[:, 3] < 269)] for _, truth in frames])
    slope, offset = np.polyfit(box[:, 3], box[:, 3] - box[:, 1], 1)
    law = detector.law
    assert law.share > 0.8
    for foot in (law.lowest, (law.lowest + law.highest) / 2, law.highest):
        assert law.at(foot)[0] == pytest.approx(offset + slope * foot, rel=0.1)
    account = detector.account()["size_law"]
    assert account["offset"] == pytest.approx(law.offset, abs=1e-3)
    assert detector.warning() == ""


def test_whole_people_look_like_people_and_their_parts_do_not():
    _, frames = _world_frames(120, seed=11, people_seed=23)
    check, whole, parts, beyond = PersonCheck(), [], [], []
    for image, truth in frames[30::6]:
        grey = image[..., 1]
        for x1, y1, x2, y2 in truth.box[truth.visibility > 0.98]:
            high = y2 - y1
            whole.append(check.margin(grey, (x1, y1, x2, y2)))
            parts += [check.margin(grey, (x1, y1, x2, y1 + high / 2))]
            parts += [check.margin(grey, (x1, y2 - high / 2, x2, y2))]
            beyond.append(check.margin(grey, (x1, y1 - high, x2, y2)))
    assert len(whole) > 10
    assert np.mean(np.array(whole) > -1) > 0.5
    assert np.mean(np.array(parts) > 0) < 0.1
    assert np.median(whole) > np.median(parts) + 1
    assert np.median(whole) > np.median(beyond) + 1


def test_the_look_of_a_box_outside_the_picture_is_none():
    check, grey = PersonCheck(), np.zeros((50, 50), np.uint8)
    assert check.margin(grey, (200, 200, 220, 260)) == -np.inf
    assert check.margin(grey, (10, 40, 10, 40)) == -np.inf
    assert np.isfinite(check.margin(grey, (-10, -20, 30, 90)))


def test_where_looks_tell_a_box_that_looks_like_nobody_starts_no_track():
    detector, mask = MotionDetector(), _mask((40, 40, 24, 62))
    blank = np.full(mask.shape, 90, np.uint8)
    assert detector.people(mask, None, blank)[1].tolist() == [1.0]
    detector._size.looks_tell = True
    (score,) = detector.people(mask, None, blank)[1]
    assert score == 0.4 < detector.confident
    assert detector.people(mask)[1].tolist() == [1.0]


# --- what it says -------------------------------------------------------------------------------------


def test_without_whole_people_it_says_that_there_is_no_law():
    picture, detector = _scene(), open_detector("motion")
    _watch(detector, [picture([]) for _ in range(15)])
    assert detector.warning() == ""
    person = (60, 80, 40, 190, (220, 30, 30))  # the feet are not in the picture
    _watch(detector, [picture([(x, *person[1:])]) for x in range(60, 160, 5)], first=15)
    assert detector.account() == {"size_law": None}
    assert "could not learn how tall people are in this picture" in detector.warning()
    assert "it saw, 0, are too few, 20 are needed" in detector.warning()


def test_a_camera_that_moves_is_suspected():
    detector = open_detector("motion")
    rng = np.random.default_rng(0)
    wide = np.kron(rng.integers(60, 200, (18, 100, 3), dtype=np.uint8), np.ones((15, 15, 1), np.uint8))
    for i in range(60):
        detector(np.ascontiguousarray(wide[:, 15 * i : 15 * i + 480]), i)
    assert "of 60 frames: the detector motion is for cameras that do not move" in detector.warning()
    assert detector.law is None


# --- real footage -------------------------------------------------------------------------------------


def test_motion_finds_real_people(data):
    # The first seconds are its worst: the scene starts full of people, and their size is not known yet.
    assert _score(open_detector("motion"), data, 100) > 0.6


@pytest.mark.slow
def test_motion_finds_real_people_on_the_whole_clip(data):
    assert _score(open_detector("motion"), data, 10_000) >= 0.78


def _crops_on_people(data, name, last):
    """Share of tracked boxes with a person, in the first `last` pictures of a clip."""
    truth = read_truth(data / "video" / f"{name}.gt.txt")
    detector, rows = open_detector("motion"), []
    with open_frames(data / "video" / f"{name}.mp4") as frames:
        tracker = open_tracker(fps=frames.info.fps, detector_threshold=detector.confident)
        for frame in frames:
            if frame.number >= last:
                break
            box, score = detector(frame.image, frame.number)
            _, box, _ = tracker.update(box, score, frame.time)
            rows += [(frame.number, *b) for b in box]
    rows = np.array(rows)
    pid = match_boxes(rows[:, 0].astype(int), rows[:, 1:], truth.frame, truth.track, truth.box)
    return np.mean(pid >= 0), detector


def test_a_change_of_exposure_in_a_mall_leaves_people_whole(data):
    """The camera brightens from frame 75 to 90; people of 90 to 370 pixels once came out in tiles of 54."""
    share, detector = _crops_on_people(data, "mot17-09-inpainted", 150)
    assert share >= 0.5
    assert detector.law.at(400)[0] == pytest.approx(228, rel=0.15)


@pytest.mark.slow
def test_half_of_the_crops_of_a_mall_are_on_people(data):
    share, _ = _crops_on_people(data, "mot17-09-inpainted", 10_000)
    assert share >= 0.5
