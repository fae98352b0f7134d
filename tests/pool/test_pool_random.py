"""Random histories: whatever happens in whatever order, accounts balance, slots come back, and nothing hangs."""

import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pool_samples import header, task

from nexrl.config.schema import TrajectoryPoolConfig
from nexrl.pool import Ledger, LedgerReader, PoolClosed, TrajectoryPool

SAMPLES = 2
CRITERIA = ["loaded_batch_finished", "batch_size_reached", "batch_size_reached_and_loaded_batch_finished"]


class PoolHistory(RuleBasedStateMachine):
    """A feeder, two workers and a trainer that do anything they may, and some things they may not."""

    @initialize(
        criterion=st.sampled_from(CRITERIA),
        policy=st.sampled_from(["drop", "accept_partial"]),
        size=st.integers(1, 3),
        staleness=st.integers(0, 2),
        keys=st.sampled_from([(), ("group_id",), ("data_source",), ("data_source", "group_id")]),
    )
    def start(self, criterion, policy, size, staleness, keys):
        self.folder = tempfile.TemporaryDirectory()
        self.ledger = Ledger(Path(self.folder.name), attempt=1)
        config = TrajectoryPoolConfig(
            check_batch_ready_function=criterion,
            incomplete_groups=policy,
            max_attempts=2,
            group_timeout=50.0,
            key_list=keys,
        )
        self.now = 0.0
        slots = (staleness + 1) * size
        self.pool = TrajectoryPool(
            config, groups_per_batch=size, slots=slots, ledger=self.ledger, clock=lambda: self.now
        )
        self.bounded = criterion != "batch_size_reached"  # there a slow prompt may be overtaken
        self.staleness, self.slots, self.size = staleness, slots, size
        self.version = 0
        self.issued = 0
        self.version_at_issue = {}
        self.held = []  # (worker, group id, run id, attempt)
        self.past = []  # results that were told already
        self.batches = []

    @rule(prompts=st.integers(1, 4))
    def admit(self, prompts):
        for _ in range(prompts):
            if not self.pool.wait_for_slot(0):
                return
            name = f"g{self.issued}"
            self.pool.admit(task(name, order=self.issued, samples=SAMPLES))
            self.version_at_issue[name] = self.version
            self.issued += 1

    @rule(worker=st.sampled_from("xy"), limit=st.integers(1, 8))
    def lease(self, worker, limit):
        future = self.pool.lease(worker, limit)
        if not future.done():
            assert future.cancel()
            return
        tasks = future.result(0)
        assert 0 < len(tasks) <= limit
        self.held += [(worker, each.group_id, run, each.attempt) for each in tasks for run in each.run_ids]

    @precondition(lambda self: self.held)
    @rule(data=st.data(), sequences=st.integers(0, 2))
    def put(self, data, sequences):
        held = data.draw(st.sampled_from(self.held))
        self.held.remove(held)
        self.past.append(held)
        self.tell(held, sequences)

    @precondition(lambda self: self.held)
    @rule()
    def put_all(self):
        held, self.held = self.held, []
        self.past += held
        for each in held:
            self.tell(each, 1)

    @precondition(lambda self: self.past)
    @rule(data=st.data())
    def put_again_or_late(self, data):
        self.tell(data.draw(st.sampled_from(self.past)), 1)

    def tell(self, held, sequences):
        _, name, run, attempt = held
        order = int(name[1:])
        headers = tuple(header(name, run, order=order, attempt=attempt, sequence=n) for n in range(sequences))
        self.pool.put(name, attempt, run, headers)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def fail(self, data):
        held = data.draw(st.sampled_from(self.held))
        self.held.remove(held)
        self.past.append(held)
        self.pool.fail(held[1], [held[2]], held[3], "InferenceError: x")

    @rule(worker=st.sampled_from("xy"))
    def lose_a_worker(self, worker):
        assert self.pool.worker_lost(worker) == []
        self.past += [held for held in self.held if held[0] == worker]
        self.held = [held for held in self.held if held[0] != worker]

    @rule(seconds=st.sampled_from([1, 20, 60]))
    def time_passes(self, seconds):
        self.now += seconds
        self.pool.expire(self.now)

    @rule()
    def take(self):
        try:
            groups = self.pool.take_batch(0)
        except TimeoutError as error:
            assert "pool waits for a batch" in str(error)  # noqa: PT017 - not being ready is no failure
            return
        self.taken(groups)

    def taken(self, groups):
        prompts = {each.group_id for group in groups for each in group.headers}
        assert len(prompts) <= self.size
        assert [group.order for group in groups] == sorted(group.order for group in groups)
        step_version = self.version + len(self.batches)
        if self.bounded:
            assert all(step_version - self.version_at_issue[name] <= self.staleness for name in prompts)
        if groups:
            self.batches.append([group.group_id for group in groups])

    @precondition(lambda self: self.batches)
    @rule()
    def train(self):
        """Trained and published: the next version."""
        groups = self.batches.pop(0)
        self.version += 1
        for name in self.pool.mark_trained(groups):
            self.ledger.trained(name, self.version)
        self.pool.release(groups)

    @precondition(lambda self: not self.batches and self.pool.outstanding())
    @rule(data=st.data())
    def drop(self, data):
        name = data.draw(st.sampled_from([each.group_id for each in self.pool.outstanding()]))
        self.pool.drop([name], "stale")

    @invariant()
    def slots_are_never_overdrawn(self):
        free = self.pool.metrics()["pool/free_slots"]
        assert 0 <= free <= self.slots
        assert len(self.pool.outstanding()) <= self.slots - free

    def teardown(self):
        if not hasattr(self, "pool"):
            return
        self.pool.end_of_data()
        for _ in range(2):  # max_attempts: after so many losses every sample is in or given up
            while (future := self.pool.lease("x", 8)).done():
                future.result(0)
            self.pool.worker_lost("x")
            self.pool.worker_lost("y")
        for _ in range(self.issued + 1):
            if not self.pool.exhausted:
                self.taken(self.pool.take_batch(0))
        assert self.pool.exhausted
        assert self.pool.take_batch(0) == []
        while self.batches:
            self.train()
        assert self.pool.metrics()["pool/free_slots"] == self.slots
        self.ledger.close()
        audit = LedgerReader(Path(self.folder.name)).audit()
        assert audit.is_settled
        assert audit.issued == self.issued == audit.trained + sum(audit.dropped.values())
        self.folder.cleanup()


TestPoolHistory = PoolHistory.TestCase
TestPoolHistory.settings = settings(
    max_examples=200, stateful_step_count=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


class Race:
    """A feeder, four workers (one of which dies again and again) and a trainer, all at once."""

    TOTAL, SIZE = 120, 4

    def __init__(self, folder, criterion):
        self.ledger = Ledger(folder, attempt=1)
        config = TrajectoryPoolConfig(check_batch_ready_function=criterion, max_attempts=50)
        self.pool = TrajectoryPool(config, groups_per_batch=self.SIZE, slots=2 * self.SIZE, ledger=self.ledger)
        self.failures = []

    def feed(self):
        for order in range(self.TOTAL):
            assert self.pool.wait_for_slot(30)
            self.pool.admit(task(f"g{order}", order=order))
        self.pool.end_of_data()

    def work(self, name, dies):
        rounds = 0
        while tasks := self.pool.lease(name, 3).result(30):
            rounds += 1
            if dies and rounds % 3 == 0:
                self.pool.worker_lost(name)
                continue
            for each in tasks:
                self.roll_out(each)

    def roll_out(self, each):
        for run in each.run_ids:
            if (each.order + run + each.attempt) % 7 == 0:
                self.pool.fail(each.group_id, [run], each.attempt, "x")
            else:
                sample = header(each.group_id, run, order=each.order, attempt=each.attempt)
                self.pool.put(each.group_id, each.attempt, run, (sample,))

    def train(self):
        step = 0
        while not self.pool.exhausted:
            groups = self.pool.take_batch(30)
            step += 1
            ids = [group.group_id for group in groups]
            for name in self.pool.mark_trained(ids):
                self.ledger.trained(name, step)
            self.pool.release(ids)

    def guarded(self, act, *args):
        try:
            act(*args)
        except BaseException as error:
            self.failures.append(error)
            self.pool.close()
            raise

    def run(self):
        acts = [(self.feed,), *((self.work, f"w{n}", n == 0) for n in range(4))]
        threads = [threading.Thread(target=self.guarded, args=act, daemon=True) for act in acts]
        for thread in threads:
            thread.start()
        self.train()
        self.pool.close()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
        self.ledger.close()


@pytest.mark.parametrize("criterion", CRITERIA)
def test_threads_race(tmp_path, criterion):
    race = Race(tmp_path, criterion)
    race.run()
    assert race.failures == []
    audit = LedgerReader(tmp_path).audit()
    assert audit.is_settled
    assert (audit.issued, audit.trained) == (Race.TOTAL, Race.TOTAL)


def test_a_callback_may_come_back_to_the_pool(tmp_path):
    """A lease is resolved when the pool's lock is free: its callback may wait for a thread that needs the pool."""
    with Ledger(tmp_path, attempt=1) as ledger:
        pool = TrajectoryPool(TrajectoryPoolConfig(), groups_per_batch=1, slots=1, ledger=ledger)
        told = []

        def ask_from_another_thread(_):
            thread = threading.Thread(target=lambda: told.append(pool.describe()), daemon=True)
            thread.start()
            thread.join(30)

        pool.lease("w", 1).add_done_callback(ask_from_another_thread)
        pool.admit(task("a"))
        assert len(told) == 1


def test_close_wakes_a_waiting_taker(tmp_path):
    with Ledger(tmp_path, attempt=1) as ledger:
        pool = TrajectoryPool(TrajectoryPoolConfig(), groups_per_batch=1, slots=1, ledger=ledger)
        with ThreadPoolExecutor(1) as executor:
            taking = executor.submit(pool.take_batch)
            time.sleep(0.05)
            pool.close()
            assert type(taking.exception(30)) is PoolClosed
