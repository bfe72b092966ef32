"""The Python interface, and the settings that a person can see."""

import json
import re
import tomllib

import pytest

import tracklearn as tl
from tests.app.conftest import QUICK
from tracklearn.app.pipeline.plan import setting_models
from tracklearn.app.pipeline.presets import PRESETS
from tracklearn.store.config import resolve


@pytest.mark.long
def test_settings_of_every_method_by_name_and_by_type(sources, tmp_path):
    tracklets = tl.ingest(sources, tmp_path / "set")

    class Shorter(tl.tmc.Config):
        epochs: int = 1

    run = tl.fit(
        tracklets,
        Shorter(iterations=1, frames_train=2, eps_intra="auto"),
        out=tmp_path / "run",
        weights="none",
        device="cpu",
        preset="cpu",
    )
    assert run.finished
    assert (run.manifest["method"], len(run.rounds)) == ("tmc", 1)
    for module in (tl.tmc, tl.mmt, tl.uga, tl.msplr, tl.cap):
        assert module.method(module.Config()).stages


def test_training_is_checked_at_the_call(sources, tmp_path):
    tracklets = tl.ingest(sources, tmp_path / "set")
    (tmp_path / "taken").mkdir()
    with pytest.raises(FileExistsError, match="resume=True"):
        tl.train(tracklets, out=tmp_path / "taken", weights="none", device="cpu")
    with pytest.raises(FileNotFoundError):
        tl.train(tmp_path / "none", out=tmp_path / "run", weights="none", device="cpu")
    with pytest.raises(ValueError, match="epoch"):
        tl.train(tracklets, out=tmp_path / "run", weights="none", device="cpu", settings=["tmc.epoch=3"])
    with pytest.raises(ValueError, match=r"'tmc.epochs=3' and a config of tmc say the same"):
        tl.train(tracklets, tl.tmc.Config(), out=tmp_path / "run", settings=["tmc.epochs=3"])
    with pytest.raises(ValueError, match="belong to no method"):
        tl.train(tracklets, object(), out=tmp_path / "run", weights="none", device="cpu")
    assert not (tmp_path / "run").exists()


def test_every_setting_is_listed_with_its_meaning(call):
    code, out, _ = call("settings", "--json")
    assert code == 0
    found = {entry["key"]: entry for entry in json.loads(out.splitlines()[-1])}
    resolved = resolve(setting_models())
    for section, model in resolved.items():
        for name, value in model.model_dump(mode="json").items():
            if not isinstance(value, dict):
                assert found[f"{section}.{name}"]["default"] == value, name
    assert found["tmc.augment.flip"]["default"] == 0.5
    assert all(entry["description"] and entry["type"] for entry in found.values())
    assert found["tmc.eps_intra"]["presets"] == {"cpu": "auto", "gpu": "auto"}
    assert found["tmc.eps_intra"]["origin"].startswith("paper 4.3")
    assert found["tmc.clusters_per_batch"]["type"] == "whole number ≥ 2"
    assert found["network.last_stride"]["type"] == "1 | 2"


def test_a_settings_file_to_start_from_says_what_holds_anyway(call):
    for preset in (None, *PRESETS):
        code, out, _ = call("settings", "--toml", *(["--preset", preset] if preset else []))
        assert code == 0
        lines = re.findall(r"^(\[.*\])$|^# (\w+ = .*)$", out, re.MULTILINE)
        given = "\n".join(section or value for section, value in lines)
        given = tomllib.loads(re.sub(r".*# none\n", "", given))
        assert given["tmc"]["augment"]["flip"] == 0.5
        models = setting_models()
        want = resolve(models, preset=PRESETS.get(preset, {}))
        assert resolve(models, preset=given) == want


def test_settings_of_one_section_and_of_none(call):
    code, out, _ = call("settings", "network")
    assert code == 0
    assert out.startswith('network.backbone = "resnet50"\n')
    assert "network.height = 256   cpu: 128\n    whole number ≥ 32   [code MMT]\n    Of the crops" in out
    assert "tmc." not in out
    code, _, err = call("settings", "tmcc")
    assert (code, err) == (2, "tracklearn: section 'tmcc' is unknown: did you mean 'tmc'?\n")


def test_the_version(call):
    assert call("--version") == (0, f"tracklearn {tl.__version__}\n", "")


def test_a_dry_run_of_everything_says_what_would_be_read(call, sources, tmp_path):
    (tmp_path / "text.mp4").write_text("no film")
    options = ["--weights", "none", "--preset", "cpu", "--dry-run", *(x for s in QUICK for x in ("--set", s))]
    stored = f"stored=file://{tmp_path}/text.mp4"
    code, out, _ = call("run", *sources, "back=text.mp4", stored, "--out", "work", *options)
    assert code == 0
    lines = out.splitlines()
    assert lines[4].startswith("  stored: 0.0 MB in storage, looked at when they are read, file:///")
    assert lines[0] == "What would be read; nothing is written:"
    assert "frames a second" in lines[1]
    assert lines[3].startswith("  back: left out: not a video that can be decoded")
    assert "  detector motion (no trained detector" in out
    assert "tmc trains tiny from weights none on cpu" in out
    assert not (tmp_path / "work").exists()
    code, _, err = call("run", *sources, "back=text.mp4", "--out", "work", "--strict", *options)
    assert (code, "not a video" in err) == (2, True)
    tl.ingest(sources, tmp_path / "work" / "set")
    code, out, _ = call("run", *sources, "--out", "work", "--json", *options)
    assert code == 0
    found = json.loads(out.splitlines()[-1])
    assert found["training"]["run"]["method"] == "tmc"
    assert [one["frames"] for one in found["sources"]] == [240, 240]
