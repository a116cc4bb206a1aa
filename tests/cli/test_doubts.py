"""A log in doubt: a question on a terminal, elsewhere a command for each reading, and every command works."""

from __future__ import annotations

import os
import pty
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ensue.cli import main
from ensue.cli.doubts import commands
from ensue.data.doubt import Answer, Doubt
from ensue.data.store import SequenceStore

from .conftest import Run

Write = Callable[[str, str], Path]

DATES = "user,item,time\na,x,01/02/2019\na,y,05/02/2019\na,z,03/02/2019\n"
TWO_TIMES = "user,item,seen,sold\na,x,1600000000,1600000009\na,y,1600000005,1600000001\nb,x,1600000002,1600000003\n"
# name of the log, its text, the number of readings.
LOGS = {
    "the order of a date": ("log.csv", DATES, 2),
    "the time": ("log.csv", TWO_TIMES, 3),
    "the user and the item": ("log.csv", "who,what\na,x\na,y\n", 2),
    "the item": ("log.csv", "user,thing,other\na,x,p\na,y,p\n", 2),
    "users or sessions": ("log.csv", "sessionId,userId,itemId\n1,NA,5\n2,NA,6\n3,7,8\n", 2),
    "a day of a spreadsheet": ("log.csv", "user,item,time\na,x,43770\na,y,43771\n", 2),
    "a month and a day": ("log.csv", "user,item,time\na,x,0831\na,y,0901\n", 2),
    "a header": ("log.txt", "user item\n7 8\n7 9\n", 2),
    "quotes": ("log.csv", 'user,item,title\na,x,6" nail\na,y,7\n', 1),
    "columns without names": ("log.csv", "1,5,3\n1,6,4\n2,5,3\n", 2),
    "times in another place": ("log.csv", "1,2014-04-07T10:51:09Z,5\n1,2014-04-07T10:51:08Z,6\n", 2),
}


def test_a_password_is_not_in_the_commands() -> None:
    doubt = Doubt("which?", (Answer({"header": True}, "a header"),), where="postgresql://h/d")
    words = ["prepare", "--sql", "select 1", "--connect", "postgresql://me:secret@h/d", "--out", "x"]
    assert commands(words, doubt) == [
        "ensue prepare --sql 'select 1' --connect 'postgresql://me:***@h/d' --out x --header"
    ]


class Terminal:
    """A pseudo-terminal in place of standard input and standard error."""

    def __init__(self, master: int, slave: int) -> None:
        self.master, self.slave = master, slave

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def shown(self) -> str:
        """What was printed to the terminal, and what was typed."""
        sys.stderr.flush()
        os.write(self.slave, b"\x03")
        text = b""
        while not text.endswith(b"\x03"):
            text += os.read(self.master, 1 << 16)
        return text[:-1].decode()


@contextmanager
def on_a_terminal() -> Iterator[Terminal]:
    """Standard input and standard error are a terminal; not a fixture, since pytest replaces both before a test."""
    master, slave = pty.openpty()
    with (
        os.fdopen(os.dup(slave), encoding="utf-8") as stdin,
        os.fdopen(os.dup(slave), "w", encoding="utf-8") as stderr,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "stdin", stdin)
        patch.setattr(sys, "stderr", stderr)
        yield Terminal(master, slave)
    os.close(master)
    os.close(slave)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return put


@pytest.mark.parametrize("doubt", LOGS)
def test_every_reading_comes_as_a_command_that_works(ensue: Run, write: Write, tmp_path: Path, doubt: str) -> None:
    name, text, count = LOGS[doubt]
    log = write(name, text)
    refused = ensue("prepare", log, "--out", tmp_path / "a store", "--min-user-events", 1)
    first, *lines = refused.err.splitlines()
    assert refused.status == 1
    assert first.startswith(f"ensue: {log}: ")
    assert len(lines) >= count
    for line in lines:
        command, *words = shlex.split(line)
        assert (command, words[:2]) == ("ensue", ["prepare", str(log)])
        # A reading may lead to another doubt, or to fields of several lines that end nowhere.
        ensue(*words, "--overwrite")
    assert ensue(*shlex.split(lines[0])[1:], "--overwrite").status == 0


def test_a_question_shows_rows_and_takes_the_guess_or_a_number(write: Write, tmp_path: Path) -> None:
    log = write("log.csv", DATES)
    with on_a_terminal() as terminal:
        for typed, day in (("\n", "2019-02-01"), ("7\n2\n", "2019-01-02")):
            terminal.type(typed)
            assert main(["prepare", str(log), "--out", str(tmp_path / "store"), "--overwrite"]) == 0
            store = SequenceStore.open(tmp_path / "store")
            assert store.made["report"]["first"].startswith(day)
        shown = terminal.shown()
    assert "'01/02/2019' can be month/day/year or day/month/year" in shown
    assert "05/02/2019" in shown  # a row of the log
    assert "1  day/month/year (the guess): --date-order day" in shown
    assert store.made["columns"]["date_order"] == "month"


def test_a_question_without_an_answer_gives_the_commands(write: Write, tmp_path: Path) -> None:
    with on_a_terminal() as terminal:
        terminal.type("no\n0\n9\n")
        assert main(["prepare", str(write("log.csv", DATES)), "--out", str(tmp_path / "store")]) == 1
        assert "--date-order month" in terminal.shown().splitlines()[-1]
    assert not (tmp_path / "store").exists()


def test_nobody_is_asked_with_json(write: Write, tmp_path: Path) -> None:
    with on_a_terminal() as terminal:
        terminal.type("1\n")
        assert main(["prepare", str(write("log.csv", DATES)), "--out", str(tmp_path / "store"), "--json"]) == 1
        assert "which (1" not in terminal.shown()


def test_a_log_given_to_a_training_is_asked_about_too(write: Write, tmp_path: Path) -> None:
    rows = "".join(f"a,{item},0{item}/02/2019\n" for item in range(1, 8))
    log = write("log.csv", "user,item,time\n" + rows)
    with on_a_terminal() as terminal:
        terminal.type("\n")
        assert main(["train", str(log), "--model", "popularity", "--out", str(tmp_path / "run")]) == 0
        assert "--date-order day" in terminal.shown()


def test_explain_says_what_each_column_is_taken_for_and_writes_nothing(
    ensue: Run, write: Write, tmp_path: Path
) -> None:
    log = write("log.csv", "uid,asin,seen,note,ts\n7,x,2020-01-01,p,1600000000\n8,y,2020-01-02,,1600000001\n")
    before = sorted(tmp_path.iterdir())
    explained = ensue("prepare", log, "--explain", "--features", "note", "--json").json["explanation"]
    assert sorted(tmp_path.iterdir()) == before
    columns = {each["column"]: each for each in explained["columns"]}
    taken = {name: each["taken_for"] for name, each in columns.items()}
    assert taken == {"uid": "user", "asin": "item", "seen": "", "note": "feature", "ts": "time"}
    assert columns["ts"]["why"] == "a usual name; numbers of seconds"
    assert columns["note"]["samples"] == ["p"]
    assert "holds times" in columns["seen"]["why"]
    shown = ensue("prepare", log, "--explain", "--time", "seen", "--out", tmp_path / "store").out
    assert "date, UTC where no zone is stated" in " ".join(shown.split())
    assert SequenceStore.open(tmp_path / "store").num_events == 2


def test_explain_names_the_shape_and_meets_doubts(ensue: Run, write: Write) -> None:
    shaped = write("ratings.dat", "1::31::5::978300760\n1::30::3::978300100\n")
    explained = ensue("prepare", shaped, "--explain", "--json").json["explanation"]
    assert explained["shape"].startswith("movielens-dat: ")
    assert [each["taken_for"] for each in explained["columns"]] == ["user", "item", "rating", "time"]
    doubtful = ensue("prepare", write("log.csv", TWO_TIMES), "--explain")
    assert doubtful.status == 1
    assert doubtful.err.splitlines()[1].endswith("--explain --time seen")
    assert "missing --out" in ensue("prepare", shaped).err
