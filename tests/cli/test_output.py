"""Displays and plots draw what they were told."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from ensue.cli.doctor import histogram
from ensue.cli.live import LiveTraining, PlainTraining, TrainingState
from ensue.plots import learning_curve
from ensue.terminal.output import Screen, bar, clean, duration, sparkline, table

RECORDS = [
    {"epoch": 1, "loss": 2.0, "lr": 0.1, "seconds": 1.0, "validation ndcg@10": 0.1, "validation seconds": 0.5},
    {"epoch": 2, "loss": 1.0, "lr": 0.1, "seconds": 1.0, "validation ndcg@10": 0.3, "validation seconds": 0.5},
    {"epoch": 3, "loss": 0.9, "lr": 0.1, "seconds": 1.0},
]


def test_small_drawings() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([]) == ""
    assert sparkline([2.0, 2.0]) == "▄▄"
    assert (bar(1, 4), bar(0, 4), bar(0.5, 4), bar(7, 4)) == ("████", "", "██", "████")
    assert (duration(5), duration(75), duration(3700)) == ("0:05", "1:15", "1:01:40")


def test_nothing_from_a_log_reaches_the_terminal_as_a_command() -> None:
    out = io.StringIO()
    Console(file=out, markup=False).print(table(("title",), [("\x1b[2J[red]x",)]))
    assert "\x1b" not in out.getvalue()
    assert "[red]x" in out.getvalue()
    assert clean("Amélie, 天 [1]") == "Amélie, 天 [1]"


def test_the_histogram_counts_every_user() -> None:
    import numpy as np

    lengths = np.array([1, 2, 3, 4, 7, 60, 150, 999])
    payload = dict(histogram(lengths))
    assert payload == {"1": 1, "2": 1, "3-4": 1 + 1, "5-9": 1, "10-19": 0, "20-49": 0, "50-99": 1, "100-199": 1,
                     "200-499": 0, "500-999": 1}  # fmt: skip


def test_the_live_display_shows_rates_losses_and_the_curve() -> None:
    display = LiveTraining(1000, Screen())
    # Without the terminal drawing of its own start.
    TrainingState.start(display, 10, 5, 1, 4, [])
    for record in RECORDS:
        display.record(record)
    display.step(3, 4, 1.5)
    assert display.best == (0.3, 2)
    assert display.values == [0.1, 0.3]
    out = io.StringIO()
    Console(file=out, width=120, markup=False).print(display.draw())
    shown = out.getvalue()
    for text in (
        "epoch 4/5",
        "step 5/10",
        "steps/s",
        "events/s",
        "left: epoch",
        "best 0.3000 (epoch 2)",
        "▁█",
        "loss 1.5000",
    ):
        assert text in shown


def test_a_display_shows_the_epochs_before_a_resume() -> None:
    display = PlainTraining(1000, Screen())
    display.start(10, 5, 2, 0, [{"started from": "weights.pth"}, *RECORDS[:2]])
    assert (display.best, display.values) == ((0.3, 2), [0.1, 0.3])
    display.record({"epoch": 3, "loss": 1.0, "validation ndcg@10": 0.2})
    assert (display.best, display.values) == ((0.3, 2), [0.1, 0.3, 0.2])


def test_plain_lines_say_when_there_was_no_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    display = PlainTraining(1000, Screen())
    display.start(10, 3, 0, 0, [])
    for record in RECORDS:
        display.record(record)
    lines = capsys.readouterr().out.splitlines()
    assert "validation ndcg@10 0.3000 (best 0.3000, epoch 2)" in lines[1]
    assert "validation" not in lines[2]
    assert "10.0 steps/s, 1,000 events/s" in lines[2]


def test_the_learning_curve_is_written_and_repeats(tmp_path: Path) -> None:
    paths = learning_curve(RECORDS, tmp_path)
    assert [path.name for path in paths] == ["learning_curve.svg", "learning_curve.png"]
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    svg = paths[0].read_text()
    assert "<svg" in svg
    learning_curve(RECORDS, tmp_path)
    assert paths[0].read_text() == svg
    assert learning_curve([], tmp_path / "none") == []
    assert learning_curve(RECORDS[2:], tmp_path / "unvalidated") != []
