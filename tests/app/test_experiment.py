import hashlib
import json
import shutil
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from tests.app.conftest import QUICK
from tracklearn import world
from tracklearn.app.experiments import files, sources, table
from tracklearn.app.experiments import run as experiment
from tracklearn.app.experiments.metrics import METRICS
from tracklearn.app.judge import benchmark
from tracklearn.app.model.of_run import isolated
from tracklearn.app.model.open import open_weights
from tracklearn.app.noise.simulate import level as noise_level
from tracklearn.app.noise.simulate import simulate
from tracklearn.app.pipeline.plan import plan_training
from tracklearn.app.pipeline.training import train
from tracklearn.core.noise import impure_fraction
from tracklearn.learn import backbone
from tracklearn.store import benchmarks
from tracklearn.store import weights as weight_store
from tracklearn.store.benchmarks import stills, videos
from tracklearn.store.picture.crops import encode_jpeg
from tracklearn.store.runs import Run
from tracklearn.store.sets.tracklets import open_set, read_truth, truth_path, write_truth

SMALL = """
title = "Isolation in small"
data = ["world"]
noise = ["clean", { fragmentation = 1.5, switch = 1.2 }]
seeds = [3]
preset = "cpu"
weights = "none"
axis = "isolation"
metrics = ["mAP", "untrained", "n_given", "n_tracklets", "impure", "dropped"]
[settings]
network = { height = 64, width = 32 }
tmc = { epochs = 2, iterations = 2, clusters_per_batch = 4, frames_cluster = 4 }
[variant.with]
[[published]]
noise = "clean"
mAP = 0.607
"""


@pytest.fixture(scope="module")
def tiny():
    """The generated world, small: six people in two cameras to learn from, six others to be judged on."""
    patch = pytest.MonkeyPatch()
    learn = world.Config(n_people=6, n_cameras=2, seconds=20, fps=8, people_seed=4)
    judge = world.Config(n_people=6, n_cameras=2, seconds=30, fps=8, people_seed=5, first_pid=6)
    patch.setattr(sources, "worlds", lambda seed: (learn, judge))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """The small grid, run: (folder, grid, result)."""
    folder = tmp_path_factory.mktemp("experiment")
    (folder / "small.toml").write_text(SMALL)
    grid = files.read(folder / "small.toml")
    return folder / "out", grid, experiment.run(grid, folder / "out", device="cpu")


def made(tmp_path, text):
    path = tmp_path / "grid.toml"
    path.write_text(text)
    return files.read(path)


# ------------------------------------------------------------------------------------------- the file


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = [3]", "seed = [3]", "key seed is unknown: did you mean 'seeds'"),
        ("seeds = [3]", "", "seeds: Field required"),
        ("seeds = [3]", "seeds = [3, 3]", "name each once"),
        ("seeds = [3]", "seeds = [-1]", "seeds.0 = -1"),
        ('["world"]', '["wrld"]', "no data set is called 'wrld': did you mean world"),
        ('["world"]', '[{ name = "world", sead = 1 }]', "key data.0.sead is unknown: did you mean 'seed'"),
        ("switch = 1.2", "swich = 1.2", "swich"),
        ('["world"]', '[{ name = "world", protocol = "official" }]', "generated world has none"),
        ('["world"]', '[{ name = "mars", seed = 1 }]', "only the generated world has a seed"),
        ('["world"]', '[{ name = "mars", persons = 9 }]', "persons and test_persons belong together"),
        ('["world"]', '[{ name = "mars", persons = 0, test_persons = 1 }]', "data.0.persons = 0"),
        ('["world"]', '[{ name = "world", persons = 9, test_persons = 9 }]', "only of a benchmark"),
        ('["world"]', '[{ name = "world", singles = true }]', "only a benchmark's images stand alone"),
        ('"clean"', '"MARS_2.5_1.3"', "noise 'MARS_2.5_1.3' is unknown: did you mean 'MARS_2.5_1.5'"),
        ('"untrained"', '"rank2"', "metric 'rank2' is unknown: did you mean 'rank20'"),
        ("epochs = 2", "epoch = 2", "setting tmc.epoch is unknown: did you mean 'epochs'"),
        ("epochs = 2", "epochs = -2", "tmc.epochs = -2"),
        ("tmc = {", "tcm = {", "settings: section 'tcm' is unknown: did you mean 'tmc'"),
        ('preset = "cpu"', 'preset = "tpu"', "preset 'tpu' is unknown"),
        ("[variant.with]", "[variant.with]\nsetings = {}", "key variant.with.setings is unknown"),
        ("[variant.with]", '[variant.a]\n[variant."A "]', "two names that make one folder"),
        ("[[published]]\nnoise", "[[published]]\nnosie", "key published.0.nosie is unknown: did you mean"),
        ('noise = "clean"\nmAP', 'noise = "claen"\nmAP', "published: noise 'claen' is unknown: did you mean"),
        ("mAP = 0.607", "mAP = 60.7", "published.0.mAP = 60.7"),
        ("[settings]", '[noise_settings."MARS_2.5_1.5"]\n[settings]', "noise_settings: noise"),
        ("title =", "title", "not a TOML file"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_in_one_line(tmp_path, old, new, message):
    assert old in SMALL
    with pytest.raises(ValueError) as raised:
        made(tmp_path, SMALL.replace(old, new, 1))
    assert message in str(raised.value)
    assert str(tmp_path / "grid.toml") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_grid_is_a_file_or_the_name_of_a_shipped_one(tmp_path):
    assert files.find("tmc-table3-small").name == "tmc-table3-small.toml"
    (tmp_path / "mine.toml").write_text(SMALL)
    assert files.find(tmp_path / "mine.toml") == tmp_path / "mine.toml"
    with pytest.raises(FileNotFoundError, match="did you mean 'tmc-table3'"):
        files.find("tmc-tabel3")
    with pytest.raises(FileNotFoundError, match=r"no such file: .*other\.toml"):
        files.find(tmp_path / "other.toml")
    with pytest.raises(FileNotFoundError, match="no such file"):
        files.read(tmp_path / "other.toml")


def test_the_shipped_grids_are_sound_and_hold_the_published_figures():
    found = {name: files.read(path) for name, path in files.shipped().items()}
    assert {"tmc-table2", "tmc-table3", "tmc-table4", "tmc-table5", "tmc-table3-small"} <= set(found)
    assert {"tmc-table4-small", "msplr-adaptation", "uga-mars-prid"} <= set(found)
    table3 = found["tmc-table3"]
    assert table3.published_for("mars", "MARS_2.5_1.5", "with") == {"mAP": 0.534, "rank1": 0.637}
    assert table3.published_for("mars", "MARS_1.7_1.2", "without") == {"mAP": 0.080, "rank1": 0.173}
    small = found["tmc-table3-small"]
    assert small.needs == ()
    assert len(list(small.cells())) == 16
    for row in {cell.row for cell in small.cells()}:
        assert small.published_for(*row) == table3.published_for("mars", *row[1:])
    radii = found["tmc-table4"]
    assert radii.published_for("mars", "MARS_1.7_1.2", "0.5") == {
        "n_tracklets": 13847,
        "impure": 0.0084,
        "mAP": 0.545,
        "rank1": 0.662,
    }
    mild, strong = (
        next(c for c in table3.cells() if c.row[1:] == (level, "with"))
        for level in ("MARS_1.7_1.2", "MARS_2.5_1.5")
    )
    assert mild.settings["tmc"]["eps_intra"] == 0.5
    assert strong.settings["tmc"]["eps_intra"] == 0.6
    market = found["tmc-market-small"]
    assert market.needs == ("market1501",)
    assert market.data[0].label == "market1501 (300-150-seed0)"
    assert [cell.settings["tmc"]["isolate"] for cell in market.cells()] == [True, False]
    assert found["tmc-table5"].needs == ("prid2011",)
    assert [c.split for c in found["tmc-table5"].cells()] == list(range(10))
    assert found["msplr-adaptation"].needs == ("market1501", "dukemtmc")
    assert [c.rerank for c in found["msplr-adaptation"].cells()].count(True) == 6
    assert {c.data.source for c in found["msplr-small"].cells()} == {"world"}


@pytest.mark.parametrize(
    ("name", "n_cells", "singles", "trains"),
    [
        ("market-adapt", 10, True, True),
        ("market-best", 3, True, True),
        ("market-gpu", 2, True, True),
        ("market-noise", 32, False, True),
        ("market-off-the-shelf", 4, True, False),
        ("market-usl", 3, True, True),
    ],
)
def test_the_grids_on_the_whole_of_market_are_sound(name, n_cells, singles, trains):
    grid = files.read(files.find(name))
    cells = list(grid.cells())
    assert grid.needs == ("market1501",)
    assert [(data.subset, data.singles) for data in grid.data] == [(None, singles)]
    assert len(cells) == len({cell.name for cell in cells}) == n_cells
    assert not any(cell.lacks for cell in cells)
    assert {cell.method != "none" for cell in cells} == {trains}
    assert {cell.weights for cell in cells} == set(grid.weight_files)
    for cell in cells:
        assert {"height", "width"} == cell.settings["network"].keys() - {"backbone"}
        assert not trains or cell.method in cell.settings
    wanted = {"mAP", "rank1", "rank5", "rank10"} | ({"minutes", "memory"} if trains else set())
    assert wanted <= set(grid.metrics)
    published = [grid.published_for(*cell.row) for cell in cells] + [other.values for other in grid.beside]
    assert any(published)
    assert all(figures.keys() <= set(grid.metrics) for figures in published)  # a column for each


def test_all_grids_on_the_whole_of_market_are_known():
    found = {name for name in files.shipped() if name.startswith("market-")}
    assert found == {f"market-{name}" for name in ("adapt", "best", "gpu", "noise", "off-the-shelf", "usl")}


def test_the_grids_on_market_hold_the_published_figures():
    noise, table3, table4 = (
        files.read(files.find(name)) for name in ("market-noise", "tmc-table3", "tmc-table4")
    )
    assert noise.published_on == "MARS"
    assert "MARS" in noise.note
    best = {"MARS_1.7_1.2": "0.5", "MARS_2.5_1.2": "0.5", "MARS_2.5_1.5": "0.6"}  # radii of table 3
    for cell in noise.cells():
        how, weights = cell.variant.split(", ")
        paper = {"DBSCAN": "with", "without": "without"}.get(how)
        want = {}
        if paper and weights == "imagenet-osnet":  # the paper starts from ImageNet's weights
            want = table3.published_for("mars", cell.noise, paper)
            if paper == "with" and cell.noise in best:
                of_radius = table4.published_for("mars", cell.noise, best[cell.noise])
                want = {**want, "impure": of_radius["impure"]}
        assert noise.published_for(*cell.row) == want, cell.name
    shelf = files.read(files.find("market-off-the-shelf"))
    zoo = {cell.variant: shelf.published_for(*cell.row) for cell in shelf.cells()}
    assert {name: figures for name, figures in zoo.items() if figures} == {
        "OSNet x0.25, all of MSMT17": {"mAP": 0.310, "rank1": 0.599}
    }
    assert [(other.name[:10], other.mAP, other.rank1) for other in shelf.beside] == [
        ("OSNet x0.5", 0.349, 0.643),
        ("OSNet x1.0", 0.375, 0.666),
    ]


@pytest.mark.parametrize("name", [name for name in files.shipped() if name.startswith("market-")])
def test_columns_of_a_grid_decide_nothing_about_its_cells(name, tmp_path):
    """But `untrained`, which asks for another judging, never for another training."""
    grid = files.read(files.find(name))
    kept = tuple(metric for metric in grid.metrics if metric == "untrained")
    roots = {"market1501": tmp_path}
    for metrics, same in (
        ((*kept, "mAP"), True),
        ((*kept, *(metric for metric in METRICS if metric != "untrained")), True),
        (("mAP",) if kept else ("mAP", "untrained"), False),
    ):
        other = grid.model_copy(update={"metrics": metrics, "published": (), "beside": (), "note": ""})
        for a, b in zip(grid.cells(), other.cells(), strict=True):
            assert (a.name, a.method, a.weights, a.settings) == (b.name, b.method, b.weights, b.settings)
            one, two = (experiment._source(cell, tmp_path, roots) for cell in (a, b))
            assert one.train == two.train
            assert (one.judging == two.judging) == same


def test_what_cannot_be_run_is_refused_before_anything_is_written(tmp_path):
    for name, message in (
        ("uga-mars-prid", "data mars needs its folder: --root mars=DIR"),
        ("msplr-adaptation", "data market1501 needs its folder: --root market1501=DIR"),
        ("tmc-table3", "data mars needs its folder: --root mars=DIR"),
    ):
        with pytest.raises(ValueError, match=message):
            experiment.run(files.read(files.find(name)), tmp_path / "out")
        assert any(message in line for line in experiment.outline(files.read(files.find(name)), tmp_path, {}))
    table3 = files.read(files.find("tmc-table3"))
    with pytest.raises(FileNotFoundError, match="is not MARS"):
        experiment.run(table3, tmp_path / "out", roots={"mars": tmp_path})
    with pytest.raises(ValueError, match="--root prid2011: this experiment does not use it; it needs mars"):
        experiment.run(table3, tmp_path / "out", roots={"mars": tmp_path, "PRID-2011": tmp_path})
    adapt, roots = files.read(files.find("market-adapt")), {"market1501": tmp_path}
    with pytest.raises(ValueError, match=r"weights msmt17 need their file, .*: --weights msmt17=FILE"):
        experiment.run(adapt, tmp_path / "out", roots=roots)
    with pytest.raises(
        ValueError, match="--weights market: this experiment does not use it; its weights are"
    ):
        experiment.run(adapt, tmp_path / "out", roots=roots, weights={"market": tmp_path})
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth is not there"):
        experiment.run(adapt, tmp_path / "out", roots=roots, weights={"msmt17": tmp_path / "nowhere.pth"})
    unknown = SMALL.replace("seeds = [3]", 'seeds = [3]\nmethod = "reid"')
    with pytest.raises(ValueError, match="method 'reid' is not there yet: this program has tmc"):
        experiment.run(made(tmp_path, unknown), tmp_path / "out")
    adapting = SMALL.replace('["world"]', '[{ name = "world", source = "market1501" }]')
    with pytest.raises(ValueError, match="'tmc' does not learn from a labelled source set"):
        experiment.run(made(tmp_path, adapting), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------- the table


def result(noise, seed, status="done", **scores):
    scores = {"protocol": "p", "n_valid": 4, "n_skipped": 1, **scores}
    labels = {"data": "world", "noise": noise, "variant": "with", "seed": seed, "status": status}
    return labels | (
        {"scores": scores} if status == "done" else {"error": "the reason"} if status == "failed" else {}
    )


def test_published_and_measured_figures_stand_side_by_side(tmp_path):
    text = SMALL.replace("seeds = [3]", "seeds = [3, 4]").replace(
        'metrics = ["mAP", "untrained", "n_given", "n_tracklets", "impure", "dropped"]',
        'metrics = ["mAP", "n_tracklets"]',
    )
    grid = made(tmp_path, text + '[[beside]]\nname = "BUC"\nmAP = 0.294\n')
    results = [
        result("clean", 3, mAP=0.5, n_tracklets=1000),
        result("clean", 4, mAP=0.7, n_tracklets=1200),
        result("1.5_1.2", 3, mAP=0.25, n_tracklets=900),
        result("1.5_1.2", 4, "failed"),
    ]
    lines = table.markdown(grid, results).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert rows[0] == ["noise", "isolation", "mAP published", "mAP measured", "tracklets"]
    assert rows[2:] == [
        ["clean", "with", "60.7", "60.0 ± 14.1", "1,100 ± 141"],
        ["1.5_1.2", "with", "–", "25.0 (1 failed)", "900 (1 failed)"],
        ["–", "BUC", "29.4", "–", "–"],
    ]
    assert len({len(line) for line in lines if line.startswith("|")}) == 1
    assert any("Failed: world, 1.5_1.2, with, seed 4: the reason" in line for line in lines)
    assert any("Protocol: p; valid queries: 4 (1 skipped)" in line for line in lines)


def test_a_row_without_any_seed_says_whether_it_failed_or_is_open(tmp_path):
    grid = made(tmp_path, SMALL)
    text = table.markdown(grid, [result("clean", 3, "failed"), result("1.5_1.2", 3, "open")])
    clean, noisy = [line for line in text.splitlines() if "| with " in line]
    assert clean.count("failed") == 6
    assert "failed" not in noisy
    assert noisy.count("–") == 7
    assert "1 of 2 cells are open" in text


def test_a_single_value_has_no_deviation():
    assert table.summary([]) is None
    assert table.summary([0.5]) == {"mean": 0.5, "sd": None, "values": [0.5]}
    assert table.summary([1.0, 2.0, 3.0])["sd"] == 1.0


# -------------------------------------------------------------------------------------------- running


def test_every_cell_is_trained_judged_and_in_the_table(finished):
    out, _, found = finished
    assert found["failed"] == 0
    assert [cell["status"] for cell in found["cells"]] == ["done", "done"]
    clean, noisy = (cell["scores"] for cell in found["cells"])
    assert 0 < clean["mAP"] <= 1
    assert clean["impure_given"] == 0
    assert noisy["impure_given"] > 0
    achieved = open_set(out / "cells" / "world-1.5_1.2-with-seed3" / "set").manifest["settings"]["noise"]
    assert achieved["achieved"]["r_FM"] == pytest.approx(1.5, abs=0.05)
    assert (out / "table.md").read_text() == found["table"]
    assert json.loads((out / "table.json").read_text())["rows"][0]["published"] == {"mAP": 0.607}
    assert len(list((out / "data").iterdir())) == 1


def test_purity_counts_what_lies_with_another_person(finished):
    """Against a count by hand, crop by crop."""
    out, _, found = finished
    cell = out / "cells" / "world-1.5_1.2-with-seed3"
    tracklets = isolated(Run(cell / "run"), open_set(cell / "set"))
    pid = read_truth(cell / "set").pid
    held = defaultdict(Counter)
    for tracklet, row in zip(tracklets.tracklet.tolist(), tracklets.crop.tolist(), strict=True):
        held[tracklet][int(pid[row])] += 1
    strangers = sum(sum(c.values()) - max(c.values()) for c in held.values())
    figures = sources.purity(Run(cell / "run"), cell / "set")
    assert figures["impure"] == pytest.approx(strangers / tracklets.n_crops)
    assert figures["n_tracklets"] == len(held)
    assert figures["r_SW"] == pytest.approx(np.mean([len(c) for c in held.values()]))
    assert figures["dropped"] == pytest.approx(1 - tracklets.n_crops / open_set(cell / "set").n_crops)
    assert found["cells"][1]["scores"]["impure"] == figures["impure"]


def test_a_cell_tells_its_minutes_and_memory(finished):
    _, _, found = finished
    for cell in found["cells"]:
        assert 0 < cell["scores"]["minutes"] == cell["seconds"]["train"] / 60
        assert 0.05 < cell["scores"]["memory"] < 24


def test_weights_that_a_grid_has_a_name_for_come_from_a_file(finished, tmp_path):
    out, _, _ = finished
    file = next(out.glob("cells/*/run/weights.safetensors"))
    named = SMALL.replace('weights = "none"', 'weights = "mine"').replace(
        "[settings]", '[weight_files]\nmine = "of an earlier run"\n[settings]'
    )
    grid = made(tmp_path, named.replace('["clean", { fragmentation = 1.5, switch = 1.2 }]', '["clean"]'))
    shutil.copytree(out / "data", tmp_path / "out" / "data")
    found = experiment.run(grid, tmp_path / "out", weights={"mine": file}, device="cpu", resume=True)
    (cell,) = found["cells"]
    assert cell["status"] == "done"
    run = Run(next((tmp_path / "out").glob("cells/*/run")))
    assert run.manifest["weights"]["name"] == "weights.safetensors"


def test_a_finished_cell_is_not_run_again(finished, tmp_path):
    out, grid, found = finished
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.parent != out}
    rounds = []
    with pytest.raises(FileExistsError, match="--resume"):
        experiment.run(grid, out, device="cpu")
    again = experiment.run(grid, out, device="cpu", resume=True, on_round=rounds.append)
    assert rounds == []
    assert again["rows"] == found["rows"]
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.parent != out} == before
    assert all("done" in line for line in experiment.outline(grid, out, {})[1:])


def test_a_finished_cell_is_taken_for_other_columns(finished, tmp_path):
    whole, _, found = finished
    out = tmp_path / "out"
    out.mkdir()
    for name in ("data", "cells"):
        (out / name).symlink_to(whole / name)
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*") if p.is_file()}
    columns = 'metrics = ["rank10", "rank5", "rank1", "memory", "minutes", "n_tracklets"]\n'
    kept = [line for line in SMALL.splitlines(keepends=True) if not line.startswith("metrics")]
    grid = made(tmp_path, columns + "".join(kept).replace("mAP = 0.607", "rank1 = 0.7"))
    rounds = []
    again = experiment.run(grid, out, device="cpu", resume=True, on_round=rounds.append)
    assert rounds == []
    assert {p: p.stat().st_mtime_ns for p in whole.rglob("*") if p.is_file()} == before
    assert [cell["scores"] for cell in again["cells"]] == [cell["scores"] for cell in found["cells"]]
    for row, cell in zip(again["rows"], found["cells"], strict=True):
        assert {name: value["values"] for name, value in row["measured"].items()} == {
            name: [cell["scores"][name]] for name in grid.metrics
        }
    assert [row["published"] for row in again["rows"]] == [{"rank1": 0.7}, {}]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_cell_without_memory_is_noted_and_the_next_begins(tmp_path, monkeypatch, error):
    def short(*args, **options):
        raise error

    monkeypatch.setattr(experiment, "run_cell", short)
    found = experiment.run(made(tmp_path, SMALL), tmp_path / "out", device="cpu")
    assert [cell["status"] for cell in found["cells"]] == ["failed", "failed"]
    assert all("out of memory" in cell["error"] for cell in found["cells"])


@pytest.mark.parametrize("kind", [RuntimeError, ValueError])
def test_a_defect_in_a_cell_ends_the_experiment(tmp_path, monkeypatch, kind):
    """A library's ValueError is no refusal."""

    def wrong(*args, **options):
        raise kind("shapes differ")

    monkeypatch.setattr(experiment, "run_cell", wrong)
    with pytest.raises(kind, match="shapes differ"):
        experiment.run(made(tmp_path, SMALL), tmp_path / "out", device="cpu")


def test_a_stopped_experiment_goes_on_where_it_was(finished, tmp_path):
    """Stopped in the second cell after its first epoch; weights are those of a run in one go."""
    whole, grid, found = finished
    out = tmp_path / "out"
    seen = []

    def stop_at(n):
        def on_round(event):
            seen.append(event.index)
            if len(seen) == n:
                raise KeyboardInterrupt

        return on_round

    (out / "data").mkdir(parents=True)
    (out / "data" / "world0").symlink_to(whole / "data" / "world0")
    with pytest.raises(KeyboardInterrupt):
        experiment.run(grid, out, device="cpu", resume=True, on_round=stop_at(3))
    assert "1 of 2 cells are open" in (out / "table.md").read_text()
    seen.clear()
    again = experiment.run(grid, out, device="cpu", resume=True, on_round=stop_at(99))
    assert 1 <= len(seen) <= 2
    assert again["rows"] == found["rows"]
    for cell in ("world-clean-with-seed3", "world-1.5_1.2-with-seed3"):
        name = f"cells/{cell}/run/weights.safetensors"
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_a_level_out_of_reach_costs_its_own_cells_only(finished, tmp_path):
    whole, _, found = finished
    text = SMALL.replace('"clean", {', '{ fragmentation = 2.0, switch = 9.0 }, "clean", {')
    out = tmp_path / "out"
    (out / "data").mkdir(parents=True)
    (out / "data" / "world0").symlink_to(whole / "data" / "world0")
    (out / "cells").symlink_to(whole / "cells")
    lines = []
    got = experiment.run(made(tmp_path, text), out, device="cpu", resume=True, tell=lines.append)
    assert got["failed"] == 1
    assert "r_SW 9 cannot be reached" in got["cells"][0]["error"]
    assert "at most" in got["cells"][0]["error"]
    assert [row["measured"] for row in got["rows"][1:]] == [row["measured"] for row in found["rows"]]
    assert " failed |" in got["table"]
    assert sum("failed" in line for line in lines) == 1
    assert not (whole / "cells" / "world-2_9-with-seed3").exists()


def test_impure_is_what_core_says(tmp_path):
    """Of ten frames three are of person 5 and seven of nobody known: none is of another person."""
    tracklet, pid = np.zeros(10, int), np.r_[[5] * 3, [-1] * 7]
    assert impure_fraction(tracklet, pid) == 0
    assert impure_fraction(tracklet, np.r_[pid[:-1], 6]) == pytest.approx(1 / 4)


def test_training_is_the_same_with_the_truth_shuffled_or_gone(finished, tmp_path):
    """A noisy set: truth beside the set, shuffled, deleted; three times the same weights."""
    path = tmp_path / "noisy"
    level = noise_level(fragmentation=1.5, switch=1.2)
    simulate(finished[0] / "data" / "world0" / "train", path, level, seed=1)
    sums = {}
    for state in ("present", "shuffled", "deleted"):
        if state == "shuffled":
            write_truth(path, np.random.default_rng(0).permutation(read_truth(path).pid))
        if state == "deleted":
            truth_path(path).unlink()
        overrides = [*QUICK, "tmc.epochs=1"]
        plan = plan_training(path, weights="none", device="cpu", preset="cpu", overrides=overrides)
        assert len(list(train(plan, tmp_path / state))) == 1
        sums[state] = hashlib.sha256((tmp_path / state / "weights.safetensors").read_bytes()).hexdigest()
    assert len(set(sums.values())) == 1, sums
    assert not truth_path(path).exists()


PRID = """
title = "PRID in small"
data = [{ name = "PRID-2011", protocol = "official" }]
seeds = [2]
preset = "cpu"
weights = "none"
metrics = ["rank1", "mAP", "n_given"]
[settings]
network = { height = 64, width = 32 }
tmc = { epochs = 1, iterations = 1, clusters_per_batch = 4 }
[variant."TMC-".settings.tmc]
isolate = false
"""


def test_a_benchmark_is_trained_and_judged_on_one_split(tmp_path, monkeypatch):
    """Eight persons in two cameras, each in one colour; seed 2 takes split 2."""
    monkeypatch.setattr(videos, "PRID", {})  # published counts, which this one has not
    colours = np.random.default_rng(0).integers(0, 256, (8, 3), np.uint8)
    halves = [list(range(1, 5)), list(range(5, 9)), [1, 2, 5, 6], *[[1, 3, 5, 7]] * 7]
    root = tmp_path / "prid"
    for person in range(1, 9):
        for camera in "ab":
            folder = root / "multi_shot" / f"cam_{camera}" / f"person_{person:04d}"
            folder.mkdir(parents=True)
            for frame in range(3):
                noisy = np.random.default_rng([person, ord(camera), frame]).integers(-9, 10, (32, 16, 3))
                image = np.clip(colours[person - 1] + noisy, 0, 255).astype(np.uint8)
                (folder / f"{frame:04d}.png").write_bytes(encode_jpeg(image))
    splits = [{"train": [p for p in range(1, 9) if p not in half], "test": half} for half in halves]
    (root / "splits.json").write_text(json.dumps(splits))
    found = experiment.run(made(tmp_path, PRID), tmp_path / "out", roots={"prid2011": root}, device="cpu")
    (cell,) = found["cells"]
    assert cell["status"] == "done", cell
    assert cell["scores"]["n_given"] == 8  # four persons to learn from, in two cameras
    assert cell["scores"]["n_valid"] == 4
    assert cell["scores"]["impure"] == 0
    assert found["rows"][0]["measured"]["rank1"]["values"] == [cell["scores"]["rank1"]]
    trained = read_truth(tmp_path / "out" / "data" / "prid2011-split2" / "train")
    assert set(trained.pid.tolist()) == {3, 4, 7, 8}
    shutil.rmtree(root / "multi_shot" / "cam_b")
    with pytest.raises(FileNotFoundError, match="cam_b"):
        experiment.run(made(tmp_path, PRID), tmp_path / "none", roots={"prid2011": root}, device="cpu")


MARKET = """
title = "Market in small"
data = [{ name = "market1501", persons = 5, test_persons = 3, seed = 4 }]
noise = [{ fragmentation = 2.0, switch = 1.25 }]
seeds = [0]
preset = "cpu"
weights = "none"
metrics = ["mAP", "rank1", "untrained", "n_given", "n_tracklets", "impure_given", "dropped"]
[settings]
network = { height = 64, width = 32 }
tmc = { epochs = 1, iterations = 1, clusters_per_batch = 4 }
[variant.with]
"""


def small_market(folder, monkeypatch):
    """Market-1501's folders with eight persons to learn from and six to be judged on, in two cameras."""
    monkeypatch.setattr(stills, "MARKET", {})  # published counts, which this one has not
    colours = np.random.default_rng(0).integers(0, 256, (15, 3), np.uint8)

    def film(part, person, camera, n):
        for frame in range(n):
            noisy = np.random.default_rng([person, camera, frame]).integers(-9, 10, (32, 16, 3))
            image = np.clip(colours[person] + noisy, 0, 255).astype(np.uint8)
            file = folder / "market" / part / f"{person:04d}_c{camera}s1_00000{frame}_00.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode_jpeg(image))

    for person in range(15):
        for camera in (1, 2):
            if person > 8:
                film("query", person, camera, 1)
            film("bounding_box_train" if 1 <= person <= 8 else "bounding_box_test", person, camera, 4)
    return folder / "market"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_grid_for_a_gpu_on_a_small_market(tmp_path, monkeypatch):
    begin_the_grid_for_a_gpu(tmp_path, monkeypatch, "cuda")


def begin_the_grid_for_a_gpu(tmp_path, monkeypatch, device):
    """`market-gpu`, but for few people, batches and random weights."""
    text = files.find("market-gpu").read_text()
    for there, here in (
        ('"market1501", ', '"market1501", persons = 8, test_persons = 6, seed = 0, '),
        ("epochs = 20", "epochs = 1"),
        ("iterations = 100", "iterations = 1"),
        ("_per_batch = 16", "_per_batch = 2"),
        ("drops = [12]", "drops = []"),
        ('weights = "imagenet-resnet50"', 'weights = "none"'),
        ('imagenet-resnet50 = "ResNet-50 learned on ImageNet"', ""),
    ):
        assert there in text
        text = text.replace(there, here)
    roots = {"market1501": small_market(tmp_path, monkeypatch)}
    found = experiment.run(made(tmp_path, text), tmp_path / "out", roots=roots, device=device)
    assert [cell["status"] for cell in found["cells"]] == ["done"] * 2, found["cells"]
    for cell in ("cap", "tmc"):
        (run,) = (tmp_path / "out" / "cells").glob(f"*-{cell}-seed0/run")
        manifest = Run(run).manifest
        assert (manifest["network"]["backbone"], manifest["preset"]) == ("resnet50", "gpu")
        assert manifest["compute"]["precision"] == "bfloat16"


def test_some_persons_of_a_benchmark_are_trained_and_judged_on(tmp_path, monkeypatch):
    """Eight persons to learn from and six to be judged on, in two cameras; five and three are drawn."""
    roots = {"market1501": small_market(tmp_path, monkeypatch)}
    grid = made(tmp_path, MARKET)
    found = experiment.run(grid, tmp_path / "out", roots=roots, device="cpu")
    (cell,) = found["cells"]
    assert cell["status"] == "done", cell
    scores = cell["scores"]
    assert scores["n_valid"] == 6  # three persons in two cameras
    assert scores["n_given"] == 16  # five persons in two cameras, 2.0 / 1.25 tracklets of each
    assert scores["impure_given"] > 0
    assert 0 < scores["untrained"] <= 1
    assert any("5 of 8 training persons, 3 of 6 test persons" in note for note in scores["notes"])
    assert "Note: a subset, drawn with seed 4" in found["table"]
    (base,) = (tmp_path / "out" / "data").iterdir()
    assert base.name == "market1501-5-3-seed4"
    learnt = set(read_truth(base / "train").pid.tolist())
    assert (len(learnt), open_set(base / "train").n_crops) == (5, 5 * 2 * 4)
    judged = json.loads(next((tmp_path / "out" / "cells").glob("*/evaluation/scores.json")).read_text())
    assert judged["subset"] == {"persons": 5, "test_persons": 3, "seed": 4}
    assert judged["n_items"] == 3 * 2 * (1 + 4)
    with pytest.raises(ValueError, match="9 training persons of Market-1501 are wanted, expected 1 to 8"):
        experiment.run(
            made(tmp_path, MARKET.replace("persons = 5", "persons = 9", 1)), tmp_path / "none", roots=roots
        )
    assert not (tmp_path / "none").exists()
    _judge_as_they_are(tmp_path, roots)


def _judge_as_they_are(tmp_path, roots):
    """Weights as they come: `evaluate` of their file, judged anew only where they have changed."""
    grid = MARKET.replace("noise =", "# noise =").replace('"none"\n', '"mine"\nmethod = "none"\n')
    grid = grid.replace("seed = 4 }", "seed = 4, singles = true }").replace("tmc = {", "# tmc = {")
    file, out = tmp_path / "mine.safetensors", tmp_path / "as-they-are"

    def judged(**options):
        made_here = made(tmp_path, grid + '[weight_files]\nmine = "mine"\n')
        return experiment.run(made_here, out, roots=roots, weights={"mine": file}, device="cpu", **options)[
            "cells"
        ][0]

    def write(seed):
        network = backbone.build(backbone.Config(backbone="tiny", height=64, width=32), seed=seed)
        crops = np.random.default_rng(0).integers(0, 256, (16, 64, 32, 3)).astype(np.uint8)
        network.calibrate([crops], neck=True)
        weight_store.save(file, network.arrays(), metadata=network.metadata())

    write(0)
    first = judged()
    assert first["status"] == "done", first
    assert first["scores"]["n_valid"] == 6
    assert not any("uses labels" in note for note in first["scores"]["notes"])
    model = open_weights(file, device="cpu", settings=["network.height=64", "network.width=32"])
    subset = benchmarks.Subset(persons=5, test_persons=3, seed=4)
    root, alone = roots["market1501"], tmp_path / "alone"
    want = benchmark.evaluate(model, "market1501", root, out=alone, subset=subset)
    assert first["scores"]["mAP"] == want["mAP"]
    (scores,) = out.glob("cells/*/scores.json")
    before = scores.stat().st_mtime_ns
    assert judged(resume=True)["scores"] == first["scores"]
    assert scores.stat().st_mtime_ns == before
    write(1)
    assert judged(resume=True)["status"] == "done"
    assert scores.stat().st_mtime_ns != before
    noisy = grid.replace("# noise =", "noise =")
    with pytest.raises(ValueError, match="learns nothing: give it a benchmark, clean"):
        experiment.run(made(tmp_path, noisy), tmp_path / "noisy", roots=roots)


# --------------------------------------------------------------------------------------- command line


COMMAND = ["experiment"]


def test_the_command_lists_outlines_and_refuses(call, tmp_path):
    code, out, _ = call()
    assert code == 0
    assert len(out.splitlines()) == len(files.shipped())
    assert "needs --root mars=DIR" in out
    code, out, _ = call("--list", "--json")
    assert {e["name"] for e in json.loads(out)["experiments"]} == set(files.shipped())
    code, out, _ = call("tmc-table3-small", "--dry-run")
    assert code == 0
    assert out.count("to do") == 16
    assert not (tmp_path / "tmc-table3-small").exists()
    for args, message in (
        (("tmc-table3",), "--root mars=DIR"),
        (("tmc-table3", "--root", "mars"), "not of the form NAME=DIR"),
        (("nothing-like-it",), "known are"),
    ):
        code, out, err = call(*args)
        assert (code, out) == (2, "")
        assert message in err
        assert len(err.splitlines()) == 1


def test_the_command_prints_the_table_and_counts_failures_in_its_exit_code(finished, call, tmp_path):
    whole, _, _ = finished
    (tmp_path / "small.toml").write_text(SMALL)
    code, out, _ = call("small.toml", "--out", whole, "--resume", "--device", "cpu")
    assert code == 0
    assert "mAP published" in out
    assert out.splitlines()[-1] == str(whole / "table.md")
    text = SMALL.replace("fragmentation = 1.5, switch = 1.2", "fragmentation = 2.0, switch = 9.0")
    (tmp_path / "bad.toml").write_text(text.replace('"clean", ', "").replace('noise = "clean"\n', ""))
    (tmp_path / "out" / "data").mkdir(parents=True)
    (tmp_path / "out" / "data" / "world0").symlink_to(whole / "data" / "world0")
    code, out, err = call("bad.toml", "--out", "out", "--resume", "--device", "cpu", "--json")
    assert code == 2
    assert json.loads(out.splitlines()[-1])["failed"] == 1
    assert "r_SW 9 cannot be reached" in err
