"""The docs say what the code does: generated pages are current, and every snippet of the README and the pages runs.

The snippets of a page share a temporary folder with the files that the docs name: a log `ratings.csv`, its store
`data/ml`, a run `runs/sasrec`, and so on. Python blocks share one namespace. `ensue` commands run through the command
line's `main`; lines under a `$` command that do not start with `$` are its expected output, with `...` for anything.
Comments before a block change that:

- `<!-- not run: reason -->`: the block is left out.
- `<!-- output differs: reason -->`: the commands run, their output is not compared.
- `<!-- file: NAME -->`: the block is the content of a file, which a later command reads.
"""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ensue.cli import main
from ensue.evaluation.metrics import METRICS
from ensue.models import MODELS
from ensue.modules import VARIABLE
from ensue.objectives.losses import LOSSES
from ensue.runs.config import OPTIMIZERS, SCHEDULES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts),
]
COMMENT = re.compile(r"<!-- (?P<rule>not run|output differs|file): (?P<text>.+) -->")
FENCE = re.compile(r"```(?P<kind>[\w{}]*)(?P<rest>.*)")
SHELLS = ("console", "shell", "bash")
TIME = 978_200_000
ITEMS = [1193, 661, 914, *range(1, 58)]


@dataclass
class Block:
    """A snippet: its kind ("python", "console", ...), its text, and what the comment before it says."""

    kind: str
    text: str = ""
    rule: str = ""
    reason: str = ""


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, and its indented `ensue` commands."""
    result: list[Block] = []
    rule, reason, fenced = "", "", False
    for line in text.splitlines():
        fence = FENCE.fullmatch(line.strip())
        if fenced:
            fenced = fence is None
            result[-1].text += f"{line}\n" if fenced else ""
        elif fence is not None:
            result.append(Block(fence["kind"], rule=rule, reason=reason))
            rule, reason, fenced = "", "", True
        elif comment := COMMENT.fullmatch(line.strip()):
            rule, reason = comment["rule"], comment["text"]
        elif line.startswith("    ensue "):
            result.append(Block("shell", line.strip() + "\n"))
        elif line.strip():
            rule = reason = ""
    return result


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """The commands of a shell block, each with the output below it; a line's trailing comment is dropped."""
    lines = block.text.replace("\\\n", " ").splitlines()
    typed = [line for line in lines if line.startswith("$ ")]
    if not typed:
        yield from ((re.sub(r"\s#\s.*", "", line), "") for line in lines if line.strip() and line[0] != "#")
        return
    for part in re.split(r"^\$ ", "\n".join(lines), flags=re.M)[1:]:
        command, _, output = part.partition("\n")
        yield re.sub(r"\s#\s.*", "", command), output.strip()


def is_run(block: Block) -> bool:
    return block.rule != "not run" and block.kind in ("python", "toml", *SHELLS)


RUN = [page for page in PAGES if any(map(is_run, blocks(page.read_text(encoding="utf-8"))))]


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
    export = frame.select(user="userId", item="movieId", time="timestamp").write_csv(separator=";")
    (folder / "export.csv").write_text(f"Export\n\n# all shops\n{export}")
    with closing(sqlite3.connect(folder / "shop.db")) as shop, shop:
        shop.execute("create table events (user, item, time)")
        shop.executemany("insert into events values (?, ?, ?)", frame.select("userId", "movieId", "timestamp").rows())
    searches = frame.select(user="userId", item=pl.format('"{}', "movieId"), time="timestamp")
    searches.write_csv(folder / "searches.tsv", separator="\t", quote_style="never")
    frame.select("userId", "movieId").write_csv(folder / "Video.txt", separator=" ", include_header=False)
    dataset = frame.select(user_id="userId", item_id="movieId", timestamp="timestamp", rating="rating")
    (folder / "logs" / "ml-1m").mkdir(parents=True)
    dataset.write_parquet(folder / "logs" / "ml-1m" / "interactions.parquet")
    # Not a copy: a name can be imported from one file only, and another test may have imported this one.
    (folder / "custom_model.py").symlink_to(ROOT / "examples" / "custom_model.py")
    store = str(folder / "data" / "ml")
    assert main(["prepare", str(folder / "ratings.csv"), "--out", store]) == 0
    shutil.copytree(store, folder / "data" / "beauty")
    small = ["--model", "sasrec", "--num-epochs", "1", "--hidden-units", "8", "--maxlen", "10"]
    for name, flags in {"sasrec": small, "mhc": [*small, "--residual", "mhc"], "markov": ["--model", "markov"]}.items():
        assert main(["train", store, "--out", str(folder / "runs" / name), *flags]) == 0
    return folder


def run_command(command: str, output: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a line of a shell block and compare what it prints.

    A training is cut to one epoch where the line names no number, and runs in one process; other tests cover ranks.
    """
    program, *words = shlex.split(command)
    target = ""
    if ">" in words:
        words, target = words[: words.index(">")], words[-1]
    assert program == "ensue", f"{command!r} is not an ensue command: mark the block <!-- not run: reason -->"
    if "--devices" in words:
        words[words.index("--devices") + 1] = "1"
    if words[0] == "train" and not {"--num-epochs", "--help"} & {*words}:
        words += ["--num-epochs", "1"]
    capsys.readouterr()
    status = main(words)
    printed = capsys.readouterr()
    if target:
        Path(target).write_text(printed.out)
    assert (status != 0) == output.startswith("ensue: "), f"{command}\n{printed.err}"
    pattern = ".*".join(re.escape(" ".join(part.split())) for part in output.split("..."))
    assert re.search(pattern, " ".join((printed.out + printed.err).split()), re.S), f"{command}\n{printed}"


@pytest.fixture
def folder(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A page's working folder; what the page registers and imports is forgotten after it."""
    folder = tmp_path / "page"
    shutil.copytree(world, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ENSUE_DATA", str(folder / "logs"))
    monkeypatch.setenv(VARIABLE, "")
    for registry in (MODELS, LOSSES, METRICS, OPTIMIZERS, SCHEDULES):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    before = set(sys.modules)
    yield folder
    for path in folder.glob("*.py"):
        if path.stem not in before:
            sys.modules.pop(path.stem, None)


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_snippets_run(page: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = page.read_text(encoding="utf-8")
    # A page that makes a run or the store itself starts without it.
    for made in re.findall(r"--out ((?:runs|data)/\w+)\b", text):
        shutil.rmtree(folder / made, ignore_errors=True)
    names: dict[str, Any] = {"frame": log()}
    for block in blocks(text):
        if block.rule == "file":
            Path(block.reason).write_text(block.text, encoding="utf-8")
        elif not is_run(block):
            continue
        elif block.kind == "python":
            exec(compile(block.text, f"{page.name}: {block.text.splitlines()[0]}", "exec"), names)
        elif block.kind == "toml":
            Path("mine.toml").write_text(block.text, encoding="utf-8")
        else:
            for command, output in commands(block):
                run_command(command, "" if block.rule == "output differs" else output, capsys)


def test_blocks_are_found_with_what_the_comment_says() -> None:
    text = "a\n\n<!-- not run: slow -->\n```shell\nmake\n```\n\n```python\nx = 1\n```\n\n    ensue demo\n\n    ls\n"
    assert blocks(text) == [
        Block("shell", "make\n", "not run", "slow"),
        Block("python", "x = 1\n"),
        Block("shell", "ensue demo\n"),
    ]
    assert [*commands(Block("console", "$ ensue a \\\n  b  # why\nout\n  put\n$ ensue c\n"))] == [
        ("ensue a    b ", "out\n  put"),
        ("ensue c", ""),
    ]


def test_wrong_output_is_caught(capsys: pytest.CaptureFixture[str]) -> None:
    run_command("ensue --version", "ensue ...", capsys)
    for output in ("ensue 99", "ensue: an error"):
        with pytest.raises(AssertionError):
            run_command("ensue --version", output, capsys)


def test_the_page_of_settings_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(DOCS / "settings.py"), run_name="__main__")
    assert (DOCS / "settings.md").read_text() == capsys.readouterr().out, "python docs/settings.py > docs/settings.md"
