import errno
import json
import os
import re
import shutil
import sys
import tracemalloc
from collections import Counter
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from tracklearn.store.detect.detector import open_detector
from tracklearn.store.film.frames import Frame, VideoInfo
from tracklearn.store.film.mot import Boxes, write_results
from tracklearn.store.film.video import open_frames
from tracklearn.store.film.video_writer import VideoWriter
from tracklearn.store.ingest import jobs, reader
from tracklearn.store.ingest.ingest import Config, Source, ingest
from tracklearn.store.ingest.request import Request
from tracklearn.store.sets import shards
from tracklearn.store.sets.shards import HashedFile
from tracklearn.store.sets.tracklets import open_set

WIDTH, HEIGHT, FPS = 96, 64, 10
COLOURS = np.array([[200, 40, 40], [40, 200, 40]])


def person(i, frame):
    """Box of walker i: 12 wide, 32 high, one pixel a frame."""
    x = 4 + frame if i == 0 else 80 - frame
    y = 2 if i == 0 else 30
    return np.array([x, y, x + 12, y + 32], float)


def film(path, n=20, people=2):
    """A video of coloured rectangles, and its boxes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    with VideoWriter(path, width=WIDTH, height=HEIGHT, fps=FPS, crf=5) as writer:
        for frame in range(n):
            image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
            for i in range(people):
                x1, y1, x2, y2 = person(i, frame).astype(int)
                image[y1:y2, x1:x2] = COLOURS[i]
                rows.append((frame, i + 1, *person(i, frame), 0.9))
            writer.write(image)
    return rows


def results(path, rows):
    table = np.array(rows, float).reshape(-1, 7)
    write_results(path, Boxes(table[:, 0], table[:, 1], table[:, 2:6], table[:, 6]))
    return path


@pytest.fixture
def walk(tmp_path):
    """walk.mp4 with two people over 20 frames, and walk.txt, a perfect tracker's result."""
    results(tmp_path / "walk.txt", film(tmp_path / "walk.mp4"))
    return tmp_path


def record(tracklet_set, i=0):
    return tracklet_set.manifest["sources"][i]


def test_results_with_their_video_become_tracklets(walk):
    tracklet_set = open_set(ingest([f"door={walk}/walk.txt+{walk}/walk.mp4"], walk / "set"))
    tracklets = tracklet_set.tracklets
    assert tracklets.length.tolist() == [20, 20]
    assert tracklets.frame.tolist() == [*range(20)] * 2
    assert tracklets.time == pytest.approx(np.tile(np.arange(20) / FPS, 2))
    assert tracklets.score == pytest.approx(0.9)
    assert tracklet_set.cameras == ("door",)
    for row in range(40):
        i, frame = divmod(row, 20)
        assert tracklets.box[row].tolist() == person(i, frame).tolist()
        crop = tracklet_set.image(row)
        assert crop.shape == (32, 12, 3)
        assert np.abs(crop[4:-4, 3:-3].mean((0, 1)) - COLOURS[i]).max() < 25
    entry = record(tracklet_set)
    assert (entry["kind"], entry["status"], entry["n_tracklets"], entry["n_crops"]) == (
        "results",
        "ok",
        2,
        40,
    )
    assert entry["video"] == {"width": WIDTH, "height": HEIGHT, "fps": FPS, "codec": "h264"} | {
        "seconds": 2.0,
        "times": "stamps",
    }
    assert entry["counts"]["frames"] == 20
    assert entry["skipped"] == []
    assert tracklet_set.manifest["settings"] == Config().model_dump()


def test_a_folder_of_frames_does_as_well_as_a_video(walk):
    (walk / "img1").mkdir()
    with open_frames(walk / "walk.mp4") as frames:
        for frame in frames:
            cv2.imwrite(str(walk / "img1" / f"{frame.number + 1:06d}.png"), frame.image[..., ::-1])
    source = Source(walk / "img1", "door", results=walk / "walk.txt")
    folder = open_set(ingest([source], walk / "a", config=Config(fps=FPS)))
    video = open_set(ingest([f"door={walk}/walk.txt+{walk}/walk.mp4"], walk / "b"))
    assert folder.tracklets.time == pytest.approx(video.tracklets.time)
    assert (folder.tracklets.box == video.tracklets.box).all()
    assert folder.jpeg(7) == video.jpeg(7)


def test_a_detector_and_a_tracker_do_the_same(walk):
    config = Config(detector=f"file:{walk}/walk.txt")
    tracklet_set = open_set(ingest([walk / "walk.mp4"], walk / "set", config=config))
    assert len(tracklet_set.tracklets) == 2
    assert tracklet_set.tracklets.n_crops >= 36  # ByteTrack needs a frame or two to confirm a track
    entry = record(tracklet_set)
    assert (entry["kind"], entry["tracker"], entry["counts"]["detections"]) == ("video", "bytetrack", 40)
    assert entry["detector"] == config.detector
    assert entry["per_second"] > 0


def test_every_camera_has_its_own_detections(walk):
    film(walk / "other.mp4", people=1)
    both = [walk / "walk.mp4", walk / "other.mp4"]
    with pytest.raises(ValueError, match=r"holds the detections of one video, but there are 2.*\{camera\}"):
        ingest(both, walk / "set", config=Config(detector=f"file:{walk}/walk.txt"))
    results(walk / "other.txt", [(f, 1, *person(0, f), 1.0) for f in range(20)])
    config = Config(detector=f"file:{walk}/{{camera}}.txt")
    tracklet_set = open_set(ingest(both, walk / "set", config=config))
    assert np.bincount(tracklet_set.tracklets.camid).tolist() == [2, 1]


def test_same_input_same_digest(walk):
    source = f"door={walk}/walk.txt+{walk}/walk.mp4"
    one, two = (open_set(ingest([source], walk / name)) for name in ("one", "two"))
    assert one.digest == two.digest


def test_what_is_left_out_is_counted(walk):
    boxes = [(f, 1, *person(0, f), 0.9) for f in range(25)]  # 5 beyond the end
    boxes += [(f, 1, *person(1, f), 0.5) for f in range(3)]  # weaker second boxes of track 1
    boxes += [(f, 2, 10, 10, 20, 30, 0.9) for f in range(8)]  # 20 pixels high
    boxes += [(f, 3, 90, 50, 120, 150, 0.9) for f in range(8)]  # 14 pixels of it in view
    boxes += [(f, 4, -500, 0, -400, 60, 0.9) for f in range(2)]  # out of view
    boxes += [(f, 5, *person(1, f), 0.9) for f in range(5)]  # short
    results(walk / "r.txt", boxes)
    tracklet_set = open_set(ingest([f"{walk}/r.txt+{walk}/walk.mp4"], walk / "set"))
    assert tracklet_set.tracklets.length.tolist() == [20]
    assert (tracklet_set.tracklets.score == np.float32(0.9)).all()
    counts = record(tracklet_set)["counts"]
    assert counts["detections"] == len(boxes)
    assert counts["small_boxes"] == 18
    assert counts["repeated_boxes"] == 3
    assert (counts["short_tracks"], counts["short_crops"]) == (1, 5)
    assert [(s["item"], s["n"]) for s in record(tracklet_set)["skipped"]] == [
        ("result boxes", 5),
        ("boxes", 18),
        ("boxes", 3),
        ("tracks", 1),
    ]


def test_stride_and_margin(walk):
    config = Config(stride=3, margin=0.25, min_length=2)
    tracklet_set = open_set(ingest([f"{walk}/walk.txt+{walk}/walk.mp4"], walk / "set", config=config))
    assert tracklet_set.tracklets.frame[:7].tolist() == [0, 3, 6, 9, 12, 15, 18]
    assert tracklet_set.tracklets.time[1] == pytest.approx(0.3)
    assert tracklet_set.tracklets.box[2].tolist() == person(0, 6).tolist()
    assert tracklet_set.image(2).shape == (42, 18, 3)  # cut at the upper border, where only 2 pixels are free
    assert record(tracklet_set)["skipped"][0]["n"] == 26


def test_long_tracks_go_on_as_a_new_tracklet(walk):
    config = Config(max_length=8, min_length=4)
    tracklet_set = open_set(ingest([f"{walk}/walk.txt+{walk}/walk.mp4"], walk / "set", config=config))
    assert sorted(tracklet_set.tracklets.length.tolist()) == [4, 4, 8, 8, 8, 8]
    first = tracklet_set.tracklets.start[:-1]
    for tracklet, before in enumerate(tracklet_set.continues):
        if before >= 0:
            last = tracklet_set.tracklets.start[before + 1] - 1
            assert tracklet_set.tracklets.frame[first[tracklet]] == tracklet_set.tracklets.frame[last] + 1
    assert record(tracklet_set)["counts"]["split_tracks"] == 4


def test_a_track_unseen_too_long_is_over(walk):
    boxes = [(f, 1, *person(0, f), 1.0) for f in range(20) if not 6 <= f < 13]
    results(walk / "r.txt", boxes)
    for gap, lengths in ((0.5, [6, 7]), (0.9, [13])):
        path = ingest([f"{walk}/r.txt+{walk}/walk.mp4"], walk / f"set{gap}", config=Config(max_gap=gap))
        assert open_set(path).tracklets.length.tolist() == lengths


def test_camera_names_and_numbers(walk):
    film(walk / "b" / "walk.mp4")
    film(walk / "c.mp4")
    r = f"{walk}/walk.txt"
    plain = ingest([f"{r}+{walk}/walk.mp4", f"{r}+{walk}/b/walk.mp4"], walk / "plain")
    assert open_set(plain).cameras == ("walk", "walk-2")
    texts = [f"yard@1={r}+{walk}/walk.mp4", f"door={r}+{walk}/c.mp4", f"yard={r}+{walk}/b/walk.mp4"]
    tracklet_set = open_set(ingest(texts, walk / "named"))
    assert tracklet_set.cameras == ("door", "yard")
    assert tracklet_set.tracklets.camid.tolist() == [1, 1, 0, 0, 1, 1]
    assert tracklet_set.file.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_video_without_people_is_listed_or_refused(walk):
    film(walk / "empty.mp4", people=0)
    (walk / "empty.txt").write_text("1,1,10,10,2,2,1,-1,-1,-1\n")
    config = Config(detector=f"file:{walk}/{{camera}}.txt")
    with pytest.raises(ValueError, match=r"no people found in .*empty\.mp4: .*try another .*lower threshold"):
        ingest([walk / "empty.mp4"], walk / "set", config=config)
    assert not (walk / "set.partial").exists()
    tracklet_set = open_set(ingest([walk / "empty.mp4", walk / "walk.mp4"], walk / "set", config=config))
    assert tracklet_set.cameras == ("walk",)
    assert record(tracklet_set)["status"] == "skipped"
    assert "no track of at least 6 crops" in record(tracklet_set)["reason"]
    assert record(tracklet_set, 1)["status"] == "ok"


def test_the_default_settings_find_people_by_their_motion(walk):
    """From nothing but a file; an unmoving picture is refused with the ways out."""
    with VideoWriter(walk / "still.mp4", width=160, height=120, fps=FPS) as still:
        for _ in range(30):
            still.write(np.full((120, 160, 3), 120, np.uint8))
    with pytest.raises(
        ValueError, match=r"no box in 30 frames; detector motion: try another \(hog, openvino"
    ):
        ingest([walk / "still.mp4"], walk / "set")
    background = cv2.GaussianBlur(
        np.random.default_rng(0).integers(60, 200, (240, 320, 3), np.uint8), (9, 9), 3
    )
    with VideoWriter(walk / "one.mp4", width=320, height=240, fps=FPS) as moving:
        for frame in range(100):
            image = background.copy()
            if frame >= 30:
                x = 4 * (frame - 30)
                image[90:190, x : x + 40] = (200, 30, 30)
            moving.write(image)
    tracklet_set = open_set(ingest([walk / "one.mp4"], walk / "set"))
    longest = int(tracklet_set.tracklets.length.argmax())
    rows = np.flatnonzero(tracklet_set.tracklets.tracklet == longest)
    assert len(rows) >= 20
    crop = tracklet_set.image(int(rows[len(rows) // 2]))
    assert crop[..., 0].mean() > crop[..., 1].mean() + 60


def test_results_of_another_video(walk):
    (walk / "r.txt").write_text("900,1,10,10,20,40,1\n")
    with pytest.raises(ValueError, match="check that the results belong to the video"):
        ingest([f"{walk}/r.txt+{walk}/walk.mp4"], walk / "set")


def test_bad_input_is_one_clear_line_before_any_work(walk):
    good = f"{walk}/walk.txt+{walk}/walk.mp4"
    (walk / "text.mp4").write_text("this is no video")
    (walk / "letters.txt").write_text("1,1,10,10,20,40,1\n1,x,10,10,20,40,1\n")
    (walk / "empty").mkdir()
    for bad, config, error, message in (
        (f"{walk}/none.mp4", {}, FileNotFoundError, r"no such file: .*none\.mp4"),
        (f"{walk}/text.mp4", {}, ValueError, r"not a video.*text\.mp4"),
        (f"{walk}/letters.txt+{walk}/text.mp4", {}, ValueError, r"letters\.txt line 2.*'x'"),
        (f"{walk}/walk.txt+{walk}/text.mp4", {}, ValueError, r"not a video.*text\.mp4"),
        (f"{walk}/empty", {}, ValueError, "no images in folder"),
        (f"video:{walk}/empty", {}, ValueError, "no images in folder"),
        (f"{walk}/walk.mp4", {"detector": "nonsense"}, ValueError, "nonsense"),
        (f"{walk}/walk.mp4", {"detector": "file:none.txt"}, FileNotFoundError, "none.txt"),
        (f"b={walk}/b.mp4", {"tracker": "nonsense"}, ValueError, "nonsense"),
    ):
        if "b.mp4" in bad:
            film(walk / "b.mp4", 3)
        seen = []
        with pytest.raises(error, match=message) as refused:
            Request([good, bad], Config(**config)).check(strict=True)
        with pytest.raises(error, match=message) as caught:
            ingest(
                [good, bad],
                walk / "set",
                config=Config(**config),
                strict=True,
                progress=lambda *a: seen.append(a),  # noqa: B023
            )
        assert str(refused.value) == str(caught.value)
        assert "\n" not in str(caught.value)
        assert seen == []
        assert not (walk / "set").exists()
        assert not (walk / "set.partial").exists()


def test_check_passes_what_can_be_ingested_and_leaves_nothing(walk):
    before = sorted(walk.rglob("*"))
    Request([f"door={walk}/walk.txt+{walk}/walk.mp4", walk / "walk.mp4"]).check()
    with pytest.raises(ValueError, match="no sources given"):
        Request([]).check()
    with pytest.raises(ValueError, match=r"but there are 2.*\{camera\}"):
        Request([walk / "walk.mp4", film(walk / "b.mp4", 3) and walk / "b.mp4"], Config(detector="file:x"))
    assert sorted(walk.rglob("*")) == sorted([*before, walk / "b.mp4"])


def test_a_missing_extra_is_refused_before_any_work(walk, monkeypatch):
    (walk / "m.onnx").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"pip install \"tracklearn\[onnx\]\""):
        Request([walk / "walk.mp4"], Config(detector=f"onnx:{walk}/m.onnx")).check()


def test_device_and_label_reach_the_detector_but_device_no_digest(walk, monkeypatch):
    seen = []
    opened = open_detector(f"file:{walk}/walk.txt")

    def note(spec, **kwargs):
        seen.append((spec, kwargs))
        return opened

    monkeypatch.setattr(jobs, "open_detector", note)
    config = Config(detector="hub:some", threshold=0.5, label=7)
    path = ingest([walk / "walk.mp4"], walk / "set", config=config, device="cuda:1")
    assert seen == [("hub:some", {"threshold": 0.5, "label": 7, "device": "cuda:1"})] * 2
    assert ingest([walk / "walk.mp4"], path, config=config, device="cpu", resume=True) == path
    assert len(seen) == 2
    with pytest.raises(FileExistsError, match="not made from these"):
        ingest([walk / "walk.mp4"], path, config=Config(detector="hub:some", threshold=0.5), resume=True)


@pytest.mark.parametrize("threshold", [None, 0.9])
def test_detections_at_the_threshold_start_tracks(walk, threshold):
    """float32(0.9) is below 0.9: scores and threshold must be compared in one type."""
    config = Config(detector=f"file:{walk}/walk.txt", threshold=threshold)
    assert len(open_set(ingest([walk / "walk.mp4"], walk / "set", config=config)).tracklets) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
def test_file_names_that_are_not_utf_8(walk):
    odd = walk / os.fsdecode(b"caf\xe9")
    (walk / "walk.mp4").rename(odd.with_suffix(".mp4"))
    (walk / "walk.txt").rename(odd.with_suffix(".txt"))
    crops = walk / "crops"
    for name in (odd.name, "empty" + odd.name):
        (crops / name).mkdir(parents=True)
    cv2.imwrite(str(walk / "1.jpg"), np.full((40, 20, 3), 90, np.uint8))
    for name in ("1.jpg", odd.name + ".jpg"):
        (crops / odd.name / name).write_bytes((walk / "1.jpg").read_bytes())
    (crops / odd.name / f"{odd.name}-2.jpg").write_bytes(b"broken")
    tracklet_set = open_set(ingest([f"{odd}.txt+{odd}.mp4", crops], walk / "set"))
    assert tracklet_set.cameras == ("caf?", "crops")
    assert record(tracklet_set)["path"] == "../caf?.mp4"
    assert record(tracklet_set)["results"] == "../caf?.txt"
    assert [s["item"] for s in record(tracklet_set, 1)["skipped"]] == ["emptycaf?", "caf?/caf?-2.jpg"]


def test_interrupted_and_resumed_is_as_if_uninterrupted(walk):
    rows = film(walk / "b.mp4")
    results(walk / "b.txt", rows)
    sources = [f"{walk}/walk.txt+{walk}/walk.mp4", f"{walk}/b.txt+{walk}/b.mp4"]
    whole = open_set(ingest(sources, walk / "whole"))
    seen = []

    def stop(name, done, total):
        seen.append(name)
        if name == "ingest b" and done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(sources, walk / "set", progress=stop)
    with pytest.raises(FileExistsError, match="--resume or another --out"):
        ingest(sources, walk / "set")
    seen.clear()
    path = ingest(sources, walk / "set", resume=True, progress=lambda *a: seen.append(a[0]))
    assert set(seen) == {"ingest b"}
    assert open_set(path).digest == whole.digest
    open_set(path).verify()


def test_resume_redoes_a_source_that_changed(walk):
    source = f"{walk}/walk.txt+{walk}/walk.mp4"
    film(walk / "b.mp4", people=0)

    def stop(name, done, total):
        if name == "ingest b":
            raise KeyboardInterrupt

    pair = [source, f"b={walk}/walk.txt+{walk}/b.mp4"]
    with pytest.raises(KeyboardInterrupt):
        ingest(pair, walk / "set", progress=stop)
    seen = []
    ingest(
        pair, walk / "set", resume=True, config=Config(min_length=2), progress=lambda *a: seen.append(a[0])
    )
    assert "ingest walk" in seen


def test_a_finished_set_is_not_made_again(walk):
    source = f"{walk}/walk.txt+{walk}/walk.mp4"
    path = ingest([source], walk / "set")
    with pytest.raises(FileExistsError, match=r"--resume .* another --out"):
        ingest([source], path)
    (walk / "set.partial").mkdir()  # interrupted between the renaming and the tidying up
    seen = []
    assert ingest([source], path, resume=True, progress=lambda *a: seen.append(a)) == path
    assert seen == []
    assert not (walk / "set.partial").exists()
    with pytest.raises(FileExistsError, match="not made from these sources and settings"):
        ingest([source], path, resume=True, config=Config(min_length=2))


def test_request_digest_follows_sources_and_settings(walk):
    source = f"{walk}/walk.txt+{walk}/walk.mp4"
    before = Request([source]).digest
    assert Request([source]).digest == before
    assert Request([source], Config(stride=2)).digest != before
    assert Request([f"x={source}"]).digest != before
    assert Request([f"walk@4={source}"]).digest != Request([f"walk={source}"]).digest
    (walk / "walk.txt").write_text("1,1,10,10,20,40,1\n")
    assert Request([source]).digest != before
    model = walk / "model.txt"
    model.write_text("1,1,10,10,20,40,1\n")
    with_model = Request([walk / "walk.mp4"], Config(detector=f"file:{model}")).digest
    model.write_text("1,1,10,10,20,41,1\n")
    assert Request([walk / "walk.mp4"], Config(detector=f"file:{model}")).digest != with_model


def test_a_full_disk_keeps_what_is_finished(walk, monkeypatch):
    results(walk / "b.txt", film(walk / "b.mp4"))
    sources = [f"{walk}/walk.txt+{walk}/walk.mp4", f"{walk}/b.txt+{walk}/b.mp4"]
    honest, state = HashedFile._put, {}

    def put(self, view):
        if state.get("full"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return honest(self, view)

    monkeypatch.setattr(HashedFile, "_put", put)
    with pytest.raises(OSError, match="the disk is full") as caught:
        ingest(sources, walk / "set", progress=lambda name, *_: state.update(full=name == "ingest b"))
    assert caught.value.errno == errno.ENOSPC
    assert len(list((walk / "set.partial").iterdir())) == 1
    state.clear()
    seen = []
    path = ingest(sources, walk / "set", resume=True, progress=lambda *a: seen.append(a[0]))
    assert set(seen) == {"ingest b"}
    open_set(path).verify()


def test_progress_counts_frames(walk):
    seen = []
    ingest(
        [f"door={walk}/walk.txt+{walk}/walk.mp4"],
        walk / "set",
        config=Config(stride=2, min_length=2),
        progress=lambda *a: seen.append(a),
    )
    assert {name for name, _, _ in seen} == {"ingest door"}
    assert [done for _, done, _ in seen] == [*range(1, 11), 10]
    assert seen[-1][2] == 10
    assert all(done < total for _, done, total in seen[:9])


@pytest.mark.parametrize(
    "wrong",
    [
        {"stride": 0},
        {"fps": 0},
        {"min_length": 0},
        {"max_length": 3},
        {"jpeg_quality": 101},
        {"margin": -0.1},
        {"strude": 1},
    ],
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValidationError):
        Config(**wrong)


@dataclass
class Stream:
    """Frames out of thin air: a camera that runs for any time."""

    n: int
    broken = 0
    reasons = left_out = missing = Counter()  # noqa: RUF012
    account = {}  # noqa: RUF012
    numbered = None
    notes = ()

    def remarks(self):
        return []

    info = VideoInfo(WIDTH, HEIGHT, 25.0, None, "none")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def close(self):
        pass

    def __iter__(self):
        image = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        for number in range(self.n):
            yield Frame(number, number / 25, image)


class Walkers:
    """Two people always in view, others every 200 frames."""

    name, threshold, confident = "walkers", 0.0, 0.5

    def __call__(self, image, frame):
        return np.array([[0, 0, 20, 60], [40, 0, 70, 60]], np.float32), np.ones(2, np.float32)

    def update(self, box, score, time, image=None):
        return np.array([0, 1]) + 2 * int(time / 8 + 1e-6), box, score


def test_memory_does_not_grow_with_the_length(walk, monkeypatch):
    monkeypatch.setattr(shards, "BATCH_BYTES", 1 << 18)
    monkeypatch.setattr(jobs, "open_detector", lambda *_, **__: Walkers())
    monkeypatch.setattr(reader, "open_tracker", lambda *_, **__: Walkers())

    def peak(n):
        monkeypatch.setattr(jobs, "open_frames", lambda *_, **__: Stream(n))
        tracemalloc.start()
        path = ingest([walk / "walk.mp4"], walk / f"set{n}", config=Config(detector="walkers"))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most, path

    peak(10)
    (short, _), (long, path) = peak(400), peak(4000)
    n_bytes = sum(f.stat().st_size for f in path.iterdir())
    assert n_bytes > 8 << 20
    assert long - short < n_bytes / 8
    tracklets = open_set(path).tracklets
    assert tracklets.n_crops == 8000
    assert len(tracklets) == 40


def test_real_video_with_real_detections(data, tmp_path):
    video = data / "video" / "pets09-s2l1.mp4"
    with (  # 60 frames of it
        open_frames(video) as frames,
        VideoWriter(
            tmp_path / "pets.mp4", width=frames.info.width, height=frames.info.height, fps=7
        ) as writer,
    ):
        for frame in frames:
            if frame.number == 60:
                break
            writer.write(frame.image)
    config = Config(detector=f"file:{data}/video/pets09-s2l1.det.txt")
    tracklet_set = open_set(ingest([f"pets={tmp_path}/pets.mp4"], tmp_path / "set", config=config))
    assert 4 <= len(tracklet_set.tracklets) <= 12
    assert tracklet_set.tracklets.n_crops > 150
    crops = tracklet_set.crops(128, 64).read(range(0, tracklet_set.n_crops, 10))
    assert crops.std() > 20
    assert json.dumps(tracklet_set.manifest)


def bad_sources(walk):
    """One source of each kind that cannot be read."""
    whole = (walk / "walk.mp4").read_bytes()
    (walk / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (walk / "text.mp4").write_text("this is no video")
    (walk / "letters.txt").write_text("1,1,10,10,20,40,1\n1,x,10,10,20,40,1\n")
    for name in ("frames", "crops/a", "loose"):
        (walk / name).mkdir(parents=True)
    (walk / "frames" / "1.png").write_bytes(b"x")
    (walk / "crops" / "a" / "1.png").write_bytes(b"x")
    (walk / "loose" / "1.png").write_bytes(b"x")
    os.mkfifo(walk / "pipe.mp4")
    return {
        f"cut={walk}/cut.mp4": r"not a video that can be decoded: cut\.mp4 \(",
        f"text={walk}/walk.txt+{walk}/text.mp4": r"not a video that can be decoded: text\.mp4 \(",
        f"letters={walk}/letters.txt+{walk}/walk.mp4": r"^letters\.txt line 2",
        f"frames=video:{walk}/frames": "none of the 1 images in frames",
        f"crops={walk}/crops": "none of the images can be decoded",
        f"loose={walk}/loose": "holds 1 loose images",
        f"pipe={walk}/pipe.mp4": r"pipe\.mp4 \(not a regular file\)",
    }


def test_sources_that_cannot_be_read_are_left_out_and_said(walk):
    bad = bad_sources(walk)
    good = f"{walk}/walk.txt+{walk}/walk.mp4"
    path = ingest([*bad, good], walk / "set")
    opened = open_set(path)
    assert opened.file.tolist() == [7, 7]
    assert opened.tracklets.length.tolist() == [20, 20]
    for entry, (text, reason) in zip(opened.manifest["sources"], bad.items(), strict=False):
        assert entry["status"] == "skipped", text
        assert re.search(reason, entry["reason"]), (text, entry["reason"])
        assert str(walk) not in json.dumps(entry)
        assert entry["n_crops"] == 0
    assert opened.manifest["sources"][-1]["status"] == "ok"
    # Whatever the order, and when gone on with.
    assert ingest([*bad, good], walk / "set", resume=True) == path


def test_strict_refuses_what_cannot_be_read(walk):
    good = f"{walk}/walk.txt+{walk}/walk.mp4"
    for text, reason in bad_sources(walk).items():
        if "crops" in text:
            continue  # known only when its pictures are read
        # on the screen with the whole path, in the manifest by name only
        message = reason.partition(" in frames")[0].lstrip("^").partition(": ")[0]
        with pytest.raises(ValueError, match=message):
            Request([good, text]).check(strict=True)
        with pytest.raises(ValueError, match=message):
            ingest([good, text], walk / "set", strict=True)
        assert Request([good, text]).check()[0] is None
        assert Request([good, text]).check()[1]
    assert not (walk / "set.partial").exists()


def test_nothing_but_unreadable_sources_is_refused(walk):
    texts = [text for text in bad_sources(walk) if "crops" not in text]
    with pytest.raises(ValueError, match="none of the 6 sources can be read: not a video"):
        Request(texts).check()
    with pytest.raises(ValueError, match="none of the 6 sources can be read: not a video"):
        ingest(texts, walk / "set")
    assert not (walk / "set.partial").exists()
    with pytest.raises(ValueError, match=r"^not a video that can be decoded"):
        ingest(texts[:1], walk / "set")


def test_a_source_that_is_not_there_is_an_error_all_the_same(walk):
    with pytest.raises(FileNotFoundError, match="no such file"):
        ingest([f"{walk}/walk.txt+{walk}/walk.mp4", f"{walk}/none.mp4"], walk / "set")


def test_what_was_checked_is_not_opened_again(walk, monkeypatch):
    texts = [f"{walk}/walk.txt+{walk}/walk.mp4", f"cut={walk}/cut.mp4"]
    bad_sources(walk)
    opened = []

    def counted(path, **options):
        opened.append(path.name)
        return open_frames(path, **options)

    monkeypatch.setattr(jobs, "open_frames", counted)
    asked = Request(texts)
    asked.check()
    ingest(asked, walk / "set")
    assert sorted(opened) == ["cut.mp4", "walk.mp4", "walk.mp4"]  # to look, to look, and to read


def test_the_manifest_names_sources_as_seen_from_the_set(walk, monkeypatch):
    (walk / "films").mkdir()
    shutil.copy(walk / "walk.mp4", walk / "films" / "stored.mp4")
    (walk / "films" / "link.mp4").symlink_to(walk / "films" / "stored.mp4")
    monkeypatch.chdir(walk / "films")
    texts = ["../walk.txt+link.mp4", f"{walk}/walk.txt+{walk}/walk.mp4"]
    opened = open_set(ingest(texts, walk / "out" / "set"))
    assert [record(opened, i)["path"] for i in range(2)] == ["../../films/link.mp4", "../../walk.mp4"]
    assert [record(opened, i)["results"] for i in range(2)] == ["../../walk.txt"] * 2
    assert str(walk) not in (walk / "out" / "set" / "manifest.json").read_text()


def test_another_limit_of_pixels_is_another_request(walk, monkeypatch):
    texts = [f"{walk}/walk.txt+{walk}/walk.mp4"]
    before = Request(texts).digest
    monkeypatch.setenv("TRACKLEARN_MAX_PIXELS", str(1 << 26))
    assert Request(texts).digest == before
    monkeypatch.setenv("TRACKLEARN_MAX_PIXELS", "1000")
    assert Request(texts).digest != before
