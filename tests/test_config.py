"""Settings: what is wrong is named, what is right survives TOML."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from ensue.config import Config
from ensue.errors import ConfigError
from ensue.evaluation.protocol import EvaluateConfig
from ensue.models.sasrec import SASRecConfig
from ensue.runs.config import RunConfig, TrainConfig


class Inner(Config):
    lr: float = Field(0.001, gt=0)
    schedule: Literal["constant", "cosine"] = "constant"


class Settings(Config):
    hidden_units: int = Field(50, ge=1)
    num_heads: int = Field(1, ge=1)
    dropout_rate: float = Field(0.2, ge=0, lt=1)
    name: str = "sasrec"
    time_span: int | None = None
    shuffle: bool = True
    cutoffs: tuple[int, ...] = (10,)
    optimiser: Inner = Inner()

    @model_validator(mode="after")
    def _heads(self) -> Settings:
        if self.hidden_units % self.num_heads:
            raise ValueError(f"hidden_units {self.hidden_units} is not a multiple of num_heads {self.num_heads}")
        return self


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"hiden_units": 64}, ["unknown setting 'hiden_units'", "did you mean 'hidden_units'?"]),
        ({"optimiser": {"schedule_": "cosine"}}, ["'optimiser.schedule_'", "did you mean 'schedule'?"]),
        ({"zzz": 1}, ["unknown setting 'zzz'", "Known: cutoffs, dropout_rate, hidden_units"]),
        ({"dropout_rate": 1.0}, ["'dropout_rate'", "less than 1", "got 1.0"]),
        ({"dropout_rate": float("nan")}, ["'dropout_rate'", "got nan"]),
        ({"hidden_units": 0}, ["'hidden_units'", "greater than or equal to 1", "got 0"]),
        ({"hidden_units": "wide"}, ["'hidden_units'", "valid integer", "got 'wide'"]),
        (
            {"optimiser": {"schedule": "cosin"}},
            ["'optimiser.schedule'", "'constant' or 'cosine'", "got 'cosin'"],
        ),
        ({"num_heads": 3}, ["hidden_units 50 is not a multiple of num_heads 3"]),
    ],
)
def test_a_wrong_setting_is_named_with_its_rule_and_value(values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.parse(values)
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_rule_on_several_settings_is_reported_without_repeating_them_all() -> None:
    class Outer(Config):
        inner: Settings = Settings()

    with pytest.raises(ConfigError) as caught:
        Settings.parse({"num_heads": 3}, "[model]")
    assert str(caught.value) == "[model]: hidden_units 50 is not a multiple of num_heads 3"
    with pytest.raises(ConfigError) as caught:
        Outer.parse({"inner": {"num_heads": 3}}, "run.toml")
    assert str(caught.value) == "run.toml: [inner]: hidden_units 50 is not a multiple of num_heads 3"


def test_a_model_in_a_run_is_reported_once() -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.parse({"model": {"name": "sasrec", "num_heads": 3}})
    assert str(caught.value).count("[model]") == 1
    assert "got" not in str(caught.value)


def test_the_validation_metric_is_checked_at_once_and_kept_as_written() -> None:
    with pytest.raises(ConfigError, match=r"setting 'validation_metric': .*did you mean 'ndcg'"):
        TrainConfig.parse({"validation_metric": "ndgc@10"})
    assert TrainConfig.parse({"validation_metric": "NDCG@10"}).validation_metric == "NDCG@10"
    with pytest.raises(ConfigError, match=r"higher for a better model"):
        TrainConfig.parse({"validation_metric": "rank"})


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (EvaluateConfig, {"k": 3}),
        (SASRecConfig, {"hidden_units": -1}),
        (SASRecConfig, {"hidden_units": 50, "num_heads": 3}),
        (RunConfig, {"model": {"name": "sasrec", "num_heads": 3}, "train": {"lrr": 1}}),
        (Settings, {"optimiser": {"lr": -1}, "zzz": 1}),
    ],
)
def test_a_configuration_made_directly_says_what_parsing_says(make: type[Config], values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as parsed:
        make.parse(values)
    with pytest.raises(ConfigError) as made:
        make(**values)
    assert str(made.value) == str(parsed.value)
    assert made.value.__suppress_context__


def test_a_section_given_directly_is_reported_with_its_place() -> None:
    class Outer(Config):
        inner: Settings = Settings()

    with pytest.raises(ConfigError) as caught:
        Outer(inner={"dropout_rate": 2})
    assert str(caught.value) == "setting 'inner.dropout_rate': input should be less than 1 (got 2)"


def test_every_wrong_setting_is_reported_at_once_with_the_place() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.parse({"hiden_units": 1, "dropout_rate": -1}, "run.toml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert all(line.startswith("run.toml: ") for line in lines)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().hidden_units = 64  # type: ignore[misc]


def test_replace_checks_again() -> None:
    changed = Settings().replace(hidden_units=64, num_heads=2)
    assert (changed.hidden_units, changed.num_heads, changed.optimiser) == (64, 2, Inner())
    with pytest.raises(ConfigError, match="not a multiple"):
        changed.replace(num_heads=3)
    with pytest.raises(ConfigError, match="did you mean 'num_heads'"):
        changed.replace(num_head=2)


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
settings = st.builds(
    Settings,
    hidden_units=st.integers(1, 2**62),
    dropout_rate=st.floats(0, 1, exclude_max=True),
    name=text,
    time_span=st.none() | st.integers(-(2**62), 2**62),
    shuffle=st.booleans(),
    cutoffs=st.lists(st.integers(1, 100)).map(tuple),
    optimiser=st.builds(
        Inner,
        lr=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
        schedule=st.sampled_from(["constant", "cosine"]),
    ),
)


@given(config=settings)
def test_toml_round_trip(tmp_path_factory: pytest.TempPathFactory, config: Settings) -> None:
    path = tmp_path_factory.mktemp("config") / "config.toml"
    config.write_toml(path)
    assert Settings.read_toml(path) == config


def test_every_field_is_written() -> None:
    written = Settings(time_span=1).to_toml()
    assert [name for name in Settings.model_fields if name not in written] == []


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.toml: no such file"):
        Settings.read_toml(tmp_path / "config.toml")


@pytest.mark.parametrize("content", [b"hidden_units = ", b"\xff", b"hidden_units = 1\nhidden_units = 2"])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.toml: not valid TOML"):
        Settings.read_toml(path)


def test_a_wrong_setting_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("hiden_units = 64\n")
    with pytest.raises(ConfigError, match=r"config\.toml: unknown setting 'hiden_units'"):
        Settings.read_toml(path)
