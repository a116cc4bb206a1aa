"""Refused requests: every error of the server is JSON that names a field, a rule and a value."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import ErrorDetails
from starlette.responses import Response

from ensue.errors import EnsueError

SHOWN_LETTERS = 200
# Parts of pydantic's places that are no fields: where the value was, and which of several forms was tried.
_NO_FIELDS = ("body", "query", "one", "many", "[key]", "int", "str")
_RULES = {"extra_forbidden": "is not a field of this request: see /openapi.json", "missing": "must be given"}


class RequestError(EnsueError):
    """A request that breaks a rule, or that cannot be answered now.

    Attributes:
        status: the HTTP status.
        field: the field of the request, such as `history.3`; `body` for the whole.
        rule: what must hold.
        value: the value that breaks the rule; it is shortened in the answer.
        retry_after: seconds after which the client may try again, or None.
    """

    def __init__(self, status: int, field: str, rule: str, value: Any = None, retry_after: int | None = None) -> None:
        super().__init__(f"{field}: {rule} (got {value!r})")
        self.status = status
        self.field = field
        self.rule = rule
        self.value = value
        self.retry_after = retry_after

    @classmethod
    def from_details(cls, details: ErrorDetails) -> RequestError:
        """The first error that pydantic reports about a body or a query."""
        cause = details.get("ctx", {}).get("error")
        if isinstance(cause, RequestError):
            before = [str(part) for part in details["loc"][:-1] if part not in _NO_FIELDS]
            return cls(cause.status, ".".join((*before, cause.field)), cause.rule, cause.value)
        places = [str(part) for part in details["loc"] if part not in _NO_FIELDS]
        message = _RULES.get(details["type"]) or details["msg"].removeprefix("Value error, ")
        value = None if details["type"] in ("missing", "json_invalid") else details["input"]
        return cls(422, ".".join(places) or "body", message[:1].lower() + message[1:], value)

    def response(self) -> Response:
        """The answer: `{"error": {"field": ..., "rule": ..., "value": ...}}`."""
        error = {"field": self.field, "rule": self.rule, "value": _shortened(self.value)}
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        body = json.dumps({"error": error}).encode()
        return Response(body, self.status, headers, media_type="application/json")


def unavailable(field: str, rule: str, seconds: int = 1) -> RequestError:
    """The error for what cannot be done at the moment: status 503, with the time after which to try again."""
    return RequestError(503, field, rule, None, seconds)


def _shortened(value: Any) -> Any:
    """The value itself if it is a short JSON value, and the beginning of its text otherwise."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return value
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= SHOWN_LETTERS else text[:SHOWN_LETTERS] + "..."
