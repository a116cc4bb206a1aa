"""Names and values that are not UTF-8, which polars cannot take."""

import os

import pytest

from ensue.cli import main
from ensue.data.interactions import Columns
from ensue.data.prepare import prepare
from ensue.errors import EnsueError

ODD = os.fsdecode(b"o\xff")


@pytest.fixture(name="folder")
def _folder(tmp_path):
    (tmp_path / "logs").mkdir()
    for name in ("log.csv", f"logs/{ODD}.csv"):
        try:
            (tmp_path / name).write_text("user,item,time\na,x,1600000000\n")
        except OSError:
            pytest.skip("this file system takes no such names")
    return tmp_path


@pytest.mark.parametrize("source", ["logs", f"logs/{ODD}.csv", "logs/*.csv"])
def test_files_whose_names_are_not_utf8_are_one_line(folder, source):
    with pytest.raises(EnsueError, match="not UTF-8"):
        prepare(folder / source)


def test_folders_and_conditions_that_are_not_utf8_are_one_line(folder):
    with pytest.raises(EnsueError, match="not UTF-8"):
        prepare(folder / "log.csv", folder / ODD)
    with pytest.raises(EnsueError, match="not UTF-8"):
        Columns(where=f"user == '{ODD}'")


def test_arguments_that_are_not_utf8_are_one_line(folder, capsys):
    assert main(["prepare", str(folder / ODD), "--out", str(folder / "out")]) == 2
    assert capsys.readouterr().err.endswith("is not UTF-8: rename the file, or write the value in UTF-8\n")
