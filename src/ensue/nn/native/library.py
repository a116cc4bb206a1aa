"""Which library computes: that of the best instruction set that this processor has, or torch's path.

The variable ENSUE_NATIVE decides: 0 for torch alone, the name of an instruction set for that one, or 1 (the default)
for the best.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ensue.errors import ConfigError
from ensue.nn.native.build import levels, library_of

VARIABLE = "ENSUE_NATIVE"
TORCH = "torch"
CPU_INFO = Path("/proc/cpuinfo")
# What the x86-64 levels add to one another; the names are those of Linux.
_V3 = frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"})
NEEDED = {
    "x86-64-v3": _V3,
    "x86-64-v4": _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "arm64": frozenset[str](),
}

# The functions of the library: the type of the result (-: none) and those of the arguments.
_TYPES: dict[str, type[ctypes._SimpleCData[Any]]] = {
    "p": ctypes.c_void_p,
    "i": ctypes.c_int32,
    "l": ctypes.c_int64,
    "u": ctypes.c_uint64,
}
SIGNATURES = {
    "ensue_packed_floats": ("l", "p"),
    "ensue_kept_floats": ("l", "p"),
    "ensue_pack": ("-", "ppp"),
    "ensue_encode": ("-", "ppplppp"),
    "ensue_encode_backward": ("-", "ppplpppp"),
    "ensue_newest": ("-", "ppplpp"),
    "ensue_random_bytes": ("-", "ulllp"),
    "ensue_candidates": ("-", "illlppp"),
    "ensue_candidates_backward": ("-", "illlppppp"),
    "ensue_add_rows": ("-", "illlppp"),
    "ensue_cross_entropy": ("-", "illllppppppp"),
    "ensue_catalogue_floats": ("l", "ll"),
    "ensue_pack_catalogue": ("-", "llpp"),
    "ensue_standings": ("i", "illlppppppp"),
    "ensue_best": ("i", "illllpppppp"),
    "ensue_best_of_scores": ("-", "illlppp"),
}


class _Addressed(Protocol):
    """A tensor; this module does not import torch."""

    def data_ptr(self) -> int: ...


class Compute(NamedTuple):
    """What computes.

    Attributes:
        name: an instruction set of the native library, or `torch`.
        reason: why it is torch; empty for the library.
    """

    name: str
    reason: str = ""

    @property
    def is_native(self) -> bool:
        """Whether the native library computes what it has a form for."""
        return self.name != TORCH

    def __str__(self) -> str:
        """Such as `native (x86-64-v4)` or `torch (ENSUE_NATIVE=0)`."""
        return f"native ({self.name})" if self.is_native else f"torch ({self.reason})"


class _Process:
    """What this process computes with; None until it is first needed."""

    compute: Compute | None = None


def compute() -> Compute:
    """What computes now.

    Raises:
        ConfigError: ENSUE_NATIVE has an unknown value, or names an instruction set that cannot run here.
    """
    if _Process.compute is None:
        _Process.compute = _chosen(os.environ.get(VARIABLE, "1"))
    return _Process.compute


@contextmanager
def computing_with(name: str | None = None) -> Iterator[Compute]:
    """A context at whose end the choice is what it was before; like threads, it applies to the whole process.

    Args:
        name: computes in the context, if it can run here: an instruction set or `torch`.
    """
    before = compute()
    if name is not None:
        compute_with(name, "requested")
    try:
        yield compute()
    finally:
        _Process.compute = before


def compute_with(name: str, reason: str) -> bool:
    """Let an instruction set's library or `torch` compute from now on; return whether it does.

    The choice stays as it is if the library cannot run here, or if ENSUE_NATIVE states another one.
    """
    current = compute()
    if name == current.name or os.environ.get(VARIABLE, "1") != "1":
        return name == current.name
    if name == TORCH:
        _Process.compute = Compute(TORCH, reason)
    elif name in runnable():
        _Process.compute = Compute(name)
    return compute().name == name


@cache
def runnable() -> tuple[str, ...]:
    """The instruction sets that this processor has and whose libraries are built, best first."""
    flags = cpu_flags()
    return tuple(level for level in levels() if NEEDED[level] <= flags and library_of(level).is_file())


def cpu_flags() -> frozenset[str]:
    """The features of this processor by Linux's names; empty on other systems, where no level needs any."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), []))


@cache
def load(name: str) -> ctypes.CDLL:
    """The library of an instruction set, with the types of its functions."""
    library = ctypes.CDLL(str(library_of(name)))
    for symbol, (result, arguments) in SIGNATURES.items():
        function = getattr(library, symbol)
        function.restype = None if result == "-" else _TYPES[result]
        function.argtypes = [_TYPES[letter] for letter in arguments]
    return library


def at(values: _Addressed) -> int:
    """The address of a tensor's values, which must be contiguous."""
    return values.data_ptr()


def _chosen(value: str) -> Compute:
    if value == "0":
        return Compute(TORCH, f"{VARIABLE}=0")
    able = runnable()
    if value != "1" and value not in able:
        names = ", ".join(("0", "1", *able))
        raise ConfigError(f"{VARIABLE} must be one of {names} on this machine (got {value!r})")
    if able:
        return Compute(able[0] if value == "1" else value)
    if not levels():
        return Compute(TORCH, "no native form for this kind of processor")
    if not any(library_of(level).is_file() for level in levels()):
        return Compute(TORCH, "the native library is not built: run make native, or install with a C++ compiler")
    return Compute(TORCH, f"this processor lacks the instructions of {levels()[-1]}")
