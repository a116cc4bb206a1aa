"""Files at addresses: downloads, object stores through polars, and one line where there is none."""

import gzip
import io
import urllib.error
from email.message import Message
from pathlib import Path

import polars as pl
import pytest

from ensue.data import addresses
from ensue.data.addresses import is_address, name_of
from ensue.data.interactions import read_interactions
from ensue.data.sources import is_log, parts_of
from ensue.errors import DataError

TEXT = "user,item\n1,5\n2,6\n"


def events(source):
    return read_interactions(source).frame.select("user", "item").rows()


def serve(monkeypatch, content, length=None):
    """Let every address give these bytes."""
    headers = Message()
    headers["Content-Length"] = str(len(content) if length is None else length)

    def urlopen(request, timeout):
        response = io.BytesIO(content)
        response.headers = headers
        return response

    monkeypatch.setattr(addresses.urllib.request, "urlopen", urlopen)


@pytest.mark.parametrize(("name", "pack"), [("log.csv", bytes), ("log.csv.gz", gzip.compress), ("get?file=1", bytes)])
def test_a_file_of_a_server_is_copied_and_the_copy_removed(monkeypatch, name, pack):
    serve(monkeypatch, pack(TEXT.encode()))
    parts = parts_of(f"https://me:secret@host/day=5/{name}&sig=abc")
    assert events(parts) == [(1, 5), (2, 6)]
    assert parts.name.startswith("https://host/day=5/")
    assert "secret" not in parts.name
    assert "sig" not in parts.name or "?" not in name
    assert parts.parts[0].columns == {"day": "5"}
    copy = Path(parts.parts[0].source)
    del parts
    assert not copy.exists()


def test_what_cannot_be_fetched_is_one_line(monkeypatch):
    serve(monkeypatch, TEXT.encode(), length=999)
    with pytest.raises(DataError, match=r"https://host/log.csv: cannot be read \(the connection ended after 18 of 999"):
        parts_of("https://host/log.csv?sig=secret")

    def refused(request, timeout):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(addresses.urllib.request, "urlopen", refused)
    with pytest.raises(DataError, match=r"cannot be read .*no route to host") as caught:
        parts_of("https://host/log.csv?sig=secret")
    assert "secret" not in str(caught.value)

    def denied(address, **_):
        raise OSError("object-store error: no credentials\nand more lines")

    monkeypatch.setattr(addresses.pl, "scan_parquet", denied)
    with pytest.raises(
        DataError, match=r"^s3://bucket/x.parquet: cannot be read \(object-store error: no credentials\)$"
    ):
        read_interactions("s3://bucket/x.parquet")
    with pytest.raises(DataError, match="a pattern at an address is for Parquet files"):
        read_interactions("gs://bucket/*.csv")


def test_object_stores_are_read_by_polars(monkeypatch, tmp_path):
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(TEXT.replace("1,5", '1,"5"\n').encode()))
    pl.DataFrame({"user": [1], "item": [5]}).write_parquet(tmp_path / "log.parquet")
    for scan in ("scan_csv", "scan_parquet"):
        real = getattr(pl, scan)

        def local(source, real=real, **settings):
            text = source.replace("s3://bucket", f"file://{tmp_path}") if isinstance(source, str) else source
            return real(text, **settings)

        monkeypatch.setattr(addresses.pl, scan, local)
    assert events("s3://bucket/log.csv.gz") == [(1, 5), (2, 6)]
    assert events("s3://bucket/*.parquet") == [(1, 5)]


def test_a_file_address_is_a_path(tmp_path):
    (tmp_path / "my log.csv").write_text(TEXT)
    assert events(f"file://{tmp_path}/my%20log.csv") == [(1, 5), (2, 6)]
    with pytest.raises(DataError, match="no such file"):
        events(f"file://{tmp_path}/none.csv")


def test_addresses_are_told_from_paths():
    assert is_address("hf://datasets/a/b.parquet")
    assert is_log("s3://bucket/log.parquet")
    assert not is_address("s3/log.parquet")
    assert name_of("az://container/a?b.parquet") == "az://container/a?b.parquet"
