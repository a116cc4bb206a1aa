"""A log in several files, folders, patterns, partitions and pipes is read as one."""

import gzip
import os
import threading
import zipfile
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from ensue.data.interactions import Columns, read_interactions
from ensue.data.prepare import prepare
from ensue.data.sources import parts_of
from ensue.data.stacking import stack
from ensue.errors import ConfigError, DataError
from ensue.reading import read

HEADER = "user,item,time\n"


def events(source, **columns):
    frame = read_interactions(source, Columns(**columns)).frame
    return frame.select("user", "item").rows()


@pytest.fixture
def folder(tmp_path: Path):
    """A folder of parts as Spark writes them, with what lies beside them."""
    log = tmp_path / "log"
    log.mkdir()
    for part in (10, 2, 1):
        (log / f"part-{part}.csv").write_text(f"{HEADER}u,{part},5\n")
    (log / "part-3.csv.gz").write_bytes(gzip.compress(f"{HEADER}u,3,5\n".encode()))
    (log / "part-4.csv").write_text("")  # a partition without rows
    for name in ("_SUCCESS", ".part-1.csv.crc", "part-1.csv.crc", "README.md", "README", "_metadata"):
        (log / name).write_text("not a log")
    (log / "_temporary").mkdir()
    (log / "_temporary" / "part-9.csv").write_text(f"{HEADER}u,9,5\n")
    return log


def test_files_folders_and_patterns_are_one_log_in_natural_order(folder):
    expected = [("u", 1), ("u", 2), ("u", 3), ("u", 10)]
    assert events(folder) == events(str(folder / "part-*")) == events(str(folder.parent / "lo?")) == expected
    assert sorted(events(str(folder.parent / "**"))) == expected
    assert events(str(folder.parent / "**" / "part-*.csv")) == [("u", 1), ("u", 2), ("u", 10)]
    assert events([folder / "part-10.csv", folder / "part-2.csv"]) == [("u", 10), ("u", 2)]
    assert read([str(folder / "part-1.csv"), str(folder / "part-2.csv")], time="-").num_events == 2
    log = read_interactions(folder)
    assert [(Path(name).name, rows) for name, rows in log.parts] == [
        ("part-1.csv", 1), ("part-2.csv", 1), ("part-3.csv.gz", 1), ("part-10.csv", 1),
    ]  # fmt: skip
    assert prepare(folder)[0].made["parts"][0] == {"name": "part-1.csv", "rows": 1}


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (b"user,thing,time\nu,1,5\n", r"b\.csv: has the columns user, thing, time, unlike .*a\.csv: user, item, time"),
        (b"u,7,5\n", r"b\.csv: has the columns 1, 2, 3, .*one has a header and the other has none"),
        (b"user,item,time\nu,1\n", "is line 2 of .*b.csv: 'u,1'"),
        (b"user,item,time\n\xff,1,5\n", r"b\.csv: line 2 is not UTF-8"),
    ],
)
def test_a_part_that_cannot_be_read_is_named(tmp_path, second, message):
    (tmp_path / "a.csv").write_text(HEADER + "u,1,5\n")
    (tmp_path / "b.csv").write_bytes(second)
    with pytest.raises(DataError, match=message):
        read_interactions(tmp_path, Columns(max_dropped=0.4))


def test_types_that_differ_between_parts_are_refused_or_joined_without_a_change(tmp_path):
    for name, ids in (("a", [2**60 + 1]), ("b", ["x"]), ("c", pl.Series([7], dtype=pl.Int16)), ("d", [1.5])):
        pl.DataFrame({"user": ids, "item": [1]}).write_parquet(tmp_path / f"{name}.parquet")
    assert events(str(tmp_path / "[ac].parquet")) == [(2**60 + 1, 1), (7, 1)]
    with pytest.raises(DataError, match=r"b\.parquet: column 'user' contains String, but Int64 in .*a\.parquet"):
        events(str(tmp_path / "[ab].parquet"))
    with pytest.raises(DataError, match="contains Float64"):
        events(str(tmp_path / "[ad].parquet"))


def test_decimals_of_two_scales_are_joined_exactly_or_refused():
    one = pl.DataFrame({"user": ["a"], "item": [1], "time": [Decimal("1570015111.25")]})
    other = pl.DataFrame({"user": ["a"], "item": [2], "time": [Decimal("1570015111.5")]})
    assert stack([one, other], ["x", "y"])["time"].to_list() == [Decimal("1570015111.25"), Decimal("1570015111.5")]
    wide = pl.DataFrame({"user": ["a"], "item": [2], "time": [Decimal("9" * 37 + ".5")]})
    with pytest.raises(DataError, match="cannot be joined"):
        stack([one, wide], ["x", "y"])


def test_ids_of_json_parts_are_checked_in_their_own_part(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"user":"a","item":1}\n')
    (tmp_path / "b.jsonl").write_text('{"user":"7","item":1}\n{"user":7,"item":2}\n')
    with pytest.raises(DataError, match=r"b\.jsonl: line 2: 'user' is a number"):
        read_interactions(tmp_path)


def test_hive_partitions_are_columns(tmp_path):
    for day, user in (("2020-01-02", 8), ("2020-01-01", 7)):
        place = tmp_path / f"day={day}" / "shop=a%20b"
        place.mkdir(parents=True)
        pl.DataFrame({"user": [user], "item": [1]}).write_parquet(place / "part.parquet")
    log = read_interactions(tmp_path, Columns(time="day", features=("shop",)))
    assert log.frame["user"].to_list() == [7, 8]
    assert log.frame["shop"].unique().to_list() == ["a b"]
    assert log.frame["time"].diff()[1] == 86_400 * 10**6
    chosen = tmp_path / "day=2020-01-02" / "*" / "*.parquet"
    assert read_interactions(str(chosen), Columns(time="day")).frame["user"].to_list() == [8]
    assert events(tmp_path, user="day", time="-")[0] == ("2020-01-01", 1)


def test_partitions_of_numbers_are_numbers_beside_typed_columns(tmp_path):
    (tmp_path / "user=7").mkdir()
    (tmp_path / "user=12").mkdir()
    pl.DataFrame({"item": [1]}).write_parquet(tmp_path / "user=7" / "x.parquet")
    pl.DataFrame({"item": [2]}).write_parquet(tmp_path / "user=12" / "x.parquet")
    assert events(tmp_path) == [(7, 1), (12, 2)]


@pytest.mark.parametrize("mark", ["_delta_log/0.json", ".hoodie/x", "metadata/v1.metadata.json", "manifest.json"])
def test_folders_whose_files_are_not_all_rows_are_refused(tmp_path, mark):
    (tmp_path / "a.csv").write_text(HEADER + "u,1,5\n")
    (tmp_path / mark).parent.mkdir(exist_ok=True)
    (tmp_path / mark).write_text("{}")
    with pytest.raises(DataError, match=r"older versions|is a store or a run"):
        read_interactions(tmp_path)


def test_a_file_that_is_named_twice_is_refused(folder):
    for source in ([folder, folder / "part-1.csv"], {"train": folder / "part-1.csv", "test": str(folder)}):
        with pytest.raises(DataError, match=r"part-1\.csv: is named twice"):
            read_interactions(source)


def test_rows_are_chosen_by_the_columns_of_their_place(tmp_path):
    for day in (1, 2):
        (tmp_path / f"day={day}").mkdir()
        (tmp_path / f"day={day}" / "log.csv").write_text(f"user,item\nu,{day}\n")
    assert events(tmp_path, where="day == '2'") == events(tmp_path, where="day > 1") == [("u", 2)]


def test_nothing_to_read_is_said(tmp_path):
    with pytest.raises(DataError, match="no file matches it"):
        read_interactions(str(tmp_path / "*.csv"))
    with pytest.raises(DataError, match="the folder contains no file of a log"):
        read_interactions(tmp_path)
    with pytest.raises(DataError, match="is not a plain file, a folder or a pipe"):
        read_interactions("/dev/null")


def test_folders_that_may_not_be_listed_and_other_arguments_are_one_line(folder, monkeypatch):
    def walk(place, onerror):
        onerror(PermissionError(13, "Permission denied", f"{place}/private"))

    monkeypatch.setattr("os.walk", walk)
    with pytest.raises(DataError, match=r"private: cannot be read \(Permission denied\)"):
        read_interactions(folder)
    with pytest.raises(DataError, match="cannot read bytes: give a path"):
        read_interactions(b"log.csv")
    for encoding in ("base64", "rot13"):
        with pytest.raises(ConfigError, match="unknown encoding"):
            Columns(encoding=encoding)


def test_a_pipe_is_copied_and_the_copy_removed(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(HEADER + "u,1,5\nu,2,6\n",))
    writer.start()
    parts = parts_of(pipe)
    writer.join()
    copy = parts.parts[0].source
    assert events(parts) == events(parts) == [("u", 1), ("u", 2)]
    assert parts.name == str(pipe)
    del parts
    assert not Path(copy).parent.exists()


def test_other_tables_of_a_published_log_are_left_out_of_its_folder(tmp_path):
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,4.5,1112486027\n1,3,4.0,1112484676\n")
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n2,Heat,Crime\n")
    log = read_interactions(tmp_path)
    assert log.rows_in == 2
    assert "not read, as they have other columns" in log.shape
    assert "movies.csv" in log.shape
    with pytest.raises(DataError, match=r"the files are of two kinds: .*movies.csv is a table with movieId"):
        read_interactions([tmp_path / "movies.csv", tmp_path / "ratings.csv"])


def test_parts_of_a_split_are_marked_by_name_or_by_hand(tmp_path):
    for name, item in (("ml.test.inter", 3), ("ml.train.inter", 1), ("ml.valid.inter", 2)):
        (tmp_path / name).write_text(f"user_id:token\titem_id:token\nu\t{item}\n")
    log = read_interactions(tmp_path)
    expected = [(1, "train"), (2, "validation"), (3, "test")]
    assert log.frame.select("item", "split").rows() == expected
    by_hand = {"train": tmp_path / "ml.train.inter", "test": tmp_path / "ml.test.inter"}
    assert read_interactions(by_hand).frame.select("item", "split").rows() == [expected[0], expected[2]]
    with pytest.raises(DataError, match="must be train and validation, test or both"):
        read_interactions({"tset": tmp_path / "ml.test.inter"})


def test_lists_of_a_benchmark_split_are_one_history_in_parts(tmp_path):
    header = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
    rows = {"train": "a\t1\t2\na\t1 2\t3\nb\t7\t8\n", "valid": "a\t1 2 3\t4\n", "test": "a\t1 2 3 4\t5\n"}
    for name, text in rows.items():
        (tmp_path / f"x.{name}.inter").write_text(header + text)
    frame = read_interactions(tmp_path).frame
    assert frame.filter(pl.col("user") == "a").select("item", "split").rows() == [
        (1, "train"), (2, "train"), (3, "train"), (4, "validation"), (5, "test"),
    ]  # fmt: skip
    assert frame.filter(pl.col("user") == "b")["split"].unique().to_list() == ["train"]


def packed(path: Path, **files: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


RATINGS = "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n1,30,3.0,1260759100\n"
MOVIES = "movieId,title,genres\n31,A,x\n30,B,y\n"


def test_the_log_in_an_archive_of_several_files_is_read_and_the_others_are_named(tmp_path):
    path = packed(tmp_path / "ml.zip", **{"ml/ratings.csv": RATINGS, "ml/movies.csv": MOVIES, "ml/README.txt": "x"})
    store, report = prepare(path, items=f"{path}/ml/movies.csv")
    assert (report.interactions, report.items_described, store.item_table["title"].to_list()) == (2, 2, ["B", "A"])
    assert report.shape.endswith(f"not read, as they have other columns: {path}/ml/movies.csv")
    parts = packed(tmp_path / "parts.zip", **{f"part-{n}.csv": f"{HEADER}u,{n},5\n" for n in (10, 2)})
    assert events(parts) == events(f"{parts}/part*") == [("u", 2), ("u", 10)]
    assert events(f"{parts}/part-2.csv") == [("u", 2)]
    split = packed(tmp_path / "split.zip", **{f"{n}.csv": f"{HEADER}u,{n},5\n" for n in ("test", "train")})
    assert prepare(split)[0].feature_values["split"].ids.to_list() == ["test", "train"]


@pytest.mark.parametrize(
    "files",
    [
        {"a.csv": "user,item\n1,2\n", "b.csv": "item,title\n2,x\n"},
        {"u.data": "1\t2\t3\t881250949\n", "u1.base": "1\t2\t3\t881250949\n"},
        {"a.csv": "user,item\n1,2\n", "b.csv": "user,item\n1,2\n"},
    ],
)
def test_an_archive_whose_log_is_unclear_is_refused_with_the_names(tmp_path, files):
    path = packed(tmp_path / "log.zip", **files)
    with pytest.raises(DataError, match="name one as SOURCE: ") as error:
        read_interactions(path)
    assert all(f"{path}/{name}" in str(error.value) for name in files)
    with pytest.raises(DataError, match="has no such file: it has"):
        parts_of(f"{path}/other.csv")


def test_an_archive_that_does_not_fit_on_the_disk_is_refused(tmp_path, monkeypatch):
    path = packed(tmp_path / "log.zip", **{"part-1.csv": HEADER, "part-2.csv": HEADER})
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5))
    with pytest.raises(DataError, match=r"has 0\.0 GB left: name one of its files, or another folder in TMPDIR"):
        parts_of(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"user,item\n1,5\n\xff,6\n", b'user,item\n1,"5\n2,6\n', b"hello\nworld\n", b"\x00\x01\x02", b"a,a\nb,c\n"],
)
def test_messages_about_a_pipe_do_not_show_its_copy(tmp_path, content):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    parts = parts_of(pipe)
    writer.join()
    with pytest.raises(DataError) as error:
        read_interactions(parts)
    assert str(error.value).startswith(f"{pipe}: ")
    assert str(parts.parts[0].source) not in str(error.value)
