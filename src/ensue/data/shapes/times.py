"""Times in formats that only some published files use."""

from __future__ import annotations

import polars as pl

TWITTER = r"[A-Z][a-z]{2} [A-Z][a-z]{2} \d{1,2} \d{2}:\d{2}:\d{2} [+-]\d{4} \d{4}"


def twitter_time(text: pl.Expr) -> pl.Expr:
    """UTC of a time such as `Tue Apr 03 18:00:09 +0000 2012`; null if the text has another format."""
    # The day of the week is redundant, and polars refuses some correct ones when the offset shifts the date.
    plain = text.str.strip_chars().str.replace(r"^[A-Z][a-z]{2} ", "")
    return plain.str.to_datetime("%b %d %H:%M:%S %z %Y", strict=False, time_unit="us").dt.replace_time_zone(None)
