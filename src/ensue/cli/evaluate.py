"""`ensue evaluate`: rank the held-out items of a run's data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from ensue.cli.flags import Flag, flags_of
from ensue.cli.hints import recommend_to_user
from ensue.cli.recommend import RunFolder
from ensue.cli.sources import data_of_run
from ensue.terminal.output import Screen, table


def flags() -> list[Flag]:
    """The flags of the protocol and of re-ranking."""
    from ensue.cli import stages
    from ensue.evaluation.protocol import EvaluateConfig

    protocol = flags_of(EvaluateConfig, "Protocol (by default the run's)", skip={"query_time", "rerank"})
    return [*protocol, *stages.flags()]


def run(
    screen: Screen,
    folder: RunFolder,
    settings: dict[str, Any],
    data: Annotated[list[str] | None, typer.Option("--data", help="Store or log; by default the run's.")] = None,
    part: Annotated[Literal["test", "validation"], typer.Option("--part", help="Which held-out events.")] = "test",
) -> dict[str, Any]:
    """Rank the held-out items; write metrics.json and the per-user table."""
    from ensue.cli.stages import RerankConfig, add_second_stage
    from ensue.recommender import Recommender
    from ensue.runs.results import read_metrics

    recommender = Recommender.load(folder)
    assert recommender.run is not None
    store = data_of_run(folder, recommender.run, data, screen)
    add_second_stage(recommender, settings)
    own = {name: value for name, value in settings.items() if name not in RerankConfig.model_fields}
    config = recommender.config.evaluate.replace(**own)
    if recommender.reranking is not None:
        config = recommender.reranking.protocol(config)
    with screen.counting("evaluate") as counted:
        recommender.evaluate(store, part, config, folder, counted)
    evaluations = read_metrics(folder).items()
    results = {key.removeprefix(f"{part}/"): each for key, each in evaluations if each["part"] == part}
    entry: dict[str, Any] = results.pop(config.key)
    screen.show(metrics_table(part, {config.key: entry, **results}))
    if "first_stage" in entry:
        screen.show(stages_table(entry))
    if config.protocol == "full" and config.filter_seen and entry["targets_in_history"]:
        screen.say(f"{entry['targets_in_history']:,} targets occur in their history; the filter keeps them", "dim")
    if entry["groups"]["cold users"]["cases"] == entry["cases"]:
        screen.say("all cases are of users without training events", "dim")
    if entry["targets_untrained"]:
        share = entry["targets_untrained"] / entry["cases"]
        screen.say(
            f"{entry['targets_untrained']:,} targets ({share:.1%}) are items that do not occur in training: a model of "
            "item ids cannot predict them",
            "dim",
        )
    screen.say(f"written: {folder / 'metrics.json'}, {folder / entry['per_user']}")
    screen.next(*recommend_to_user(folder, recommender.config.model, store, data))
    return {"run": str(folder), "model": recommender.config.model.name, **entry, "protocol": config.key}


def stages_table(entry: dict[str, Any]) -> Table:
    """One row per metric: the first stage alone, both stages, and the gain with its paired interval."""
    rows = []
    for (name, first), second in zip(entry["first_stage"].items(), entry["metrics"].values(), strict=True):
        gain = entry["gain"].get(name.partition("|")[0])
        effect = "" if gain is None else "{estimate:+.4f} [{low:+.4f}, {high:+.4f}]".format(**gain["effect"])
        rows.append((name.partition("|")[0], f"{first:.4f}", f"{second:.4f}", effect))
    title = f"{entry['recall']:.1%} of the targets are among the {entry['rerank']['candidates']} candidates"
    heads = ("metric", "retrieved", "re-ranked", "gain [95%]")
    return table(heads, rows, title=title, right=heads[1:])


def metrics_table(part: str, entries: dict[str, dict[str, Any]]) -> Table:
    """One row per protocol, group of cases and metric.

    Args:
        part: the evaluated part.
        entries: key of the protocol -> its entry in `metrics.json`.
    """
    sections = [
        [(protocol, group, name, f"{value:.4f}", f"{each['cases']:,}") for name, value in each["metrics"].items()]
        for protocol, entry in entries.items()
        for group, each in {"all": entry, **groups_shown(entry)}.items()
    ]
    heads = ("protocol", "of", "metric", "value", "cases")
    drawn = table(heads, [row for rows in sections for row in rows], title=f"{part} part", right=heads[3:])
    last = 0
    for rows in sections:
        last += len(rows)
        drawn.rows[last - 1].end_section = True
    return drawn


def groups_shown(entry: dict[str, Any]) -> dict[str, Any]:
    """The groups of an evaluation that have rows of their own: those with some of the cases, but not all of them."""
    groups: dict[str, Any] = entry.get("groups", {})
    return {name: each for name, each in groups.items() if 0 < each["cases"] < entry["cases"]}
