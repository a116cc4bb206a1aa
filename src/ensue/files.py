"""Files written whole or not at all, and manifests that reveal altered files."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ensue.errors import ArtefactError

MANIFEST = "manifest.json"
# How libraries written in Rust (polars, safetensors) report an error of the operating system.
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def sync(path: Path) -> None:
    """Make a file's content or a folder's names durable: until the folder is synced, a power cut can undo a rename."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Provide a temporary path beside `path`; if the block succeeds, sync the file and rename it to `path`.

    If the block raises, the temporary file is removed and `path` stays unchanged. A system error that does not name the
    file, such as a full disk, is raised with the name of `path`, even if a library reports it only as text. Temporary
    files of the same path left by killed processes are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, re.compile(re.escape(f".{path.name}.") + r"\d+\.tmp"))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _held_file(temporary):
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        if error.filename is not None or str(path) in str(error):
            raise
        if error.errno is None:
            raise OSError(f"{path}: {error}") from error
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    except Exception as error:
        if (number := _OS_ERROR.search(str(error))) is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _held_file(path: Path) -> Iterator[None]:
    """Create and lock a file, which marks it as being written by a running process."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        take_lock(handle)
        yield
    finally:
        os.close(handle)


def remove_leftovers(folder: Path, name: re.Pattern[str]) -> None:
    """Remove temporary files whose name matches and that no process has locked, which killed processes left."""
    with os.scandir(folder) as entries:
        left = [Path(entry) for entry in entries if name.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)]
    for path in left:
        # Another process may have removed it first, or may have locked it.
        with suppress(OSError):
            handle = os.open(path, os.O_RDONLY)
            try:
                if take_lock(handle):
                    path.unlink()
            finally:
                os.close(handle)


def check_place(path: Path) -> None:
    """Check, before long work, that a file or folder can be written at a path.

    Raises:
        ArtefactError: the path is not inside a folder, or that folder is not writable.
    """
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise ArtefactError(f"{path}: cannot be created: {above} is not a folder")
    if not os.access(above, os.W_OK):
        raise ArtefactError(f"{path}: cannot be created: {above} is not writable")


def take_lock(handle: int) -> bool | None:
    """Lock an open file or folder until it is closed or the process ends.

    Returns:
        True if it is now locked, False if another process holds the lock, None if the file system has no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically and durably."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text to `path` atomically and durably."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON to `path` atomically; NaN and infinity are errors."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        ArtefactError: the file is missing or cannot be parsed; the message names it.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ArtefactError(f"{path}: missing") from None
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path}: not valid JSON ({error})") from None


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_manifest(folder: Path, names: list[str], about: dict[str, Any]) -> None:
    """Write `manifest.json`: the fields of `about`, and the SHA-256 of each named file in the folder."""
    write_json(folder / MANIFEST, {**about, "sha256": {name: sha256(folder / name) for name in names}})


def read_manifest(folder: Path, kind: str, version: int) -> dict[str, Any]:
    """Read and check the manifest's own fields; the files are checked by `check_files`.

    Raises:
        ArtefactError: no manifest, another kind of folder, or another schema version.
    """
    if not folder.is_dir():
        raise ArtefactError(f"{folder}: no such folder (expected an ensue {kind})")
    about = read_json(folder / MANIFEST)
    own = about.get("kind") if isinstance(about, dict) else None
    if own != kind:
        raise ArtefactError(f"{folder / MANIFEST}: expected an ensue {kind}, found kind {own!r}")
    if about.get("schema_version") != version:
        raise ArtefactError(
            f"{folder / MANIFEST}: schema version {about.get('schema_version')!r}, but this release reads {version}"
        )
    if not isinstance(about.get("sha256"), dict):
        raise ArtefactError(f"{folder / MANIFEST}: has no table of file hashes")
    return dict(about)


def check_files(folder: Path, about: dict[str, Any], names: list[str] | None = None) -> None:
    """Compare files with the hashes of their manifest, before anything in them is parsed.

    Args:
        folder: the folder.
        about: its manifest, from `read_manifest`.
        names: the files to check; all of the manifest's by default.

    Raises:
        ArtefactError: a file is missing, altered or not in the manifest.
    """
    for name in about["sha256"] if names is None else names:
        expected = about["sha256"].get(name)
        if expected is None or Path(name).name != name:
            raise ArtefactError(f"{folder / MANIFEST}: does not list the file {name!r}")
        if not (folder / name).is_file():
            raise ArtefactError(f"{folder / name}: missing")
        if sha256(folder / name) != expected:
            raise ArtefactError(f"{folder / name}: altered or truncated (its SHA-256 differs from the manifest's)")
