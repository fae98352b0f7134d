"""How long training took, from what runs recorded."""

import pytest

from tools.bench.time_to_goal import (
    Evaluation,
    Point,
    StepTime,
    charged_seconds,
    curve,
    first_at,
    median_seconds,
    ratio,
)


def steps(*pairs):
    return [StepTime(step=n, seconds=seconds, rollout=rollout) for n, (seconds, rollout) in enumerate(pairs, 1)]


def point(seconds, score=1.0):
    return Point(step=25, score=score, seconds=seconds)


RUN = steps((0.9, 0.0), (0.3, 0.1), (0.2, 0.0), (0.4, 0.2), (0.5, 0.3))


def test_a_step_after_an_evaluation_is_charged_the_rollout_that_it_had_for_nothing():
    # Evaluated before step 1 and after step 2: steps 1 and 3 are charged the median of 0.1, 0.2 and 0.3.
    assert charged_seconds(RUN, evaluated_after={0, 2}) == pytest.approx([1.1, 0.3, 0.4, 0.4, 0.5])


def test_a_step_after_an_evaluation_that_waited_longer_than_the_median_keeps_its_time():
    assert charged_seconds(steps((1.0, 0.9), (0.3, 0.1)), evaluated_after={0}) == pytest.approx([1.0, 0.3])


def test_nothing_is_charged_where_no_step_shows_what_a_rollout_takes():
    assert charged_seconds(steps((1.0, 0.0)), evaluated_after={0}) == [1.0]


def test_the_curve_counts_training_up_to_each_evaluation_and_nothing_of_the_evaluations():
    evaluations = [Evaluation(step=0, score=0.3), Evaluation(step=2, score=0.6), Evaluation(step=5, score=0.95)]
    points = curve(RUN, evaluations)
    assert [(p.step, p.score) for p in points] == [(0, 0.3), (2, 0.6), (5, 0.95)]
    assert [p.seconds for p in points] == pytest.approx([0.0, 1.4, 2.7])


def test_the_first_evaluation_at_the_goal_counts_even_if_a_later_one_falls_below():
    points = [point(1, 0.5), point(2, 0.92), point(3, 0.8), point(4, 0.99)]
    assert first_at(points, 0.92) == points[1]
    assert first_at(points, 0.995) is None


def test_a_run_that_never_came_counts_as_the_slowest():
    assert median_seconds([point(30), point(10), point(20)]) == 20
    assert median_seconds([point(30), None, point(20)]) == 30
    assert median_seconds([None, None, point(20)]) is None


def test_the_ratio_needs_both():
    assert ratio(30, 90) == pytest.approx(1 / 3)
    assert ratio(None, 90) is None
    assert ratio(30, None) is None
