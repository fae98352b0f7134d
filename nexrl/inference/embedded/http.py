"""What every route shares: JSON answers, errors in OpenAI's shape, the bearer token, noticing that a client left."""

import asyncio
import hmac
from collections.abc import Awaitable
from typing import Any, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from nexrl.errors import InferenceError, WeightSyncError
from nexrl.inference.embedded.replies import ErrorBody, ErrorReply
from nexrl.inference.embedded.request import RequestError

Result = TypeVar("Result")

_OPEN_PATHS = frozenset({"/health"})
_CLIENT_LEFT = 499


class ClientLeftError(InferenceError):
    """The client closed the connection before its answer was ready."""


def json_response(body: Any, *, status: int = 200) -> Response:
    """`body` as JSON."""
    return Response(msgspec.json.encode(body), status_code=status, media_type="application/json")


def error_body(error: Exception) -> tuple[ErrorReply, int]:
    """An error and its HTTP status."""
    if isinstance(error, RequestError):
        kind = "not_found_error" if error.status == 404 else "invalid_request_error"
        return ErrorReply(ErrorBody(message=str(error), type=kind, param=error.param, code=error.code)), error.status
    if isinstance(error, HTTPException):
        return ErrorReply(ErrorBody(message=error.detail, type="invalid_request_error")), error.status_code
    status = 409 if isinstance(error, WeightSyncError) else 500
    return ErrorReply(ErrorBody(message=str(error) or type(error).__name__, type=type(error).__name__)), status


async def error_response(_: Request, error: Exception) -> Response:
    """Starlette's exception handler for all errors."""
    if isinstance(error, ClientLeftError):
        return Response(status_code=_CLIENT_LEFT)
    body, status = error_body(error)
    return json_response(body, status=status)


async def unless_client_leaves(request: Request, work: Awaitable[Result]) -> Result:
    """The result of `work`, which is cancelled when the client disconnects: then raises ClientLeftError."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnected(request))
    watch.add_done_callback(lambda _: task.cancel())
    try:
        return await task
    except asyncio.CancelledError:
        if watch.done() and not watch.cancelled():
            raise ClientLeftError(f"{request.url.path}: the client left") from None
        raise
    finally:
        watch.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class BearerGuard:
    """Lets a request through that carries the token; answers 401 to all others, except on /health."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http" and scope["path"] not in _OPEN_PATHS:
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                reply = ErrorReply(
                    ErrorBody(
                        message="the Authorization header needs the engine's bearer token",
                        type="authentication_error",
                        code="invalid_api_key",
                    )
                )
                await json_response(reply, status=401)(scope, receive, send)
                return
        await self._app(scope, receive, send)
