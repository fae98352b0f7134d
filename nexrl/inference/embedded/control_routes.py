"""The routes of the weight plane: pause, update, resume."""

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from nexrl.errors import NexRLError, WeightSyncError
from nexrl.inference.embedded.bodies import decode_body
from nexrl.inference.embedded.engine import EmbeddedEngine
from nexrl.inference.embedded.http import json_response
from nexrl.inference.embedded.request import RequestError
from nexrl.types.protocols import WeightReceiver

_DRAIN_TIMEOUT = 600.0


class TransferInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the weight group meets, and who this engine is in it."""

    master_address: str
    master_port: int
    rank: int
    world_size: int
    epoch: int


class InitTransferBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /init_weight_transfer_engine."""

    init_info: TransferInfo


class UpdateBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /update_weights."""

    version: int


class ControlRoutes:
    """Pause and weights; `receiver` is None where this engine's weights never change."""

    def __init__(self, engine: EmbeddedEngine, receiver: WeightReceiver | None) -> None:
        self._engine = engine
        self._receiver = receiver
        self._updating = False

    def routes(self) -> list[Route]:
        """Paths and their methods."""
        return [
            Route("/pause", self.pause, methods=["POST"]),
            Route("/resume", self.resume, methods=["POST"]),
            Route("/is_paused", self.is_paused, methods=["GET"]),
            Route("/init_weight_transfer_engine", self.init_transfer, methods=["POST"]),
            Route("/update_weights", self.update_weights, methods=["POST"]),
            Route("/weight_info", self.weight_info, methods=["GET"]),
        ]

    async def pause(self, request: Request) -> Response:
        """Hold new requests back and answer when no request runs; 504 if one still does after `timeout` seconds."""
        mode = request.query_params.get("mode", "wait")
        if mode != "wait":
            raise RequestError(f"mode: found {mode!r}, this engine knows 'wait'", param="mode")
        try:
            timeout = float(request.query_params.get("timeout", _DRAIN_TIMEOUT))
        except ValueError as error:
            raise RequestError(f"timeout: needs seconds: {error}", param="timeout") from error
        self._engine.pause()
        if not await run_in_threadpool(self._engine.wait_idle, timeout):
            raise RequestError(f"paused, but requests still run after {timeout:g} s", status=504)
        return json_response({"is_paused": True})

    async def resume(self, _: Request) -> Response:
        """Serve again."""
        self._engine.resume()
        return json_response({"is_paused": False})

    async def is_paused(self, _: Request) -> Response:
        """Whether new requests wait."""
        return json_response({"is_paused": self._engine.is_paused})

    async def init_transfer(self, request: Request) -> Response:
        """Join a weight group."""
        receiver = self._need_receiver()
        info = decode_body(await request.body(), InitTransferBody).init_info
        try:
            await run_in_threadpool(receiver.join, **msgspec.structs.asdict(info))
        except NexRLError as error:
            raise RequestError(f"joining weight group {info.epoch}: {error}", status=500) from error
        return json_response({"epoch": info.epoch})

    async def update_weights(self, request: Request) -> Response:
        """Take one full set of weights from the group; the engine must be paused, and stays so."""
        receiver = self._need_receiver()
        version = decode_body(await request.body(), UpdateBody).version
        if self._updating:
            raise WeightSyncError("another weight update is on its way")
        self._engine.begin_update()
        self._updating = True
        try:
            await run_in_threadpool(receiver.receive, version=version)
        except NexRLError as error:
            raise RequestError(f"weights {version}: {error}", status=500) from error
        finally:
            self._updating = False
        if not self._engine.weights_whole or self._engine.version != version:
            raise RequestError(f"weights {version}: received, but not committed", status=500)
        return json_response({"weight_version": version})

    async def weight_info(self, _: Request) -> Response:
        """Version of the weights in place."""
        return json_response({"weight_version": self._engine.version, "whole": self._engine.weights_whole})

    def _need_receiver(self) -> WeightReceiver:
        if self._receiver is None:
            raise RequestError("this engine was started without a weight receiver", status=501)
        return self._receiver
