"""The recipe of each model that suits a data set, so that models can be compared on it.

The data has one of the kinds that `ensue.recipes.auto.choose` distinguishes, named by SASRec's recipes. A model without
a recipe for a kind is trained with the objective and the schedule of SASRec's recipe, and with its sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ensue.data.split import Split, make_split
from ensue.data.store import SequenceStore
from ensue.models import MODELS, is_counted
from ensue.recipes.auto import MODEL, Choice, adapted, choose, profile, settle
from ensue.recipes.planning import Configure
from ensue.recipes.presets import RECIPES, Values, completed, run_config

LONG, SMALL, SPARSE, SAMPLED, SESSIONS = (
    "sasrec-ce",
    "sasrec-ce-small",
    "sasrec-ce-sparse",
    "sasrec-sampled",
    "sasrec-sessions",
)
EVERY = (LONG, SMALL, SPARSE, SAMPLED, SESSIONS)
# (model, kind of the data) -> the model's recipe.
SUITED = {
    ("tisasrec", LONG): "tisasrec-ce",
    ("bert4rec", LONG): "bert4rec-ce",
    ("gru4rec", LONG): "gru4rec-ce",
    ("caser", LONG): "caser-paper",
    ("retention", LONG): "retention-ce",
    ("bsarec", SPARSE): "bsarec-sparse",
    ("fmlprec", SPARSE): "fmlprec-sparse",
    **{("srgnn", kind): "srgnn" for kind in (SAMPLED, SESSIONS)},
    **{("gcegnn", kind): "gcegnn" for kind in (SAMPLED, SESSIONS)},
    **{("vsknn", kind): "stan" for kind in (SAMPLED, SESSIONS)},
    **{("bst", kind): "bst-ranker" for kind in EVERY},
    **{("tiger", kind): "tiger" for kind in EVERY},
    **{("fpmc", kind): "fpmc" for kind in EVERY},
    **{("markov", kind): "markov-skips" for kind in EVERY},
    **{("recent-popularity", kind): "recent-popularity" for kind in EVERY},
}


def comparable() -> list[str]:
    """The models of `--models all`: every registered one except those of the classic command line."""
    return [name for name in MODELS if not MODELS[name].config.__module__.startswith("ensue.classic")]


def suited(name: str, settings: Mapping[str, Any]) -> Configure:
    """A function that chooses the settings of a model for a store.

    Args:
        name: a model's name; or else a recipe's, which is used as it is.
        settings: field -> value, by flat names; they take precedence.

    Raises:
        ConfigError: there is no such model.
    """
    if name not in RECIPES:
        MODELS.check(name)

    def configured(store: SequenceStore, epochs: int | None) -> Choice:
        given = dict(settings) if epochs is None else {**settings, "num_epochs": epochs}
        if name not in MODELS:
            return Choice(run_config(None, name, given), f"preset {name}", "it was named")
        if name == MODEL:
            return settle(store, name, given)
        split = make_split(store, run_config(MODEL, None, dict(settings)).split)
        return _suited(name, split, given)

    return configured


def _suited(name: str, split: Split, given: dict[str, Any]) -> Choice:
    kind, why = choose(profile(split))
    recipe = SUITED.get((name, kind))
    own = borrowed(name, kind) if recipe is None else {key: dict(part) for key, part in RECIPES[recipe].make().items()}
    config = completed(own, given)
    if is_counted(config.model):
        return Choice(config, "its defaults" if recipe is None else f"preset {recipe}", why)
    what = f"as preset {kind}" if recipe is None else f"preset {recipe}"
    return Choice(adapted(config, split, given), what, why)


def borrowed(name: str, kind: str) -> Values:
    """SASRec's recipe for a kind of data as settings of another model: those that both models have."""
    values = RECIPES[kind].make()
    fields = MODELS[name].config.model_fields
    own = {field: value for field, value in values["model"].items() if field in fields}
    return {**values, "model": {**own, "name": name}}
