"""Training on several sets at once, going on from an earlier run, and all that opens such a run."""

import json
import shutil

import numpy as np
import pytest

from tests.app.conftest import QUICK
from tracklearn.app.identities.link import identities
from tracklearn.app.model.of_run import isolated, learned_from
from tracklearn.app.pipeline.plan import plan_training
from tracklearn.app.pipeline.training import train
from tracklearn.app.report.of_run import report
from tracklearn.app.search.index import index
from tracklearn.store.runs import Run
from tracklearn.store.sets.joined import open_sets
from tracklearn.store.sets.tracklets import SetWriter, open_set


def day(opened, path, tracks):
    """A set of its own with some tracks of another."""
    t = opened.tracklets
    names = [name for name in opened.cameras if (t.camid[tracks] == opened.cameras.index(name)).any()]
    with SetWriter(path) as writer:
        for key, name in enumerate(names):
            part = writer.part(f"{key:x}" * 64)
            for i in tracks:
                if opened.cameras[t.camid[i]] == name:
                    rows = slice(t.start[i], t.start[i + 1])
                    part.add(
                        [opened.jpeg(int(row)) for row in t.crop[rows]],
                        camera=name,
                        frame=t.frame[rows],
                        time=t.time[rows],
                        box=t.box[rows],
                        score=t.score[rows],
                    )
            part.finish({"camera": name, "kind": "video", "status": "ok", "video": {"seconds": 20.0}})
        return writer.finish({"stride": 1})


@pytest.fixture(scope="module")
def days(done, tmp_path_factory):
    """Every other track of a film, and the rest."""
    folder = tmp_path_factory.mktemp("days")
    opened = open_set(done["out"] / "set")
    every = np.arange(len(opened.tracklets))
    return [day(opened, folder / name, every[k::2]) for k, name in enumerate(("monday", "tuesday"))]


def planned(sets, *more, weights="none", **options):
    options = {"device": "cpu", "preset": "cpu", **options}
    return plan_training(sets, weights=str(weights), overrides=[*QUICK, *more], **options)


@pytest.fixture(scope="module")
def both(days, tmp_path_factory):
    """A run on both, with the people found beside it."""
    out = tmp_path_factory.mktemp("both")
    assert [r.index for r in train(planned(days), out / "run")] == [0, 1]
    identities(out / "run", days, out / "identities", distance=0.5, device="cpu")
    return out / "run"


def test_a_run_says_which_sets_it_learned_from(both, days):
    run = Run(both)
    assert [(both / entry["path"]).resolve() for entry in run.sets] == [path.resolve() for path in days]
    joined = open_sets(days)
    assert run.manifest["set"]["digest"] == joined.digest
    assert learned_from(run).digest == joined.digest
    first, second = map(open_set, days)
    assert run.rows_of(joined.digest) == slice(None)
    assert run.rows_of(first.digest) == slice(0, first.n_crops)
    assert run.rows_of(second.digest) == slice(first.n_crops, joined.n_crops)
    assert run.rows_of("another") is None


def test_each_set_is_taken_as_isolation_left_it(both, days):
    run, joined = Run(both), open_sets(days)
    whole = isolated(run, joined)
    assert len(whole) == run.manifest["isolation"]["n_after"] > len(joined.tracklets)
    alone = [isolated(run, one) for one in joined.members]
    assert sum(map(len, alone)) == len(whole)
    again = joined.together(alone).arrays()
    assert all(np.array_equal(value, again[name]) for name, value in whole.arrays().items())
    # In another order, or with others beside, each is still what isolation left of it.
    turned = isolated(run, open_sets(days[::-1]))
    assert np.array_equal(np.sort(turned.length), np.sort(whole.length))
    assert turned.length[: len(alone[1])].tolist() == alone[1].length.tolist()


def test_an_interrupted_training_goes_on_to_the_same_bytes(both, days, tmp_path):
    events = train(planned(days), tmp_path / "run")
    next(events)
    next(events)
    events.close()
    with pytest.raises(ValueError, match="another tracklet set"):
        list(train(planned(days[::-1]), tmp_path / "run", resume=True))
    assert [r.index for r in train(planned(days), tmp_path / "run", resume=True)] == [1]
    for name in ("weights.safetensors", "labels.safetensors", "rounds.jsonl", "isolation.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (both / name).read_bytes(), name


def test_the_report_shows_all_sets_and_who_is_who_in_them(both, days, tmp_path):
    page = report(both, out=tmp_path / "report.html").read_text()
    first, second = (len(open_set(path).tracklets) for path in days)
    assert f"Tracks 0 to {first - 1} are those of monday" in page
    assert f"Tracks {first} to {first + second - 1} are those of tuesday" in page
    section = page[page.index('<section id="people">') :].split("</section>")[0]
    rows = json.loads((both.parent / "identities" / "manifest.json").read_text())["counts"]
    assert f"{rows['people']} groups of parts, each perhaps a person, of {rows['parts']} parts" in section
    # Tracks are numbered as in the rest of the page.
    assert f"#{first}" in section


def test_a_member_is_indexed_as_isolation_left_it(both, days, tmp_path):
    shutil.copytree(both, tmp_path / "run")
    for entry in json.loads((tmp_path / "run" / "manifest.json").read_text())["set"]["sets"]:
        assert not entry["path"].startswith("/")
    searcher = index(tmp_path / "run", days[1], device="cpu")
    assert len(searcher.gallery) == len(isolated(Run(both), open_set(days[1])))


def test_going_on_from_yesterdays_run(days, tmp_path):
    """Yesterday's network and crop size; who was seen then is on record."""
    list(train(planned(days[0]), tmp_path / "old"))
    plan = planned(days, "tmc.epochs=1", weights=tmp_path / "old", network=None)
    assert plan.network.height == 64
    list(train(plan, tmp_path / "new"))
    new, old = Run(tmp_path / "new"), Run(tmp_path / "old")
    assert new.manifest["weights"]["name"] == "old/weights.safetensors"
    assert new.manifest["earlier_sets"] == [
        {"path": new.sets[0]["path"], "digest": old.manifest["set"]["digest"]}
    ]
    assert (tmp_path / "new" / "start.safetensors").is_file()


def test_a_set_that_has_changed_or_gone_is_named(both, days, tmp_path):
    run = tmp_path / "deep" / "run"
    shutil.copytree(both, run)
    places = [(run / entry["path"]).resolve() for entry in Run(run).sets]
    with pytest.raises(FileNotFoundError, match=f"no such tracklet set: .*{days[0].name}"):
        report(run)
    places[0].parent.mkdir(parents=True, exist_ok=True)
    for place in places:
        shutil.copytree(days[0], place)
    with pytest.raises(ValueError, match=r"tuesday is not the set that .* learned from: put that back"):
        report(run)


def test_commands(days, call):
    code, out, _ = call(
        *("train", *days, "--out", "run", "--weights", "none", "--preset", "cpu", "--dry-run"),
        *(part for setting in QUICK for part in ("--set", setting)),
    )
    assert code == 0
    assert f"{days[0]}, {days[1]}: 2 cameras" in out
    code, _, err = call("train", days[0], days[0], "--out", "run", "--weights", "none")
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert "is given twice" in err
