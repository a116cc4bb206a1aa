"""Files compressed with zstd, unpacked while they are read; a truncated file is an error."""

from __future__ import annotations

import io
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from ensue.errors import DataError

# RFC 8878: a file is a series of frames, each of blocks; frames of another first byte are skipped.
_FRAME, _SKIPPED = 0xFD2FB528, 0x184D2A50


def open_zstd(path: Path) -> IO[bytes]:
    """Open a zstd file for reading bytes.

    Raises:
        DataError: no package that can unpack it is installed.
        EOFError: its last frame is truncated.
    """
    _check_whole(path)
    if find_spec("zstandard") is not None:
        return io.BufferedReader(_Reader(path))
    if find_spec("pyarrow") is not None:
        return io.BufferedReader(import_module("pyarrow").CompressedInputStream(str(path), "zstd"))
    raise DataError(f"{path}: is compressed with zstd: unpack it, or install zstandard (pip install zstandard)")


class _Reader(io.RawIOBase):
    """A file that reads the frames one after another; the package's errors become OSError, as for other formats."""

    def __init__(self, path: Path) -> None:
        package = import_module("zstandard")
        self._error: type[Exception] = package.ZstdError
        self._stream = package.ZstdDecompressor().stream_reader(path.open("rb"), read_across_frames=True)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill the buffer with unpacked bytes."""
        try:
            size: int = self._stream.readinto(buffer)
        except self._error as error:
            raise OSError(str(error)) from None
        return size

    def close(self) -> None:
        self._stream.close()
        super().close()


def _check_whole(path: Path) -> None:
    """Check all blocks, since the packages read a truncated file without an error.

    Raises:
        EOFError: the last frame is truncated.
    """
    size = path.stat().st_size
    with path.open("rb") as handle:

        def number(count: int) -> int:
            data = handle.read(count)
            if len(data) < count:
                raise EOFError("the zstd file is cut off")
            return int.from_bytes(data, "little")

        while handle.tell() < size:
            magic = number(4)
            if magic & 0xFFFFFFF0 == _SKIPPED:
                handle.seek(number(4), io.SEEK_CUR)
            elif magic == _FRAME:
                descriptor = number(1)
                single = descriptor >> 5 & 1
                known = descriptor >> 6
                content_size = 1 << known if known else single
                handle.seek((1 - single) + (0, 1, 2, 4)[descriptor & 3] + content_size, io.SEEK_CUR)
                last = 0
                while not last:
                    block = number(3)
                    last, kind = block & 1, block >> 1 & 3
                    handle.seek(1 if kind == 1 else block >> 3, io.SEEK_CUR)
                handle.seek(4 * (descriptor >> 2 & 1), io.SEEK_CUR)
            else:
                return  # not a frame: the reader reports it
        if handle.tell() > size:
            raise EOFError("the zstd file is cut off")
