"""Turn a checked log into a store: duplicates, filters, numbers and order; the store is written whole or not at all.

Suffixes: `E` events in the order of the source, `S` events sorted by user and time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from ensue.config import Config
from ensue.data.described import Described, event_arrays, log_columns
from ensue.data.interactions import Columns, Interactions, in_words, read_interactions
from ensue.data.item_vectors import ItemVectors
from ensue.data.moments import written
from ensue.data.order import stable_order
from ensue.data.replacing import check_target, recover, write_whole
from ensue.data.sources import Parts, Source, parts_of
from ensue.data.store import SequenceStore
from ensue.data.vocabulary import Vocabulary
from ensue.errors import ConfigError, DataError

# A log is in reverse order if at least this share of the steps between a user's events go back in time.
BACKWARDS_SHARE = 0.9


class PrepareConfig(Config):
    """The filters of a log. By default, all usable rows are kept.

    Attributes:
        min_user_events: users with fewer events are dropped.
        min_item_events: items with fewer events are dropped.
        filter: "single" counts users and items once, both on the unfiltered log (as SASRec's preparation
            does, so a few rarer ones remain); "core" repeats until every count holds; "none" does not filter, and
            takes no minimum.
        duplicates: several events of one user with one item: keep "all", the "first" or the "last".
        exact_duplicates: events of the same user, item and time: "keep" all or "drop" all but the first.
        min_rating: events with a lower rating, or without one, are dropped.
    """

    min_user_events: int = Field(default=1, ge=1)
    min_item_events: int = Field(default=1, ge=1)
    filter: Literal["single", "core", "none"] = "single"
    duplicates: Literal["keep", "first", "last"] = "keep"
    exact_duplicates: Literal["keep", "drop"] = "keep"
    min_rating: float | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("min_user_events", "min_item_events"):
            if self.filter == "none" and (least := getattr(self, name)) > 1:
                raise ValueError(f"{name} {least} and filter 'none', which leaves nothing out, contradict each other")
        return self


@dataclass(frozen=True)
class PrepareReport:
    """The rows read, kept and dropped; `rows_in == interactions + sum(dropped.values())`.

    Attributes:
        rows_in: number of rows in the source.
        interactions: number of events in the store.
        users: number of users in the store.
        items: number of items in the store.
        dropped: reason -> number of rows.
        tie_share: share of events with the time of another event of the same user; None without times.
        time_unit: unit of the times in the source.
        first: the earliest time of the store, as ISO 8601 in UTC; None without times.
        last: the latest time, likewise.
        columns: meaning -> column of the source.
        items_described: number of items described in the item file; None without one.
        time_zone: the time zone of dates that did not state their own; None without times.
        why: meaning -> why its column was chosen.
        notes: remarks on unusual properties of the log.
        shape: the published shape that the log was recognised as, and the evidence; "" for none.
    """

    rows_in: int
    interactions: int
    users: int
    items: int
    dropped: dict[str, int]
    tie_share: float | None
    time_unit: str | None
    first: str | None
    last: str | None
    columns: dict[str, str]
    items_described: int | None
    time_zone: str | None = None
    why: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    shape: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


Progress = Callable[[str], None]


def prepare(
    source: Source | Interactions,
    out: Path | None = None,
    columns: Columns | None = None,
    config: PrepareConfig | None = None,
    items: Source | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    users: Source | None = None,
    item_vectors: ItemVectors | None = None,
) -> tuple[SequenceStore, PrepareReport]:
    """Read a log, filter it, number users and items, sort stably by (user, time, row) and write the store.

    Times are sorted at the precision of the source (up to microseconds) and stored as whole seconds, rounded
    down. Rows of one user and time keep the source's order, or the reverse of it where the source runs from the
    newest event to the oldest; rows of a log without times keep the source's order.

    Args:
        source: a file, a frame, or the result of `read_interactions`.
        out: the folder to write, or None for a store in memory.
        columns: the meaning of the columns.
        config: the filters.
        items: a file or frame that describes items (id, title, category, ...).
        overwrite: replace a store that is already in `out`; other folders, and stores with other files in them,
            are never replaced.
        progress: called with the name of each stage as it begins.
        users: a file or frame that describes users (id, city, ...).
        item_vectors: columns of `items` that contain vectors, or texts to embed.

    Returns:
        The store (mapped from `out` if given) and the report.

    Raises:
        DataError: the log cannot be read, or no event is left.
        ConfigError: a setting needs a column that the log does not have.
        ArtefactError: `out` cannot be written or replaced.
    """
    config = config or PrepareConfig()
    say = progress or (lambda _: None)
    if out is not None:
        recover(out)
        check_target(out, overwrite)
    say("read")
    source = source if isinstance(source, Interactions) else parts_of(source)
    columns = columns or Columns()
    described = Described(items, users, columns.encoding, columns.features)
    columns = log_columns(columns, items, users)
    log = source if isinstance(source, Interactions) else read_interactions(source, columns)
    say("filter")
    store, report = _build(log, config, described)
    if item_vectors is not None:
        store, notes = item_vectors.added(store, say)
        report = replace(report, notes=(*report.notes, *notes))
    if isinstance(source, Parts) and source.query:
        store = replace(store, made={**store.made, "query": source.query})
    if out is None:
        return store, report
    say("write")
    return write_whole(store, out), report


def _build(log: Interactions, config: PrepareConfig, described: Described) -> tuple[SequenceStore, PrepareReport]:
    _check_columns(log, config)
    dropped = dict(log.dropped)
    frame, all_users, all_items = _numbered(log.frame)
    frame = _drop_rated(frame, config, dropped)
    frame, order_notes = _sorted(frame)
    frame = _drop_duplicates(frame, config, dropped)
    frame = _drop_rare(frame, config, dropped)
    if not frame.height:
        reasons = in_words(dropped, log.examples) or "the log is empty"
        raise DataError(f"{log.source}: no event is left ({reasons})")
    users, user_E = _used(all_users, frame["user"].to_numpy())
    item_ids, item_E = _used(all_items, frame["item"].to_numpy())
    frame = frame.with_columns(pl.Series("user", user_E), pl.Series("item", item_E))
    user_table, item_table, items_described = described.tables(frame, log, users, item_ids)
    features, feature_values = event_arrays(frame, described.of_events(log))
    times_us = frame["time"].to_numpy() if "time" in frame.columns else None
    times = None if times_us is None else times_us // 1_000_000
    report = PrepareReport(
        rows_in=log.rows_in,
        interactions=frame.height,
        users=len(users),
        items=len(item_ids),
        dropped=dropped,
        tie_share=None if times_us is None else _tie_share(user_E, times_us),
        time_unit=log.time_unit,
        first=None if times is None else written(times.min()),
        last=None if times is None else written(times.max()),
        columns=dict(log.columns),
        items_described=items_described,
        time_zone=None if times is None else log.settings.get("time_zone") or "UTC",
        why=dict(log.why),
        notes=(*log.notes, *order_notes),
        shape=log.shape,
    )
    made = {
        "source": Path(log.source).name,
        "parts": [{"name": Path(name).name, "rows": rows} for name, rows in log.parts],
        "config": config.model_dump(mode="json"),
        "columns": dict(log.settings),
        "report": report.as_dict(),
    }
    if described.specs:
        made["features"] = list(described.given)
    store = SequenceStore.from_arrays(
        offsets=np.concatenate([[0], np.cumsum(np.bincount(user_E, minlength=len(users) + 1)[1:])]),
        items=item_E,
        times=times,
        features=features,
        users=users,
        item_ids=item_ids,
        item_table=item_table,
        feature_values=feature_values,
        made=made,
        user_table=user_table,
    )
    return store, report


def _check_columns(log: Interactions, config: PrepareConfig) -> None:
    if config.min_rating is not None and "rating" not in log.columns:
        raise ConfigError(f"{log.source}: min_rating needs a rating column, but none is known: name it (--rating)")
    if config.exact_duplicates == "drop" and "time" not in log.columns:
        raise ConfigError(
            f"{log.source}: exact_duplicates = 'drop' needs times, but none are known: name them (--time)"
        )


def _numbered(frame: pl.DataFrame) -> tuple[pl.DataFrame, Vocabulary, Vocabulary]:
    """The frame with numbers of users and items instead of ids."""
    users = Vocabulary.from_ids(frame["user"])
    items = Vocabulary.from_ids(frame["item"])
    numbers = [pl.Series("user", users.encode(frame["user"])), pl.Series("item", items.encode(frame["item"]))]
    return frame.with_columns(numbers), users, items


def _sorted(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """The events by user and time, and notes on their order.

    Events with the same time keep the order of their rows, or the reverse order if the log runs backwards, that is, if
    most rows of a user are before those of earlier events.
    """
    frame = frame.drop("row")
    user_E = frame["user"].to_numpy()
    if "time" not in frame.columns:
        return frame[stable_order(user_E)], []
    time_E = frame["time"].to_numpy()
    order = stable_order(user_E, time_E)
    if bool((time_E[1:] > time_E[:-1]).all()):
        return frame[order], []  # as servers write logs, and no two events have the same time
    user_S, time_S = user_E[order], time_E[order]
    same_user = user_S[1:] == user_S[:-1]
    same_time = time_S[1:] == time_S[:-1]
    tied, stepped = same_user & same_time, same_user & ~same_time
    del user_S, time_S, same_user, same_time
    backwards = float((order[1:] < order[:-1])[stepped].mean()) if stepped.any() else 0.0
    if not tied.any() or backwards < BACKWARDS_SHARE:
        return frame[order], []
    note = (
        f"{backwards:.0%} of the steps from a user's event to the next go upwards in the source, so it runs from the "
        "newest event to the oldest: events with the same time are read from its end"
    )
    return frame[len(order) - 1 - stable_order(user_E[::-1], time_E[::-1])], [note]


def _keep(frame: pl.DataFrame, keep: pl.Series | np.ndarray, reason: str, dropped: dict[str, int]) -> pl.DataFrame:
    mask = keep if isinstance(keep, pl.Series) else pl.Series(keep)
    if count := frame.height - int(mask.sum()):
        dropped[reason] = dropped.get(reason, 0) + count
        frame = frame.filter(mask)
    return frame


def _drop_rated(frame: pl.DataFrame, config: PrepareConfig, dropped: dict[str, int]) -> pl.DataFrame:
    if config.min_rating is None:
        return frame
    frame = _keep(frame, frame["rating"].is_not_null() & frame["rating"].is_not_nan(), "missing rating", dropped)
    return _keep(frame, frame["rating"] >= config.min_rating, f"rating below {config.min_rating:g}", dropped)


def _drop_duplicates(frame: pl.DataFrame, config: PrepareConfig, dropped: dict[str, int]) -> pl.DataFrame:
    if config.exact_duplicates == "drop":
        first = frame.select(pl.struct("user", "item", "time").is_first_distinct()).to_series()
        frame = _keep(frame, first, "exact duplicate", dropped)
    if config.duplicates != "keep":
        pair = frame["user"].cast(pl.Int64) * (2**31) + frame["item"].cast(pl.Int64)
        one = pair.is_first_distinct() if config.duplicates == "first" else pair.is_last_distinct()
        frame = _keep(frame, one, "repeated item of a user", dropped)
    return frame


def _drop_rare(frame: pl.DataFrame, config: PrepareConfig, dropped: dict[str, int]) -> pl.DataFrame:
    """Drop users and items below the minima, once or until nothing changes."""
    while config.filter != "none":
        user_E, item_E = frame["user"].to_numpy(), frame["item"].to_numpy()
        busy_E = np.bincount(user_E)[user_E] >= config.min_user_events if len(user_E) else np.ones(0, bool)
        known_E = np.bincount(item_E)[item_E] >= config.min_item_events if len(item_E) else np.ones(0, bool)
        if busy_E.all() and known_E.all():
            break
        rows = int((~busy_E).sum())
        if rows:
            reason = f"user with fewer than {config.min_user_events} events"
            dropped[reason] = dropped.get(reason, 0) + rows
        if rows := int((busy_E & ~known_E).sum()):
            reason = f"item with fewer than {config.min_item_events} events"
            dropped[reason] = dropped.get(reason, 0) + rows
        frame = frame.filter(pl.Series(busy_E & known_E))
        if config.filter == "single":
            break
    return frame


def _used(vocabulary: Vocabulary, numbers_E: np.ndarray) -> tuple[Vocabulary, np.ndarray]:
    """The vocabulary of the numbers that occur, and the events' numbers in it, in the same order."""
    occurs = np.bincount(numbers_E, minlength=len(vocabulary) + 1)[1:] > 0
    if occurs.all():
        return vocabulary, numbers_E
    renumbered = np.concatenate([[0], np.cumsum(occurs)]).astype(np.int32)
    return Vocabulary(vocabulary.ids.filter(pl.Series(occurs))), renumbered[numbers_E]


def _tie_share(user_E: np.ndarray, times_us: np.ndarray) -> float:
    same = (user_E[1:] == user_E[:-1]) & (times_us[1:] == times_us[:-1])
    return float((np.append(same, False) | np.append(False, same)).mean())
