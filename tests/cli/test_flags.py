"""Flags are generated: one for every field, with its description, range and choices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st
from pydantic import Field

from ensue.cli import doctor, evaluate, prepare, recommend, train
from ensue.cli.flags import Flag, descriptions, flags_of, join_list, settings_of, split_list, words_of
from ensue.cli.stages import RerankConfig
from ensue.config import Config
from ensue.data.interactions import Columns
from ensue.data.item_vectors import ItemVectors
from ensue.data.prepare import PrepareConfig
from ensue.data.split import SplitConfig
from ensue.errors import ConfigError
from ensue.evaluation.protocol import EvaluateConfig
from ensue.models import MODELS
from ensue.objectives.objective import ObjectiveConfig
from ensue.recipes import run_config
from ensue.recipes.presets import sections
from ensue.registry import Registry
from ensue.runs.config import TrainConfig

MODEL_CONFIGS = [MODELS[name].config for name in MODELS]

ENGINES = Registry[str]("engine", {"steam": "json"})


class Example(Config):
    """For the tests.

    Attributes:
        told_here: described in the docstring,
            on two lines.
    """

    told_here: int = Field(default=3, ge=1, lt=9)
    told_there: float | None = Field(None, description="described in the field")
    kind: Literal["one", "two"] = "one"
    engine: Annotated[str, ENGINES] = Field("steam", description="what drives it")
    deep: bool = Field(False, description="a switch")
    maybe: bool | None = None
    names: tuple[str, ...] = ("a", "b")


@pytest.fixture
def by_name() -> dict[str, Flag]:
    return {flag.name: flag for flag in flags_of(Example, "Panel")}


def test_a_flag_has_type_range_default_and_description(by_name: dict[str, Flag]) -> None:
    told = by_name["told_here"]
    assert (told.option, told.metavar) == ("--told-here", "INT")
    assert told.description == "described in the docstring, on two lines. (default 3, >= 1, < 9)"
    assert by_name["told_there"].metavar == "FLOAT"
    assert by_name["kind"].description.endswith("(one of one, two; default one)")
    assert by_name["deep"].switch
    assert by_name["maybe"].switch
    assert by_name["names"].many


def test_values_are_read_as_the_field_needs_them(by_name: dict[str, Flag]) -> None:
    given = {"told_here": "7", "told_there": "none", "kind": "two", "deep": True, "names": "x, y", "maybe": None}
    values = settings_of(by_name.values(), given)
    assert Example.parse(values) == Example(told_here=7, kind="two", deep=True, names=("x", "y"))


def test_a_misspelt_choice_names_the_nearest(by_name: dict[str, Flag]) -> None:
    with pytest.raises(ConfigError, match=r"--kind: unknown value 'tow': did you mean 'two'"):
        settings_of(by_name.values(), {"kind": "tow"})
    with pytest.raises(ConfigError, match=r"--engine: unknown value 'stem': did you mean 'steam'\? Known: "):
        settings_of(by_name.values(), {"engine": "stem"})


def test_names_registered_later_are_choices_too(by_name: dict[str, Flag], monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's module registers a name after the flags were made, or before, and then the help lists it."""
    monkeypatch.setattr(ENGINES, "_entries", {})
    flag = by_name["engine"]
    with pytest.raises(ConfigError, match=r"--engine: unknown value 'electric': Known: steam"):
        flag.value("electric")
    ENGINES.register("electric")("E")
    assert settings_of([flag], {"engine": "electric"}) == {"engine": "electric"}
    (later,) = (flag for flag in flags_of(Example, "Panel") if flag.name == "engine")
    assert later.description == "what drives it (one of steam, electric; default steam)"


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("a,b", ["a", "b"]),
        ("", []),
        (" ", []),
        ('a, "b,c"', ["a", "b,c"]),
        ("7", ["7"]),
        (" a b , c,", ["a b", "c", ""]),
        ("\" a \",'b'", [" a ", "'b'"]),
        ('"say ""hi""" ,5" disk', ['say "hi"', '5" disk']),
    ],
)
def test_lists_are_split_at_commas(text: str, entries: list[str]) -> None:
    assert split_list(text) == entries


@pytest.mark.parametrize("text", ["a\nb", 'a,"b', '"a"b', ' "a"b,c', "a\rb,c"])
def test_text_that_is_not_a_list_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a list"):
        split_list(text)


@drawn(st.lists(st.text(), min_size=1))
def test_every_list_can_be_written(entries: list[str]) -> None:
    assert split_list(join_list(entries)) == entries


def test_settings_are_written_as_they_were_given(by_name: dict[str, Flag]) -> None:
    values = {"told_here": "7", "told_there": None, "kind": "two", "deep": False, "names": ["x y", "z,"]}
    words = words_of(by_name.values(), {**values, "other": 1})
    assert words == ["--told-here", "7", "--told-there", "none", "--kind", "two", "--no-deep", "--names", 'x y,"z,"']


@pytest.mark.parametrize(
    "config", [*MODEL_CONFIGS, ObjectiveConfig, TrainConfig, SplitConfig, EvaluateConfig, Columns, PrepareConfig]
)
def test_every_field_has_a_description(config: type[Config]) -> None:
    lacking = [name for name, text in descriptions(config).items() if not text and name != "name"]
    assert lacking == []


def test_every_setting_of_a_run_has_one_flag() -> None:
    flags = [flag.name for flag in train.flags()]
    wanted = {flat for model in MODELS for fields in sections(model).values() for flat in fields}
    assert len(flags) == len(set(flags))
    assert set(flags) == wanted


@pytest.mark.parametrize("model", list(MODELS))
def test_every_flat_name_is_of_one_section(model: str) -> None:
    flat = [name for fields in sections(model).values() for name in fields]
    assert len(flat) == len(set(flat))


def test_the_seeds_of_training_and_of_the_split_are_two_settings() -> None:
    config = run_config("sasrec", None, {"seed": "5", "split_seed": 7})
    assert (config.train.seed, config.split.seed) == (5, 7)


def test_every_default_survives_the_command_line() -> None:
    """Each flag, given its own default as text, leaves the configuration as it is."""
    for model in MODELS:
        flags = [
            flag
            for flag in train.flags(["--model", model])
            if any(flag.name in part for part in sections(model).values())
        ]
        given = {flag.name: (flag.default == "yes" if flag.switch else flag.default) for flag in flags}
        values = settings_of(flags, {name: value for name, value in given.items() if value != ""})
        assert run_config(model, None, values) == run_config(model, None, {})


@pytest.mark.parametrize(
    ("flags", "configs"),
    [
        (prepare.flags, [Columns, PrepareConfig]),
        (evaluate.flags, [EvaluateConfig, RerankConfig]),
        (recommend.flags, [RerankConfig]),
        (doctor.flags, [SplitConfig, Columns]),
    ],
)
def test_other_commands_have_every_field(flags: object, configs: list[type[Config]]) -> None:
    assert callable(flags)
    names = {flag.name for flag in flags()}
    followed = {(EvaluateConfig, "query_time"), (EvaluateConfig, "rerank")}
    fields = {name for config in configs for name in config.model_fields if (config, name) not in followed}
    assert names - {"split_seed", *prepare.VECTORS.values()} == fields - ({"seed"} if SplitConfig in configs else set())


def test_prepare_has_every_field_of_the_vectors_of_items() -> None:
    assert set(prepare.VECTORS) == set(ItemVectors.model_fields)
    assert {flag.name for flag in prepare.flags()} >= set(prepare.VECTORS.values())


def test_a_file_is_a_start_that_flags_change(tmp_path: Path) -> None:
    run_config("sasrec", None, {"hidden_units": 12, "lr": 0.5}).write_toml(tmp_path / "mine.toml")
    config = run_config(None, None, {"lr": "0.25"}, tmp_path / "mine.toml")
    assert (config.model.model_dump()["hidden_units"], config.train.lr) == (12, 0.25)
    with pytest.raises(ConfigError, match="not both"):
        run_config(None, "demo", {}, tmp_path / "mine.toml")
    with pytest.raises(ConfigError, match="is for model 'sasrec', not 'markov'"):
        run_config("markov", None, {}, tmp_path / "mine.toml")
