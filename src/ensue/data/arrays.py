"""Flat arrays: `.npy` files, which are mapped only if their header is as expected, and the rows stored in them.

Suffixes: `R` rows, `P` events of all rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ensue.errors import ArtefactError
from ensue.files import atomic_path

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

# A one-dimensional header takes 128 bytes; numpy's own limit protects the parser from huge ones.
_MAX_HEADER = 4096


def is_feature_name(name: str) -> bool:
    """Whether a feature of the events, and so its file, can have this name: letters, digits and `_`, such as "4"."""
    return name != "" and f"_{name}".isidentifier()


def write_array(path: Path, array: np.ndarray) -> None:
    """Write `array` as little-endian `.npy`, atomically."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.lib.format.write_array(handle, little, version=(1, 0), allow_pickle=False)


def map_array(path: Path, dtype: str, length: int) -> np.ndarray:
    """Map an array read-only, after checking that it matches the manifest exactly.

    Args:
        path: the `.npy` file.
        dtype: the type it must have.
        length: the number of elements it must have.

    Raises:
        ArtefactError: missing, not `.npy`, another type or shape, or a size that differs from the header's.
    """
    expected = np.dtype(dtype).newbyteorder("<")
    try:
        with path.open("rb") as handle:
            shape, actual, start = _read_header(handle)
    except FileNotFoundError:
        raise ArtefactError(f"{path}: missing") from None
    except (ValueError, OSError, EOFError, MemoryError, RecursionError, SyntaxError) as error:
        raise ArtefactError(f"{path}: not a readable .npy file ({error})") from None
    if actual != expected or shape != (length,):
        raise ArtefactError(f"{path}: contains {actual} of shape {shape}, but the manifest says {dtype} of ({length},)")
    size = start + length * expected.itemsize
    if path.stat().st_size != size:
        raise ArtefactError(f"{path}: {path.stat().st_size} bytes, but its header requires {size}")
    if length == 0:
        return np.empty(0, dtype=expected)
    return np.memmap(path, dtype=expected, mode="r", offset=start, shape=(length,))


def _read_header(handle: BinaryIO) -> tuple[tuple[int, ...], np.dtype, int]:
    if np.lib.format.read_magic(handle) != (1, 0):
        raise ValueError("format version 1.0 expected")
    shape, _, dtype = np.lib.format.read_array_header_1_0(handle, max_header_size=_MAX_HEADER)
    return shape, dtype, handle.tell()


def packed_events(start_R: ArrayLike, stop_R: ArrayLike) -> tuple[IntArray, IntArray]:
    """The event indices of the rows `start_R:stop_R`, one row after another.

    Returns:
        events_P: the indices, and place_P: each event's place in its row, from 0.
    """
    start, stop = np.asarray(start_R, dtype=np.int64), np.asarray(stop_R, dtype=np.int64)
    length = stop - start
    ends = np.cumsum(length)
    place = np.arange(int(length.sum()), dtype=np.int64) - np.repeat(ends - length, length)
    events: IntArray = np.repeat(start, length) + place
    return events, place


def gather_events(start_R: ArrayLike, stop_R: ArrayLike) -> IntArray:
    """The event indices of the rows `start_R:stop_R`, one row after another: [P]."""
    return packed_events(start_R, stop_R)[0]
