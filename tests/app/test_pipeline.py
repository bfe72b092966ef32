import shutil

import numpy as np
import pytest

import tracklearn as tl
from tests.app.conftest import QUICK
from tracklearn.app.judge import rates
from tracklearn.app.model.of_run import isolated, load_network
from tracklearn.app.pipeline import run as pipeline
from tracklearn.app.pipeline.plan import plan_training, starting_networks
from tracklearn.app.pipeline.stages import Stages
from tracklearn.app.pipeline.training import train
from tracklearn.app.report.of_run import report
from tracklearn.app.search.index import index
from tracklearn.app.search.searcher import Searcher
from tracklearn.core.noise import tracklet_pid
from tracklearn.store.film.mot import read_results
from tracklearn.store.runs import Run
from tracklearn.store.sets.tracklets import open_set


def test_run_leaves_set_run_gallery_and_report(done):
    out = done["out"]
    tracklet_set, run = open_set(out / "set"), Run(out / "run")
    assert len(tracklet_set.tracklets) > 3
    assert run.finished
    assert [r.index for r in done["rounds"]] == [0, 1]
    assert [r["index"] for r in run.rounds] == [0, 1]
    assert set(run.rounds[0]["losses"]) >= {"id", "sid", "tri", "stri"}
    parts = isolated(run, tracklet_set)
    assert len(parts) == run.manifest["isolation"]["n_after"]
    assert [len(label) for label in run.labels] == [len(parts)] * 2
    page = (out / "report.html").read_text()
    assert "<script" not in page
    assert "started from random weights" in page
    assert set(done["result"]["seconds"]) == {"ingest", "train", "index", "identities", "report"}


def test_nothing_is_done_twice_and_nothing_is_overwritten(done, sources):
    before = {p: p.stat().st_mtime_ns for p in done["out"].rglob("*") if p.is_file()}
    again = []
    pipeline.run(sources, done["out"], **done["arguments"], resume=True, on_round=again.append)
    assert again == []
    assert {p: p.stat().st_mtime_ns for p in done["out"].rglob("*") if p.is_file()} == before
    with pytest.raises(FileExistsError, match="--resume, or choose another --out"):
        pipeline.run(sources, done["out"], **done["arguments"])


def test_changed_settings_redo_training_but_not_ingest(done, sources, tmp_path):
    out = tmp_path / "work"
    shutil.copytree(done["out"], out)
    ingested = (out / "set" / "manifest.json").stat().st_mtime_ns

    def plan(set_path):
        return plan_training(
            set_path, weights="none", device="cpu", preset="cpu", overrides=[*QUICK, "tmc.epochs=1"]
        )

    pipeline.run(sources, out, ingest_config=done["arguments"]["ingest_config"], plan=plan, resume=True)
    assert (out / "set" / "manifest.json").stat().st_mtime_ns == ingested
    assert len(Run(out / "run").rounds) == 1


def test_an_interrupted_training_goes_on_to_the_same_bytes(done, tmp_path):
    out = tmp_path / "run"
    plan = done["arguments"]["plan"](done["out"] / "set")
    events = train(plan, out)
    next(events)
    next(events)  # the state of the first round is written, that of the second not yet
    events.close()
    assert not Run(out).finished
    with pytest.raises(FileExistsError):
        list(train(plan, out))
    # As if killed in the second round: the record is ahead of the state.
    assert [r.index for r in train(plan, out, resume=True)] == [1]
    assert Run(out).finished
    for name in ("weights.safetensors", "labels.safetensors", "rounds.jsonl", "start.safetensors"):
        assert (out / name).read_bytes() == (done["out"] / "run" / name).read_bytes(), name
    assert list(train(plan, out, resume=True)) == []


def test_python_in_ten_lines(sources, tmp_path):
    config = tl.tmc.Config(epochs=1, iterations=1, frames_train=2, eps_intra="auto")
    tracklets = tl.ingest(sources, tmp_path / "set")
    rounds = list(tl.train(tracklets, config, out=tmp_path / "run", weights="none", device="cpu"))
    assert len(rounds) == 1
    searcher = tl.index(tmp_path / "run", tracklets, device="cpu")
    found = searcher.search(0, k=3)
    assert found.table().splitlines()[0].split()[:4] == ["rank", "distance", "camera", "track"]
    assert len(found.rows()) == 3
    assert tl.report(tmp_path / "run").is_file()


def test_search_by_track_leaves_it_out_and_by_its_picture_finds_it(done, tmp_path):
    import cv2

    searcher = Searcher(done["out"] / "run")
    entries = searcher.gallery.entries
    assert 0 not in [hit.track for hit in searcher.search(0, k=5).hits]
    long = int(np.argmax(entries.n_crops))
    picture = searcher.tracklet_set().image(int(entries.crop[long]))
    cv2.imwrite(str(tmp_path / "q.png"), picture[..., ::-1])
    found = searcher.search(tmp_path / "q.png", k=5)
    assert (entries.source[long], entries.part[long]) in [(hit.track, hit.part) for hit in found.hits]
    sheet = found.save_sheet(tmp_path / "sheet.png")
    assert cv2.imread(str(sheet)).shape[1] > 300
    with pytest.raises(ValueError, match="the gallery has no track 9999: its tracks are 0 to"):
        searcher.search("9999")
    with pytest.raises(FileNotFoundError, match=r"a query is an image's path, or the number of a track"):
        searcher.search(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="not an image"):
        searcher.search(tmp_path / "text.png")


def test_trained_weights_start_another_run(done):
    weights = str(done["out"] / "run" / "weights.safetensors")
    plan = plan_training(done["out"] / "set", weights=weights, device="cpu", overrides=QUICK)
    assert plan.network.backbone == "tiny"
    network = load_network(Run(done["out"] / "run"))
    (again,) = starting_networks(plan, plan.open().crops(64, 32), plan.open().tracklets)
    for name, value in network.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], value, err_msg=name)


def test_truth_is_matched_after_training_and_gives_noise_and_scores(done, films):
    tracklet_set, run = open_set(done["out"] / "set"), Run(done["out"] / "run")
    truths = {name: read_results(films / f"{name}.gt.txt") for name in tracklet_set.cameras}
    truth = rates.match_truth(tracklet_set, truths)
    assert (truth.pid >= 0).mean() > 0.6
    before = rates.noise_rates(tracklet_set.tracklets, truth)
    assert before.n_persons * before.r_FM == pytest.approx(before.n_tracklets * before.r_SW)
    pid = tracklet_pid(tracklet_set.tracklets, truth)
    owner = truth.pid[tracklet_set.tracklets.crop]
    for i in np.flatnonzero(pid >= 0):
        rows = owner[tracklet_set.tracklets.tracklet == i]
        assert (rows == pid[i]).sum() == np.bincount(rows[rows >= 0]).max()
    parts = isolated(run, tracklet_set)
    histogram = rates.colour_histogram(tracklet_set.crops(64, 32), parts)
    np.testing.assert_allclose(np.linalg.norm(histogram, axis=1), 1, rtol=1e-5)
    scores = rates.retrieval(histogram, tracklet_pid(parts, truth), parts.camid, same_camera=True)
    assert 0 < scores.mAP <= 1
    with pytest.raises(ValueError, match="the set has no camera 'cellar'"):
        rates.match_truth(tracklet_set, {"cellar": next(iter(truths.values()))})


def test_plan_names_what_is_wrong(done):
    where = done["out"] / "set"
    with pytest.raises(ValueError, match="method 'tcm' is unknown"):
        plan_training(where, method="tcm", weights="none", device="cpu")
    with pytest.raises(ValueError, match="no preset is called 'fast'"):
        plan_training(where, weights="none", device="cpu", preset="fast")
    with pytest.raises(ValueError, match=r"tmc\.epoch is unknown: did you mean 'epochs'"):
        plan_training(where, weights="none", device="cpu", overrides=["tmc.epoch=1"])
    with pytest.raises(FileNotFoundError, match="no weights at"):
        plan_training(where, weights="/nowhere.safetensors", device="cpu")


def test_a_gallery_of_another_set_is_shown_as_such_and_not_taken_for_its_own(done, sources, tmp_path):
    out = tmp_path / "work"
    shutil.copytree(done["out"], out)
    other = tl.ingest(sources[:1], tmp_path / "other")
    with pytest.raises(FileExistsError, match="replace it with --resume"):
        index(out / "run", other, device="cpu")
    searcher = index(out / "run", other, device="cpu", resume=True)
    assert searcher.tracklet_set().digest == open_set(other).digest
    assert report(out / "run", resume=True).is_file()
    pipeline.run(sources, out, **done["arguments"], resume=True)
    assert Searcher(out / "run").tracklet_set().digest == open_set(out / "set").digest


def test_a_run_may_lie_behind_a_link_and_move_with_its_set(done, tmp_path):
    shutil.copytree(done["out"], tmp_path / "deep" / "er" / "work")
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er")
    assert report(tmp_path / "link" / "work" / "run").is_file()
    assert Searcher(tmp_path / "link" / "work" / "run").search(0, k=2).hits


def test_other_settings_after_a_stop_start_anew(done, sources, tmp_path):
    out = tmp_path / "work"

    def plan(set_path, *more):
        return plan_training(set_path, weights="none", device="cpu", preset="cpu", overrides=[*QUICK, *more])

    def stop(_):
        raise KeyboardInterrupt

    config = done["arguments"]["ingest_config"]
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(sources, out, ingest_config=config, plan=plan, on_round=stop)
    assert Stages(out).entries["train"]["done"] is False
    result = pipeline.run(
        sources, out, ingest_config=config, plan=lambda s: plan(s, "tmc.epochs=1"), resume=True
    )
    assert result["report"].is_file()
    assert len(Run(out / "run").rounds) == 1


def fail(stages, digest, product, *, leave=False):
    with stages.stage("a", digest, product):
        if leave:
            product.write_text("half")
        raise RuntimeError(digest)


def test_a_killed_stage_keeps_the_seconds_that_were_noted(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("tracklearn.app.pipeline.stages.time.perf_counter", lambda: now[0])
    folder, product = tmp_path / "work", tmp_path / "work" / "product"
    held = []  # contexts that no exception leaves, as of a process that is killed
    for seconds, noted in ((40.0, 40.0), (7.0, 47.0)):
        stages = Stages(folder)
        stages.note_time()  # between stages there is nothing to note
        held.append(stages.stage("a", "d", product))
        assert held[-1].__enter__()
        product.write_text("half")
        now[0] += seconds
        stages.note_time()
        now[0] += 1000  # since then it was killed
        assert Stages(folder).entries["a"]["seconds"] == noted
        assert Stages(folder).seconds == {}
    with Stages(folder).stage("a", "d", product) as needed:
        assert needed
        now[0] += 3
    assert Stages(folder).seconds == {"a": 50.0}


def test_stages_run_when_inputs_change_and_only_then(tmp_path):
    stages, product = Stages(tmp_path / "work"), tmp_path / "work" / "product"
    for digest, expected in (("d1", True), ("d1", False), ("d2", True)):
        with stages.stage("a", digest, product) as needed:
            assert needed is expected
            # Made from other inputs it is out of the way before the stage runs again.
            assert product.exists() is (not needed)
            product.write_text(digest)
    assert stages.entries["a"]["digest"] == "d2"
    assert set(stages.seconds) == {"a"}
    assert sorted(p.name for p in stages.folder.iterdir()) == ["product", "stages.json"]
    stages.forget("a")
    with stages.stage("a", "d2", product) as needed:
        assert needed


def test_a_stage_that_fails_loses_nothing(tmp_path):
    stages, product = Stages(tmp_path / "work"), tmp_path / "work" / "product"
    with pytest.raises(RuntimeError):
        fail(stages, "d1", product)
    assert not stages.folder.exists()
    with stages.stage("a", "d1", product):
        product.write_text("whole")
    with pytest.raises(RuntimeError):
        fail(stages, "d2", product)
    assert product.read_text() == "whole"
    with stages.stage("a", "d1", product) as needed:
        assert not needed
    # What a failed stage did leave is gone on with; the old product waits until the new one is there.
    with pytest.raises(RuntimeError):
        fail(stages, "d2", product, leave=True)
    assert stages.seconds == {}
    assert product.with_name("product.old").read_text() == "whole"
    with stages.stage("a", "d2", product) as needed:
        assert needed
        assert product.read_text() == "half"
    assert not product.with_name("product.old").exists()


def finished(stages, digest, product):
    """Let the stage run to its end, unless it need not; whether it ran."""
    with stages.stage("a", digest, product) as needed:
        if needed:
            product.mkdir(exist_ok=True)
            (product / "made").write_text(digest)
    return needed


def test_the_finished_product_of_inputs_asked_for_again_comes_back(tmp_path):
    stages, product = Stages(tmp_path / "work"), tmp_path / "work" / "product"

    def stop(digest, product):
        with stages.stage("a", digest, product):
            product.mkdir(exist_ok=True)
            raise KeyboardInterrupt

    assert finished(stages, "A", product)
    with pytest.raises(KeyboardInterrupt):
        stop("B", product)
    with pytest.raises(KeyboardInterrupt):
        stop("C", product)
    assert not finished(stages, "A", product)
    assert (product / "made").read_text() == "A"
    assert [p.name for p in stages.folder.iterdir() if p.is_dir()] == ["product"]
    assert finished(stages, "B", product)
    assert finished(stages, "A", product)


class Killed(BaseException):
    """Nothing that the program does after it is done."""


def test_killed_at_any_step_a_stage_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    """Every note, renaming and removal on the way from A by B, stopped, back to A, and to C."""
    from tracklearn.app.pipeline import stages as module

    def way(stages, product):
        finished(stages, "A", product)
        if not (product / "made").exists() or (product / "made").read_text() != "B":
            try:
                with stages.stage("a", "B", product) as needed:
                    if needed:
                        product.mkdir(exist_ok=True)
                        raise RuntimeError
            except RuntimeError:
                pass
        finished(stages, "A", product)
        finished(stages, "C", product)

    for n in range(1, 200):
        folder = tmp_path / str(n)
        stages, product = Stages(folder), folder / "product"
        left = n

        def counted(call):
            def run(*args, **kwargs):
                nonlocal left
                left -= 1
                if left <= 0:
                    raise Killed
                return call(*args, **kwargs)

            return run

        killed = False
        with monkeypatch.context() as patch:
            patch.setattr(module, "write_sealed", counted(module.write_sealed))
            patch.setattr(module, "_remove", counted(module._remove))
            patch.setattr(module.Path, "rename", counted(module.Path.rename))
            try:
                way(stages, product)
            except Killed:
                killed = True
        way(stages, product)
        assert (product / "made").read_text() == "C", n
        assert sorted(p.name for p in folder.iterdir()) == ["product", "stages.json"], n
        if not killed:
            break
    assert n > 10


def test_damaged_notes_are_no_dead_end(tmp_path):
    told = []
    stages, product = Stages(tmp_path, tell=told.append), tmp_path / "report.html"
    with stages.stage("a", "A", product):
        product.write_text("whole")
    for text in ("{", "[]", '{"a": 3}', stages.path.read_text().replace('"digest": "A"', '"digest": "B"')):
        stages.path.write_text(text)
        with stages.stage("a", "A", product) as needed:
            assert needed
            product.write_text("whole")
        assert "stages.json is damaged" in told[-1]
    product.write_text("whale")
    assert stages.damages() == [f"{product} is damaged (its content is not what was written)"]
    with stages.stage("a", "A", product) as needed:
        assert needed


def test_where_all_inputs_are_its_own_what_notes_do_not_tell_of_is_made_anew(tmp_path):
    stages, product = Stages(tmp_path / "work", remake=True), tmp_path / "work" / "product"
    assert finished(stages, "A", product)
    (product / "kept").write_text("of A")
    stages.path.write_text("{")
    assert finished(stages, "A", product)
    assert [p.name for p in product.iterdir()] == ["made"]
