"""The recipes, and which of them the data chooses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ensue.cli.app import ENTRIES
from ensue.data.split import SplitConfig, make_split
from ensue.data.store import SequenceStore
from ensue.datasets.simulate import ordered_sequences
from ensue.errors import ConfigError, DataError, counted
from ensue.recipes import RECIPES, configure, fixed, plan, run_config
from ensue.recipes.auto import Profile, choose, chooses, profile, settle
from ensue.recipes.estimate import STEPS, WARM_UP, EnoughError, Estimate, Stopwatch, estimate
from ensue.recommender import Recommender
from ensue.runs.config import RunConfig, TrainConfig
from ensue.train.loop import Trainer


def world(users: int, length: int, items: int, repeats: bool = False) -> SequenceStore:
    """Histories of one length; with repeats every item comes twice in a row."""
    rng = np.random.default_rng(0)
    rows = [rng.choice(items, size=length, replace=False) + 1 for _ in range(users)]
    if repeats:
        rows = [np.repeat(row[: (length + 1) // 2], 2)[:length] for row in rows]
    offsets = np.arange(users + 1, dtype=np.int64) * length
    return SequenceStore.from_arrays(offsets=offsets, items=np.concatenate(rows).astype(np.int32))


LONG, SHORT = world(100, 40, 60), world(400, 6, 60)


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_states_what_to_expect_and_how(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.summary.endswith(".")
    assert any(digit in recipe.expected for digit in "0123456789")
    words = recipe.command.split()
    assert words[0] == "ensue"
    assert words[1] in {entry.path[0] for entry in ENTRIES}
    assert name in words or name == "demo"


# Published data sets: users, items, (input, target) pairs, training events per user, share of repeats.
@pytest.mark.parametrize(
    ("data", "recipe"),
    [
        (Profile(6_040, 3_416, 981_491, 163.5, 0.0, True), "sasrec-ce"),
        (Profile(943, 1_349, 96_458, 103.3, 0.0, True), "sasrec-ce-small"),
        (Profile(22_363, 12_101, 131_413, 6.9, 0.0, True), "sasrec-ce-sparse"),
        (Profile(30_901, 23_715, 194_292, 7.3), "sasrec-ce-sparse"),
        (Profile(202_633, 43_097, 489_988, 3.4, 0.12), "sasrec-sessions"),
        (Profile(10_000, 2_000_000, 80_000, 9.0), "sasrec-sampled"),
    ],
)
def test_the_recipe_follows_the_shape_of_the_data(data: Profile, recipe: str) -> None:
    name, why = choose(data)
    assert name == recipe
    assert f"{data.items:,} items" in why
    assert ("repeated" in why) == (data.repeats > 0)
    assert ("tisasrec" in why) == (data.has_times and data.mean_length > 30)


def test_a_profile_counts_the_training_part_alone() -> None:
    data = profile(make_split(world(50, 8, 40, repeats=True), SplitConfig()))
    assert (data.users, data.pairs, data.mean_length) == (50, 50 * 5, 6.0)
    assert data.repeats == 0.5
    assert not data.has_times
    assert profile(make_split(SHORT, SplitConfig())).repeats == 0.0


def test_the_choice_trains_with_a_softmax_and_suits_the_size() -> None:
    long, short = settle(LONG), settle(SHORT)
    assert (long.config.objective.loss, short.config.objective.loss) == ("ce", "ce")
    assert long.config.train.window == "sliding"
    assert short.config.model.maxlen == 50
    for choice, store in ((long, LONG), (short, SHORT)):
        train = choice.config.train
        steps = Trainer(choice.config, make_split(store, choice.config.split)).loader.steps
        assert steps * train.num_epochs >= 1_000 or train.num_epochs == 300
        assert train.warmup_steps <= steps * train.num_epochs // 10
        assert choice.what.startswith("preset sasrec-ce")
    assert settle(LONG) == long


def test_given_settings_win_and_the_rest_is_still_chosen() -> None:
    config = settle(LONG, "sasrec", {"hidden_units": "10", "num_epochs": 2, "seed": 3, "batch_size": 7}).config
    assert (config.model.model_dump()["hidden_units"], config.train.num_epochs, config.train.seed) == (10, 2, 3)
    assert config.train.batch_size == 7
    assert (config.objective.loss, config.train.window) == ("ce", "sliding")
    # Two epochs are both evaluated, and not spent on the warm-up.
    assert config.train.eval_epochs == 1
    assert config.train.warmup_steps < 10


def test_one_setting_of_the_objective_leaves_all_of_it_to_the_caller() -> None:
    config = settle(SHORT, None, {"num_negatives": 4}).config
    assert config.objective == run_config(None, None, {"num_negatives": 4}).objective
    assert config.train.patience == run_config(None, "sasrec-ce-sparse", {}).train.patience


@pytest.mark.parametrize("width", [1, 7, 50, 64, 66])
def test_every_width_fits_the_heads(width: int) -> None:
    settle(LONG, None, {"hidden_units": width, "positions": "learned"})
    wide = run_config(None, "sasrec-ce", {}).model.model_dump()
    assert wide["num_heads"] > 1  # the recipe for which this matters


def test_where_no_order_can_be_learned_only_popularity_is_left() -> None:
    lonely = SequenceStore.from_arrays(np.arange(6), np.array([1, 2, 1, 3, 1], np.int32))
    assert settle(lonely).config.model.name == "popularity"
    with pytest.raises(DataError, match="nothing to train on"):
        settle(lonely, "sasrec")


def test_a_recipe_a_file_or_another_model_is_not_chosen_over() -> None:
    assert chooses(None, None)
    assert chooses("sasrec", None)
    assert not chooses("tisasrec", None)
    assert not chooses(None, "sasrec-paper")
    assert not chooses(None, None, Path("mine.toml"))
    choice = configure("sasrec", "sasrec-paper", {})(LONG, None)
    assert choice.config == run_config(None, "sasrec-paper", {})
    assert choice.what == ""
    with pytest.raises(ConfigError, match="did you mean 'hidden_units'"):
        configure(None, None, {"hiden_units": 3})


def test_an_estimate_measures_steps_and_keeps_nothing() -> None:
    config = run_config(None, None, {"hidden_units": 8, "maxlen": 10, "num_epochs": 50, "loss": "ce"})
    split = make_split(SHORT, config.split)
    before = Trainer(config, split).model.state_dict()
    cost = estimate(config, split)
    assert cost.epoch > 0
    assert cost.validation > 0
    after = Trainer(config, split).model.state_dict()
    assert all((after[name] == tensor).all() for name, tensor in before.items())


def test_the_stopwatch_ends_a_training_and_leaves_out_the_warm_up() -> None:
    watch = Stopwatch()
    watch.start(100, 3, 0, 0, [])
    for step in range(STEPS - 1):
        watch.step(0, step, 1.0)
    with pytest.raises(EnoughError):
        watch.step(0, STEPS - 1, 1.0)
    watch.seconds = [50.0] * WARM_UP + [2.0, 4.0]
    assert watch.seconds_per_epoch() == 300.0


def test_the_total_counts_epochs_and_evaluations() -> None:
    train = TrainConfig(num_epochs=10, eval_epochs=3)
    assert Estimate(epoch=5.0, validation=2.0).total(train) == 50 + 4 * 2


@pytest.fixture
def minutes_per_epoch(monkeypatch: pytest.MonkeyPatch) -> float:
    """Every epoch takes two minutes, and every evaluation one."""
    monkeypatch.setattr("ensue.recipes.planning.estimate", lambda *_: Estimate(120.0, 60.0))
    return 2.0


def configured(config: RunConfig) -> tuple[int, float]:
    return config.train.num_epochs, Estimate(120.0, 60.0).total(config.train) / 60


@pytest.mark.usefixtures("minutes_per_epoch")
@pytest.mark.parametrize("budget", [3, 10, 61, 200, 100_000])
def test_a_budget_lowers_the_number_of_epochs_to_fit(budget: float) -> None:
    unlimited = plan(configure(None, None, {}), SHORT, None)
    planned = plan(configure(None, None, {}), SHORT, None, budget)
    epochs, minutes = configured(planned.config)
    assert minutes <= budget
    assert planned.config.train.max_minutes == budget
    assert 1 <= epochs <= unlimited.config.train.num_epochs
    assert counted(epochs, "epoch") in planned.lines[0]
    assert f"for {counted(epochs, 'epoch')}" in planned.lines[1]
    # At least half of the budget is used, if there are epochs for it.
    assert epochs == unlimited.config.train.num_epochs or minutes >= budget / 2


@pytest.mark.usefixtures("minutes_per_epoch")
def test_a_budget_that_is_too_small_or_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match="one epoch and its evaluation take about 3"):
        plan(configure(None, None, {}), SHORT, None, 2.5)
    with pytest.raises(ConfigError, match="budget must be above 0"):
        plan(configure(None, None, {}), SHORT, None, 0)
    with pytest.raises(ConfigError, match="needs a single process"):
        plan(configure(None, None, {}), SHORT, None, 5, measured=False)


@pytest.mark.usefixtures("minutes_per_epoch")
def test_a_budget_of_given_settings_lowers_only_the_epochs() -> None:
    config = run_config(None, "sasrec-paper", {})
    planned = plan(fixed(config), SHORT, None, 30)
    assert planned.config.train.num_epochs < config.train.num_epochs
    epochs = planned.config.train.num_epochs
    assert planned.config == config.replace(train=config.train.replace(num_epochs=epochs, max_minutes=30))
    assert plan(fixed(config), SHORT, None).lines == ()


@pytest.mark.usefixtures("minutes_per_epoch")
def test_the_time_that_is_stated_is_a_limit() -> None:
    planned = plan(configure(None, None, {"num_epochs": 7}), SHORT, None)
    assert "at most 21 minutes for 7 epochs" in planned.lines[1]
    assert planned.config.train.max_minutes == 21
    unlimited = plan(configure(None, None, {"num_epochs": 7, "max_minutes": 0}), SHORT, None)
    assert unlimited.config.train.max_minutes == 0


@pytest.mark.usefixtures("minutes_per_epoch")
def test_a_run_goes_on_with_its_own_number_of_epochs(tmp_path: Path) -> None:
    small = {"hidden_units": 8, "num_blocks": 1, "num_epochs": 3}
    first = Recommender(**small).fit(SHORT, tmp_path, budget=7)
    assert first.config.train.num_epochs == 2
    again = Recommender(**small).fit(SHORT, tmp_path, budget=1_000)
    assert again.config == first.config
    assert again.log == first.log


def test_fitting_prints_the_choice_and_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    store = ordered_sequences(num_users=40)
    Recommender(hidden_units=8, num_blocks=1, num_epochs=1).fit(store)
    captured = capsys.readouterr()
    first, second = captured.err.splitlines()
    assert first.startswith("chosen: preset sasrec-ce-sparse: ce, width 8, 1 blocks")
    assert second.startswith("because: short histories (10 events per user, 40 items)")
    assert captured.out == ""
    Recommender("markov").fit(store)
    assert capsys.readouterr().err == ""
