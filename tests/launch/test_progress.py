import io
import json

from launch_recipe import small_recipe
from rich.console import Console

from launch.closing import print_closing
from launch.display import create_display
from launch.progress import RunProgress, Tail
from launch.run_folder import claimed_run_folder

WAYS = (
    "validate={data: {data_files: [train.jsonl], max_prompt_length: 8, max_response_length: 8}, "
    "sampling: {sampled: {temperature: 1.0}, greedy: {temperature: 0.0}}}"
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
        failed = {"event": "error", "severity": "warning", "role": "rollout-0", "message": "timeout"}
        append(tmp_path / "events.jsonl", failed, failed, {**failed, "severity": "critical", "message": "gone"})
        display.update()
        figures = {"rollout/reward_mean": 0.5, "staleness/max": 0.0, "throughput/tokens_per_s": 1840.2}
        append(tmp_path / "metrics.jsonl", *({"step": n, **figures, "progress/eta_s": 65} for n in range(1, 26)))
        display.say("[odd] text")
    assert text.getvalue().splitlines() == [
        "training …",
        "validation after step 0: greedy_reward 0.250",
        "warning: rollout-0: timeout",
        "[odd] text",
        "step 1/25  reward 0.500  staleness 0  1840 tokens/s  ETA 1:05",
        "step 10/25  reward 0.500  staleness 0  1840 tokens/s  ETA 1:05",
        "step 20/25  reward 0.500  staleness 0  1840 tokens/s  ETA 1:05",
        "step 25/25  reward 0.500  staleness 0  1840 tokens/s  ETA 1:05",
    ]


def test_plain_output_is_in_the_order_of_time(tmp_path):
    console, text = console_and_text()
    with create_display(tmp_path, total_steps=1, console=console):
        append(
            tmp_path / "events.jsonl",
            {"t": 1.0, "event": "phase", "name": "training"},
            {"t": 3.0, "event": "checkpoint", "step": 1, "path": "here"},
        )
        append(tmp_path / "metrics.jsonl", {"t": 2.0, "step": 1, "rollout/reward_mean": 0.5})
    assert text.getvalue().splitlines() == ["training …", "step 1/1  reward 0.500", "checkpoint here"]


def test_step_lines_tell_what_was_lost_since_the_last(tmp_path):
    console, text = console_and_text()
    with create_display(tmp_path, total_steps=30, console=console):
        lost = {4: {"training/skipped": 1.0}, 5: {"training/skipped": 1.0}}
        append(
            tmp_path / "metrics.jsonl",
            *({"step": n, "pool/dropped": 3.0 if n > 6 else 0.0, **lost.get(n, {})} for n in range(1, 31)),
        )
    assert [line.strip() for line in text.getvalue().splitlines()] == [
        "step 1/30",
        "step 10/30    dropped 3  skipped 2",
        "step 20/30",
        "step 30/30",
    ]


def test_errors_that_a_run_survives_are_shown_sparingly(tmp_path):
    console, text = console_and_text()
    with create_display(tmp_path, total_steps=1, console=console):
        append(
            tmp_path / "events.jsonl",
            *({"event": "error", "severity": "warning", "role": "r", "message": f"m{n}"} for n in range(50)),
        )
    lines = text.getvalue().splitlines()
    assert (len(lines), lines[0], lines[-1]) == (11, "warning: r: m0", "warning: further ones are in events.jsonl")


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
        "before": {
            "val/sampled_reward": 0.268,
            "val/sampled_exact_match": 0.268,
            "val/greedy_reward": 0.3,
            "val/greedy_exact_match": 0.3,
        },
        "after": {
            "val/sampled_reward": 0.956,
            "val/sampled_exact_match": 0.956,
            "val/greedy_reward": 0.98,
            "val/sampled_num_samples": 512,
        },
        "phases": {"starting": 6.2, "training": 72, "odd": None},
        "wall_s": 80.0,
        "dropped": 2,
        "skipped_steps": 0,
        "failed_validation": 1,
        "ended": "data ended after step 1 of 5 (data.epochs)",
        "paths": {"plot": str(tmp_path / "reward.png")},
    }
    with claimed_run_folder(recipe) as folder:
        (folder.path / "summary.json").write_text(json.dumps(summary))
        print_closing(folder, exit_code=0, recipe=recipe, console=console)
    rows = [line.strip() for line in text.getvalue().splitlines() if line.strip()]
    words = [" ".join(row.split()) for row in rows]
    assert words[:7] == [
        "reward, sampled 0.268 → 0.956",
        "reward, greedy 0.300 → 0.980",
        "exact match, greedy 0.300 → –",
        "dropped prompts 2",
        "failed validation samples 1",
        "ended early data ended after step 1 of 5 (data.epochs)",
        "wall time 1:20 (starting 0:06, training 1:12)",
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


def closing_of(folder, recipe, exit_code):
    console, text = console_and_text()
    print_closing(folder, exit_code=exit_code, recipe=recipe, console=console)
    return text.getvalue()


def test_outcome_names_the_error(tmp_path):
    recipe = small_recipe(tmp_path)
    with claimed_run_folder(recipe) as folder:
        (folder.path / "summary.json").write_text('{"error": "TrainingError: loss is nan\\nat step 3"}')
        text = closing_of(folder, recipe, 7)
    assert "ended with exit code 7 (TrainingError): TrainingError: loss is nan at step 3\n" in text


def test_what_to_do_next_depends_on_the_end(tmp_path):
    recipe = small_recipe(tmp_path, f"launch.run_root='{tmp_path}/my runs'")
    with claimed_run_folder(recipe) as folder:
        for code in (2, 3):
            assert "with: " not in closing_of(folder, recipe, code)
        none = closing_of(folder, recipe, 6)
        checkpoint = folder.path / "checkpoints" / "step_000003"
        checkpoint.mkdir(parents=True)
        (checkpoint / "READY").touch()
        some = closing_of(folder, recipe, 6)
    assert "left: no checkpoint" in none
    assert none.endswith(f"start again with: python -m launch.submit '{folder.path}/recipe.yaml'\n")
    assert f"continue with: python -m launch.submit '{folder.path}/recipe.yaml' --run-dir '{folder.path}' " in some


def test_paths_are_whole_where_output_is_no_terminal(tmp_path):
    recipe = small_recipe(tmp_path, f"experiment_name={'long' * 40}")
    text = io.StringIO()
    with claimed_run_folder(recipe) as folder:
        print_closing(folder, exit_code=0, recipe=recipe, console=Console(file=text, width=40))
    assert f"run folder  {folder.path}\n" in text.getvalue()
