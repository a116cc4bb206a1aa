"""Resolve sources into lists of parts: files, folders, patterns, Hive partitions, pipes and frames.

Parts are resolved before anything is read, so that the rest of the pipeline sees one log. A folder's files are in the
natural order of their names (part-2 before part-10); files that are named one by one keep the order of the command.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable
from urllib.parse import unquote

import polars as pl

from ensue.data import archives
from ensue.data.addresses import fetched, is_address, local_path, name_of
from ensue.data.queries import Query
from ensue.errors import DataError, is_utf8
from ensue.files import MANIFEST

STANDARD_INPUT, STANDARD_NAME = "-", "standard input"
# The column with the part of a split that an event belongs to.
SPLIT = "split"
SPLIT_PARTS = ("train", "validation", "test")
_WORDS = {"train": 0, "training": 0, "valid": 1, "validation": 1, "val": 1, "dev": 1, "test": 2, "tst": 2}
# Files beside a log that are not part of it: hidden files of Hadoop and Spark, checksums and descriptions.
_BESIDE = re.compile(
    r"[._].*|.*\.(crc|md5|sha256|md|pdf|html?)|(readme|licen[cs]e|notice|checksums?)([._-].*)?", re.IGNORECASE
)
# Folders of tables whose files are not all part of the newest version.
_VERSIONED = {"_delta_log": "Delta Lake", ".hoodie": "Hudi", "metadata/*.metadata.json": "Iceberg"}
_NULL_KEY = "__HIVE_DEFAULT_PARTITION__"


@runtime_checkable
class ArrowStream(Protocol):
    """Any frame that can be exported as an Arrow stream: polars, pandas, pyarrow, DuckDB."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The Arrow C stream capsule."""


class Copy:
    """A temporary folder for the copy of a pipe, removed when nothing refers to it any more."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ensue-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Part:
    """One file or frame of a log.

    Attributes:
        source: the file, which may be the copy of a pipe, or the frame.
        name: name for messages.
        columns: values from the folder names of Hive partitions (`day=2020-01-01/`); None is a missing value.
        copy: the folder with the copy of a pipe, which remains on the disk as long as this object exists.
    """

    source: Path | pl.DataFrame | pl.LazyFrame | ArrowStream
    name: str
    columns: Mapping[str, str | None] = field(default_factory=dict)
    copy: Copy | None = None


@dataclass(frozen=True)
class Parts:
    """A log as a list of parts.

    Attributes:
        name: name of the log for messages.
        parts: the parts in order, at least one.
        is_listed: whether each file was named, so that none may be left out; otherwise a folder was searched.
        query: the query that returned the rows, without passwords; "" for none.
        is_archive: whether these are all files of a zip archive.
    """

    name: str
    parts: tuple[Part, ...]
    is_listed: bool = True
    query: str = ""
    is_archive: bool = False


One = str | Path | pl.DataFrame | pl.LazyFrame | ArrowStream | Query
# A log in one piece, in several pieces, or in parts called train, validation and test.
Source = One | Sequence[One] | Mapping[str, One | Sequence[One]] | Parts


def is_log(text: str) -> bool:
    """Whether a text is an address, standard input, the name of something, or a pattern that matches a file."""
    if is_address(text) or text == STANDARD_INPUT or Path(text).exists():
        return True
    return bool(_matches(text)) or archives.inside(text) is not None


def parts_of(source: Source) -> Parts:
    """Resolve a source.

    Args:
        source: a path, a folder, a pattern with `*`, `?`, `[...]` or `**`, `-` for standard input, an address, a query,
            a frame, a list of these, or a mapping of train, validation and test to these.

    Raises:
        DataError: nothing of this name exists, or a folder has no file of a log.
    """
    if isinstance(source, Parts):
        return source
    if isinstance(source, Mapping):
        return _marked(source)
    if isinstance(source, list | tuple):
        if not source:
            raise DataError("a log needs at least one file")
        each = [parts_of(one) for one in source]
        _refuse_repeated(part.source for one in each for part in one.parts)
        name = ", ".join(one.name for one in each[:3]) + (f", ... ({len(each)} sources)" if len(each) > 3 else "")
        joined = Parts(name, tuple(part for one in each for part in one.parts), all(one.is_listed for one in each))
        return each[0] if len(each) == 1 else _by_names(joined)
    if isinstance(source, str | Path):
        try:
            parts = _of_path(str(source))
        except OSError as error:  # such as a folder that may not be listed
            raise DataError(f"{error.filename or source}: cannot be read ({error.strerror or error})") from None
        if odd := next((part.name for part in parts.parts if not is_utf8(part.name)), ""):
            raise DataError(f"{odd!r}: the name is not UTF-8: rename the file")
        return _by_names(parts)
    if isinstance(source, Query):
        return Parts(source.name, (Part(source.read(), source.name),), query=source.shown)
    if isinstance(source, Sequence):
        raise DataError(f"cannot read {type(source).__name__}: give a path, a frame or a list of these")
    return Parts("the frame", (Part(source, "the frame"),))


def _refuse_repeated(sources: Iterable[object]) -> None:
    paths = [source.resolve() for source in sources if isinstance(source, Path)]
    repeated = next((path for path, count in Counter(paths).items() if count > 1), None)
    if repeated is not None:
        raise DataError(f"{repeated}: is named twice, so its events would count twice: name it once")


def _by_names(parts: Parts) -> Parts:
    """The parts with a column `split`, if their names contain train, validation (valid, val, dev) and test once each.

    The training part comes first, so that rows without times are in order.
    """
    places = [_place_in_split(part.name) for part in parts.parts]
    if len(places) < 2 or None in places or len(set(places)) < len(places) or 0 not in places:
        return parts
    pairs = sorted(zip(places, parts.parts, strict=True), key=lambda pair: pair[0] or 0)
    marked = tuple(_with_mark(part, SPLIT_PARTS[place or 0]) for place, part in pairs)
    return replace(parts, parts=marked)


def _place_in_split(name: str) -> int | None:
    """`ml-1m.train.inter`, `valid_sessions.jsonl` -> 0, 1; None if no word of the name, or several, is a part."""
    words = {_WORDS[word] for word in re.split(r"[^a-z]+", Path(name).name.lower()) if word in _WORDS}
    return words.pop() if len(words) == 1 else None


def _with_mark(part: Part, mark: str) -> Part:
    return replace(part, columns={**part.columns, SPLIT: mark})


def _marked(source: Mapping[str, One | Sequence[One]]) -> Parts:
    unknown = [name for name in source if name not in SPLIT_PARTS]
    if unknown or "train" not in source:
        raise DataError(f"the parts of a split must be train and validation, test or both (got {', '.join(source)})")
    each = {mark: parts_of(source[mark]) for mark in SPLIT_PARTS if mark in source}
    _refuse_repeated(part.source for one in each.values() for part in one.parts)
    name = ", ".join(one.name for one in each.values())
    return Parts(name, tuple(_with_mark(part, mark) for mark, one in each.items() for part in one.parts))


def _of_path(text: str) -> Parts:
    if is_address(text):
        return _of_address(text)
    path = Path(text)
    if text in (STANDARD_INPUT, "/dev/stdin"):
        return _copied(text, STANDARD_NAME)
    if path.is_dir():
        return _of_folder(path)
    if path.is_fifo():
        return _copied(text, text)
    if path.is_file():
        files = archives.files_of(path)
        return Parts(text, (Part(path, text, _keys(path)),)) if len(files) < 2 else _of_archive(text, path, files)
    if path.exists():
        raise DataError(f"{text}: is not a plain file, a folder or a pipe")
    if (members := archives.inside(text)) is not None:
        archive, files = members
        if not files:
            names = ", ".join(archives.files_of(archive)[:10])
            raise DataError(f"{text}: {archive} has no such file: it has {names}")
        return replace(_of_archive(text, archive, files), is_archive=False)
    matches = _matches(text)
    if not matches:
        raise DataError(f"{text}: no such file" + (", and no file matches it" if _is_pattern(text) else ""))
    parts: list[Part] = []
    for match in matches:
        below = _of_folder(match).parts if match.is_dir() else _of_path(str(match)).parts
        parts += [replace(part, columns={**_keys(match / "file"), **part.columns}) for part in below]
    # A pattern can match a folder and what lies in it.
    return Parts(text, tuple({part.source: part for part in parts}.values()), is_listed=False)


def _of_archive(text: str, archive: Path, names: list[str]) -> Parts:
    """Files of a zip archive, except those that are not part of a log."""
    names = sorted((name for name in names if not _is_beside(Path(name))), key=lambda name: _natural(Path(name)))
    if not names:
        raise DataError(f"{text}: the archive contains no file of a log")
    copy = Copy()
    files = archives.copy_files(archive, names, copy.folder)
    parts = (Part(file, f"{archive}/{name}", copy=copy) for file, name in zip(files, names, strict=True))
    return Parts(text, tuple(parts), is_listed=False, is_archive=True)


def _of_address(address: str) -> Parts:
    path = local_path(address)
    if path is not None:
        return _of_path(str(path))
    name, copy = name_of(address), Copy()
    source = fetched(address, copy.folder)
    return Parts(name, (Part(source, name, _keys(Path(name)) if isinstance(source, Path) else {}, copy),))


def _of_folder(folder: Path) -> Parts:
    """The files below a folder, except those that are not part of a log."""
    if (folder / MANIFEST).is_file():
        raise DataError(f"{folder}: is a store or a run of ensue, not a log")
    for mark, kind in _VERSIONED.items():
        if any(folder.glob(mark)):
            raise DataError(
                f"{folder}: is a table of {kind}, whose folder also contains files of older versions: write its newest "
                "version as Parquet files first"
            )
    files = []
    for place, folders, names in os.walk(folder, onerror=_refuse_unreadable):
        folders[:] = [name for name in folders if not _BESIDE.fullmatch(name)]
        files += [Path(place) / name for name in names if not _BESIDE.fullmatch(name)]
    files = sorted((file for file in files if file.is_file()), key=_natural)
    if not files:
        raise DataError(f"{folder}: the folder contains no file of a log")
    parts = (Part(file, str(file), _keys(file.relative_to(folder))) for file in files)
    return Parts(str(folder), tuple(parts), is_listed=False)


def _refuse_unreadable(error: OSError) -> None:
    raise error  # `os.walk` would leave out the folder


def _matches(pattern: str) -> list[Path]:
    """The files and folders that match a pattern, except those that are not part of a log."""
    parts = Path(pattern).parts
    fixed = next((place for place, part in enumerate(parts) if _is_pattern(part)), None)
    if fixed is None:
        return []
    folder = Path(*parts[:fixed])
    matches = folder.glob(str(Path(*parts[fixed:])))
    return sorted((match for match in matches if not _is_beside(match.relative_to(folder))), key=_natural)


def _is_beside(path: Path) -> bool:
    return any(_BESIDE.fullmatch(name) for name in path.parts)


def _is_pattern(text: str) -> bool:
    return any(mark in text for mark in "*?[")


def _natural(path: Path) -> list[tuple[int, str]]:
    """A key that sorts part-2 before part-10."""
    pieces = enumerate(re.split(r"([0-9]+)", str(path)))  # every second piece is a number
    return [(int(piece) if place % 2 else -1, piece) for place, piece in pieces]


def _keys(path: Path) -> dict[str, str | None]:
    """The keys of Hive partitions: `year=2024/month=01/part.parquet` -> year 2024, month 01."""
    pairs = [name.split("=", 1) for name in path.parts[:-1] if re.match(r"\w+=", name)]
    return {name: None if value == _NULL_KEY else unquote(value) for name, value in pairs}


def _copied(text: str, name: str) -> Parts:
    """A pipe, copied to a file since a pipe can be read only once and a log is read several times."""
    try:
        copy = Copy()
        file = copy.folder / Path(name).name
        with ExitStack() as stack:
            pipe = sys.stdin.buffer if name == STANDARD_NAME else stack.enter_context(Path(text).open("rb"))
            shutil.copyfileobj(pipe, stack.enter_context(file.open("wb")), 1 << 20)
    except OSError as error:
        raise DataError(
            f"{name}: cannot be copied to {tempfile.gettempdir()} ({error.strerror or error}): write it to a file, or "
            "name another folder in TMPDIR"
        ) from None
    return Parts(name, (Part(file, name, copy=copy),))
