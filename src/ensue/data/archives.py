"""Zip archives of several files: which files they have, and their copies on the disk."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from ensue.data.unpacking import packing
from ensue.errors import DataError

# What reading a damaged, encrypted or unusual archive raises.
_UNREADABLE = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, ValueError)
_OFFICE = "[Content_Types].xml"


def files_of(path: Path) -> list[str]:
    """The names of the files in a zip archive; empty for another file, an office document and a damaged archive."""
    try:
        if packing(path) != "zip":
            return []
        with zipfile.ZipFile(path) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    except _UNREADABLE:
        return []
    return [] if _OFFICE in names else names


def inside(text: str) -> tuple[Path, list[str]] | None:
    """An archive and the files in it that a path such as `ml.zip/ml/ratings.dat` or `ml.zip/*.csv` means.

    Returns:
        The two; None if no part of the path is an archive.
    """
    archive = next((parent for parent in Path(text).parents if parent.is_file()), None)
    if archive is None or not (names := files_of(archive)):
        return None
    pattern = Path(text).relative_to(archive).as_posix()
    return archive, [name for name in names if name == pattern or fnmatchcase(name, pattern)]


def copy_files(path: Path, names: Sequence[str], folder: Path) -> list[Path]:
    """Copy files of an archive to the disk.

    Args:
        path: the archive.
        names: the names of the files.
        folder: where the copies are put.

    Returns:
        The copies, which have the last part of the names.

    Raises:
        DataError: the disk has too little space, or a file cannot be unpacked.
    """
    copies: list[Path] = []
    try:
        with zipfile.ZipFile(path) as archive:
            size, free = sum(archive.getinfo(name).file_size for name in names), shutil.disk_usage(folder).free
            if size > free:
                raise DataError(
                    f"{path}: unpacks to {size / 1e9:.1f} GB, but {folder.parent} has {free / 1e9:.1f} GB left: name "
                    "one of its files, or another folder in TMPDIR"
                )
            for number, name in enumerate(names):
                copies.append(folder / str(number) / Path(name).name)
                copies[-1].parent.mkdir()
                with archive.open(name) as source, copies[-1].open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    except _UNREADABLE as error:
        where = f"{path}/{names[len(copies) - 1]}" if copies else str(path)
        raise DataError(f"{where}: cannot be unpacked ({error})") from None
    return copies
