"""Ingest by several workers: the set of one process, whoever is killed on the way."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.optional import has
from tests.store.killed_workers import CONFIG, FRAMES, KILLER, write_films

from tracklearn.store.ingest.ingest import ingest
from tracklearn.store.ingest.request import Request
from tracklearn.store.sets.setwriter import SetWriter
from tracklearn.store.sets.tracklets import open_set

pytestmark = pytest.mark.long

N, FEW = 40, 6


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return write_films(tmp_path_factory.mktemp("films"), N)


@pytest.fixture(scope="module")
def forty(films):
    return [f"{path.with_suffix('.txt')}+{path}" for path in sorted(films.glob("*.mp4"))]


@pytest.fixture(scope="module")
def sources(forty):
    """A few of them, for tests in which something happens to the workers."""
    return forty[:FEW]


@pytest.fixture(scope="module")
def whole(sources, tmp_path_factory):
    """What one process makes of the few."""
    out = tmp_path_factory.mktemp("whole") / "set"
    return open_set(ingest(sources, out, config=CONFIG))


def same(path, whole):
    made = open_set(path)
    made.verify()
    assert made.digest == whole.digest
    assert not path.with_name("set.partial").exists()
    timed = {"seconds", "per_second"}
    for one, other in zip(made.manifest["sources"], whole.manifest["sources"], strict=True):
        assert {k: v for k, v in one.items() if k not in {*timed, "path", "results"}} == {
            k: v for k, v in other.items() if k not in {*timed, "path", "results"}
        }
    return made


@pytest.fixture(scope="module")
def hook(tmp_path_factory):
    """Every interpreter started meanwhile looks into a plan before its calls to the disk for a part."""
    folder = tmp_path_factory.mktemp("hook")
    (folder / "sitecustomize.py").write_text(KILLER)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)  # which processes are handed
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)  # which Ray is
        patch.setenv("PLAN", str(folder / "plan.json"))
        yield folder


@pytest.fixture(scope="module")
def cluster(hook):
    """A Ray cluster of two workers, which every ingest on Ray in this process finds."""
    has("ray")
    from tracklearn.store.workers.ray import OnRay

    with OnRay(workers=2)._cluster():
        yield


# Ray gives a node thirty seconds to start, which a busy machine may not keep: not in the default run.
@pytest.fixture(params=["processes", pytest.param("ray", marks=pytest.mark.slow)])
def workers(request):
    """Arguments of two workers."""
    if request.param == "ray":
        request.getfixturevalue("cluster")
        return {"workers": 2, "on": "ray"}
    return {"workers": 2}


@pytest.fixture
def plan(hook, sources, tmp_path):
    """Have a worker killed at its n-th call to the disk for the part of one source, or its disk full."""

    def arrange(source, call=1, *, always=False, full=False):
        key = Request([sources[source]], CONFIG).part_keys[0]
        words = {"part": f"part-{key[:24]}", "call": call, "always": always, "full": full}
        (hook / "plan.json").write_text(json.dumps({**words, "mark": str(tmp_path / "killed")}))

    yield arrange
    (hook / "plan.json").unlink(missing_ok=True)


def test_workers_make_the_set_of_one_process(forty, workers, tmp_path):
    seen = []
    whole = open_set(ingest(forty, tmp_path / "whole", config=CONFIG))
    path = ingest(forty, tmp_path / "set", config=CONFIG, progress=lambda *a: seen.append(a), **workers)
    same(path, whole)
    assert {name for name, _, _ in seen} == {f"ingest {N} sources"}
    assert seen[-1][1:] == (N * FRAMES, N * FRAMES)
    assert ingest(forty, path, config=CONFIG, resume=True) == path  # the same request, whoever read it


# 1 makes the folder, 9 gives the part its name; between them lie tables, shard and record.
@pytest.mark.parametrize("call", [1, 3, 9])
def test_a_worker_killed_in_the_middle_loses_nothing_and_doubles_nothing(
    sources, whole, plan, call, tmp_path
):
    plan(4, call)
    path = ingest(sources, tmp_path / "set", config=CONFIG, workers=2)
    assert (tmp_path / "killed").exists()
    same(path, whole)


@pytest.mark.slow
def test_a_worker_of_ray_killed_in_the_middle(sources, whole, cluster, plan, tmp_path):
    plan(4, 3)
    path = ingest(sources, tmp_path / "set", config=CONFIG, workers=2, on="ray")
    assert (tmp_path / "killed").exists()
    same(path, whole)


def test_a_film_that_crashes_its_workers_is_left_out_and_named(sources, whole, plan, workers, tmp_path):
    plan(4, 3, always=True)
    made = open_set(ingest(sources, tmp_path / "set", config=CONFIG, **workers))
    made.verify()
    record = made.manifest["sources"][4]
    assert (record["camera"], record["status"], record["n_crops"]) == ("c04", "skipped", 0)
    assert record["reason"].startswith("2 workers that read it came to grief (")
    assert record["reason"].endswith("ingest it alone, with more memory to spare")
    rest = [source for i, source in enumerate(sources) if i != 4]
    alone = open_set(ingest(rest, tmp_path / "rest", config=CONFIG))
    assert made.cameras == alone.cameras
    assert made.manifest["shards"] == alone.manifest["shards"]
    assert (made.tracklets.box == alone.tracklets.box).all()


def test_strict_refuses_all_for_a_film_that_crashes_its_workers(sources, plan, tmp_path):
    plan(3, 3, always=True)
    with pytest.raises(ValueError, match=r"c03\.mp4: 2 workers that read it came to grief \(it was killed"):
        ingest(sources, tmp_path / "set", config=CONFIG, workers=2, strict=True)
    left = list((tmp_path / "set.partial").iterdir())
    assert all((part / "done.json").is_file() for part in left)  # what is finished is kept


DRIVER = """
import os, signal, sys
from pathlib import Path
from tracklearn.store.ingest.ingest import Config, ingest

sources, out, options = eval(sys.argv[1])
partial = Path(out + ".partial")


def progress(*_):
    if len(list(partial.glob("part-" + 24 * "?" + "/done.json"))) >= 2:
        os.kill(os.getpid(), signal.SIGKILL)


ingest(sources, out, config=Config(min_length=4), progress=progress, **options)
"""


def test_the_process_that_asks_is_killed_and_resumed(sources, whole, workers, tmp_path):
    out = tmp_path / "set"
    asked = repr((sources, str(out), workers))
    driver = subprocess.run([sys.executable, "-c", DRIVER, asked], stdin=subprocess.DEVNULL)
    assert driver.returncode == -signal.SIGKILL
    partial = Path(f"{out}.partial")
    finished = len(list(partial.glob("part-" + 24 * "?" + "/done.json")))
    assert finished >= 2
    (partial / f"part-{'0' * 24}.attempt-00000000").mkdir()  # as a worker leaves it that died with the rest
    seen = []
    path = ingest(sources, out, config=CONFIG, resume=True, progress=lambda *a: seen.append(a), **workers)
    same(path, whole)
    (name,) = {name for name, _, _ in seen}
    assert int(name.split()[1]) <= FEW - finished  # only those that were not finished


def test_an_error_in_a_worker_ends_all_and_keeps_what_is_finished(
    sources, whole, plan, hook, workers, tmp_path
):
    plan(2, full=True)
    with pytest.raises(OSError, match=r"the disk is full|No space left on device") as caught:
        ingest(sources, tmp_path / "set", config=CONFIG, **workers)
    assert caught.value.errno == 28
    (hook / "plan.json").unlink()
    same(ingest(sources, tmp_path / "set", config=CONFIG, resume=True, **workers), whole)


def test_a_part_that_another_attempt_finished_stays(tmp_path):
    with SetWriter(tmp_path / "set") as writer:
        place = writer.place("a" * 64)
        first, second = place.open(apart=True), place.open(apart=True)
        for part in (first, second):
            part.add([b"jpeg"], camera="c", frame=[0], time=[0], box=[[0, 0, 1, 1]], score=[1])
            part.finish({"camera": "c"})
        assert sorted(p.name for p in writer.partial.iterdir()) == [f"part-{'a' * 24}"]
        writer.finish({})
    assert open_set(tmp_path / "set").n_crops == 1


def test_relative_names_mean_the_same_to_workers(films, workers, tmp_path, monkeypatch):
    monkeypatch.chdir(films)
    out = Path(os.path.relpath(tmp_path / "set"))
    texts = [f"c{i:02d}.txt+c{i:02d}.mp4" for i in range(3)]
    path = ingest(texts, out, config=CONFIG, **workers)
    alone = ingest(texts, out.with_name("alone"), config=CONFIG)
    assert open_set(path).digest == open_set(alone).digest
    places = [
        [s["path"] for s in json.loads((p / "manifest.json").read_text())["sources"]] for p in (path, alone)
    ]
    assert places[0] == places[1]


def test_a_source_that_cannot_be_read_needs_no_worker(sources, films, workers, tmp_path):
    (tmp_path / "text.mp4").write_text("this is no video")
    made = open_set(ingest([tmp_path / "text.mp4", *sources[:2]], tmp_path / "set", config=CONFIG, **workers))
    assert [source["status"] for source in made.manifest["sources"]] == ["skipped", "ok", "ok"]


def test_a_worker_of_another_version_or_without_the_folder_is_told(sources, tmp_path):
    from tracklearn.store.ingest.work import Work

    request = Request(sources[:1], CONFIG)
    with SetWriter(tmp_path / "set") as writer:
        place = writer.place("a" * 64)
    for version, message in (
        ("0.0.0", "and what asks it is 0.0.0: install the same"),
        (None, "all machines see"),
    ):
        more = {"version": version} if version else {}
        with pytest.raises(ValueError, match=message):
            Work(request.jobs[0], place, tmp_path / "set", "cpu", True, **more).run(None)
