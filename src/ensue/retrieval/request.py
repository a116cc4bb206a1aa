"""Checks of the arguments of a recommender: ids, times, the time of the request, switches, paths.

Suffix: `T` events of one history.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ensue.data.features import Feature
from ensue.data.moments import check_seconds
from ensue.data.vocabulary import ExternalId
from ensue.errors import ConfigError, DataError, EnsueError, nearest
from ensue.models import ModelConfig


def whole(name: str, value: int) -> int:
    """Check a whole number of 1 or more, such as a count.

    Raises:
        EnsueError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise EnsueError(f"{name} must be a whole number of 1 or more (got {value!r})")
    return int(value)


def ids_of(name: str, ids: Iterable[ExternalId], ordered: bool = True) -> list[ExternalId]:
    """Check and return a list of ids. If `ordered` is false, a set is accepted too.

    Raises:
        DataError: it is not a list of ids. A string is refused, since its letters would be read as ids, and so is a
            set or a dictionary if the order matters.
    """
    if isinstance(ids, str | bytes | Mapping) or (ordered and isinstance(ids, Set)) or not isinstance(ids, Iterable):
        raise DataError(f"{name} must be a list of ids (got {ids!r})")
    return list(ids)


def switch(name: str, value: bool) -> bool:
    """Check a value that must be True or False.

    Raises:
        ConfigError: it is neither.
    """
    if not isinstance(value, bool | np.bool_):
        raise ConfigError(f"{name} must be True or False (got {value!r})")
    return bool(value)


def path_of(name: str, value: str | Path) -> Path:
    """Check and return the path of a file or folder.

    Raises:
        ConfigError: it is not a path.
    """
    if not isinstance(value, str | Path):
        raise ConfigError(f"{name} must be a path (got {value!r})")
    return Path(value)


def seconds(times: Sequence[int], count: int) -> np.ndarray:
    """Check and return the times of a history of `count` events, int64 [count].

    Raises:
        DataError: they are not seconds, their number differs from the number of events, or they decrease.
    """
    try:
        seconds_T = np.asarray(times)
    except ValueError:
        seconds_T = np.asarray(None)
    # Numbers outside int64, and anything that is not a number, give arrays of another kind.
    if seconds_T.dtype.kind not in "iuf" or not np.isfinite(seconds_T).all():
        raise DataError(f"times must be seconds since the epoch (got {times!r})")
    if seconds_T.shape != (count,):
        raise DataError(f"times must have one value for each of the history's {count} items (got {seconds_T.size})")
    if len(seconds_T):
        check_seconds(int(seconds_T[np.abs(seconds_T.astype(np.float64)).argmax()]), "times")
    seconds_T = seconds_T.astype(np.int64)
    falls = np.flatnonzero(np.diff(seconds_T) < 0)
    if len(falls):
        earlier, later = seconds_T[falls[0] : falls[0] + 2]
        raise DataError(f"times must not decrease: a history is oldest first (got {later} after {earlier})")
    return seconds_T


def feature_codes(
    features: Sequence[Feature], given: Mapping[str, Any] | None, count: int
) -> dict[str, np.ndarray] | None:
    """The codes of the features of a request, by name: int64 [count] each; None if the model reads none.

    Args:
        features: those that the model reads; columns of items are looked up, so nobody gives them.
        given: name -> the values of the history's events, or the value of the user; None for an unknown value.
        count: number of events of the history.

    Raises:
        ConfigError: a feature is given that the model does not read.
        DataError: a feature is absent, or has another number of values than the history has events.
    """
    asked = {feature.name: feature for feature in features if feature.of != "item"}
    given = dict(given or {})
    if unknown := [name for name in given if name not in asked]:
        raise ConfigError(f"feature {unknown[0]!r} is not read by this model: {nearest(unknown[0], asked)}; omit it")
    codes = {}
    for name, feature in asked.items():
        if name not in given:
            kind = f"the value of each of the {count} items" if feature.of == "event" else "the value of the user"
            raise DataError(
                f"this model reads the {feature.of} feature {name!r}: give {kind} (features={{{name!r}: ...}}, "
                f"--feature {name}=...), or None (an empty value) where it is unknown"
            )
        values = given[name] if feature.of == "event" else [given[name]] * count
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
            raise DataError(f"feature {name!r} must be a list with a value for each item (got {values!r})")
        values = list(values)
        if len(values) != count:
            raise DataError(
                f"feature {name!r} must have one value for each of the history's {count} items (got {len(values)})"
            )
        codes[name] = feature.codes(pl.Series([_text(value) for value in values], dtype=pl.String))
    return codes if features else None


def _text(value: object) -> str | None:
    """A value as the text that it has in a column; None for an unknown value."""
    if value is None or value != value:
        return None
    return str(value).lower() if isinstance(value, bool | np.bool_) else str(value)


def moment(at: int | None, newest: int | None, model: ModelConfig) -> int | None:
    """Check and return the time of the request, in seconds since the epoch.

    Args:
        at: the time, or None.
        newest: the time of the newest event, if known.
        model: the settings of the model that answers the request.

    Raises:
        ConfigError: the model does not read the time of a request.
        DataError: it is not a whole number of seconds, or it is before the newest event.
    """
    if at is None:
        return None
    if not model.reads_query_time:
        raise ConfigError(f"at needs a model trained with query_time, and this {model.name} was not: omit at")
    if isinstance(at, bool) or not isinstance(at, int | np.integer):
        raise DataError(f"at must be seconds since the epoch (got {at!r})")
    check_seconds(int(at), "at")
    if newest is not None and at < newest:
        raise DataError(f"at {at} is earlier than the newest event of the history, at {newest}")
    return int(at)
