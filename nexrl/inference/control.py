"""Pause, weights and resume of one engine replica over HTTP."""

from typing import Any

import httpx

from nexrl.errors import WeightSyncError
from nexrl.inference.transport import open_http, post, reason_of

_GRACE = 5.0
"""Seconds by which the connection outlives the engine's own deadline, so that the engine's message is heard."""


class HttpEngineControl:
    """Implements EngineControl. `timeout`: seconds for each call; draining takes as long as the longest request."""

    def __init__(self, name: str, url: str, *, token: str, timeout: float = 600.0) -> None:
        self._name = name
        self._url = url
        self._timeout = timeout
        self._http = open_http(token)

    @property
    def name(self) -> str:
        """`inference-<rank>`, for messages."""
        return self._name

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def pause(self) -> None:
        """Let running requests finish and hold new ones back; returns when none runs."""
        self._call(f"/pause?mode=wait&timeout={self._timeout:g}")

    def init_transfer(self, *, master_address: str, master_port: int, rank: int, world_size: int, epoch: int) -> None:
        """Join the weight group `epoch` as `rank`; a former group is left."""
        info = {
            "master_address": master_address,
            "master_port": master_port,
            "rank": rank,
            "world_size": world_size,
            "epoch": epoch,
        }
        self._call("/init_weight_transfer_engine", {"init_info": info})

    def update_weights(self, *, version: int) -> None:
        """Receive one full set of weights from the group and serve it as `version`; returns when it is in place."""
        self._call("/update_weights", {"version": version})

    def resume(self) -> None:
        """Serve again."""
        self._call("/resume")

    def _call(self, path: str, body: Any = None) -> None:
        try:
            response = post(self._http, self._url + path, body, timeout=self._timeout + _GRACE)
        except httpx.TransportError as error:
            raise WeightSyncError(
                f"{self._name} ({self._url}): {path.partition('?')[0]}: {type(error).__name__}: {error}"
            ) from error
        if response.status_code >= 400:
            raise WeightSyncError(f"{self._name} ({self._url}): {path.partition('?')[0]}: {reason_of(response)}")
