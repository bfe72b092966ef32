"""Long films in pieces: numbers without decoding, tracks joined at the seams, the same set whoever reads."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from tracklearn.store.detect.detector import open_detector
from tracklearn.store.film.numbers import Unnumbered, numbers_of
from tracklearn.store.film.video import open_frames
from tracklearn.store.film.video_writer import VideoWriter
from tracklearn.store.ingest import ingest as engines
from tracklearn.store.ingest import jobs, pieces, work
from tracklearn.store.ingest.ingest import Config, ingest
from tracklearn.store.ingest.request import Request
from tracklearn.store.ingest.seams import Reading, seam
from tracklearn.store.sets.tracklets import open_set
from tracklearn.store.workers.engine import InOrder, Outcome

FPS, N = 10, 240
WIDTH, HEIGHT = 320, 176
# Three pieces of eight seconds, frames 0, 80 and 160 on.
CONFIG = Config(detector="motion", piece_minutes=8 / 60, piece_overlap=5)


def walkers(number):
    """Two people who walk past each other, far apart, all through the film."""
    return [(20 + number, 20, (200, 40, 40)), (290 - number, 110, (40, 60, 200))]


def write(path, n=N, **options):
    ground = np.random.default_rng(0).integers(90, 110, (HEIGHT, WIDTH, 3), np.uint8)
    with VideoWriter(path, width=WIDTH, height=HEIGHT, fps=FPS, crf=18, **options) as writer:
        for number in range(n):
            image = ground.copy()
            for x, y, colour in walkers(number):
                image[y : y + 50, x : x + 18] = colour
            writer.write(image)
    return path


def remuxed(path, to, stamp=lambda i, pts: pts, **options):
    """The packets of a film in another container, with other stamps."""
    with av.open(str(path)) as source, av.open(str(to), "w", options=options) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for i, packet in enumerate(source.demux(video=0)):
            if packet.size:
                shift = stamp(i, packet.pts) - packet.pts
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = stream
                out.mux(packet)
    return to


class Colours:
    """A detector that knows no yesterday: what is far from grey."""

    name, threshold, confident = "colours", 0.0, 0.5

    def __call__(self, image, frame):
        mask = (np.ptp(image.astype(int), axis=2) > 60).astype(np.uint8)
        found = cv2.connectedComponentsWithStats(mask)[2][1:]
        box = np.array([(x, y, x + w, y + h) for x, y, w, h, area in found if area > 200], np.float32)
        return box.reshape(-1, 4), np.full(len(box), 0.9, np.float32)


@pytest.fixture(scope="module", autouse=True)
def colours():
    """In this process; workers have the detector that is asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "open_detector", lambda *_, **__: Colours())
        yield


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write(tmp_path_factory.mktemp("film") / "hall.mp4")


@pytest.fixture(scope="module")
def whole(film, tmp_path_factory):
    return open_set(
        ingest([film], tmp_path_factory.mktemp("whole") / "set", config=Config(detector="motion"))
    )


@pytest.fixture(scope="module")
def pieced(film, tmp_path_factory):
    return open_set(ingest([film], tmp_path_factory.mktemp("pieced") / "set", config=CONFIG))


def record(made):
    (source,) = made.manifest["sources"]
    return source


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts"])
def test_a_stretch_holds_the_frames_of_the_whole_reading(film, kind, tmp_path):
    path = film if kind == "mp4" else remuxed(film, tmp_path / f"film.{kind}")
    with open_frames(path) as frames:
        numbers = frames.numbers()
        every = {frame.number: frame for frame in frames}
    assert len(numbers.stamp) == len(every) == N
    stretch = numbers.stretch((97, 140), before=1.0, after=0.5)
    with open_frames(path, stride=2) as frames:
        got = list(frames.stretch(stretch))
        assert frames.broken == 0
    assert [frame.number for frame in got] == list(range(88, 145, 2))
    for frame in got:
        assert frame.time == every[frame.number].time
        assert (frame.image == every[frame.number].image).all()


def test_a_pause_moves_times_and_no_numbers(tmp_path):
    with av.open(str(tmp_path / "film.mkv"), "w") as out:
        stream = out.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.time_base = 64, 48, Fraction(1, 1000)
        for i in range(60):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * i, np.uint8))
            frame.pts, frame.time_base = 100 * i + 7_000 * (i >= 40), Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with open_frames(tmp_path / "film.mkv") as frames:
        numbers = frames.numbers()
        every = [(frame.number, frame.time) for frame in frames]
    assert every[40] == (40, 11.0)
    with open_frames(tmp_path / "film.mkv") as frames:
        stretch = numbers.stretch((38, 45), before=0.3, after=0.3)
        got = [(frame.number, frame.time) for frame in frames.stretch(stretch)]
    assert got == every[35:48]


def test_a_file_cut_short_has_no_sure_numbers(film, tmp_path):
    path = remuxed(film, tmp_path / "film.mp4", movflags="faststart")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with open_frames(path) as frames, pytest.raises(Unnumbered, match="cut short"):
        frames.numbers()


def test_pictures_in_another_order_than_their_stamps_are_noticed(film, tmp_path):
    # Between pictures that refer to each other: the decoder hands one out late.
    path = remuxed(film, tmp_path / "film.mkv", stamp=lambda i, pts: pts + 50_000 * (i >= 150))
    made = open_set(ingest([path], tmp_path / "set", config=CONFIG))
    assert record(made)["counts"]["frames"] == N
    assert record(made)["warnings"][0] == (
        "read as a whole, not in pieces: its pictures come in another order than their time stamps"
    )


@pytest.mark.parametrize(
    ("stamps", "shown", "why"),
    [
        ([0.0, None, 0.2], [], "no time stamps"),
        ([], [], "no time stamps"),
        ([0.0, 0.1, 0.1, 0.2], [], "have to be mended"),
        ([*np.arange(50) / 10, *np.arange(50) / 10 + 0.05], [], "start again"),
        ([0.0, 0.1, 0.2], [0.1, 0.2], "not one picture each"),
    ],
)
def test_numbers_that_cannot_be_known(stamps, shown, why):
    with pytest.raises(Unnumbered, match=why):
        numbers_of(stamps, [True] * len(stamps), shown, rate=10)


def test_people_go_on_across_the_seams(whole, pieced):
    assert record(pieced)["pieces"] == 3
    assert [(s["frame"], s["seconds"], s["joined"], s["cut"]) for s in record(pieced)["seams"]] == [
        (80, 8.0, 2, 0),
        (160, 16.0, 2, 0),
    ]
    assert record(pieced)["warnings"][0] == (
        "read in 3 pieces: of the tracks in view at their seams 4 go on across them and 0 are cut there"
    )
    assert len(pieced.tracklets) == len(whole.tracklets) == 2
    for one in (0, 1):  # each track is one person, all through
        box = pieced.tracklets.box[pieced.tracklets.tracklet == one]
        assert (np.abs(np.diff(box[:, 1])) < 20).all()


def test_no_crop_is_doubled_and_none_lost(whole, pieced):
    def crops(made):
        t = made.tracklets
        return sorted(zip(t.frame.tolist(), (t.box[:, 1] > HEIGHT / 2 - 10).tolist(), strict=True))

    assert len(set(crops(pieced))) == len(crops(pieced))
    assert crops(pieced) == crops(whole)
    assert np.array_equal(np.sort(pieced.tracklets.time), np.sort(whole.tracklets.time))
    counts = record(pieced)["counts"]
    assert counts == record(whole)["counts"]
    assert list(counts) == list(record(whole)["counts"])
    assert counts["frames"] == N
    alike = ("camera", "kind", "digest", "detector", "tracker", "video", "start", "n_tracklets", "n_crops")
    assert {name: record(pieced)[name] for name in alike} == {name: record(whole)[name] for name in alike}


@pytest.mark.long
def test_two_workers_make_the_set_of_one(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "open_detector", open_detector)  # which workers have, too
    path = write(tmp_path / "hall.mp4", 90)
    config = Config(detector="motion", piece_minutes=3 / 60, piece_overlap=3, min_length=2)
    sets = [open_set(ingest([path], tmp_path / f"{n}", config=config, workers=n)) for n in (None, 2)]
    for made in sets:
        made.verify()
        assert record(made)["pieces"] == 3
    assert sets[0].digest == sets[1].digest
    assert record(sets[0])["seams"] == record(sets[1])["seams"]
    assert not list(tmp_path.glob("*.partial"))


def test_the_setting_leaves_short_films_and_old_requests_alone(film, whole, tmp_path):
    short = Config(detector="motion", piece_minutes=1)
    made = open_set(ingest([film], tmp_path / "set", config=short))
    assert made.digest == whole.digest
    assert "pieces" not in record(made)
    assert "warnings" not in record(made)
    assert not {"piece_minutes", "piece_overlap"} & set(whole.manifest["settings"])
    assert made.manifest["settings"]["piece_minutes"] == 1
    assert Config(**made.manifest["settings"]) == short


def test_a_film_whose_frames_have_no_sure_number_is_read_whole_and_says_so(film, tmp_path):
    path = remuxed(film, tmp_path / "film.264")
    made = open_set(ingest([path], tmp_path / "set", config=CONFIG))
    assert record(made)["counts"]["frames"] == N
    assert record(made)["warnings"][0] == (
        "read as a whole, not in pieces: frames of it have no time stamps of their own"
    )


def test_an_interrupted_film_goes_on_with_its_pieces(film, pieced, tmp_path, monkeypatch):
    read = []
    of_piece = work.PieceWork._read

    def interrupted(self, reader):
        if len(read) == 2:
            raise OSError(28, "the disk is full")
        read.append(self.piece.number)
        return of_piece(self, reader)

    monkeypatch.setattr(work.PieceWork, "_read", interrupted)
    with pytest.raises(OSError, match="the disk is full"):
        ingest([film], tmp_path / "set", config=CONFIG)
    monkeypatch.setattr(work.PieceWork, "_read", lambda s, r: read.append(s.piece.number) or of_piece(s, r))
    assert open_set(ingest([film], tmp_path / "set", config=CONFIG, resume=True)).digest == pieced.digest
    assert read == [0, 1, 2]  # none a second time


class Deadly(InOrder):
    """Workers die of the second piece, or of joining."""

    def __init__(self, joining=False):
        self.joining = joining

    def run(self, tasks, what, progress=None):
        for number, task in enumerate(tasks):
            piece = isinstance(task, work.PieceWork) and task.piece.number == 1
            if isinstance(task, work.JoinWork) if self.joining else piece:
                yield Outcome(number, lost="it was killed")
            else:
                yield Outcome(number, task.run(progress))


def test_a_piece_that_kills_its_workers_leaves_its_film_out(film, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "engine_of", lambda *_: Deadly())
    short = write(tmp_path / "yard.mp4", 78)
    made = open_set(ingest([film, short], tmp_path / "set", config=CONFIG))
    hall, yard = made.manifest["sources"]
    assert (hall["status"], hall["n_crops"], yard["status"]) == ("skipped", 0, "ok")
    assert hall["reason"] == (
        "2 workers that read piece 2 of 3 of it came to grief (it was killed): ingest it alone, with more "
        "memory to spare"
    )
    with pytest.raises(ValueError, match="2 workers that read piece 2 of 3 of it"):
        ingest([film, short], tmp_path / "strict", config=CONFIG, strict=True)
    monkeypatch.setattr(engines, "engine_of", lambda *_: Deadly(joining=True))
    with pytest.raises(ValueError, match="2 workers that read it came to grief"):
        ingest([film, short], tmp_path / "joined", config=CONFIG, strict=True)


def test_a_picture_that_grows_has_the_film_read_whole(film, whole, tmp_path, monkeypatch):
    def grows(self, reader):
        raise work.LargerPicture((640, 360))

    monkeypatch.setattr(work.PieceWork, "_read", grows)
    made = open_set(ingest([film], tmp_path / "set", config=CONFIG))
    assert made.digest == whole.digest
    assert record(made)["warnings"] == ["read as a whole, not in pieces: its picture grows"]


def test_who_is_cut_and_who_is_not(film):
    job = Request([film], CONFIG).jobs[0]
    assert pieces.may_be_cut(job)
    found = pieces.Cut(job).run(None).pieces
    assert [piece.own for piece in found] == [(0, 80), (80, 160), (160, 240)]
    assert [piece.stretch.first for piece in found] == [0, 30, 110]
    assert [len(piece.stretch.stamp) for piece in found] == [130, 180, 130]
    assert not pieces.may_be_cut(Request([film], Config(detector="motion")).jobs[0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"piece_minutes": 0},
        {"piece_minutes": float("inf")},
        {"piece_overlap": -1},
        {"piece_minutes": 0.5, "piece_overlap": 31},
    ],
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValidationError):
        Config(**wrong)


class Part:
    """Tracklets as `PartReader` has them, of (tracklet, frame, x) rows; ten frames a second."""

    def __init__(self, rows, continues=()):
        tracklet, frame, x = np.array(rows).T
        n = int(tracklet.max()) + 1
        self.continues = np.array([*continues, *[-1] * (n - len(continues))])
        self.crops = {"tracklet": tracklet, "frame": frame, "time": frame / 10, "score": 0 * x + 0.9}
        self.crops |= {"x1": x, "y1": 0 * x, "x2": x + 10, "y2": 0 * x + 30}


def reading(tracks, own, continues=()):
    rows = [(i, frame, x) for i, (frames, x) in enumerate(tracks) for frame in frames]
    return Reading(Part(rows, continues), own)


def test_each_track_goes_on_as_the_one_that_lies_on_it():
    earlier = reading([(range(120), 0), (range(60, 130), 100), (range(90, 99), 300)], (0, 100))
    later = reading([(range(70, 200), 100), (range(70, 104), 2), (range(70, 180), 500)], (100, 200))
    found = seam(earlier, later, 100, 10.0, max_gap=5)
    assert found.pairs == {0: 1, 1: 0}
    assert found.cut == 1  # the one at 500, whom only the later reading saw


def test_tracks_that_are_not_in_view_on_both_sides_stay_as_they_are():
    # Gone before the seam; there after it; and one that the later reading no longer has after it.
    earlier = reading([(range(95), 0), (range(101, 130), 100), (range(80, 120), 200)], (0, 100))
    later = reading([(range(70, 95), 0), (range(101, 150), 100), (range(70, 100), 200)], (100, 200))
    found = seam(earlier, later, 100, 10.0, max_gap=5)
    assert (found.pairs, found.cut) == ({}, 1)


def test_a_piece_with_nobody_in_it():
    earlier, later = reading([(range(50, 60), 0)], (0, 50)), reading([(range(70, 120), 0)], (50, 150))
    assert list(earlier.own_tracks()) == []
    found = seam(earlier, later, 50, 5.0, max_gap=5)
    assert (found.pairs, found.cut) == ({}, 0)


def test_a_track_cut_for_its_length_is_one_track():
    tracks = [(range(60), 0), (range(60, 120), 0)]
    earlier = reading(tracks, (0, 100), continues=[-1, 0])
    assert [track for track, _ in earlier.own_tracks()] == [0]
    assert [len(rows) for _, rows in earlier.own_tracks()] == [100]


def test_one_goes_to_one_so_that_most_frames_agree():
    earlier = reading([(range(50, 150), 0), (range(90, 150), 2)], (0, 100))
    later = reading([(range(95, 150), 1), (range(50, 150), 3)], (100, 200))
    found = seam(earlier, later, 100, 10.0, max_gap=5)
    assert sorted(found.pairs) == [0, 1]
    assert sorted(found.pairs.values()) == [0, 1]
