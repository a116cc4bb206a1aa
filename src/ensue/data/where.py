"""Rows chosen by value: `event == 'buy' and price > 5`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl

from ensue.errors import ConfigError, is_utf8

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
_NUMBER = r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
_CONDITION = re.compile(
    rf"\s*(?P<column>`[^`]+`|[^\s=!<>`]+)\s*(?:(?P<sign>==|=|!=|<=|>=|<|>)\s*(?P<value>{_TEXT}|{_NUMBER})"
    rf"|(?P<not>not\s+)?in\s*\(\s*(?P<list>(?:{_TEXT}|{_NUMBER})(?:\s*,\s*(?:{_TEXT}|{_NUMBER}))*)\s*\))"
    r"\s*(?P<more>and\b|\Z)",
    re.IGNORECASE,
)
_VALUE = re.compile(rf"{_TEXT}|{_NUMBER}")


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
    values: tuple[str | float, ...]

    def applies(self, column: pl.Series) -> pl.Series:
        """True for the rows that satisfy the condition; a missing value never does."""
        kinds: dict[bool, list[str | float]] = {True: [], False: []}
        for value in self.values:
            kinds[isinstance(value, str)].append(value)
        if self.sign in ("in", "not in"):
            inside = pl.repeat(False, len(column), eager=True)
            for is_text, values in kinds.items():
                if values:
                    inside |= _as(column, is_text).is_in(values).fill_null(False)
            return inside if self.sign == "in" else ~inside & column.is_not_null()
        (value,) = self.values
        result: pl.Series = _OPERATORS[self.sign](_as(column, isinstance(value, str)), value)
        return result.fill_null(False)


def parse_where(text: str) -> tuple[Condition, ...]:
    """The comparisons in a text, joined by `and`.

    Raises:
        ConfigError: it is not of the form `column == 'text'`, `column > 5` or `column in ('a', 'b')`.

    >>> parse_where("event == 'buy' and price > 5")[1]
    Condition(column='price', sign='>', values=(5.0,))
    """
    if not is_utf8(text):
        raise ConfigError(f"where: {text!r} is not UTF-8")
    conditions, place = [], 0
    while True:
        match = _CONDITION.match(text, place)
        if match is None:
            raise ConfigError(
                f"where: cannot read {text[place:].strip()[:60]!r}: write column == 'text', column > 5 or "
                "column in ('a', 'b'), joined by and; a column with blanks in its name goes between backticks"
            )
        sign = match["sign"] or ("not in" if match["not"] else "in")
        values = tuple(_value(word) for word in _VALUE.findall(match["value"] or match["list"]))
        conditions.append(Condition(match["column"].strip("`"), sign, values))
        place = match.end()
        if not match["more"]:
            return tuple(conditions)


def _value(word: str) -> str | float:
    if word[0] in "'\"":
        return word[1:-1].replace(word[0] * 2, word[0])
    return float(word)


def _as(column: pl.Series, is_text: bool) -> pl.Series:
    """The column as texts or as numbers; null if a value is not a number."""
    if is_text:
        return column.cast(pl.String)
    return (
        column.str.strip_chars().cast(pl.Float64, strict=False)
        if column.dtype == pl.String
        else column.cast(pl.Float64)
    )
