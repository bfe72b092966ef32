"""The examples run, and the paper on one page computes what the program computes."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from tests.app.made_files import put

import tracklearn as tl
from tracklearn.learn.methods import tmc
from tracklearn.learn.methods.named import method_module, method_of
from tracklearn.learn.train import Round, train

pytestmark = pytest.mark.long

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def crops_set(tmp_path_factory):
    """A set of twelve tracklets of four persons, in two cameras."""
    folder = tmp_path_factory.mktemp("examples")
    for camera in (1, 2):
        for person in range(4):
            for number in range(6):
                name = f"{person}_{number // 3}/{number}.jpg"
                put(folder / f"cam{camera}" / name, person, 10 * camera + number)
    sources = [f"cam{camera}={folder / f'cam{camera}'}" for camera in (1, 2)]
    return tl.ingest(sources, folder / "set")


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("setting", [{}, {"isolate": False, "iterations": "auto"}])
def test_the_paper_on_one_page_has_the_losses_of_train(people, small, mixed, setting):
    tracklets, crops, _ = people(mixed=mixed)
    values = {"epochs": 3, "iterations": 3, "frames_train": 2, "eps_intra": "auto", "clusters_per_batch": 4}
    config = tmc.Config(**values | setting)
    events = train(tmc.method(config), small(crops), tracklets, crops, seed=7)
    want = [event.losses for event in events if isinstance(event, Round)]
    got = list(example("tmc").train(small(crops), tracklets, crops, config, seed=7))
    assert len(got) == len(want) == 3
    for one, other in zip(got, want, strict=True):
        assert one == pytest.approx(other, abs=1e-5, rel=0)


def test_the_page_is_one_page():
    assert len((EXAMPLES / "tmc.py").read_text().splitlines()) <= 130


@pytest.mark.parametrize(
    ("name", "options", "last"),
    [("tmc", [], "epoch 2: id"), ("own_method", ["--out", "run"], "epoch 2:")],
)
def test_an_example_runs_as_its_text_says(crops_set, name, options, last, tmp_path):
    command = [
        sys.executable,
        EXAMPLES / f"{name}.py",
        crops_set,
        "--epochs",
        "2",
        "--iterations",
        "2",
        *options,
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(last)
    if name == "own_method":
        run = tl.open_run(tmp_path / "run")
        assert run.finished
        assert run.manifest["method"] == "prototypes"
        assert run.manifest["settings"]["temperature"] == 0.05


def test_a_method_is_found_by_its_settings_and_its_subclasses_too():
    own = example("own_method")
    assert method_of(own.Config()) == "prototypes"
    assert method_module("prototypes") is own

    class Mine(tmc.Config):
        pass

    assert method_of(Mine()) == "tmc"
    assert method_of(tl.uga.Config()) == "uga"
    assert method_of(tl.mmt.Config()) == "mmt"
    assert method_of(tl.msplr.Config()) == "msplr"
    assert method_of(tl.cap.Config()) == "cap"
    with pytest.raises(ValueError, match="belong to no method"):
        method_of({})
    with pytest.raises(ValueError, match="cannot be called 'tmc'"):
        tl.register("tmc", own)
    with pytest.raises(ValueError, match="Config of method 'other' is that of prototypes"):
        tl.register("other", own)
    with pytest.raises(ValueError, match="has no Config"):
        tl.register("nothing", object())
