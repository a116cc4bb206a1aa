"""The page: plain files that the server sends."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

# The colours of the page and of the report.
PALETTE = Path(__file__).parents[2] / "palette.css"
FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


def page_routes() -> APIRouter:
    """The routes of the page's files."""
    router = APIRouter(include_in_schema=False)
    folder = Path(__file__).parent
    for path, (name, kind) in FILES.items():
        content = (folder / name).read_bytes()
        if name == "page.css":
            content = PALETTE.read_bytes() + content
        router.add_api_route(path, _sender(content, kind), methods=["GET"], response_class=Response)
    return router


def _sender(content: bytes, kind: str) -> Callable[[], Coroutine[Any, Any, Response]]:
    async def send() -> Response:
        return Response(content, media_type=kind)

    return send
