"""A controller with everything it coordinates, in a run folder of the test."""

from contextlib import ExitStack

import pytest
from controller_parts import LONG, Recorders, Rollouts, Service, Trainer, recipe, result

from nexrl.activity import StallWatchdog
from nexrl.controller import Bookkeeper, Checkpoints, Feeder, Modules, NexRLController, Summary, TaskMaker
from nexrl.data import create_data_loader
from nexrl.metrics import EventLog, JsonlSink, MetricLogger
from nexrl.pool import Ledger, TrajectoryPool
from nexrl.store import StepsWriter
from nexrl.validator import Validator
from nexrl.weights import WeightSyncController


class LoggedPool(TrajectoryPool):
    def __init__(self, log, *args, **options):
        super().__init__(*args, **options)
        self._log = log

    def take_batch(self, timeout=None):
        self._log.append("take")
        return super().take_batch(timeout)

    def release(self, group_ids):
        self._log.append("release")
        super().release(group_ids)


class LoggedWeights(WeightSyncController):
    def __init__(self, log):
        super().__init__([], None, timeout=LONG)
        self._log = log

    def publish(self, version):
        self._log.append(f"publish {version}")
        return super().publish(version)


class Run:
    """One attempt at a run; `log` is the order of what the controller did."""

    def __init__(self, run_dir, config, *, attempt=1, answer=None, during=None, slots=None, recorders=None):
        self.run_dir = run_dir
        self.log = []
        self.recipe = config
        prompts = config.data.batch_size
        self.ledger = Ledger(run_dir / "ledger", attempt=attempt)
        self.pool = LoggedPool(
            self.log, config.trajectory_pool, groups_per_batch=prompts, slots=slots or prompts, ledger=self.ledger
        )
        tasks = TaskMaker(config)
        self.service = Service(self.log)
        self.trainer = Trainer(self.service, self.log, during)
        self.recorders = recorders or Recorders()
        self.feeder = Feeder(create_data_loader(config.data), self.pool, tasks, on_error=lambda e: self.fail(e))
        self.validator = None
        if config.validate.data is not None:
            loader = create_data_loader(config.validate.data.loader_config)
            self.validator = Validator(tasks.validation(loader), enqueue=self.pool.enqueue)
        self.events = EventLog(run_dir / "events.jsonl")
        self.bookkeeper = Bookkeeper(
            self.ledger,
            lambda step: StepsWriter(run_dir, attempt=attempt, run_id="test", from_step=step),
            self.recorders,
            timeout=LONG,
            on_error=lambda error: self.fail(error),
        )
        modules = Modules(
            pool=self.pool,
            ledger=self.ledger,
            feeder=self.feeder,
            trainer=self.trainer,
            train_service=self.service,
            weights=LoggedWeights(self.log),
            validator=self.validator,
            checkpoints=Checkpoints(
                run_dir / "checkpoints",
                self.service,
                save_freq=config.trainer.save_freq,
                keep=config.trainer.keep_checkpoints,
                before_publish=self.bookkeeper.flush,
                on_saved=lambda step, path: self.log.append(f"saved {step}"),
            ),
            bookkeeper=self.bookkeeper,
            metrics=MetricLogger([JsonlSink(run_dir / "metrics.jsonl")], total_steps=config.trainer.total_train_steps),
            events=self.events,
            watchdog=StallWatchdog(LONG, describe=self.pool.describe, on_stall=lambda error: self.fail(error)),
            summary=Summary(run_dir),
        )
        self.controller = NexRLController(config, run_dir, modules, attempt=attempt)
        self.rollouts = Rollouts(self.pool, self._answering(answer))

    def fail(self, error):
        self.controller.fail(error)

    def stop(self, exit_code=143):
        self.controller.stop(exit_code)

    def close(self):
        self.pool.close()
        self.rollouts.join()
        self.events.close()
        self.ledger.close()

    def _answering(self, answer):
        def finish(task):
            if answer is not None and answer(self, task):
                return
            if task.is_val:
                self.pool.settle(task.group_id, task.run_ids)
                for run_id in task.run_ids:
                    self.validator.put(result(task, run_id))
            else:
                for one in (result(task, run_id) for run_id in task.run_ids):
                    self.pool.put(one.group_id, one.attempt, one.run_id, one.headers)

        return finish


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "experiment" / "run"
    (folder / "trajectories").mkdir(parents=True)
    return folder


@pytest.fixture
def make(run_dir):
    """Makes attempts: keywords of `recipe`, and of Run."""
    with ExitStack() as stack:

        def make_run(*, attempt=1, answer=None, during=None, slots=None, recorders=None, folder=run_dir, **keys):
            run = Run(
                folder,
                recipe(**keys),
                attempt=attempt,
                answer=answer,
                during=during,
                slots=slots,
                recorders=recorders,
            )
            stack.callback(run.close)
            return run

        yield make_run
