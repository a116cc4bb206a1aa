"""Download of a publisher's file: whole or not at all, and compared with its checksum at each use."""

from __future__ import annotations

import hashlib
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError

from ensue.errors import ArtefactError, DataError
from ensue.files import atomic_path, sha256, write_text

DownloadProgress = Callable[[int, int | None], None]
_CHUNK = 1 << 18
_TIMEOUT = 30.0


class UnreachableError(DataError):
    """There is no network, or the server refuses to send the file."""


def download(url: str, target: Path, md5: str | None = None, progress: DownloadProgress | None = None) -> Path:
    """Download `url` to `target` under a temporary name, check it, and rename it into place.

    Where the publisher's MD5 is not known, the SHA-256 of this first download is written to
    `<target>.sha256`, and `check_download` compares with it later.

    Args:
        url: address of the file.
        target: path to write to.
        md5: the published checksum.
        progress: called with (bytes done, number of bytes); the latter is None if the server does not report it.

    Raises:
        UnreachableError: there is no network, or the server refuses.
        DataError: the content is incomplete or differs from the published one.
        OSError: `target` cannot be written.
    """
    with atomic_path(target) as temporary:
        with temporary.open("wb") as handle:
            done = 0
            for chunk, total in _chunks(url):
                handle.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
        if md5 is not None and _md5(temporary) != md5:
            raise DataError(f"{url}: the content is not the published one (its MD5 differs from {md5})")
        first = sha256(temporary)
    if md5 is None:
        write_text(_record(target), first + "\n")
    return target


def check_download(path: Path, md5: str | None = None) -> None:
    """Compare a file with its published MD5, or otherwise with the SHA-256 of its first download, if recorded.

    Raises:
        ArtefactError: it differs.
    """
    record = _record(path)
    if md5 is not None:
        same = _md5(path) == md5
    else:
        same = not record.is_file() or record.read_text().strip() == sha256(path)
    if not same:
        raise ArtefactError(f"{path}: differs from the published or downloaded file: remove it to download it again")


def _chunks(url: str) -> Iterator[tuple[bytes, int | None]]:
    """The content in pieces, each with the total size if the server reports it. All errors are network errors."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
            length = answer.headers.get("Content-Length")
            total, done = int(length) if length else None, 0
            while chunk := answer.read(_CHUNK):
                done += len(chunk)
                yield chunk, total
    except HTTPError as error:
        raise UnreachableError(f"the server answers {error.code} {error.reason}") from None
    except (OSError, HTTPException) as error:
        raise UnreachableError(f"no network ({error.reason if isinstance(error, URLError) else error})") from None
    if total is not None and done != total:
        raise DataError(f"{url}: the connection ended after {done} of {total} bytes: try again")


def _record(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _md5(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "md5").hexdigest()
