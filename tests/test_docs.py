"""Pages that are made from the code say what the code says."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_of_settings_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(DOCS / "settings.py"), run_name="__main__")
    assert (DOCS / "settings.md").read_text() == capsys.readouterr().out, "python docs/settings.py > docs/settings.md"
