"""Names: found, listed in order, given once."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import Field

from ensue.config import Config
from ensue.errors import ConfigError
from ensue.registry import Registry


@pytest.fixture
def models() -> Registry[str]:
    registry = Registry[str]("model")
    registry.register("sasrec")("S")
    registry.register("markov")("M")
    return registry


def test_names_are_found(models: Registry[str]) -> None:
    assert models["sasrec"] == "S"
    assert "markov" in models
    assert "sasrek" not in models
    assert list(models) == ["sasrec", "markov"]


def test_register_returns_its_argument() -> None:
    losses: Registry[object] = Registry("loss")

    @losses.register("bce")
    def bce() -> None: ...

    assert losses["bce"] is bce


@pytest.mark.parametrize(
    ("name", "hint"),
    [("sasrek", "did you mean 'sasrec'? "), ("SASRec", ""), ("x", "")],
)
def test_an_unknown_name_lists_the_known(models: Registry[str], name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        models[name]
    assert str(caught.value) == f"unknown model {name!r}: {hint}Known: markov, sasrec"


def test_a_name_is_given_once(models: Registry[str]) -> None:
    with pytest.raises(ConfigError, match="model 'sasrec' is registered twice"):
        models.register("sasrec")("other")
    assert models["sasrec"] == "S"


def test_registries_are_apart(models: Registry[str]) -> None:
    assert "sasrec" not in Registry[str]("loss")


LOSSES = Registry[str]("loss", {"bce": "ensue.never_imported"})


class Objective(Config):
    """For the tests."""

    loss: Annotated[str, LOSSES] = Field("bce", description="what is minimised")
    other: Annotated[str, LOSSES] | None = None


def test_a_field_takes_registered_names_alone() -> None:
    assert Objective(loss="bce").loss == "bce"
    assert Objective(other=None).to_toml() == 'loss = "bce"\n'
    for key in ("loss", "other"):
        with pytest.raises(ConfigError) as caught:
            Objective.parse({key: "bec"}, "[objective]")
        assert str(caught.value) == (
            f"[objective]: setting {key!r}: unknown loss 'bec': did you mean 'bce'? Known: {', '.join(LOSSES)}"
        )
    with pytest.raises(ConfigError, match=r"setting 'loss': input should be a valid string \(got 3\)"):
        Objective(loss=3)


def test_a_name_registered_later_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOSSES, "_entries", {})
    with pytest.raises(ConfigError, match="unknown loss 'mine'"):
        Objective(loss="mine")
    LOSSES.register("mine")("M")
    assert LOSSES[Objective(loss="mine").loss] == "M"


def test_the_public_face_is_listed() -> None:
    import ensue

    assert {"Recommender", "read", "__version__"} <= set(dir(ensue))
