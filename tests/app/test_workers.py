"""--workers and --on: the same set, a table of sources, and one line where they cannot be had."""

import json
import sys

import pytest

from tracklearn.app.commands import pace
from tracklearn.store.sets.tracklets import open_set

pytestmark = pytest.mark.long


def test_ingest_with_workers_is_the_set_of_one_process(call, sources, done, tmp_path):
    (tmp_path / "text.mp4").write_text("this is no video")
    code, out, err = call("ingest", *sources, "text.mp4", "--out", "set", "--workers", "2", "--json")
    assert code == 0
    made, whole = open_set(tmp_path / "set"), open_set(done["out"] / "set")
    assert made.manifest["shards"] == whole.manifest["shards"]
    assert json.loads(out.splitlines()[-1])["n_crops"] == whole.n_crops
    assert "2 of 3 sources read: " in err
    assert "left out: not a video that can be decoded" in err


def test_a_run_with_workers_gives_the_same_gallery(call, sources, done, tmp_path):
    from tests.app.conftest import QUICK

    settings = [part for setting in QUICK for part in ("--set", setting)]
    code, _, err = call(
        "run", *sources, "--out", "w", "--weights", "none", "--preset", "cpu", "--workers", "2", *settings
    )
    assert code == 0, err
    assert open_set(tmp_path / "w" / "set").digest == open_set(done["out"] / "set").digest
    for folder in ("run/gallery", "run"):
        files = sorted((done["out"] / folder).glob("*.[sp]a*"))  # safetensors, parquet
        assert files
        for file in files:
            assert (tmp_path / "w" / folder / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.parametrize("command", ["ingest", "run"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--on", "dask"], "--on 'dask' is unknown: write ray (a cluster on this machine) or ray:ADDRESS"),
        (["--on", "ray"], 'Ray is not installed: pip install "tracklearn[ray]"'),
    ],
)
def test_workers_that_cannot_be_had_are_one_line_before_any_work(
    call, sources, command, options, message, monkeypatch, tmp_path
):
    monkeypatch.setitem(sys.modules, "ray", None)
    weights = ["--weights", "none"] if command == "run" else []
    code, out, err = call(command, *sources, "--out", "new", *options, *weights)
    assert (code, out) == (2, "")
    assert err.strip() == f"tracklearn: {message}"
    assert not (tmp_path / "new").exists()


def source(name, rate, status="ok", reason=None, frames=100):
    return {
        "camera": name,
        "path": f"../{name}.mp4",
        "status": status,
        "reason": reason,
        "counts": {"frames": frames} if frames else {},
        "n_crops": 7,
        "seconds": frames / rate if rate else 0.0,
        "per_second": float(rate),
    }


def test_the_table_names_the_slow_and_those_that_gave_nothing():
    sources = [source(f"c{i}", 100) for i in range(8)]
    sources += [source("slow", 40), source("slower", 10), source("fair", 51)]
    sources += [source("lost", 0, "skipped", "2 workers that read it came to grief (it was killed)", 0)]
    lines = pace.table(sources).splitlines()
    assert lines[0] == "11 of 12 sources read: 1,107 frames in 22.5 s of work, 49 a second and worker"
    assert [line.split() for line in lines[1:]] == [
        ["camera", "source", "frames"],
        ["slower", "slower.mp4", "100", "10/s", "slow"],
        ["slow", "slow.mp4", "100", "40/s", "slow"],
        [
            "lost",
            "lost.mp4",
            "7",
            *[
                "left",
                "out:",
                "2",
                "workers",
                "that",
                "read",
                "it",
                "came",
                "to",
                "grief",
                "(it",
                "was",
                "killed)",
            ],
        ],
    ]


def test_the_table_is_bounded_and_says_how_many_more():
    sources = [source(f"c{i}", 100) for i in range(40)] + [source(f"s{i}", 1) for i in range(15)]
    lines = pace.table(sources).splitlines()
    assert len(lines) == 1 + 1 + pace.SHOWN + 1
    assert lines[-1] == "  and 5 more"
    assert pace.table([source("a", 100)]).splitlines() == [
        "1 of 1 sources read: 100 frames in 1.0 s of work, 100 a second and worker"
    ]
