"""What is checked of every request before its handler, and added to every answer."""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ensue.serving.metrics import Metrics
from ensue.serving.refusal import RequestError

Handler = Callable[[Request], Awaitable[Response]]

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def hosts_of(address: str) -> tuple[str, ...] | None:
    """The host names under which a server on an address may be asked; None: all."""
    return LOOPBACK if address in ("127.0.0.1", "localhost", "::1") else None


HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        b"img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
# Paths of requests that are counted under their own name; the others are counted together.
COUNTED = frozenset(
    f"/{name}"
    for name in (
        "", "recommend", "recommend/batch", "events", "items", "similar", "explain", "health", "ready", "metrics",
        "openapi.json", "admin/models",
    )
)  # fmt: skip


class Guard:
    """Refuses foreign host names, counts requests, and adds the headers of security.

    A server on a loopback address answers only to loopback names: otherwise any web page could read its answers through
    a host name that it points to 127.0.0.1.

    Args:
        app: the application.
        metrics: where requests are counted.
        hosts: the accepted values of the header Host, without port; None: all.
        direct: (method, path) -> the handler of a request that does not need the application's own routing.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, hosts: tuple[str, ...] | None, direct: Mapping[tuple[str, str], Handler]
    ) -> None:
        self.app = app
        self.direct = direct
        self.metrics = metrics
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; other messages are passed on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        try:
            if self.hosts is not None and _host(scope) not in self.hosts:
                error = RequestError(421, "Host", f"must be one of {', '.join(self.hosts)}", _host(scope))
                await error.response()(scope, receive, send_guarded)
            elif handler := self.direct.get((scope["method"], scope["path"])):
                response = await handler(Request(scope, receive))
                await response(scope, receive, send_guarded)
            else:
                await self.app(scope, receive, send_guarded)
        finally:
            route = scope["path"] if scope["path"] in COUNTED else "other"
            self.metrics.request(route, status, time.perf_counter() - began)


def check_key(request: Request, key: str | None, name: str, is_needed: bool) -> None:
    """Check the key of a request, `Authorization: Bearer KEY`, in constant time.

    Args:
        request: the request.
        key: the expected key; None if the server has none.
        name: the variable of the environment that holds it.
        is_needed: whether requests are refused if the server has no key.

    Raises:
        RequestError: the key is missing or wrong (401), or the server has none (403).
    """
    if key is None:
        if is_needed:
            raise RequestError(403, "Authorization", f"the server was started without {name}, which this needs")
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    is_right = hmac.compare_digest(given.strip().encode(), key.encode())
    if scheme.lower() != "bearer" or not is_right:
        raise RequestError(401, "Authorization", f"must be 'Bearer' and the key of {name}")


def _host(scope: Scope) -> str:
    value = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1")
    name, _, port = value.rpartition(":")
    return (name if port.isdigit() else value).lower()
