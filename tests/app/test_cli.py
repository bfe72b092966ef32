import json
import re
import subprocess
import sys

import pytest

from tests.app.conftest import QUICK
from tracklearn.app import cli

COMMANDS = [
    "ingest",
    "train",
    "index",
    "search",
    "serve",
    "identities",
    "calibrate",
    "track",
    "report",
    "run",
    "demo",
    "datasets",
    "evaluate",
    "export",
    "forget",
    "experiment",
    "check",
    "settings",
]
GROUPS = {"noise": ["measure", "simulate"]}
WHOLE = [*COMMANDS, *(f"{group} {name}" for group, names in GROUPS.items() for name in names)]


@pytest.mark.parametrize("command", WHOLE)
def test_every_command_has_help_and_json(call, command):
    code, out, _ = call(*command.split(), "--help")
    assert code == 0
    assert "--json" in out
    assert len(out.splitlines()[2]) > 20


def test_every_command_is_in_the_readme():
    from tests.conftest import ROOT

    readme = (ROOT / "README.md").read_text()
    names = {c.name or c.callback.__name__ for c in cli.app.registered_commands}
    assert names == set(COMMANDS)
    groups = {
        g.typer_instance.info.name: g.typer_instance.registered_commands for g in cli.app.registered_groups
    }
    assert {g: [c.name or c.callback.__name__ for c in commands] for g, commands in groups.items()} == GROUPS
    assert all(f"tracklearn {name}" in readme for name in WHOLE)


def test_the_single_steps_print_one_json_object_each(call, sources, done, tmp_path):
    run_path, set_path = tmp_path / "run", tmp_path / "set"
    code, out, _ = call("ingest", *sources, "--out", set_path, "--json")
    result = json.loads(out.splitlines()[-1])
    assert code == 0
    assert result["n_tracklets"] > 3
    assert {s["camera"] for s in result["sources"] if s["status"] == "ok"} == set(result["cameras"])

    settings = [part for setting in QUICK for part in ("--set", setting)]
    code, out, err = call("train", set_path, "--out", run_path, "--weights", "none", *settings, "--json")
    result = json.loads(out.splitlines()[-1])
    assert code == 0
    assert len(result["rounds"]) == 2
    assert "epoch   1" in err
    # The command line and the pipeline are one: same set, same settings, same bytes.
    reference = done["out"] / "run" / "weights.safetensors"
    assert (run_path / "weights.safetensors").read_bytes() == reference.read_bytes()

    code, out, _ = call("index", run_path, set_path, "--json")
    assert json.loads(out.splitlines()[-1])["n_entries"] > 3
    code, out, _ = call("search", run_path, "0", "-k", "3", "--json")
    assert [r["rank"] for r in json.loads(out.splitlines()[-1])["results"]] == [1, 2, 3]
    code, out, _ = call("search", run_path, "0", "-k", "2", "--sheet", tmp_path / "s.png")
    assert out.splitlines()[-1] == str(tmp_path / "s.png")
    assert (tmp_path / "s.png").read_bytes()[:4] == b"\x89PNG"
    code, out, _ = call("report", run_path, "--json")
    assert json.loads(out.splitlines()[-1])["report"] == str(run_path / "report.html")


def test_run_does_it_all_and_only_once(call, sources, tmp_path):
    settings = [part for setting in [*QUICK, "tmc.epochs=1"] for part in ("--set", setting)]
    arguments = ["run", *sources, "--out", tmp_path / "w", "--weights", "none", *settings]
    code, out, err = call(*arguments)
    assert code == 0
    assert "detector motion (no trained detector" in err
    assert out.splitlines()[-1] == str(tmp_path / "w" / "report.html")
    assert call(*arguments)[0] == 2
    code, out, err = call(*arguments, "--resume", "--json")
    assert code == 0
    assert "epoch" not in err
    assert set(json.loads(out)["seconds"]) == {"ingest", "train", "index", "identities", "report"}


@pytest.mark.long
def test_every_section_may_be_set_and_options_win(call, sources, tmp_path):
    """One file serves ingest and training; --detector beats it; --set reaches ingest in run."""
    from tracklearn.store.sets.tracklets import open_set

    file = tmp_path / "s.toml"
    file.write_text('[ingest]\ndetector = "hog"\nmin_length = 9\n[tmc]\nepochs = 1\niterations = 1\n')
    code, _, err = call(
        "run", *sources, "--out", tmp_path / "w", "--weights", "none", "--config", file,
        "--detector", "motion", "--set", "ingest.min_length=8",
    )  # fmt: skip
    assert code == 0, err
    tracklet_set = open_set(tmp_path / "w" / "set")
    assert tracklet_set.manifest["settings"]["detector"] == "motion"
    assert tracklet_set.manifest["settings"]["min_length"] == 8
    assert tracklet_set.tracklets.length.min() >= 8


@pytest.mark.parametrize(
    "wrong",
    [
        ["--detector", "hogg"],
        ["--preset", "fast"],
        ["--method", "tcm"],
        ["--device", "banana"],
        ["--device", "cuda:9"],
        ["--weights", "typo.pth"],
        ["--set", "tmc.epoch=1"],
        ["--set", "ingest.detektor=hog"],
    ],
)
def test_a_mistake_is_refused_before_any_work_and_harms_nothing(call, done, sources, tmp_path, wrong):
    import shutil

    options = wrong if "--weights" in wrong else [*wrong, "--weights", "none"]
    code, out, err = call("run", *sources, "--out", tmp_path / "new", *options)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists()
    shutil.copytree(done["out"], tmp_path / "old")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "old").rglob("*")}
    assert call("run", *sources, "--out", tmp_path / "old", "--resume", *options)[0] == 2
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "old").rglob("*")} == before


def test_a_camera_that_gave_nothing_is_named(call, sources, tmp_path):
    video_without_people(tmp_path / "empty.mp4")
    code, _, err = call("ingest", *sources, "empty.mp4", "--out", "set")
    assert code == 0
    assert "skipped" in err
    assert "empty.mp4" in err


def test_a_video_that_cannot_be_read_is_named_or_with_strict_refused(call, sources, tmp_path):
    (tmp_path / "text.mp4").write_text("this is no video")
    code, out, err = call("ingest", *sources, "text.mp4", "--out", "set", "--json")
    assert code == 0
    assert "skipped text.mp4: not a video that can be decoded: text.mp4 (" in err
    assert json.loads(out.splitlines()[-1])["sources"][-1]["status"] == "skipped"
    for command in ("ingest", "run"):
        code, _, err = call(command, *sources, "text.mp4", "--out", "other", "--strict")
        assert code == 2
        assert "not a video that can be decoded: text.mp4 (" in err
        assert len(err.strip().splitlines()) == 1
        assert not (tmp_path / "other").exists()


def test_a_run_goes_on_without_a_video_that_cannot_be_read(call, sources, tmp_path):
    (tmp_path / "text.mp4").write_text("this is no video")
    settings = [part for setting in [*QUICK, "tmc.epochs=1"] for part in ("--set", setting)]
    arguments = ["run", *sources, "back=text.mp4", "--out", tmp_path / "w", "--weights", "none", *settings]
    code, _, err = call(*arguments)
    assert code == 0
    assert "skipped back (text.mp4): not a video that can be decoded: text.mp4 (" in err
    report = (tmp_path / "w" / "report.html").read_text()
    assert "not a video that can be decoded: text.mp4 (" in report
    before = (tmp_path / "w" / "report.html").stat().st_mtime_ns
    assert call(*arguments, "--resume")[0] == 0
    assert (tmp_path / "w" / "report.html").stat().st_mtime_ns == before


def test_a_query_that_is_no_picture_is_one_line(call, done, tmp_path):
    from tests.store.made_pictures import claiming_jpeg

    run_path = done["out"] / "run"
    (tmp_path / "large.jpg").write_bytes(claiming_jpeg(65_500, 65_500))
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "link.jpg").symlink_to("nowhere")
    for name, why in (
        ("large.jpg", "larger than 67 megapixels"),
        ("text.jpg", "not JPEG, PNG"),
        ("link.jpg", "a link that leads nowhere"),
        (".", "not a regular file"),
        ("none.jpg", "no such file: none.jpg"),
    ):
        code, _, err = call("search", run_path, name)
        assert code == 2
        assert why in err
        assert len(err.strip().splitlines()) == 1


def video_without_people(path):
    import numpy as np

    from tracklearn.store.film.video_writer import VideoWriter

    with VideoWriter(path, width=160, height=120, fps=10) as writer:
        for _ in range(30):
            writer.write(np.full((120, 160, 3), 90, np.uint8))


@pytest.mark.parametrize("command", ["ingest", "run"])
@pytest.mark.parametrize(
    ("make", "source", "message"),
    [
        (lambda f: None, "none.mp4", r"no such file.*none\.mp4"),
        (lambda f: (f / "a.mp4").write_text("no video"), "a.mp4", r"not a video.*a\.mp4"),
        (lambda f: video_without_people(f / "empty.mp4"), "empty.mp4", "(?i)people.*detector"),
        (lambda f: (f / "folder").mkdir(), "folder", "folder"),
        (
            lambda f: (video_without_people(f / "v.mp4"), (f / "r.txt").write_text("1,1,5,5,x,9,1\n")),
            "r.txt+v.mp4",
            r"r\.txt line 1",
        ),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(call, tmp_path, command, make, source, message):
    make(tmp_path)
    # Sources are looked at before weights: only the video that can be read gets as far as needing any.
    weights = ["--weights", "none"] if command == "run" and source == "empty.mp4" else []
    code, out, err = call(command, source, "--out", "work", "--json", *weights)
    assert code == 2
    assert out == ""
    assert not (tmp_path / "work").exists()
    # Before the work begins the detector that was chosen is told.
    lines = [line for line in err.splitlines() if line.strip() and not line.startswith("detector motion (")]
    assert len(lines) == 1
    assert lines[0].startswith("tracklearn: ")
    assert re.search(message, lines[0]), lines[0]


@pytest.mark.parametrize("command", ["ingest", "run"])
def test_an_existing_out_is_refused(call, sources, tmp_path, command):
    out = tmp_path / "work"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    code, _, err = call(command, sources[0], "--out", out)
    assert code == 2
    assert "--resume" in err
    assert "--out" in err
    assert [p.name for p in out.iterdir()] == ["mine.txt"]


def test_a_full_disk_is_one_line(call, sources, monkeypatch):
    import errno

    from tracklearn.store.ingest import ingest

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "set.partial")

    monkeypatch.setattr(ingest, "ingest", full)
    code, _, err = call("ingest", sources[0], "--out", "set")
    assert code == 2
    assert "No space left on device: make room" in err


def test_imagenet_weights_offline_name_three_ways_out(call, done, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKLEARN_CACHE", str(tmp_path / "cache"))
    import urllib.request

    def offline(*_, **__):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    code, _, err = call("train", done["out"] / "set", "--out", "run")
    assert code == 2
    assert "--weights PATH" in err
    assert "--weights none" in err
    assert str(tmp_path / "cache") in err.replace("\n", "")
    assert not (tmp_path / "run").exists()


def test_stopping_says_how_to_go_on(call, monkeypatch, sources):
    from tracklearn.store.ingest import ingest

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(ingest, "ingest", stop)
    code, _, err = call("ingest", sources[0], "--out", "set")
    assert code == 130
    assert "--resume" in err


def test_help_is_quick_to_load():
    code = "import sys; from tracklearn.app import cli; print('torch' in sys.modules, 'av' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False"]
