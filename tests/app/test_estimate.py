"""What is said of a run before it runs, against the run."""

import dataclasses
import itertools
import json
import time

import numpy as np
import pytest
import torch

from tests import optional
from tracklearn.app.pipeline import estimate as module
from tracklearn.app.pipeline import plan as planning
from tracklearn.app.pipeline.estimate import estimate
from tracklearn.learn import backbone, train
from tracklearn.learn.method import Assignment, Method
from tracklearn.learn.methods import tmc
from tracklearn.learn.network import Network
from tracklearn.store import weights as weight_store
from tracklearn.store.picture.crops import encode_jpeg
from tracklearn.store.sets.tracklets import SetWriter, open_set
from tracklearn.types import PseudoLabels

LENGTHS = [3, 9, 5, 12, 4, 8, 7, 6, 10, 5, 20, 3]
SMALL = [
    "network.height=64",
    "network.width=32",
    "tmc.epochs=2",
    "tmc.iterations=3",
    "tmc.clusters_per_batch=4",
    "tmc.frames_cluster=6",
    "tmc.isolate=false",
]


def write(path, lengths):
    rng = np.random.default_rng(0)
    with SetWriter(path) as writer:
        part = writer.part("a" * 64)
        for length in lengths:
            look = rng.integers(30, 220, (8, 4, 3)).repeat(8, 0).repeat(8, 1)
            frame = np.arange(length)
            part.add(
                [encode_jpeg((look + rng.integers(0, 30, look.shape)).astype(np.uint8)) for _ in frame],
                camera="cam",
                frame=frame,
                time=frame / 10,
                box=np.tile([0, 0, 32, 64], (length, 1)),
                score=np.ones(length),
            )
        part.finish({"camera": "cam"})
        return writer.finish({})


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    return write(tmp_path_factory.mktemp("estimate") / "set", LENGTHS)


@pytest.fixture(scope="module")
def found(where):
    return estimate(plan(where))


def plan(where, *overrides, weights="none"):
    return planning.plan_training(
        where, weights=weights, device="cpu", preset="cpu", overrides=[*SMALL, *overrides]
    )


def half(features, tracklets, memory):
    """Clusters of two tracklets each, as many as the estimate assumes, and something for the objective."""
    label = np.arange(len(tracklets)) % (len(tracklets) // 2)
    return Assignment(PseudoLabels.of(label), aux={"scale": np.ones(1, np.float32)})


def needs_aux(students, teachers, target):
    terms = [v.feature.square().mean() + v.logits.square().mean() for v in students]
    return {"any": sum(terms) * target.aux["scale"].sum()}


def given(config):
    """TMC without isolation on given clusters."""
    return dataclasses.replace(
        tmc.method(config), stages=(dataclasses.replace(tmc.method(config).stages[0], assign=half),)
    )


def two(config):
    """Two networks, two stages; in the second labels stay for two rounds."""
    first = dataclasses.replace(given(config).stages[0], objective=needs_aux, weights={"any": 1.0})
    second = dataclasses.replace(
        first,
        name="second",
        rounds=3,
        assign_every=2,
        iterations=lambda labels: labels.n_clusters,
        optimise=lambda student, head: [torch.optim.SGD(student.parameters(), lr=0.01)],
        frames_cluster=4,
    )
    return Method(name="made", prepare=None, stages=(first, second), networks=2)


def run(plan):
    """What really happens: totals told as progress, the largest state, and CPU-seconds of all rounds."""
    opened = plan.open()
    crops = opened.crops(plan.network.height, plan.network.width)
    networks = planning.starting_networks(plan, crops, opened.tracklets)
    told = []
    events = train.train(
        plan.value(),
        networks,
        opened.tracklets,
        crops,
        config=plan.compute,
        progress=lambda what, done, total: told.append((what, total)) if done == total else None,
    )
    states, rounds, began = [], [], None
    for event in events:
        if isinstance(event, train.State):
            began = began or time.process_time()
            kept = {k: v.nbytes for k, v in event.arrays.items() if ".aux." not in k and "memory." not in k}
            states.append(sum(kept.values()))
        elif isinstance(event, train.Round):
            rounds.append(event)
            ended = time.process_time()
    return told, max(states), rounds, ended - began


@pytest.mark.parametrize(("made", "checkpoint_every"), [(given, 1), (two, 200)])
def test_counts_are_those_of_the_run_and_times_are_near(where, monkeypatch, made, checkpoint_every):
    chosen = plan(where, f"train.checkpoint_every={checkpoint_every}")
    monkeypatch.setattr(planning.TrainPlan, "value", lambda self: made(self.config))
    expected = estimate(chosen, clock=time.process_time)
    told, state, rounds, seconds = run(chosen)
    k = expected.run["n_networks"]
    assert ("isolation", sum(LENGTHS)) in told
    assert [r.stage for r in rounds] == [s.name for s in expected.stages for _ in range(s.rounds)]
    for stage in expected.stages:
        assert [r.n_iterations for r in rounds if r.stage == stage.name] == [stage.batches] * stage.rounds
    extracted = [total for what, total in told if what == "features"]
    assert extracted == [s.crops // k for s in expected.stages for _ in range(s.assignments * k)]
    # Beside what is counted a state holds the sums of the losses.
    assert 0 <= state - max(s.state_bytes for s in expected.stages) < 100
    rest = expected.seconds["all"] - expected.seconds["start"] - expected.seconds["isolation"]
    assert seconds / 5 < rest < seconds * 5
    assert expected.seconds["epoch"] > 0


def test_counts_by_hand(found):
    (stage,) = found.stages
    assert (stage.rounds, stage.assignments, stage.batches) == (2, 2, 3)
    # 4 clusters of 4 tracklets of 2 frames; of each tracklet at most 6 crops: 3 5 4 5 3 and seven of 6.
    assert (stage.tracklets, stage.pictures, stage.crops) == (16, 32, 62)
    assert found.run["n_tracklets"] == 12
    assert found.run["n_crops"] == sum(LENGTHS)
    assert found.run["cameras"] == ["cam"]
    assert found.features_bytes == sum(LENGTHS) * 384 * 4
    assert found.cache_bytes == sum(LENGTHS) * 64 * 32 * 3
    epoch = stage.seconds["extract"] + stage.seconds["fit"]
    assert found.seconds["epoch"] == epoch
    assert found.seconds["start"] > 0
    first = found.seconds["start"] + found.seconds["isolation"]
    assert found.seconds["all"] == pytest.approx(first + 2 * epoch)
    # All crops are read once; after that they are in the cache.
    assert found.seconds["isolation"] / sum(LENGTHS) > stage.seconds["extract"] / 62
    assert 8 <= found.measured["crops"] <= 92
    assert 8 <= found.measured["pictures"] <= 32


def test_memory_by_hand(where, found):
    network = backbone.build(plan(where).network, seed=0)
    trained = [p for p in network.parameters() if p.requires_grad]
    head = 6 * network.feature_dim * 4
    memory = found.stages[0].memory
    arrays = sum(a.nbytes for a in network.arrays().values())
    assert memory["networks"] == 2 * arrays + 2 * head
    assert memory["gradients"] == sum(p.numel() * 4 for p in trained) + head
    # Adam: two moments, and a counter for each parameter.
    assert memory["optimiser"] == 2 * memory["gradients"] + 4 * (len(trained) + 1)
    # At least the pictures, as float32.
    assert memory["activations"] > 32 * 64 * 32 * 3 * 4
    assert found.memory["cpu"]["needed"] == sum(memory.values()) + found.cache_bytes
    larger = estimate(plan(where, "tmc.frames_train=8")).stages[0].memory["activations"]
    assert 3.5 < larger / memory["activations"] < 4.5


def test_what_autograd_keeps_is_counted_once():
    layer = torch.nn.Linear(4, 3, bias=False)
    x = torch.ones(2, 4)
    saved = module._Saved([layer])
    with torch.autograd.graph.saved_tensors_hooks(saved.note, lambda t: t):
        y = layer(x)  # keeps x: 8 numbers; the weight is the layer's own
        z = y.exp()  # keeps its result: 6 numbers
        (z * z).sum().backward()  # keeps z twice more
    assert int(saved) == 4 * (8 + 6)


def test_what_depends_on_the_data_is_said(where, found):
    fixed = found.assumptions
    assert "6 persons, half as many as tracks" in fixed[0]
    assert "batches" not in fixed[0]
    assert not any("isolation" in text for text in fixed)
    assert "clusters, found every epoch, come on top" in fixed[1]
    assert "the program and its libraries" in fixed[2]
    found = estimate(plan(where, 'tmc.iterations="auto"', "tmc.isolate=true", "train.compile=true"))
    assert found.isolation
    assert found.stages[0].batches == round(0.6 * 6)
    assert "the number of batches follows from it" in found.assumptions[0]
    assert "isolation cuts tracks and drops crops" in found.assumptions[1]
    assert "not compiled" in found.assumptions[-1]


def test_it_is_told_to_people_and_programs_and_nothing_is_written(where):
    before = {p: p.stat().st_mtime_ns for p in where.parent.rglob("*")}
    told = []
    found = estimate(plan(where), progress=lambda *what: told.append(what))
    assert told == [("measuring", 1, 2), ("measuring", 2, 2)]
    assert {p: p.stat().st_mtime_ns for p in where.parent.rglob("*")} == before
    assert json.loads(json.dumps(found.to_dict()))["stages"][0]["pictures"] == 32
    text = found.table()
    for part in (
        "tmc-: 1 student, 1 teacher",
        "1 camera, 12 tracks, 92 crops",
        "tiny, crops of 64×32, weights none",
        "on cpu in float32",
        "1 process, preset cpu",
        "isolation    no",
        "2 epochs of 3 batches",
        "16 parts, 32 pictures, each through 1 student and 1 teacher",
        "labels from 62 crops before each of 2 epochs",
        "Estimated time",
        "Estimated memory",
        "Assumed:",
    ):
        assert part in text, part


def test_a_run_that_will_not_fit_is_warned_of(where, monkeypatch):
    monkeypatch.setattr(module, "_memory_of", lambda place: 1_000_000)
    found = estimate(plan(where))
    warning = found.warnings[-1]
    assert warning.endswith(
        "on cpu, which has 1.0 MB: take smaller batches, crops, networks or train.cache_bytes"
    )
    assert f"Warning: {warning}" in found.table()


def test_crops_that_are_decoded_every_time_are_counted(where):
    size = 64 * 32 * 3
    found = estimate(plan(where, f"train.cache_bytes={10 * size + 5}"))
    assert found.cache_bytes == 10 * size
    assert "10 of the set, the others are decoded every time" in found.table()
    assert "decoded every time" not in estimate(plan(where)).table()


def test_memory_that_nobody_knows_is_not_warned_of(monkeypatch):
    assert module._memory_of("cpu") > 1e8
    monkeypatch.setattr(module.machine, "total", lambda: None)
    assert module._memory_of("cpu") is None
    assert module._warnings({"cpu": {"needed": 10**12, "total": None}}) == ()


def test_a_machine_too_slow_to_measure_on_is_warned_of(where):
    def clock(step):
        ticks = itertools.count(0, step)
        return lambda: next(ticks)

    (warning,) = estimate(plan(where), clock=clock(60)).warnings
    assert warning.startswith("the machine is slow or busy: only 8 of 32 pictures of a batch of tmc were")
    assert "Warning" in estimate(plan(where), clock=clock(60)).table()
    quick = estimate(plan(where), clock=clock(0.01))
    assert quick.warnings == ()
    assert "Warning" not in quick.table()
    # Every measurement takes one tick: 92 crops, 91 of them read, 2 batches of 32 pictures.
    assert quick.measured["crops"] == 92
    assert quick.seconds["isolation"] == pytest.approx(92 * (0.01 / 91 + 0.01 / 92))
    assert quick.stages[0].seconds["fit"] == pytest.approx(3 * 0.01 / 2)
    # Cut again by what was learned: one more look at all crops before every round but the first.
    again = estimate(plan(where, "tmc.isolate=true", "tmc.isolate_every=1"), clock=clock(0.01))
    rounds = quick.stages[0].rounds
    assert again.seconds["isolation"] == pytest.approx(rounds * quick.seconds["isolation"])


def test_features_by_onnxruntime_are_measured_apart_from_what_makes_it_ready(where):
    optional.has("onnxruntime")
    optional.has("onnx")

    def ticks():
        count = itertools.count(0, 0.01)
        return lambda: next(count)

    usual = estimate(plan(where), clock=ticks())
    asked = estimate(plan(where, "train.features=onnxruntime"), clock=ticks())
    assert usual.stages[0].seconds["extract"] == pytest.approx(62 * 0.01 / 92)
    assert asked.stages[0].seconds["extract"] == pytest.approx(0.01 + 62 * 0.01 / 92)
    assert asked.seconds["isolation"] == usual.seconds["isolation"]


def test_several_processes_share_a_batch(where, found, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    shared = estimate(plan(where))
    assert shared.run["n_processes"] == 3
    assert shared.stages[0].pictures == found.stages[0].pictures
    # 16 tracklets: the first process has 6.
    ratio = shared.stages[0].memory["activations"] / found.stages[0].memory["activations"]
    assert ratio == pytest.approx(6 / 16, rel=0.02)


def test_weights_with_norms_of_their_own_start_at_once(where, tmp_path):
    network = backbone.build(plan(where).network, seed=0)
    weight_store.save(tmp_path / "w.safetensors", network.arrays(), network.metadata())
    found = estimate(plan(where, "train.precision=bfloat16", weights=str(tmp_path / "w.safetensors")))
    assert found.seconds["start"] == 0
    assert found.run["precision"] == "bfloat16"


def test_what_it_knows_of_others_is_still_so(monkeypatch, where):
    counted = []
    monkeypatch.setattr(
        Network, "calibrate", lambda self, batches, *, neck: counted.append(sum(map(len, batches)))
    )
    tracklets = open_set(where).tracklets
    many = dataclasses.replace(
        tracklets,
        **{
            name: np.zeros((2000, *getattr(tracklets, name).shape[1:]))
            for name in ("tracklet", "frame", "time", "box", "score", "crop")
        },
    )
    planning.starting_networks(plan(where), open_set(where).crops(64, 32), many)
    assert counted == [module._CALIBRATED]


def test_a_set_that_cannot_be_trained_on_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has 1 tracklet\(s\), training needs at least 2"):
        estimate(plan(write(tmp_path / "one", [5])))
    with pytest.raises(FileNotFoundError, match="no such tracklet set"):
        estimate(plan(tmp_path / "none"))
