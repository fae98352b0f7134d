"""Brings new weights from the trainer into every engine."""

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock
from typing import Literal

import msgspec

from nexrl.errors import WeightSyncError
from nexrl.types.protocols import EngineControl
from nexrl.weights.calls import finish, in_background
from nexrl.weights.publisher import WeightPublisher
from nexrl.weights.staleness import need_block

logger = logging.getLogger(__name__)

SyncState = Literal["running", "need_sync", "syncing"]

_SYNC_THRESHOLD = 0
"""`weight.sync_mode: sync`: rollouts never lag."""


class SyncReport(msgspec.Struct, frozen=True, kw_only=True):
    """One update that went well. Times are seconds."""

    version: int
    epoch: int
    """Of the group that carried it."""
    engines: int
    bytes: int
    """Sent once, whatever the number of engines."""
    group_seconds: float
    """Making the group; 0.0 where it existed."""
    pause_seconds: float
    """Until running requests had finished."""
    transfer_seconds: float
    resume_seconds: float


class WeightSyncController:
    """State machine and conductor of weight updates.

        running ──batch_taken──► need_sync ──publish──► syncing ──all engines serve the version──► running
                                     ▲                     │ failed: engines stay paused
                                     └─────────────────────┘

    `version` is what trainer and engines start from. All engines and the trainer's rank 0 form one weight group; any
    change of members, and any failure, makes the next update build a new one under the next epoch. With no engines an
    update is only counted.
    """

    def __init__(
        self,
        engines: Sequence[EngineControl],
        publisher: WeightPublisher,
        *,
        timeout: float,
        version: int = 0,
    ) -> None:
        self._engines = _distinct(engines)
        self._publisher = publisher
        self._timeout = timeout
        self._epoch = 0
        self._grouped = False
        self._publishing = Lock()
        self.state: SyncState = "running"
        self.train_model_version = version
        """What the trainer has."""
        self.rollout_model_version = version
        """What every engine serves."""

    def batch_taken(self) -> None:
        """A batch has gone to the trainer: rollouts wait for the weights that come of it."""
        if need_block(
            train_version=self.train_model_version,
            rollout_version=self.rollout_model_version,
            threshold=_SYNC_THRESHOLD,
        ):
            self.state = "need_sync"

    def rejoin(self, engines: Sequence[EngineControl]) -> None:
        """The engines are these from now on: one was restarted, has come or gone. Publish after this, the same version
        if there is no newer one: a restarted engine has none."""
        with self._publishing:
            self._engines = _distinct(engines)
            self._grouped = False

    def publish(self, version: int) -> SyncReport:
        """Pause every engine, stream the trainer's weights to all at once, resume.

        Raises WeightSyncError naming who failed or did not answer within the timeout, which spans all of it; engines
        are then left paused, and one that holds half an update refuses to serve. Calling again is a full new attempt.
        """
        with self._publishing:
            if version < self.rollout_model_version:
                raise WeightSyncError(f"version {version} is older than {self.rollout_model_version}, which is served")
            self.train_model_version = version
            self.state = "syncing"
            try:
                report = self._publish(version, time.monotonic() + self._timeout)
            except BaseException:
                self.state = "need_sync"
                self._grouped = False
                raise
            self.rollout_model_version = version
            self.state = "running"
        logger.debug("weights %d: %s", version, report)
        return report

    def _publish(self, version: int, deadline: float) -> SyncReport:
        group_seconds = self._timed(lambda: self._make_group(deadline))
        pause_seconds = self._timed(lambda: self._each("pause", lambda engine: engine.pause, deadline))
        started = time.monotonic()
        sent = self._transfer(version, deadline)
        transfer_seconds = time.monotonic() - started
        resume_seconds = self._timed(lambda: self._each("resume", lambda engine: engine.resume, deadline))
        return SyncReport(
            version=version,
            epoch=self._epoch,
            engines=len(self._engines),
            bytes=sent,
            group_seconds=group_seconds,
            pause_seconds=pause_seconds,
            transfer_seconds=transfer_seconds,
            resume_seconds=resume_seconds,
        )

    def _make_group(self, deadline: float) -> None:
        if self._grouped or not self._engines:
            return
        self._epoch += 1
        world_size = len(self._engines) + 1
        opened = in_background(
            "open weight group", lambda: self._publisher.open_group(world_size=world_size, epoch=self._epoch)
        )
        finish(f"weight group {self._epoch}", {"trainer": opened}, deadline=deadline)
        address = opened.result()
        joining = {
            engine.name: in_background(
                f"join {engine.name}",
                partial(
                    engine.init_transfer,
                    master_address=address.address,
                    master_port=address.port,
                    rank=rank,
                    world_size=world_size,
                    epoch=self._epoch,
                ),
            )
            for rank, engine in enumerate(self._engines, start=1)
        }
        finish(f"weight group {self._epoch}", joining, deadline=deadline, on_failure=self._publisher.abort)
        self._grouped = True

    def _transfer(self, version: int, deadline: float) -> int:
        if not self._engines:
            return 0
        sent = self._publisher.send(version=version)
        received = {
            engine.name: in_background(f"update {engine.name}", partial(engine.update_weights, version=version))
            for engine in self._engines
        }
        finish(
            f"weights of version {version}",
            {"trainer": sent, **received},
            deadline=deadline,
            on_failure=self._publisher.abort,
        )
        return sent.result()

    def _each(self, verb: str, call: Callable[[EngineControl], Callable[[], None]], deadline: float) -> None:
        calls = {engine.name: in_background(f"{verb} {engine.name}", call(engine)) for engine in self._engines}
        finish(f"{verb} for weights", calls, deadline=deadline)

    @staticmethod
    def _timed(act: Callable[[], None]) -> float:
        started = time.monotonic()
        act()
        return time.monotonic() - started


def _distinct(engines: Sequence[EngineControl]) -> tuple[EngineControl, ...]:
    names = [engine.name for engine in engines]
    if len(set(names)) < len(names):
        raise ValueError(f"engines must have names of their own, found {names}")
    return tuple(engines)
