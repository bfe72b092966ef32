"""Whatever lies in a folder is accounted for: found = kept + dropped + listed."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.made_pictures import encoded, noise

from tracklearn.store.film.frame_names import number_frames
from tracklearn.store.ingest.folders import scan_folder
from tracklearn.store.ingest.ingest import Config, ingest
from tracklearn.store.picture.listing import count_files, list_folder
from tracklearn.store.sets.tracklets import open_set
from tracklearn.store.skipped import MAX_LISTED, shorten, skip

JPEG = encoded(".jpg", noise(16, 8))
# name -> content; None is a link that leads nowhere
FILES = {
    "good.jpg": JPEG,
    "good2.JPG": JPEG,
    "0002_c1s1_000451_03.jpg": JPEG,
    "-1_c1s1_000401_00.jpg": JPEG,
    "0000_c1s1_000401_00.jpg": JPEG,
    "broken.png": b"x",
    "large.gif": b"GIF89a",
    "notes.txt": b"x",
    "Thumbs.db": b"x",
    ".DS_Store": b"x",
    "._good.jpg": b"x",
    "no-suffix": b"x",
    "gone.jpg": None,
    "gone.txt": None,
}
FOLDERS = ("", "a", "b", "a/deep", "a/deep/deeper", ".hidden", ".hidden/x", "a/.hidden", "c.jpg", "empty")


def make(root, places):
    root.mkdir()
    for folder in FOLDERS:
        (root / folder).mkdir(exist_ok=True)
    for folder, name in places:
        file = root / folder / name
        if FILES[name] is None:
            file.symlink_to("nowhere")
        else:
            file.write_bytes(FILES[name])
    return root


def all_files(root):
    return sum(len(files) for _, _, files in os.walk(root))


PLACES = st.sets(st.tuples(st.sampled_from(FOLDERS), st.sampled_from(sorted(FILES))), max_size=40)


@settings(max_examples=60, deadline=None)
@given(places=PLACES)
def test_files_found_are_kept_dropped_or_listed(tmp_path_factory, places):
    folder = tmp_path_factory.mktemp("found")
    root = make(folder / "root", places)
    try:
        plan = scan_folder(root)
    except ValueError:
        return  # nothing that could be a tracklet
    assert plan.n_found == len(places) == all_files(root)
    if not any(FILES[file.name] == JPEG for tracklet in plan.tracklets for file in tracklet.files):
        with pytest.raises(ValueError, match="none of the images can be decoded"):
            ingest([root], folder / "set")
        return
    opened = open_set(ingest([root], folder / "set"))
    source = opened.manifest["sources"][0]
    listed = [entry for entry in source["skipped"] if not entry["reason"].startswith("a sub-folder")]
    assert source["counts"]["files"] == opened.n_crops + sum(entry["n"] for entry in listed) == len(places)


@settings(max_examples=40, deadline=None)
@given(places=PLACES, stride=st.integers(1, 3))
def test_files_of_a_folder_of_frames_are_read_or_listed(tmp_path_factory, places, stride):
    folder = tmp_path_factory.mktemp("frames")
    root = make(folder / "root", places)
    (root / "good.jpg").write_bytes(JPEG)
    # Frames are counted by the numbers in names where there are some, otherwise from 1.
    (folder / "boxes.txt").write_text("".join(f"{i},1,0,0,8,16,1\n" for i in range(1, 461)))
    config = Config(min_length=1, min_box_height=1, stride=stride)
    given_ = [f"{folder}/boxes.txt+{root}"]
    frames = number_frames(list_folder(root).images).files
    if not any(FILES[file.name] == JPEG for file in frames[::stride]):
        with pytest.raises(ValueError, match="no people found"):
            ingest(given_, folder / "set", config=config)
        return
    opened = open_set(ingest(given_, folder / "set", config=config))
    source = opened.manifest["sources"][0]
    listed = [entry for entry in source["skipped"] if entry["item"] in ("files", "frames")]
    found = source["counts"]["frames"] + sum(entry["n"] for entry in listed)
    assert source["counts"]["files"] == found == all_files(root)


def test_reasons_are_told_apart(tmp_path):
    places = {(folder, name) for folder in FOLDERS for name in ("good.jpg", ".DS_Store", "notes.txt")}
    told = {entry["reason"]: entry["n"] for entry in scan_folder(make(tmp_path / "root", places)).skipped}
    assert told == {
        "hidden: the name begins with a dot": 14,
        "not an image by the end of its name": 5,
        "nested deeper than FOLDER/TRACKLET/IMAGE": 6,
        "they lie outside the sub-folders of tracklets": 1,
    }


def test_a_folder_of_videos_is_told_how_to_be_given(tmp_path):
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.mp4").write_bytes(b"x")
    with pytest.raises(ValueError, match="videos are named one by one"):
        scan_folder(tmp_path / "films")


def test_links_to_folders_are_not_counted_below_tracklets(tmp_path):
    root = make(tmp_path / "root", {("a", "good.jpg")})
    (root / "a" / "up").symlink_to(root)
    assert count_files(root / "a") == 1
    assert [path.name for path in list_folder(root / "a").folders] == ["deep", "up"]


def test_long_lists_say_how_many_more_there_are_for_every_reason():
    entries = [skip(f"{i}.jpg", "broken") for i in range(250)] + [
        skip("b", "empty", 3),
        skip("c", "empty", 2),
    ]
    short = shorten(entries)
    assert sum(entry["n"] for entry in short) == 255
    assert [entry for entry in short if entry["reason"] == "empty"] == entries[-2:]
    assert len([entry for entry in short if entry["reason"] == "broken"]) == MAX_LISTED + 1
    assert short[-1] == skip("more, of 250", "broken", 150)
