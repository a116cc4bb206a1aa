"""Files elsewhere: `https://`, and the object stores that polars reads (S3, Google Cloud, Azure, Hugging Face).

Parquet and Arrow files of an object store are scanned where they are, so that only the columns in use travel. Other
files are copied to a temporary folder first. Credentials come from the environment, as the tools of each store expect.
"""

from __future__ import annotations

import re
import shutil
import urllib.request
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import polars as pl

from ensue.errors import DataError

_STORES = ("s3", "s3a", "gs", "gcs", "az", "azure", "adl", "abfs", "abfss", "hf")
_ADDRESS = re.compile(rf"({'|'.join(_STORES)}|https?|file)://")
_TIMEOUT_S = 60


def is_address(text: str) -> bool:
    """Whether a text is an address and not a path."""
    return _ADDRESS.match(text) is not None


def local_path(address: str) -> Path | None:
    """The path of a `file://` address; None for others."""
    return Path(unquote(urlsplit(address).path)) if address.startswith("file://") else None


def name_of(address: str) -> str:
    """The address without a user, a password and a query, which may hold a signature.

    >>> name_of("https://me:secret@host/log.csv?sig=1")
    'https://host/log.csv'
    """
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    path = path if scheme in _STORES else re.split(r"[?#]", path)[0]
    return f"{scheme}://{host.rpartition('@')[2] if scheme in ('http', 'https') else host}{slash}{path}"


def fetched(address: str, folder: Path) -> pl.LazyFrame | Path:
    """What is read of an address: a scan of typed files, or a copy.

    Args:
        address: an address; of typed files in an object store also a pattern, or a folder that ends in `/`.
        folder: where a copy is put.

    Raises:
        DataError: there is no such file, the host cannot be reached, or the folder is full.
    """
    name = name_of(address)
    copy = folder / (unquote(PurePosixPath(urlsplit(name).path).name) or "download")
    try:
        if address.startswith("http"):
            return _downloaded(address, copy)
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in (".parquet", ".pq") or address.endswith("/"):
            return _checked(pl.scan_parquet(address))
        if suffix in (".arrow", ".feather", ".ipc"):
            return _checked(pl.scan_ipc(address))
        if any(mark in address for mark in "*?["):
            raise DataError(f"{name}: a pattern at an address is for Parquet files (.parquet); name one file")
        return _copied_lines(address, copy)
    except (pl.exceptions.PolarsError, OSError, HTTPException, ValueError) as error:
        reason = str(error).strip().split("\n")[0].replace(address, name)[:200]
        raise DataError(f"{name}: cannot be read ({reason or type(error).__name__})") from None


def _checked(rows: pl.LazyFrame) -> pl.LazyFrame:
    rows.collect_schema()  # an error here names the address
    return rows


def _downloaded(address: str, copy: Path) -> Path:
    request = urllib.request.Request(address, headers={"User-Agent": "ensue"})  # some hosts refuse urllib's own
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response, copy.open("wb") as file:
        shutil.copyfileobj(response, file, 1 << 20)
        expected = response.headers.get("Content-Length")
    if expected is not None and copy.stat().st_size != int(expected):
        raise OSError(f"the connection ended after {copy.stat().st_size:,} of {int(expected):,} bytes")
    return copy


def _copied_lines(address: str, copy: Path) -> Path:
    """A text file, copied line by line; polars unpacks it on the way."""
    plain = copy.with_suffix("") if copy.suffix in (".gz", ".zst") else copy
    lines = pl.scan_csv(
        address,
        separator="\x01",  # not allowed in text files, so it splits no line
        has_header=False,
        quote_char=None,
        infer_schema=False,
        new_columns=["line"],
    )
    lines.sink_csv(plain, include_header=False, separator="\x01", quote_style="never")
    return plain
