"""Write docs/settings.md, the tables of all settings, from the fields' own descriptions.

python docs/settings.py > docs/settings.md
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ensue.cli.doctor import SPLIT_NAMES
from ensue.cli.flags import flags_of
from ensue.config import Config
from ensue.data.interactions import Columns
from ensue.data.prepare import PrepareConfig
from ensue.data.split import SplitConfig
from ensue.evaluation.protocol import EvaluateConfig
from ensue.models import MODELS
from ensue.models.base import FeatureConfig, ModelConfig
from ensue.nn.content import ItemVectorConfig
from ensue.nn.trunk import TrunkConfig
from ensue.objectives.objective import ObjectiveConfig
from ensue.runs.config import TrainConfig

KINDS = {"INT": "whole number", "FLOAT": "number", "TEXT": "text"}


def table(
    title: str,
    config: type[Config],
    skip: Collection[str] = ("name", "query_time", "rerank"),
    rename: Mapping[str, str] = {},
) -> None:
    """Print a section: a row for each setting, with its default, range and meaning."""
    print(f"\n## {title}\n\n| setting | default | values | meaning |\n|---|---|---|---|")
    for flag in flags_of(config, "", skip, rename):
        kind = "yes, no" if flag.switch else "list" if flag.many else KINDS.get(flag.metavar, flag.metavar)
        values = ", ".join(f"`{choice}`" for choice in flag.choices) or ", ".join(filter(None, (kind, flag.limits)))
        default = f"`{flag.default.replace(',', ', ')}`" if flag.default else ""
        text = flag.help if flag.help.endswith("...") else flag.help.removesuffix(".")
        print(f"| `{flag.name}` | {default} | {values} | {text} |")


HEAD = """# All settings

Each setting is a flag of `ensue train` (`hidden_units` is `--hidden-units`), a keyword of `ensue.Recommender`, and a
key of its section in a [file of settings](configuration.md#a-file-of-settings). An empty cell means that there is no
default. The last two tables are flags of `ensue prepare` and keywords of `ensue.read`."""


def shared(config: type[ModelConfig]) -> set[str]:
    """The settings that a model shares with all models, encoders or transformers, and that have the same default."""
    shared_by_many = (ModelConfig, FeatureConfig, ItemVectorConfig, TrunkConfig)
    tables = [each for each in shared_by_many if issubclass(config, each)]
    return {
        name
        for each in tables
        for name, field in each.model_fields.items()
        if (config.model_fields[name].default, config.model_fields[name].description)
        == (field.default, field.description)
    }


def main() -> None:
    """Print the page."""
    print(HEAD)
    table("Section `model`: every model", ModelConfig)
    table(
        "Section `model`: all models that are trained",
        FeatureConfig,
        {*ModelConfig.model_fields, *ItemVectorConfig.model_fields},
    )
    table("Section `model`: vectors of items, of all models that are trained", ItemVectorConfig)
    table("Section `model`: sasrec, tisasrec and bert4rec", TrunkConfig)
    for name in MODELS:
        config = MODELS[name].config
        # Not the padded forms, nor a model that a module of a user's own has registered.
        if not name.endswith("-padded") and config.__module__.startswith("ensue."):
            table(f"Section `model`: {name}", config, {"name", "query_time", *shared(config)})
    table("Section `objective`", ObjectiveConfig)
    table("Section `train`", TrainConfig)
    table("Section `split`", SplitConfig, rename=SPLIT_NAMES)
    table("Section `evaluate`", EvaluateConfig)
    table("Columns of a log", Columns)
    table("Filters of `prepare`", PrepareConfig)
    print("\n`split_seed` is called `seed` in its section.")


if __name__ == "__main__":
    main()
