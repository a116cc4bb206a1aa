"""`ensue report`: the numbers, the reasons, and the page in a real browser."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ensue.cli import main
from ensue.data.split import SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.datasets.simulate import SimulateConfig, simulate
from ensue.report.breakdown import breakdowns, estimate, periods
from ensue.report.charts import Line, line_chart
from ensue.report.missed import worst
from ensue.runtime.energy import EnergyMeter

CHROMIUM = Path("/usr/bin/chromium")
# Pictures of the page are written to this folder if the variable is set.
PICTURES = "ENSUE_TEST_PICTURES"
EVIL = "\u202e<script>alert(1)</script>&\"'<img src=x onerror=alert(2)>"
SMALL = ("--hidden-units", "8", "--num-blocks", "1", "--maxlen", "10", "--num-epochs", "3", "--eval-epochs", "1")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with hostile titles and categories, and two evaluated runs of it."""
    folder = tmp_path_factory.mktemp("world")
    log = simulate(SimulateConfig(num_users=120, num_items=60, max_length=25, min_length=8))
    log.interactions.write_csv(folder / "log.csv")
    category = pl.lit("<b>") + (pl.col("id") % 3).cast(pl.String)
    columns = {"title": pl.lit(EVIL) + pl.col("title"), "category": category}
    log.items.with_columns(**columns).write_csv(folder / "items.csv")
    words = ["prepare", str(folder / "log.csv"), "--items", str(folder / "items.csv"), "--out", str(folder / "store")]
    assert main(words) == 0
    for name, flags in {"sasrec": SMALL, "markov": ()}.items():
        run = str(folder / name)
        assert main(["train", str(folder / "store"), "--model", name, "--out", run, *flags]) == 0
        assert main(["evaluate", run]) == 0
    return folder


@pytest.fixture(scope="module")
def written(world: Path) -> Path:
    out = world / "report.html"
    assert main(["report", str(world / "sasrec"), str(world / "markov"), "--out", str(out), "--users", "6"]) == 0
    return out


class Parsed(HTMLParser):
    """The tags of a page, each with its attributes; every opened tag must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "rect", "line", "circle", "polyline", "polygon"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_contains_nothing_that_runs_or_loads(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    parsed = Parsed(text)
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"script", "img", "link", "iframe", "object", "form", "b"})
    for tag, attributes in parsed.tags:
        assert not any(name.startswith("on") or name in ("style", "src") for name in attributes), tag
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in text
    assert "\u202e" not in text
    assert "default-src 'none'; style-src 'sha256-" in text


def test_every_section_has_the_figures(written: Path, world: Path) -> None:
    text = written.read_text(encoding="utf-8")
    for title in ("Length of the history", "Popularity of the item", "Activity of the user", "Recency", "Category"):
        assert f">{title}" in text
    for key in ("results", "breakdown", "drift", "learning", "missed", "cost"):
        assert f'<section id="{key}"' in text
        assert f'<a href="#{key}"' in text
    tables = [pl.read_parquet(world / name / "per_user-test-full.parquet") for name in ("sasrec", "markov")]
    for table in tables:
        assert f"{table['ndcg@10'].mean():.4f}<small>[" in text
    assert f"rank {tables[0]['rank'].max():,.4g}</small>" in text
    assert "request of one user, p99" in text


def test_the_reason_has_the_rank_of_the_evaluation(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["report", str(world / "markov"), "--out", str(world / "one.html"), "--users", "5", "--json"]
    capsys.readouterr()
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["missed"]) == 5
    store = SequenceStore.open(world / "store")
    train = make_split(store, SplitConfig()).train
    for each in result["missed"]:
        assert f"rank {each['rank']:,.4g} of " in each["why"]
        number = int(store.item_ids.encode([each["target"]])[0])
        count = int((train.items_P == number).sum())
        assert f"It has {count:,} training event" in each["why"] or count == 0
    assert result["conclusion"] == ""
    assert main([*words[:2], "--users", "0", "--out", str(world / "none.html")]) == 0
    assert 'id="missed"' not in (world / "none.html").read_text()


def test_a_report_of_two_stages_names_the_stage(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = ["--rerank", str(world / "markov"), "--candidates", "20"]
    assert main(["evaluate", str(world / "sasrec"), *stages]) == 0
    capsys.readouterr()
    out = ["--out", str(world / "two.html"), "--users", "200", "--json"]
    assert main(["report", str(world / "sasrec"), *stages, *out]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["protocol"] == "full+rerank-20"
    table = pl.read_parquet(world / "sasrec" / "per_user-test-full+rerank-20.parquet")
    ranks = dict(zip(table["user"].to_list(), table["rank"].to_list(), strict=True))
    lost = {"retrieval": 0, "re-ranking": 0}
    for each in result["missed"]:
        assert each["rank"] == ranks[each["user"]]
        stage = "re-ranking" if "Lost by re-ranking" in each["why"] else "retrieval"
        lost[stage] += 1
        assert (stage == "retrieval") == (each["rank"] > 20)
        if stage == "re-ranking":
            assert f"{each['rank']:,.4g} of 20 candidates" in each["why"]
    assert all(lost.values())


def test_what_is_refused(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def error(*words: object) -> str:
        capsys.readouterr()
        assert main(["report", *map(str, words)]) != 0
        return capsys.readouterr().err

    (tmp_path / "notes.html").write_text("<p>mine")
    assert "is not a report of ensue" in error(world / "sasrec", "--out", tmp_path / "notes.html")
    assert (tmp_path / "notes.html").read_text() == "<p>mine"
    assert "is a folder" in error(world / "sasrec", "--out", tmp_path)
    assert "name each run once" in error(world / "sasrec", world / "sasrec", "--out", tmp_path / "new.html")
    out = ("--out", tmp_path / "new.html")
    assert "no such folder" in error(tmp_path / "nothing", *out)
    assert "has no evaluation 'validation/full'" in error(world / "sasrec", "--part", "validation", *out)
    assert main(["evaluate", str(world / "sasrec"), "--protocol", "uniform-100"]) == 0
    assert "has no evaluation" in error(world / "sasrec", world / "markov", "--protocol", "uniform-100", *out)
    assert not (tmp_path / "new.html").exists()
    assert main(["report", str(world / "sasrec"), *map(str, out), "--users", "1"]) == 0
    assert main(["report", str(world / "markov"), *map(str, out), "--users", "1"]) == 0


def test_breakdowns_divide_all_cases(world: Path) -> None:
    store = SequenceStore.open(world / "store")
    split = make_split(store, SplitConfig())
    trained_N = np.bincount(split.train.items_P, minlength=store.num_items + 1)[1:]
    trained_N[int(split.test.target_items_B[0]) - 1] = 0
    parts = {each.title: each for each in breakdowns(split.test, split.train, trained_N)}
    assert len(parts) == 6
    for part in parts.values():
        rows = np.concatenate([each.rows_B for each in part.slices])
        assert sorted(rows) == [*range(len(split.test))]
    cold = parts["Cold users and items"].slices
    assert [each.name for each in cold] == ["known user, known item", "known user, cold item"]
    assert 0 in cold[1].rows_B
    (zero, *_) = parts["Popularity of the item"].slices
    assert zero.name == "0"
    assert [*zero.rows_B] == [*cold[1].rows_B]
    slices = [one for _, one in periods(split.test)]
    assert sorted(np.concatenate([each.rows_B for each in slices])) == [*range(len(split.test))]
    assert store.times is not None
    times = [store.times[split.test.target_B[each.rows_B]] for each in slices]
    assert all(one.max() <= other.min() for one, other in pairwise(times))


def test_an_estimate_counts_users() -> None:
    values_B, users_B = np.array([1.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 1])
    whole = estimate(values_B, users_B, np.arange(4))
    assert whole.mean == 0.75
    assert whole.low is not None
    one = estimate(values_B, users_B, np.array([0, 1]))
    assert (one.mean, one.low) == (0.5, None)


def test_the_worst_are_one_case_per_user_and_few_of_them_cold() -> None:
    rank_B, users_B = np.array([9.0, 8, 7, 6, 5, 4]), np.array([0, 0, 1, 2, 3, 4])
    assert [*worst(rank_B, np.ones(6), users_B, 3)] == [0, 2, 3]
    assert [*worst(rank_B, np.array([0, 1, 0, 1, 1, 1]), users_B, 5)] == [3, 4, 5, 0]


def test_charts_of_a_single_or_a_constant_value() -> None:
    for line in (Line([3], [0.5]), Line([1, 2], [0.0, 0.0]), Line([1, 2], [1e-9, 2e-9], [0, 0], [1e-8, 1e-8])):
        drawn = line_chart([line, Line([], [])], "x", [(line.x[0], "a")])
        numbers = [float(each) for each in re.findall(r'[xyp12]="([-\d.]+)"', drawn)]
        assert numbers
        assert np.isfinite(numbers).all()
        assert "nan" not in drawn


def test_energy_is_read_where_the_machine_tells(tmp_path: Path) -> None:
    def count(name: str, used: int) -> None:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "energy_uj").write_text(f"{used}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("10000000\n")

    assert EnergyMeter(tmp_path).joules() is None
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        count(name, 9_000_000)
    meter = EnergyMeter(tmp_path)
    count("intel-rapl:0", 9_500_000)
    count("intel-rapl:1", 1_000_000)
    count("intel-rapl:0:0", 9_400_000)
    assert meter.joules() == pytest.approx(0.5 + 2.0)
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("")
    assert meter.joules() is None


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip(f"the page's test needs a browser at {CHROMIUM}")
    playwright = pytest.importorskip("playwright.sync_api", reason="the page's test needs playwright")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_in_a_browser(browser: Any, written: Path, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: errors.append("a dialog"))
    page.on("request", lambda request: errors.append(request.url) if request.url != written.as_uri() else None)
    page.goto(written.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    ground, ink = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color"))
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ground, ink)]
    assert (brightness[0] > brightness[1]) == (scheme == "light")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Results"
    page.click("nav >> text=Missed")
    assert page.url.endswith("#missed")
    first = page.locator("#missed details").first
    first.locator("summary").focus()
    page.keyboard.press("Enter")
    assert first.locator("ol").first.is_visible()
    assert "<script>alert(1)</script>" in first.inner_text()
    page.locator(".table").first.focus()
    assert page.evaluate("document.activeElement.getAttribute('role')") == "region"
    if folder := os.environ.get(PICTURES):
        page.screenshot(path=str(Path(folder) / f"report-{width}-{scheme}.png"), full_page=True)
    page.close()
    assert errors == []
