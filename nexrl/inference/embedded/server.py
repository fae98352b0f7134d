"""The engine behind HTTP, in threads of this process."""

import contextlib
import socket
import threading

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from nexrl.errors import InferenceError, NexRLError
from nexrl.inference.embedded.control_routes import ControlRoutes
from nexrl.inference.embedded.engine import EmbeddedEngine
from nexrl.inference.embedded.http import BearerGuard, error_response
from nexrl.inference.embedded.routes import GenerationRoutes
from nexrl.types.protocols import WeightReceiver

_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 10


def engine_app(engine: EmbeddedEngine, *, model: str, token: str, receiver: WeightReceiver | None) -> ASGIApp:
    """The ASGI application: all routes behind the bearer token."""
    routes = GenerationRoutes(engine, model=model).routes() + ControlRoutes(engine, receiver).routes()
    handled: tuple[type[Exception], ...] = (NexRLError, HTTPException, Exception)
    app = Starlette(routes=routes, exception_handlers=dict.fromkeys(handled, error_response))
    return BearerGuard(app, token)


class EngineServer:
    """Owns an engine and serves it; usable in any process, since it leaves signals alone.

    `host`, `port`: where to listen; port 0 takes a free one, which `url` then names. `receiver` writes into the
    engine's parameters and commits them.
    """

    def __init__(
        self,
        engine: EmbeddedEngine,
        *,
        token: str,
        model: str = "policy",
        receiver: WeightReceiver | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        if not token:
            raise InferenceError("an engine is not served without a bearer token")
        self.engine = engine
        self._address = (host, port)
        self._url = ""
        self._socket: socket.socket | None = None
        app = engine_app(engine, model=model, token=token, receiver=receiver)
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                loop="uvloop",
                http="httptools",
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=_STOP_TIMEOUT,
            )
        )
        self._thread = threading.Thread(target=self._serve, name="engine-http", daemon=True)

    @property
    def url(self) -> str:
        """`http://host:port`; only after `start`."""
        if not self._url:
            raise InferenceError("the engine server has not been started")
        return self._url

    def start(self) -> "EngineServer":
        """Start engine and server; returns when requests are taken. Raises InferenceError if the address is taken."""
        try:
            self._socket = socket.create_server(self._address, backlog=1024)
        except OSError as error:
            raise InferenceError(f"cannot listen on {self._address[0]}:{self._address[1]}: {error}") from error
        host, port = self._socket.getsockname()[:2]
        self._url = f"http://{host}:{port}"
        self.engine.start()
        self._thread.start()
        return self

    def stop(self) -> None:
        """End all: requests under way are answered with an error."""
        self.engine.stop()
        self._server.should_exit = True
        self._thread.join(_STOP_TIMEOUT + _START_TIMEOUT)
        with contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.close()

    def _serve(self) -> None:
        assert self._socket is not None
        self._server.run(sockets=[self._socket])
