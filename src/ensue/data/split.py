"""Splits: which events are used for training and which are predicted. A split is a set of views and copies nothing.

Suffixes: `U` users or sessions, `E` events of the store, `K` those that are kept, `R` rows, `P` events of all rows,
`B` cases, `S` sessions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, ValidationInfo, field_validator, model_validator

from ensue.config import Config
from ensue.data.arrays import gather_events
from ensue.data.cases import Cases as Cases
from ensue.data.cases import Sequences as Sequences
from ensue.data.marks import ordered_parts, session_parts
from ensue.data.moments import check_seconds, parse_seconds
from ensue.data.session_order import is_known, kept_events, session_order
from ensue.data.store import SequenceStore
from ensue.data.targets import last_two_targets, with_targets
from ensue.errors import DataError
from ensue.registry import OWN, Registry
from ensue.rng import stream


@dataclass(frozen=True, eq=False)
class Split:
    """A division of the store; `leakage` describes in one sentence how training may know of the held-out events."""

    name: str
    train: Sequences
    validation: Cases
    test: Cases
    leakage: str


SPLITS: Registry[Splitter] = Registry("split", hint=OWN)
_KINDS = ("target_event", "target_feature")
_SHARES, _MOMENTS = ("validation_fraction", "test_fraction"), ("validation_from", "test_from")
# Setting -> settings that are not used together with it.
_REPLACED = {"test_from": _SHARES, "split_feature": ("test_fraction", *_MOMENTS)}


class SplitConfig(Config):
    """The kind of split and its boundaries. A setting that the split does not use is an error.

    Attributes:
        split: how events are divided into training, validation and test.
        targets: the events to predict in each held-out part of a user: "last", "first" or "all"; "auto" is "last", or
            "all" for sessions.
        validation_fraction: share of events (global-time), users (user-holdout) or sessions (session).
        test_fraction: the same for the test part.
        validation_from: global-time and session: the start of the validation part (seconds since the epoch, a date such
            as 2020-09-13T12:00, or a value of `order_feature`); needs `test_from`, and replaces the fractions.
        test_from: the test part starts at this time.
        split_feature: predefined (default "split") and session: the event feature with the values "train", "validation"
            (or "valid", "val") and "test". Without validation sessions, the last `validation_fraction` of the training
            sessions are used.
        order_feature: session: the event feature that orders sessions, such as a day number; default: time, or number.
        session_time: session: the event that gives a session's time, "first" or "last" (as in GRU4Rec).
        unseen_items: "keep" held-out events whose items do not occur in training, or "drop" them, as GRU4Rec and SR-GNN
            do: they are then no targets and in no history, and histories without events give no cases.
        target_event: the only kind of events to predict, such as "buy"; events of other kinds are inputs.
        target_feature: target_event: the event feature with the kinds.
        seed: user-holdout: seed of the draw of users.
    """

    split: Annotated[str, SPLITS] = "leave-one-out"
    targets: Literal["auto", "last", "first", "all"] = "auto"
    validation_fraction: float = Field(default=0.1, ge=0, lt=1)
    test_fraction: float = Field(default=0.1, ge=0, lt=1)
    validation_from: int | None = None
    test_from: int | None = None
    split_feature: str | None = None
    order_feature: str | None = None
    session_time: Literal["first", "last"] = "first"
    unseen_items: Literal["keep", "drop"] = "keep"
    target_event: str | None = None
    target_feature: str = "event"
    seed: int = Field(default=0, ge=0)

    @field_validator("validation_from", "test_from", mode="before")
    @classmethod
    def _read_date(cls, value: object, info: ValidationInfo) -> object:
        is_date = isinstance(value, str) and not value.removeprefix("-").isdigit()
        return parse_seconds(str(value), str(info.field_name)) if is_date else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_read()
        if self.order_feature is None and self.test_from is not None:
            check_seconds(self.test_from, "test_from")
            check_seconds(self.validation_from or 0, "validation_from")
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction + test_fraction must stay below 1")
        if self.validation_from is not None and self.test_from is None:
            raise ValueError("validation_from needs test_from")
        if None not in (self.validation_from, self.test_from) and self.validation_from > self.test_from:  # type: ignore[operator]
            raise ValueError("validation_from must not be after test_from")
        return self

    def _check_read(self) -> None:
        """Check that every given setting is used."""
        splitter = SPLITS[self.split]
        # A seed is always accepted: splits without draws are the same for every seed, and saved runs contain one.
        given = self.model_dump(exclude={"split", "seed"}, exclude_defaults=True)
        for name, value in given.items():
            if name not in splitter.takes:
                known = ", ".join(splitter.takes)
                raise ValueError(f"split {self.split!r} does not take {name} (got {value!r}); it takes {known}")
        for name, replaced in _REPLACED.items():
            if both := [other for other in replaced if name in given and other in given]:
                raise ValueError(
                    f"{name} {given[name]!r} replaces {both[0]} (got {given[both[0]]!r}): set only one of them"
                )
        if self.targets not in ("auto", *splitter.targets):
            known = ", ".join(splitter.targets)
            raise ValueError(f"split {self.split!r} has targets {known} (got {self.targets!r})")


_Make = Callable[[SequenceStore, SplitConfig], Split]


@dataclass(frozen=True)
class Splitter:
    """The function that makes a split, and the settings that it uses.

    Attributes:
        make: (store, settings) -> split.
        takes: names of the settings.
        targets: the allowed values of `targets`; "auto" is the first.
    """

    make: _Make
    takes: tuple[str, ...]
    targets: tuple[str, ...]


def _split(name: str, *takes: str, targets: tuple[str, ...] = ("last", "first", "all")) -> Callable[[_Make], _Make]:
    """A decorator that registers a split with the settings that it uses in addition to `targets`."""

    def put(make: _Make) -> _Make:
        SPLITS.register(name)(Splitter(make, ("targets", *_KINDS, *takes), targets))
        return make

    return put


def make_split(store: SequenceStore, config: SplitConfig) -> Split:
    """Split the store according to the configuration.

    Raises:
        DataError: the store lacks something that the split needs (times, a feature).
    """
    if config.target_event is not None:
        store = with_targets(store, config.target_feature, config.target_event)
    split = SPLITS[config.split].make(store, config)
    if config.unseen_items == "keep" or config.split == "session":  # whose targets are chosen among the known events
        return split
    known_E = is_known(store, np.zeros(store.num_users, dtype=bool), split.train.items_P)
    return replace(split, validation=split.validation.without(known_E), test=split.test.without(known_E))


@_split("leave-one-out", "unseen_items", targets=("last",))
def _leave_one_out(store: SequenceStore, config: SplitConfig) -> Split:
    """The last event is the test target, the one before it the validation target, from three events on (SASRec, IV).

    With `target_event` they are the last two events of that kind, if an event precedes the first of them.
    """
    users, validation, test = last_two_targets(store)
    start, train_stop = store.offsets[users], store.offsets[1:].copy()
    train_stop[users] = validation
    return Split(
        name="leave-one-out",
        train=_sequences(store, train_stop),
        validation=Cases(store, users, start, validation, validation),
        test=Cases(store, users, start, test, test),
        leakage="Training events of some users are later than the held-out events of others, so trends of "
        "the test period are known in training.",
    )


@_split("none", targets=("last",))
def _none(store: SequenceStore, config: SplitConfig) -> Split:
    """All events are used for training and none is held out, so there is no validation and no evaluation."""
    nothing = Cases(store, *np.zeros((4, 0), dtype=np.int64))
    leakage = "Nothing is held out, so the model cannot be evaluated."
    return Split("none", _sequences(store, store.offsets[1:]), nothing, nothing, leakage)


@_split("global-time", "unseen_items", *_SHARES, *_MOMENTS)
def _global_time(store: SequenceStore, config: SplitConfig) -> Split:
    """Two moments divide all events: training is before the first, test from the second on.

    Events with the same time are never separated. With fractions, the moments are those of the last training and the
    last validation event, so changes of the time or item of a held-out event do not move them. The fractions refer to
    all events, however, so another *number* of events moves the moments; use `test_from` for a fixed moment.
    """
    if store.times is None:
        raise DataError("split 'global-time' needs times, but this store has only the order of events")
    first, second = _boundaries(np.sort(store.times), config)
    train_stop = _count_before(store, first)
    validation_stop = _count_before(store, second)
    train = _sequences(store, train_stop)
    targets = _targets(config)
    test = _cases(store, validation_stop, store.offsets[1:], targets)
    if len(train) and len(test) and store.times[train.stop_R - 1].max() > store.times[test.target_B].min():
        raise DataError("a training event is later than a test event: times decrease within a user's sequence")
    return Split(
        name="global-time",
        train=train,
        validation=_cases(store, train_stop, validation_stop, targets),
        test=test,
        leakage="No event after the boundary is used for training; a test history contains the user's own events up to "
        "the target, including those after the boundary; users without any earlier event are not tested.",
    )


@_split("predefined", "unseen_items", "split_feature", targets=("all", "last", "first"))
def _predefined(store: SequenceStore, config: SplitConfig) -> Split:
    """A feature gives the part of each event, as in data of three files (`ensue prepare --test`)."""
    train_stop, validation_stop = ordered_parts(store, config.split_feature or "split")
    targets = _targets(config)
    return Split(
        name="predefined",
        train=_sequences(store, train_stop),
        validation=_cases(store, train_stop, validation_stop, targets),
        test=_cases(store, validation_stop, store.offsets[1:], targets),
        leakage="The data gives the parts: a user's training events precede the user's held-out events, but training "
        "events of other users may be later.",
    )


@_split("user-holdout", "unseen_items", *_SHARES, "seed")
def _user_holdout(store: SequenceStore, config: SplitConfig) -> Split:
    """Some users, drawn among those with two or more events, are held out; their last events are the targets."""
    users = np.flatnonzero(store.lengths >= 2)
    drawn = stream(config.seed, "user-holdout").permutation(users)
    test_count = round(config.test_fraction * len(users))
    validation_count = round(config.validation_fraction * len(users))
    in_test = np.zeros(store.num_users, dtype=bool)
    in_validation = np.zeros(store.num_users, dtype=bool)
    in_test[drawn[:test_count]] = True
    in_validation[drawn[test_count : test_count + validation_count]] = True
    start, stop = store.offsets[:-1], store.offsets[1:]
    targets = _targets(config)
    return Split(
        name="user-holdout",
        train=_sequences(store, np.where(in_test | in_validation, start, stop)),
        validation=_cases(store, start, np.where(in_validation, stop, start), targets),
        test=_cases(store, start, np.where(in_test, stop, start), targets),
        leakage="Held-out users are not used for training, but other users' events from the same and later "
        "times are, so trends of the test period are known in training.",
    )


@_split(
    "session",
    *(*_SHARES, *_MOMENTS, "split_feature", "order_feature", "session_time", "unseen_items"),
    targets=("all", "last", "first"),
)
def _session(store: SequenceStore, config: SplitConfig) -> Split:
    """The store's rows are sessions: whole sessions are used for training or for testing, in their order."""
    name, last = config.split_feature, config.session_time == "last"
    part = (
        _ordered_parts(store, config)
        if name is None
        else session_parts(store, name, config.order_feature, config.validation_fraction, last)
    )
    train = _sequences(store, np.where(part == 0, store.offsets[1:], store.offsets[:-1]))
    kept_E = None if config.unseen_items == "keep" else is_known(store, part == 0, train.items_P)
    return Split(
        name="session",
        train=train,
        validation=_session_cases(store, part == 1, _targets(config), kept_E),
        test=_session_cases(store, part == 2, _targets(config), kept_E),
        leakage="Sessions are whole and ordered by their first event, so a training session that extends beyond "
        "the boundary has events later than the first test events."
        if config.session_time == "first"
        else "Sessions are whole and ordered by their last event, so no event after the boundary is used for training; "
        "a test session may begin before it.",
    )


def _session_cases(store: SequenceStore, held_U: np.ndarray, targets: str, kept_E: np.ndarray | None) -> Cases:
    """The cases of some sessions; events that are not kept are no targets and in no history."""
    asked = store if kept_E is None else kept_events(store, kept_E)
    start, stop = asked.offsets[:-1], asked.offsets[1:]
    cases = _cases(asked, start, np.where(held_U, stop, start), targets)
    if kept_E is None:
        return cases
    event_K = np.flatnonzero(kept_E)
    places = (event_K[cases.start_B], event_K[cases.stop_B - 1] + 1, event_K[cases.target_B])
    return Cases(store, cases.users_B, *places, kept_E)


def _ordered_parts(store: SequenceStore, config: SplitConfig) -> np.ndarray:
    """[U] 0 train, 1 validation, 2 test, in the sessions' order."""
    order_S = session_order(store, config.order_feature, config.test_from is not None, config.session_time == "last")
    first, second = _boundaries(np.sort(order_S), config)
    part = np.zeros(store.num_users, dtype=np.int8)
    part[store.lengths > 0] = (order_S >= first).astype(np.int8) + (order_S >= second)
    return part


def _targets(config: SplitConfig) -> str:
    return SPLITS[config.split].targets[0] if config.targets == "auto" else config.targets


def _boundaries(ordered: np.ndarray, config: SplitConfig) -> tuple[float, float]:
    """Where validation and test start: values v, w so that training is < v and validation is < w."""
    if config.test_from is not None:
        first = config.test_from if config.validation_from is None else config.validation_from
        return first, config.test_from
    count = len(ordered)
    train_count = int(count * (1 - config.validation_fraction - config.test_fraction) + 1e-9)
    seen_count = int(count * (1 - config.test_fraction) + 1e-9)
    if train_count < 1:
        raise DataError(f"{count} are too few: none would be left for training")
    return _next_above(ordered[train_count - 1]), _next_above(ordered[max(seen_count, train_count) - 1])


def _next_above(value: np.generic) -> float:
    return float(np.nextafter(value, np.inf)) if isinstance(value, np.floating) else int(value) + 1


def _count_before(store: SequenceStore, moment: float) -> np.ndarray:
    """int64 [U]: the index after each user's last event earlier than `moment` (times are sorted within a user)."""
    assert store.times is not None
    before = np.concatenate([[0], np.cumsum(store.times < moment)])
    start, stop = store.offsets[:-1], store.offsets[1:]
    after: np.ndarray = start + before[stop] - before[start]
    return after


def _sequences(store: SequenceStore, stop: np.ndarray) -> Sequences:
    """One row for each user's events from the first to `stop`, without users that have none."""
    start = store.offsets[:-1]
    users = np.flatnonzero(stop > start)
    return Sequences(store, users, start[users], stop[users])


def _cases(store: SequenceStore, first: np.ndarray, stop: np.ndarray, targets: str) -> Cases:
    """Cases whose targets are the last, first or all of each user's events first:stop that have a history."""
    start = store.offsets[:-1]
    first = np.maximum(first, start + 1)
    if store.is_target is not None:
        return _target_cases(store, store.is_target, first, stop, targets)
    users = np.flatnonzero(stop > first)
    if targets == "all":
        counts = stop[users] - first[users]
        target = np.arange(counts.sum()) + np.repeat(first[users] - np.cumsum(counts) + counts, counts)
        users = np.repeat(users, counts)
    else:
        target = stop[users] - 1 if targets == "last" else first[users]
    return Cases(store, users, start[users], target, target)


def _target_cases(
    store: SequenceStore, is_target_E: np.ndarray, first: np.ndarray, stop: np.ndarray, targets: str
) -> Cases:
    """`_cases`, of a store in which only some events may be targets; `first` is after each user's first event."""
    start = store.offsets[:-1]
    stop = np.maximum(first, stop)
    target, users = gather_events(first, stop), np.repeat(np.arange(len(first)), stop - first)
    target, users = target[is_target_E[target]], users[is_target_E[target]]
    if targets != "all" and len(users):
        is_edge = np.diff(users, prepend=-1) != 0 if targets == "first" else np.diff(users, append=-1) != 0
        target, users = target[is_edge], users[is_edge]
    return Cases(store, users, start[users], target, target)
