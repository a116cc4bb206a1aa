"""The item file: titles that mean what they say, and none lost to a quote."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
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
    with pytest.raises(DataError, match=rf"{name}: a field of 'title' contains the row of item 'b2': a quote"):
        read_item_table(written(tmp_path, text, name), IDS)


@pytest.mark.parametrize(
    "text",
    [
        'id,title,about\na1,A,"steps:\nb2, mix\nc3, bake"\n',
        'id,title,about\na1,A,"steps:\nb2, mix, and stir, and wait\nc3"\n',
        'id,title,about,year\na1,"steps:\nb2, mix, stir\nc3",x,1\n',
    ],
)
def test_lines_of_a_description_that_are_no_whole_rows_are_kept(tmp_path: Path, text: str) -> None:
    table, described = read_item_table(written(tmp_path, text), IDS)
    assert described == 1
    assert any("b2, mix" in str(value) for value in table.row(0))


@pytest.mark.parametrize(
    "text",
    [
        'id,title,about,year\na1,"open,x,1\nb2,lost,y,2\nc3,shut",z,3\n',
        'id,title,about,year\na1,"open,x,1\nb2,shut",y,2\n',
        'id,title,about,year\na1,A,"open,1\nb2,B,shut",2\n',
        'id,title,about,year\na1,A,x,"open\nb2,B,y,shut"\n',
    ],
)
def test_rows_that_an_open_quote_swallows_are_found_in_any_column(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"contains the row of item 'b2': a quote before it is not closed"):
        read_item_table(written(tmp_path, text), IDS)


@pytest.mark.parametrize(
    ("name", "text"),
    [("movies.dat", "a1::Film (1990)::Action\nb2::Other (1991)::War\n"), ("items.csv", "a1,Film\nb2,Other\n")],
)
def test_an_item_file_without_a_header_is_refused(tmp_path: Path, name: str, text: str) -> None:
    message = (
        rf"{name}: which column is the item's id\? Columns: a1, Film.*; the first line is read as the header, which"
    )
    with pytest.raises(DataError, match=message):
        read_item_table(written(tmp_path, text, name), IDS)
    with pytest.raises(DataError, match=r"Columns: title$"):
        read_item_table(pl.DataFrame({"title": ["x"]}), IDS)


def test_no_column_is_lost_and_none_gives_way_to_a_name_of_ours() -> None:
    """`id` is the item's own id, `events` a run's count of training events, and nothing else is taken."""
    frame = pl.DataFrame(
        {
            "item_id": ["c3", "a1", "zz", "a1"],
            "title": ["Three", "One", "None", "Again"],
            "number": [30, 10, 0, 11],
            "id": ["tt3", "tt1", "tt0", "tt2"],
            "events": [300, 100, 0, 101],
            "events_": [3, 1, 0, 2],
        }
    )
    table, described = read_item_table(frame, IDS)
    assert described == 2
    assert table.to_dict(as_series=False) == {
        "id": ["a1", "b2", "c3"],
        "title": ["One", None, "Three"],
        "number": [10, None, 30],
        "id_": ["tt1", None, "tt3"],
        "events__": [100, None, 300],
        "events_": [1, None, 3],
    }


def test_an_id_column_of_any_name_is_no_column_of_its_own() -> None:
    for name in ("id", "item_id", "asin"):
        assert read_item_table(pl.DataFrame({name: ["b2"]}), IDS)[0].to_dict(as_series=False) == {
            "id": ["a1", "b2", "c3"]
        }


@pytest.mark.parametrize(
    ("titles", "text"),
    [([1984, 7], "1984"), ([2.5, 1.0], "2.5"), ([["War", "Peace"], []], "War|Peace"), (["plain", ""], "plain")],
)
def test_titles_are_text_whatever_they_were(titles: list[object], text: str) -> None:
    """So they are in a store and in a run, which keeps the table."""
    table, _ = read_item_table(pl.DataFrame({"id": ["b2", "a1"], "name": titles}), IDS)
    assert table["title"].dtype == pl.String
    assert table["title"].to_list()[1] == text


def test_titles_that_are_no_text_are_refused() -> None:
    with pytest.raises(DataError, match=r"^the frame: the titles are Binary, but must be text$"):
        read_item_table(pl.DataFrame({"id": ["a1"], "title": [b"\xff"]}), IDS)


U_ITEM = "1|Toy (1995)|01-Jan-1995||http://x|0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n267|unknown||||1" + "|0" * 18 + "\n"


MOVIES = "1::Café: Part 2::2 (1995)::Drama|Film-Noir\n267::Léon\u00a0(1994)::\n"


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize(
    ("name", "text", "titles", "categories"),
    [
        ("movies.dat", MOVIES, ["Café: Part 2::2 (1995)", "Léon\u00a0(1994)"], ["Drama|Film-Noir", ""]),
        ("u.item", U_ITEM, ["Toy (1995)", "unknown"], ["Animation|Children's|Comedy", "unknown"]),
    ],
)
def test_item_files_of_movielens_need_no_header(tmp_path, encoding, name, text, titles, categories) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    table, described = read_item_table(path, Vocabulary.from_ids([1, 267]))
    assert described == 2
    assert table["title"].to_list() == titles
    assert table["category"].to_list() == categories
    assert table.columns == ["id", "title", "category"]


def test_the_links_of_movielens_are_further_columns(tmp_path: Path) -> None:
    path = written(tmp_path, "movieId,imdbId,tmdbId\n1,0114709,862\n2,0113497,\n", "links.csv")
    table, described = read_item_table(path, Vocabulary.from_ids([1, 2]))
    assert (described, table["imdbId"].to_list()) == (2, ["0114709", "0113497"])


@pytest.mark.parametrize("form", ["packed", "parquet", "folder"])
def test_item_files_come_in_the_forms_of_logs(tmp_path: Path, form: str) -> None:
    frame = pl.DataFrame({"movieId": [1, 267], "title": ["A", "B"]})
    source = tmp_path / "items"
    if form == "packed":
        source.write_bytes(gzip.compress(MOVIES.encode("latin-1")))
    elif form == "parquet":
        frame.write_parquet(source)
    else:
        source.mkdir()
        frame[:1].write_csv(source / "part-1.csv")
        frame[1:].write_csv(source / "part-2.csv")
    table, described = read_item_table(source, Vocabulary.from_ids([1, 267]))
    assert (described, table["title"].null_count()) == (2, 0)
