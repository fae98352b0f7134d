"""From the data loader to the pool, and the position that a checkpoint keeps."""

import threading
from contextlib import suppress

import msgspec
import pytest
from controller_parts import LONG, header, recipe

from nexrl.controller import Feeder, TaskMaker
from nexrl.data import create_data_loader
from nexrl.pool import Ledger, LedgerReader, TrajectoryPool
from nexrl.pool.audit import audit
from nexrl.pool.ledger import Entry


class Feed:
    """A feeder and its pool, with a worker that the test plays itself."""

    def __init__(self, folder, *, slots=4, state=None, epochs=1):
        config = recipe(epochs=epochs)
        self.folder = folder
        self.errors = []
        self.failed = threading.Event()
        self.ledger = Ledger(folder, attempt=1)
        self.pool = TrajectoryPool(config.trajectory_pool, groups_per_batch=2, slots=slots, ledger=self.ledger)
        self.feeder = Feeder(create_data_loader(config.data), self.pool, TaskMaker(config), on_error=self._fail)
        if state is not None:
            self.feeder.restore(state)
        self.feeder.start()

    def lease(self, count):
        """Tasks as they come, `count` in all."""
        tasks = []
        while len(tasks) < count:
            tasks += self.pool.lease("w", count - len(tasks)).result(LONG)
        return tasks

    def finish(self, *tasks):
        for task in tasks:
            for run_id in task.run_ids:
                self.pool.put(task.group_id, task.attempt, run_id, (header(task, run_id),))

    def drop(self, task):
        for attempt in range(3):
            self.pool.fail(task.group_id, task.run_ids, attempt, "InferenceError: gone")

    def train(self):
        """One step with the next batch; the names of its prompts."""
        groups = [group.group_id for group in self.pool.take_batch(LONG)]
        self.feeder.settle(self.pool.mark_trained(groups))
        self.pool.release(groups)
        return groups

    def close(self):
        self.pool.close()
        self.feeder.join(LONG)
        self.ledger.close()

    def _fail(self, error):
        self.errors.append(error)
        self.failed.set()


@pytest.fixture
def make(tmp_path):
    made = []

    def make_feed(**options):
        made.append(Feed(tmp_path / str(len(made)), **options))
        return made[-1]

    yield make_feed
    for feed in made:
        feed.close()


def entries(lines):
    return [msgspec.json.decode(line, type=Entry) for line in lines.splitlines()]


def orders(items):
    return [item.order for item in items]


def test_as_many_prompts_as_there_are_slots(make):
    feed = make(slots=4)
    tasks = feed.lease(4)
    assert orders(tasks) == [0, 1, 2, 3]
    assert feed.pool.metrics()["pool/issued"] == 4
    feed.finish(*tasks[:2])
    feed.train()
    assert orders(feed.lease(2)) == [4, 5]


def test_a_position_brings_back_what_is_not_through(make):
    feed = make(slots=4)
    tasks = feed.lease(4)
    feed.finish(*tasks[:2])
    feed.train()
    feed.lease(2)
    position = feed.feeder.capture()
    assert orders(position.loader.front) == [2, 3, 4, 5]
    assert position.open_groups == tuple(f"mock:{number}@0" for number in (3, 4, 5, 6))
    assert position.ledger_offset == feed.ledger.offset

    resumed = make(slots=8, state=position.loader)
    assert orders(resumed.lease(8)) == [2, 3, 4, 5, 6, 7, 8, 9]


def test_a_position_taken_of_a_resumed_run_keeps_its_replay_queue(make):
    first = make(slots=6)
    first.lease(6)
    second = make(slots=2, state=first.feeder.capture().loader)
    second.lease(2)
    third = make(slots=8, state=second.feeder.capture().loader)
    assert orders(third.lease(8)) == [0, 1, 2, 3, 4, 5, 6, 7]


def test_a_dropped_prompt_is_through(make):
    feed = make(slots=4)
    tasks = feed.lease(4)
    feed.drop(tasks[1])
    assert orders(feed.feeder.capture().loader.front) == [0, 2, 3]


def test_what_the_end_of_the_run_drops_is_issued_again_and_what_was_trained_is_not(make):
    feed = make(slots=4)
    tasks = feed.lease(4)
    feed.finish(*tasks[:3])
    groups = [group.group_id for group in feed.pool.take_batch(LONG)]
    feed.pool.close()
    feed.feeder.settle(feed.pool.mark_trained(groups))
    position = feed.feeder.capture()
    assert orders(position.loader.front) == [2, 3]
    assert position.open_groups == ()
    assert LedgerReader(feed.folder).audit().dropped == {"run ended": 2}


def test_positions_fit_the_ledger_while_rollouts_go_on(make):
    """Every cut holds each prompt that the ledger has issued up to it and not ended: as open, and to be replayed."""
    feed = make(slots=8, epochs=0)
    ended, rounds = threading.Event(), threading.Semaphore(0)

    def work():
        while not ended.is_set():
            for task in feed.pool.lease("w", 3).result(LONG):
                feed.drop(task)
            with suppress(TimeoutError):
                while True:
                    feed.pool.take_batch(0)  # an empty batch: its slots are free again
            rounds.release()

    worker = threading.Thread(target=work)
    worker.start()
    positions = []
    for _ in range(50):
        assert rounds.acquire(timeout=LONG)  # capturing without a pause would keep the feeder from its lock
        positions.append(feed.feeder.capture())
    ended.set()
    worker.join(LONG)
    lines = (feed.folder / "1.jsonl").read_bytes()
    assert len({position.ledger_offset for position in positions}) > 10
    for position in positions:
        still_open = list(audit(entries(lines[: position.ledger_offset])).open)
        assert list(position.open_groups) == still_open
        assert [f"{item.task_id}@{item.epoch}" for item in position.loader.front] == still_open


def test_a_prompt_that_is_dropped_while_a_position_is_taken(make, monkeypatch):
    feed = make(slots=4)
    dropped, *others = feed.lease(4)
    look, late = feed.pool.outstanding, [dropped]

    def outstanding():
        seen = look()
        if late:
            feed.drop(late.pop())
        return seen

    monkeypatch.setattr(feed.pool, "outstanding", outstanding)
    position = feed.feeder.capture()
    assert list(position.open_groups) == [task.group_id for task in others]
    assert [item.task_id for item in position.loader.front] == [task.task_id for task in others]
    lines = (feed.folder / "1.jsonl").read_bytes()[: position.ledger_offset]
    assert audit(entries(lines)).open == position.open_groups


def test_the_end_of_the_data(make):
    feed = make(slots=64)
    assert len(feed.lease(32)) == 32
    feed.feeder.join(LONG)
    feed.finish(*feed.pool.outstanding())
    while feed.train():
        assert not feed.pool.closed
    assert feed.pool.exhausted
    assert feed.feeder.capture().loader.front == ()
    assert feed.errors == []


def test_an_error_of_the_thread_is_told(make):
    feed = make(slots=2)
    feed.finish(*feed.lease(2))
    groups = [group.group_id for group in feed.pool.take_batch(LONG)]
    feed.ledger.close()  # as good as a full disk: nothing can be written
    feed.pool.release(groups)
    assert feed.failed.wait(LONG)
    assert "thread feeder: ValueError" in str(feed.errors[0])
