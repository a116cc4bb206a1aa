"""A confirmed event shapes the next recommendation, once, also after a crash; without a database reads go on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from ensue.errors import ConfigError
from ensue.recommender import Recommender
from ensue.serving import events as module
from ensue.serving.events import EventLog, LogError, merged
from ensue.serving.schemas import Event

from .client import Client
from .conftest import on_both_databases, one, together

Serve = Callable[..., Client]
Recommenders = Callable[[str], Recommender]


@on_both_databases
@pytest.mark.parametrize("name", ["gru4rec", "sasrec", "markov"])
def test_an_event_shapes_the_very_next_recommendation(serve: Serve, recommenders: Recommenders, name: str) -> None:
    client, history = serve(name), []
    for item in (9, 1, 30, 2, 7, 8, 11):
        history.append(item)
        stored = one(client.post("/events", {"user": "new", "item": item}))
        assert stored.json["stored"] == 1
        answer = one(client.post("/recommend", {"user": "new", "k": 5})).json
        assert [each["item"] for each in answer["items"]] == recommenders(name).recommend(history, k=5).ids
        assert answer["known"] == len(history)
        assert answer["complete"]


@on_both_databases
def test_events_follow_the_history_of_the_data(serve: Serve, recommenders: Recommenders) -> None:
    data = recommenders.data  # type: ignore[attr-defined]
    client = serve(store=data)
    one(client.post("/events", {"user": "u3", "item": 5}))
    answer = one(client.post("/recommend", {"user": "u3", "k": 5})).json
    start = int(data.offsets[data.users.encode(["u3"])[0] - 1])
    history = [*data.item_ids.decode(data.items[start : start + 8]), 5]
    assert [each["item"] for each in answer["items"]] == recommenders("sasrec").recommend(history, k=5).ids


def test_histories_are_joined_by_time() -> None:
    assert merged([1, 2], [10, 30], [("3", 20), ("4", 30)]) == ([1, "3", 2, "4"], [10, 20, 30, 30])
    assert merged([1, 2], None, [("3", 20)]) == ([1, 2, "3"], None)
    assert merged([], None, [("3", 20)]) == (["3"], [20])


@on_both_databases
def test_an_event_of_a_known_key_is_not_stored_again(serve: Serve) -> None:
    client = serve()
    events = [{"user": "u", "item": 1, "key": "a"}, {"user": "u", "item": 2, "key": "b"}]
    assert one(client.post("/events", {"events": events})).json == {"stored": 2, "known": 0, "keys": ["a", "b"]}
    again = [*events, {"user": "u", "item": 3, "key": "c"}, {"user": "u", "item": 4, "key": "c"}]
    assert one(client.post("/events", {"events": again})).json["stored"] == 1
    both = together(*(client.post("/events", {"user": "u", "item": 5, "key": "d"}) for _ in range(5)))
    assert sum(answer.json["stored"] for answer in both) == 1
    assert one(client.post("/recommend", {"user": "u"})).json["known"] == 4


@on_both_databases
def test_a_list_with_a_wrong_event_stores_nothing(serve: Serve) -> None:
    client = serve()
    late = {"user": "u", "item": 1, "time": int(time.time()) + 10**6}
    small_units = {"user": "u", "item": 1, "time": -1_600_000_000_000}
    wrongs = ((late, "events.1.time"), (small_units, "events.1.time"), ({"user": "u"}, "events.1.item"))
    for wrong, field in wrongs:
        answer = one(client.post("/events", {"events": [{"user": "u", "item": 1}, wrong]}))
        assert (answer.status, answer.error["field"]) == (422, field)
    alone = one(client.post("/events", late))
    assert (alone.status, alone.error["field"], alone.error["value"]) == (422, "time", late["time"])
    assert one(client.post("/recommend", {"user": "u"})).json["source"] == "popular"


@on_both_databases
def test_recent_events_rank_items_for_newcomers(serve: Serve) -> None:
    client = serve(trending_days=7)
    old = {"user": "v", "item": 8, "time": int(time.time()) - 30 * 86_400}
    events = [{"user": f"u{row}", "item": 7 if row % 3 else 5} for row in range(9)]
    one(client.post("/events", {"events": [*events, *[{**old, "key": str(row)} for row in range(20)]]}))
    answer = one(client.post("/recommend", {"history": [], "k": 3})).json
    assert answer["source"] == "trending"
    assert [each["item"] for each in answer["items"]][:2] == [7, 5]
    # Without recent events, as after a pause, the most popular items are shown again.
    client.service.exchange("control", client.service.variants["control"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.EventLog, "recent", lambda *_: [])
        assert one(client.post("/recommend", {"history": [], "k": 3})).json["source"] == "popular"


def test_trending_items_of_a_slow_database_keep_no_recommendation(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, may_answer = serve(trending_days=7), threading.Event()

    def hang(log: EventLog, since: int) -> list[str]:
        assert may_answer.wait(60)
        return ["7"]

    monkeypatch.setattr(EventLog, "recent", hang)
    client.service.trending_seconds = 0.0

    async def run() -> list[str]:
        sources = [(await client.post("/recommend", {"history": []})).json["source"]]
        may_answer.set()
        assert client.service._refresh is not None
        await client.service._refresh
        return [*sources, (await client.post("/recommend", {"history": []})).json["source"]]

    assert asyncio.run(run()) == ["popular", "trending"]


def test_a_full_disk_refuses_events_and_reads_go_on(serve: Serve, tmp_path: Path) -> None:
    client = serve()
    log = client.service.log
    assert log is not None
    one(client.post("/events", {"user": "u", "item": 9}))
    with log.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    log.engine.dispose()
    full = [f"max_page_count = {pages}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SQLITE_PRAGMAS", (*module.SQLITE_PRAGMAS, *full))
        events = [{"user": "u", "item": "x" * 400} for _ in range(200)]
        answer = one(client.post("/events", {"events": events}))
        assert (answer.status, answer.error["field"]) == (503, "events")
        assert answer.headers["retry-after"] == "2"
        assert one(client.get("/ready")).status == 503
        assert one(client.get("/health")).json["status"] == "degraded"
        assert one(client.post("/recommend", {"user": "u"})).json["known"] == 1
        # Reads go on, which says nothing about writes.
        assert one(client.get("/health")).json["status"] == "degraded"
        assert one(client.get("/ready")).status == 503
        assert one(client.post("/recommend", {"history": [1]})).status == 200
    log.engine.dispose()
    assert one(client.get("/ready")).status == 200
    assert one(client.get("/health")).json["status"] == "ok"
    assert one(client.post("/events", {"events": events})).json["stored"] == 200


def test_a_lost_database_refuses_events_until_it_is_back(serve: Serve, tmp_path: Path) -> None:
    client, file = serve(), tmp_path / "events.db"
    one(client.post("/events", {"user": "u", "item": 9}))
    one(client.post("/recommend", {"user": "u"}))
    away = file.rename(tmp_path / "away.db")
    assert client.service.log is not None
    client.service.log.engine.dispose()
    with pytest.raises(LogError):
        client.service.log.recent(0)
    assert not file.exists()
    assert one(client.post("/events", {"user": "u", "item": 1})).status == 503
    answer = one(client.post("/recommend", {"user": "u"})).json
    assert (answer["known"], answer["complete"]) == (1, False)
    assert "away" not in json.dumps(one(client.post("/events", {"user": "u", "item": 1})).json)
    away.rename(file)
    assert one(client.post("/events", {"user": "u", "item": 1})).json["stored"] == 1
    answer = one(client.post("/recommend", {"user": "u"})).json
    assert (answer["known"], answer["complete"]) == (2, True)


@pytest.mark.parametrize("address", ["postgresql"], indirect=True)
def test_a_stopped_postgresql_refuses_events_until_it_is_back(serve: Serve, address: str, postgres: Any) -> None:
    client = serve()
    one(client.post("/events", {"user": "u", "item": 9}))
    one(client.post("/recommend", {"user": "u"}))
    postgres.stop()
    try:
        refused = one(client.post("/events", {"user": "u", "item": 1}))
        assert (refused.status, refused.headers["retry-after"]) == (503, "2")
        # Neither the host nor the user nor the socket of the database is shown.
        again = one(client.post("/events", {"user": "u", "item": 1}))
        assert again.error["rule"].endswith("(no connection)")
        answer = one(client.post("/recommend", {"user": "u"})).json
        assert (answer["known"], answer["complete"]) == (1, False)
        assert one(client.get("/ready")).status == 503
    finally:
        postgres.ensure_postgres_running()
    assert one(client.get("/ready")).status == 200
    assert one(client.post("/events", {"user": "u", "item": 1})).json["stored"] == 1
    answer = one(client.post("/recommend", {"user": "u"})).json
    assert (answer["known"], answer["complete"]) == (2, True)


@pytest.mark.parametrize("address", ["postgresql"], indirect=True)
def test_postgresql_confirms_what_is_on_the_disk(address: str, postgres: Any) -> None:
    postgres.psql("ALTER ROLE postgres SET synchronous_commit = off")
    try:
        log = EventLog(address)
        with log.engine.connect() as connection:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
        log.close()
    finally:
        postgres.psql("ALTER ROLE postgres RESET synchronous_commit")


@pytest.mark.parametrize("address", ["postgresql"], indirect=True)
def test_servers_that_start_together_share_one_database(address: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        logs = [*pool.map(EventLog, [address] * 4)]
    logs[0].add([[Event(user="u", item="x")]])
    assert all([item for item, _ in log.histories(["u"])[0]] == ["x"] for log in logs)
    for log in logs:
        log.close()


def test_a_database_that_does_not_answer_keeps_no_recommendation(serve: Serve) -> None:
    client, may_answer = serve(), threading.Event()
    service = client.service
    one(client.post("/events", {"user": "u", "item": 9}))
    one(client.post("/recommend", {"user": "u"}))
    read = service._read.work

    def hang(users: list[str]) -> Any:
        assert may_answer.wait(60)
        return read(users)

    service._read.work = hang

    async def run() -> list[Any]:
        answers = []
        service._read.seconds = 0.01
        answers.append((await client.post("/recommend", {"user": "u"})).json)
        answers.append((await client.get("/health")).json)
        may_answer.set()
        service._read.seconds = 60.0
        answers.append((await client.post("/recommend", {"user": "u"})).json)
        answers.append((await client.get("/health")).json)
        return answers

    lost, bad, whole, good = asyncio.run(run())
    assert (lost["known"], lost["complete"], bad["events"]) == (1, False, "unavailable")
    assert (whole["known"], whole["complete"], good["events"]) == (1, True, "ok")


def test_events_are_written_through_to_the_disk(tmp_path: Path) -> None:
    log = EventLog(f"sqlite:///{tmp_path / 'events.db'}")
    with log.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    log.add([[Event(user="'; DROP TABLE ensue_events; --", item="x")]])
    with closing(sqlite3.connect(tmp_path / "events.db")) as other:
        assert other.execute("SELECT user FROM ensue_events").fetchall() == [("'; DROP TABLE ensue_events; --",)]
    log.close()


@pytest.mark.parametrize("address", ["mysql://x/y", "nothing", "sqlite://", "sqlite:///:memory:"])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="--events"):
        EventLog(address)


@contextmanager
def served(run: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its address."""
    words = [sys.executable, "-u", "-m", "ensue", "serve", str(run), "--port", "0"]
    words += ["--events", f"sqlite:///{folder / 'events.db'}"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=folder, env={**os.environ})
    try:
        assert process.stdout is not None
        line = next((line for line in process.stdout if "http://" in line), "")
        assert line, "the server ended before it listened"
        yield process, line[line.index("http://") : line.index(": page")]
    finally:
        process.kill()
        process.communicate()


def post(address: str, path: str, body: Any) -> Any:
    request = Request(address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def test_confirmed_events_survive_kill_9(recommenders: Recommenders, tmp_path: Path) -> None:
    recommenders("gru4rec").save(tmp_path / "run")
    with served(tmp_path / "run", tmp_path) as (process, address):
        for item in (9, 1, 30):
            post(address, "/events", {"user": "u", "item": item})
        process.send_signal(signal.SIGKILL)
        process.wait()
    with served(tmp_path / "run", tmp_path) as (_, address):
        answer = post(address, "/recommend", {"user": "u", "k": 5})
        assert [each["item"] for each in answer["items"]] == recommenders("gru4rec").recommend([9, 1, 30], k=5).ids
