"""The item file: titles that mean what they say, and none lost to a quote."""

from __future__ import annotations

from pathlib import Path

import pytest

from ensue.data.item_table import read_item_table
from ensue.data.vocabulary import Vocabulary
from ensue.errors import DataError

IDS = Vocabulary.from_ids(["a1", "b2", "c3"])


def written(tmp_path: Path, text: str, name: str = "items.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_titles_of_several_lines_are_kept_whole(tmp_path: Path) -> None:
    text = 'id,title,about\nc3,"Nails, 5""","two\nlines, and\na1, no more"\na1,Plain,\n'
    table, described = read_item_table(written(tmp_path, text), IDS)
    assert described == 2
    assert table["title"].to_list() == ["Plain", None, 'Nails, 5"']
    assert table["about"].to_list() == [None, None, "two\nlines, and\na1, no more"]


@pytest.mark.parametrize("name", ["items.csv", "items.tsv"])
def test_rows_that_an_open_quote_swallows_are_an_error(tmp_path: Path, name: str) -> None:
    """A title that begins with a quote, and lines later one that ends with one: between them rows would be gone."""
    mark = "," if name.endswith("csv") else "\t"
    text = f'id{mark}title\na1{mark}"open\nb2{mark}lost\nc3{mark}shut"\n'
    with pytest.raises(DataError, match=rf"{name}: a field of 'title' holds the row of item 'b2', so a quote"):
        read_item_table(written(tmp_path, text, name), IDS)
