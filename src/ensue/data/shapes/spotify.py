"""Spotify's Million Playlist Dataset: slices of JSON with a list of playlists, each with a list of tracks.

The user is the playlist (`pid`) and the item the track's address; tracks have an order and no times.
"""

from __future__ import annotations

import json

import polars as pl

from ensue.data.shape import NO_COLUMN, SHAPES, Sample, Shape
from ensue.data.table import Table, first_line
from ensue.data.unpacking import DAMAGED
from ensue.errors import DataError


@SHAPES.register("spotify")
def recognise(sample: Sample) -> Shape | None:
    """A JSON document with slices or playlists, and tracks given by their addresses."""
    head = "\n".join(sample.lines)[:100_000]
    if not head.lstrip().startswith("{") or '"playlists"' not in head or '"pid"' not in head:
        return None
    evidence = "a JSON document with playlists; the user is the playlist; order only: tracks have no times"
    meanings = {"user": "pid", "item": "track_uri", "time": NO_COLUMN, "rating": NO_COLUMN}
    return Shape("spotify", evidence, meanings, lambda: _events(sample))


def _events(sample: Sample) -> Table:
    assert sample.file is not None
    try:
        with sample.file.open() as handle:
            playlists = json.load(handle)["playlists"]
        rows = [
            (playlist["pid"], track["track_uri"])
            for playlist in playlists
            for track in sorted(playlist["tracks"], key=lambda track: int(track["pos"]))
        ]
    except (ValueError, KeyError, TypeError, RecursionError, *DAMAGED) as error:
        raise DataError(f"{sample.where}: not a slice of playlists ({first_line(error)})") from None
    try:
        frame = pl.DataFrame(rows, schema={"pid": pl.Int64, "track_uri": pl.String}, orient="row")
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{sample.where}: pid must be an integer and track_uri a text ({first_line(error)})") from None
    return Table(frame.lazy(), frame.columns, sample.where)
