"""One record per step, with its phases measured."""

from contextlib import suppress
from dataclasses import dataclass

import pytest

from nexrl.metrics import EventLog, MetricLogger, read_json_lines


@dataclass
class Done:
    step: int


class Recorded:
    """A sink that keeps what it is given."""

    def __init__(self):
        self.records = []
        self.closed = False

    def write(self, record):
        self.records.append(record)

    def close(self):
        self.closed = True


@pytest.fixture
def sink():
    return Recorded()


@pytest.fixture
def metrics(sink):
    return MetricLogger([sink], total_steps=10)


def test_a_step_emits_one_record_with_its_figures(metrics, sink):
    with metrics.step(Done(4)) as step:
        step.log({"rollout/reward_mean": 0.25})
        step.log({"rollout/reward_mean": 0.5, "actor/lr": 2e-4})
        step.count_tokens(300)
        step.count_tokens(200)
    (record,) = sink.records
    assert (record.step, record.kind) == (5, "step")
    assert record.values["rollout/reward_mean"] == 0.5
    assert record.values["actor/lr"] == 2e-4
    seconds = record.values["timing/step"]
    assert record.values["throughput/tokens_per_s"] == pytest.approx(500 / seconds)
    assert record.values["progress/eta_s"] == pytest.approx(5 * seconds)


def test_phases_add_up_within_a_step_and_over_the_run(metrics, sink):
    with metrics.phase("validating"):
        pass
    for done in range(2):
        with metrics.step(Done(done)):
            with metrics.phase("rollout"):
                pass
            with metrics.phase("rollout"):
                pass
    each = [record.values["timing/rollout"] for record in sink.records]
    assert all(0 < value <= record.values["timing/step"] for value, record in zip(each, sink.records, strict=True))
    assert metrics.phase_seconds["rollout"] == pytest.approx(sum(each))
    assert "timing/validating" not in sink.records[0].values
    assert metrics.phase_seconds["validating"] > 0


def test_a_step_that_raises_emits_nothing_and_the_next_one_starts_clean(metrics, sink):
    with suppress(RuntimeError), metrics.step(Done(0)) as step:
        step.log({"actor/lr": 1.0})
        raise RuntimeError("lost")
    assert sink.records == []
    with metrics.step(Done(0)):
        pass
    assert "actor/lr" not in sink.records[0].values


def test_nothing_is_left_after_the_last_step(metrics, sink):
    with metrics.step(Done(9)):
        pass
    assert sink.records[0].values["progress/eta_s"] == 0.0


def test_a_bad_name_is_refused_where_it_is_logged(metrics, sink):
    with pytest.raises(ValueError, match="group/name"), metrics.step(Done(0)) as step:
        step.log({"reward": 1.0})
    assert sink.records == []


def test_validation_goes_to_the_sinks_and_close_reaches_them(metrics, sink):
    metrics.validation(7, {"val/greedy_reward": 0.9})
    metrics.close()
    (record,) = sink.records
    assert (record.kind, record.step, record.values) == ("validation", 7, {"val/greedy_reward": 0.9})
    assert sink.closed


def test_events_are_lines_with_time_and_kind(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    log.append("phase", name="starting")
    log.append("checkpoint", step=100, path=tmp_path / "step_000100")
    log.append("validation", when="end", step=300, metrics={"val/greedy_reward": float("nan")})
    events = list(read_json_lines(tmp_path / "events.jsonl"))
    log.close()
    times = [event.pop("t") for event in events]
    assert times == sorted(times)
    assert events == [
        {"event": "phase", "name": "starting"},
        {"event": "checkpoint", "step": 100, "path": str(tmp_path / "step_000100")},
        {"event": "validation", "when": "end", "step": 300, "metrics": {"val/greedy_reward": None}},
    ]
