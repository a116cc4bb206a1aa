"""Every snippet of the README and the docs runs: Python as it stands, command lines through the command line's main.

The snippets of a page share a folder, in which the files that the docs name are prepared: a small log `ratings.csv`,
its store `data/ml`, a run, and so on. A comment `<!-- not run: reason -->` before a block leaves it out.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ensue.cli import main
from ensue.models import MODELS
from ensue.modules import VARIABLE

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)]
# A fenced block with the comment before it, if there is one; or an indented line that is a command.
BLOCK = re.compile(
    r"(?P<skip><!-- not run: [^>]+-->\n+)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$|^ {4}(?P<line>ensue .*)$", re.M | re.S
)
COMMANDS = ("console", "shell")
TIME = 978_200_000
ITEMS = [1193, 661, 914, *range(1, 58)]


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """The kind and the text of each snippet of a page that is to be run."""
    for found in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if found["line"] is not None:
            yield "console", found["line"]
        elif found["skip"] is None:
            yield found["kind"], found["text"]


def commands(text: str) -> Iterator[list[str]]:
    """The words of each `ensue` command of a block; what a shell does with a comment and a backslash is done."""
    for line in text.replace("\\\n", " ").splitlines():
        command = line.removeprefix("$ ")
        if command.startswith("ensue "):
            yield shlex.split(re.sub(r"\s#.*", "", command))[1:]


RUN = [
    page
    for page in PAGES
    if any(kind == "python" or (kind in COMMANDS and [*commands(text)]) for kind, text in blocks(page))
]


def log() -> pl.DataFrame:
    """60 people with 16 events each of 60 films."""
    rng = np.random.default_rng(0)
    start = rng.integers(0, 60, 60)
    place = (start[:, None] + np.cumsum(rng.integers(1, 4, (60, 16)), 1)) % 60
    return pl.DataFrame(
        {
            "userId": np.repeat(np.arange(1, 61), 16),
            "movieId": np.array(ITEMS)[place.ravel()],
            "rating": rng.integers(2, 6, 960),
            "timestamp": TIME + 100 * np.arange(960),
            "channel": rng.choice(["web", "app"], 960),
        }
    )


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the docs name."""
    folder = tmp_path_factory.mktemp("world")
    frame = log()
    frame.write_csv(folder / "ratings.csv")
    frame.select("userId", "movieId", "timestamp").write_csv(folder / "clicks.csv", include_header=False)
    titles = pl.DataFrame({"movieId": ITEMS, "title": [f"Film {item}" for item in ITEMS]})
    titles.write_csv(folder / "movies.csv")
    searches = frame.select(user="userId", item=pl.format('"{}', "movieId"), time="timestamp")
    searches.write_csv(folder / "searches.tsv", separator="\t", quote_style="never")
    frame.select("userId", "movieId").write_csv(folder / "Video.txt", separator=" ", include_header=False)
    dataset = frame.select(user_id="userId", item_id="movieId", timestamp="timestamp", rating="rating")
    (folder / "logs" / "ml-1m").mkdir(parents=True)
    dataset.write_parquet(folder / "logs" / "ml-1m" / "interactions.parquet")
    shutil.copy(ROOT / "examples" / "custom_model.py", folder)
    store = str(folder / "data" / "ml")
    assert main(["prepare", str(folder / "ratings.csv"), "--out", store]) == 0
    shutil.copytree(store, folder / "data" / "beauty")
    small = ["--num-epochs", "2", "--hidden-units", "8", "--maxlen", "10"]
    for name, flags in {"sasrec": [], "mhc": ["--residual", "mhc"]}.items():
        command = ["train", store, "--model", "sasrec", "--out", str(folder / "runs" / name), *small, *flags]
        assert main(command) == 0
    assert main(["train", store, "--model", "markov", "--out", str(folder / "runs" / "markov")]) == 0
    return folder


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_snippets_run(page: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "page"
    shutil.copytree(world, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ENSUE_DATA", str(folder / "logs"))
    # What a page imports is forgotten after it.
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.delitem(MODELS._entries, "my-gru", raising=False)
    monkeypatch.delitem(sys.modules, "custom_model", raising=False)
    # Pages that make a run of these names start without it.
    text = page.read_text(encoding="utf-8")
    for run in ("sasrec", "mhc", "markov"):
        if re.search(rf"--out runs/{run}\b", text):
            shutil.rmtree(folder / "runs" / run)
    if "--out data/ml\n" in text or "--out data/ml " in text:
        shutil.rmtree(folder / "data" / "ml")
    names: dict[str, Any] = {"frame": log()}
    for kind, block in blocks(page):
        if kind == "python":
            exec(compile(block, f"{page.name}: {block.splitlines()[0]}", "exec"), names)
        elif kind == "toml":
            (folder / "mine.toml").write_text(block)
        elif kind in COMMANDS:
            for words in commands(block):
                assert main(words) == 0, words
