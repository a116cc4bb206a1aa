"""Every command on small data: what it writes, what it prints, and what it says when it cannot."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest

from ensue import __version__, read
from ensue.cli import main
from ensue.cli.live import TrainingState
from ensue.data.moments import day
from ensue.datasets.simulate import ordered_sequences

from .conftest import SMALL, Run


def test_the_way_of_the_readme(ensue: Run, csv_log: Path, tmp_path: Path) -> None:
    store, run = tmp_path / "data" / "ml", tmp_path / "runs" / "sasrec"
    words = ("--user", "userId", "--item", "movieId", "--time", "timestamp")
    done = ensue("prepare", csv_log, *words, "--out", store)
    assert done.status == 0
    assert done.out.splitlines()[-1].startswith(f"next: ensue train {store}")
    done = ensue("train", store, "--model", "sasrec", "--out", run, *SMALL)
    assert done.status == 0
    assert done.out.splitlines()[-1] == f"next: ensue evaluate {run}"
    lines = [line for line in done.out.splitlines() if line.startswith("epoch ")]
    assert [line.split(",")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert "validation ndcg@10" in lines[0]
    assert {"learning_curve.svg", "learning_curve.png"} <= {path.name for path in run.iterdir()}
    done = ensue("evaluate", run)
    assert done.status == 0
    assert "ndcg@10" in done.out
    assert (run / "per_user-test-full.parquet").is_file()
    assert ensue("recommend", run, "--history", "3,5,8", "-k", 4).status == 0
    assert ensue("similar", run, "--item", 3).status == 0


def test_prepare_counts_every_row(ensue: Run, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,time\na,x,1\na,y,2\nb,x,3\n,x,4\nb,,5\nb,z,soon\n")
    done = ensue("prepare", tmp_path / "log.csv", "--out", tmp_path / "store", "--json")
    payload = done.json
    assert (done.status, payload["rows_in"], payload["users"], payload["items"]) == (0, 6, 2, 2)
    assert payload["dropped"] == {"missing user": 1, "missing item": 1, "unreadable time": 1}
    assert payload["rows_in"] == payload["interactions"] + sum(payload["dropped"].values())
    shown = ensue("prepare", tmp_path / "log.csv", "--out", tmp_path / "store", "--overwrite").out
    assert "dropped: missing user" in shown


def test_prepare_takes_columns_filters_and_formats(ensue: Run, tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("a;1\n".replace(";", " ") * 2 + "a 2\nb 1\n")
    words = ("--format", "space", "--min-user-events", 2, "--duplicates", "first", "--json")
    payload = ensue("prepare", tmp_path / "log.txt", "--out", tmp_path / "store", *words).json
    assert (payload["users"], payload["interactions"]) == (1, 2)
    assert payload["dropped"] == {"repeated item of a user": 1, "user with fewer than 2 events": 1}


def test_prepare_reads_quotes_as_plain_characters(ensue: Run, tmp_path: Path) -> None:
    log, store = tmp_path / "queries.tsv", tmp_path / "store"
    log.write_text("user\titem\ttitle\n" + "".join(f'{n % 2}\t{n}\t{n}" nail\n' for n in range(3)))
    for words in (("prepare", log, "--out", store), ("train", log, "--out", tmp_path / "run")):
        wrong = ensue(*words)
        assert (wrong.status, wrong.out, wrong.err.count("\n")) == (1, "", 3)
        assert "line 2 opens a quote and does not close it: of a log, --no-quotes (quotes=False) reads" in wrong.err
    assert f"\n  ensue prepare {log} --no-quotes --out data/queries\n" in wrong.err
    payload = ensue("prepare", log, "--no-quotes", "--out", store, "--json").json
    assert (payload["rows_in"], payload["interactions"], payload["dropped"]) == (3, 3, {})
    assert read(log, quotes=False).num_events == 3


def test_prepare_refuses_a_minimum_without_a_filter(ensue: Run, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item\na,1\na,2\nb,1\n")
    words = ("prepare", tmp_path / "log.csv", "--out", tmp_path / "store", "--filter", "none")
    wrong = ensue(*words, "--min-user-events", 2)
    assert (wrong.status, wrong.out) == (2, "")
    assert "min_user_events 2 and filter 'none', which leaves nothing out, contradict each other" in wrong.err
    assert ensue(*words, "--json").json["interactions"] == 3


def test_prepare_accepts_names_of_datasets(ensue: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "public" / "tiny"
    folder.mkdir(parents=True)
    pl.DataFrame({"user_id": [1, 1, 2], "item_id": [5, 6, 5]}).write_parquet(folder / "interactions.parquet")
    monkeypatch.setenv("ENSUE_DATA", str(tmp_path / "public"))
    assert ensue("prepare", "tiny", "--out", tmp_path / "a", "--filter", "none", "--json").json["users"] == 2
    assert ensue("datasets", "tiny", "--out", tmp_path / "b", "--json").json["interactions"] == 3
    assert ensue("datasets", "--json").json["local"] == ["tiny"]
    wrong = ensue("prepare", "tinny", "--out", tmp_path / "c")
    assert (wrong.status, wrong.out) == (1, "")
    assert "did you mean 'tiny'" in wrong.err


def test_a_filter_changes_nothing_else_of_a_datasets_preparation(
    ensue: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "public" / "mylog"
    folder.mkdir(parents=True)
    rows = {"user_id": [1, 1, 2, 2, 2, 2, 3], "item_id": [5, 5, 5, 6, 7, 8, 5]}
    pl.DataFrame(rows).write_parquet(folder / "interactions.parquet")
    monkeypatch.setenv("ENSUE_DATA", str(tmp_path / "public"))
    kept = []
    for number, words in enumerate(((), ("--duplicates", "keep"), ("--duplicates", "last"), ("--min-user-events", 2))):
        kept.append(ensue("prepare", "mylog", "--out", tmp_path / str(number), *words, "--json").json["interactions"])
    assert kept == [7, 7, 6, 6]


def test_prepare_shows_the_first_and_the_last_time(ensue: Run, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,date\na,1,20240115\na,2,20240116\n")
    words = ("prepare", tmp_path / "log.csv", "--out", tmp_path / "store", "--overwrite")
    payload = ensue(*words, "--json").json
    assert (payload["first"], payload["last"]) == ("2024-01-15T00:00:00Z", "2024-01-16T00:00:00Z")
    shown = [line.split() for line in ensue(*words).out.splitlines()]
    assert ["first", "event", "2024-01-15T00:00:00Z"] in shown
    assert ["last", "event", "2024-01-16T00:00:00Z"] in shown
    untimed = ensue(*words, "--time", "-", "--json").json
    assert (untimed["first"], untimed["last"]) == (None, None)


def test_an_odd_time_is_a_finding(ensue: Run, tmp_path: Path) -> None:
    rows = "".join(f"{user},{item},{1_600_000_000 + item}\n" for user in (1, 2, 3) for item in (5, 6, 7))
    (tmp_path / "log.csv").write_text(f"user,item,time\n{rows}3,8,1600000000000\n")
    assert "times in two units" in ensue("prepare", tmp_path / "log.csv", "--out", tmp_path / "store").err
    unit = ("--time-unit", "s")
    assert ensue("prepare", tmp_path / "log.csv", *unit, "--out", tmp_path / "store").status == 0
    for source, words in (("log.csv", unit), ("store", ())):
        report = ensue("data", "check", tmp_path / source, *words, "--json").json
        levels = {finding["name"]: finding["level"] for finding in report["findings"]}
        assert (levels["times"], levels["time-units"]) == ("problem", "problem")
        assert "1600000000000" in ensue("data", "check", tmp_path / source, *words).out


def test_a_log_whose_columns_are_unclear_is_to_be_prepared(ensue: Run, tmp_path: Path) -> None:
    log, run = tmp_path / "my log.csv", tmp_path / "run"
    log.write_text("person,thing,stars,when\n" + "".join(f"a,{n},1,{n}\nb,{n},2,{n}\n" for n in range(5)))
    refused = ensue("train", log, "--model", "markov", "--out", run)
    assert refused.status == 1
    assert "which column is the user? Columns: person, thing, stars, when; say which with one of" in refused.err
    guess = "--user person --item thing"
    assert refused.err.splitlines()[1] == f"  ensue prepare '{log}' {guess} --out 'data/my log'"
    refused = ensue("prepare", log, "--out", tmp_path / "store")
    assert refused.err.splitlines()[1] == f"  ensue prepare '{log}' --out {tmp_path / 'store'} {guess}"
    assert ensue("data", "check", log).err.splitlines()[1] == f"  ensue data check '{log}' {guess}"
    names = ("--user", "person", "--item", "thing", "--time", "when")
    assert ensue("prepare", log, *names, "--out", tmp_path / "store").status == 0
    assert ensue("train", tmp_path / "store", "--model", "markov", "--out", run).status == 0
    evaluated = ensue("evaluate", run, "--data", log)
    assert "prepared in memory with the settings of my log.csv (10 of 10 rows kept" in evaluated.out


def test_a_run_of_a_log_reads_newer_logs_alike(ensue: Run, tmp_path: Path) -> None:
    old, new, run = tmp_path / "old.csv", tmp_path / "new.csv", tmp_path / "run"
    old.write_text("user,item,time\n" + "".join(f"{u},{i},1{3 + i}/02/2019\n" for u in "ab" for i in range(4)))
    assert ensue("train", old, "--model", "markov", "--out", run).status == 0
    # On its own, this could be read with either the day or the month first.
    new.write_text("user,item,time\na,0,01/02/2019\na,1,02/02/2019\na,2,03/02/2019\nb,0,01/02/2019\nb,1,02/02/2019\n")
    shown = ensue("recommend", run, "--data", new, "--user", "a")
    assert "with the settings of old.csv (5 of 5 rows kept" in shown.out + shown.err
    assert "2019-02-01 to 2019-02-03" in shown.out + shown.err


def test_a_log_in_parts_is_prepared_trained_on_and_read_alike(ensue: Run, tmp_path: Path) -> None:
    log, store, run = tmp_path / "log", tmp_path / "store", tmp_path / "run"
    for date in (1, 2, 3):
        (log / f"day=2024-01-0{date}").mkdir(parents=True)
        rows = "".join(f"{user},{(user + date) % 4},{date}\n" for user in range(1, 9))
        (log / f"day=2024-01-0{date}" / "part.csv").write_text(f"who,what,stars\n{rows}")
    columns = ("--user", "who", "--item", "what", "--time", "day", "--rating", "stars", "--min-rating", "1.5")
    assert "drop" in ensue("prepare", log, *columns, "--out", store).out
    assert ensue("train", store, "--model", "markov", "--out", run).status == 0
    for place in (log, log / "*", log / "day=2024-01-0*" / "part.csv"):
        assert "(16 of 24 rows kept, 8 dropped" in ensue("recommend", run, "--user", "5", "--data", place).out
    parts = [log / f"day=2024-01-0{date}" / "part.csv" for date in (1, 2)]
    words = [word for part in parts for word in ("--data", part)]
    assert "(8 of 16 rows kept, 8 dropped" in ensue("recommend", run, "--user", "5", *words).out
    assert ensue("data", "check", *parts, *columns[:6]).status == 0
    renamed = tmp_path / "renamed.csv"
    renamed.write_text("user,item\n5,1\n5,2\n")
    assert "as it differs from log" in ensue("recommend", run, "--user", "5", "--data", renamed).out


def test_the_rows_of_a_query_are_a_log(ensue: Run, tmp_path: Path) -> None:
    database, store = tmp_path / "shop.db", tmp_path / "store"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("create table events (user, item, when_)")
        connection.executemany("insert into events values (?, ?, ?)", [(n % 3, n % 5, n) for n in range(30)])
    query = ("--sql", "select * from events", "--connect", f"sqlite:///{database}")
    assert ensue("prepare", *query, "--time", "when_", "--out", store).status == 0
    assert json.loads((store / "manifest.json").read_text())["made"]["query"] == "select * from events"
    assert "--sql 'select * from events' --connect" in ensue("data", "check", *query, "--time", "when_").out
    for words, message in (
        (("prepare", "--sql", "select 1", "--out", store), "--sql QUERY and --connect ADDRESS belong together"),
        (("prepare", "log.csv", *query, "--out", store), "give either a source (log.csv) or a query"),
        (("prepare", "--out", store), "missing SOURCE: name a log"),
        (("data", "check"), "missing SOURCE: name a log"),
    ):
        refused = ensue(*words)
        assert refused.status != 0
        assert message in refused.err


def test_a_log_on_standard_input_is_read(ensue: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "user,item\n" + "".join(f"{n % 3},{n}\n" for n in range(12))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert ensue("prepare", "-", "--out", tmp_path / "store").status == 0
    made = json.loads((tmp_path / "store" / "manifest.json").read_text())["made"]
    assert made["parts"] == [{"name": "standard input", "rows": 12}]


def test_a_store_left_by_a_killed_replacement_is_found_again(ensue: Run, csv_log: Path, tmp_path: Path) -> None:
    store, aside, run = tmp_path / "store", tmp_path / ".store.17.old", tmp_path / "run"
    assert ensue("prepare", csv_log, "--out", store).status == 0
    for words in (
        ("train", store, "--model", "markov", "--out", run),
        ("evaluate", run),
        ("data", "check", store),
        ("prepare", csv_log, "--out", store, "--overwrite"),
    ):
        store.rename(aside)
        assert ensue(*words).status == 0
        assert store.is_dir()
        assert not aside.exists()


def test_datasets_tell_source_and_licence(ensue: Run) -> None:
    listed = {entry["name"]: entry for entry in ensue("datasets", "--json").json["datasets"]}
    assert listed["ml-1m"]["counts"] == {"users": 6040, "items": 3416, "interactions": 999611}
    assert all(entry["source"].startswith("http") and entry["licence"] for entry in listed.values())
    assert "GroupLens" in ensue("datasets").out
    assert "missing --out" in ensue("datasets", "ml-1m").err


def test_a_known_dataset_is_listed_once(ensue: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "public" / "ml-1m").mkdir(parents=True)
    (tmp_path / "public" / "ml-1m" / "interactions.parquet").write_bytes(b"")
    monkeypatch.setenv("ENSUE_DATA", str(tmp_path / "public"))
    assert ensue("datasets", "nope", "--out", tmp_path / "a").err.count("ml-1m") == 1


def test_a_feature_of_data_without_any_is_answered(ensue: Run, store: Path, tmp_path: Path) -> None:
    words = ("--split", "session", "--split-feature", "foo", "--model", "markov", "--out", tmp_path / "run")
    assert "no event feature 'foo': Known: none" in ensue("train", store, *words).err


def test_train_again_takes_what_is_there(ensue: Run, store: Path, trained: Path) -> None:
    before = (trained / "model.safetensors").read_bytes()
    again = ensue("train", store, "--model", "sasrec", "--out", trained, *SMALL, "--json")
    assert (again.status, again.json["trained"], again.json["epochs"]) == (0, False, 2)
    assert (trained / "model.safetensors").read_bytes() == before
    other = ensue("train", store, "--model", "sasrec", "--out", trained, *SMALL, "--lr", 0.1)
    assert other.status == 1
    assert "train.lr: 0.1 now, 0.001 then" in other.err


def test_overwrite_starts_again_but_keeps_other_folders(ensue: Run, store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert ensue("train", store, "--model", "popularity", "--out", run).status == 0
    assert ensue("train", store, "--model", "markov", "--out", run).status == 1
    assert ensue("train", store, "--model", "markov", "--out", run, "--overwrite", "--json").json["model"] == "markov"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    refused = ensue("train", store, "--model", "markov", "--out", tmp_path / "mine", "--overwrite")
    assert refused.status == 1
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_an_interrupted_run_resumes_by_the_same_command(
    ensue: Run, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train", store, *SMALL, "--num-epochs", 4, "--checkpoint-minutes", 0)
    assert ensue(*words, "--out", tmp_path / "whole").status == 0
    step = TrainingState.step

    def interrupt(self: TrainingState, epoch: int, number: int, loss: float) -> None:
        step(self, epoch, number, loss)
        if epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(TrainingState, "step", interrupt)
        stopped = ensue(*words, "--out", tmp_path / "cut")
    assert stopped.status == 130
    assert stopped.err == "ensue: interrupted: the same command resumes from the last checkpoint\n"
    assert not (tmp_path / "cut" / "manifest.json").exists()
    resumed = ensue(*words, "--out", tmp_path / "cut", "--json")
    assert (resumed.status, resumed.json["epochs"]) == (0, 4)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]


def test_train_reads_a_log_and_says_so(ensue: Run, csv_log: Path, tmp_path: Path) -> None:
    done = ensue("train", csv_log, "--model", "markov", "--out", tmp_path / "run")
    assert done.status == 0
    assert "is a log: prepared in memory with the usual settings" in done.out
    first, last = (day(seconds) for seconds in pl.read_csv(csv_log)["timestamp"].sort().gather([0, -1]))
    assert f"100 users, 60 items; {first} to {last})" in done.out
    assert done.out.splitlines()[-1] == f"next: ensue evaluate {tmp_path / 'run'} --data {csv_log}"
    assert "give the data with --data" in ensue("evaluate", tmp_path / "run").err
    assert ensue("evaluate", tmp_path / "run", "--data", csv_log, "--json").json["users"] == 100


def test_train_reads_a_log_in_several_files(ensue: Run, csv_log: Path, tmp_path: Path) -> None:
    header, *rows = csv_log.read_text().splitlines(keepends=True)
    parts = [tmp_path / "part-2.csv", tmp_path / "part-10.csv"]
    for part, half in zip(parts, (rows[:700], rows[700:]), strict=True):
        part.write_text("".join([header, *half]))
    done = ensue("train", *parts, "--model", "markov", "--out", tmp_path / "run")
    assert done.out.splitlines()[-1] == f"next: ensue evaluate {tmp_path / 'run'} --data {parts[0]} --data {parts[1]}"
    for data in (["--data", csv_log], ["--data", parts[0], "--data", parts[1]], ["--data", tmp_path / "part-*.csv"]):
        assert ensue("evaluate", tmp_path / "run", *data, "--json").json["users"] == 100
    assert "this run was trained on data" in ensue("evaluate", tmp_path / "run", "--data", parts[0]).err


def test_train_starts_from_a_preset_or_a_file(ensue: Run, store: Path, tmp_path: Path) -> None:
    printed = ensue("presets", "sasrec-ce")
    (tmp_path / "mine.toml").write_text(printed.out)
    for source in (("--preset", "sasrec-ce"), ("--config", tmp_path / "mine.toml")):
        run = tmp_path / source[0].strip("-")
        assert ensue("train", store, *source, *SMALL, "--num-epochs", 1, "--out", run).status == 0
        config = (run / "config.toml").read_text()
        assert 'loss = "ce"' in config
        assert "hidden_units = 8" in config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--hiden-units", "3"), "--hidden-units"),
        (("--model", "sasrek"), "did you mean 'sasrec'"),
        (("--model", "markov", "--hidden-units", "3"), "unknown setting 'hidden_units' of model 'markov'"),
        (("--loss", "bec"), "--loss: unknown value 'bec': did you mean 'bce'"),
        (("--lr", "-1"), "setting 'train.lr': input should be greater than 0 (got '-1')"),
        (("--num-epochs", "many"), "setting 'train.num_epochs'"),
        (("--preset", "demoo"), "did you mean 'demo'"),
        (("--split", "leave-two-out"), "did you mean 'leave-one-out'"),
        (("--validation-metric", "ndgc@10"), "did you mean 'ndcg'"),
        (("--metrics", ""), "setting 'evaluate.metrics': name at least one metric"),
        (("--threads", "100000"), "setting 'train.threads': input should be less than or equal to 1024"),
        (("--hidden-units", "50", "--num-heads", "3"), "ensue: [model]: "),
        (("--time-span", "3"), "unknown setting 'time_span' of model 'sasrec': it is a setting of tisasrec"),
    ],
)
def test_wrong_settings_are_named_in_one_line(
    ensue: Run, store: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = ensue("train", store, "--out", tmp_path / "run", *words)
    assert (done.status, done.out.startswith("next")) == (2, False)
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_evaluate_keeps_protocols_apart(ensue: Run, store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert ensue("train", store, "--model", "markov", "--out", run).status == 0
    full = ensue("evaluate", run, "--metrics", "hr@10,ndcg@10", "--json").json
    assert (full["protocol"], full["users"], set(full["metrics"])) == ("full", 100, {"hr@10", "ndcg@10"})
    repeats = ensue("evaluate", run, "--protocol", "uniform-100", "--metrics", "hr@10").out
    assert "hr@10|uni100" in repeats
    assert [line.split()[0] for line in repeats.splitlines() if "hr@10" in line] == ["uniform-100", "full"]
    assert ensue("evaluate", run, "--part", "validation", "--json").json["part"] == "validation"
    stored = json.loads((run / "metrics.json").read_text())
    assert set(stored) == {"test/full", "test/uniform-100", "validation/full"}


def test_evaluate_with_the_convention_of_another_library(ensue: Run, store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert ensue("train", store, "--model", "markov", "--out", run).status == 0
    words = ("--metrics", "ndcg@10,map@10", "--list-metrics", "coverage@10")
    ours = ensue("evaluate", run, *words, "--json").json
    theirs = ensue("evaluate", run, *words, "--convention", "rectools", "--json").json
    assert theirs["protocol"] == "full+rectools"
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, 11))
    assert theirs["metrics"]["ndcg@10|rectools"] == pytest.approx(ours["metrics"]["ndcg@10"] / ideal, abs=1e-12)
    assert theirs["metrics"]["map@10|rectools"] == pytest.approx(ours["metrics"]["map@10"], abs=1e-12)
    assert theirs["metrics"]["coverage@10|rectools"] > 10 > ours["metrics"]["coverage@10"]
    assert set(json.loads((run / "metrics.json").read_text())) == {"test/full", "test/full+rectools"}
    refused = ensue("evaluate", run, "--convention", "cornac", "--metrics", "mrr@10")
    assert (refused.status, refused.err.count("\n")) == (2, 1)
    assert "mrr has no cut-off; write 'mrr'" in refused.err


def test_metrics_have_one_name_each(ensue: Run, store: Path, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    assert ensue("train", store, "--model", "markov", "--out", a, "--metrics", "HR@10").status == 0
    assert set(ensue("evaluate", a, "--json").json["metrics"]) == {"hr@10"}
    shutil.copytree(a, b)
    assert ensue("evaluate", b, "--metrics", "hr@10,HR@10,Mrr", "--json").json["metrics"].keys() == {"hr@10", "mrr"}
    assert set(ensue("compare", a, b, "--json").json["comparisons"][0]["metrics"]) == {"hr@10"}
    assert ensue("evaluate", b, "--metrics", "mrr").status == 0
    assert f"{a} and {b} share no metric: hr@10 and mrr" in ensue("compare", a, b).err
    before = (b / "metrics.json").read_bytes()
    none = ensue("evaluate", b, "--metrics", "")
    assert (none.status, (b / "metrics.json").read_bytes()) == (2, before)
    assert "name at least one metric" in none.err


def test_only_the_filter_keeps_repeated_targets(ensue: Run, tmp_path: Path) -> None:
    rows = "".join(f"{user},{item}\n" for user in "abcd" for item in (1, 2, 3, 1))
    (tmp_path / "log.csv").write_text("user,item\n" + rows)
    words = (tmp_path / "run", "--data", tmp_path / "log.csv")
    assert ensue("train", tmp_path / "log.csv", "--model", "markov", "--out", words[0]).status == 0
    assert "4 targets occur in their history; the filter keeps them" in ensue("evaluate", *words).out
    free = ensue("evaluate", *words, "--no-filter-seen").out
    assert "the filter keeps" not in free
    assert [line.split()[0] for line in free.splitlines() if "hr@10" in line] == ["full-with-seen", "full"]
    assert ensue("evaluate", *words, "--no-filter-seen", "--json").json["protocol"] == "full-with-seen"


def test_evaluate_refuses_other_data(ensue: Run, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("user,item\n" + "".join(f"{u},{i}\n" for u in "ab" for i in range(4)))
    done = ensue("evaluate", trained, "--data", tmp_path / "other.csv")
    assert done.status == 1
    assert "item numbers would differ" in done.err


def test_recommend_shows_titles_and_reports_unknown_items(ensue: Run, trained: Path) -> None:
    payload = ensue("recommend", trained, "--history", "3,nobody,5", "-k", 4, "--json").json
    assert [entry["item"] for entry in payload["history"]] == [3, 5]
    assert payload["unknown"] == ["nobody"]
    assert [entry["rank"] for entry in payload["items"]] == [1, 2, 3, 4]
    assert all(entry["title"] for entry in payload["items"] + payload["history"])
    assert not {3, 5} & {entry["item"] for entry in payload["items"]}
    shown = ensue("recommend", trained, "--history", "3,nobody,5").out
    assert payload["items"][0]["title"] in shown
    assert "skipped 1 id that this model does not know: nobody" in shown
    kept = ensue("recommend", trained, "--history", "3", "-k", 60, "--keep-seen", "--json").json
    assert 3 in {entry["item"] for entry in kept["items"]}


def test_an_empty_history_gets_popular_items(ensue: Run, trained: Path) -> None:
    payload = ensue("recommend", trained, "--history", "", "--json").json
    assert "most popular" in payload["note"]
    assert len(payload["items"]) == 10


def test_recommend_for_a_user_of_the_data(ensue: Run, csv_log: Path, trained: Path) -> None:
    log = pl.read_csv(csv_log).filter(pl.col("userId") == 7)
    payload = ensue("recommend", trained, "--user", 7, "--json").json
    assert [entry["item"] for entry in payload["history"]] == log["movieId"].to_list()
    assert ensue("recommend", trained, "--user", 7, "--data", csv_log, "--json").json == payload
    assert "user '70000' is not among" in ensue("recommend", trained, "--user", 70000).err
    assert ensue("recommend", trained).status == 2
    assert ensue("recommend", trained, "--user", 7, "--history", "3").status == 2


READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".parquet": pl.read_parquet,
    ".csv": pl.read_csv,
    ".jsonl": pl.read_ndjson,
}


@pytest.mark.parametrize("ending", READERS)
def test_recommend_to_everybody(ensue: Run, trained: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"all{ending}"
    shown = ensue("recommend", trained, "--all", "--out", out, "-k", 3).out
    payload = READERS[ending](out)
    one = ensue("recommend", trained, "--user", 7, "-k", 3, "--json").json
    assert payload.filter(user=7)["item"].to_list() == [entry["item"] for entry in one["items"]]
    assert payload.filter(user=7)["title"].to_list() == [entry["title"] for entry in one["items"]]
    assert f"written: {out}: 300 rows for 100 users" in shown
    assert shown.splitlines()[-1].startswith(f"next: ensue recommend {trained} --user ")
    refused = ensue("recommend", trained, "--all", "--out", out)
    assert refused.status == 2
    assert f"{out} exists" in refused.err
    assert READERS[ending](out).equals(payload)
    again = ensue("recommend", trained, "--all", "--out", out, "-k", 1, "--overwrite", "--json").json
    assert again == {"written": str(out), "users": 100, "newcomers": 0, "rows": 100, "k": 1}
    assert READERS[ending](out).height == 100


def test_newcomers_of_another_log_are_counted(ensue: Run, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item\na,3\na,5\nb,unheard\n")
    words = ("recommend", trained, "--all", "--data", tmp_path / "log.csv", "--out", tmp_path / "all.csv")
    shown = ensue(*words).out
    assert "1 users have no item that this model knows" in shown
    assert pl.read_csv(tmp_path / "all.csv")["user"].to_list() == ["a"] * 10 + ["b"] * 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--all",), "--all needs --out FILE"),
        (("--all", "--out", "all.pickle"), "--out all.pickle: must end in one of .parquet, .csv, .jsonl"),
        (("--all", "--user", "7", "--out", "all.csv"), "exactly one of"),
        (("--all", "--out", "all.csv", "--times", "5"), "--times is for --history"),
        (("--all", "--out", "all.csv", "--at", "5"), "at needs a model trained with query_time"),
        (("--user", "7", "--out", "all.csv"), "--out and --overwrite are for --all"),
        (("--history", "3", "--overwrite"), "--out and --overwrite are for --all"),
    ],
)
def test_everybody_refused(
    ensue: Run, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = ensue("recommend", trained, *words)
    assert done.status == 2
    assert message in done.err
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def query_time_run(store: Path) -> Path:
    out = store.parent / "query-time"
    words = ("--model", "tisasrec", "--relation", "bias", "--buckets", "log", "--query-time", *SMALL)
    assert main(["train", str(store), *words, "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--history", "3,5", "--times", "5,9", "--at", "9"), 0, ""),
        (("--user", "7", "--times", "5"), 2, "--times is for --history"),
        (("--history", "3,5", "--times", "9,5", "--at", "9"), 1, "times must not decrease"),
        (("--history", "3,5", "--times", "5,9", "--at", "8"), 1, "at 8 is earlier than the newest event"),
        (("--user", "7", "--at", "8"), 1, "at 8 is earlier than the newest event"),
        (("--history", "3", "--times", "99999999999999999999", "--at", "9"), 1, "times must be seconds since"),
        (("--history", "3", "--times", "9", "--at", "99999999999999999999"), 1, "at must be seconds since 1970"),
        (("--history", "3\n5", "--times", "5,9", "--at", "9"), 2, "is not a list"),
    ],
)
def test_the_times_of_a_request_are_checked(
    ensue: Run, query_time_run: Path, words: tuple[str, ...], status: int, message: str
) -> None:
    done = ensue("recommend", query_time_run, *words)
    assert done.status == status
    assert message in done.err


def test_at_is_refused_by_a_model_that_would_not_read_it(ensue: Run, trained: Path) -> None:
    done = ensue("recommend", trained, "--history", "3", "--at", 9)
    assert done.status == 2
    assert "at needs a model trained with query_time, and this sasrec was not" in done.err


def test_similar(ensue: Run, store: Path, trained: Path, tmp_path: Path) -> None:
    payload = ensue("similar", trained, "--item", 3, "-k", 5, "--json").json
    assert payload["item"] == 3
    assert len(payload["items"]) == 5
    assert 3 not in {entry["item"] for entry in payload["items"]}
    assert "item '999' is not among" in ensue("similar", trained, "--item", 999).err
    assert ensue("train", store, "--model", "popularity", "--out", tmp_path / "run").status == 0
    assert "has no item vectors" in ensue("similar", tmp_path / "run", "--item", 3).err


def test_compare_tests_pairs_and_refuses_unlike_runs(ensue: Run, store: Path, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for run, model in ((a, "markov"), (b, "popularity")):
        assert ensue("train", store, "--model", model, "--out", run).status == 0
    assert "it was not evaluated" in ensue("compare", a, b).err
    means = [ensue("evaluate", run, "--json").json["metrics"]["ndcg@10"] for run in (a, b)]
    payload = ensue("compare", a, b, "--json").json["comparisons"][0]["metrics"]["ndcg@10"]
    assert [payload["mean_a"], payload["mean_b"]] == pytest.approx(means)
    assert payload["effect"]["estimate"] == pytest.approx(means[0] - means[1])
    assert 0 <= payload["p"]["t"] <= payload["p_bh"] <= payload["p_holm"] <= 1
    assert ensue("evaluate", b, "--no-filter-seen").status == 0
    assert "has no evaluation" in ensue("compare", a, b, "--protocol", "full-with-seen").err
    for run, seed in ((a, "1"), (b, "2")):
        assert ensue("evaluate", run, "--protocol", "uniform-100", "--evaluation-seed", seed).status == 0
    assert "different settings" in ensue("compare", a, b, "--protocol", "uniform-100").err
    (b / "per_user-test-full.parquet").write_bytes(b"")
    assert "missing, or not the table" in ensue("compare", b, b).err


def test_data_check_finds_an_altered_store(ensue: Run, tmp_path: Path) -> None:
    """Arrays too large to be hashed whenever a store is opened."""
    out = tmp_path / "store"
    ordered_sequences(num_users=6600, num_items=50, length=40).save(out)
    content = bytearray((out / "items.npy").read_bytes())
    content[-4] = 1 + content[-4] % 40
    (out / "items.npy").write_bytes(content)
    done = ensue("data", "check", out)
    assert done.status == 1
    assert f"{out / 'items.npy'}: altered or truncated" in done.err


def test_data_check_of_a_log_and_of_a_store(ensue: Run, csv_log: Path, store: Path) -> None:
    payload = ensue("data", "check", csv_log, "--user", "userId", "--json").json
    names = {finding["name"] for finding in payload["findings"]}
    assert {"rows", "ties", "lengths", "leakage", "order"} <= names
    assert sum(entry["users"] for entry in payload["lengths"]) == 100
    assert ensue("data", "check", store, "--json").json["lengths"] == payload["lengths"]
    shown = ensue("data", "check", store, "--split", "global-time")
    assert "Split 'global-time'" in " ".join(shown.out.split())
    assert shown.out.splitlines()[-1].startswith(f"next: ensue train {store}")
    assert "no such file or folder" in ensue("data", "check", store / "nothing").err
    assert "omit user" in ensue("data", "check", store, "--user", "userId").err


def test_presets(ensue: Run) -> None:
    listed = {entry["name"]: entry for entry in ensue("presets", "--json").json["presets"]}
    assert {"sasrec-paper", "sasrec-ce", "gsasrec", "demo"} <= set(listed)
    assert ensue("presets", "gsasrec", "--json").json["config"]["objective"]["loss"] == "gbce"
    assert "did you mean 'gsasrec'" in ensue("presets", "gsasrek").err


def test_an_altered_run_is_refused_by_name(ensue: Run, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "config.toml").write_text("")
    done = ensue("recommend", run, "--history", "3")
    assert (done.status, done.out) == (1, "")
    assert "config.toml: altered or truncated" in done.err
    assert "no such folder" in ensue("evaluate", tmp_path / "nowhere").err


def test_tensorboard_gets_every_epoch_or_is_asked_for(
    ensue: Run, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None: ...
        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def flush(self) -> None: ...
        def close(self) -> None: ...

    class Module:
        SummaryWriter = Writer

    words = ("train", store, *SMALL, "--tensorboard")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", Module)
    assert ensue(*words, "--out", tmp_path / "run").status == 0
    assert [step for name, _, step in written if name == "loss"] == [1, 2]
    assert {"validation/ndcg_at_10", "lr"} <= {name for name, _, _ in written}
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert "pip install 'ensue[log]'" in ensue(*words, "--out", tmp_path / "other").err


def test_help_has_sections_and_examples(ensue: Run) -> None:
    shown = ensue("train", "--help").out
    for text in ("Every model", "Objective", "Training", "Split", "Evaluation", "Examples"):
        assert text in shown
    assert "--no-filter-seen" in shown
    for words in (("prepare",), ("evaluate",), ("recommend",), ("data", "check"), ("demo",)):
        shown = ensue(*words, "--help").out
        assert "Examples" in shown
        assert "--json" in shown


def test_no_words_show_the_commands(ensue: Run) -> None:
    assert ensue().out == ensue("--help").out
    assert ensue("--version").out == f"ensue {__version__}\n"
    wrong = ensue("trainn")
    assert wrong.status == 2
    assert "trainn" in wrong.err


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        main(["evaluate", str(tmp_path / "nowhere"), "--debug"])


def test_help_needs_no_torch() -> None:
    code = "import sys; from ensue.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_a_closed_pipe_ends_quietly() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "ensue", "datasets"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("word", ["--version", "presets"])
def test_a_full_disk_under_standard_output_is_one_line(word: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ensue", word], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.endswith("No space left on device\n")


def test_ctrl_c_ends_without_a_traceback(store: Path, tmp_path: Path) -> None:
    words = ["train", str(store), *SMALL, "--num-epochs", "100000", "--patience", "0", "--out", str(tmp_path / "run")]
    with subprocess.Popen(
        [sys.executable, "-m", "ensue", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch 1/"):
                process.send_signal(signal.SIGINT)
                break
        _, errors = process.communicate()
    assert process.returncode == 130
    assert errors == "ensue: interrupted: the same command resumes from the last checkpoint\n"


def test_evaluate_counts_targets_that_never_occur_in_training(ensue: Run, tmp_path: Path) -> None:
    log, store, run = tmp_path / "log.csv", tmp_path / "store", tmp_path / "run"
    rows = [f"{user},{item},{item}" for user in range(4) for item in range(1, 6)]
    log.write_text("user,item,time\n" + "\n".join([*rows, "0,new,9", "1,other,9"]) + "\n")
    assert ensue("prepare", log, "--out", store).status == 0
    assert ensue("train", store, "--model", "popularity", "--out", run).status == 0
    shown = ensue("evaluate", run).out
    assert "4 targets (100.0%) are items that do not occur in training" in shown
    assert ensue("evaluate", run, "--part", "validation", "--json").json["targets_untrained"] == 2


def test_cold_users_and_items_have_rows_of_their_own(ensue: Run, tmp_path: Path) -> None:
    """The last events are of a cold user (3), of a cold item (user 1), of both (4), and of neither (2)."""
    log, run = tmp_path / "log.csv", tmp_path / "run"
    rows = "1,a,1 1,b,2 2,b,3 2,a,4 2,c,5 1,new,10 2,b,11 3,a,12 3,b,13 4,a,14 4,other,15"
    log.write_text("user,item,time\n" + "\n".join(rows.split()) + "\n")
    words = ("--split", "global-time", "--test-from", "10", "--model", "popularity", "--out", run)
    assert ensue("train", log, *words).status == 0
    done = ensue("evaluate", run, "--data", log, "--metrics", "hr@1,mrr", "--no-filter-seen")
    cells = [line.split() for line in done.out.splitlines() if "mrr" in line]
    assert [(row[1:-3], row[-1]) for row in cells] == [
        (["all"], "4"),
        (["warm"], "1"),
        (["cold", "users"], "2"),
        (["cold", "items"], "2"),
    ]
    entry = json.loads((run / "metrics.json").read_text())["test/full-with-seen"]
    # b is the most popular of the known items (two events, like a); the cold items stand behind all known ones.
    assert entry["groups"]["cold items"]["metrics"]["hr@1|seen"] == 0
    assert {name: (each["cases"], each["users"]) for name, each in entry["groups"].items()} == {
        "warm": (1, 1),
        "cold users": (2, 2),
        "cold items": (2, 2),
    }
    table = pl.read_parquet(run / entry["per_user"])
    assert table["cold users"].to_list() == [False, False, True, True]
    assert table["cold items"].to_list() == [True, False, False, True]
    for name, group in entry["groups"].items():
        assert table.filter(name)["mrr|seen"].mean() == pytest.approx(group["metrics"]["mrr|seen"], abs=1e-12)


def test_cases_of_cold_users_alone_are_announced(ensue: Run, tmp_path: Path) -> None:
    log, run = tmp_path / "log.csv", tmp_path / "run"
    log.write_text("user,item\n" + "".join(f"{user},{item}\n" for user in range(20) for item in range(4)))
    assert ensue("train", log, "--split", "user-holdout", "--model", "popularity", "--out", run).status == 0
    shown = ensue("evaluate", run, "--data", log, "--metrics", "mrr").out
    assert "all cases are of users without training events" in shown
    assert "cold users" not in shown
