"""POST with a deadline and a bearer token: what the client and the control of an engine have in common."""

from typing import Any

import httpx
import msgspec

_CONNECT_TIMEOUT = 10.0


def open_http(token: str) -> httpx.Client:
    """A pool of kept-alive connections, safe to use from many threads. Proxies of the environment are not asked."""
    return httpx.Client(
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=1024),
        trust_env=False,
    )


def post(http: httpx.Client, url: str, body: Any, *, timeout: float) -> httpx.Response:
    """Send `body` as JSON; raises httpx.TransportError. `timeout` in seconds bounds each wait for the engine."""
    limits = httpx.Timeout(timeout, connect=min(timeout, _CONNECT_TIMEOUT))
    return http.post(url, content=msgspec.json.encode(body), timeout=limits)


class _Error(msgspec.Struct):
    message: str


class _ErrorReply(msgspec.Struct):
    error: _Error


def reason_of(response: httpx.Response) -> str:
    """`HTTP <status>: <message>` of an answer that is an error."""
    try:
        text = msgspec.json.decode(response.content, type=_ErrorReply).error.message
    except msgspec.DecodeError:
        text = response.text[:500]
    return f"HTTP {response.status_code}: {text}"
