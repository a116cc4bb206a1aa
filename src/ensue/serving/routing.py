"""Routes with a JSON body: the body is limited, checked once and parsed by pydantic's own reader.

FastAPI describes these routes in `/openapi.json` like any other; only the way from bytes to bytes is shorter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, get_type_hints

from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ensue.serving.refusal import RequestError

MAX_BODY = 1 << 20
BODY_SECONDS = 10.0
JSON = "application/json"


def json_handler(endpoint: Callable[..., Any]) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """The handler of an endpoint that takes `request` and a checked `body`, and returns a dataclass."""
    hints = get_type_hints(endpoint, include_extras=True)
    body, result = TypeAdapter(hints["body"]), TypeAdapter(hints["return"])

    async def handle(request: Request) -> Response:
        try:
            try:
                values = body.validate_json(await read_body(request))
            except ValidationError as error:
                raise RequestError.from_details(error.errors(include_url=False)[0]) from None
            answer = await endpoint(request=request, body=values)
        except RequestError as error:
            return error.response()
        return Response(result.dump_json(answer), media_type=JSON)

    return handle


class JsonRoute(APIRoute):
    """A route whose endpoint takes `request` and, for POST, a checked `body`, and returns a dataclass."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of a request."""
        has_body = "body" in get_type_hints(self.endpoint)
        return json_handler(self.endpoint) if has_body else super().get_route_handler()


async def read_body(request: Request) -> bytes:
    """The body of a request.

    Raises:
        RequestError: it is not declared as JSON, is too large, or takes too long.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON:
        raise RequestError(415, "Content-Type", f"must be {JSON}", kind)
    size = request.headers.get("content-length", "0")
    if not size.isdecimal() or int(size) > MAX_BODY:
        raise RequestError(413, "body", f"must have at most {MAX_BODY} bytes", size)
    parts, total = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                total += len(part)
                if total > MAX_BODY:
                    raise RequestError(413, "body", f"must have at most {MAX_BODY} bytes", total)
                parts.append(part)
    except TimeoutError:
        raise RequestError(408, "body", f"must arrive within {BODY_SECONDS:.0f} seconds") from None
    except ClientDisconnect:
        raise RequestError(400, "body", "must be sent whole") from None
    return b"".join(parts)
