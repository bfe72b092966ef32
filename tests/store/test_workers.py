"""Engines: in order, in processes, on Ray: the same outcomes, whatever happens to a worker."""

import ipaddress
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from tests.optional import has, needs
from tests.store.worker_tasks import (
    Dies,
    Environment,
    InStages,
    OnTheWay,
    Pid,
    Raises,
    Square,
    Threads,
    Unmade,
    Waits,
)

from tracklearn.store.workers.chosen import engine_of
from tracklearn.store.workers.engine import InOrder, Overall, Paced
from tracklearn.store.workers.processes import Processes
from tracklearn.types import Refusal

TOKEN_BEFORE = (Path.home() / ".ray" / "auth_token").exists()  # of somebody who uses Ray
TEN = [Square(n) for n in range(10)]


@pytest.fixture(scope="module")
def cluster():
    """One Ray cluster of two workers for all tests here: starting one takes seconds."""
    has("ray")
    from tracklearn.store.workers.ray import OnRay

    engine = OnRay(workers=2)
    with engine._cluster():
        yield engine


# Ray gives a node thirty seconds to start, which a busy machine may not keep: not in the default run.
@pytest.fixture(params=["processes", pytest.param("ray", marks=pytest.mark.slow)])
def engine(request):
    return Processes(2) if request.param == "processes" else request.getfixturevalue("cluster")


def outcomes(engine, tasks, **options):
    return {outcome.number: outcome for outcome in engine.run(tasks, "work", **options)}


def test_what_is_asked_for():
    assert isinstance(engine_of(), InOrder)
    assert engine_of(workers=3).workers == 3
    for on, workers, message in (
        (None, 0, "workers is 0, expected at least 1"),
        ("dask", 2, r"--on 'dask' is unknown: write ray \(a cluster on this machine\) or ray:ADDRESS"),
    ):
        with pytest.raises(Refusal, match=message):
            engine_of(on, workers)


def test_without_ray_it_says_how_to_have_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(Refusal, match=r'^Ray is not installed: pip install "tracklearn\[ray\]"$'):
        engine_of("ray")


def test_every_engine_returns_the_same(engine):
    found = outcomes(engine, TEN)
    assert {n: outcome.value for n, outcome in found.items()} == {n: n * n for n in range(10)}
    assert {n: o.value for n, o in outcomes(InOrder(), TEN).items()} == {n: n * n for n in range(10)}
    assert outcomes(engine, []) == {}


def test_progress_is_one_account_of_all_that_ends_at_its_sum(engine):
    seen = []
    outcomes(engine, TEN, progress=lambda *told: seen.append(told))
    assert {name for name, _, _ in seen} == {"work"}
    assert all(total is None or done < total for _, done, total in seen[:-1])
    assert seen[-1] == ("work", 45, 45)


def test_a_worker_that_dies_once_loses_nothing_and_doubles_nothing(engine, tmp_path):
    found = outcomes(engine, [*TEN, Dies(tmp_path / "mark"), *TEN])
    assert found[10].value == "alive"
    assert [found[n].value for n in range(21) if n != 10] == 2 * [n * n for n in range(10)]


def test_a_task_that_kills_its_workers_is_given_up_and_the_rest_is_whole(engine, tmp_path):
    found = outcomes(engine, [Dies(), *TEN])
    assert found[0].value is None
    assert found[0].lost
    assert [found[n].value for n in range(1, 11)] == [n * n for n in range(10)]


def test_stages_are_one_task_each_and_a_worker_serves_many(engine):
    seen = []
    found = outcomes(engine, [InStages(n) for n in range(8)], progress=lambda *told: seen.append(told))
    assert {n: outcome.value["value"] for n, outcome in found.items()} == {n: n * n for n in range(8)}
    assert all(outcome.value["reader"] == outcome.value["worker"] for outcome in found.values())
    assert len({outcome.value["worker"] for outcome in found.values()}) <= 2
    if not isinstance(engine, Processes):
        assert seen[-1] == ("work", 40, 40)


def test_stages_that_kill_their_workers_are_given_up_and_the_rest_is_whole(engine, tmp_path):
    tasks = [InStages(0, Dies()), InStages(1, Dies(tmp_path / "mark")), InStages(2, Raises("memory"))]
    found = outcomes(engine, [*tasks, *(InStages(n) for n in range(3, 9))])
    assert found[0].lost
    assert found[2].lost == "out of memory (a picture of 9 GB)"
    assert {n: found[n].value["value"] for n in (1, *range(3, 9))} == {n: n * n for n in (1, *range(3, 9))}
    with pytest.raises(Refusal, match=r"^no such film: mend it"):
        outcomes(engine, [InStages(0, Raises("refusal")), *(InStages(n) for n in range(3))])


@pytest.mark.slow
def test_a_worker_that_dies_while_its_answer_is_packed_is_counted_too(cluster):
    found = outcomes(cluster, [OnTheWay("packed"), *(InStages(n) for n in range(4))])
    assert found[0].lost
    assert [found[n].value["value"] for n in range(1, 5)] == [0, 1, 4, 9]


@pytest.mark.slow
def test_what_is_not_wanted_any_more_ends(cluster):
    """Of two hundred tasks one is taken: the workers of all others are given back."""
    ray = needs("ray")
    found = cluster.run([InStages(n) for n in range(200)], "work")
    assert next(found).value["value"] is not None
    found.close()
    while ray.available_resources().get("CPU") != 2:  # else the test's time ends it
        time.sleep(0.05)


def test_how_a_process_ended_is_said():
    found = outcomes(Processes(2), [Dies(), Dies(with_signal=signal.SIGSEGV), *TEN])
    assert found[0].lost == "it was killed, as the system does when memory is short"
    assert found[1].lost == f"it crashed with signal {int(signal.SIGSEGV)}"


def test_a_task_without_memory_is_given_up_as_one_that_was_killed_for_it(engine):
    found = outcomes(engine, [Raises("memory"), *TEN])
    assert found[0].lost == "out of memory (a picture of 9 GB)"
    assert len(found) == 11


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        ("refusal", Refusal, "^no such film: mend it"),
        ("disk", OSError, "the disk is full"),
        ("odd", RuntimeError, "^Odd: one and two"),
    ],
)
def test_an_error_is_raised_here_with_where_it_arose(engine, error, kind, message):
    with pytest.raises(kind, match=message) as caught:
        outcomes(engine, [Raises(error)])
    assert "worker_tasks.py" in caught.value.__notes__[0]
    if error == "disk":
        assert (caught.value.errno, caught.value.filename) == (28, "set.partial/part-1")


def test_an_error_stops_those_that_still_run(tmp_path):
    said = tmp_path / "pid"
    with pytest.raises(Refusal, match="no such film"):
        outcomes(Processes(2), [Waits(said), Raises("refusal", after=said)])
    with pytest.raises(ProcessLookupError):
        os.kill(int(said.read_text()), 0)


def test_a_task_that_cannot_be_unpacked_is_an_error_and_no_lost_worker():
    with pytest.raises(ImportError, match="no module named gone"):
        outcomes(Processes(2), [Unmade(), *TEN])


def test_processes_are_used_again_and_are_not_this_one():
    found = {outcome.value for outcome in outcomes(Processes(1), [Pid()] * 5).values()}
    assert len(found) == 1
    assert found != {os.getpid()}
    assert len({o.value for o in outcomes(Processes(3), [Pid()] * 2).values()}) <= 2


def test_processes_share_the_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("tracklearn.core.threads.n_threads", lambda: 8)
    assert outcomes(Processes(2), [Threads()] * 4)[0].value == ("4", "4")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert outcomes(Processes(1), [Threads()])[0].value[0] == "3"


def test_a_process_that_cannot_start_is_no_fault_of_a_task(monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import os\nos._exit(7)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Refusal, match=r"a worker process cannot start \(it ended with exit code 7\)"):
        outcomes(Processes(2), TEN)


def test_the_account_of_all_guesses_what_is_to_come():
    seen = []
    overall = Overall("work", 4, lambda *told: seen.append(told))
    overall.at(0, 10, 100)
    overall.at(1, 5, 50)
    overall.at(1, 0, 0)  # its worker died
    overall.at(2, 1, None)
    overall.at(2, 1, 10)
    overall.over(0)
    overall.close()
    assert seen == [
        ("work", 10, 400),
        ("work", 15, 300),
        ("work", 10, 200),
        ("work", 11, None),
        ("work", 11, 146),
        ("work", 11, 26),
        ("work", 11, 11),
    ]


def test_a_worker_tells_a_few_times_a_second_and_at_the_end(monkeypatch):
    now = iter([0.0, 0.1, 0.3, 0.3])
    monkeypatch.setattr("tracklearn.store.workers.engine.time.monotonic", lambda: next(now))
    seen = []
    paced = Paced(lambda *told: seen.append(told))
    for done in range(1, 5):
        paced("film", done, 4)
    assert seen == [(1, 4), (3, 4), (4, 4)]


@pytest.mark.slow
def test_a_worker_of_ray_reports_nothing_and_is_heard_on_this_machine_alone(cluster):
    """Every socket that a process of the cluster listens at has a loopback address; there is no dashboard."""
    ray = needs("ray")
    names = ("RAY_USAGE_STATS_ENABLED", "DO_NOT_TRACK")
    assert [outcomes(cluster, [Environment(name)])[0].value for name in names] == ["0", "1"]
    assert not needs("ray._common.usage.usage_lib").usage_stats_enabled()
    assert not ray._private.worker._global_node.webui_url
    addresses = listening(of_session(ray._private.worker._global_node.get_session_dir_path()))
    assert addresses
    assert {a for a in addresses if not loopback(a)} == set()
    assert not (Path.home() / ".ray" / "auth_token").exists() or TOKEN_BEFORE


def loopback(address):
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def of_session(folder):
    """Processes that belong to a Ray cluster, and this one."""
    found = {os.getpid()}
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read()
            with open(f"/proc/{pid}/status", "rb") as file:
                status = file.read()
        except OSError:
            continue  # it has ended
        if os.fsencode(folder) in words or b"ray::" in words or b"\nPPid:\t%d\n" % os.getpid() in status:
            found.add(int(pid))
    return found


def listening(pids):
    """The addresses at which these processes take connections."""
    sockets = set()
    for pid in pids:
        folder = f"/proc/{pid}/fd"
        try:
            sockets |= {os.readlink(f"{folder}/{entry}") for entry in os.listdir(folder)}
        except OSError:
            continue
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(table) as file:
            rows = [line.split() for line in file.readlines()[1:]]
        for row in rows:
            if row[3] == "0A" and f"socket:[{row[9]}]" in sockets:
                words = bytes.fromhex(row[1].partition(":")[0])
                turned = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
                found.append(ipaddress.ip_address(turned))
    return found
