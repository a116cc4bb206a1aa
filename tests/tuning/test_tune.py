"""A search improves on its start, never falls below it, and goes on where it was interrupted or killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ensue.data.split import Split
from ensue.data.store import SequenceStore
from ensue.errors import ConfigError, DataError, EnsueError, OtherRunError
from ensue.runs.config import RunConfig
from ensue.runs.log import Watcher, epochs_of
from ensue.train.fit import Fitted, fit
from ensue.tuning.outcome import conclude
from ensue.tuning.population import GENERATIONS, MEMBERS, STATE, Population
from ensue.tuning.space import Choices, Range, Space, changed, space_of
from ensue.tuning.study import SamplerName
from ensue.tuning.trials import Fit, Trial, best_of
from ensue.tuning.tune import HOPELESS, Tuner

Tiny = Callable[..., RunConfig]
HOUR = 3600.0
SPACE = ("lr=0.0001..0.1", "dropout_rate=0.1..0.5")


@pytest.fixture(name="store")
def _store(split: Split) -> SequenceStore:
    return split.train.store


@pytest.fixture(name="config")
def _config(tiny: Tiny) -> RunConfig:
    """A start that hardly learns."""
    return changed(tiny(num_epochs=2, eval_epochs=1, lr=0.0001), {"dropout_rate": 0.2})


def trained(config: RunConfig, store: SequenceStore, folder: Path, watchers: Iterable[Watcher]) -> Fitted:
    return fit(config, store, folder, watchers)


def tuner(
    store: SequenceStore,
    config: RunConfig,
    folder: Path,
    space: Space,
    sampler: SamplerName = "tpe",
    how: Fit = trained,
) -> Tuner:
    return Tuner(store, config, space, folder, how, lambda _: None, sampler, "none")


def test_the_best_is_above_its_start_and_compared_with_it(
    store: SequenceStore, config: RunConfig, tmp_path: Path
) -> None:
    space = space_of(config, SPACE)
    search = tuner(store, config, tmp_path, space)
    done = search.run(HOUR, 9)
    assert done[0].settings == {"lr": 0.0001, "dropout_rate": 0.2}
    best = best_of(done)
    assert best is not None
    assert best.value == max(trial.value or 0 for trial in done) > (done[0].value or 0)
    outcome = conclude(tmp_path, store, config, space, done, search.importance())
    assert outcome.validation is not None
    assert outcome.validation.mean_a == pytest.approx(best.value)
    assert outcome.validation.mean_b == pytest.approx(done[0].value)
    assert outcome.p_adjusted == min(1, 9 * outcome.validation.p)
    assert sum(outcome.importance.values()) == pytest.approx(1)
    assert RunConfig.read_toml(tmp_path / "best.toml") == changed(config, best.settings)
    assert "9 trials" in (tmp_path / "tune.md").read_text()
    assert len(json.loads((tmp_path / "tune.json").read_text())["trials"]) == 9
    assert "![trials](trials.png)" in (tmp_path / "tune.md").read_text()
    assert {"trials.png", "importance.png"} <= {path.name for path in tmp_path.iterdir()}
    # The test part is opened for the best and for the start alone.
    evaluated = [path.parent.name for path in (tmp_path / "trials").glob("*/per_user-test-full.parquet")]
    assert sorted(evaluated) == sorted({"0000", f"{best.number:04d}"})


@pytest.mark.parametrize("sampler", ["gp", "random", "grid"])
def test_other_samplers(store: SequenceStore, config: RunConfig, tmp_path: Path, sampler: SamplerName) -> None:
    space = space_of(config, ("lr=0.0001,0.01",))
    done = tuner(store, config, tmp_path, space, sampler).run(HOUR, 4)
    assert {trial.settings["lr"] for trial in done} == {0.0001, 0.01}
    # A grid has an end.
    assert len(done) == (2 if sampler == "grid" else 4)


def test_an_interrupted_trial_goes_on(store: SequenceStore, config: RunConfig, tmp_path: Path) -> None:
    space = space_of(config, SPACE)
    calls: list[Path] = []

    def interrupted(config: RunConfig, store: SequenceStore, folder: Path, watchers: Iterable[Watcher]) -> Fitted:
        calls.append(folder)
        if len(calls) == 2:
            with pytest.raises(KeyboardInterrupt):
                fit(config, store, folder, [*watchers, StopAfterEpoch()])
            raise KeyboardInterrupt
        fitted = fit(config, store, folder, watchers)
        assert len(epochs_of(fitted.log)) == 2
        return fitted

    search = tuner(store, config, tmp_path, space, how=interrupted)
    with pytest.raises(KeyboardInterrupt):
        search.run(HOUR, 3)
    done = tuner(store, config, tmp_path, space, how=interrupted).run(HOUR, 3)
    assert calls[1] == calls[2]
    assert [(trial.number, trial.state) for trial in done] == [(0, "complete"), (1, "complete"), (3, "complete")]


def test_the_trial_of_a_killed_process_is_taken_up(store: SequenceStore, config: RunConfig, tmp_path: Path) -> None:
    space = space_of(config, SPACE)
    search = tuner(store, config, tmp_path, space)
    search.run(HOUR, 1)
    assert search.study is not None
    trial, settings = search.study.ask()
    with search.study.working(trial, 60):
        # Its owner is alive, so others leave the trial alone.
        with ThreadPoolExecutor(1) as other:
            seen = other.submit(tuner(store, config, tmp_path, space).run, HOUR, 1).result()
        assert [each.state for each in seen] == ["complete", "running"]
    done = tuner(store, config, tmp_path, space).run(HOUR, 2)
    assert [each.state for each in done] == ["complete", "complete"]
    assert done[1].settings == settings


def test_a_search_of_something_else_is_refused(store: SequenceStore, config: RunConfig, tmp_path: Path) -> None:
    tuner(store, config, tmp_path, space_of(config, SPACE)).run(HOUR, 1)
    with pytest.raises(OtherRunError, match=r"another space: lr: '0.0001 to 0.01.*' now"):
        tuner(store, config, tmp_path, space_of(config, ("lr=0.0001..0.01", SPACE[1]))).run(HOUR, 1)
    with pytest.raises(OtherRunError, match=r"another start: .*seed"):
        tuner(store, changed(config, {"seed": 5}), tmp_path, space_of(config, SPACE)).run(HOUR, 1)


def test_settings_that_contradict_each_other_fail_alone(
    store: SequenceStore, config: RunConfig, tmp_path: Path
) -> None:
    space: Space = {"hidden_units": Choices((8, 9)), "num_heads": Choices((1, 2))}
    start = changed(config, {"hidden_units": 8, "num_heads": 2})
    done = tuner(store, start, tmp_path, space, "grid").run(HOUR)
    refused = [trial for trial in done if trial.state == "failed"]
    assert [trial.settings for trial in refused] == [{"hidden_units": 9, "num_heads": 2}]
    assert "num_heads 2 must divide hidden_units 9" in refused[0].reason


def test_a_search_without_a_start_to_compare_with_says_so(
    store: SequenceStore, config: RunConfig, tmp_path: Path
) -> None:
    def failing_first(config: RunConfig, store: SequenceStore, folder: Path, watchers: Iterable[Watcher]) -> Fitted:
        if folder.name == "0000":
            raise DataError("the start fails")
        return fit(config, store, folder, watchers)

    space = space_of(config, SPACE)
    done = tuner(store, config, tmp_path, space, how=failing_first).run(HOUR, 2)
    assert [trial.state for trial in done] == ["failed", "complete"]
    outcome = conclude(tmp_path, store, config, space, done, {})
    assert outcome.best.number == 1
    assert (outcome.validation, outcome.test) == (None, None)
    assert "the start of the search was not completed" in outcome.sentence
    # One value makes no plot, so the page shows none.
    assert "![" not in (tmp_path / "tune.md").read_text()


def test_a_search_in_which_every_trial_fails_ends(store: SequenceStore, config: RunConfig, tmp_path: Path) -> None:
    def failing(config: RunConfig, store: SequenceStore, folder: Path, watchers: Iterable[Watcher]) -> Fitted:
        raise DataError("the data has no times")

    space = space_of(config, SPACE)
    done = tuner(store, config, tmp_path, space, how=failing).run(HOUR, HOPELESS + 5)
    assert len(done) == HOPELESS
    with pytest.raises(EnsueError, match=r"no trial was completed: the data has no times$"):
        conclude(tmp_path, store, config, space, done, {})


def test_a_hopeless_curve_is_pruned(store: SequenceStore, config: RunConfig, tmp_path: Path) -> None:
    start = changed(config, {"lr": 0.02, "num_epochs": 4})
    space = space_of(start, ("lr=0.02,0.00001",))
    search = Tuner(store, start, space, tmp_path, trained, lambda _: None, "random", "median")
    done = search.run(HOUR, 14)
    pruned = [trial for trial in done if trial.state == "pruned"]
    assert pruned
    assert {trial.settings["lr"] for trial in pruned} == {0.00001}
    assert done[0].state == "complete"


def test_a_counted_model_has_a_search_too(store: SequenceStore, tmp_path: Path) -> None:
    config = RunConfig.parse({"model": {"name": "markov"}})
    space = space_of(config)
    done = tuner(store, config, tmp_path, space).run(HOUR, 3)
    assert len(done) == 3
    assert "order" in done[0].settings


def test_weak_members_take_over_from_strong_ones(store: SequenceStore, config: RunConfig, tmp_path: Path) -> None:
    start = changed(config, {"num_epochs": GENERATIONS})
    space = space_of(start, SPACE)
    population = Population(store, start, space, tmp_path, trained, lambda _: None)
    half = population.run(HOUR, 2)
    assert [trial.number for trial in half] == list(range(MEMBERS))
    again = Population(store, start, space, tmp_path, trained, lambda _: None)
    done = again.run(HOUR, 4)
    members = json.loads((tmp_path / STATE).read_text())["members"]
    assert all(len(member["history"]) == 4 for member in members)
    # The first keeps the settings of the start; another's line has changed.
    assert {json.dumps(part["settings"]) for part in members[0]["history"]} == {json.dumps(done[0].settings)}
    lines = [[Path(part["from"]).name[3:] for part in member["history"][1:]] for member in members]
    assert any(set(line) != {str(number)} for number, line in enumerate(lines))
    best = best_of(done)
    assert best is not None
    assert (best.value or 0) > (done[0].value or 0)
    whole = Population(store, start, space, tmp_path / "whole", trained, lambda _: None).run(HOUR, 4)
    assert [(trial.settings, trial.value) for trial in whole] == [(trial.settings, trial.value) for trial in done]


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("lr", Range(0.001, 0.1, whole=False, log=True)),
        ("num_blocks", Range(1, 8, whole=True, log=False)),
        ("dropout_rate", Range(0.0, 0.9, whole=False, log=False)),
        ("norm", Choices(("pre", "post", "original"))),
        ("logq", Choices((False, True))),
        ("hidden_units=16..256", Range(16, 256, whole=True, log=True)),
        ("window=last,sliding", Choices(("last", "sliding"))),
    ],
)
def test_ranges_follow_from_types_and_texts(text: str, axis: Range | Choices) -> None:
    config = changed(RunConfig.parse({"model": {"name": "sasrec"}}), {"lr": 0.01, "hidden_units": 50})
    assert space_of(config, (text,)) == {text.partition("=")[0]: axis}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate", r"unknown setting 'learning_rate' of model 'sasrec'"),
        ("seed", r"unknown setting 'seed'"),
        ("lr=high..low", r"'high' is not a number"),
        ("lr=0.1..0.01", r"LOW..HIGH, two numbers with LOW below HIGH \(got '0.1..0.01'\)"),
        ("lr=0.1..1", r"lr: 0.001 is not among 0.1 to 1.*include it, or set --lr"),
        ("dropout_rate=0.2..1", r"dropout_rate.*less than 1"),
        ("weight_decay", r"its default is 0, so its range must be given"),
        ("norm=pre,between", r"between"),
    ],
)
def test_wrong_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        space_of(RunConfig.parse({"model": {"name": "sasrec"}}), (text,))


def test_the_earliest_of_equals_is_best() -> None:
    rows = [Trial(number, {}, value, "complete", 1.0, "") for number, value in enumerate((0.1, 0.3, 0.3))]
    assert best_of([*rows, Trial(3, {}, 0.9, "pruned", 1.0, "")]) == rows[1]


class StopAfterEpoch:
    """A watcher that interrupts a training after its first epoch."""

    def start(self, *_: object) -> None: ...

    def step(self, epoch: int, step: int, loss: float) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    def record(self, record: dict[str, Any]) -> None: ...

    def finish(self) -> None: ...
