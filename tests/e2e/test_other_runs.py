"""Runs that are not plain GRPO: an agent with tools, demonstrations, a stage, a mock train service."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from e2e_forward import largest_difference
from e2e_models import CALL, write_agent_model
from e2e_runs import HERE, ROOT, TINY, Launch, run, start_command, trajectories_tool
from transformers import AutoTokenizer

from nexrl.store import StepsReader, TrajectoryReader

pytestmark = [pytest.mark.processes, pytest.mark.slow]

RECIPES = ROOT / "recipes" / "reverse"


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    """A policy that may look a digit up before it answers."""
    data = tmp_path_factory.mktemp("data") / "questions.jsonl"
    data.write_text("".join(f'{{"prompt": "{number}?", "ground_truth": "7"}}\n' for number in (7, 8, 9, 77, 78, 79)))
    return run(
        tmp_path_factory.mktemp("agent") / "run",
        write_agent_model(tmp_path_factory.mktemp("agent_model")),
        f"data.data_files=[{data}]",
        "data.rollout_repeat_n=8",
        "data.max_prompt_length=64",
        "data.max_response_length=12",
        "service.inference_service.max_model_len=96",
        "rollout_worker={type: agent, max_turns: 3, max_sequence_length: 90, "
        f"evaluator: '{HERE}/e2e_tools.py:SaysSeven', agent_args: {{tools: '{HERE}/e2e_tools.py:TOOLS'}}}}",
        "trainer.total_train_steps=25",
        "validate.data=null",
    )


def test_agent_learns(agent):
    rewards = [step["rollout/reward_mean"] for step in agent.steps]
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.1
    assert agent.steps[0]["rollout/right"] < 1


def test_agent_trains_only_on_what_it_said(agent):
    tokenizer = AutoTokenizer.from_pretrained(agent.folder / "hf")
    with TrajectoryReader(agent.folder) as reader:
        several = [one for one in reader if len(one.turns) > 2]
    assert len(several) > 10
    for one in several:
        said_again = ["tool", "assistant"] * (len(one.turns) // 2 - 1)
        assert [turn.role for turn in one.turns] == ["prompt", "assistant", *said_again]
        for turn in one.turns:
            assert set(one.loss_mask[turn.start : turn.end]) == {int(turn.role == "assistant")}
        said, heard = (tokenizer.decode(one.tokens[turn.start : turn.end]) for turn in one.turns[1:3])
        assert CALL in said
        assert heard.removeprefix("<end>").startswith("<t>7<end>")
        assert heard.endswith("<a>")
    assert trajectories_tool("check", agent.folder).returncode == 0


def test_every_turn_was_sampled_under_the_recorded_context(agent):
    with StepsReader(agent.folder) as steps, TrajectoryReader(agent.folder) as reader:
        trained = steps.columns()
        names = trained["trajectory_id"][trained["step"] == 1]
        first = [reader.read(name) for name in names]
    assert any(len(one.turns) > 2 for one in first)
    start = next(path for path in agent.folder.parent.parent.glob("agent_model*"))
    assert largest_difference(start, first) < 1e-4


@pytest.fixture(scope="module")
def staged(model, tmp_path_factory):
    """GRPO after a short supervised stage, started twice with one cache."""
    folder = tmp_path_factory.mktemp("staged")
    for name in ("sft.yaml", "sft.parquet"):
        shutil.copy(RECIPES / name, folder)
    (folder / "short.yaml").write_text(
        "defaults: [sft, _self_]\n"
        "trainer: {total_train_steps: 30}\n"
        f"service: {{train_service: {{main_actor: {{actor: {{model: {{path: {model}, init: pretrained}}}}}}}}}}\n"
    )
    stage = f"{{recipe: {folder}/short.yaml, cache: {folder}/cache}}"
    arguments = [
        str(TINY), f"initial_stage={stage}", f"launch.run_root={folder}/runs", "trainer.total_train_steps=2"
    ]  # fmt: skip
    launches = []
    for name in ("first", "second"):
        launch = start_command(folder / name, *arguments)
        assert launch.wait() == 0, launch.text
        launches.append(launch)
    return launches


def runs_of(launch, experiment):
    return [line for line in launch.text.splitlines() if line.startswith(f"{experiment}: ")]


def test_stage_runs_once(staged):
    first, second = staged
    assert len(runs_of(first, "reverse-sft")) == 1
    assert len(runs_of(second, "reverse-sft")) == 0
    assert len(runs_of(first, "tiny")) == len(runs_of(second, "tiny")) == 1


def test_supervised_stage_learns_without_an_engine(staged):
    first = staged[0]
    [line] = runs_of(first, "reverse-sft")
    stage = Launch(process=first.process, output=first.output, folder=Path(line.split()[1].rstrip(",")))
    assert {event["role"] for event in stage.events("role")} == {"recorder", "rollout", "trainer"}
    losses = [step["actor/policy_loss"] for step in stage.steps]
    assert len(losses) == 30
    assert losses[-1] < losses[0] - 0.3
    assert stage.audit.is_settled
    with TrajectoryReader(stage.folder) as reader:
        assert set(reader.headers()["finish_reason"]) == {"supervised"}


def test_mock_train_service_trains_nothing(model, tmp_path):
    launch = run(
        tmp_path / "run",
        model,
        "trainer.total_train_steps=3",
        "trainer.export_hf=false",
        "service.train_service.main_actor.backend=mock",
    )
    assert {event["role"] for event in launch.events("role")} == {"recorder", "rollout", "inference"}
    assert len(launch.steps) == 3
    assert launch.audit.is_settled
