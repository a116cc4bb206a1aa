"""The bytes of a text file: unpacked up to a limit and converted to UTF-8; files of other programs are refused."""

from __future__ import annotations

import bz2
import codecs
import glob
import gzip
import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ensue.data.zstd import open_zstd
from ensue.errors import DataError
from ensue.runtime.limits import memory

# Errors that reading a damaged file raises, compressed or not.
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
# The largest share of the memory that an unpacked file may take; its columns need about the same amount.
LARGEST_SHARE = 0.4
_CHUNK = 1 << 22
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# The start of an array of JSON objects, as pandas writes with orient="records"; and what may follow an object.
_RECORDS, _BETWEEN = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*\{\s*\""), re.compile(r"\s*,?\s*")
# The least share of zeros among the first or the second bytes of each pair, in UTF-16 without a mark.
_ZEROS = 0.2
_PACKED = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "zip"),
)
# First bytes, description of the file, and advice.
_FOREIGN = (
    (b"SQLite format 3\x00", "a SQLite database", "export the table as CSV or Parquet"),
    (b"\x89HDF\r\n", "an HDF5 file", "export the table as CSV or Parquet"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or other OLE file", "save the sheet as CSV"),
    (b"GIF8", "a picture", "name the file of the log"),
    (b"\x89PNG", "a picture", "name the file of the log"),
    (b"\xff\xd8\xff", "a picture", "name the file of the log"),
    (b"<?xml", "an XML file", "export the table as CSV or Parquet"),
    (b"%PDF", "a PDF file", "export the table as CSV or Parquet"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it first"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it first"),
    (b"ORC", "an ORC file", "convert it to Parquet"),
    (b"\x93NUMPY", "a numpy array", "write its columns as CSV or Parquet"),
    (b"\x80\x02", "a pickle", "write the table as Parquet: a pickle can run code, so it is never opened"),
    (b"\x80\x03", "a pickle", "write the table as Parquet: a pickle can run code, so it is never opened"),
    (b"\x80\x04", "a pickle", "write the table as Parquet: a pickle can run code, so it is never opened"),
    (b"\x80\x05", "a pickle", "write the table as Parquet: a pickle can run code, so it is never opened"),
)


def first_bytes(path: Path, count: int = 4096) -> bytes:
    """The beginning of a file, as stored on the disk."""
    with path.open("rb") as handle:
        return handle.read(count)


def packing(path: Path) -> str | None:
    """The compression of a file, by its first bytes; None for a plain file."""
    head = first_bytes(path)
    for mark, name in _PACKED:
        if head.startswith(mark):
            return name
    return "zlib" if _is_zlib(head) else None


def open_binary(path: Path) -> IO[bytes]:
    """Open a file for reading bytes, unpacking it while it is read (gzip, zlib, bz2, xz, zstd, zip of one file).

    Raises:
        DataError: an archive has several files, or no program for this compression is installed.
    """
    kind = packing(path)
    if kind is None:
        return path.open("rb")
    if kind == "gzip":
        return io.BufferedReader(gzip.open(path, "rb"))
    if kind == "bz2":
        return bz2.open(path, "rb")
    if kind == "xz":
        return lzma.open(path, "rb")
    if kind == "zip":
        return _open_zip(path)
    if kind == "zstd":
        return open_zstd(path)
    return io.BufferedReader(_ZlibReader(path))


@dataclass(frozen=True)
class TextFile:
    """A text file in UTF-8: on the disk, or in memory if it was packed or had another encoding.

    Attributes:
        path: its path.
        content: the unpacked and converted bytes; None for a file that is read from the disk.
        skip: number of lines to skip at the start.
        comment: lines that start with this text are skipped; "" for none.
        name: its name for messages, if that is not the path, as for the copy of a pipe.
    """

    path: Path
    content: bytes | None = None
    skip: int = 0
    comment: str = ""
    name: str = ""

    @classmethod
    def at(
        cls,
        path: Path,
        encoding: str | None = None,
        skip: int = 0,
        comment: str = "",
        most: int | None = None,
        name: str = "",
    ) -> TextFile:
        """Open a text file.

        Args:
            path: the file.
            encoding: the encoding of its characters; by default UTF-8, or UTF-16 or UTF-32 if its first bytes say so.
            skip: lines at its start that are not read.
            comment: lines that start with this text are not read.
            most: the most bytes to read, cut at the end of a line; None: all.
            name: its name for messages; default: the path.

        Raises:
            DataError: it unpacks to more than 40% of the memory that this process may use, it is a file of another
                program, or it is not text in this encoding.
        """
        with open_binary(path) as handle:
            head = handle.read(4096)
        packed = packing(path)
        where = name or str(path)
        is_records = not (skip or comment) and _RECORDS.match(head) is not None
        if encoding is None:
            _check_is_text(where, head, packed)
        wanted = encoding or _encoding_of(head)
        plain = codecs.lookup(wanted).name in ("utf-8", "ascii")
        if most is not None:
            content = _beginning(path, wanted, most)
            return cls(path, _lines_of_records(content, True) if is_records else content, skip, comment, name)
        if plain and packed is None and not is_records:
            return cls(path, None, skip, comment, name)
        content = _read_within(path, where)
        if not plain:
            try:
                content = content.decode(wanted).encode()
            except UnicodeError as error:
                raise DataError(f"{where}: not text in {wanted} ({error}): name the encoding (--encoding)") from None
        return cls(path, _lines_of_records(content) if is_records else content, skip, comment, name)

    @property
    def where(self) -> str:
        """Its name for messages."""
        return self.name or str(self.path)

    @property
    def source(self) -> Path | bytes:
        """The source for polars: a path or bytes."""
        return self.path if self.content is None else self.content

    def open(self) -> IO[bytes]:
        """The bytes of the lines that are read."""
        if self.skip or self.comment:
            return io.BufferedReader(_Joined(line for _, line in self.lines()))
        return self._open_whole()

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """The lines that are read, each with its number in the file, from 1."""
        mark = self.comment.encode()
        with self._open_whole() as handle:
            for number, line in enumerate(handle, start=1):
                begins = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                if number > self.skip and not (mark and begins.startswith(mark)):
                    yield number, line

    def for_json(self) -> str | bytes:
        """The source for polars' JSON Lines reader: an escaped path (polars takes it as a pattern), or clean bytes."""
        with self._open_whole() as handle:
            marked = handle.read(3) == codecs.BOM_UTF8
        if self.skip or self.comment or marked:
            with self.open() as handle:
                return handle.read().removeprefix(codecs.BOM_UTF8)
        return glob.escape(str(self.path)) if self.content is None else self.content

    def _open_whole(self) -> IO[bytes]:
        return self.path.open("rb") if self.content is None else io.BytesIO(self.content)


def _check_is_text(where: str, head: bytes, packed: str | None) -> None:
    """Refuse a file of another program by its first bytes; the message gives its kind and advice."""
    for mark, name, advice in _FOREIGN:
        if head.startswith(mark):
            inside = f" in a {packed} file" if packed else ""
            raise DataError(f"{where}: is {name}{inside}, which cannot be read: {advice}")
    if head.removeprefix(codecs.BOM_UTF8).lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        raise DataError(f"{where}: is a web page, not a log: the download returned a page instead of the file")
    if head[257:262] == b"ustar":
        raise DataError(f"{where}: is a tar archive: unpack it first")
    if b"\x00" in head and _encoding_of(head) == "utf-8":
        raise DataError(
            f"{where}: is a binary file of unknown kind, or text in another encoding: export its table as CSV or "
            "Parquet, or name the encoding (--encoding)"
        )


def _encoding_of(head: bytes) -> str:
    """The encoding by the mark at the start of a text, or by the zeros of UTF-16; otherwise UTF-8."""
    marked = next((name for mark, name in _BOMS if head.startswith(mark)), None)
    if marked is not None:
        return marked
    for name, zeros, others in (("utf-16-le", head[1::2], head[::2]), ("utf-16-be", head[::2], head[1::2])):
        # Separators, digits and line ends have a zero on one side only.
        if zeros.count(0) >= _ZEROS * len(zeros) and not others.count(0):
            text = codecs.getincrementaldecoder(name)(errors="replace").decode(head)
            if all(letter.isprintable() or letter in "\t\r\n" for letter in text):
                return name
    return "utf-8"


def _beginning(path: Path, encoding: str, most: int) -> bytes:
    """The first `most` bytes as UTF-8, up to the end of a line."""
    with open_binary(path) as handle:
        content = handle.read(most)
    text = codecs.getincrementaldecoder(encoding)(errors="replace").decode(content)
    return (text if len(content) < most else text[: text.rfind("\n") + 1]).encode()


def _lines_of_records(content: bytes, is_cut: bool = False) -> bytes:
    """An array of JSON objects as one object per line, each as written; what follows a damaged one is the last line."""
    text = content.decode(errors="replace").removeprefix("\ufeff").lstrip()
    decoder, lines, place = json.JSONDecoder(), [], _BETWEEN.match(text, 1).end()  # type: ignore[union-attr]
    while text.startswith("{", place):
        try:
            _, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            break
        lines.append(" ".join(text[place:end].splitlines()))
        place = _BETWEEN.match(text, end).end()  # type: ignore[union-attr]
    rest = text[place:].strip()
    if rest != "]" and not is_cut:
        lines.append(rest or "the array is not closed")
    return "".join(f"{line}\n" for line in lines).encode()


def _read_within(path: Path, where: str) -> bytes:
    """The unpacked content; an error if it is larger than the limit."""
    limit = int(memory() * LARGEST_SHARE)
    parts, size = [], 0
    with open_binary(path) as handle:
        while chunk := handle.read(_CHUNK):
            size += len(chunk)
            if size > limit:
                raise DataError(
                    f"{where}: unpacks to more than {limit / 1e9:.1f} GB, which is {LARGEST_SHARE:.0%} of the memory "
                    "that this process may use: unpack it to a file first, or convert it to Parquet"
                )
            parts.append(chunk)
    return b"".join(parts)


def _is_zlib(head: bytes) -> bool:
    """Whether the bytes are the start of a zlib stream; its two header bytes alone could also be text."""
    if len(head) < 2 or head[0] != 0x78 or (head[0] * 256 + head[1]) % 31:
        return False
    try:
        return bool(zlib.decompressobj().decompress(head, 1))
    except zlib.error:
        return False


def _open_zip(path: Path) -> IO[bytes]:
    archive = zipfile.ZipFile(path)
    files = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    if "[Content_Types].xml" in files:
        raise DataError(f"{path}: is a document of an office program (xlsx or the like): save the sheet as CSV")
    if len(files) != 1:
        shown = ", ".join(files[:5]) + (", ..." if len(files) > 5 else "")
        raise DataError(f"{path}: is a zip archive of {len(files)} files ({shown}): unpack it and name one file")
    return archive.open(files[0])


class _Joined(io.RawIOBase):
    """Pieces of bytes, read as one file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill the buffer with the next bytes."""
        data = self._rest or next(self._pieces, b"")
        count = min(len(data), len(buffer))
        buffer[:count], self._rest = data[:count], data[count:]
        return count


class _ZlibReader(io.RawIOBase):
    """A file that reads from a zlib stream."""

    def __init__(self, path: Path) -> None:
        self._handle = path.open("rb")
        self._unpacker = zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill the buffer with unpacked bytes."""
        data = b""
        while not data and not self._unpacker.eof:
            packed = self._unpacker.unconsumed_tail or self._handle.read(1 << 16)
            if not packed:
                raise EOFError("compressed file ended before the end of the stream")
            data = self._unpacker.decompress(packed, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._handle.close()
        super().close()
