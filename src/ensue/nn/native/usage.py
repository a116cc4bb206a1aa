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
        """Such as `native (x86-64-v4)`, or `torch (residual mhc has no native form)`."""
        chosen = compute()
        if not chosen.is_native:
            return str(chosen)
        reasons = "; ".join(_Process.reasons)
        if _Process.native == self.native:
            return f"torch ({reasons or 'the model has no native form'})"
        return f"{chosen}, and torch ({reasons})" if reasons else str(chosen)


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
