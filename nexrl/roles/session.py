"""A role's connection to the controller."""

import logging
import os
import socket
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from nexrl.activity import ActivityTracker, ErrorReporter, Heartbeat
from nexrl.cluster import Identity
from nexrl.comm import CurveClient, Registration, RpcClient, RunKeys, find_controller
from nexrl.config.schema import Recipe
from nexrl.errors import NexRLError, RoleError
from nexrl.types import Beat, DiscoverRequest, ErrorReport

logger = logging.getLogger(__name__)

_REPORT_TIMEOUT = 10.0


class Session:
    """Registered with the controller, beating, and ended by its `shutdown` command."""

    def __init__(self, recipe: Recipe, identity: Identity, run_dir: Path) -> None:
        """Waits for controller.json of this attempt; raises RoleError when none appears in `launch.start_timeout`."""
        self.recipe = recipe
        self.identity = identity
        self.run_dir = run_dir
        self.host = socket.gethostname()
        self.tracker = ActivityTracker(ErrorReporter())
        self.stopped = threading.Event()
        self._closing = False
        self._lost: RoleError | None = None
        controller = find_controller(run_dir, recipe.launch.start_timeout, attempt=identity.attempt)
        self.keys = RunKeys.load(run_dir / "launch" / "secrets.json")
        self.rpc = RpcClient(controller.address, security=CurveClient(self.keys), name=identity.name)
        self.rpc.expose("shutdown", None, lambda caller, request: self.stopped.set())
        self._heartbeat = Heartbeat(
            recipe.runtime_monitor.health_check.check_interval, send=self._beat, on_failure=self._controller_is_gone
        )

    @property
    def worker_name(self) -> str:
        """`<role>-<rank>@<host>`."""
        return f"{self.identity.name}@{self.host}"

    def register(self, endpoints: Mapping[str, str]) -> None:
        """Make this role known, with where it listens, and start beating."""
        registration = Registration(
            role=self.identity.role.value,
            rank=self.identity.rank,
            group=self.identity.group,
            host=self.host,
            pid=os.getpid(),
            endpoints=dict(endpoints),
            log=str(self.run_dir.absolute() / "logs" / str(self.identity.attempt) / f"{self.identity.name}.log"),
        )
        self.rpc.call("register", registration, None, timeout=self.recipe.launch.start_timeout)
        self._heartbeat.start()

    def discover(self, role: str) -> list[Registration]:
        """All of `role`, sorted by rank, once all of them have registered."""
        return self.rpc.call(
            "discover", DiscoverRequest(role), list[Registration], timeout=self.recipe.launch.start_timeout
        )

    def report_error(self, error: BaseException, *, work: str) -> None:
        """Tell the controller what ends this role."""
        report = ErrorReport(
            module=self.identity.name,
            work=work,
            severity="critical",
            error=type(error).__name__,
            message=str(error),
            traceback="".join(traceback.format_exception(error)),
        )
        self.rpc.call("report_error", report, None, timeout=_REPORT_TIMEOUT)

    def close(self) -> None:
        """Hang up, and stop beating: a beat that waits for its answer ends with the connection.

        Raises RoleError where it was the controller's silence that ended this role.
        """
        self._closing = True
        self.rpc.close()
        self._heartbeat.close()
        if self._lost is not None:
            raise self._lost

    def failed(self, error: NexRLError, *, work: str) -> NoReturn:
        """Report `error` if the controller can still be reached, then raise it."""
        with suppress(NexRLError):
            self.report_error(error, work=work)
        raise error

    def _beat(self) -> None:
        beat = Beat("" if self.tracker.is_quiescent() else self.tracker.describe())
        self.rpc.call("beat", beat, None, timeout=self.recipe.runtime_monitor.health_check.timeout)

    def _controller_is_gone(self, error: BaseException) -> None:
        if not self._closing and not self.stopped.is_set():
            self._lost = RoleError(f"the controller does not answer: {error}")
            self.stopped.set()
