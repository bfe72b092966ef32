"""MMT, UGA, MSPLR and CAP from a set to a run and its report, as the commands run them."""

import json
import shutil

import numpy as np
import pytest

from tests.app.conftest import QUICK
from tracklearn import world
from tracklearn.app import forget
from tracklearn.app.demo.films import cut, write_videos
from tracklearn.app.formats import percent
from tracklearn.app.identities.link import identities
from tracklearn.app.judge.rates import label_rates, link_rates
from tracklearn.app.model.of_run import isolated, load_network, parts_of
from tracklearn.app.pipeline.estimate import estimate
from tracklearn.app.pipeline.plan import plan_training, starting_networks
from tracklearn.app.report.of_run import report
from tracklearn.app.search.index import index
from tracklearn.app.web.opened import Served
from tracklearn.app.web.tracks import Tracks
from tracklearn.store.files import read_arrays
from tracklearn.store.runs import Run
from tracklearn.store.sets.tracklets import open_set, read_truth, truth_path

SIZE = [setting for setting in QUICK if setting.startswith("network")]


def set_options(*settings):
    return [part for text in (*SIZE, *settings) for part in ("--set", text)]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A set of other people in two cameras of another world, its truth beside it."""
    folder = tmp_path_factory.mktemp("source")
    config = world.Config(
        n_people=6, n_cameras=2, seconds=20, seed=7, people_seed=8, first_pid=50, clothes="dark"
    )
    write_videos(config, folder / "films")
    cut(folder / "films", folder / "set")
    return folder / "set"


def test_mmt_writes_both_teachers(done, call):
    made = call(
        *("train", done["out"] / "set", "--out", "run", "--method", "mmt", "--weights", "none"),
        *("--preset", "cpu", "--json"),
        *set_options("mmt.epochs=1", "mmt.iterations=2", "mmt.clusters_per_batch=4"),
    )
    assert made[0] == 0, made[2]
    assert "id_1" in json.loads(made[1])["rounds"][0]["losses"]
    one, two = (read_arrays(Run("run").path / f"{n}.safetensors")[0] for n in ("weights", "weights2"))
    assert one.keys() == two.keys()
    name = next(n for n in one if n.endswith("weight"))
    assert (one[name] != two[name]).any()  # they started from random weights of their own


def test_mmt_takes_a_file_for_each_student_and_tmc_does_not(done, call):
    file = done["out"] / "run" / "weights.safetensors"
    plan = plan_training(
        done["out"] / "set", method="mmt", weights=f"{file},none", device="cpu", overrides=SIZE
    )
    assert plan.weights["name"] == "weights.safetensors,none"
    opened = plan.open()
    first, second = starting_networks(plan, opened.crops(64, 32), opened.tracklets)
    kept = read_arrays(file)[0]
    name = next(n for n in kept if n.endswith("weight"))
    assert (first.arrays()[name] == kept[name]).all()
    assert (second.arrays()[name] != kept[name]).any()
    code, _, said = call("train", done["out"] / "set", "--out", "run", "--weights", f"{file},none")
    assert code == 2
    assert "are 2 files, method tmc trains 1" in said


@pytest.fixture
def linked(done, call):
    """A short run of UGA."""
    made = call(
        *("train", done["out"] / "set", "--out", "run", "--method", "uga", "--isolate", "--weights", "none"),
        *("--preset", "cpu", "--json"),
        *set_options(
            "uga.epochs_intra=2",
            "uga.epochs_inter=2",
            "uga.iterations=2",
            "uga.sampling=all",
            "uga.threshold=0.1",
        ),
    )
    assert made[0] == 0, made[2]
    return json.loads(made[1]), Run("run")


def test_uga_keeps_its_graphs_and_the_first_stages_weights(done, linked):
    result, run = linked
    assert [r["stage"] for r in result["rounds"]] == ["intra", "intra", "inter", "inter"]
    assert result["rounds"][0]["losses"].keys() >= {"id", "id_cam0", "acc_cam0", "id_cam1"}
    assert result["rounds"][-1]["record"]["n_edges"] > 0
    assert run.manifest["settings"]["isolate"]
    assert result["isolation"]["n_after"] > result["isolation"]["n_before"]
    assert list(run.kept()) == [2, 3]
    assert list(run.stages) == [(1, "intra")]
    middle = load_network(run, run.stages[1, "intra"]).arrays()
    last = load_network(run).arrays()
    assert any((middle[name] != last[name]).any() for name in middle)
    opened = open_set(done["out"] / "set")
    parts = isolated(run, opened)
    assert len(run.kept()[3]["start"]) == len(parts) + 1
    if truth_path(opened.path).is_file():
        rates = link_rates(run.kept(), parts, read_truth(opened.path))
        assert [r["round"] for r in rates] == [2, 3]


def test_the_report_of_uga_shows_its_links(linked):
    _, run = linked
    page = report(run.path).read_text()
    assert "Links between cameras" in page
    assert 'id="links"' in page
    assert "n edges" in page  # the record of each graph


@pytest.fixture
def sampled(done, call, tmp_path):
    """What a short training by UGA on a few tracklets of each camera told, its run, and its set, a copy."""
    shutil.copytree(done["out"] / "set", tmp_path / "set")
    made = call(
        *("train", "set", "--out", "run", "--method", "uga", "--isolate", "--weights", "none"),
        *("--preset", "cpu", "--json"),
        *set_options("uga.epochs_intra=1", "uga.epochs_inter=1", "uga.iterations=2", "uga.period=1000"),
    )
    assert made[0] == 0, made[2]
    return json.loads(made[1]), Run("run"), open_set("set")


def test_what_uga_does_not_sample_is_somebody_all_the_same(sampled):
    """It learns from one tracklet of a person and camera; tables, galleries and pages hold all of them."""
    result, run, opened = sampled
    part, record = run.isolation()[0]["part"], result["isolation"]
    trained, whole = isolated(run, opened), parts_of(run, opened)
    assert record["aside"] == (part < -1).sum() > 0
    assert record["dropped"] == (part == -1).sum()
    assert (record["n_after"], record["n_parts"]) == (len(trained), len(whole))
    assert whole.n_crops == trained.n_crops + record["aside"] == opened.n_crops - record["dropped"]
    assert len(run.labels[-1]) == len(trained)
    # Nobody whom isolation kept is left out.
    table, searcher = identities(run.path, [opened.path], "identities"), index(run.path, opened.path)
    assert len(table.rows) == len(searcher.gallery) == len(whole)
    assert {row["track"] for row in table.rows} == set(whole.source.tolist()) > set(trained.source.tolist())
    words = report(run.path).read_text()
    assert f"{len(whole) - len(trained)} of {len(whole)} parts were set aside" in words
    assert f"of the {len(trained)} parts learned from left out" in words
    shown = Tracks(Served(run.path)).listing(size=len(opened.tracklets))["tracks"]
    assert sum(track["n_parts"] for track in shown) == len(whole)
    assert sum(track["n_dropped"] for track in shown) == record["dropped"]


def test_of_several_sets_each_has_its_own_that_were_not_learned_from(done, labelled, call):
    """Isolated again in the middle; each set by itself, and both as one, hold all parts."""
    sets = [done["out"] / "set", labelled]
    made = call(
        *("train", *sets, "--out", "run", "--method", "uga", "--isolate", "--weights", "none"),
        *("--preset", "cpu", "--json"),
        *set_options("uga.epochs_intra=1", "uga.epochs_inter=2", "uga.iterations=2", "uga.period=1000"),
        *set_options("uga.isolate_every=1"),
    )
    assert made[0] == 0, made[2]
    run, record = Run("run"), json.loads(made[1])["isolation"]
    each = [open_set(path) for path in sets]
    trained, whole = ([of(run, one) for one in each] for of in (isolated, parts_of))
    assert sum(map(len, trained)) == record["n_after"] == len(run.labels[-1])
    assert sum(map(len, whole)) == record["n_parts"] > record["n_after"]
    assert sum(one.n_crops for one in each) - sum(one.n_crops for one in whole) == record["dropped"]
    table = identities(run.path, sets, "identities")
    assert [sum(row["set_digest"] == one.digest for row in table.rows) for one in each] == [*map(len, whole)]


def test_who_was_not_learned_from_is_forgotten_and_the_rest_stays(sampled):
    _, run, opened = sampled
    trained = set(isolated(run, opened).source.tolist())
    table = identities(run.path, [opened.path], "identities")
    index(run.path, opened.path)
    of_person: dict[int, set[int]] = {}
    for row in table.rows:
        if row["identity"] is not None:
            of_person.setdefault(row["identity"], set()).add(row["track"])
    person = next(p for p, tracks in sorted(of_person.items()) if not tracks & trained)
    before = isolated(run, opened), parts_of(run, opened)
    gone = sum(row["identity"] == person for row in table.rows)
    forget.forget(run.path, person=person)
    run, opened = Run("run"), open_set("set")
    after = isolated(run, opened), parts_of(run, opened)
    assert [len(after[0]), len(after[1])] == [len(before[0]), len(before[1]) - gone]
    assert len(run.labels[-1]) == len(after[0])
    assert after[1].n_crops < before[1].n_crops


def test_uga_refuses_one_camera_and_names_tmc(done, call, sources):
    assert call("ingest", sources[0], "--out", "one")[0] == 0
    code, _, said = call(
        *("train", "one", "--out", "run", "--method", "uga", "--weights", "none", "--preset", "cpu")
    )
    assert code == 2
    assert len(said.strip().splitlines()[-1:]) == 1
    assert "one camera" in said
    assert "--method tmc" in said


def test_a_dry_run_of_cap_says_what_it_would_do_and_writes_nothing(done, call, tmp_path):
    def files():
        folders = (done["out"], tmp_path)
        return {p: (p.stat().st_mtime_ns, p.is_dir()) for folder in folders for p in folder.rglob("*")}

    opened = open_set(done["out"] / "set")
    options = (
        *("train", opened.path, "--out", "run", "--method", "cap", "--weights", "none", "--preset", "cpu"),
        *set_options("cap.epochs=3", "cap.iterations=2", "cap.proxies_per_batch=4", "cap.frames_train=1"),
        *set_options("cap.tracklets_per_proxy=2"),
        "--dry-run",
    )
    before = files()
    code, out, err = call(*options)
    assert code == 0, err
    assert files() == before
    lines = out.splitlines()
    assert lines[0] == "What would run; nothing is written:"
    assert "  method       cap: 1 student, 1 teacher" in lines
    counts = f"{len(opened.tracklets)} tracks, {opened.n_crops} crops"
    assert f"  set          {opened.path}: 2 cameras, {counts}" in lines
    assert "  network      tiny, crops of 64×32, weights none" in lines
    assert "  isolation    yes, before the first epoch" in lines
    assert "  stage cap    3 epochs of 2 batches" in lines
    assert any("a batch: 8 parts, 8 pictures, each through 1 student and 1 teacher" in li for li in lines)
    code, out, err = call(*options, *set_options("cap.mean_teacher=false", "cap.isolate=false"), "--json")
    assert code == 0, err
    assert files() == before
    found = json.loads(out.splitlines()[-1])
    assert (found["run"]["method"], found["isolation"]) == ("cap-", False)
    (stage,) = found["stages"]
    assert (stage["name"], stage["rounds"], stage["batches"], stage["pictures"]) == ("cap", 3, 2, 8)
    code, _, err = call(*options, "--set", "cap.proxies_per_batch=1")
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert "cap.proxies_per_batch" in err
    assert files() == before


def test_msplr_learns_from_the_source_and_then_in_steps(done, call, labelled):
    settings = ("source_epochs=2", "step_epochs=2", "frozen_epochs=1", "max_steps=2", "iterations=2")
    made = call(
        *("train", done["out"] / "set", "--out", "run", "--method", "msplr", "--source", labelled),
        *("--weights", "none", "--preset", "cpu", "--json"),
        *set_options(*(f"msplr.{s}" for s in settings), "msplr.min_cameras=1", "msplr.structure=9"),
    )
    assert made[0] == 0, made[2]
    run = Run("run")
    stages = [r["stage"] for r in run.rounds]
    assert stages[:2] == ["source", "source"]
    assert set(stages[2:]) == {"steps"}
    assert next(iter(run.stages)) == (1, "source")
    assert [index for index, stage in run.stages if stage == "steps"] == list(range(3, len(stages), 2))
    assert all(
        (label == -1).all() for label in run.labels[:2]
    )  # the source's labels are not of this set's tracklets
    assert [len(label) for label in run.labels] == [run.manifest["isolation"]["n_after"]] * len(stages)
    assert "kept_fraction" in run.rounds[2]["record"]
    assert run.manifest["source"] is not None
    page = report(
        run.path, steps=[{"index": 2, "purity": 0.75, "mAP": 0.5}], out=run.path / "judged.html"
    ).read_text()
    assert "purity *" in page
    assert "opened after training and not used" in page
    assert f"<td>{percent(0.75)}</td>" in page


def test_msplr_with_another_truth_of_the_source_is_another_run(done, labelled):
    def digest():
        return plan_training(
            done["out"] / "set",
            method="msplr",
            source=labelled,
            weights="none",
            device="cpu",
            overrides=SIZE,
        ).digest

    before = digest()
    assert digest() == before
    truth = read_truth(labelled)
    from tracklearn.store.sets.tracklets import write_truth

    try:
        write_truth(labelled, np.roll(truth.pid, 60))
        assert digest() != before
    finally:
        write_truth(labelled, truth.pid)


def test_msplr_keeps_crops_of_both_sets(done, labelled):
    plan = plan_training(
        done["out"] / "set", method="msplr", source=labelled, weights="none", device="cpu", overrides=SIZE
    )
    found = estimate(plan)
    own, other = open_set(done["out"] / "set").n_crops, open_set(labelled).n_crops
    assert found.cache_bytes == (own + other) * 64 * 32 * 3
    assert found.run["n_kept"] == own


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("tmc", ("--source", "SOURCE"), "method tmc does not learn from a labelled source set"),
        ("msplr", ("--source", "nowhere"), "no such tracklet set"),
        ("uga", ("--set", "uga.nodes=3"), "setting uga.nodes is unknown"),
        ("gossip", (), "method 'gossip' is unknown: choose one of tmc, mmt, uga, msplr, cap"),
    ],
)
def test_refusals(done, call, labelled, method, options, message):
    options = [labelled if o == "SOURCE" else o for o in options]
    code, _, said = call(
        *("train", done["out"] / "set", "--out", "run", "--method", method, "--weights", "none", *options)
    )
    assert code == 2
    assert message in said


def test_labels_are_judged_by_hand():
    label = np.array([0, 0, 0, 1, 1, -1, 2])
    pid = np.array([5, 5, 6, 6, 6, 5, -1])
    rates = label_rates(label, pid)
    assert rates["purity"] == pytest.approx(4 / 5)
    # pairs of one person: 3 of person 5, 3 of person 6; held by one cluster: one and one
    assert rates["recall"] == pytest.approx(2 / 6)
    nothing = label_rates(np.full(3, -1), np.arange(3))
    assert np.isnan(nothing["purity"])
    assert np.isnan(nothing["recall"])
