import io
import json

from launch_recipe import small_recipe
from rich.console import Console

from launch.closing import print_closing
from launch.display import create_display
from launch.progress import RunProgress, Tail
from launch.run_folder import claimed_run_folder

WAYS = (
    "validate={data: {data_files: [train.jsonl]}, sampling: {sampled: {temperature: 1.0}, greedy: {temperature: 0.0}}}"
)


def append(path, *records):
    with path.open("a") as file:
        for record in records:
            file.write(json.dumps(record) + "\n")


def console_and_text(**options):
    text = io.StringIO()
    return Console(file=text, width=200, **options), text


def test_tail_reads_whole_lines_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append(path, {"step": 0})
    tail = Tail(path)
    assert tail.read() == []
    with path.open("a") as file:
        file.write('{"step": 1}\nnot json\n[1]\n{"st')
        file.flush()
        assert tail.read() == [{"step": 1}]
        file.write('ep": 2}\n')
    assert tail.read() == [{"step": 2}]
    assert Tail(tmp_path / "gone").read() == []


def test_state_follows_both_files(tmp_path):
    progress = RunProgress(tmp_path)
    assert progress.update().steps == ()
    append(tmp_path / "events.jsonl", {"event": "phase", "name": "training"}, {"event": "checkpoint", "path": "c"}, {})
    append(tmp_path / "metrics.jsonl", {"step": 3, "rollout/reward_mean": None}, {"t": 1})
    progress.update()
    state = progress.state
    assert (state.phase, state.step, state.checkpoint, state.figure("rollout/reward_mean")) == (
        "training",
        3,
        "c",
        None,
    )


def test_plain_output_has_a_line_every_ten_steps(tmp_path):
    console, text = console_and_text()
    with create_display(tmp_path, total_steps=25, console=console) as display:
        append(tmp_path / "events.jsonl", {"event": "phase", "name": "training"})
        append(tmp_path / "events.jsonl", {"event": "validation", "step": 0, "metrics": {"val/greedy_reward": 0.25}})
        append(tmp_path / "events.jsonl", {"event": "error", "role": "rollout-0", "message": "timeout"})
        display.update()
        figures = {"rollout/reward_mean": 0.5, "staleness/max": 0.0, "throughput/tokens_per_s": 1840.2}
        append(tmp_path / "metrics.jsonl", *({"step": n, **figures, "progress/eta_s": 65} for n in range(1, 26)))
        display.say("[odd] text")
    assert text.getvalue().splitlines() == [
        "training …",
        "validation after step 0: greedy_reward 0.250",
        "error: rollout-0: timeout",
        "[odd] text",
        "step 1/25  reward 0.500  staleness 0  1840 tokens/s  ETA 1:05",
        "step 10/25  reward 0.500  staleness 0  1840 tokens/s  ETA 1:05",
        "step 20/25  reward 0.500  staleness 0  1840 tokens/s  ETA 1:05",
        "step 25/25  reward 0.500  staleness 0  1840 tokens/s  ETA 1:05",
    ]


def test_live_display_shows_phase_step_and_figures(tmp_path):
    console, text = console_and_text(force_terminal=True)
    with create_display(tmp_path, total_steps=25, console=console) as display:
        append(tmp_path / "events.jsonl", {"event": "phase", "name": "training"})
        append(tmp_path / "metrics.jsonl", {"step": 7, "rollout/reward_mean": 0.75})
        display.say("hello")
    assert "hello" in text.getvalue()
    assert "training" in text.getvalue()
    assert "7/25" in text.getvalue()
    assert "reward 0.750" in text.getvalue()


def test_closing_table(tmp_path):
    recipe = small_recipe(tmp_path, WAYS)
    console, text = console_and_text()
    summary = {
        "exit_code": 0,
        "before": {"val/sampled_reward": 0.268, "val/greedy_reward": 0.3, "val/greedy_exact_match": 0.3},
        "after": {"val/sampled_reward": 0.956, "val/greedy_reward": 0.98, "val/sampled_num_samples": 512},
        "phases": {"starting": 6.2, "training": 72, "odd": None},
        "paths": {"plot": str(tmp_path / "reward.png")},
    }
    with claimed_run_folder(recipe) as folder:
        (folder.path / "summary.json").write_text(json.dumps(summary))
        print_closing(folder, exit_code=0, recipe=recipe, console=console)
    rows = [line.strip() for line in text.getvalue().splitlines() if line.strip()]
    words = [" ".join(row.split()) for row in rows]
    assert words[:4] == [
        "reward, sampled 0.268 → 0.956",
        "reward, greedy 0.300 → 0.980",
        "exact match, greedy 0.300 → –",
        "wall time starting 0:06, training 1:12",
    ]
    assert "reward.png" in text.getvalue()
    assert words[-1] == "outcome finished (exit code 0)"


def test_closing_of_a_failed_run_says_what_is_left(tmp_path):
    recipe = small_recipe(tmp_path)
    console, text = console_and_text()
    with claimed_run_folder(recipe) as folder:
        (folder.path / "checkpoints" / "step_000100").mkdir(parents=True)
        (folder.path / "checkpoints" / "step_000100" / "READY").touch()
        print_closing(folder, exit_code=7, recipe=recipe, console=console)
    assert "ended with exit code 7 (TrainingError)" in text.getvalue()
    assert "checkpoints/step_000100; logs" in text.getvalue()
    assert f"recipe.yaml --run-dir {folder.path} resume.mode=auto" in text.getvalue()
