"""Going on from any state, also inside an epoch, is as if nothing had happened: to the bit."""

import copy
import dataclasses
import json
import threading

import numpy as np
import pytest
import torch

from tracklearn.learn import embed, losses, train
from tracklearn.learn.augment import Augment
from tracklearn.learn.heads import classifier
from tracklearn.learn.method import Assignment
from tracklearn.learn.methods import tmc
from tracklearn.types import PseudoLabels

EVERY_BATCH = train.Config(checkpoint_every=1)


@pytest.fixture(scope="module")
def mixed(people, small):
    """Tracklets that isolation cuts, their crops, and two networks."""
    tracklets, crops, _ = people(n_people=5, n_frames=4, mixed=True)
    return tracklets, crops, [small(crops), small(crops, seed=9)]


def base(**settings):
    chosen = {
        "isolate": False,
        "epochs": 2,
        "iterations": 3,
        "clusters_per_batch": 4,
        "tracklets_per_cluster": 2,
        "frames_train": 2,
        "frames_cluster": 3,
        "alpha": 0.8,
        "learning_rate": 1e-3,
        "augment": Augment(pad=3, erase=0.3, colour=0.05),
        "k1": 10,
        "k2": 3,
        "min_samples": 2,
    }
    return tmc.method(tmc.Config(**{**chosen, **settings}))


def with_stages(method, *stages, networks=1):
    return dataclasses.replace(method, stages=stages, networks=networks)


def sgd(student, head):
    """Two optimisers: one with momentum, one for the head that never remembers anything."""
    body = [p for p in student.parameters() if p.requires_grad]
    return [torch.optim.SGD(body, lr=1e-3, momentum=0.9), torch.optim.SGD(head.parameters(), lr=1e-2)]


def kept_for_two_rounds():
    """Four epochs in two assignments, then another stage; the arrays of each assignment are seen in training.

    Returns the method and the list that every call of `assign` adds to.
    """
    asked = []
    method = base()
    first = method.stages[0]

    def assign(features, tracklets, memory):
        asked.append(features.copy())
        rounds = memory.get("rounds", np.zeros(1, np.int64)) + 1
        weight = np.linspace(0.5, 1.5, len(tracklets)).astype(np.float32)
        labels = PseudoLabels(np.arange(len(tracklets)) // 4, weight, tracklets.camid)
        return Assignment(labels, memory={"rounds": rounds}, aux={"share": rounds / 4}, diagnosis=("said",))

    def objective(students, teachers, target):
        return {"id": target.aux["share"] * losses.identity(students[0].logits, target.label)}

    stage = dataclasses.replace(
        first, name="kept", rounds=4, assign=assign, objective=objective, weights={"id": 1.0}, assign_every=2
    )
    last = dataclasses.replace(first, rounds=1, assign=assign)
    return with_stages(method, stage, last), asked


def crossing(students, teachers, target):
    out = {}
    for name, a, b in (("a", 0, 1), ("b", 1, 0)):
        out[f"id_{name}"] = losses.identity(students[a].logits, target.label)
        out[f"sid_{name}"] = losses.soft_identity(students[a].logits, teachers[b].logits)
    return out


def two_students():
    method = base()
    weights = {"id_a": 0.5, "id_b": 0.5, "sid_a": 0.5, "sid_b": 0.5}
    stage = dataclasses.replace(method.stages[0], objective=crossing, weights=weights)
    return with_stages(method, stage, networks=2)


def with_momentum():
    method = base()
    return with_stages(method, dataclasses.replace(method.stages[0], optimise=sgd))


METHODS = {
    "isolated": lambda: base(isolate=True, eps_intra="auto"),
    "labels kept": lambda: kept_for_two_rounds()[0],
    "momentum": with_momentum,
    "two students": two_students,
}


def run(mixed, method, **options):
    tracklets, crops, networks = mixed
    options = {"config": EVERY_BATCH, **options}
    return list(train.train(method, networks[: method.networks], tracklets, crops, seed=3, **options))


def through_a_file(state):
    """What a file does to a state: JSON for plain values, arrays sorted by name, shape () becomes (1,)."""
    arrays = {name: np.ascontiguousarray(value).copy() for name, value in sorted(state.arrays.items())}
    return train.State(arrays, json.loads(json.dumps(state.meta, allow_nan=False)))


def same_arrays(got, want):
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name].dtype == value.dtype, name
        assert got[name].tobytes() == value.tobytes(), name


def rounds(events):
    """The finished rounds without their times."""
    out = [dataclasses.asdict(e) for e in events if isinstance(e, train.Round)]
    for event in out:
        del event["seconds"]
        event["losses"] = list(event["losses"].items())  # their order is the objective's
    return out


def states(events):
    return [e for e in events if isinstance(e, train.State)]


@pytest.mark.parametrize("name", METHODS)
def test_going_on_from_every_state_is_bit_identical(mixed, name):
    method = METHODS[name]()
    whole = run(mixed, method)
    n_rounds = sum(stage.rounds for stage in method.stages)
    # One after Prepared; in each round of three batches two inside it and one at its end.
    assert len(states(whole)) == 1 + 3 * n_rounds
    if name == "isolated":
        assert whole[0].n_after > whole[0].n_before
    for i, event in enumerate(whole):
        if not isinstance(event, train.State):
            continue
        rest = run(mixed, method, resume=through_a_file(event))
        assert [type(e) for e in rest] == [type(e) for e in whole[i + 1 :]]
        np.testing.assert_equal(rounds(rest), rounds(whole[i + 1 :]))
        for got, want in zip(states(rest), states(whole[i + 1 :]), strict=True):
            same_arrays(got.arrays, want.arrays)
            assert got.meta == want.meta


def test_going_on_inside_an_epoch_in_bfloat16_is_bit_identical(mixed):
    config = train.Config(checkpoint_every=1, precision="bfloat16")
    whole = run(mixed, base(), config=config)
    rest = run(mixed, base(), config=config, resume=through_a_file(states(whole)[2]))
    assert rounds(rest)[0] != rounds(run(mixed, base()))[0]
    same_arrays(rest[-1].arrays, whole[-1].arrays)


def test_states_inside_an_epoch_do_not_change_what_is_learned(mixed):
    method = base()
    fine, coarse = run(mixed, method), run(mixed, method, config=train.Config())
    two = run(mixed, method, config=train.Config(checkpoint_every=2))
    assert [len(states(e)) for e in (fine, coarse, two)] == [7, 3, 5]
    assert [s.meta["step"] for s in states(two)] == [0, 2, 3, 5, 6]
    for other in (coarse, two):
        np.testing.assert_equal(rounds(other), rounds(fine))
        same_arrays(other[-1].arrays, fine[-1].arrays)
        assert other[-1].meta == fine[-1].meta


def test_a_state_inside_an_epoch_holds_the_fit_and_one_between_epochs_does_not(mixed):
    for state in states(run(mixed, base())):
        inside = state.meta["step"] % 3 > 0
        assert ("fit" in state.meta) is inside
        assert any(name.startswith("fit.") for name in state.arrays) is inside
        if inside:
            assert state.meta["fit"]["iteration"] == state.meta["step"] % 3
            assert len(state.arrays["fit.plan.row"]) == 3
            step = state.arrays["fit.optimiser.0.0.step"]
            assert step == state.meta["step"] % 3


@pytest.mark.parametrize("name", METHODS)
def test_a_state_inside_an_epoch_is_a_snapshot(mixed, name):
    method = METHODS[name]()
    tracklets, crops, networks = mixed
    events = train.train(method, networks[: method.networks], tracklets, crops, config=EVERY_BATCH)
    state = next(e for e in events if isinstance(e, train.State) and "fit" in e.meta)
    arrays, meta = copy.deepcopy(state.arrays), copy.deepcopy(state.meta)
    assert len(list(events)) > 3
    same_arrays(state.arrays, arrays)
    assert state.meta == meta


def test_going_on_leaves_the_state_as_it_is(mixed):
    method = with_momentum()
    state = states(run(mixed, method))[2]
    arrays, meta = copy.deepcopy(state.arrays), copy.deepcopy(state.meta)
    once, again = run(mixed, method, resume=state), run(mixed, method, resume=state)
    same_arrays(state.arrays, arrays)
    assert state.meta == meta
    same_arrays(once[-1].arrays, again[-1].arrays)


def test_labels_that_stay_keep_head_and_optimiser_and_need_no_features(mixed, monkeypatch):
    method, asked = kept_for_two_rounds()
    extracted = []
    whole_extract = embed.extract
    monkeypatch.setattr(
        embed, "extract", lambda *a, **k: extracted.append(len(asked)) or whole_extract(*a, **k)
    )
    events = run(mixed, method)
    assert len(asked) == 3
    assert extracted == [0, 0, 1, 2]  # isolation, then before each assignment
    done = [e for e in events if isinstance(e, train.Round)]
    assert [e.stage for e in done] == ["kept"] * 4 + ["tmc"]
    assert [e.diagnosis for e in done] == [("said",), (), ("said",), (), ("said",)]
    assert [e.agreement for e in done][1:] == [1, 1, 1, 1]
    assert [e.seconds["extract"] > 0 for e in done] == [True, False, True, False, True]
    between = [s for s in states(events) if s.meta["step"] % 3 == 0]
    # After the first and the third round head and optimiser wait for the next; no batches are drawn yet.
    assert ["fit" in s.meta for s in between] == [False, True, False, True, False, False]
    for state in (between[1], between[3]):
        assert "fit.plan.row" not in state.arrays
        assert state.arrays["fit.optimiser.0.0.step"] == 3
    inside = next(s for s in states(events) if s.meta["step"] == 4)
    assert inside.arrays["fit.optimiser.0.0.step"] == 4
    assert (inside.arrays["fit.head.0.weight"] != between[1].arrays["fit.head.0.weight"]).any()
    later = [s for s in states(events) if s.meta["step"] == 7]
    assert later[0].arrays["fit.optimiser.0.0.step"] == 1
    assert inside.arrays["memory.rounds"] == 1
    assert inside.arrays["fit.aux.share"] == 0.25
    assert later[0].arrays["fit.aux.share"] == 0.5
    # Going on between the two rounds of an assignment asks for nothing again.
    del asked[:], extracted[:]
    run(mixed, method, resume=through_a_file(between[1]))
    assert (len(asked), extracted) == (2, [0, 1])


def test_what_an_optimiser_remembers_is_in_the_state(mixed):
    first, second = states(run(mixed, with_momentum()))[1:3]
    names = [name for name, p in mixed[2][0].named_parameters() if p.requires_grad]
    kept = {name for name in second.arrays if name.startswith("fit.optimiser.")}
    assert kept == {f"fit.optimiser.0.{i}.momentum_buffer" for i in range(len(names))}
    # student ← student − lr·v
    for i, name in enumerate(names):
        moved = train.student_arrays(first)[name] - train.student_arrays(second)[name]
        momentum = second.arrays[f"fit.optimiser.0.{i}.momentum_buffer"]
        np.testing.assert_allclose(1e-3 * momentum, moved, atol=2e-7, err_msg=name)


def test_a_state_of_another_head_is_refused(mixed):
    state = states(run(mixed, base()))[1]
    stage = base().stages[0]

    def larger(features, labels):
        return torch.nn.Sequential(classifier(features, labels))

    method = with_stages(base(), dataclasses.replace(stage, head=larger))
    with pytest.raises(ValueError, match="resume holds other weights than the network has"):
        run(mixed, method, resume=state)


def test_an_epoch_left_in_its_middle_stops_reading(mixed):
    """The thread that reads ahead ends with the iterator; the state held is good to go on from."""
    tracklets, crops, networks = mixed
    whole = run(mixed, base())
    events = train.train(base(), networks[0], tracklets, crops, seed=3, config=EVERY_BATCH)
    state = next(e for e in events if isinstance(e, train.State) and "fit" in e.meta)
    reading = [t for t in threading.enumerate() if t.name.startswith("crops")]
    assert reading
    events.close()
    assert not [t for t in reading if t.is_alive()]
    same_arrays(run(mixed, base(), resume=state)[-1].arrays, whole[-1].arrays)
