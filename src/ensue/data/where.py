"""Rows chosen by value: `event == 'buy' and (price > 5 or not city in ('Oslo', 'Bern'))`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import polars as pl

from ensue.data.moments import to_microseconds
from ensue.errors import ConfigError, DataError, is_utf8

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "=": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_TEXT = r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\""
_NUMBER = r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.])"
_CONDITION = re.compile(
    rf"\s*(?P<column>`[^`]+`|[^\s=!<>`(][^\s=!<>`]*)\s*(?:(?P<sign>==|=|!=|<=|>=|<|>)\s*(?P<value>{_TEXT}|{_NUMBER})"
    rf"|(?P<not>not\s+)?in\s*\(\s*(?P<list>(?:{_TEXT}|{_NUMBER})(?:\s*,\s*(?:{_TEXT}|{_NUMBER}))*)\s*\))",
    re.IGNORECASE,
)
_VALUE = re.compile(rf"{_TEXT}|{_NUMBER}")
# A column can be called `not` too: `not == 5`.
_NOT = re.compile(r"\s*not(?=[\s(`])(?!\s*(?:[=!<>]|in\s*\())", re.IGNORECASE)
_DEEPEST = 50

Lookup = Callable[[str], pl.Series]


@dataclass(frozen=True)
class Condition:
    """One comparison of a column with values.

    Attributes:
        column: the column.
        sign: ==, !=, <, <=, >, >=, or "in" and "not in".
        values: texts, which are compared as written, or numbers; exactly one unless the sign is "in" or "not in".
    """

    column: str
    sign: str
    values: tuple[str | int | float, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are compared."""
        return (self.column,)

    def applies(self, lookup: Lookup) -> pl.Series:
        """Whether each row satisfies the condition; null where the value is missing, or is no number.

        Raises:
            DataError: the column is of a type that cannot be compared with texts or numbers.
        """
        column, values = lookup(self.column), self.values
        if column.dtype in (pl.Date, pl.Datetime):
            column, values = to_microseconds(column)[0], tuple(map(self._moment, values))
        if self.sign not in ("in", "not in"):
            result: pl.Series = _OPERATORS[self.sign](self._as(column, _type_of(values[0])), values[0])
            return result
        inside = pl.repeat(False, len(column), eager=True)
        for kind in {_type_of(value) for value in values}:
            inside |= (
                self._as(column, kind).is_in([value for value in values if _type_of(value) == kind]).fill_null(False)
            )
        known = pl.select(pl.when(column.is_not_null()).then(inside)).to_series()
        return known if self.sign == "in" else ~known

    def _as(self, column: pl.Series, kind: type[pl.DataType]) -> pl.Series:
        """The column in another type; null if a value does not have one."""
        if column.dtype == pl.String and kind != pl.String:
            column = column.str.strip_chars()
        try:
            return column.cast(kind, strict=False)
        except pl.exceptions.PolarsError:
            raise DataError(
                f"where: column {self.column!r} contains {column.dtype}, and is compared with {kind}"
            ) from None

    def _moment(self, value: str | int | float) -> int:
        """A date in quotes as microseconds."""
        moment = to_microseconds(pl.Series([value]))[0][0] if isinstance(value, str) else None
        if moment is None:
            raise DataError(
                f"where: column {self.column!r} contains dates: write one such as '2020-09-13' (got {value!r})"
            )
        return int(moment)


@dataclass(frozen=True)
class Combination:
    """Conditions that are joined, or the negation of one.

    Attributes:
        word: "and", "or" or "not".
        parts: the conditions; exactly one of "not".
    """

    word: str
    parts: tuple[Where, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are compared."""
        return tuple(name for part in self.parts for name in part.columns)

    def applies(self, lookup: Lookup) -> pl.Series:
        """Whether each row satisfies the conditions; null where that depends on a missing value, as in SQL."""
        results = (part.applies(lookup) for part in self.parts)
        if self.word == "not":
            return ~next(results)
        return reduce(operator.and_ if self.word == "and" else operator.or_, results)


Where = Condition | Combination


def parse_where(text: str) -> Where:
    """The conditions in a text: comparisons, joined by `and`, `or`, `not` and parentheses.

    Raises:
        ConfigError: it is not of this form; the message shows the place.

    >>> parse_where("event == 'buy' or price > 5").parts[1]
    Condition(column='price', sign='>', values=(5.0,))
    """
    if not is_utf8(text):
        raise ConfigError(f"where: {text!r} is not UTF-8")
    parser = _Parser(text)
    where = parser.any_of()
    if text[parser.place :].strip():
        raise parser.unreadable()
    return where


class _Parser:
    """Reads a text from its start; `place` is the first character that has not been read."""

    def __init__(self, text: str) -> None:
        self.text, self.place, self.depth = text, 0, 0

    def any_of(self) -> Where:
        """Conditions joined by `or`, which binds less than `and`."""
        return self._joined("or", lambda: self._joined("and", self._one))

    def unreadable(self) -> ConfigError:
        """The error for the rest of the text."""
        rest = self.text[self.place :].strip()[:60]
        fault = f"cannot read {rest!r}" if rest else "the text ends too early"
        return ConfigError(
            f"where: {fault}: write column == 'text', column > 5 or "
            "column in ('a', 'b'), joined by and, or, not and parentheses; a column with blanks in its name goes "
            "between backticks"
        )

    def _joined(self, word: str, read: Callable[[], Where]) -> Where:
        parts = [read()]
        while self._skip(re.compile(rf"\s*{word}(?=[\s(`])", re.IGNORECASE)):
            parts.append(read())
        return parts[0] if len(parts) == 1 else Combination(word, tuple(parts))

    def _one(self) -> Where:
        """A comparison, a negation, or conditions in parentheses."""
        self.depth += 1
        if self.depth > _DEEPEST:
            raise ConfigError(f"where: more than {_DEEPEST} parentheses and `not` inside one another: write fewer")
        if self._skip(_NOT):
            where: Where = Combination("not", (self._one(),))
        elif self._skip(re.compile(r"\s*\(")):
            where = self.any_of()
            if not self._skip(re.compile(r"\s*\)")):
                raise self.unreadable()
        else:
            where = self._condition()
        self.depth -= 1
        return where

    def _condition(self) -> Condition:
        match = self._skip(_CONDITION)
        if match is None:
            raise self.unreadable()
        sign = match["sign"] or ("not in" if match["not"] else "in")
        values = tuple(_value(word) for word in _VALUE.findall(match["value"] or match["list"]))
        return Condition(match["column"].strip("`"), sign, values)

    def _skip(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self.text, self.place)
        if match is not None:
            self.place = match.end()
        return match


def _value(word: str) -> str | int | float:
    if word[0] in "'\"":
        return word[1:-1].replace(word[0] * 2, word[0])
    return int(word) if re.fullmatch(r"[+-]?\d{16,38}", word) else float(word)


def _type_of(value: str | int | float) -> type[pl.DataType]:
    """The type that holds a value exactly: float64 does not hold integers of 16 digits and more."""
    return pl.String if isinstance(value, str) else pl.Int128 if isinstance(value, int) else pl.Float64
