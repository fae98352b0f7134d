"""The reward plot, from the two files of a run folder."""

import pytest
from matplotlib.image import imread

from nexrl.metrics import EventLog, JsonLines, plot_run
from nexrl.metrics.plot import latest_steps, moving_average


def write_run(run_dir, rewards):
    lines = JsonLines(run_dir / "metrics.jsonl")
    for number, reward in enumerate(rewards, 1):
        lines.append({"step": number, "rollout/reward_mean": reward, "staleness/max": 0, "actor/entropy_loss": 1.0})
    lines.close()


def test_the_plot_is_a_picture_and_shows_the_rewards(tmp_path):
    rising, flat = tmp_path / "a", tmp_path / "b"
    for run_dir, rewards in ((rising, [n / 50 for n in range(50)]), (flat, [0.5] * 50)):
        write_run(run_dir, rewards)
    pictures = [imread(plot_run(run_dir, tmp_path / f"{run_dir.name}.png")) for run_dir in (rising, flat)]
    assert pictures[0].shape == pictures[1].shape
    assert pictures[0].shape[0] >= 600
    assert (pictures[0] != pictures[1]).any()


def test_validation_points_are_drawn(tmp_path):
    write_run(tmp_path, [0.1, None, 0.3])
    without = imread(plot_run(tmp_path))
    log = EventLog(tmp_path / "events.jsonl")
    log.append("phase", name="validating")
    log.append("validation", when="before", step=0, metrics={"val/sampled_reward": 0.2, "val/num_samples": 512})
    log.append("validation", when="end", step=3, metrics={"val/sampled_reward": 0.9, "val/greedy_reward": None})
    log.close()
    assert (imread(plot_run(tmp_path)) != without).any()


def test_a_run_without_a_step_still_has_a_plot_and_no_part_is_left(tmp_path):
    assert plot_run(tmp_path) == tmp_path / "reward.png"
    assert [path.name for path in tmp_path.iterdir()] == ["reward.png"]


def test_of_a_repeated_step_the_last_line_counts():
    lines = [{"step": 1, "v": 1}, {"step": 2, "v": 2}, {"step": 3, "v": 3}, {"step": 2, "v": 20}]
    assert latest_steps(lines) == [{"step": 1, "v": 1}, {"step": 2, "v": 20}, {"step": 3, "v": 3}]


@pytest.mark.parametrize(("window", "means"), [(1, [1.0, 2.0, 6.0]), (2, [1.0, 1.5, 4.0]), (9, [1.0, 1.5, 3.0])])
def test_moving_average(window, means):
    assert moving_average([1.0, 2.0, 6.0], window) == means
