"""Figures made of recorded runs: the demo's, and ours beside TRL's."""

import json
import os
from dataclasses import dataclass

import psutil
import pytest

from tools.bench.demo import DemoRun, figures
from tools.bench.grpo import Contest, Outcome, detail
from tools.bench.grpo import figures as contest_figures
from tools.bench.memory import family_of, summed_pss
from tools.bench.runs import events_of, only_run, steps_of
from tools.bench.time_to_goal import Point

GOAL = 0.92


def outcome(side, seed, *scores, step=0.1):
    points = [Point(step=25 * n, score=score, seconds=25 * n * step) for n, score in enumerate(scores, 1)]
    return Outcome(side=side, seed=seed, points=tuple(points), step_seconds=(step,) * (25 * len(scores)))


OUTCOMES = [
    outcome("ours", 0, 0.5, 0.93),
    outcome("TRL", 0, 0.5, 0.9, 0.94, step=0.4),
    outcome("ours", 1, 0.92),
    outcome("TRL", 1, 0.5, 0.8, step=0.4),
    outcome("ours", 2, 0.5, 0.6, 0.95),
    outcome("TRL", 2, 0.5, 0.93, step=0.4),
]


def test_the_contest_is_told_by_medians_and_their_ratio():
    rows = {row.figure: row for row in contest_figures(OUTCOMES, GOAL, trl_note="sleeping threads")}
    assert rows["ours: training to 0.92 sampled exact match"].value == pytest.approx(5.0)  # of 5.0, 2.5 and 7.5
    theirs = rows["TRL: training to 0.92 sampled exact match"]
    assert theirs.value == pytest.approx(30.0)  # of 30, never and 20
    assert "1 never" in theirs.note
    assert rows["ours: one step"].value == pytest.approx(0.1)
    assert rows["TRL: one step"].note == "median of all steps; sleeping threads"
    share = rows["ours ÷ TRL, time to the score"]
    assert share.value == pytest.approx(5 / 30)
    assert share.verdict == "met"


def test_no_ratio_where_most_runs_never_came():
    outcomes = [outcome("ours", 0, 0.95), outcome("TRL", 0, 0.5)]
    share = contest_figures(outcomes, GOAL, trl_note="")[-1]
    assert (share.value, share.verdict) == (None, "missed")


def test_the_table_has_every_seed_of_both_sides(tmp_path):
    contest = Contest(weights=tmp_path, goal=GOAL, steps=400, every=25, threads=2, folder=tmp_path)
    lines = detail(OUTCOMES, contest).lines
    assert [line[:4] for line in lines[2:4]] == [
        ("1", "ours", "25", "2.5 s"),
        ("1", "TRL", "not in 400", "never"),
    ]
    assert lines[0][5] == "0.500 0.930"


def test_the_demo_is_held_to_its_promises():
    run = DemoRun(wall=310, before=0.28, after=0.95, first_step=12, peak_bytes=3 * 2**30, processes=7)
    rows = figures(run)
    assert [row.verdict for row in rows] == ["missed", "met", "met", "met", "met"]
    assert rows[4].value == pytest.approx(3.0)


@dataclass
class Process:
    """What psutil tells of a process, or how it fails to."""

    pss: int = 0
    error: Exception | None = None

    def memory_full_info(self):
        if self.error:
            raise self.error
        return self


def test_memory_is_the_sum_over_the_processes_that_can_be_seen():
    gone, closed = Process(error=psutil.NoSuchProcess(1)), Process(error=psutil.AccessDenied(2))
    assert summed_pss([Process(100), gone, Process(23), closed]) == 123


def test_a_process_is_its_own_family_and_takes_memory():
    family = family_of(os.getpid())
    assert family[0].pid == os.getpid()
    assert summed_pss(family[:1]) > 2**20


def write_lines(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_run_is_read_by_steps_and_events(tmp_path):
    write_lines(tmp_path / "metrics.jsonl", {"step": 1, "timing/step": 0.5}, {"step": 1, "val/sampled_reward": 0.3})
    write_lines(tmp_path / "events.jsonl", {"event": "phase", "name": "training"}, {"event": "done", "exit_code": 0})
    assert [line["step"] for line in steps_of(tmp_path)] == [1]
    assert events_of(tmp_path, "done") == [{"event": "done", "exit_code": 0}]


def test_the_only_run_of_an_experiment_is_found_and_two_are_refused(tmp_path):
    (tmp_path / "reverse-sft" / "a").mkdir(parents=True)
    (tmp_path / "reverse-sft" / "a" / "recipe.yaml").touch()
    assert only_run(tmp_path, "reverse-sft") == tmp_path / "reverse-sft" / "a"
    with pytest.raises(Exception, match=r"reverse-grpo: found 0 runs, needed one"):
        only_run(tmp_path, "reverse-grpo")


def test_weights_and_seeds_are_checked_before_anything_starts(tmp_path):
    from nexrl.errors import ConfigError
    from tools.bench.__main__ import model_folder, parse_seeds

    assert parse_seeds("0, 1,2") == [0, 1, 2]
    with pytest.raises(ConfigError, match=r"--seeds: found '0,x'"):
        parse_seeds("0,x")
    with pytest.raises(ConfigError, match=r"--weights: .* is no model folder"):
        model_folder(tmp_path)
