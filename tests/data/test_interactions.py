import gzip
import io
import json

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensue.data.doubt import UnclearLogError
from ensue.data.interactions import Columns, read_interactions
from ensue.data.moments import day, to_microseconds, written
from ensue.errors import ConfigError, DataError

NASTY = [
    "007",
    "7",
    "NA",
    "null",
    "nan",
    "None",
    "1e5",
    "-0",
    " 7",
    "9007199254740993",
    "9007199254740992",
    "é",
    "a,b",
]


LINE = st.text(st.characters(codec="utf-8", exclude_characters='"\r\n'), max_size=5)


def ids(log, name="user"):
    return log.frame[name].to_list()


def balanced(log):
    assert log.rows_in == len(log.frame) + sum(log.dropped.values())
    return log


@given(
    st.lists(
        st.tuples(
            st.one_of(st.sampled_from(["", *NASTY]), LINE),
            st.one_of(st.sampled_from(["", *NASTY]), st.integers(-(2**64), 2**64).map(str)),
            st.sampled_from(["1", "", "x", "2.5", "2014-01-01", "1e300"]),
        ),
        max_size=12,
    )
)  # fmt: skip
def test_rows_in_are_rows_kept_and_dropped_and_ids_come_out_as_written(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "nasty.csv"
    path.write_text("user,item,time\n" + "".join(f'"{user}","{item}",{time}\n' for user, item, time in rows))
    log = balanced(read_interactions(path, Columns(max_dropped=1)))
    assert log.rows_in == len(rows)
    kept = [row for row in rows if row[0] and row[1] and row[2] not in ("", "x", "1e300")]
    assert [str(user) for user in ids(log)] == [row[0] for row in kept]
    assert [str(item) for item in ids(log, "item")] == [row[1] for row in kept]
    assert log.dropped.get("missing user", 0) == sum(not row[0] for row in rows)
    for column in ("user", "item"):
        assert log.frame[column].dtype in (pl.String, pl.Int64)


@given(st.lists(st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=6)), max_size=12))
def test_frames_keep_any_text(texts):
    frame = pl.DataFrame({"user": texts, "item": [1] * len(texts)}, schema={"user": pl.String, "item": pl.Int32})
    log = balanced(read_interactions(frame, Columns(max_dropped=1)))
    assert ids(log) == [text for text in texts if text]


def test_one_odd_id_makes_the_column_text(write):
    assert ids(read_interactions(write("user,item\n7,1\n8,2\n"))) == [7, 8]
    assert ids(read_interactions(write("user,item\n7,1\n08,2\n"))) == ["7", "08"]
    assert ids(read_interactions(write("user,item\n7,1\n,2\n"))) == [7]
    large = "9007199254740993\n9007199254740992\n9223372036854775808\n"
    text = "item,user\n" + "".join(f"1,{line}\n" for line in large.split())
    assert ids(read_interactions(write(text))) == large.split()


@pytest.mark.parametrize(
    "text",
    [
        'user,item,time\na,"b,1\nc,d,2\ne,f,3\n',
        'user,item,time\na,"b,1\nc,d"",2\ne,f,3\n"',
        'user,item,time\na,"b,1\nc,d",2\n',
        'user,item,time\na,b,1\nc,"d\ne",2\n',
    ],
)
def test_an_unclosed_quote_is_an_error_that_names_its_line(write, text):
    with pytest.raises(DataError, match=r"line [23] opens a quote"):
        read_interactions(write(text))


QUERIES = [
    ['5" nail', "plain"],
    ['5" nail', "a", "b", '6" nail', "c"],
    ['"nail', "plain"],
    ['"foo" bar', "plain"],
    ['"x" y "z', "plain"],
]


@pytest.mark.parametrize("texts", QUERIES)
def test_stray_quotes_are_plain_characters_on_request(write, texts):
    rows = [(f"u{number}", f"i{number}", str(number), text) for number, text in enumerate(texts)]
    path = write("user\titem\ttime\ttitle\n" + "".join("\t".join(row) + "\n" for row in rows), "queries.tsv")
    with pytest.raises(UnclearLogError, match=r"quotes?\b.*--no-quotes \(quotes=False\)") as caught:
        read_interactions(path, Columns(features=("title",)))
    assert caught.value.flags == "--no-quotes"
    log = balanced(read_interactions(path, Columns(features=("title",), quotes=False)))
    assert log.frame.select("user", "item", "title").rows() == [(user, item, text) for user, item, _, text in rows]
    assert (log.rows_in, log.dropped) == (len(rows), {})


@given(
    rows=st.lists(st.tuples(st.text('ab" ', max_size=4), st.text('ab",', max_size=4)), min_size=1, max_size=8),
    header=st.booleans(),
)
def test_rows_add_up_however_many_quotes_are_plain_characters(tmp_path_factory, rows, header):
    path = tmp_path_factory.getbasetemp() / "quotes.tsv"
    lines = [f"{user}\t{item}\t{number}" for number, (user, item) in enumerate(rows)]
    path.write_text("\n".join(["user\titem\ttime"] * header + lines) + "\n")
    columns = Columns(quotes=False, header=header, time=None if header else "3", max_dropped=1)
    log = balanced(read_interactions(path, columns))
    assert log.rows_in == len(rows)
    assert log.frame.select("user", "item").rows() == [row for row in rows if all(row)]


def test_a_quote_in_the_first_line(write):
    text = 'user\titem\t12" vinyl\na\tb\t1\nc\td\t2\n'
    with pytest.raises(UnclearLogError, match=r"line 1 opens a quote .*--no-quotes"):
        read_interactions(write(text, "log.tsv"))
    log = read_interactions(write(text, "log.tsv"), Columns(quotes=False, time='12" vinyl', time_unit="s"))
    assert ids(balanced(log)) == ["a", "c"]
    with pytest.raises(UnclearLogError, match=r"line 1 opens a quote .*--no-quotes"):
        read_interactions(write('a\t"b\t1\t2\nc\td\t3\t4\n', "log.tsv"))
    log = read_interactions(write('a\t"b\t1\t2\nc\td\t3\t4\n', "log.tsv"), Columns(quotes=False))
    assert ids(balanced(log), "item") == ['"b', "d"]


def test_fields_of_several_lines_need_quotes():
    with pytest.raises(ConfigError, match="multiline needs quotes"):
        Columns(multiline=True, quotes=False)


@pytest.mark.parametrize("columns", [Columns(max_dropped=0.8), Columns(max_dropped=0.8, quotes=False)])
@pytest.mark.parametrize(("name", "mark"), [("log.csv", ","), ("log.tsv", "\t"), ("log.csv", ";")])
def test_rows_with_a_field_too_many_or_too_few_are_dropped(write, name, mark, columns):
    lines = ["title,user,item,time", "A,1,5,10", "B,the second,1,6,11", "C,1,7", "", "D,1,8,12", "E,1,9,", "F,1,9,,"]
    log = balanced(read_interactions(write("\n".join(lines).replace(",", mark) + "\n\n", name), columns))
    assert log.dropped == {"malformed row": 3, "missing time": 1}
    assert (ids(log), ids(log, "item"), log.frame["row"].to_list()) == ([1, 1], [5, 8], [0, 3])


def test_quoted_separators_belong_to_their_field(write):
    text = 'title,user,item\n"A, a",1,5\nB, b,1,6\n"C ""c"", x",1,7\n"D"\n'
    log = balanced(read_interactions(write(text)))
    assert (ids(log, "item"), log.dropped) == ([5, 7], {"malformed row": 2})
    log = balanced(read_interactions(write('title,user,item\n"A, a",1,5\n"B\nb",1,6\nC\n'), Columns(multiline=True)))
    assert (ids(log, "item"), log.dropped) == ([5, 6], {"malformed row": 1})


def test_fields_over_several_lines_are_allowed_on_request(write):
    path = write('user,item,text\na,b,"one\ntwo"\nc,d,x\n')
    assert ids(balanced(read_interactions(path, Columns(multiline=True)))) == ["a", "c"]


def test_quotes_and_separators_inside_quotes(write):
    log = read_interactions(write('user,item\n"a,b","say ""hi"""\n'))
    assert (ids(log), ids(log, "item")) == (["a,b"], ['say "hi"'])


def test_rows_are_dropped_by_reason(write):
    path = write("user,item,time\n,b,1\na,,1\na,b,\na,b,soon\na,b,1\n\n")
    log = balanced(read_interactions(path, Columns(max_dropped=1)))
    assert log.dropped == {"missing user": 1, "missing item": 1, "missing time": 1, "unreadable time": 1}
    assert log.frame["row"].to_list() == [4]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("ratings.dat", "1::10::5::97830\n2::20::4::97831\n", [(1, 10, 97830), (2, 20, 97831)]),
        ("log.txt", "1 10 5\n2  20  6 \n", [(1, 10, 5), (2, 20, 6)]),
        ("u.data", "1\t10\t3\t5\n2\t20\t4\t6\n", [(1, 10, 5), (2, 20, 6)]),
        ("log.tsv", "userId\titemId\ttimestamp\n1\t10\t5\n", [(1, 10, 5)]),
        ("log.csv", "A1,0439,5.0,100\nA2,B00,1.0,200\n", [("A1", "0439", 100), ("A2", "B00", 200)]),
        ("log.jsonl", '{"user":1,"item":"007","time":5}\n', [(1, "007", 5)]),
        ("log", "1,10,3,5\n", [(1, 10, 5)]),
    ],
)  # fmt: skip
def test_formats_are_seen_from_name_and_content(write, name, text, expected):
    log = balanced(read_interactions(write(text, name)))
    rows = zip(ids(log), ids(log, "item"), (log.frame["time"] // 1_000_000).to_list(), strict=True)
    assert list(rows) == expected
    packed = write(gzip.compress(text.encode()), name + ".gz")
    assert read_interactions(packed).frame.equals(log.frame)


@pytest.mark.parametrize("name", ["log.csv", "log.txt", "log.jsonl", "log.jsonl.gz", "log.parquet"])
def test_a_path_is_no_pattern(tmp_path, name):
    folder = tmp_path / "my [logs]"
    folder.mkdir()
    frame = pl.DataFrame({"user": [1, 2], "item": [3, 4]})
    texts = {".csv": "user,item\n1,3\n2,4\n", ".txt": "1 3\n2 4\n", ".jsonl": frame.write_ndjson()}
    path = folder / name.replace("log", "log[1]*")
    if name.endswith(".parquet"):
        frame.write_parquet(folder / "written")
        (folder / "written").rename(path)
    else:
        text = texts[name.removeprefix("log").removesuffix(".gz")].encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    assert ids(balanced(read_interactions(path))) == [1, 2]


def test_space_separated_pairs_keep_file_order(write):
    log = balanced(read_interactions(write("1 3\n1 2\n2 9 9\nodd\n1 1\n", "log.txt")))
    assert ids(log, "item") == [3, 2, 1]
    assert log.dropped == {"malformed row": 2}
    assert "time" not in log.frame.columns


@pytest.mark.parametrize(("name", "mark"), [("log.txt", " "), ("log.dat", "::")])
def test_blank_lines_are_no_rows(write, name, mark):
    text = "\n1 3\n\n   \n1 2\r\n\r\n\t\n2 9\n\n".replace("1 ", f"1{mark}").replace("2 9", f"2{mark}9")
    log = balanced(read_interactions(write(text, name)))
    assert ids(log, "item") == [3, 2, 9]
    assert (log.rows_in, log.dropped, log.frame["row"].to_list()) == (3, {}, [0, 1, 2])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.txt", "\nuser  item time \na 10 5\nb 20 6\n"),
        ("log.dat", "UserID::MovieID::Timestamp\na::10::5\nb::20::6\n"),
    ],
)
def test_names_in_files_separated_by_blanks_and_colons(write, name, text):
    path = write(text, name)
    with pytest.raises(DataError, match="does the first line contain names or an event"):
        read_interactions(path)
    log = read_interactions(path, Columns(header=True))
    assert log.frame.select("user", "item", "time").rows() == [("a", 10, 5_000_000), ("b", 20, 6_000_000)]
    assert (log.rows_in, log.columns["time"]) == (2, "time" if name == "log.txt" else "Timestamp")
    with pytest.raises(DataError, match="two columns of the same name: a, a"):
        read_interactions(write("a a\n1 2\n", "twice.txt"), Columns(header=True))


def test_texts_without_a_number_are_events(write):
    assert ids(read_interactions(write("a x\nb y\n", "log.txt"))) == ["a", "b"]
    assert ids(read_interactions(write("a x\n7 y\nb z\n", "log.txt"))) == ["a", "7", "b"]
    named = write("a x\n7 y\n8 z\n", "log.txt")
    assert ids(read_interactions(named, Columns(header=False))) == ["a", "7", "8"]


def test_the_format_can_be_said(write):
    path = write("1,10\n", "log.weird")
    with pytest.raises(DataError, match="has one column"):
        read_interactions(path, Columns(format="tsv", header=False))
    assert ids(read_interactions(path, Columns(format="csv", header=False))) == [1]
    with pytest.raises(ConfigError, match="format"):
        Columns.parse({"format": "xml"})


def test_json_lines_refuse_to_merge_a_number_and_a_text(write):
    with pytest.raises(DataError, match=r"line 2: 'user' is a number"):
        read_interactions(write('{"user":"7","item":"a"}\n{"user":7,"item":"b"}\n', "log.jsonl"))
    with pytest.raises(DataError, match="Float64"):
        read_interactions(write('{"user":1e5,"item":"a"}\n', "log.jsonl"))
    with pytest.raises(DataError, match=r"log\.jsonl"):
        read_interactions(write('{"user":1,"item":"a"}\n{"user":\n', "log.jsonl"))
    log = read_interactions(write(json.dumps({"user": 9007199254740993, "item": "NA"}) + "\n", "log.jsonl"))
    assert (ids(log), ids(log, "item")) == ([9007199254740993], ["NA"])


def test_frames_of_all_kinds_read_the_same():
    data = {"user_id": ["a", "b"], "item_id": [9007199254740993, 2], "timestamp": [5, 6]}
    frames = [pl.DataFrame(data), pl.DataFrame(data).lazy(), pd.DataFrame(data), pa.table(data)]
    buffer = io.BytesIO()
    pl.DataFrame(data).write_parquet(buffer)
    logs = [read_interactions(frame).frame for frame in frames]
    assert all(log.equals(logs[0]) for log in logs)
    assert logs[0]["item"].to_list() == data["item_id"]


def test_parquet_keeps_text_ids_text(tmp_path):
    pl.DataFrame({"user": ["7", "8"], "item": [1, 2]}).write_parquet(tmp_path / "log.parquet")
    assert ids(read_interactions(tmp_path / "log.parquet")) == ["7", "8"]


def test_float_ids_are_refused_with_the_reason():
    with pytest.raises(DataError, match="pandas makes integers with missing values floats"):
        read_interactions(pd.DataFrame({"user": [1, None], "item": [1, 2]}))
    with pytest.raises(DataError, match="cannot read the DataFrame"):
        read_interactions(pd.DataFrame({"user": [1, "a"], "item": [1, 2]}, dtype=object))
    with pytest.raises(DataError, match="Boolean"):
        read_interactions(pl.DataFrame({"user": [True], "item": [1]}))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.csv", "user,item,time\r1,2,3\r4,5,6\r"),
        ("log.tsv", "user\titem\ttime\r1\t2\t3\r4\t5\t6\r"),
        ("log.txt", "1 2 3\r4 5 6\r"),
        ("log.dat", "1::2::3::4\r4::5::6::7\r"),
    ],
)
def test_lines_that_end_in_cr_alone_are_refused(write, name, text):
    with pytest.raises(DataError, match=rf"{name}: a line ends in CR only .* to LF or CRLF$"):
        read_interactions(write(text, name))
    assert balanced(read_interactions(write(text.replace("\r", "\r\n"), name))).frame.height >= 2


def test_a_quoted_name_may_hold_a_cr(write):
    assert ids(read_interactions(write('user,item,"more\rtold"\n1,2,x\n'))) == [1]


def test_one_column_has_one_meaning(write):
    path = write("uid,item,time\n1,2,3\n")
    reported = r"^.*log.csv: column 'item' cannot be both the user and the item$"
    with pytest.raises(DataError, match=reported):
        read_interactions(path, Columns(user="item", item="item"))
    with pytest.raises(DataError, match=reported):
        read_interactions(path, Columns(user="item"))
    for meaning in ("user", "item"):
        named = {"user": "uid", "item": "item", "time": "uid" if meaning == "user" else "item"}
        with pytest.raises(DataError, match=f"cannot be both the {meaning} and the time"):
            read_interactions(path, Columns(**named))
    with pytest.raises(DataError, match="cannot be both the item and the time"):
        read_interactions(write("1,2,3,4\n"), Columns(item="2", time="2"))


@pytest.mark.parametrize("quotes", [True, False])
@pytest.mark.parametrize(("name", "mark"), [("log.csv", ","), ("log.tsv", "\t")])
def test_names_that_are_there_twice_are_refused(write, name, mark, quotes):
    path = write(mark.join(["user", "item", "item", "time"]) + "\n" + mark.join("1234") + "\n", name)
    with pytest.raises(
        DataError, match=rf"{name}: the first line has two columns of the same name: user, item, item, time$"
    ):
        read_interactions(path, Columns(quotes=quotes))
    unnamed = write(mark.join(["user", "item", "", ""]) + "\n" + mark.join("1234") + "\n", name)
    assert ids(read_interactions(unnamed, Columns(quotes=quotes))) == [1]
    same = write(mark.join("1122") + "\n", name)
    assert ids(read_interactions(same, Columns(quotes=quotes)), "item") == [1]


def test_columns_are_found_or_named(write):
    path = write("userId,movieId,rating,timestamp\n1,2,3.5,4\n")
    log = read_interactions(path)
    assert log.columns == {"user": "userId", "item": "movieId", "time": "timestamp", "rating": "rating"}
    assert "time" not in read_interactions(path, Columns(time="-")).frame.columns
    with pytest.raises(DataError, match=r"no column 'movieid'.*did you mean 'movieId'.*rating"):
        read_interactions(path, Columns(item="movieid"))
    with pytest.raises(DataError, match="which column is the user"):
        read_interactions(write("who,what\na,b\n"))
    with pytest.raises(DataError, match="3 columns without names"):
        read_interactions(write("1,2,3\n"))
    assert read_interactions(write("1,2,3\n"), Columns(time="3")).columns["time"] == "3"


def test_features_are_typed_and_kept(write):
    path = write("user,item,event,price,n\na,b,buy,1.5,3\na,c,view,,4\n")
    frame = read_interactions(path, Columns(features=("event", "price", "n"))).frame
    assert frame["event"].to_list() == ["buy", "view"]
    assert frame["price"].to_list() == [1.5, None]
    assert frame["n"].dtype == pl.Int64
    with pytest.raises(DataError, match="no column 'evnt'"):
        read_interactions(path, Columns(features=("evnt",)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("user,item\na,b,c\n", r"100% of 1 rows are dropped \(1 malformed row\); the first is line 2: 'a,b,c'"),
        (b"user,item\n1,2\n\xff,2\n", r"line 3 is not UTF-8 .*--encoding latin-1"),
    ],
)
def test_broken_files_are_named(write, text, message):
    with pytest.raises(DataError, match=message) as caught:
        read_interactions(write(text))
    assert "log.csv" in str(caught.value)


def test_missing_and_cut_files_and_other_things_are_named(write, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_interactions(tmp_path / "nothing.csv")
    with pytest.raises(DataError, match=r"cut\.csv\.gz"):
        read_interactions(write(gzip.compress(b"user,item\n1,2\n" * 50)[:-9], "cut.csv.gz"))
    with pytest.raises(DataError, match=r"log\.parquet"):
        read_interactions(write("no parquet", "log.parquet"))
    with pytest.raises(DataError, match="cannot read int"):
        read_interactions([1])


@pytest.mark.parametrize("name", ["log.csv.gz", "log.tsv.gz", "log.txt.gz", "log.dat.gz", "log.jsonl.gz", "log.gz"])
def test_damaged_gzip_is_named(write, name):
    """Both for damage in the part that is inspected first and for damage far behind it."""
    mark = {"log.tsv.gz": "\t", "log.txt.gz": " ", "log.dat.gz": "::"}.get(name, ",")
    rows = [mark.join((f"u{number * 7919 % 10007}", f"i{number * 104729 % 1009}")) for number in range(2000)]
    text = "\n".join([f"user{mark}item"] * (mark in ",\t") + rows)
    if name == "log.jsonl.gz":
        text = "\n".join(json.dumps({"user": number * 7919 % 10007, "item": number}) for number in range(2000))
    packed = gzip.compress(text.encode(), mtime=0)
    read_interactions(write(packed, name))
    for place in (12, 14, 20, 40, len(packed) // 2, len(packed) - 6):
        damaged = bytearray(packed)
        damaged[place] ^= 0xFF
        with pytest.raises(DataError, match=name):
            read_interactions(write(bytes(damaged), name))


SECOND = 1_500_000_000
NOT_A_TIME = -(2**63)


@pytest.mark.parametrize(
    ("values", "expected", "unit"),
    [
        ([SECOND, 5], [SECOND * 10**6, 5 * 10**6], "s"),
        ([SECOND * 1000 + 7], [SECOND * 10**6 + 7000], "ms"),
        ([SECOND * 10**6 + 7], [SECOND * 10**6 + 7], "us"),
        ([SECOND * 10**9 + 7000], [SECOND * 10**6 + 7], "ns"),
        ([1.5, float("nan"), float("inf")], [1_500_000, None, None], "s"),
        (["1.5e9", "abc", None], [SECOND * 10**6, None, None], "s"),
        (["2014-04-07T10:51:09.277Z"], [1396867869277000], "date"),
        (["2014-04-07 10:51:09", "2014-04-07"], [1396867869000000, 1396828800000000], "date"),
        (["2014-04-07 12:51:09+02:00"], [1396867869000000], "date"),
        (["2014-04-07 10:51:09 UTC", "2014-04-07T10:51"], [1396867869000000, 1396867860000000], "date"),
        (["2014-04-07T10:51Z", "2014-04-07T12:51+02:00"], [1396867860000000] * 2, "date"),
        (["2014-04-07 12:51+0200", "2014-04-07 10:51 UTC"], [1396867860000000] * 2, "date"),
        (["2014-13-07", "5"], [None, 5_000_000], "s"),
        ([2**63 - 1, 1, 1], [None, 10**6, 10**6], "s"),
        ([NOT_A_TIME, SECOND], [None, SECOND * 10**6], "s"),
        ([NOT_A_TIME, NOT_A_TIME, SECOND], [None, None, SECOND * 10**6], "s"),
        ([NOT_A_TIME, SECOND * 1000, SECOND * 1000], [None, SECOND * 10**6, SECOND * 10**6], "ms"),
        ([NOT_A_TIME, SECOND * 10**6, SECOND * 10**6], [None, SECOND * 10**6, SECOND * 10**6], "us"),
        ([NOT_A_TIME, SECOND * 10**9 + 7000], [None, SECOND * 10**6 + 7], "ns"),
        ([float(NOT_A_TIME), SECOND * 1e9], [None, SECOND * 10**6], "ns"),
        ([str(NOT_A_TIME), str(SECOND)], [None, SECOND * 10**6], "s"),
        ([str(NOT_A_TIME), str(SECOND), "2017-07-14T02:40Z"], [None, SECOND * 10**6, SECOND * 10**6], "s"),
        ([-(2**63) + 1, SECOND, SECOND], [None, SECOND * 10**6, SECOND * 10**6], "s"),
    ],
)  # fmt: skip
def test_times(values, expected, unit):
    result, chosen = to_microseconds(pl.Series("t", values))
    assert result.to_list() == expected
    assert chosen == unit


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (SECOND, "2017-07-14T02:40:00Z"),
        (1_600_000_000_000, "52671-12-25T12:26:40Z"),
        (2**63 - 1, "292277026596-12-04T15:30:07Z"),
    ],
)
def test_times_are_written_for_any_year(seconds, text):
    assert (written(seconds), day(seconds)) == (text, text.partition("T")[0])


def test_a_missing_time_of_numpy_is_an_unreadable_one(write):
    rows = "".join(f"1,{item},{SECOND + item}\n" for item in range(3))
    log = balanced(read_interactions(write(f"user,item,time\n1,9,{NOT_A_TIME}\n{rows}")))
    assert (log.dropped, ids(log, "item")) == ({"unreadable time": 1}, [0, 1, 2])
    assert log.examples == {"unreadable time": str(NOT_A_TIME)}


def test_an_unreadable_time_is_kept_as_an_example(write):
    path = write("user,item,time\n,b,never\na,b,\na,b,soon\na,b,later\na,b,5\n")
    log = balanced(read_interactions(path, Columns(max_dropped=0.8)))
    assert log.dropped == {"missing user": 1, "missing time": 1, "unreadable time": 2}
    assert log.examples == {"unreadable time": "soon"}
    long = read_interactions(write(f"user,item,time\na,b,{'x' * 1000}\na,b,5\n"))
    assert log.examples.keys() == long.examples.keys()
    assert len(long.examples["unreadable time"]) < 100
    assert read_interactions(write("user,item,time\na,b,5\n")).examples == {}


@pytest.mark.parametrize(
    ("name", "text", "flags"),
    [
        ("log.csv", "person,thing\na,b\n", "--user person --item thing"),
        ("log.csv", "user,thing\na,b\n", "--item thing"),
        ("log.csv", "person,item\na,b\n", "--user person"),
        ("log.csv", "1,2,3\n", "--time -"),
        ("log.txt", "who what\n7 8\n", "--header"),
    ],
)
def test_what_a_log_lacks_is_said_with_the_flags_for_it(write, name, text, flags):
    with pytest.raises(UnclearLogError) as caught:
        read_interactions(write(text, name))
    assert caught.value.flags == flags


def test_time_unit_can_be_said_and_dates_are_read():
    assert to_microseconds(pl.Series([5]), "ms")[0].to_list() == [5000]
    dates = pl.Series(["1970-01-02"]).str.to_date()
    assert to_microseconds(dates)[0].to_list() == [86_400_000_000]
    zoned = pl.Series(["1970-01-01T01:00:00"]).str.to_datetime("%FT%T").dt.replace_time_zone("Europe/Paris")
    assert to_microseconds(zoned)[0].to_list() == [0]
