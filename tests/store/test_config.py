from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tracklearn.store.config import digest, merge, resolve


class Inner(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    flip: float = Field(0.5, ge=0, le=1)


class Outer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    epochs: int = Field(40, ge=1)
    metric: str = "euclidean"
    augment: Inner = Inner()


MODELS = {"tmc": Outer, "other": Inner}


def test_each_layer_wins_over_the_one_below(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text("[tmc]\nepochs = 3\n[tmc.augment]\nflip = 0.25\n")
    preset = {"tmc": {"epochs": 2, "metric": "cosine"}, "unused": {"x": 1}}
    out = resolve(MODELS, preset=preset, file=file, overrides=["tmc.epochs=4"])["tmc"]
    assert (out.epochs, out.metric, out.augment.flip) == (4, "cosine", 0.25)


def test_override_reaches_nested_settings_and_plain_text():
    out = resolve(MODELS, overrides=["tmc.augment.flip=0.1", "tmc.metric=jaccard", 'tmc.metric="cosine"'])[
        "tmc"
    ]
    assert (out.augment.flip, out.metric) == (0.1, "cosine")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tmc.epoch=3", r"setting tmc\.epoch is unknown: did you mean 'epochs'\?"),
        ("tmc.augment.flp=3", r"setting tmc\.augment\.flp is unknown: did you mean 'flip'\?"),
        ("tcm.epochs=3", r"section 'tcm' is unknown: did you mean 'tmc'\?"),
        ("tmc.zzz=3", r"known are epochs, metric, augment"),
        ("tmc.epochs=0", r"setting tmc\.epochs = 0: .*greater than or equal to 1"),
        ("tmc.epochs=many", r"setting tmc\.epochs = 'many'"),
        ("epochs=3", r"not of the form section\.key=value"),
        ("tmc.epochs", r"not of the form section\.key=value"),
    ],
)
def test_a_wrong_override_is_named_with_the_remedy(override, message):
    with pytest.raises(ValueError, match=message):
        resolve(MODELS, overrides=[override])


def test_settings_that_do_not_fit_each_other_are_named_without_listing_all():
    class Pair(Outer):
        @model_validator(mode="after")
        def _fit(self):
            if self.epochs > 40 and self.metric == "jaccard":
                raise ValueError("jaccard wants 40 epochs or fewer")
            return self

    with pytest.raises(ValueError, match=r"^setting tmc: jaccard wants 40 epochs or fewer$"):
        resolve({"tmc": Pair}, overrides=["tmc.epochs=50", "tmc.metric=jaccard"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("x.span=many", "x.span = 'many': Input should be a valid number.*; or Input should be 'auto'$"),
        (
            "x.pair=[0.1, 'b']",
            "x.pair.1 = 'b': Input should be a valid number, unable to parse string as a number$",
        ),
        ("x.inner.flip=2", "x.inner.flip = 2: Input should be less than or equal to 1$"),
    ],
)
def test_a_setting_is_named_without_the_types_it_may_have(override, message):
    class Several(BaseModel):
        span: float | Literal["auto"] = "auto"
        pair: tuple[float, float] = (0, 1)
        inner: Inner = Inner()

    with pytest.raises(ValueError, match=f"^setting {message}"):
        resolve({"x": Several}, overrides=[override])


def test_a_wrong_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file: .*none\.toml"):
        resolve(MODELS, file=tmp_path / "none.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("[tmc\n")
    with pytest.raises(ValueError, match=r"bad\.toml: not a TOML file"):
        resolve(MODELS, file=bad)
    bad.write_text("[tmc]\nepochs = " + "[" * 100_000)
    with pytest.raises(ValueError, match=r"bad\.toml: not a TOML file"):
        resolve(MODELS, file=bad)
    bad.write_text("epochs = 3\n")
    with pytest.raises(ValueError, match="outside a section: write it under one of tmc, other"):
        resolve(MODELS, file=bad)
    bad.write_text("[tcm]\nepochs = 3\n")
    with pytest.raises(ValueError, match=r"bad\.toml: section 'tcm' is unknown: did you mean 'tmc'\?"):
        resolve(MODELS, file=bad)


def test_merge_leaves_its_inputs_alone():
    below, above = {"a": {"x": 1}}, {"a": {"y": 2}}
    assert merge(below, above) == {"a": {"x": 1, "y": 2}}
    assert (below, above) == ({"a": {"x": 1}}, {"a": {"y": 2}})


def test_digest_depends_on_values_and_not_on_their_order():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
