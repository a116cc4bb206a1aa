"""Concatenation of frames with the same columns; types that cannot be joined without changing values are refused."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from ensue.errors import DataError

_TEXTS = (pl.String, pl.Categorical, pl.Enum)


def stack(frames: Sequence[pl.DataFrame], names: Sequence[str]) -> pl.DataFrame:
    """All rows, frame after frame.

    Args:
        frames: frames with the columns of the first one, in any order; a missing boolean column is false.
        names: name of each frame, for messages.

    Raises:
        DataError: the types of a column cannot be joined, such as texts in one frame and numbers in another.
    """
    columns = list(dict.fromkeys(name for frame in frames for name in frame.columns))
    padded = [frame.with_columns(pl.lit(False).alias(c) for c in columns if c not in frame.columns) for frame in frames]
    types = {column: _common_type(padded, names, column) for column in columns}
    try:
        alike = [frame.select(columns).cast(types) for frame in padded]  # type: ignore[arg-type]
    except pl.exceptions.PolarsError as error:  # a decimal type too narrow for the digits of another part
        raise DataError(f"{names[0]}: the parts cannot be joined ({str(error).splitlines()[0]})") from None
    return pl.concat(alike, rechunk=False)


def _common_type(frames: Sequence[pl.DataFrame], names: Sequence[str], column: str) -> pl.DataType:
    common, first = frames[0].schema[column], names[0]
    for frame, name in zip(frames[1:], names[1:], strict=True):
        kind = frame.schema[column]
        joined = _joined(common, kind)
        if joined is None:
            raise DataError(
                f"{name}: column {column!r} contains {kind}, but {common} in {first}: use one type in all parts"
            )
        if common == pl.Null:
            first = name
        common = joined
    return common


def _joined(one: pl.DataType, other: pl.DataType) -> pl.DataType | None:
    """The type that can represent the values of both; None if there is none that keeps ids unchanged."""
    if one == other or other == pl.Null:
        return one
    if one == pl.Null:
        return other
    if one in _TEXTS and other in _TEXTS:
        return pl.String()
    if one.is_integer() and other.is_integer():
        return None if pl.UInt64 in (one, other) or pl.Int128 in (one, other) else pl.Int64()
    if (one.is_float() and other.is_float()) or (one.is_numeric() and other.is_numeric() and not one.is_decimal()):
        return None if other.is_decimal() else pl.Float64()
    if isinstance(one, pl.Decimal) and isinstance(other, pl.Decimal):
        return pl.Decimal(38, max(one.scale, other.scale))
    if isinstance(one, pl.Datetime) and isinstance(other, pl.Datetime) and one.time_zone == other.time_zone:
        return pl.Datetime("us", one.time_zone)
    return None
