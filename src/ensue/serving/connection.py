"""Connections with a limit on the time of a request's headers, which uvicorn waits for without end."""

from __future__ import annotations

import asyncio
import resource
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ensue.serving.refusal import RequestError

# A request whose headers take longer is refused; a connection that sends nothing is closed later.
HEADER_SECONDS = 10.0
SILENT_SECONDS = 60.0


class LimitedProtocol(HttpToolsProtocol):
    """One connection: it is closed if headers come too slowly or are wrong, or nothing comes at all."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Limit the time until the first byte."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(SILENT_SECONDS, transport.close)

    def on_message_begin(self) -> None:
        """Limit the time of the headers."""
        self._stop_timer()
        self._timer = self.loop.call_later(HEADER_SECONDS, self._refuse_headers)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The body has a limit of its own."""
        self._stop_timer()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP like every other error."""
        self._refuse(RequestError(400, "request", "must be valid HTTP/1.1"))

    def _refuse_headers(self) -> None:
        self._refuse(RequestError(408, "headers", f"must arrive within {HEADER_SECONDS:.0f} seconds"))

    def _refuse(self, error: RequestError) -> None:
        body = bytes(error.response().body)
        phrase = HTTPStatus(error.status).phrase
        head = f"HTTP/1.1 {error.status} {phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"Connection: close\r\n\r\n" + body)
        self.transport.close()


def allow_connections(count: int) -> None:
    """Raise the process's limit of open files, if the system allows it: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
