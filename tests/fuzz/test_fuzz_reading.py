"""A short run of the fuzzer (`make fuzz` is the long one), and what it found."""

import fuzz_reading
import pytest

from ensue.data.prepare import prepare
from ensue.errors import DataError


@pytest.mark.parametrize("start", [*range(0, 200, 50)])
def test_damaged_logs_are_read_or_refused(tmp_path, start):
    for number in range(start, start + 50):
        assert fuzz_reading.fault_of(fuzz_reading.case(number), tmp_path) == "", number


def test_a_lone_carriage_return_in_a_quoted_header_is_one_line(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(b'99\r1,"[5, 6]"\r2,"[5')
    with pytest.raises(DataError, match="ends in CR only"):
        prepare(path)
    path.write_bytes(b'"a\rb",item\rx\n1,2\n')
    with pytest.raises(DataError, match="which column is the user"):
        prepare(path)


def test_the_fuzzer_sees_strangers_and_tracebacks(tmp_path, monkeypatch):
    each = fuzz_reading.case(0)
    assert fuzz_reading.strangers(each, ["no such id"], "") == "id 'no such id' is not in the file"
    monkeypatch.setattr(fuzz_reading, "read_interactions", lambda *_: 1 / 0)
    assert "ZeroDivisionError" in fuzz_reading.fault_of(each, tmp_path)


def test_half_a_character_in_a_literal_is_one_line(tmp_path):
    path = tmp_path / "steam.json"
    line = "{'username': 'a%s', 'product_id': '10', 'date': '2017-12-17', 'text': ''}\n"
    path.write_text(line % "" + line % "\\ud800")
    with pytest.raises(DataError, match="line 2 is not a review"):
        prepare(path)


@pytest.mark.parametrize("size", [1, 7, 1 << 22])
def test_characters_after_a_closing_quote_are_refused_and_quotes_within_a_field_kept(tmp_path, monkeypatch, size):
    monkeypatch.setattr("ensue.data.lines._CHUNK", size)
    path = tmp_path / "log.csv"
    path.write_text('user,item,time\n"a,b","x ""y"[]"",1600000001\nc,z,1600000003\n')
    with pytest.raises(DataError, match="cannot be read; it contains quotes"):
        prepare(path)
    path.write_text('user,item,time\n"a,b",5" x 6" nail,1600000001\nc,"z ""1""",1600000003\n')
    assert prepare(path)[0].item_ids.ids.to_list() == ['5" x 6" nail', 'z "1"']


@pytest.mark.parametrize("first", ["sep=\ufffd", "sep=é", "sep=a", 'sep="', "sep=1"])
def test_a_separator_that_cannot_be_is_one_line(tmp_path, first):
    path = tmp_path / "export.csv"
    path.write_text(f"{first}\nuser;item;time\na;x;10\n", encoding="utf-8")
    with pytest.raises(DataError):
        prepare(path)


@pytest.mark.parametrize(
    "text", ["[5, \x016]\n[6, 7]\n", "a\x01b 5\nb 6\n", "1:\n5,3,2005-09-06\x01\n5,3,2005-09-06\n"]
)
def test_the_separator_of_hive_is_named(tmp_path, text):
    path = tmp_path / "log.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=r"contains U\+0001"):
        prepare(path)


@pytest.mark.parametrize("start", [b"\x78\xda", b"x^", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"])
@pytest.mark.parametrize("name", ["log.txt", "log.csv"])
def test_text_that_begins_like_a_packed_file_is_one_line(tmp_path, start, name):
    path = tmp_path / name
    path.write_bytes(start + b"1 2 3\n4 5 6\n")
    with pytest.raises(DataError):
        prepare(path)
