"""Connections that send nothing, or too slowly, are ended; others go on."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
from collections.abc import Awaitable, Callable

import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from ensue.serving import connection as module
from ensue.serving.connection import LimitedProtocol, allow_connections

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"


def against(client: Callable[[int], Awaitable[bytes]]) -> bytes:
    """What a client of a small server returns."""

    async def run() -> bytes:
        config = uvicorn.Config(PlainTextResponse("hello"), http=LimitedProtocol, log_level="critical", lifespan="off")
        server = uvicorn.Server(config)
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup([_socket()])
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            return await asyncio.wait_for(client(port), 60)
        finally:
            server.servers[0].close()

    return asyncio.run(run())


def _socket() -> socket.socket:
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    return listener


async def sent(port: int, *parts: bytes) -> bytes:
    """The answer to parts of a request, until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
    answer = await reader.read()
    writer.close()
    return answer


def test_headers_that_do_not_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEADER_SECONDS", 0.0)
    head, _, body = against(lambda port: sent(port, HEAD)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["error"]["field"] == "headers"


def test_what_is_not_http_is_refused_in_json() -> None:
    head, _, body = against(lambda port: sent(port, b"hello\r\n\r\n")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert json.loads(body)["error"]["field"] == "request"


def test_a_silent_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.0)
    assert against(sent) == b""


def test_whole_requests_are_answered_one_after_another() -> None:
    last = HEAD + b"Connection: close\r\n\r\n"
    answer = against(lambda port: sent(port, HEAD + b"\r\n", last))
    assert answer.count(b"HTTP/1.1 200 ") == 2


def test_the_limit_of_open_files_is_raised_only() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    allow_connections(1)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
    low = (min(64, before[0]), before[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (low[0] + 192, low[1]))
    allow_connections(300)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 300
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
