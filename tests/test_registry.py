"""Names: found, listed in order, given once."""

from __future__ import annotations

import pytest

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


def test_the_public_face_is_listed() -> None:
    import ensue

    assert {"Recommender", "read", "__version__"} <= set(dir(ensue))
