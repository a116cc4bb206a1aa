"""The tests of the library choose what computes; the variable of the shell must not."""

from __future__ import annotations

import pytest

from ensue.nn.native import library


@pytest.fixture(autouse=True)
def _nothing_is_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(library.VARIABLE, raising=False)
    monkeypatch.setattr(library._Process, "compute", None)
