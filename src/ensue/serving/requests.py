"""From the ids of a request to the item numbers of a model.

Suffix: `T` events of one history.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from ensue.data.vocabulary import ExternalId
from ensue.errors import EnsueError
from ensue.retrieval.request import moment, seconds
from ensue.runs.run import Run
from ensue.serving.engine import Query
from ensue.serving.refusal import RequestError
from ensue.serving.schemas import RecommendRequest
from ensue.serving.states import History

Result = TypeVar("Result")
_NOTHING = np.empty(0, np.int64)


def numbers_of(run: Run, ids: Sequence[ExternalId]) -> np.ndarray:
    """Item numbers, 0 for unknown ids. Ids are compared as text: 7 and "7" are the same."""
    if not ids:
        return _NOTHING
    return run.item_ids.encode(ids if run.item_ids.is_integer else [str(each) for each in ids]).astype(np.int64)


def query_of(run: Run, request: RecommendRequest, history: Sequence[ExternalId], times: Sequence[int] | None) -> Query:
    """The request as a query of a run's model.

    Args:
        run: the run.
        request: the request.
        history: the item ids of the request's history or user, oldest first.
        times: their times in seconds, if known.

    Raises:
        RequestError: the times break a rule, or the model needs times and has none.
    """
    numbers_T = numbers_of(run, history)
    is_known_T = numbers_T > 0
    read = history_of(run, numbers_T, times, request.at)
    exclude = numbers_of(run, request.exclude)
    if request.exclude_seen:
        exclude = np.concatenate((exclude, numbers_T))
    allow = None if request.allow is None else _known(numbers_of(run, request.allow))
    boost = dict(zip(numbers_of(run, list(request.boost)).tolist(), request.boost.values(), strict=True))
    boost.pop(0, None)
    known = int(np.count_nonzero(is_known_T))
    unknown = () if known == len(history) else tuple(history[place] for place in np.flatnonzero(~is_known_T).tolist())
    return Query(read, request.k, _known(exclude), allow, boost, known, unknown)


def history_of(run: Run, numbers_T: np.ndarray, times: Sequence[int] | None, at: int | None) -> History | None:
    """The newest known events that the model reads; None if there are none.

    Raises:
        RequestError: the times break a rule, or the model needs times and has none.
    """
    config = run.config.model
    times_T = None
    if times is not None:
        times_T = _checked("times", list(times), lambda: seconds(times, len(numbers_T)))
    newest = None if times_T is None or not len(times_T) else int(times_T[-1])
    at = _checked("at", at, lambda: moment(at, newest, config))
    is_known_T = numbers_T > 0
    if not is_known_T.any():
        return None
    if config.reads_times and times_T is None:
        raise RequestError(422, "times", f"{config.name} reads the times of events: give one for each item")
    newest_known = np.flatnonzero(is_known_T)[-run.model.maxlen :]
    if not config.reads_times or times_T is None:
        return History(numbers_T[newest_known])
    if config.reads_query_time and at is None:
        at = max(int(time.time()), int(times_T[-1]))
    return History(numbers_T[newest_known], times_T[newest_known], at)


def _known(numbers: np.ndarray) -> np.ndarray:
    return numbers[numbers > 0]


def _checked(field: str, value: object, check: Callable[[], Result]) -> Result:
    """The result of a check, whose errors are those of a field."""
    try:
        return check()
    except EnsueError as error:
        rule, _, _ = str(error).removeprefix(f"{field} ").partition(" (got ")
        raise RequestError(422, field, rule, value) from None
