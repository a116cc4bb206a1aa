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
    with pytest.raises(DataError, match="ends in CR alone"):
        prepare(path)
    path.write_bytes(b'"a\rb",item\rx\n1,2\n')
    with pytest.raises(DataError, match="which column is the user"):
        prepare(path)


def test_the_fuzzer_sees_strangers_and_tracebacks(tmp_path, monkeypatch):
    each = fuzz_reading.case(0)
    assert fuzz_reading.strangers(each, ["no such id"], "") == "id 'no such id' is not in the file"
    monkeypatch.setattr(fuzz_reading, "read_interactions", lambda *_: 1 / 0)
    assert "ZeroDivisionError" in fuzz_reading.fault_of(each, tmp_path)
