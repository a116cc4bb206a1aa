"""The HTTP interface: one small handler for each path."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Self

from fastapi import APIRouter, FastAPI, Query
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from ensue import __version__
from ensue.errors import EnsueError
from ensue.serving.experiment import CONTROL
from ensue.serving.guard import Guard, Handler, check_key, hosts_of
from ensue.serving.page import page_routes
from ensue.serving.refusal import RequestError, unavailable
from ensue.serving.routing import JsonRoute, json_handler
from ensue.serving.schemas import (
    MAX_HISTORY,
    MAX_K,
    Answer,
    Answers,
    BatchRequest,
    EventsRequest,
    Explanation,
    Health,
    Items,
    ModelsRequest,
    OneOrMany,
    RecommendRequest,
    Similar,
    Stored,
    Text,
)
from ensue.serving.service import Service
from ensue.serving.swap import Swapper

WRITE_KEY, ADMIN_KEY = "ENSUE_WRITE_KEY", "ENSUE_ADMIN_KEY"
# Items of one explanation.
MAX_EXPLAINED = 50

K = Annotated[int, Query(ge=1, le=MAX_K, description="number of items")]
Variant = Annotated[Text, Query(description="name of a variant")]


@dataclass(frozen=True)
class Access:
    """Who may use the server.

    Attributes:
        write_key: the key of POST /events; None: everybody may write.
        admin_key: the key of /admin; None: nobody may use it.
        hosts: accepted host names; None: all.
    """

    write_key: str | None = None
    admin_key: str | None = None
    hosts: tuple[str, ...] | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], address: str) -> Self:
        """The keys in the environment, of which an empty one is none, and the host names of a server on an address."""
        return cls(environment.get(WRITE_KEY) or None, environment.get(ADMIN_KEY) or None, hosts_of(address))


def create_app(service: Service, access: Access, swapper: Swapper | None = None) -> ASGIApp:
    """The application: the routes of the interface behind the guard.

    Args:
        service: answers the requests.
        access: who may use it.
        swapper: exchanges the served runs; None: they stay.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watching = None if swapper is None else asyncio.create_task(swapper.watch())
        yield
        if watching is not None:
            watching.cancel()
        service.close()

    app = FastAPI(
        title="ensue", version=__version__, docs_url=None, redoc_url=None, openapi_url="/openapi.json",
        lifespan=lifespan, redirect_slashes=False,
    )  # fmt: skip
    router = APIRouter(route_class=JsonRoute)
    _add_recommendations(router, service)
    _add_items(router, service)
    _add_events(router, service, access)
    _add_state(router, service)
    if swapper is not None:
        _add_admin(router, swapper, access)
    app.include_router(router)
    app.include_router(page_routes())
    app.add_exception_handler(RequestError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_query)
    app.add_exception_handler(HTTPException, _refuse_path)
    app.add_exception_handler(Exception, _fail)
    # FastAPI's routing takes as long as the model of a small catalogue: the most frequent request goes around it.
    direct = {("POST", "/recommend"): caught(json_handler(recommendation(service)))}
    return Guard(app, service.metrics, access.hosts, direct)


def recommendation(service: Service) -> Callable[[Request, RecommendRequest], Awaitable[Answer]]:
    """The endpoint of /recommend."""

    async def recommend(request: Request, body: RecommendRequest) -> Answer:
        """Recommend the next items after a history, or for a user."""
        return await service.recommend(body)

    return recommend


def caught(handler: Handler) -> Handler:
    """A handler whose errors are answered like those of the application."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except Exception as error:
            # An error in one request must not end the connection without an answer.
            return await _fail(request, error)

    return handle


def _add_recommendations(router: APIRouter, service: Service) -> None:
    router.post("/recommend")(recommendation(service))

    @router.post("/recommend/batch")
    async def recommend_batch(request: Request, body: BatchRequest) -> Answers:
        """Answer several requests together; an error in one of them is the answer to all."""
        results = await asyncio.gather(*map(service.recommend, body.requests), return_exceptions=True)
        for place, result in enumerate(results):
            if isinstance(result, RequestError):
                field = f"requests.{place}.{result.field}"
                raise RequestError(result.status, field, result.rule, result.value, result.retry_after)
            if isinstance(result, BaseException):
                raise result
        return Answers(tuple(result for result in results if isinstance(result, Answer)))


def _add_items(router: APIRouter, service: Service) -> None:
    @router.get("/items")
    async def items(q: Annotated[str, Query(max_length=200)] = "", k: K = 20, model: Variant = CONTROL) -> Items:
        """Search for items by words of their title or id; the most popular first."""
        return Items(await service.items(q, k, model))

    @router.get("/similar")
    async def similar(item: Text, k: K = 10, model: Variant = CONTROL) -> Similar:
        """List the items whose vectors have the largest cosine with an item's."""
        return await service.similar(item, k, model)

    @router.get("/explain")
    async def explain(
        history: Annotated[list[Text], Query(max_length=MAX_HISTORY, description="item ids, oldest first")],
        item: Annotated[list[Text], Query(max_length=MAX_EXPLAINED, description="items to explain")],
        times: Annotated[list[int] | None, Query(max_length=MAX_HISTORY)] = None,
        model: Variant = CONTROL,
    ) -> Explanation:
        """Measure which events of a history changed the scores of some items: the score without each event."""
        return await service.explain(history, item, times, model)


def _add_events(router: APIRouter, service: Service, access: Access) -> None:
    @router.post("/events")
    async def events(request: Request, body: OneOrMany) -> Stored:
        """Store one event, or several; a confirmed event is part of the user's next recommendation."""
        check_key(request, access.write_key, WRITE_KEY, is_needed=False)
        return await service.add(body.events if isinstance(body, EventsRequest) else [body])


def _add_state(router: APIRouter, service: Service) -> None:
    @router.get("/health")
    async def health() -> Health:
        """The state of the server; the status is 200 as long as it answers."""
        return service.health()

    @router.get("/ready")
    async def ready() -> Health:
        """Whether the server answers all requests: status 503 while events cannot be stored or read."""
        state = await service.ready()
        if state.events != "ok":
            raise unavailable("events", "the database of events cannot be used: try again later", 2)
        return state

    @router.get("/metrics")
    async def metrics() -> Response:
        """The metrics in the text format of Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _add_admin(router: APIRouter, swapper: Swapper, access: Access) -> None:
    @router.post("/admin/models")
    async def models(request: Request, body: ModelsRequest) -> Health:
        """Serve another run, after a check; if it is refused, the old one stays."""
        check_key(request, access.admin_key, ADMIN_KEY, is_needed=True)
        return await swapper.swap_named(body.run, body.variant)


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return error.response()


async def _refuse_query(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return RequestError.from_details(error.errors()[0]).response()


async def _refuse_path(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    rule = {404: "no such path: see /openapi.json", 405: "not a method of this path: see /openapi.json"}
    where = "method" if error.status_code == 405 else "path"
    value = request.method if error.status_code == 405 else request.url.path
    return RequestError(error.status_code, where, rule.get(error.status_code, str(error.detail)), value).response()


async def _fail(request: Request, error: Exception) -> Response:
    """An error of the server itself: the answer has a number, and standard error has the same number and the cause."""
    if isinstance(error, EnsueError):
        return RequestError(500, "model", str(error)).response()
    number = secrets.token_hex(4)
    print(f"ensue: error {number}: {type(error).__name__}: {error}", file=sys.stderr)
    return RequestError(500, "server", f"internal error {number}: see the log of the server").response()
