"""What was lost is on the screen: the same lines for the report, the manifest and --json."""

import json
import re

import numpy as np
import pytest

from tests.app.conftest import QUICK
from tests.app.made_files import put
from tracklearn.app.report.left_out import MAX_LINES, lines, losses
from tracklearn.store.sets.tracklets import open_set

BROKEN = "the image cannot be decoded (an empty file)"
SETTINGS = ["--weights", "none", *(part for setting in QUICK for part in ("--set", setting))]


@pytest.fixture
def crops(tmp_path):
    """Six persons in two cameras, of each camera one picture empty; a stray file, a folder of text."""
    for camera in (1, 2):
        for person in range(6):
            for i in range(7):
                put(tmp_path / f"cam{camera}" / f"p{person}" / f"{i}.jpg", person, person * 7 + i)
        (tmp_path / f"cam{camera}" / "p0" / "9.jpg").write_bytes(b"")
    (tmp_path / "cam1" / "p0" / "notes.txt").write_text("x")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("x")
    return [tmp_path / "cam1", tmp_path / "cam2", tmp_path / "text"]


EXPECTED = [
    r"skipped .*text: no images in folder text: .*",
    r"left out: p0/9\.jpg and 1 more: the image cannot be decoded \(an empty file\) \(cam1 1, cam2 1\)",
    r"left out: 1 files: not an image by the end of its name \(cam1\)",
]


def said(err):
    return [line for line in err.splitlines() if re.match("skipped|left out|note on", line)]


def test_every_loss_is_on_the_screen_in_the_json_and_in_the_report(crops, call, tmp_path):
    code, out, err = call("ingest", *crops, "--out", "set", "--json")
    assert code == 0
    expected = losses(open_set("set").manifest)
    assert json.loads(out)["losses"] == expected
    assert {(e["kind"], e["n"]) for e in expected} == {("source", 1), ("part", 1)}
    assert said(err) == lines(expected)
    assert len(said(err)) == len(EXPECTED)
    assert all(any(re.fullmatch(p, line) for line in said(err)) for p in EXPECTED), said(err)

    code, out, err = call("train", "set", "--out", "run", *SETTINGS, "--json")
    assert (code, said(err), json.loads(out)["losses"]) == (0, lines(expected), expected)

    code, out, err = call("run", *crops, "--out", "work", *SETTINGS, "--json")
    assert code == 0
    found = json.loads(out)["losses"]
    assert (said(err), len(found)) == (lines(found), len(expected))
    page = (tmp_path / "work" / "report.html").read_text().replace("&#39;", "'")
    table = page[page.index('<section id="skipped">') :]
    for entry in found:
        assert entry["reason"] in table
    code, _, err = call("run", *crops, "--out", "work", *SETTINGS, "--resume")
    assert (code, said(err)) == (0, lines(found))


def test_one_line_for_a_kind_over_all_sources():
    def source(camera, **rest):
        return {"camera": camera, "path": f"{camera}.mp4", "reason": None, "skipped": [], **rest}

    low = {"item": "boxes", "reason": "too small", "n": 1200}
    manifest = {
        "sources": [
            source("hall", skipped=[low, {"item": "frames", "reason": "broken", "n": 2}]),
            source("door", skipped=[{**low, "n": 34}], warnings=["cut short: 80 of 100 frames"]),
            source("yard", reason="damaged"),
        ]
    }
    assert lines(losses(manifest, {"broken_crops": 3})) == [
        "note on door.mp4: cut short: 80 of 100 frames",
        "skipped yard.mp4: damaged",
        "left out: 1,234 boxes: too small (hall 1,200, door 34)",
        "left out: 2 frames: broken (hall)",
        "left out: 3 crops: pictures that could not be decoded: training saw them grey (crops)",
    ]
    assert lines(losses({"sources": [source("hall")]}, {"broken_crops": 0})) == []


def test_thousands_of_kinds_are_a_few_lines():
    skipped = [{"item": "boxes", "reason": f"beyond {i}", "n": 1} for i in range(1000)]
    told = lines(losses({"sources": [{"camera": "c", "path": "c", "skipped": skipped}]}))
    assert len(told) == MAX_LINES
    assert told[-1].startswith(f"{1001 - MAX_LINES} more lines")


def test_names_that_steer_a_terminal_are_shown_harmless(call, tmp_path):
    put(tmp_path / "cam" / "p" / "0.jpg", 0, 0)
    bad = tmp_path / "cam" / "p" / "1\x1b[2J\n.jpg"
    bad.write_bytes(b"")
    code, _, err = call("ingest", tmp_path / "cam", "--out", "set")
    assert (code, "\x1b" in err, len(said(err))) == (0, False, 1)


def test_a_long_list_of_broken_pictures_keeps_its_number(tmp_path, call):
    put(tmp_path / "cam" / "p" / "0.jpg", 0, 0)
    for i in range(1, 301):
        (tmp_path / "cam" / "p" / f"{i}.jpg").write_bytes(b"")
    code, _, err = call("ingest", tmp_path / "cam", "--out", "set")
    assert code == 0
    assert said(err) == [f"left out: p/1.jpg and 299 more: {BROKEN} (cam)"]
    assert np.sum([e["n"] for e in losses(open_set("set").manifest)]) == 300
