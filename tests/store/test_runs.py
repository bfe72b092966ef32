import json
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from tracklearn.store import runs
from tracklearn.store.files import DamagedError, read_arrays, write_arrays, write_json
from tracklearn.store.runs import Run, RunWriter
from tracklearn.types import Refusal

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


def test_a_single_number_stays_one_so_that_weights_fit_after_a_resume(tmp_path):
    """torch's `num_batches_tracked` has no dimension; one that became (1,) is loaded by nothing."""
    write_arrays(tmp_path / "a.safetensors", {"n": np.array(7, np.int64), "t": np.arange(6).reshape(2, 3).T})
    arrays, _ = read_arrays(tmp_path / "a.safetensors")
    assert arrays["n"].shape == ()
    np.testing.assert_array_equal(arrays["t"], np.arange(6).reshape(2, 3).T)


def test_states_stay_until_the_weights_read_back(tmp_path, monkeypatch):
    writer = filled(tmp_path / "run")
    writer.write_state({"x": np.ones(2)}, {"step": 4})
    honest = runs.read_arrays

    def lying(path):
        arrays, meta = honest(path)
        return {name: np.atleast_1d(value) for name, value in arrays.items()}, meta

    monkeypatch.setattr(runs, "read_arrays", lying)
    with pytest.raises(DamagedError, match=r"weights\.safetensors does not read back.*--resume"):
        writer.finish([{"n": np.array(1)}], {}, seconds={})
    monkeypatch.undo()
    assert (tmp_path / "run" / "state-000000004.safetensors").is_file()
    assert not Run(tmp_path / "run").finished
    writer.finish([{"n": np.array(1)}], {}, seconds={})
    assert Run(tmp_path / "run").finished
    assert not list((tmp_path / "run").glob("state-*"))


def test_a_flipped_state_is_passed_over_and_that_is_said(tmp_path):
    writer = filled(tmp_path / "run", rounds=1)
    for step in (5, 9):
        writer.write_state({"x": np.full(200, step)}, {"step": step})
    newest = tmp_path / "run" / "state-000000009.safetensors"
    data = bytearray(newest.read_bytes())
    data[-300] ^= 4  # still a file that reads
    newest.write_bytes(data)
    read_arrays(newest)
    with RunWriter(tmp_path / "run", MANIFEST, resume=True) as again:
        assert again.read_state()[0]["x"].tolist() == [5] * 200
        assert len(again.notes) == 2
        assert "state-000000009.safetensors is damaged" in again.notes[0]
        assert "goes on from state-000000005" in again.notes[1]
    assert not newest.exists()


@pytest.mark.parametrize(
    "name", ["rounds.jsonl", "labels.safetensors", "start.safetensors", "weights.safetensors"]
)
def test_a_flipped_file_is_named_and_not_read(tmp_path, name):
    writer = filled(tmp_path / "run")
    writer.finish([{"w": np.ones(3, np.float32)}], {"architecture": "tiny"}, seconds={"total": 2.0})
    file = tmp_path / "run" / name
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes(data)
    run = Run(tmp_path / "run")
    with pytest.raises(DamagedError, match=rf"{name} is damaged .*train again"):
        run.rounds, run.labels, run.weights_path("start"), run.weights_path()
    assert run.damages() == [f"{file} is damaged (its content is not what was written)"]
    os.remove(file)
    assert run.damages() == [f"{file} is damaged (it is missing)"]


def test_a_damaged_time_is_left_out(tmp_path):
    filled(tmp_path / "run")
    path = tmp_path / "run" / "times.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text(first.replace("0.5", "9.5") + "\n" + second + "\n{\n")
    assert Run(tmp_path / "run").times == [{"round": 1, "fit": 0.5}]


def test_one_writer_and_any_reader(tmp_path):
    code = (
        "import sys; from tracklearn.store.runs import RunWriter\n"
        f"RunWriter({str(tmp_path / 'run')!r}, {MANIFEST!r}, resume=True)"
    )

    def other():
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr

    with filled(tmp_path / "run"):
        assert "InUseError" in other()
        assert len(Run(tmp_path / "run").rounds) == 2
    assert other() == ""


def test_a_reader_follows_a_training_that_goes_on(tmp_path):
    writer = filled(tmp_path / "run")
    run = Run(tmp_path / "run")
    for i in (2, 3):
        writer.write_round(record(i), np.zeros(3), {})
    assert len(run.rounds) == 4
    assert [len(row) for row in run.labels] == [3] * 4


def test_what_was_refused_before_its_first_round_is_not_in_the_way(tmp_path):
    def fail(rounds, error):
        with RunWriter(tmp_path / "run", MANIFEST, resume=True) as writer:
            for i in range(rounds):
                writer.write_round(record(i), np.zeros(3), {})
            raise error

    def refused(rounds, error):
        with pytest.raises(type(error)):
            fail(rounds, error)

    refused(0, Refusal("0 clusters"))
    assert not (tmp_path / "run").exists()
    refused(0, OSError("full"))  # to be gone on with
    assert (tmp_path / "run").exists()
    refused(0, ValueError("numpy's own: a defect, which may be mended"))
    assert Run(tmp_path / "run").manifest["status"] == "training"
    refused(0, Refusal("another's folder"))
    assert (tmp_path / "run").exists()
    refused(1, Refusal("collapsed"))
    assert len(Run(tmp_path / "run").rounds) == 1


def test_a_refused_run_gives_its_place_to_other_settings_alone(tmp_path):
    path = tmp_path / "run"

    def train_until(error, resume):
        with RunWriter(path, MANIFEST, resume=resume) as writer:
            if writer.read_state() is None:
                writer.write_start({"w": np.ones(2)}, {})
                writer.write_round(record(0), np.zeros(3), {})
                writer.write_state({"x": np.ones(2)}, {"step": 4})
            raise error

    with pytest.raises(ValueError, match="collapsed"):
        train_until(Refusal("collapsed\nsecond line"), resume=False)
    assert Run(path).manifest["reason"] == "collapsed"
    with RunWriter(path, MANIFEST, resume=True) as writer:  # the same may be tried again, from its state
        assert writer.read_state()[1]["step"] == 4
        assert Run(path).manifest["status"] == "training"
        assert "reason" not in Run(path).manifest
    with pytest.raises(ValueError, match="other settings"):
        RunWriter(path, {**MANIFEST, "digest": "other"}, resume=True)  # one that was only stopped is kept
    with pytest.raises(ValueError, match="again"):
        train_until(Refusal("again"), resume=True)
    with pytest.raises(FileExistsError):
        RunWriter(path, {**MANIFEST, "digest": "other"})
    with RunWriter(path, {**MANIFEST, "digest": "other"}, resume=True) as writer:
        assert [p.name for p in path.iterdir()] == ["manifest.json"]
        assert writer.notes == [f"{path} held a run that was refused (again): begun anew"]


def test_damage_is_no_refusal(tmp_path):
    def meet_damage():
        with RunWriter(tmp_path / "run", MANIFEST) as writer:
            writer.write_round(record(0), np.zeros(3), {})
            raise DamagedError("a shard")

    with pytest.raises(DamagedError):
        meet_damage()
    assert Run(tmp_path / "run").manifest["status"] == "training"


def test_a_folder_in_which_the_first_manifest_was_not_finished_is_begun_again(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".manifest.json.tmp").write_text("{")
    with RunWriter(tmp_path / "run", MANIFEST, resume=True) as writer:
        assert not writer.finished
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["manifest.json"]


def test_a_run_of_an_older_program_is_read_and_gets_its_sums_when_it_goes_on(tmp_path):
    writer = filled(tmp_path / "run")
    writer.write_state({"x": np.ones(2)}, {"step": 4})
    writer.close()
    file = tmp_path / "run" / "manifest.json"
    old = {k: v for k, v in json.loads(file.read_text()).items() if k not in ("files", "coming", "seal")}
    file.write_text(json.dumps(old))
    run = Run(tmp_path / "run")
    assert len(run.rounds) == 2
    assert run.damages() == []
    with RunWriter(tmp_path / "run", MANIFEST, resume=True) as again:
        assert again.read_state()[1]["step"] == 4
    sums = Run(tmp_path / "run").manifest["files"]
    assert {"start.safetensors", "rounds.jsonl", "labels.safetensors", "state-000000004.safetensors"} <= set(
        sums
    )


def test_a_finished_run_follows_its_set(tmp_path):
    def manifest(path):
        return {**MANIFEST, "set": {"path": path, "digest": "s"}}

    with RunWriter(tmp_path / "run", manifest("../set")) as writer:
        writer.write_round(record(0), np.zeros(3), {})
        writer.finish([{"w": np.ones(3, np.float32)}], {}, seconds={})
    with RunWriter(tmp_path / "run", manifest("../moved/set"), resume=True) as again:
        assert again.finished
    assert Run(tmp_path / "run").manifest["set"]["path"] == "../moved/set"


def test_a_time_whose_sum_lost_its_name_is_no_time(tmp_path):
    filled(tmp_path / "run")
    path = tmp_path / "run" / "times.jsonl"
    path.write_text(path.read_text().replace("crc32", "crc33", 1))
    run = Run(tmp_path / "run")
    assert run.times == [{"round": 1, "fit": 0.5}]
    assert run.lost_times == 1


def test_times_that_are_gone_are_missed_of_a_finished_run(tmp_path):
    with RunWriter(tmp_path / "run", MANIFEST) as writer:
        writer.write_round(record(0), np.zeros(3), {"fit": 1.0})
        writer.finish([{"w": np.ones(3, np.float32)}], {}, seconds={"total": 2.0})
    assert Run(tmp_path / "run").lost_times == 0
    (tmp_path / "run" / "times.jsonl").write_bytes(b"")
    assert Run(tmp_path / "run").lost_times == 2


def test_tracklets_that_were_cut_anew_are_kept_by_round(tmp_path):
    path, state = tmp_path / "run", {"w": np.ones(2, np.float32)}
    with RunWriter(path, MANIFEST) as writer:
        writer.write_isolation({"part": np.zeros(6, np.int32)}, {"n_after": 2})
        writer.write_round(record(0), np.array([0, 1]), {})
        writer.write_state(state, {"step": 1, "isolated": 0})
        writer.write_isolation({"part": np.ones(6, np.int32)}, {"n_after": 3}, before=1)
        assert Run(path).isolation()[0]["part"][0] == 0  # no round has used the new one yet
        writer.write_round(record(1), np.array([0, 1, -1]), {})
        writer.write_state(state, {"step": 2, "isolated": 1})
        writer.write_round(record(2), np.array([0, 1, -1]), {})
    run = Run(path)
    assert [row.tolist() for row in run.labels] == [[0, 1], [0, 1, -1], [0, 1, -1]]
    assert [run.isolation(i)[0]["part"][0] for i in range(3)] == [0, 1, 1]
    assert run.manifest["isolation"]["n_after"] == 3
    with RunWriter(path, MANIFEST, resume=True) as again:
        again.read_state()
        assert (path / "isolation" / "00001.safetensors").is_file()  # the state was made with it
        assert len(again.rounds) == 2
    (path / "state-000000002.safetensors").write_bytes(b"damaged")
    with RunWriter(path, MANIFEST, resume=True) as again:
        again.read_state()
        assert not (path / "isolation" / "00001.safetensors").exists()
        assert again.manifest["isolation"]["n_after"] == 2
        assert [row.tolist() for row in again.labels] == [[0, 1]]


def test_labels_that_stay_are_written_once(tmp_path):
    path = tmp_path / "run"
    writer = RunWriter(path, MANIFEST)
    rows = [[0, 1], [0, 1], [1, 0], [1, 0], [0, 1]]
    stamps = []
    for i, row in enumerate(rows):
        writer.write_round(record(i), np.array(row), {})
        stamps.append((path / "labels.safetensors").stat().st_ino)
        if i == 2:
            writer.write_state({"x": np.ones(2)}, {"step": 4})
    assert [a == b for a, b in pairwise(stamps)] == [True, False, True, False]
    assert [row.tolist() for row in Run(path).labels] == rows
    assert [row.tolist() for row in Run(path).label_rows] == [[0, 1], [1, 0], [0, 1]]
    writer.close()
    with RunWriter(path, MANIFEST, resume=True) as again:
        again.read_state()
        assert [row.tolist() for row in Run(path).labels] == rows[:3]
        again.write_round(record(3), np.array([5, 5]), {})
    assert [row.tolist() for row in Run(path).labels] == [*rows[:3], [5, 5]]


def test_a_run_that_wrote_all_labels_every_round_is_read(tmp_path):
    path = tmp_path / "run"
    with RunWriter(path, MANIFEST) as writer:
        for i, row in enumerate([[0, 1], [1, 0]]):
            writer.write_round(record(i), np.array(row), {})
    rounds = [json.loads(line) for line in (path / "rounds.jsonl").read_text().splitlines()]
    text = "".join(json.dumps({k: v for k, v in r.items() if k != "labels"}) + "\n" for r in rounds)
    (path / "rounds.jsonl").write_text(text)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(
        json.dumps({k: v for k, v in manifest.items() if k not in ("files", "coming", "seal")})
    )
    assert [row.tolist() for row in Run(path).labels] == [[0, 1], [1, 0]]
