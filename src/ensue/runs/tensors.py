"""Write and read tensors as safetensors, with all checks."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from ensue.errors import ArtefactError

# Bytes of the header per tensor: at least {"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}, at most a name of 100
# letters with a shape and offsets of the largest numbers.
ENTRY_BYTES, ENTRY_LIMIT = 48, 256
# Bytes of the header of a counted model, whose few tensors the configuration does not determine.
HEADER_LIMIT = 1 << 20
# The tensor types used by models of this release.
KINDS = (torch.float32, torch.float64, torch.int32, torch.int64)


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors, from any device, to a safetensors file.

    Raises:
        OSError: the disk is full, or the file cannot be written; the message names it.
    """
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    try:
        save_file(_on_cpu(tensors), path)
        # The library writes and renames a temporary file that only its owner may read, whatever the umask.
        path.chmod(mode)
    except SafetensorError as error:
        # The library reports the system's error only as text.
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise OSError(f"{path}: cannot be written ({error})") from None
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None


def digest(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of the file that `write_tensors` would write, in hexadecimal."""
    return hashlib.sha256(save(_on_cpu(tensors))).hexdigest()


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def read_tensors(path: Path, expected: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Read a safetensors file; its tensor names, shapes and types must equal those of `expected`.

    Args:
        path: the file.
        expected: tensors of the right names, shapes and types; None for a model whose tensors vary in size.

    Raises:
        ArtefactError: the file differs from that, or a value is NaN or infinite.
    """
    with path.open("rb") as handle:
        header = int.from_bytes(handle.read(8), "little")
    most = HEADER_LIMIT if expected is None else ENTRY_LIMIT * len(expected)
    if not 2 <= header <= min(most, path.stat().st_size - 8):
        raise ArtefactError(f"{path}: a header of {header:,} bytes: truncated, or not a model of this release")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ArtefactError(f"{path}: not valid safetensors ({error})") from None
    if expected is not None:
        if tensors.keys() != expected.keys():
            differ = sorted(tensors.keys() ^ expected.keys())[:5]
            raise ArtefactError(f"{path}: its tensors are not those of the configured model; they differ in {differ}")
        for name, tensor in tensors.items():
            want = expected[name]
            if tensor.shape != want.shape or tensor.dtype != want.dtype:
                raise ArtefactError(
                    f"{path}: tensor {name!r} is {list(tensor.shape)} {tensor.dtype}, but the configuration requires "
                    f"{list(want.shape)} {want.dtype}"
                )
    for name, tensor in tensors.items():
        if tensor.dtype not in KINDS:
            raise ArtefactError(f"{path}: tensor {name!r} is {tensor.dtype}, a type that no model of this release has")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ArtefactError(f"{path}: tensor {name!r} has a value that is NaN or infinite")
    return tensors
