"""`tracklearn track`: from a film to corrected tracks, with a network that knows people by their colour."""

import json

import numpy as np
import pytest

from tests.app import test_identities
from tests.app.exported_runs import write_run, write_set
from tests.app.made_files import write_onnx
from tests.cases.films import boxes_text, film
from tests.optional import needs
from tracklearn.app.retrack import learned as learning
from tracklearn.store.film.mot import read_results

COMMAND = ["track"]
RED, BLUE = (220, 30, 30), (30, 30, 220)
NOTES = {"pixel_mean": "0.4 0.4 0.4", "pixel_std": "0.3 0.3 0.3"}


def visits():
    """(track, first frame, last + 1, left at first, right at last, colour): red comes back after blue."""
    return [(0, 0, 20, 10, 70, RED), (1, 4, 44, 100, 40, BLUE), (2, 40, 60, 90, 20, RED)]


def places():
    for number, first, end, left, right, colour in visits():
        for frame in range(first, end):
            x = left + (right - left) * (frame - first) // (end - first)
            yield frame, number, x, colour


@pytest.fixture
def video(tmp_path):
    """A film of 60 frames at 10 a second, a tracker's results and detections beside it."""
    images = [np.full((120, 160, 3), 90, np.uint8) for _ in range(60)]
    rows = []
    for frame, number, x, colour in places():
        y = 30 if number != 1 else 50
        images[frame][y : y + 60, x : x + 24] = colour
        rows.append((frame, number, x, y, 24, 60))
    boxes_text(tmp_path / "results.txt", rows)
    boxes_text(tmp_path / "found.txt", [(f, -1, *box) for f, _, *box in rows])
    return film(tmp_path / "hall.mp4", images)


@pytest.fixture
def colours(tmp_path):
    needs("onnxruntime")
    return write_onnx(tmp_path / "colours.onnx", notes={**NOTES, "threshold distance": "0.8"})


def numbers(path):
    """Track of the visits -> numbers of its boxes."""
    boxes = read_results(path)
    place = {(f, x): n for f, n, x, _ in places()}
    found = {}
    for frame, track, x in zip(
        boxes.frame.tolist(), boxes.track.tolist(), boxes.box[:, 0].tolist(), strict=True
    ):
        found.setdefault(place[frame, round(x)], set()).add(track)
    return found


@pytest.mark.parametrize("delay", ["0", "1", "4"])
def test_a_trackers_results_are_linked_again(call, video, colours, delay):
    source = f"hall={video.parent}/results.txt+{video}"
    code, out, err = call(source, "--reid", colours, "--out", "tracks.txt", "--delay", delay, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert numbers("tracks.txt") == {0: {1}, 1: {2}, 2: {1}}
    assert result["counts"]["people"] == 2
    assert result["counts"]["returns"] == 1
    assert (result["counts"]["frames"], result["counts"]["boxes"]) == (60, 80)
    assert result["counts"]["crops"] == 80
    assert 0 < result["reid_share"] < 1
    assert result["frames_per_second"] > 0
    assert result["bounds"]["piece"]["threshold"] == 0.8


def test_a_film_in_storage_is_fetched_to_be_followed(call, video, colours, tmp_path):
    place = f"file://{tmp_path}"
    source = f"{place}/results.txt+{place}/hall.mp4"
    code, _, err = call(source, "--reid", colours, "--out", "tracks.txt")
    assert code == 0, err
    assert numbers("tracks.txt") == {0: {1}, 1: {2}, 2: {1}}
    (tmp_path / "text.mp4").write_text("this is no video")
    code, _, err = call(f"{place}/text.mp4", "--reid", colours, "--out", "none.txt")
    assert code == 2
    assert f"{place}/text.mp4: " in err
    assert "tracklearn-" not in err


def test_a_detector_and_a_tracker_make_the_tracks(call, video, colours):
    code, out, err = call(
        video, "--detector", f"file:{video.parent}/found.txt", "--reid", colours, "--out", "tracks.txt"
    )
    assert code == 0, err
    assert {k: len(v) for k, v in numbers("tracks.txt").items()} == {0: 1, 1: 1, 2: 1}
    assert numbers("tracks.txt")[0] == numbers("tracks.txt")[2]
    assert "are probably 2 people" in out
    assert "1 came back as somebody known" in out
    assert "frames/s, of which appearance takes" in out
    assert out.splitlines()[-1] == "tracks.txt"


def test_frames_in_a_folder_and_a_stride(call, video, colours, tmp_path):
    import cv2

    from tracklearn.store.film.video import open_frames

    (tmp_path / "frames").mkdir()
    with open_frames(video) as frames:
        for frame in frames:
            cv2.imwrite(str(tmp_path / "frames" / f"{frame.number + 1:06d}.png"), frame.image[..., ::-1])
    source = f"{video.parent}/results.txt+{tmp_path}/frames"
    call(source, "--reid", colours, "--out", "all.txt", "--set", "ingest.fps=10")
    code, _, err = call(
        source, "--reid", colours, "--out", "half.txt", "--set", "ingest.fps=10", "--stride", "2"
    )
    assert code == 0, err
    assert numbers("all.txt") == numbers("half.txt") == {0: {1}, 1: {2}, 2: {1}}
    assert set(read_results("half.txt").frame.tolist()) == set(range(0, 60, 2))


def test_a_file_that_is_there_stays_unless_it_is_to_be_replaced(call, video, colours, tmp_path):
    (tmp_path / "tracks.txt").write_text("mine")
    source = f"{video.parent}/results.txt+{video}"
    code, _, err = call(source, "--reid", colours, "--out", "tracks.txt")
    assert code == 2
    assert "replace it with --resume" in err
    assert (tmp_path / "tracks.txt").read_text() == "mine"
    assert call(source, "--reid", colours, "--out", "tracks.txt", "--resume")[0] == 0
    assert numbers("tracks.txt") == {0: {1}, 1: {2}, 2: {1}}


def test_nothing_is_written_where_nobody_is_found(call, video, colours, tmp_path):
    boxes_text(tmp_path / "few.txt", [(3, -1, 10, 30, 24, 60)])
    code, _, err = call(video, "--detector", "file:few.txt", "--reid", colours, "--out", "tracks.txt")
    assert code == 2
    assert "no people found" in err
    assert not list(tmp_path.glob("*tracks.txt"))


def test_a_run_is_calibrated_on_its_own_set_once(call, video, tmp_path, monkeypatch):
    """The random network's features are replaced by those that know colours; the set's, by made ones."""
    day = test_identities.film_of(
        tmp_path / "day", {"hall": test_identities.visits(range(12), (0, 100, 200))}
    )
    path = write_run(tmp_path / "run", day)
    rng = np.random.default_rng(0)
    asked = []

    def features(footage, **_):
        asked.append(1)
        one = footage.sets[0].tracklets
        person = np.eye(12)[np.arange(len(one)) % 12][one.tracklet]
        x = person + 0.05 * rng.normal(size=person.shape)
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    monkeypatch.setattr(learning.footage, "frame_features", features)
    source = f"hall={video.parent}/results.txt+{video}"
    code, out, err = call(source, "--reid", path, "--out", "a.txt", "--device", "cpu", "--json")
    assert code == 0, err
    said = json.loads((path / "calibration.json").read_text())
    bounds = json.loads(out)["bounds"]
    assert {k: bounds[k] for k in said["tracking"]} == said["tracking"]
    assert bounds["from"] == "pairs of day"
    assert 0.2 < said["tracking"]["piece"]["threshold"] < 1.3
    code, out, err = call(source, "--reid", path, "--out", "b.txt", "--device", "cpu", "--json")
    assert code == 0, err
    assert json.loads(out)["bounds"]["from"] == str(path / "calibration.json")
    assert len(asked) == 1
    # An older file tells of other sets: it stays.
    del said["tracking"]
    (path / "calibration.json").write_text(json.dumps(said))
    assert call(source, "--reid", path, "--out", "c.txt", "--device", "cpu")[0] == 0
    assert json.loads((path / "calibration.json").read_text()) == said
    assert (tmp_path / "a.txt").read_bytes() == (tmp_path / "b.txt").read_bytes()
    (path / "calibration.json").write_text(json.dumps({**said, "tracking": {"piece": 1}}))
    code, _, err = call(source, "--reid", path, "--out", "d.txt", "--device", "cpu")
    assert (code, "is not what tracklearn calibrate writes" in err) == (2, True)


def test_refusals(call, run, video, tmp_path):
    needs("onnxruntime")
    silent = write_onnx(tmp_path / "silent.onnx", notes=NOTES)
    ten = write_set(tmp_path / "ten")
    few = write_run(tmp_path / "few", ten)
    unfinished = write_run(tmp_path / "unfinished", ten, finished=False)
    gone = run(ten, "gone", set={"path": "../nowhere", "digest": "0" * 64})
    (tmp_path / "films").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "films" / name).write_bytes(video.read_bytes())
    (tmp_path / "crops" / "0001").mkdir(parents=True)
    (tmp_path / "crops" / "0001" / "1.jpg").write_bytes(b"")
    (tmp_path / "weights.pth").write_bytes(b"")
    source = f"hall={video.parent}/results.txt+{video}"
    for arguments, line in (
        ((source, "--reid", silent, "--out", "t.txt"), "does not say where one person ends"),
        ((source, "--reid", few, "--out", "t.txt"), "too few pairs in its footage"),
        ((source, "--reid", unfinished, "--out", "t.txt"), "is not finished"),
        ((source, "--reid", gone, "--out", "t.txt"), "tracklearn calibrate"),
        ((source, "--reid", ten, "--out", "t.txt"), "not a run"),
        ((source, "--reid", "no", "--out", "t.txt"), "no such run or file"),
        ((source, "--reid", "weights.pth", "--out", "t.txt"), "neither a run nor an .onnx file"),
        ((source, "--reid", silent, "--distance", "3", "--out", "t.txt"), "expected one of unit features"),
        ((source, "--reid", silent, "--distance", "1", "--delay", "-1", "--out", "t.txt"), "from 0"),
        ((source, "--reid", silent, "--distance", "1", "--delay", "900", "--out", "t.txt"), "0 to 600"),
        ((source, "--reid", silent, "--distance", "1", "--out", "no/t.txt"), "no such folder"),
        ((source, "--reid", silent, "--distance", "1", "--out", tmp_path), "is a folder"),
        (("films", "--reid", silent, "--distance", "1", "--out", "t.txt"), "stands for 2 recordings"),
        (("crops", "--reid", silent, "--distance", "1", "--out", "t.txt"), "is a folder of crops"),
        (("rtsp://127.0.0.1/s", "--reid", silent, "--distance", "1", "--out", "t.txt"), "is a live camera"),
        (("no.mp4", "--reid", silent, "--distance", "1", "--out", "t.txt"), "no such file"),
    ):
        code, out, err = call(*arguments)
        assert (code, out) == (2, ""), (arguments, err)
        assert line in err.splitlines()[-1], (arguments, err)
    assert not (tmp_path / "t.txt").exists()
    code, _, err = call(source, "--reid", silent, "--distance", "0.8", "--out", "t.txt")
    assert code == 0, err
    assert numbers("t.txt") == {0: {1}, 1: {2}, 2: {1}}
