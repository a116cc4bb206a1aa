"""The bodies of requests and answers, with their limits; `/openapi.json` is made from them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    Tag,
    ValidationInfo,
    model_validator,
)

from ensue.data.moments import unit_of_size
from ensue.data.vocabulary import INT64_MAX, INT64_MIN, ExternalId
from ensue.recommendations import Recommendation
from ensue.serving.refusal import RequestError

MAX_K = 500
MAX_HISTORY = 10_000
MAX_REQUESTS = 256
MAX_EVENTS = 1_000
MAX_ID_LETTERS = 500
ID_RULE = f"must be an integer of 64 bits, or a string of 1 to {MAX_ID_LETTERS} characters without U+0000"
# Seconds by which the clock of a client may be ahead of the server's.
MAX_AHEAD = 86_400

Source = Literal["model", "popular", "trending"]


def _id(value: object) -> object:
    """Check an external id; a type of its own would name its alternatives in every error."""
    if isinstance(value, str):
        if not 1 <= len(value) <= MAX_ID_LETTERS or "\0" in value:
            raise ValueError(ID_RULE)
    elif type(value) is not int or not INT64_MIN <= value <= INT64_MAX:
        raise ValueError(ID_RULE)
    return value


def _ids(values: list[ExternalId], info: ValidationInfo) -> list[ExternalId]:
    """Check the values of a list of strings and integers at once: one call for each would be slow."""
    for place, value in enumerate(values):
        if isinstance(value, int):
            if INT64_MIN <= value <= INT64_MAX:
                continue
        elif 1 <= len(value) <= MAX_ID_LETTERS and "\0" not in value:
            continue
        raise RequestError(422, f"{info.field_name}.{place}", ID_RULE, value)
    return values


Text = Annotated[str, BeforeValidator(_id), Field(strict=True, min_length=1, max_length=MAX_ID_LETTERS)]
Id = Annotated[ExternalId, BeforeValidator(_id)]
Ids = Annotated[
    list[Annotated[int, Strict()] | Annotated[str, Strict()]], Field(max_length=MAX_HISTORY), AfterValidator(_ids)
]


def _seconds(value: int) -> int:
    """Check that a number has the size of seconds: an event of another unit would fail all requests of its user."""
    if unit_of_size(abs(value)) != "s":
        raise ValueError("must be seconds since the epoch, not milliseconds or smaller units")
    return value


def _not_ahead(value: int) -> int:
    """Check the time of an event against the clock of the server."""
    if value > time.time() + MAX_AHEAD:
        raise ValueError("must be at most a day from now")
    return value


Seconds = Annotated[int, Strict(), AfterValidator(_seconds), Field(description="seconds since the epoch")]


class Body(BaseModel):
    """A body of a request: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RecommendRequest(Body):
    """A history, or a user whose history the server knows, and rules for the answer.

    With both, the history is used, and the user is assigned to a variant.
    """

    history: Ids | None = Field(None, description="item ids, oldest first")
    user: Id | None = Field(None, description="a user of the run's data or of POST /events")
    times: list[Seconds] | None = Field(None, max_length=MAX_HISTORY, description="time of each event of the history")
    at: Seconds | None = Field(None, description="time of the request, for models that read it; default: now")
    k: int = Field(10, strict=True, ge=1, le=MAX_K, description="number of items")
    exclude_seen: bool = Field(True, strict=True, description="leave out the items of the history")
    exclude: Ids = Field(default_factory=list, description="items to leave out")
    allow: Ids | None = Field(None, description="the only items that may be returned")
    boost: dict[Text, Annotated[float, Field(ge=-1e6, le=1e6)]] = Field(
        default_factory=dict, max_length=MAX_K, description="item id -> number that is added to the item's score"
    )
    model: Text | None = Field(None, description="name of a variant; default: the one assigned to the user")

    @model_validator(mode="after")
    def _check_origin(self) -> Self:
        if self.history is None and self.user is None:
            raise ValueError("give history or user")
        if self.history is None and self.times is not None:
            raise ValueError("times belong to history: leave out times")
        return self


class BatchRequest(Body):
    """Several requests, answered together."""

    requests: list[RecommendRequest] = Field(min_length=1, max_length=MAX_REQUESTS)


class Event(Body):
    """Something that a user did with an item."""

    user: Id
    item: Id
    time: Annotated[Seconds, AfterValidator(_not_ahead)] | None = Field(
        None, description="default: the time of arrival"
    )
    kind: Text = Field("event", description="a word of your own, such as click or order")
    key: Text | None = Field(None, description="an event with a known key is not stored again; default: a new key")


class EventsRequest(Body):
    """Several events; they are stored together or not at all."""

    events: list[Event] = Field(min_length=1, max_length=MAX_EVENTS)


def _form(body: object) -> str:
    return "many" if isinstance(body, EventsRequest) or (isinstance(body, dict) and "events" in body) else "one"


OneOrMany = Annotated[Annotated[Event, Tag("one")] | Annotated[EventsRequest, Tag("many")], Discriminator(_form)]


class ModelsRequest(Body):
    """A run to serve from now on."""

    run: Text = Field(description="name of a run folder beside the served one")
    variant: Text = Field("control", description="name of the variant to replace")


@dataclass(frozen=True, slots=True)
class Model:
    """The model that answered: its variant, kind and version (the first letters of its manifest's hash)."""

    variant: str
    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Recommended items, best first.

    Attributes:
        items: the recommendations.
        source: what ranked them: the model; or, without a known item in the history, popularity or recent events.
        known: number of the history's events with items that the model knows.
        unknown: ids of the history that the model does not know; they were skipped.
        model: the model.
        complete: false if the log of events could not be read, so that newer events of the user may be missing.
    """

    items: tuple[Recommendation, ...]
    source: Source
    known: int
    unknown: tuple[ExternalId, ...]
    model: Model
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Answers:
    """One answer for each request, in their order."""

    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of the events: the number of new and of known ones, and the key of each."""

    stored: int
    known: int
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """An item of the catalogue, with its number of training events."""

    item: ExternalId
    title: str | None
    events: int


@dataclass(frozen=True, slots=True)
class Items:
    """Items that match a search, the most popular first."""

    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Similar:
    """Items with the largest cosine of their vectors."""

    items: tuple[Recommendation, ...]
    model: Model


@dataclass(frozen=True, slots=True)
class Explained:
    """How much each event of the history changed an item's score.

    Attributes:
        item: the item.
        title: its title, if known.
        score: its score after the whole history.
        influence: for each event in `Explanation.history`, the score minus the score without the event; null if it is
            the only event.
    """

    item: ExternalId
    title: str | None
    score: float
    influence: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The known events of a history that the model reads, oldest first, and their influence on some items."""

    history: tuple[Item, ...]
    items: tuple[Explained, ...]
    model: Model


@dataclass(frozen=True, slots=True)
class Health:
    """The state of the server."""

    status: Literal["ok", "degraded"]
    models: tuple[Model, ...]
    experiment: str
    shares: dict[str, float]
    events: Literal["ok", "unavailable"]
    last_refused: str | None
