"""Last.fm-1K (listening events) and Last.fm-360K (play counts), both without a header and without quoting.

1K: user, time, artist id, artist, track id, track; ids may be empty, so the item is artist and track by name.
360K: user (a SHA-1), artist id, artist, plays; no times, so the order of rows counts.
HetRec's Last.fm-2K has a header (`userID artistID weight`).
"""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from ensue.data.shape import NO_COLUMN, SHAPES, Sample, Shape, all_match, by_header, with_rows
from ensue.data.table import Table

_TIME = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z"
_MBID = r"[0-9a-f-]{36}|"


@SHAPES.register("lastfm")
def recognise(sample: Sample) -> Shape | None:
    """A user of the form `user_000001` and a time, or a SHA-1 and a count."""
    plain = replace(sample, reading=replace(sample.reading, quotes=False))
    if sample.separator == "\t" and all_match(sample, {0: r"user_\d{6}", 1: _TIME, 2: _MBID}, 6):
        evidence = "user_000001, time, artist, track; the item is artist and track by name, as track ids may be empty"
        meanings = {"user": "1", "item": "track", "time": "2", "rating": NO_COLUMN}
        return Shape("lastfm", evidence, meanings, lambda: _with_tracks(plain.open("\t", header=False)))
    if sample.separator == "\t" and all_match(sample, {0: "[0-9a-f]{40}", 1: _MBID, 3: r"\d+ ?"}, 4):
        evidence = "SHA-1 of the user, artist, plays; the item is the artist; no times: the order of rows is used"
        meanings = {"user": "1", "item": "3", "time": NO_COLUMN, "rating": "4"}
        return Shape("lastfm", evidence, meanings, lambda: plain.open("\t", header=False))
    return by_header(sample, "lastfm", "userID artistID weight", user="userID", item="artistID", rating="weight")


def _with_tracks(table: Table) -> Table:
    name = pl.col("4") + " - " + pl.col("6")
    return with_rows(table, table.rows.with_columns(name.alias("track")))
