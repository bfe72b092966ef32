import json

import numpy as np
import pytest

from tracklearn.store.files import read_arrays, write_arrays, write_json
from tracklearn.store.runs import Run, RunWriter

MANIFEST = {"digest": "d1", "method": "tmc", "seed": 0}


def record(index):
    return {"index": index, "n_clusters": 3, "losses": {"id": np.float32(1.5)}, "agreement": None}


def filled(path, rounds=2):
    writer = RunWriter(path, MANIFEST)
    writer.write_start({"w": np.zeros(3, np.float32)}, {"architecture": "tiny"})
    writer.write_isolation({"part": np.zeros(4, np.int32)}, {"n_before": 1, "n_after": 1})
    for i in range(rounds):
        writer.write_round(record(i), np.array([0, 1, -1]) + i, {"fit": 0.5})
    return writer


def test_a_finished_run_reads_back_whole(tmp_path):
    writer = filled(tmp_path / "run")
    writer.finish([{"w": np.ones(3, np.float32)}], {"architecture": "tiny"}, seconds={"total": 2.0})
    run = Run(tmp_path / "run")
    assert run.finished
    assert run.manifest["seed"] == 0
    assert run.manifest["isolation"] == {"n_before": 1, "n_after": 1}
    assert [r["index"] for r in run.rounds] == [0, 1]
    assert run.rounds[0]["losses"] == {"id": 1.5}
    np.testing.assert_array_equal(run.labels, [[0, 1, -1], [1, 2, 0]])
    np.testing.assert_array_equal(read_arrays(run.weights_path())[0]["w"], 1)
    np.testing.assert_array_equal(read_arrays(run.weights_path("start"))[0]["w"], 0)
    assert run.seconds == {"fit": 1.0}
    assert run.times[-1] == {"stage": "train", "total": 2.0}
    assert not list((tmp_path / "run").glob("state*"))


def test_an_existing_folder_needs_resume_and_the_same_settings(tmp_path):
    filled(tmp_path / "run")
    with pytest.raises(FileExistsError, match=r"--resume, or choose another --out"):
        RunWriter(tmp_path / "run", MANIFEST)
    with pytest.raises(ValueError, match="other settings or another tracklet set"):
        RunWriter(tmp_path / "run", {**MANIFEST, "digest": "d2"}, resume=True)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds no run"):
        RunWriter(foreign, MANIFEST, resume=True)
    assert (foreign / "thesis.txt").read_text() == "mine"


def test_resume_cuts_the_record_back_to_the_state(tmp_path):
    writer = filled(tmp_path / "run", rounds=2)
    writer.write_state({"x": np.arange(3)}, {"epoch": 2, "step": 40})
    writer.write_round(record(2), np.zeros(3), {})
    again = RunWriter(tmp_path / "run", MANIFEST, resume=True)
    arrays, meta = again.read_state()
    np.testing.assert_array_equal(arrays["x"], [0, 1, 2])
    assert meta["epoch"] == 2
    assert [r["index"] for r in Run(tmp_path / "run").rounds] == [0, 1]
    assert again.manifest["isolation"]["n_before"] == 1
    assert RunWriter(tmp_path / "new", MANIFEST).read_state() is None


def test_the_last_two_states_are_kept_and_the_older_one_stands_in_for_a_damaged_one(tmp_path):
    writer = filled(tmp_path / "run", rounds=1)
    for step in (0, 9, 10, 100):
        writer.write_state({"x": np.full(2, step)}, {"step": step})
    (tmp_path / "run" / ".state-000000200.safetensors.ab12.tmp").write_bytes(b"half")
    files = sorted(p.name for p in (tmp_path / "run").glob("state*"))
    assert files == ["state-000000010.safetensors", "state-000000100.safetensors"]
    again = RunWriter(tmp_path / "run", MANIFEST, resume=True)
    assert not list((tmp_path / "run").glob(".*.tmp"))
    assert again.read_state()[0]["x"].tolist() == [100, 100]
    newest = tmp_path / "run" / files[1]
    newest.write_bytes(newest.read_bytes()[:-9])
    assert again.read_state()[0]["x"].tolist() == [10, 10]
    (tmp_path / "run" / files[0]).write_bytes(b"")
    assert again.read_state() is None


def test_every_teacher_gets_a_file(tmp_path):
    writer = filled(tmp_path / "run")
    two = [{"w": np.full(3, i, np.float32)} for i in (1, 2)]
    writer.finish(two, {"architecture": "tiny"}, seconds={})
    for name, value in (("weights", 1), ("weights2", 2)):
        np.testing.assert_array_equal(read_arrays(tmp_path / "run" / f"{name}.safetensors")[0]["w"], value)


def test_an_unfinished_run_gives_no_weights(tmp_path):
    filled(tmp_path / "run")
    with pytest.raises(ValueError, match=r"not finished: go on with .*--resume"):
        Run(tmp_path / "run").weights_path()


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such run"):
        Run(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"has no manifest\.json"):
        Run(tmp_path)
    filled(tmp_path / "run")
    with pytest.raises(ValueError, match="did you mean"):
        Run(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    write_json(other / "manifest.json", {"kind": "tracklet set"})
    with pytest.raises(ValueError, match="not a run but a tracklet set"):
        Run(other)
    write_json(other / "manifest.json", {"kind": "run", "schema": 99})
    with pytest.raises(ValueError, match="newer tracklearn"):
        Run(other)
    (other / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        Run(other)


def test_arrays_keep_values_and_meta_and_damage_is_named(tmp_path):
    path = tmp_path / "a.safetensors"
    write_arrays(path, {"a": np.arange(6).reshape(2, 3)[:, ::2]}, {"n": np.int64(3), "p": tmp_path})
    arrays, meta = read_arrays(path)
    np.testing.assert_array_equal(arrays["a"], [[0, 2], [3, 5]])
    assert meta == {"n": 3, "p": str(tmp_path)}
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is damaged"):
        read_arrays(path)
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "none")


def test_numbers_that_json_lacks_become_null(tmp_path):
    write_json(tmp_path / "a.json", {"a": [np.float32("nan"), float("inf"), np.arange(2)], 3: tmp_path})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"a": [None, None, [0, 1]], "3": str(tmp_path)}
