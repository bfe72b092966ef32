"""A box is cut from the frame that it names: numbered images, sequence folders, ids, classes, sizes."""

import sys

import cv2
import numpy as np
import pytest

from tracklearn.app.cli import main
from tracklearn.store.film.sequence import read_seqinfo
from tracklearn.store.film.video import open_frames
from tracklearn.store.film.video_writer import VideoWriter
from tracklearn.store.ingest.ingest import Config, ingest
from tracklearn.store.ingest.request import Request
from tracklearn.store.ingest.sources import parse_source, parse_sources
from tracklearn.store.sets.tracklets import open_set

WIDTH, HEIGHT, N = 160, 120, 40
LEFT = (5, 60, 110)


def picture(frame):
    """Frame 1 to 40: its number is its grey, so that a crop tells which frame it is from."""
    return np.full((HEIGHT, WIDTH, 3), 10 + 6 * frame, np.uint8)


def frame_of(crop):
    return round((float(crop.mean()) - 10) / 6)


def images(folder, numbers, name="{:06d}.jpg", frames=None):
    """Images called by `numbers` that show `frames` (the same, if None)."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in zip(numbers, frames or numbers, strict=True):
        cv2.imwrite(str(folder / name.format(number)), picture(frame))
    return folder


def boxes(path, *, frames=range(1, N + 1), rest="1,-1,-1,-1", ids=(1, 2, 3), change=lambda *box: box):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [(f, i, *change(x, 40, 24, 60)) for f in frames for i, x in zip(ids, LEFT, strict=True)]
    path.write_text("".join(",".join(map(str, row)) + f",{rest}\n" for row in rows))
    return path


@pytest.fixture
def clip(tmp_path):
    with VideoWriter(tmp_path / "clip.mp4", width=WIDTH, height=HEIGHT, fps=10) as writer:
        for frame in range(1, N + 1):
            writer.write(picture(frame))
    return tmp_path / "clip.mp4"


def made(tmp_path, *sources, **settings):
    return open_set(ingest(sources, tmp_path / "set", config=Config(**{"min_box_height": 20} | settings)))


def shown(found):
    """Frame number in the set -> frame that the crop shows, of the first tracklet of everybody."""
    tracklets = found.tracklets
    return {
        int(frame): frame_of(found.image(int(crop)))
        for frame, crop in zip(tracklets.frame, tracklets.crop, strict=True)
    }


def listed(found):
    (source,) = found.manifest["sources"]
    return {entry["reason"]: entry["n"] for entry in source["skipped"]}


GAP = [*range(1, 11), *range(21, 41)]


class TestNumberedImages:
    def test_a_gap_in_the_names_is_a_gap_in_frames_and_times(self, tmp_path):
        results = boxes(tmp_path / "r.txt")
        found = made(tmp_path, f"hall={results}+{images(tmp_path / 'img1', GAP)}", fps=10)
        assert shown(found) == {frame - 1: frame for frame in GAP}
        assert listed(found) == {"no image has the number of their frame": 30}
        tracklets = found.tracklets
        np.testing.assert_allclose(tracklets.time, tracklets.frame / 10)

    def test_the_second_half_of_a_film_gets_its_own_boxes(self, tmp_path):
        results = boxes(tmp_path / "r.txt")
        half = images(tmp_path / "half", range(21, 41))
        found = made(tmp_path, f"hall={results}+{half}")
        assert shown(found) == {frame - 1: frame for frame in range(21, 41)}
        assert listed(found) == {"no image has the number of their frame": 60}

    def test_images_from_0_with_results_from_0_and_from_1(self, tmp_path):
        folder = images(tmp_path / "zero", range(N), frames=range(1, N + 1))
        for name, first in (("a", 0), ("b", 1)):
            results = boxes(tmp_path / f"{name}.txt", frames=range(first, N + first))
            path = ingest([f"hall={results}+{folder}"], tmp_path / name)
            assert shown(open_set(path)) == {frame - 1: frame for frame in range(1, N + 1)}
        some = boxes(tmp_path / "c.txt", frames=range(1, N))
        with pytest.raises(ValueError, match="from 0 or from 1 cannot be told; name the images from 1 on"):
            Request([f"hall={some}+{folder}"]).check()

    def test_several_numbers_masks_and_strays(self, tmp_path):
        folder = images(tmp_path / "f", GAP, "2026-05-01_cam1_{:06d}.jpg")
        images(folder, GAP[:5], "2026-05-01_cam1_{:06d}.png")
        images(folder, GAP[:4], "2026-05-01_cam1_{:06d}_mask.jpg")
        images(folder, [7], "background.jpg")
        (folder / "Thumbs.db").write_bytes(b"x")
        (folder / "._2026-05-01_cam1_000001.jpg").write_bytes(b"x")
        found = made(tmp_path, f"hall={boxes(tmp_path / 'r.txt')}+{folder}")
        assert shown(found) == {frame - 1: frame for frame in GAP}
        assert listed(found) == {
            "no image has the number of their frame": 30,
            "another kind of image than the frames": 5,
            "it goes with a frame of the same name: a mask, a copy": 4,
            "its name is unlike those of the frames": 1,
            "hidden: the name begins with a dot": 1,
            "not an image by the end of its name": 1,
        }
        assert found.manifest["sources"][0]["counts"]["files"] == 42

    def test_a_stride_takes_every_other_image_and_counts_the_rest(self, tmp_path):
        results = boxes(tmp_path / "r.txt")
        even = images(tmp_path / "even", range(2, 41, 2))
        found = made(tmp_path, f"hall={results}+{even}", stride=2, min_length=3)
        assert shown(found) == {frame - 1: frame for frame in range(2, 41, 4)}
        assert listed(found) == {
            "no image has the number of their frame": 60,
            "their frames are left out by the stride": 30,
            "they are left out by the stride": 10,
        }

    def test_a_broken_image_keeps_its_place(self, tmp_path):
        folder = images(tmp_path / "f", range(1, N + 1))
        (folder / "000007.jpg").write_bytes(b"no image")
        found = made(tmp_path, f"hall={boxes(tmp_path / 'r.txt')}+{folder}")
        assert shown(found) == {frame - 1: frame for frame in range(1, N + 1) if frame != 7}
        assert listed(found)["their frames cannot be decoded"] == 3

    def test_two_images_of_a_frame_are_refused(self, tmp_path):
        folder = images(tmp_path / "f", range(1, 6))
        images(folder, [3], "{:02d}.jpg")
        with pytest.raises(ValueError, match=r"two images of frame 3 in .*f: .*; leave one of them"):
            open_frames(folder)

    def test_detections_of_a_file_are_paired_alike(self, tmp_path):
        det = boxes(tmp_path / "det.txt", ids=(-1, -1, -1), rest="0.9,-1,-1,-1")
        found = made(
            tmp_path, f"hall=video:{images(tmp_path / 'half', range(21, 41))}", detector=f"file:{det}"
        )
        assert shown(found).items() <= {frame - 1: frame for frame in range(21, 41)}.items()
        assert len(shown(found)) > 15
        zero = boxes(tmp_path / "zero.txt", frames=range(N), ids=(-1, -1, -1))
        with pytest.raises(ValueError, match=r"zero\.txt names frames 0 to 39.*add 1 to every frame"):
            Request([f"video:{tmp_path / 'half'}"], Config(detector=f"file:{zero}")).check()

    def test_detections_from_0_on_a_video_are_refused(self, tmp_path, clip):
        zero = boxes(tmp_path / "zero.txt", frames=range(N), ids=(-1, -1, -1))
        with pytest.raises(ValueError, match="this file counts from 0, add 1 to every frame"):
            Request([clip], Config(detector=f"file:{zero}")).check()
        with pytest.raises(ValueError, match=r"zero\.txt line 1: .*this file counts from 0, add 1"):
            Request([f"{boxes(tmp_path / 'zero.txt', frames=range(N))}+{clip}"]).check()


SEQINFO = (
    "[Sequence]\nname=SEQ-01\nimDir={}\nframeRate=10\nseqLength={}\nimWidth=160\nimHeight=120\nimExt=.jpg\n"
)


@pytest.fixture
def sequence(tmp_path):
    folder = tmp_path / "SEQ-01"
    images(folder / "img1", range(1, N + 1))
    boxes(folder / "gt" / "gt.txt", rest="1,1,1")
    boxes(folder / "det" / "det.txt", ids=(-1, -1, -1), rest="0.9,-1,-1,-1")
    (folder / "seqinfo.ini").write_text(SEQINFO.format("img1", N))
    return folder


class TestSequences:
    def test_alone_it_is_refused_with_the_forms(self, sequence):
        with pytest.raises(ValueError, match="is a MOTChallenge sequence: say what") as error:
            parse_source(f"hall={sequence}")
        for form in (":gt (its ground truth", ":det (its detections", ":RESULTS.txt", "video:"):
            assert form in str(error.value)
        with pytest.raises(
            ValueError, match=r"holds MOTChallenge sequences: name them one by one, such as .*:gt"
        ):
            parse_source(sequence.parent)

    @pytest.mark.parametrize(
        "form", ["{0}:gt", "{0}:gt/gt.txt", "{0}/gt/gt.txt+{0}/img1", "{0}/gt/gt.txt+{0}"]
    )
    def test_truth_as_tracks_at_the_rate_of_seqinfo(self, tmp_path, sequence, form):
        found = made(tmp_path, form.format(sequence))
        assert found.cameras == ("SEQ-01",)
        assert found.tracklets.n_crops == 3 * N
        assert found.tracklets.time.max() == pytest.approx((N - 1) / 10)
        assert found.manifest["sources"][0]["video"]["fps"] == 10
        assert listed(found) == {}
        assert "warnings" not in found.manifest["sources"][0]

    def test_detections_are_tracked_results_are_taken(self, tmp_path, sequence):
        found = made(tmp_path, f"hall@3={sequence}:det", detector="hog", label=None)
        (source,) = found.manifest["sources"]
        assert (source["kind"], source["camera"], source["counts"]["detections"]) == ("video", "hall", 3 * N)
        assert source["detector"] == f"file:{sequence}/det/det.txt"
        boxes(sequence / "mine.txt", frames=range(5, 20))
        path = ingest([f"{sequence}:mine.txt"], tmp_path / "mine")
        assert open_set(path).tracklets.n_crops == 45
        path = ingest(
            [f"{sequence}:{boxes(tmp_path / 'other.txt', frames=range(5, 12))}"], tmp_path / "other"
        )
        assert open_set(path).tracklets.n_crops == 21

    def test_two_sequences_with_their_own_detections_need_no_template(self, tmp_path, sequence):
        second = tmp_path / "SEQ-02"
        images(second / "img1", range(1, N + 1))
        boxes(second / "det" / "det.txt", ids=(-1, -1, -1))
        found = made(tmp_path, f"{sequence}:det", f"{second}:det", detector="file:none.txt")
        assert found.cameras == ("SEQ-01", "SEQ-02")

    def test_what_is_not_there_is_named(self, tmp_path, sequence, monkeypatch):
        with pytest.raises(FileNotFoundError, match=r"no such file: none\.txt, nor .*none\.txt: NAME="):
            parse_source(f"{sequence}:none.txt")
        (sequence / "gt" / "gt.txt").unlink()
        with pytest.raises(FileNotFoundError, match=r"gt\.txt \(test sequences come without truth\)"):
            parse_source(f"{sequence}:gt")
        monkeypatch.chdir(tmp_path)
        for folder in (tmp_path, sequence):
            boxes(folder / "same.txt")
        with pytest.raises(ValueError, match=r"SEQ-01:same\.txt may be .* or same\.txt: write RESULTS\+"):
            parse_source("SEQ-01:same.txt")

    def test_other_images_other_lengths(self, tmp_path, sequence):
        (sequence / "img1").rename(sequence / "pictures")
        images(sequence / "pictures", range(1, 4), "{:06d}.png")
        (sequence / "seqinfo.ini").write_text(SEQINFO.format("pictures", 50))
        found = made(tmp_path, f"{sequence}:gt")
        (source,) = found.manifest["sources"]
        assert source["warnings"] == ["40 frames, but seqinfo.ini promises 50"]
        assert listed(found) == {"another kind of image than the frames": 3}
        assert found.cameras == ("SEQ-01",)

    def test_a_changed_rate_makes_another_set(self, tmp_path, sequence):
        made(tmp_path, f"{sequence}:gt")
        (sequence / "seqinfo.ini").write_text("[Sequence]\nframeRate=20\n")
        with pytest.raises(FileExistsError, match="not made from these sources"):
            ingest([f"{sequence}:gt"], tmp_path / "set", config=Config(min_box_height=20), resume=True)

    def test_only_the_folder_that_it_names_gets_its_rate(self, tmp_path, sequence):
        other = images(sequence / "thumbs", range(1, 4))
        for folder, fps in ((other, 25), (sequence / "img1", 10)):
            with open_frames(folder) as frames:
                assert frames.info.fps == fps

    def test_a_link_to_the_frames_has_their_rate(self, tmp_path, sequence):
        (tmp_path / "link").symlink_to(sequence / "img1")
        (tmp_path / "two").mkdir()
        (tmp_path / "two" / "img1").symlink_to(sequence / "img1")
        (tmp_path / "two" / "seqinfo.ini").write_text("[Sequence]\nframeRate=5\n")
        for folder, fps in ((tmp_path / "link", 10), (tmp_path / "two" / "img1", 5)):
            with open_frames(folder) as frames:
                assert frames.info.fps == fps

    @pytest.mark.parametrize(
        ("text", "fps", "n"),
        [
            ("[Sequence]\nframeRate=29.97\nseqLength=3", 29.97, 3),
            ("[sequence]\r\nFRAMERATE = 14 ; of the camera\r\nseqLength= 30 # all\r\n\x1a", 14, 30),
            ("frameRate='7'\nframeRate=5\n\n# note\nno value\n", 5, None),
            ("", None, None),
        ],
    )
    def test_seqinfo_in_its_dialects(self, tmp_path, text, fps, n):
        for encoding in ("utf-8", "utf-8-sig", "utf-16"):
            (tmp_path / "seqinfo.ini").write_bytes(text.encode(encoding))
            info = read_seqinfo(tmp_path / "seqinfo.ini")
            assert (info.fps, info.n_frames, info.images) == (fps, n, "img1")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[S]\nframeRate=0", "line 2: framerate is '0', expected frames per second"),
            ("frameRate=fast", "line 1: framerate is 'fast'"),
            ("frameRate=nan", "framerate is 'nan'"),
            ("frameRate=" + "9" * 400, "framerate is '999"),
            ("seqLength=1.5", "seqlength is '1.5', expected a whole number"),
            ("imDir=../img1", "imdir is '../img1', expected the name of a folder"),
        ],
    )
    def test_seqinfo_with_values_that_cannot_be(self, tmp_path, text, message):
        (tmp_path / "seqinfo.ini").write_text(text)
        with pytest.raises(ValueError, match=r"seqinfo\.ini.*" + message):
            read_seqinfo(tmp_path / "seqinfo.ini")

    def test_a_name_with_a_colon_stays_a_name(self, tmp_path, sequence):
        (tmp_path / "SEQ-01:gt").mkdir()
        images(tmp_path / "SEQ-01:gt" / "a", [1])
        assert parse_sources([f"{sequence}:gt"])[0].kind == "crops"


class TestTracksOfPersons:
    def test_annotations_leave_out_other_classes_and_flags(self, tmp_path, clip):
        rows = []
        for frame in range(1, N + 1):
            for i, x, rest in ((1, 5, "1,1,1"), (2, 60, "1,2,1"), (3, 110, "0,1,1")):
                rows.append(f"{frame},{i},{x},40,24,60,{rest}\n")
        (tmp_path / "gt.txt").write_text("".join(rows))
        found = made(tmp_path, f"hall={tmp_path / 'gt.txt'}+{clip}")
        assert len(found.tracklets) == 1
        assert set(found.tracklets.box[:, 0]) == {5}
        assert listed(found) == {
            "their flag is 0: not to be counted": N,
            "their class is 2, a person's is 1": N,
        }
        assert found.manifest["sources"][0]["counts"]["detections"] == 3 * N

    def test_detections_as_results_are_refused_single_ids_below_0_left_out(self, tmp_path, clip):
        det = boxes(tmp_path / "det.txt", ids=(-1, -1, -1))
        with pytest.raises(ValueError, match=r"boxes without a track only.*--detector file:.*det\.txt"):
            Request([f"hall={det}+{clip}"]).check()
        some = boxes(tmp_path / "some.txt", ids=(1, -1, 3))
        found = made(tmp_path, f"hall={some}+{clip}")
        assert len(found.tracklets) == 2
        assert listed(found) == {"their id is below 0: no track": N}


class TestBoxesThatLeaveThePicture:
    @pytest.mark.parametrize(
        ("change", "probable"),
        [
            (lambda x, y, w, h: (x, y, x + w, y + h), "columns 5 and 6 are probably x2,y2: subtract"),
            (lambda x, y, w, h: (2 * x, 2 * y, 2 * w, 2 * h), "about 2 times as large (320x240): divide"),
            (lambda x, y, w, h: (x + w / 2, y + h / 2 + 20, w, h), "probably the centres of boxes: subtract"),
            (lambda x, y, w, h: (x, y - 15 - 30, w, h), "whole persons at its border"),
        ],
    )
    def test_what_is_probable_is_told(self, tmp_path, clip, change, probable):
        results = boxes(tmp_path / "r.txt", change=change)
        (source,) = made(tmp_path, f"hall={results}+{clip}", min_box_height=1).manifest["sources"]
        (warning,) = source["warnings"]
        assert "of the boxes leave the picture of 160x120" in warning
        assert probable in warning

    def test_fractions_are_told_though_nothing_is_left(self, tmp_path, clip):
        results = boxes(tmp_path / "r.txt", change=lambda x, y, w, h: (x / 160, y / 120, w / 160, h / 120))
        with pytest.raises(
            ValueError, match=r"no people found.*fractions of the picture \(0 to 1\): multiply"
        ):
            made(tmp_path, f"hall={results}+{clip}")

    def test_all_outside_is_refused(self, tmp_path, clip):
        results = boxes(tmp_path / "r.txt", change=lambda x, y, w, h: (x + 400, y, w, h))
        with pytest.raises(
            ValueError, match=r"no people found in .*clip\.mp4: .*100% of the boxes leave the picture"
        ):
            made(tmp_path, f"hall={results}+{clip}")

    def test_detections_of_a_file_are_told_alike(self, tmp_path, clip):
        det = boxes(tmp_path / "d.txt", ids=(-1,) * 3, change=lambda x, y, w, h: (x, y, x + w, y + h))
        (source,) = made(tmp_path, f"hall={clip}", detector=f"file:{det}").manifest["sources"]
        assert "columns 5 and 6 are probably x2,y2" in source["warnings"][0]

    def test_the_screen_shows_what_the_manifest_holds(self, tmp_path, clip, monkeypatch, capsys):
        results = boxes(tmp_path / "r.txt", change=lambda x, y, w, h: (x, y, x + w, y + h))
        command = ["tracklearn", "ingest", f"hall={results}+{clip}", "--out", str(tmp_path / "set")]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
        (source,) = open_set(tmp_path / "set").manifest["sources"]
        assert f": {source['warnings'][0]}" in capsys.readouterr().err

    def test_boxes_that_fit_give_no_word(self, tmp_path, clip):
        (source,) = made(tmp_path, f"hall={boxes(tmp_path / 'r.txt')}+{clip}").manifest["sources"]
        assert "warnings" not in source
