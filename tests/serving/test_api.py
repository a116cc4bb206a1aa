"""The interface: what it answers, what it refuses, and in which words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ensue.recommender import Recommender
from ensue.serving import routing
from ensue.serving.api import Access

from .client import Client
from .conftest import one, together

Serve = Callable[..., Client]
Recommenders = Callable[[str], Recommender]


@pytest.mark.parametrize("name", ["sasrec", "gru4rec", "markov"])
def test_an_answer_is_the_recommenders(serve: Serve, recommenders: Recommenders, name: str) -> None:
    history = [9, 1, 30, 2, 7, 8, 11, 12]
    answer = one(serve(name).post("/recommend", {"history": [*history, "x"], "k": 5}))
    expected = recommenders(name).recommend(history, k=5)
    assert [entry["item"] for entry in answer.json["items"]] == expected.ids
    scores = [entry["score"] for entry in answer.json["items"]]
    assert np.allclose(scores, [entry.score for entry in expected], atol=1e-5)
    assert answer.json["items"][0]["title"] == expected[0].title
    assert (answer.json["source"], answer.json["known"], answer.json["unknown"]) == ("model", 8, ["x"])
    assert answer.json["model"] == {"variant": "control", "name": name, "version": f"v-{name}"}


def test_times_reach_the_models_that_read_them(serve: Serve, recommenders: Recommenders) -> None:
    client, days = serve("tisasrec"), [86_400 * day for day in range(4)]
    answer = one(client.post("/recommend", {"history": [9, 1, 30, 2], "times": days, "k": 5}))
    assert [each["item"] for each in answer.json["items"]] == recommenders("tisasrec").recommend(
        [9, 1, 30, 2], k=5, times=days
    ).ids
    refused = one(client.post("/recommend", {"history": [9]}))
    assert refused.status == 422
    assert refused.error["field"] == "times"


def test_ids_are_compared_as_text(serve: Serve) -> None:
    client = serve()
    numbers, texts = together(
        client.post("/recommend", {"history": [9, 1]}), client.post("/recommend", {"history": ["9", "1"]})
    )
    assert numbers.json == texts.json


def test_rules_of_a_request(serve: Serve) -> None:
    client = serve()
    free, seen, without, only, pushed = (
        answer.json["items"]
        for answer in together(
            client.post("/recommend", {"history": [9, 1], "k": 40}),
            client.post("/recommend", {"history": [9, 1], "k": 40, "exclude_seen": False}),
            client.post("/recommend", {"history": [9, 1], "k": 40, "exclude": [2, "3", "none"]}),
            client.post("/recommend", {"history": [9, 1], "k": 40, "allow": [5, 4, 9, "none"]}),
            client.post("/recommend", {"history": [9, 1], "k": 3, "boost": {"7": 1000, "9": 2000, "8": -1000}}),
        )
    )
    assert len(free) == 38
    assert len(seen) == 40
    assert [each["item"] for each in free if each["item"] not in (2, 3)] == [each["item"] for each in without]
    assert {each["item"] for each in only} == {4, 5}
    scores = {each["item"]: each["score"] for each in free}
    first, *others = pushed
    assert first["item"] == 7
    assert first["score"] == pytest.approx(scores[7] + 1000, abs=1e-3)
    assert [each["item"] for each in others] == [each["item"] for each in free if each["item"] not in (7, 8)][:2]


def test_without_known_items_the_most_popular_are_shown(serve: Serve, recommenders: Recommenders) -> None:
    client = serve()
    for history in ([], ["x", "y"]):
        answer = one(client.post("/recommend", {"history": history, "k": 3})).json
        assert answer["source"] == "popular"
        assert answer["unknown"] == history
        assert [each["item"] for each in answer["items"]] == recommenders("sasrec").recommend([], k=3).ids


def test_a_batch_has_the_answers_of_its_requests(serve: Serve) -> None:
    client = serve()
    requests: list[dict[str, Any]] = [{"history": [number], "k": number % 5 + 1} for number in range(1, 20)]
    together_ = one(client.post("/recommend/batch", {"requests": requests})).json["answers"]
    for request, answer in zip(requests, together_, strict=True):
        alone = one(client.post("/recommend", request)).json
        assert [each["item"] for each in alone["items"]] == [each["item"] for each in answer["items"]]
    refused = one(client.post("/recommend/batch", {"requests": [{"history": [1]}, {"history": [1], "at": 3}]}))
    assert (refused.status, refused.error["field"]) == (422, "requests.1.at")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"history": [1], "k": 0}, "k"),
        ({"history": [1], "k": 501}, "k"),
        ({"history": [1], "k": "3"}, "k"),
        ({"history": [1], "k": True}, "k"),
        ({"history": [1], "kk": 3}, "kk"),
        ({"history": [1.5]}, "history.0"),
        ({"history": [1, None]}, "history.1"),
        ({"history": [""]}, "history.0"),
        ({"history": ["a\0"]}, "history.0"),
        ({"history": [2**63]}, "history.0"),
        ({"history": [1] * 10_001}, "history"),
        ({"history": "12"}, "history"),
        ({"history": [1, 2], "times": [5, 4]}, "times"),
        ({"history": [1, 2], "times": [5]}, "times"),
        ({"history": [1], "at": 5}, "at"),
        ({"history": [1], "boost": {"1": 1e400}}, "boost.1"),
        ({"history": [1], "model": "other"}, "model"),
        ({"times": [1]}, "body"),
        ({}, "body"),
        ([], "body"),
        (b"{", "body"),
        (b'{"history": ["\\ud800"]}', "body"),
        (b"[" * 100_000, "body"),
        (b"\xff\xfe", "body"),
        (b"", "body"),
    ],
)
def test_an_error_names_field_rule_and_value(serve: Serve, body: Any, field: str) -> None:
    answer = one(serve().post("/recommend", body))
    assert answer.status == 422
    assert answer.error.keys() == {"field", "rule", "value"}
    assert answer.error["field"] == field
    assert answer.error["rule"]
    assert len(answer.body) < 1000


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        ("/nothing", 404, "path"),
        ("/recommend", 405, "method"),
        ("/recommend/", 404, "path"),
        ("/items?k=0", 422, "k"),
        ("/items?model=other", 422, "model"),
        ("/similar", 422, "item"),
        ("/similar?item=x", 404, "item"),
        ("/explain?history=x&item=1", 422, "history"),
        ("/explain?history=1&item=x", 404, "item"),
        ("/explain?history=1&item=2&times=a", 422, "times.0"),
    ],
)
def test_paths_and_queries_are_checked(serve: Serve, path: str, status: int, field: str) -> None:
    answer = one(serve().get(path))
    assert (answer.status, answer.error["field"]) == (status, field)


def test_bodies_are_limited(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    client = serve()
    monkeypatch.setattr(routing, "MAX_BODY", 50)
    long = b'{"history": [' + b"1, " * 50 + b"1]}"
    assert one(client.post("/recommend", long)).status == 413
    assert one(client.post("/recommend", long, content_length=str(len(long)))).status == 413
    assert one(client.post("/recommend", {"history": [1]}, content_type="text/plain")).status == 415


def test_foreign_host_names_are_refused(serve: Serve) -> None:
    answer = one(serve().get("/health", host="example.org"))
    assert (answer.status, answer.error["field"]) == (421, "Host")


def test_answers_have_headers_of_security(serve: Serve) -> None:
    client = serve()
    for answer in together(client.get("/health"), client.get("/nothing"), client.post("/recommend", {})):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_writing_needs_the_key(serve: Serve) -> None:
    client = serve(access=Access(write_key="right"))
    event = {"user": "u", "item": 1}
    for value in ("", "Bearer wrong", "Basic right", "right", "Bearer right2"):
        answer = one(client.post("/events", event, authorization=value))
        assert (answer.status, answer.error["field"]) == (401, "Authorization")
        assert "right" not in answer.body.decode().replace("'Bearer'", "")
    assert one(client.post("/events", event, authorization="Bearer right")).status == 200


def test_an_empty_key_is_no_key(serve: Serve) -> None:
    access = Access.from_environment({"ENSUE_WRITE_KEY": "", "ENSUE_ADMIN_KEY": ""}, "127.0.0.1")
    assert (access.write_key, access.admin_key) == (None, None)
    access = Access.from_environment({"ENSUE_WRITE_KEY": "w", "ENSUE_ADMIN_KEY": "a"}, "0.0.0.0")
    assert access == Access("w", "a", None)


def test_items_are_searched_by_words_and_ids(serve: Serve) -> None:
    client = serve()

    def search(words: str) -> list[int]:
        return [each["item"] for each in one(client.get(f"/items?q={words}&k=40")).json["items"]]

    assert search("amelie") == [3]
    assert sorted(search("BOOK%2012")) == [12]
    assert len(search("")) == 40
    assert search("nothing") == []
    popular = one(client.get("/items?k=40")).json["items"]
    assert [each["events"] for each in popular] == sorted((each["events"] for each in popular), reverse=True)


def test_similar_items_are_the_recommenders(serve: Serve, recommenders: Recommenders) -> None:
    answer = one(serve().get("/similar?item=7&k=4"))
    assert [each["item"] for each in answer.json["items"]] == recommenders("sasrec").similar(7, 4).ids
    refused = one(serve("markov").get("/similar?item=7"))
    assert (refused.status, refused.error["field"]) == (422, "model")


@pytest.mark.parametrize("name", ["sasrec", "markov"])
def test_influence_is_the_score_minus_the_score_without_the_event(serve: Serve, name: str) -> None:
    client = serve(name)

    def score(history: list[int]) -> float:
        body = {"history": history, "allow": [5], "exclude_seen": False}
        return float(one(client.post("/recommend", body)).json["items"][0]["score"])

    answer = one(client.get("/explain?history=9&history=1&history=30&item=5&item=6")).json
    assert [each["item"] for each in answer["history"]] == [9, 1, 30]
    assert [each["item"] for each in answer["items"]] == [5, 6]
    whole, without = answer["items"][0]["score"], [score([1, 30]), score([9, 30]), score([9, 1])]
    assert whole == pytest.approx(score([9, 1, 30]), abs=1e-5)
    assert answer["items"][0]["influence"] == pytest.approx([whole - each for each in without], abs=1e-5)
    alone = one(client.get("/explain?history=9&item=5")).json
    assert alone["items"][0]["influence"] == [None]


def test_the_interface_describes_itself(serve: Serve) -> None:
    description = one(serve().get("/openapi.json")).json
    assert {"/recommend", "/recommend/batch", "/events", "/items", "/similar", "/explain"} <= description[
        "paths"
    ].keys()
    request = description["components"]["schemas"]["RecommendRequest"]["properties"]
    assert request["k"]["maximum"] == 500


def test_requests_are_counted(serve: Serve) -> None:
    client = serve()
    one(client.post("/recommend", {"history": [1, "x"]}))
    one(client.post("/recommend", {}))
    one(client.get("/secret/path"))
    text = one(client.get("/metrics")).body.decode()
    for line in (
        'ensue_requests_total{route="/recommend",status="200"} 1.0',
        'ensue_requests_total{route="/recommend",status="422"} 1.0',
        'ensue_requests_total{route="other",status="404"} 1.0',
        'ensue_history_events_total{known="no",variant="control"} 1.0',
        'ensue_catalogue_coverage{variant="control"} 0.25',
    ):
        assert line in text


def test_an_error_of_the_server_shows_no_cause(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = serve()

    def fail(*_: Any) -> Any:
        raise RuntimeError("secret /path")

    monkeypatch.setattr(client.service.variants["control"], "answer", fail)
    answer = one(client.post("/recommend", {"history": [1]}))
    assert (answer.status, answer.error["field"]) == (500, "server")
    assert "secret" not in answer.body.decode()
    assert "secret /path" in capsys.readouterr().err
