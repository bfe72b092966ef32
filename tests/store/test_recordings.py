"""Folders and patterns of recordings."""

import os

import pytest

from tracklearn.store.film import recordings
from tracklearn.store.ingest.sources import Source, parse_source, parse_sources


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def put(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / name).write_bytes(name.encode())

    return put


def _names(sources):
    return [(s.camera, s.path.as_posix()) for s in sources]


@pytest.mark.parametrize("text", ["hall=rec", "hall=rec/", "hall=rec/*.mp4", "hall=rec/a*", "hall=re[c]/*"])
def test_a_folder_or_a_pattern_is_one_camera_in_natural_order(here, text):
    here("rec/a10.mp4", "rec/a2.mp4", "rec/a1.mp4")
    sources = parse_sources([text])
    assert _names(sources) == [("hall", f"rec/a{i}.mp4") for i in (1, 2, 10)]
    assert len(sources[0].found.files) == 3
    assert [s.found for s in sources[1:]] == [None, None]
    assert parse_sources(sources) == sources  # parsed once more they are the same


def test_an_unnamed_folder_gives_its_name_to_the_camera(here):
    here("door/a.mp4", "door/b.mp4", "x/door/c.mkv", "yard.mp4")
    assert _names(parse_sources(["door", "x/door", "yard.mp4"])) == [
        ("door", "door/a.mp4"),
        ("door", "door/b.mp4"),
        ("door-2", "x/door/c.mkv"),
        ("yard", "yard.mp4"),
    ]
    assert {s.camera for s in parse_sources(["door/*.mp4"])} == {"door"}
    assert {(s.camera, s.camid) for s in parse_sources(["gate@3=door"])} == {("gate", 3)}


def test_home_and_any_depth(here, tmp_path, monkeypatch):
    here("home/rec/1/b.mp4", "home/rec/2/10/c.mp4", "home/rec/2/9/d.mp4", "home/film.mp4")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    found = [s.path.relative_to(tmp_path).as_posix() for s in parse_sources(["x=~/rec/**/*.mp4"])]
    assert found == ["home/rec/1/b.mp4", "home/rec/2/9/d.mp4", "home/rec/2/10/c.mp4"]
    assert parse_source("x=~/film.mp4").path == tmp_path / "home" / "film.mp4"


def test_what_is_no_recording_is_counted(here):
    here("rec/a.mp4", "rec/B.MKV", "rec/.hidden.mp4", "rec/notes.txt", "rec/Thumbs.db", "rec/old/c.mp4")
    found = parse_sources(["hall=rec"])[0].found
    assert found.left_out == {
        "hidden: the name begins with a dot": 1,
        "not a video by the end of its name": 2,
        "in sub-folders": 1,
    }
    assert str(found).startswith("2 recordings found in rec, 4 other files left out (")
    assert parse_sources(["hall=rec/*"])[0].found.left_out == {"not a video by the end of its name": 2}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["rec"], r"folder rec holds both videos and images: write rec/\*\.mp4"),
        (["pile"], r"folder pile holds both videos and images: write pile/\*\.mp4"),
        (["deep"], r"folder deep holds videos in its sub-folders only: write deep/\*\*/\*\.avi"),
        (["pics/*.jpg"], r"no video among the 2 files of the pattern pics/\*\.jpg"),
        (["hall=none/*.mp4"], r"no file fits the pattern none/\*\.mp4"),
        (["only", "only/a.mp4"], r"only/a\.mp4 is given twice"),
    ],
)
def test_what_is_not_clear_is_refused_with_the_form(here, texts, message):
    here(
        "rec/a.mp4",
        "rec/1.jpg",
        "pile/a.mp4",
        "pile/crops/1.jpg",
        "deep/1/2/a.avi",
        "pics/1.jpg",
        "pics/2.jpg",
    )
    here("only/a.mp4")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        parse_sources(texts)


def test_one_source_is_expected_where_one_is_asked_for(here):
    here("rec/a.mp4", "rec/b.mp4")
    with pytest.raises(ValueError, match="rec stands for 2 recordings"):
        parse_source("rec")
    assert parse_source("rec/a*").path.name == "a.mp4"


def test_names_with_such_signs_are_names_where_they_exist(here):
    here("a[1].mp4", "what?.mp4", "~x.mp4")
    names = ["a[1].mp4", "what?.mp4", "~x.mp4"]
    assert [s.path.name for s in parse_sources(names)] == names


def test_folders_of_crops_and_frames_are_what_they_were(here):
    here("crops/p1/1.jpg", "crops/p1/2.jpg", "frames/1.jpg", "crops/p1/.x", "crops/readme.txt")
    assert parse_source("crops").kind == "crops"
    assert parse_source("video:frames").kind == "video"
    os.makedirs("empty")
    assert parse_source("empty").kind == "crops"  # refused later, as ever


def test_an_address_is_a_source_and_shows_no_password(here):
    source = parse_source("hall@2=rtsp://user:secret@host/s?channel=1&pwd=secret")
    assert (source.camera, source.camid, source.kind) == ("hall", 2, "video")
    assert str(source) == "rtsp://user@host/s?channel=1&…"
    assert "secret" not in repr(source) + str(source.path)
    assert source.address.endswith("user:secret@host/s?channel=1&pwd=secret")
    assert isinstance(source, Source)
    two = parse_sources(["rtsp://host/s?channel=1", "rtsp://host/s?channel=2"])
    assert [s.camera for s in two] == ["host", "host-2"]
    with pytest.raises(ValueError, match=r"rtsp://u@host/s is given twice"):
        parse_sources(["a=rtsp://u:secret@host/s", "b=rtsp://u:secret@host/s"])


@pytest.mark.parametrize("before", ["r.txt+", "door=r.txt+", "video:", "x=video:"])
def test_addresses_do_not_go_with_files(here, before):
    here("r.txt")
    with pytest.raises(ValueError, match="an address stands alone behind the camera's name") as caught:
        parse_source(before + "rtsp://user:secret@192.0.2.1/s")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["rtsp:/user:secret@192.0.2.1/s", "user:secret@192.0.2.1/s", "a=ftp://u:secret@h/x"]
)
def test_what_is_nearly_an_address_is_refused_without_its_password(here, text):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        parse_sources([text])
    assert "secret" not in str(caught.value)


def test_stars_go_through_no_link_and_not_on_for_ever(tmp_path, monkeypatch):
    """A link to a folder above made ** walk in circles; repeated stars multiplied the way."""
    for name in ("a.mp4", "day/b.mp4", "day/hour/c.mp4", "day/.hidden/d.mp4", "day/.e.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "day" / "up").symlink_to(tmp_path, target_is_directory=True)

    def names(pattern):
        return [str(file.relative_to(tmp_path)) for file in recordings.match(f"{tmp_path}/{pattern}").files]

    every = ["a.mp4", "day/b.mp4", "day/hour/c.mp4"]
    assert names("**/*.mp4") == names("**/**/**/*.mp4") == every
    assert names("**/hour/*.mp4") == names("d*/**/c.mp4") == every[2:]
    assert names("day/**/?.mp4") == every[1:]
    monkeypatch.setattr(recordings, "MAX_WALKED", 2)
    with pytest.raises(ValueError, match="more than 2 files: narrow it"):
        names("**/*.mp4")


def test_a_folder_without_videos_is_not_searched_through_for_a_hint(tmp_path, monkeypatch):
    for i in range(9):
        (tmp_path / "a" / f"{i}.txt").parent.mkdir(exist_ok=True)
        (tmp_path / "a" / f"{i}.txt").write_text("x")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "film.mp4").write_bytes(b"x")
    with pytest.raises(ValueError, match="in its sub-folders only"):
        recordings.in_folder(tmp_path)
    monkeypatch.setattr(recordings, "_LOOKED_AT", 5)
    assert recordings.in_folder(tmp_path) is None


@pytest.mark.parametrize("pattern", ["*/", "/*/**/", "**/"])
def test_a_pattern_for_folders_is_refused_without_a_look(pattern, monkeypatch):
    monkeypatch.setattr(recordings, "_fitting", lambda pattern: pytest.fail("the disk was searched"))
    with pytest.raises(ValueError, match="stands for folders: name their videos"):
        recordings.match(pattern)
