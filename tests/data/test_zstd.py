"""zstd files: several frames are read, and one that is cut off is refused."""

import random

import pyarrow as pa
import pytest

from ensue.data import zstd
from ensue.data.prepare import prepare
from ensue.errors import DataError


def packed(data):
    buffer = pa.BufferOutputStream()
    with pa.CompressedOutputStream(buffer, "zstd") as stream:
        stream.write(data)
    return buffer.getvalue().to_pybytes()


@pytest.fixture(params=["zstandard", "pyarrow"])
def _package(request, monkeypatch):
    pytest.importorskip(request.param)
    monkeypatch.setattr(zstd, "find_spec", lambda name: True if name == request.param else None)


@pytest.mark.usefixtures("_package")
@pytest.mark.parametrize("size", [0, 10, 400_000])
def test_frames_are_read_and_cuts_refused(tmp_path, size):
    rng = random.Random(size)
    data = bytes(rng.choice(b"ab12,\n") for _ in range(size))
    frame, skipped, path = packed(data), b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc", tmp_path / "log.zst"
    path.write_bytes(frame + skipped + frame)
    assert zstd.open_zstd(path).read() == data + data
    for cut in (1, 4, len(frame) // 2, len(frame) - 5):
        path.write_bytes(frame + frame[:-cut])
        with pytest.raises(EOFError, match="cut off"):
            zstd.open_zstd(path)


@pytest.mark.usefixtures("_package")
def test_a_damaged_file_is_one_line(tmp_path):
    content = bytearray(packed(b"user,item,time\n" + b"".join(b"%d,%d,%d\n" % (n % 9, n, n) for n in range(5000))))
    path = tmp_path / "log.csv.zst"
    path.write_bytes(content[:-50])
    with pytest.raises(DataError, match=r"log\.csv\.zst.*cut off"):
        prepare(path)
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content + b"no frame")
    with pytest.raises(DataError, match="cannot be read"):
        prepare(path)
