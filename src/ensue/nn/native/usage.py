"""What computed: how often the native library was called, and why torch's path was taken instead."""

from __future__ import annotations

from typing import ClassVar

from ensue.nn.native.library import compute


class Usage:
    """What has computed since this object was created; one per epoch of a training, for its log."""

    def __init__(self) -> None:
        self.native, self.reasons = _Process.native, dict.fromkeys(_Process.reasons)
        _Process.reasons = {}

    def __str__(self) -> str:
        """Such as `native (x86-64-v4)`, or with `, layers by torch (activation gelu has no native form)` after it."""
        chosen = compute()
        if not chosen.is_native or (_Process.native > self.native and not _Process.reasons):
            return str(chosen)
        return f"{chosen}, layers by torch ({'; '.join(_Process.reasons) or 'the model has no native form'})"


class _Process:
    """Calls of the native library in this process, and the reasons for torch's path since the last `Usage`."""

    native = 0
    reasons: ClassVar[dict[str, None]] = {}


def count_native() -> None:
    """Count a call of the native library."""
    _Process.native += 1


def count_torch(reason: str) -> None:
    """Note why something that may be native was computed by torch."""
    _Process.reasons[reason] = None
