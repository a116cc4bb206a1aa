"""`ensue recommend` and `ensue similar`: recommendations from a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensue.cli.everybody import recommend_all
from ensue.cli.flags import split_list
from ensue.cli.hints import recommend_after_item
from ensue.cli.sources import data_of_run
from ensue.errors import ConfigError, counted
from ensue.terminal.output import Screen, table

if TYPE_CHECKING:
    from rich.table import Table

    from ensue.cli.flags import Flag
    from ensue.data.features import Feature
    from ensue.recommender import Recommendation, Recommendations
    from ensue.runs.run import Run

SHOWN = 12
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, as ensue train writes it.")]
History = Annotated[
    str | None, typer.Option("--history", metavar="A,B,...", help='Item ids, oldest first; "" for a newcomer.')
]
Times = Annotated[
    str | None, typer.Option("--times", metavar="T,T,...", help="Times of --history: seconds since 1970, or dates.")
]
Features = Annotated[
    list[str] | None,
    typer.Option(
        "--feature",
        metavar="NAME=V,V,...",
        help="Values of a feature for --history: one per item, or the user's; empty for an unknown one.",
    ),
]
Count = Annotated[int, typer.Option("-k", help="Number of items.", min=1)]


def flags() -> list[Flag]:
    """The flags of re-ranking."""
    from ensue.cli import stages

    return stages.flags()


def recommend(
    screen: Screen,
    folder: RunFolder,
    settings: dict[str, Any],
    history: History = None,
    user: Annotated[str | None, typer.Option("--user", metavar="ID", help="A user in the data, by id.")] = None,
    everybody: Annotated[bool, typer.Option("--all", help="All users of the data; write to the file --out.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="File of --all: .parquet, .csv or .jsonl.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file --out.")] = False,
    data: Annotated[
        list[str] | None, typer.Option("--data", help="Data of --user and --all; default: the run's.")
    ] = None,
    times: Times = None,
    moment: Annotated[
        str | None,
        typer.Option("--at", metavar="T", help="Time of the request, for models with query_time."),
    ] = None,
    k: Count = 10,
    keep_seen: Annotated[bool, typer.Option("--keep-seen", help="Allow items of the history.")] = False,
    feature: Features = None,
) -> dict[str, Any]:
    """Recommend the next items for a history, a user, or all users."""
    _check_flags(history, user, everybody, {"--times": times, "--feature": feature}, data, out, overwrite)
    from ensue.cli.stages import add_second_stage
    from ensue.data.featured import features_of_user
    from ensue.data.moments import parse_seconds
    from ensue.models import Encoder
    from ensue.recommender import Recommender, history_of

    at = None if moment is None else parse_seconds(moment, "at")
    recommender = Recommender.load(folder)
    assert recommender.run is not None
    add_second_stage(recommender, settings)
    read = (recommender.reranking or recommender.run).features
    if everybody:
        return recommend_all(screen, recommender, folder, out, data, k, keep_seen, at, overwrite)
    model = recommender.config.model
    if user is None:
        given = _history(times, feature or (), history, read)
    else:
        store = data_of_run(folder, recommender.run, data, screen)
        store.verify_once()
        given = (*history_of(store, user), features_of_user(store, user, read))
    ids, stamps, features = given
    answer = recommender.recommend(ids, k=k, exclude_seen=not keep_seen, times=stamps, at=at, features=features)
    known = _named(recommender.run, ids)
    _show(screen, known, answer, k)
    near = answer.ids[0] if answer else known[0][0]
    if isinstance(recommender.run.model, Encoder):
        screen.next("ensue similar", folder, "--item", near)
    else:
        screen.next(*recommend_after_item(folder, model, near))
    return {
        "history": [{"item": item, "title": title} for item, title in known],
        "unknown": list(answer.unknown),
        "note": answer.note,
        "items": [{"rank": rank, **asdict(entry)} for rank, entry in enumerate(answer.items, start=1)],
    }


def _check_flags(
    history: str | None,
    user: str | None,
    everybody: bool,
    of_history: dict[str, Any],
    data: list[str] | None,
    out: Path | None,
    overwrite: bool,
) -> None:
    """Refuse flags that contradict each other."""
    if (history is not None) + (user is not None) + everybody != 1:
        raise ConfigError('give exactly one of --history A,B (or --history ""), --user ID and --all')
    if history is not None and data:
        raise ConfigError("--data is for --user and --all, and --history does not need it: omit --data")
    for option, value in of_history.items():
        if history is None and value is not None:
            raise ConfigError(f"{option} is for --history, and a user's history is in the data: omit {option}")
    if not everybody and (out is not None or overwrite):
        raise ConfigError("--out and --overwrite are for --all: omit them (--json prints a single result as JSON)")


def _history(
    times: str | None, words: Sequence[str], history: str | None, features: Sequence[Feature]
) -> tuple[list[Any], list[int] | None, dict[str, Any]]:
    """The items, times and features that a command line states."""
    return (
        list(split_list(history or "")),
        None if times is None else times_of(times),
        _features_given(words, features),
    )


def _features_given(words: Sequence[str], features: Sequence[Feature]) -> dict[str, Any]:
    """The values of `--feature NAME=V,V,...`: a list, or one value of a user.

    Raises:
        ConfigError: a word has no name.
    """
    of_users = {feature.name for feature in features if feature.of == "user"}
    given: dict[str, Any] = {}
    for word in words:
        name, sign, text = word.partition("=")
        if not (name and sign):
            raise ConfigError(f"--feature {word}: must be NAME=V,V,...")
        values = [value or None for value in split_list(text)]
        given[name] = (values or [None])[0] if name in of_users else values
    return given


def _show(screen: Screen, known: list[tuple[Any, str | None]], answer: Recommendations, k: int) -> None:
    """Show the history's newest items, the skipped ids, and the recommendations."""
    screen.say("history, oldest first:" if known or answer.unknown else "history: empty")
    if len(known) > SHOWN:
        screen.say(f"  ... {len(known) - SHOWN:,} before these")
    for item, title in known[-SHOWN:]:
        screen.say(f"  {item}  {title}" if title else f"  {item}")
    if answer.unknown:
        names = ", ".join(map(str, answer.unknown))
        screen.say(f"skipped {counted(len(answer.unknown), 'id')} that this model does not know: {names}", "yellow")
    if answer.note:
        screen.say(answer.note, "yellow")
    screen.show(items_table(answer.items))
    if len(answer) < k:
        screen.say(f"{len(answer)} of {k}: no more items are left", "yellow")


def similar(
    screen: Screen,
    folder: RunFolder,
    item: Annotated[str, typer.Option("--item", metavar="ID", help="The item, by id.")],
    k: Count = 10,
) -> dict[str, Any]:
    """List the items whose vectors have the largest cosine with an item's."""
    from ensue.recommender import Recommender

    recommender = Recommender.load(folder)
    assert recommender.run is not None
    answer = recommender.similar(item, k=k)
    ((known, title),) = _named(recommender.run, [item])
    screen.say(f"near {known}  {title}" if title else f"near {known}")
    screen.show(items_table(answer.items, "cosine"))
    screen.next(*recommend_after_item(folder, recommender.config.model, known))
    return {
        "item": known,
        "title": title,
        "items": [{"rank": rank, **asdict(entry)} for rank, entry in enumerate(answer.items, start=1)],
    }


def times_of(text: str) -> list[int]:
    """The times of `--times`: seconds since 1970, or dates.

    Raises:
        DataError: a value is neither.
    """
    from ensue.data.moments import parse_seconds

    return [parse_seconds(part, "times") for part in split_list(text)]


def items_table(items: Sequence[Recommendation], score: str = "score") -> Table:
    """Rank, id, title if there is one, and score."""
    titled = any(entry.title for entry in items)
    rows = [
        (rank, entry.item, *([entry.title] if titled else []), f"{entry.score:.3f}")
        for rank, entry in enumerate(items, start=1)
    ]
    return table(("rank", "item", *(["title"] if titled else []), score), rows, right=("rank", score))


def _named(run: Run, ids: Sequence[Any]) -> list[tuple[Any, str | None]]:
    """The ids in the run's vocabulary, in its own type, with their titles."""
    numbers = run.item_ids.encode(ids)
    numbers = numbers[numbers > 0]
    titles: list[Any] = [None] * len(numbers)
    if "title" in run.items.columns:
        titles = run.items["title"].gather(numbers - 1).to_list()
    return list(zip(run.item_ids.decode(numbers), titles, strict=True))
