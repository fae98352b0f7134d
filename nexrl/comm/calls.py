"""Calls that wait for their answers, with their deadlines."""

import heapq
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from nexrl.comm.codec import decode
from nexrl.comm.wire import Head, Kind, read_failure
from nexrl.errors import CommError, NexRLError


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """One call on its way."""

    number: int
    route: bytes
    """Connection it goes out on."""
    peer: str
    """For messages."""
    method: str
    reply_type: Any
    timeout: float
    deadline: float
    """time.monotonic()."""
    future: "Future[Any]"

    def fail(self, error: NexRLError) -> None:
        """End with `error`, unless it has ended."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


class Calls:
    """The table of waiting calls; one thread uses it."""

    def __init__(self) -> None:
        self._waiting: dict[int, Call] = {}
        self._deadlines: list[tuple[float, int]] = []

    def add(self, call: Call) -> None:
        """Wait for its answer."""
        self._waiting[call.number] = call
        if len(self._deadlines) > 2 * len(self._waiting) + 64:  # mostly of calls that were answered long before theirs
            self._deadlines = sorted((waiting.deadline, waiting.number) for waiting in self._waiting.values())
            return
        heapq.heappush(self._deadlines, (call.deadline, call.number))

    def answer(self, route: bytes, head: Head, payload: Sequence[Any]) -> None:
        """Give a REPLY or ERROR to the call that it belongs to; a late one is dropped, as is one from elsewhere."""
        call = self._waiting.get(head.call)
        if call is None or call.route != route:
            return
        del self._waiting[call.number]
        if not call.future.set_running_or_notify_cancel():
            return
        try:
            if head.kind is Kind.ERROR:
                call.future.set_exception(read_failure(payload))
            else:
                call.future.set_result(decode(payload, call.reply_type))
        except CommError as error:
            call.future.set_exception(CommError(f"{call.peer}: answer to {call.method}: {error}"))

    def expired(self) -> list[Call]:
        """Take out and fail the calls whose deadline has passed."""
        now = time.monotonic()
        late = []
        while self._deadlines and self._deadlines[0][0] <= now:
            call = self._waiting.pop(heapq.heappop(self._deadlines)[1], None)
            if call is not None:
                call.fail(CommError(f"{call.peer}: no answer to {call.method} within {call.timeout:g} s"))
                late.append(call)
        return late

    def wait_seconds(self, longest: float) -> float:
        """Until the next deadline, at most `longest`."""
        while self._deadlines and self._deadlines[0][1] not in self._waiting:
            heapq.heappop(self._deadlines)
        return min(longest, max(0.0, self._deadlines[0][0] - time.monotonic())) if self._deadlines else longest

    def fail(self, reason: str, of: Callable[[Call], bool] = lambda call: True) -> None:
        """Take out and fail those that `of` chooses; `reason` stands behind the peer's name."""
        for call in [call for call in self._waiting.values() if of(call)]:
            del self._waiting[call.number]
            call.fail(CommError(f"{call.peer}: {reason} ({call.method} was not answered)"))
