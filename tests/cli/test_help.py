"""The help: examples that parse, and descriptions as they are written."""

from __future__ import annotations

import functools
import shlex
from typing import Any

import pytest

from ensue.cli import app, train
from ensue.cli.flags import Flag
from ensue.models import MODELS
from ensue.recipes import run_config

from .conftest import Run

EXAMPLES = [line for entry in app.ENTRIES for line in entry.examples]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Commands only take down what they are called with: the command's words -> its arguments."""
    called: dict[str, dict[str, Any]] = {}

    def stub(entry: app.Entry) -> app.Entry:
        @functools.wraps(entry.run)
        def take_down(_screen: object, **values: Any) -> dict[str, Any]:
            called[" ".join(entry.path)] = values
            return {}

        return app.Entry(entry.path, take_down, entry.examples, entry.flags)

    monkeypatch.setattr(app, "ENTRIES", tuple(stub(entry) for entry in app.ENTRIES))
    return called


@pytest.mark.parametrize("line", [*EXAMPLES, *app.EXAMPLES, *app.DATA_EXAMPLES])
def test_every_example_parses(ensue: Run, parsed: dict[str, dict[str, Any]], line: str) -> None:
    program, *words = shlex.split(line)
    words = words[: words.index(">")] if ">" in words else words
    assert program == "ensue"
    done = ensue(*words)
    assert (done.status, done.err) == (0, "")
    ((command, values),) = parsed.items()
    assert " ".join(words).startswith(command)
    if command == "train":
        run_config(values["model"], values["preset"], values["settings"])


def test_a_wrong_example_would_not_parse(ensue: Run, parsed: dict[str, dict[str, Any]]) -> None:
    for line in ("train data/ml --modle sasrec --out runs/a", "prepare log.csv --filter cor --out data/ml", "evaluate"):
        assert ensue(*line.split()).status == 2
    assert not parsed


@pytest.mark.parametrize("words", [(), ("data",)])
def test_groups_of_commands_have_examples(ensue: Run, words: tuple[str, ...]) -> None:
    shown = " ".join(ensue(*words, "--help").out.split())
    examples = app.DATA_EXAMPLES if words else app.EXAMPLES
    assert len(examples) > 1
    assert f"Examples {' '.join(examples)}" in shown


def test_a_group_without_a_command_shows_its_help_and_nothing_else(ensue: Run) -> None:
    done = ensue("data")
    assert (done.status, done.out.rstrip(), done.err) == (2, ensue("data", "--help").out.rstrip(), "")


def test_square_brackets_of_a_description_are_shown(ensue: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert '"space" (user item [time])' in ensue("prepare", "--help").out
    entry = next(entry for entry in app.ENTRIES if entry.path == ("prepare",))
    odd = Flag("odd", "Panel", "one of [bold], [/], [red]x[/red] and \\[y]", "TEXT", "")
    changed = app.Entry(entry.path, entry.run, (r"ensue prepare [x] \[y]",), lambda words: [odd])
    monkeypatch.setattr(app, "ENTRIES", (changed,))
    shown = ensue("prepare", "--help").out
    assert odd.help in shown
    assert r"ensue prepare [x] \[y]" in shown


@pytest.mark.parametrize(
    ("words", "listed", "left_out"),
    [
        (("--model", "tisasrec"), ("--time-span", "--hidden-units"), ("--order", "--positions")),
        (("--model=markov",), ("--order", "--smoothing"), ("--hidden-units", "--time-span")),
        (("--preset", "tisasrec-paper"), ("--time-span", "--hidden-units"), ("--order",)),
        ((), ("--maxlen", "--lr"), ("--hidden-units", "--order")),
    ],
)
def test_help_lists_the_settings_of_the_model_that_is_named(
    ensue: Run, words: tuple[str, ...], listed: tuple[str, ...], left_out: tuple[str, ...]
) -> None:
    shown = ensue("train", *words, "--help").out
    assert all(flag in shown for flag in listed)
    # A line of a panel begins with its border; the examples at the end do not.
    assert not any(f"│ {flag} " in shown for flag in left_out)


def test_defaults_are_those_of_the_model_that_is_named() -> None:
    """Two models may have a setting of one name with different defaults."""
    names = ["sasrec", "popularity"]
    for name in names:
        flags = {flag.name: flag for flag in train.flags(["--model", name])}
        default = MODELS[name].config.model_fields["maxlen"].default
        assert flags["maxlen"].default == str(default)
        assert flags["maxlen"].panel == f"Model {name}"
