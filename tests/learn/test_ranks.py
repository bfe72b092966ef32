"""Several processes are one process with the whole batch.

Starting a process takes seconds, mostly of importing torch. So three are started once, for this whole file:
first they work as three, then two of them as two, and each leaves what it found in a file.
"""

import copy
import dataclasses
import json
import multiprocessing
import os
import pickle
import socket
import time
import traceback

import numpy as np
import pytest
import torch
from torch import nn

from tracklearn.learn import fit, losses, norm, train
from tracklearn.learn.augment import Augment
from tracklearn.learn.heads import classifier
from tracklearn.learn.methods import cap, tmc
from tracklearn.learn.ranks import Ranks, joined, launched
from tracklearn.types import ArrayCrops

pytestmark = pytest.mark.long

# Seconds after which processes that have not ended are killed; they need about 15 on a core of their own.
LIMIT = 200

EVERY_BATCH = train.Config(checkpoint_every=1)


def method(**settings):
    """Batches of 8 tracklets; batch-norm groups of 4, of which two processes have one each."""
    chosen = {
        "isolate": True,
        "eps_intra": "auto",
        "epochs": 3,
        "iterations": 3,
        "clusters_per_batch": 4,
        "tracklets_per_cluster": 2,
        "frames_train": 2,
        "frames_cluster": 3,
        "samples_per_bn": 4,
        "alpha": 0.8,
        "learning_rate": 1e-3,
        "augment": Augment(pad=3, erase=0.3, colour=0.05),
        "k1": 10,
        "k2": 3,
        "min_samples": 2,
    }
    return tmc.method(tmc.Config(**{**chosen, **settings}))


def with_stage(method, networks=1, **changes):
    stage = dataclasses.replace(method.stages[0], **changes)
    return dataclasses.replace(method, stages=(stage,), networks=networks)


def in_own_type(network, inputs):
    """Before a network: pixels come in float32."""
    return inputs[0].to(network.neck.weight.dtype)


def wide_classifier(features, labels):
    return classifier(features, labels).double()


def crossing(students, teachers, target):
    out = {}
    for name, a, b in (("a", 0, 1), ("b", 1, 0)):
        out[f"id_{name}"] = losses.identity(students[a].logits, target.label)
        out[f"sid_{name}"] = losses.soft_identity(students[a].logits, teachers[b].logits)
    return out


def two_students():
    weights = {"id_a": 0.5, "id_b": 0.5, "sid_a": 0.5, "sid_b": 0.5}
    return with_stage(method(epochs=2), 2, objective=crossing, weights=weights, head=wide_classifier)


def proxies():
    """A memory that every process moves by the whole batch."""
    settings = {
        "epochs": 3,
        "iterations": 3,
        "proxies_per_batch": 4,
        "tracklets_per_proxy": 2,
        "inter_from": 1,
    }
    small = {"samples_per_bn": 4, "k1": 10, "k2": 3, "min_samples": 2, "eps": "auto", "frames_cluster": 3}
    cut = {"isolate": True, "eps_intra": "auto", "learning_rate": 1e-3, "warm_up": 0, "alpha": 0.8}
    return cap.method(cap.Config(**cut, **settings, **small))


# name -> (method, whether the networks compute in float64)
RUNS = {
    "float32": (method, False),
    "float64": (lambda: with_stage(method(), head=wide_classifier), True),
    "two students": (two_students, True),
    "proxies": (proxies, False),
}


def run(world, chosen, ranks=None, *, wide=False, **options):
    tracklets, crops, networks = world
    networks = [copy.deepcopy(n).double() if wide else n for n in networks[: chosen.networks]]
    return list(train.train(chosen, networks, tracklets, crops, seed=3, ranks=ranks, **options))


def answer(world, ranks, name, **options):
    make, wide = RUNS[name]
    return run(world, make(), ranks, wide=wide, **options)


def said(world, chosen, ranks):
    try:
        run(world, chosen, ranks)
    except train.TrainingStopped as error:
        return str(error)
    return None


def through_a_file(state):
    arrays = {name: np.ascontiguousarray(value).copy() for name, value in sorted(state.arrays.items())}
    return train.State(arrays, json.loads(json.dumps(state.meta, allow_nan=False)))


# ---- what the started processes do


def in_process(rank, ports, folder, world):
    """Everything that several processes are asked; leaves a dictionary of answers in `folder`."""
    try:
        torch.set_num_threads(1)
        answers = {}
        for size in (3, 2):
            if rank < size:
                os.environ |= {
                    "RANK": str(rank),
                    "WORLD_SIZE": str(size),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(ports[size]),
                }
                with joined("cpu") as (ranks, device):
                    assert (ranks, device) == (Ranks(rank, size), "cpu")
                    answers[size] = {
                        "parts": parts(ranks),
                        **(of_three if size == 3 else of_two)(ranks, world),
                    }
        (folder / f"{rank}.pickle").write_bytes(pickle.dumps(answers))
    except BaseException:
        (folder / f"{rank}.error").write_text(traceback.format_exc())
        raise


def parts(ranks):
    """What `Ranks` does, on numbers that tell ranks and rows apart."""
    out = {}
    for n in (8, 2):  # of two rows a third process has none
        rows = np.arange(n * 3, dtype=np.float32).reshape(n, 3)
        own = rows[ranks.share(n)]
        local = torch.tensor(own, requires_grad=True)
        whole = ranks.gather(2 * local, n)
        (whole * torch.tensor(rows + 1)).sum().backward()
        plain = ranks.gather(torch.tensor(own[:, 0]).to(torch.int64), n)
        out[n] = {
            "gathered": whole.detach().numpy(),
            "gradient": local.grad.numpy(),
            "plain": (plain.numpy(), plain.requires_grad),
            "collected": ranks.collect(own, n),
            "strided": ranks.collect(np.asfortranarray(own), n),
            "everywhere": ranks.collect_everywhere(own, n),
            "of integers": ranks.collect_everywhere(own[:, 0].astype(np.int64), n),
        }
    out["first"] = ranks.from_first({"rank": ranks.rank, "array": np.full(2, ranks.rank)})
    layers = [nn.Linear(2, 3), nn.Conv2d(2, 2, 3).to(memory_format=torch.channels_last), nn.Linear(1, 1)]
    for layer in layers[:2]:
        for p in layer.parameters():
            p.grad = torch.arange(float(p.numel())).view_as(p).contiguous() * 10**ranks.rank
    layers[1].weight.grad = layers[1].weight.grad.to(memory_format=torch.channels_last)
    ranks.sum_gradients(p for layer in layers for p in layer.parameters())
    out["gradients"] = [None if p.grad is None else p.grad.numpy() for m in layers for p in m.parameters()]
    norms = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(1))
    norms[0].running_mean += torch.tensor([1.0, 2.0]) * ranks.rank
    norms[1].running_var *= 4.0**ranks.rank
    norms[1].num_batches_tracked += 7
    ranks.mean_statistics([norms, nn.Linear(1, 1)])
    ranks.mean_statistics([nn.Linear(1, 1)])
    out["statistics"] = {name: b.numpy() for name, b in norms.named_buffers()}
    return out


def of_three(ranks, world):
    """8 tracklets of a batch are shares of 3, 3 and 2; 20 of the set are 7, 7 and 6."""
    tracklets, crops, networks = world
    blank = tracklets, ArrayCrops(np.full_like(crops.images, 77)), networks
    few = {"clusters_per_batch": 2, "samples_per_bn": 2}
    return {
        "runs": {"float64": answer(world, ranks, "float64")},
        "too many": said(world, method(**few, frames_train=1), ranks),
        "enough": said(world, method(**few, frames_train=2, epochs=1), ranks),
        "one cluster": said(blank, method(isolate=False), ranks),
        "diverged": said(world, method(learning_rate=1e30), ranks),
    }


def of_two(ranks, world):
    runs = {name: answer(world, ranks, name) for name in RUNS}
    whole = run(world, method(), ranks, config=EVERY_BATCH)
    rests = {
        i: run(world, method(), ranks, config=EVERY_BATCH, resume=through_a_file(state))
        for i, state in enumerate(whole)
        if isinstance(state, train.State)
    }
    often = answer(world, ranks, "float64", config=EVERY_BATCH)
    return {"runs": runs, "whole": whole, "rests": rests, "often": often}


# ---- what is made of their answers


@pytest.fixture(scope="module")
def world(people, small):
    tracklets, crops, _ = people(n_people=5, n_frames=4, mixed=True)
    networks = [small(crops), small(crops, seed=9)]
    for network in networks:
        grouped = norm.BatchNorm2d(16)
        grouped.load_state_dict(network.bn.state_dict())
        network.bn = grouped
        network.register_forward_pre_hook(in_own_type)
    return tracklets, crops, networks


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def answers(world, tmp_path_factory):
    """What each of three processes answered, by the number of those that worked together."""
    folder = tmp_path_factory.mktemp("ranks")
    ports = {size: free_port() for size in (3, 2)}
    context = multiprocessing.get_context("spawn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        started = [
            context.Process(target=in_process, args=(r, ports, folder, world), daemon=True) for r in range(3)
        ]
        for process in started:
            process.start()
    end = time.monotonic() + LIMIT
    try:
        # One that failed leaves the others waiting for it.
        while any(p.is_alive() for p in started) and not any(p.exitcode for p in started):
            assert time.monotonic() < end, f"processes hang: {[p.exitcode for p in started]}"
            time.sleep(0.05)
    finally:
        for process in started:
            process.kill()
            process.join()
    errors = [f.read_text() for f in sorted(folder.glob("*.error"))]
    assert not errors, "\n".join(errors)
    assert [p.exitcode for p in started] == [0, 0, 0]
    return [pickle.loads((folder / f"{r}.pickle").read_bytes()) for r in range(3)]


def of(answers, size, *keys):
    """The answer to one question from each of the processes."""
    out = [answer[size] for answer in answers[:size]]
    for key in keys:
        out = [answer[key] for answer in out]
    return out


def rounds(events):
    """The finished rounds without their times."""
    out = [dataclasses.asdict(e) for e in events if isinstance(e, train.Round)]
    for event in out:
        del event["seconds"]
        event["losses"] = list(event["losses"].items())  # their order is the objective's
    return out


def same_arrays(got, want):
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name].dtype == value.dtype, name
        assert got[name].tobytes() == value.tobytes(), name


SIZES_AND_ROWS = [(size, n) for size in (3, 2) for n in (8, 2)]


@pytest.mark.parametrize(("size", "n"), SIZES_AND_ROWS)
def test_gather_and_its_gradient_by_hand(answers, size, n):
    rows = np.arange(n * 3).reshape(n, 3)
    for rank, got in enumerate(of(answers, size, "parts", n)):
        np.testing.assert_array_equal(got["gathered"], 2 * rows)
        # Of Σ (row + 1)·2·own: no more than 2·(row + 1), although every process computes the whole sum.
        np.testing.assert_array_equal(got["gradient"], 2 * (rows + 1)[Ranks(rank, size).share(n)])
        values, has_gradient = got["plain"]
        assert values.tolist() == rows[:, 0].tolist()
        assert not has_gradient


@pytest.mark.parametrize(("size", "n"), SIZES_AND_ROWS)
def test_collect_by_hand(answers, size, n):
    rows = np.arange(n * 3, dtype=np.float32).reshape(n, 3)
    for rank, got in enumerate(of(answers, size, "parts", n)):
        for name in ("collected", "strided"):
            assert got[name].dtype == np.float32
            np.testing.assert_array_equal(got[name], rows if rank == 0 else rows[:0])
        np.testing.assert_array_equal(got["everywhere"], rows)
        assert got["everywhere"].dtype == np.float32
        assert got["of integers"].tolist() == rows[:, 0].tolist()
        assert got["of integers"].dtype == np.int64


@pytest.mark.parametrize("size", [3, 2])
def test_value_of_the_first_gradients_and_statistics_by_hand(answers, size):
    for got in of(answers, size, "parts"):
        assert got["first"]["rank"] == 0
        assert got["first"]["array"].tolist() == [0, 0]
        times = {3: 111, 2: 11}[size]
        shapes = [(3, 2), (3,), (2, 2, 3, 3), (2,)]
        for gradient, shape in zip(got["gradients"][:4], shapes, strict=True):
            np.testing.assert_array_equal(gradient, times * np.arange(np.prod(shape)).reshape(shape))
        assert got["gradients"][4:] == [None, None]
        statistics = got["statistics"]
        np.testing.assert_allclose(statistics["0.running_mean"], {3: [1, 2], 2: [0.5, 1]}[size])
        np.testing.assert_allclose(statistics["1.running_var"], {3: [7], 2: [2.5]}[size])
        assert statistics["0.running_var"].tolist() == [1, 1]
        assert statistics["1.running_mean"].tolist() == [0]
        assert statistics["1.num_batches_tracked"] == 7


# Found: losses 2e-7 and arrays 4e-7 apart in float32; the same losses and arrays 3e-16 apart in float64.
ROUNDING = {"float32": 1e-5, "float64": 1e-9, "two students": 1e-9, "proxies": 1e-4}

SIZES_AND_RUNS = [(3, "float64"), *((2, name) for name in RUNS)]


@pytest.mark.parametrize(("size", "name"), SIZES_AND_RUNS)
def test_several_processes_are_one_with_the_whole_batch(answers, world, monkeypatch, size, name):
    if size == 3:  # alone, 8 tracklets would be two groups of 4
        monkeypatch.setattr(fit, "bn_group", lambda *_: 3)
    want = answer(world, Ranks(), name)
    rounding = ROUNDING[name]
    for rank, got in enumerate(of(answers, size, "runs", name)):
        assert [type(e) for e in got] == [type(e) for e in want]
        prepared = got[0]
        np.testing.assert_array_equal(prepared.part, want[0].part)
        assert prepared.n_after == want[0].n_after > prepared.n_before
        if rank == 0:
            np.testing.assert_allclose(prepared.features, want[0].features, atol=1e-6)
        else:
            assert prepared.features.shape == (0, 32)
            assert prepared.similarity.shape == (0,)
        for one, other in zip(rounds(got), rounds(want), strict=True):
            for key in ("label", "weight", "space"):
                np.testing.assert_array_equal(one["labels"][key], other["labels"][key])
            assert dict(one["losses"]) == pytest.approx(dict(other["losses"]), rel=rounding)
            assert one["accuracy"] == pytest.approx(other["accuracy"], abs=1e-6)
            assert one["eps"] == pytest.approx(other["eps"], rel=1e-5)
            for key in ("index", "stage", "n_iterations", "n_clusters", "agreement"):
                np.testing.assert_equal(one[key], other[key])
        for one, other in zip(got, want, strict=True):
            if isinstance(one, train.State):
                assert one.meta == other.meta
                assert one.arrays.keys() == other.arrays.keys()
                for key, value in one.arrays.items():
                    np.testing.assert_allclose(
                        value, other.arrays[key], rtol=rounding, atol=rounding, err_msg=key
                    )
        # Something was learned, the running statistics of both networks included.
        for key in ("student.conv.weight", "teacher.bn.running_mean", "student.neck.running_var"):
            assert abs(got[-1].arrays[key] - got[1].arrays[key]).max() > 1e-3, key


@pytest.mark.parametrize(("size", "name"), SIZES_AND_RUNS)
def test_every_process_gets_the_same_events(answers, size, name):
    first, *others = of(answers, size, "runs", name)
    for other in others:
        np.testing.assert_equal(rounds(other), rounds(first))
        for one, another in zip(first, other, strict=True):
            assert type(one) is type(another)
            if isinstance(one, train.State):
                same_arrays(another.arrays, one.arrays)
                assert another.meta == one.meta


def test_going_on_from_every_state_of_two_processes_is_bit_identical(answers):
    for whole, rests in zip(of(answers, 2, "whole"), of(answers, 2, "rests"), strict=True):
        assert len(rests) == 10
        assert sum("fit" in whole[i].meta for i in rests) == 6
        for i, rest in rests.items():
            assert [type(e) for e in rest] == [type(e) for e in whole[i + 1 :]]
            np.testing.assert_equal(rounds(rest), rounds(whole[i + 1 :]))
            if rest:
                same_arrays(rest[-1].arrays, whole[-1].arrays)
                assert rest[-1].meta == whole[-1].meta


def test_when_statistics_are_averaged_matters_to_rounding_only(answers):
    seldom, often = of(answers, 2, "runs", "float64")[0], of(answers, 2, "often")[0]
    for key, value in seldom[-1].arrays.items():
        np.testing.assert_allclose(often[-1].arrays[key], value, rtol=1e-12, atol=1e-12, err_msg=key)


def test_stops_are_the_same_in_every_process(answers):
    too_many = "batches of 4 tracklets leave 3 processes less than two pictures each: start fewer"
    assert of(answers, 3, "too many") == [too_many] * 3
    assert of(answers, 3, "enough") == [None] * 3
    assert len(set(of(answers, 3, "one cluster"))) == 1
    assert "epoch 1: 20 tracklets gave" in answers[0][3]["one cluster"]
    assert len(set(of(answers, 3, "diverged"))) == 1
    assert "lower the learning rate" in answers[0][3]["diverged"]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [0, 1, 4, 5, 20, 23])
def test_shares_cover_all_rows_once_and_differ_by_one_at_most(size, n):
    shares = [Ranks(rank, size).share(n) for rank in range(size)]
    assert np.concatenate([np.arange(n)[s] for s in shares]).tolist() == list(range(n))
    lengths = [s.stop - s.start for s in shares]
    assert max(lengths) - min(lengths) <= 1
    assert [Ranks(0, size).share(n, rank) for rank in range(size)] == shares


@pytest.mark.parametrize(("n", "samples_per_bn", "size"), [(8, 4, 2), (64, 16, 4), (64, 16, 2), (12, 3, 2)])
def test_groups_that_divide_the_shares_are_those_of_one_process(n, samples_per_bn, size):
    group = fit.bn_group(n, samples_per_bn, size)
    assert group == fit.bn_group(n, samples_per_bn) == samples_per_bn
    apart = [
        g
        for r in range(size)
        for s in [Ranks(r, size).share(n)]
        for g in norm.chunk_sizes(s.stop - s.start, group)
    ]
    assert apart == norm.chunk_sizes(n, group)


def test_alone_nothing_is_set_up(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert launched() == 1
    for device in ("cpu", "cuda", "cuda:1"):
        with joined(device) as alone:
            assert alone == (Ranks(), device)
            assert not torch.distributed.is_initialized()
    ranks, value, layer = Ranks(), np.ones((2, 3)), nn.Linear(1, 1)
    tensor = torch.ones(2, 3)
    assert ranks.gather(tensor, 2) is tensor
    assert ranks.collect(value, 2) is ranks.collect_everywhere(value, 2) is ranks.from_first(value) is value
    layer.weight.grad = torch.ones(1, 1)
    ranks.sum_gradients(layer.parameters())
    assert layer.weight.grad.tolist() == [[1]]
    norm = nn.BatchNorm1d(1)
    ranks.mean_statistics([norm])
    assert norm.running_var.tolist() == [1]


def test_devices_that_processes_would_share_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launched() == 2
    with pytest.raises(ValueError, match="--device cuda:1 with 2 processes: say cuda"), joined("cuda:1"):
        pass
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="process 2 of this machine has none of its 1 CUDA"), joined("cuda"):
        pass
    assert not torch.distributed.is_initialized()
