"""Readers of publishers' own formats: zipped MovieLens, Steam reviews."""

from __future__ import annotations

import zipfile
from pathlib import Path

import polars as pl

from ensue.data.shapes.literals import read_literals
from ensue.data.unpacking import DAMAGED, open_binary
from ensue.errors import DataError


def unzip(archive: Path, members: tuple[str, ...], folder: Path) -> None:
    """Unpack the named members, by their last name, into `folder`.

    Raises:
        DataError: the archive is broken or lacks a member.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            for member in members:
                (folder / Path(member).name).write_bytes(packed.read(member))
    except (zipfile.BadZipFile, KeyError, *DAMAGED) as error:
        raise DataError(f"{archive}: cannot be unpacked ({error})") from None


def steam_reviews(path: Path) -> pl.DataFrame:
    """`steam_reviews.json.gz`, unpacked while it is read; columns user, item and time.

    Raises:
        DataError: a line is not a review, or the file is damaged.
    """
    return read_literals(str(path), lambda: open_binary(path)).select("user", "item", "time")
