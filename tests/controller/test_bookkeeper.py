"""Steps, recorders and ledger are told of a batch in this order: written, let go, durable, trained."""

import threading

import pytest
from controller_parts import LONG, Recorders, batch, header, recipe

from nexrl.controller import Bookkeeper, TaskMaker
from nexrl.data import create_data_loader
from nexrl.errors import RoleError, StallError, StoreError
from nexrl.pool import Ledger, LedgerReader
from nexrl.store import StepsReader, StepsWriter
from nexrl.types import TrajectoryGroup


class Books:
    def __init__(self, run_dir, recorders, timeout):
        config = recipe()
        self.run_dir = run_dir
        self.recorders = recorders
        self.errors = []
        self.ledger = Ledger(run_dir / "ledger", attempt=1)
        self.bookkeeper = Bookkeeper(
            self.ledger,
            lambda step: StepsWriter(run_dir, attempt=1, run_id="test", from_step=step),
            recorders,
            timeout=timeout,
            on_error=self.errors.append,
        )
        loader, maker = create_data_loader(config.data), TaskMaker(config)
        self._tasks = [maker.training(loader.get_next_item()) for _ in range(4)]

    def train(self, step):
        """One prompt per step."""
        task = self._tasks[step - 1]
        self.ledger.issued(task.group_id, task.order)
        headers = tuple(header(task, run_id) for run_id in task.run_ids)
        groups = [TrajectoryGroup(group_id=task.group_id, order=task.order, headers=headers)]
        self.bookkeeper.trained(batch(step, groups), groups, [task.group_id], weight_version=step - 1)

    def entered(self):
        return [(one.group_id, one.step) for one in LedgerReader(self.run_dir / "ledger").entries() if one.step]


@pytest.fixture
def make(run_dir):
    made = []

    def make_books(recorders=None, timeout=LONG):
        made.append(Books(run_dir, recorders or Recorders(), timeout))
        return made[-1]

    yield make_books
    for books in made:
        books.ledger.close()


def test_trained_is_entered_once_the_trajectories_are_durable(make, run_dir):
    recorders = Recorders()
    recorders.durable.clear()
    books = make(recorders)
    books.bookkeeper.start(0)
    books.train(1)
    books.train(2)
    assert books.entered() == []
    books.bookkeeper.flush()  # tells the recorders to write now
    assert books.entered() == [("mock:1@0", 1), ("mock:2@0", 2)]
    assert recorders.released == ["mock:1@0/0.0.0", "mock:1@0/1.0.0", "mock:2@0/0.0.0", "mock:2@0/1.0.0"]
    with StepsReader(run_dir) as steps:
        columns = steps.columns()
    assert columns["step"].tolist() == [1, 1, 2, 2]
    assert columns["weight_version"].tolist() == [0, 0, 1, 1]
    assert columns["trajectory_id"].tolist() == recorders.released
    books.bookkeeper.close()


def test_close_finishes_what_waits(make):
    books = make()
    books.bookkeeper.start(0)
    for step in (1, 2, 3):
        books.train(step)
    books.bookkeeper.close()
    assert [step for _, step in books.entered()] == [1, 2, 3]
    assert books.errors == []


def test_what_goes_wrong_is_told_at_once_and_again_by_flush(make):
    recorders = Recorders(failure=StoreError("recorder-0: disk full"))
    books = make(recorders)
    books.bookkeeper.start(0)
    books.train(1)
    books.bookkeeper.close()
    with pytest.raises(StoreError, match="disk full"):
        books.bookkeeper.flush()
    assert [str(error) for error in books.errors] == ["recorder-0: disk full"]
    assert books.entered() == []


class Silent(Recorders):
    """Never says that anything is on disk."""

    def __init__(self):
        super().__init__()
        self.asked = threading.Event()
        self.over = threading.Event()

    def wait_durable(self):
        self.asked.set()
        assert self.over.wait(LONG)

    def flush(self):
        pass


@pytest.mark.parametrize("wait", ["flush", "close"])
def test_books_that_never_come_to_an_end_say_what_they_wait_for(make, wait):
    recorders = Silent()
    books = make(recorders, timeout=0.05)
    books.bookkeeper.start(0)
    books.train(1)
    assert recorders.asked.wait(LONG)
    books.train(2)
    found = r"0\.05 s \(comm\.call_timeout\) for: the recorders, .* step 1 on disk; trained steps behind it: 2"
    with pytest.raises(StallError, match=found):
        getattr(books.bookkeeper, wait)()
    recorders.over.set()
    books.bookkeeper.close()


def test_an_unforeseen_error_of_the_thread_is_told_too(make):
    recorders = Recorders()
    recorders.release = None  # a bug
    books = make(recorders)
    books.bookkeeper.start(0)
    books.train(1)
    with pytest.raises(RoleError, match="thread bookkeeper: TypeError"):
        books.bookkeeper.flush()
    books.bookkeeper.close()


def test_nothing_to_close_where_nothing_was_started(make):
    books = make()
    books.bookkeeper.close()
    assert not list(books.run_dir.glob("trajectories/*"))


def test_flush_with_nothing_trained(make):
    books = make()
    books.bookkeeper.start(0)
    books.bookkeeper.flush()
    books.bookkeeper.close()
