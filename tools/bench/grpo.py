"""Our loop against TRL's GRPOTrainer: seconds of training until the demo's model answers well enough."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import msgspec

from nexrl.config import load_recipe
from nexrl.errors import RoleError
from tools.bench.facts import ROOT, make_record
from tools.bench.rows import Detail, Record, Row, at_most, text_of
from tools.bench.runs import GRPO_RECIPE, MODEL_KEY, events_of, run_to_end, steps_of
from tools.bench.time_to_goal import Evaluation, Point, StepTime, curve, first_at, median_seconds, ratio

TRL_ENVIRONMENT = ROOT / ".venv-trl"
WAITING = {
    "sleeping threads": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"},
    "threads as OpenMP has them": {},
}
"""How compute threads wait for work. The launcher lets ours sleep, being many processes; TRL, one process, gets the
better of the two for it."""
_TRIAL_STEPS = 20
SCORE = "val/sampled_exact_match"

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Contest:
    """What both sides are given."""

    weights: Path
    goal: float
    """Sampled exact match on the held-out words."""
    steps: int
    """Given up after so many."""
    every: int
    """Steps between evaluations."""
    threads: int
    folder: Path
    """For run folders and logs."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One side with one seed."""

    side: str
    seed: int
    points: tuple[Point, ...]
    """Evaluations, the one before training left out."""
    step_seconds: tuple[float, ...]

    def reached(self, goal: float) -> Point | None:
        """The first evaluation at the goal."""
        return first_at(self.points, goal)


class _TrlResult(msgspec.Struct, frozen=True):
    points: list[Point]
    step_seconds: list[float]


def compare(contest: Contest, seeds: Sequence[int], say: Say) -> Record:
    """Both sides in turn for every seed, on the same cores, and the figures."""
    subprocess.run([sys.executable, ROOT / "tools" / "environment.py", "trl", TRL_ENVIRONMENT], check=True)
    waiting = better_waiting(contest, say)
    outcomes = []
    for seed in seeds:
        outcomes.append(run_ours(contest, seed))
        say(_line(outcomes[-1], contest.goal))
        outcomes.append(run_trl(contest, seed, WAITING[waiting]))
        say(_line(outcomes[-1], contest.goal))
    return make_record(
        "grpo",
        figures(outcomes, contest.goal, trl_note=waiting),
        details=[detail(outcomes, contest)],
        environments=[TRL_ENVIRONMENT],
    )


def run_ours(contest: Contest, seed: int) -> Outcome:
    """The demo's recipe through the launcher, ended by Ctrl-C at the goal."""
    run_dir = contest.folder / f"ours-{seed}"
    arguments = [
        str(GRPO_RECIPE),
        "initial_stage.recipe=",
        f"{MODEL_KEY}={contest.weights}",
        f"data.seed={seed}",
        f"trainer.total_train_steps={contest.steps}",
        f"validate.validate_freq={contest.every}",
        *(f"launch.groups.{group}.threads={contest.threads}" for group in ("trainer", "inference")),
        "--run-dir",
        str(run_dir),
    ]
    log = contest.folder / f"ours-{seed}.log"
    run_to_end(arguments, log=log, watch=lambda _: any(e.score >= contest.goal for e in _trained_scores(run_dir)))
    steps = [
        StepTime(step=line["step"], seconds=line["timing/step"], rollout=line["timing/rollout"])
        for line in steps_of(run_dir)
    ]
    points = [point for point in curve(steps, _scores(run_dir)) if point.step > 0]
    return Outcome(side="ours", seed=seed, points=tuple(points), step_seconds=tuple(step.seconds for step in steps))


def better_waiting(contest: Contest, say: Say) -> str:
    """The name in WAITING under which TRL's median step is shorter, by a short run of each."""
    trial = replace(contest, steps=_TRIAL_STEPS, every=_TRIAL_STEPS, folder=contest.folder / "trial")
    steps = {name: median(run_trl(trial, 0, said).step_seconds) for name, said in WAITING.items()}
    say("TRL's step: " + ", ".join(f"{text_of(seconds, 's')} with {name}" for name, seconds in steps.items()))
    return min(steps, key=steps.__getitem__)


def run_trl(contest: Contest, seed: int, waiting: Mapping[str, str]) -> Outcome:
    """tools/bench/trl_run.py in TRL's environment, with the values of the demo's recipe; `waiting` is of WAITING."""
    out, log = contest.folder / f"trl-{seed}.json", contest.folder / f"trl-{seed}.log"
    recipe = load_recipe(GRPO_RECIPE, []).recipe
    options = {
        "weights": contest.weights,
        "data": recipe.data.data_files[0],
        "heldout": recipe.validate.data.data_files[0] if recipe.validate.data else "",
        "out": out,
        "seed": seed,
        "steps": contest.steps,
        "every": contest.every,
        "goal": contest.goal,
        "threads": contest.threads,
        "prompts": recipe.data.batch_size,
        "samples": recipe.data.rollout_repeat_n,
        "max-tokens": recipe.data.max_response_length,
        "lr": recipe.service.actor_service.actor.optim.lr,
    }
    command = [TRL_ENVIRONMENT / "bin" / "python", ROOT / "tools" / "bench" / "trl_run.py"]
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(contest.threads)}
    inherited = {name: value for name, value in os.environ.items() if name not in WAITING["sleeping threads"]}
    environment = {**inherited, **offline, **waiting}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        done = subprocess.run([*command, *flags], env=environment, stdout=output, stderr=output, check=False)
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RoleError(f"TRL ended with exit code {done.returncode}; the end of {log}:\n{tail}")
    result = msgspec.json.decode(out.read_bytes(), type=_TrlResult)
    return Outcome(side="TRL", seed=seed, points=tuple(result.points), step_seconds=tuple(result.step_seconds))


def figures(outcomes: Sequence[Outcome], goal: float, *, trl_note: str) -> list[Row]:
    """Medians over seeds of both sides, and ours as a share of theirs."""
    rows, seconds = [], {}
    for side in ("ours", "TRL"):
        mine = [outcome for outcome in outcomes if outcome.side == side]
        reached = [outcome.reached(goal) for outcome in mine]
        seconds[side] = median_seconds(reached)
        never = sum(point is None for point in reached)
        rows.append(
            Row(
                figure=f"{side}: training to {goal:g} sampled exact match",
                value=seconds[side],
                unit="s",
                note=f"median of {len(mine)} seeds" + (f", {never} never" if never else ""),
            )
        )
        each = [second for outcome in mine for second in outcome.step_seconds]
        note = "median of all steps" + (f"; {trl_note}" if side == "TRL" else "")
        rows.append(Row(figure=f"{side}: one step", value=median(each), unit="s", note=note))
    share = ratio(seconds["ours"], seconds["TRL"])
    rows.append(Row(figure="ours ÷ TRL, time to the score", value=share, target=at_most(0.5), note="aim: a third"))
    return rows


def detail(outcomes: Sequence[Outcome], contest: Contest) -> Detail:
    """Every seed of both sides."""
    lines = []
    for outcome in sorted(outcomes, key=lambda outcome: outcome.seed):
        reached = outcome.reached(contest.goal)
        lines.append(
            (
                str(outcome.seed),
                outcome.side,
                str(reached.step) if reached else f"not in {contest.steps}",
                text_of(reached.seconds if reached else None, "s"),
                text_of(median(outcome.step_seconds), "s"),
                " ".join(f"{point.score:.3f}" for point in outcome.points),
            )
        )
    scores = f"exact match every {contest.every} steps"
    return Detail(title="By seed", columns=("seed", "side", "steps", "time", "step", scores), lines=tuple(lines))


def _scores(run_dir: Path) -> list[Evaluation]:
    return [Evaluation(step=event["step"], score=event["metrics"][SCORE]) for event in events_of(run_dir, "validation")]


def _trained_scores(run_dir: Path) -> list[Evaluation]:
    return [evaluation for evaluation in _scores(run_dir) if evaluation.step > 0]


def _line(outcome: Outcome, goal: float) -> str:
    reached = outcome.reached(goal)
    best = max((point.score for point in outcome.points), default=0.0)
    told = f"{reached.seconds:.1f} s, {reached.step} steps" if reached else f"never, best {best:.3f}"
    return f"seed {outcome.seed}, {outcome.side}: {told}"
