"""The controller's command socket: who registers, who asks for what, and whether everyone is alive."""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from nexrl.activity import ErrorInfo, ErrorReporter, HealthPolicy
from nexrl.cluster import Identity, Role
from nexrl.comm import Caller, CurveServer, Directory, Registration, RpcServer, RunKeys, announce
from nexrl.config.schema import Recipe
from nexrl.errors import NexRLError, RoleError
from nexrl.metrics import EventLog
from nexrl.types import Beat, DiscoverRequest, ErrorReport, TrajectoryIds

logger = logging.getLogger(__name__)

_SHUTDOWN_SECONDS = 5.0


class Switchboard:
    """Owns the server that every other role connects to, and the directory of who is there.

    The monitor thread consumes heartbeats; it waits `health_check.check_interval` at a time; it ends at `close`, or
    after it has reported a role that is overdue.
    """

    def __init__(
        self,
        recipe: Recipe,
        identity: Identity,
        run_dir: Path,
        *,
        events: EventLog,
        on_failure: Callable[[NexRLError], None],
    ) -> None:
        self._recipe = recipe
        self._identity = identity
        self._run_dir = run_dir
        self._events = events
        self._on_failure = on_failure
        self.reporter = ErrorReporter()
        self.policy = HealthPolicy(recipe.runtime_monitor.exception_handling)
        keys = RunKeys.generate()
        keys.save(run_dir / "launch" / "secrets.json")
        self.keys = keys
        self.server = RpcServer(bind=f"tcp://{identity.host_address}:0", security=CurveServer(keys), name=identity.name)
        self.directory = Directory()
        self._expected = expected_roles(recipe)
        self._closed = threading.Event()
        self._monitor = threading.Thread(target=self._watch, daemon=True, name="health")
        self.server.expose("register", Registration, self._register)
        self._doing: dict[str, str] = {}
        """What each role said of itself in its last heartbeat."""
        self.server.expose("beat", Beat, self._beat)
        self.server.expose("discover", DiscoverRequest, self._discover)
        self.server.expose("report_error", ErrorReport, self._report_error)

    def open(self) -> None:
        """Let the others find this socket: every method that they call must be exposed by now."""
        announce(self._run_dir, self.server.address, self.keys.controller.public, attempt=self._identity.attempt)

    def wait_for_all(self) -> None:
        """Returns when every role has registered; raises RoleError naming who is missing."""
        for role in self._expected:
            self.wait_for(role)
        self._monitor.start()

    def wait_for(self, role: Role) -> list[Registration]:
        """All of `role`, sorted by rank; none where the recipe starts none."""
        return self.directory.wait_for(
            role, self._expected.get(role, 0), self._recipe.launch.start_timeout, alive=self._check_open
        )

    def describe(self) -> str:
        """What every role said of itself in its last heartbeat, for the stall watchdog."""
        return "\n".join(f"  {name}: {doing}" for name, doing in sorted(self._doing.items()) if doing)

    def give_up(self) -> None:
        """End `wait_for_all` with a RoleError."""
        self._closed.set()

    def shutdown(self) -> None:
        """Tell everybody to end; those who are gone already are passed over."""
        self._closed.set()
        told = [
            self.server.call(peer, "shutdown", None, None, timeout=_SHUTDOWN_SECONDS) for peer in self.server.peers()
        ]
        for future in told:
            if (error := future.exception()) is not None:
                logger.debug("shutdown: %s", error)

    def close(self) -> None:
        """Hang up; every call that waits fails."""
        self._closed.set()
        self.server.close()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise RoleError("the run ended before every role had registered")

    def _register(self, caller: Caller, registration: Registration) -> None:
        self.directory.register(registration)
        self._events.append("role", role=registration.role, rank=registration.rank, pid=registration.pid)

    def _beat(self, caller: Caller, beat: Beat) -> None:
        self.directory.beat(caller.name)
        self._doing[caller.name] = beat.doing

    def _discover(self, caller: Caller, request: DiscoverRequest) -> "Future[list[Registration]]":
        role = Role(request.role)
        return self.directory.discover(role, self._expected.get(role, 0))

    def _report_error(self, caller: Caller, report: ErrorReport) -> None:
        info = ErrorInfo.from_report(report)
        self.reporter.add(info)
        self._events.append("error", role=report.module, severity=report.severity, message=report.message)
        error = self.policy.reason_to_stop([info])
        if error is not None:
            self._on_failure(error)

    def _watch(self) -> None:
        health = self._recipe.runtime_monitor.health_check
        while not self._closed.wait(health.check_interval):
            overdue = self.directory.overdue(health.timeout)
            if overdue:
                names = ", ".join(f"{one.name} (pid {one.pid} on {one.host}, log {one.log})" for one in overdue)
                self._on_failure(
                    RoleError(f"no heartbeat for {health.timeout:g} s (runtime_monitor.health_check.timeout): {names}")
                )
                return


class RecorderCommands:
    """All recorders, through the command socket."""

    def __init__(self, switchboard: Switchboard, *, timeout: float) -> None:
        self._board = switchboard
        self._timeout = timeout

    def wait_durable(self) -> None:
        """Returns when everything the recorders hold by now is on disk."""
        self._all("durable", None)

    def release(self, trajectory_ids: Sequence[str]) -> None:
        """Nobody will fetch these any more."""
        self._all("release", TrajectoryIds(tuple(trajectory_ids)))

    def flush(self) -> None:
        """Write now what is held; returns when it is on disk."""
        self._all("flush", None)

    def _all(self, method: str, request: TrajectoryIds | None) -> None:
        calls = [
            self._board.server.call(recorder.name, method, request, None, timeout=self._timeout)
            for recorder in self._board.directory.of(Role.RECORDER)
        ]
        for call in calls:
            call.result()


def expected_roles(recipe: Recipe) -> dict[Role, int]:
    """How many of each role register with the controller."""
    groups = recipe.launch.groups
    expected = {Role.RECORDER: 1, Role.ROLLOUT: groups.rollout.tasks}
    if recipe.rollout_worker.need_llm_inference:
        expected[Role.INFERENCE] = groups.inference.tasks
    if recipe.service.actor_service.backend != "mock":
        expected[Role.TRAINER] = groups.trainer.tasks
    return expected
