import pytest
from trainer_parts import RecordingService, advantages, group, group_of, header, recipe

from nexrl.errors import ConfigError, TrainingError
from nexrl.trainers import (
    SelfHostedCrossEntropyTrainer,
    SelfHostedGrpoTrainer,
    SelfHostedTrainer,
    create_trainer,
)

CUSTOM = """\
from nexrl.trainers import SelfHostedTrainer
from nexrl.types import BatchRow


class RewardAsAdvantage(SelfHostedTrainer):
    def _prepare_batch(self, groups, *, step):
        rows = [
            [BatchRow(h.trajectory_id, h.recorder, h.num_tokens, h.num_trained, h.reward) for h in group.headers]
            for group in groups
        ]
        return self.plan(groups, rows, step=step, metrics={"critic/own": 1.0})


class Incomplete(SelfHostedTrainer):
    pass


class NoTrainer:
    pass
"""


@pytest.fixture
def custom(tmp_path):
    file = tmp_path / "trainers.py"
    file.write_text(CUSTOM)
    return file


def test_every_trained_token_of_a_demonstration_counts_alike():
    service = RecordingService()
    trainer = SelfHostedCrossEntropyTrainer(recipe(kind="self_hosted_cross_entropy"), service)
    headers = [header("b", 0, reward=0.0, version=-1), header("b", 1, num_trained=0, version=-1)]
    report = trainer.train([group("a", [1.0], version=-1), group_of("b", headers)], step=1)
    assert advantages(report.batch) == {"a/0.0.0": 1.0, "b/0.0.0": 1.0}
    assert report.batch.group_ids == ("a", "b")
    assert service.batches == [report.batch]
    assert report.metrics["rollout/reward_mean"] == pytest.approx(1 / 3)


def test_mini_batches_of_demonstrations():
    config = recipe(kind="self_hosted_cross_entropy", ppo_mini_batch_size=2)
    groups = [group(name, [1.0], version=-1) for name in "abcd"]
    report = SelfHostedCrossEntropyTrainer(config, RecordingService()).train(groups, step=1)
    assert [mini.global_sequences for mini in report.batch.shards[0].mini_batches] == [2, 2]


def test_demonstrations_that_hold_nothing_to_learn_are_skipped():
    service = RecordingService()
    trainer = SelfHostedCrossEntropyTrainer(recipe(kind="self_hosted_cross_entropy"), service)
    report = trainer.train([group("a", [1.0], num_trained=0)], step=1)
    assert report.skipped
    assert service.calls == []


def test_the_service_is_made_ready_in_order():
    service = RecordingService()
    SelfHostedGrpoTrainer(recipe(), service).initialize_workers()
    assert service.calls == ["initialize_worker", "init_model"]


def test_figures_of_the_service_go_under_actor_unless_they_have_a_group():
    service = RecordingService(metrics={"loss": 0.5, "actor/grad_norm": 2.0, "timing/training/update_actor": 0.1})
    report = SelfHostedGrpoTrainer(recipe(), service).train([group("a", [1, 0])], step=2)
    assert report.metrics["actor/loss"] == 0.5
    assert report.metrics["actor/grad_norm"] == 2.0
    assert report.metrics["timing/training/update_actor"] == 0.1
    assert report.metrics["training/global_step"] == 2.0
    assert report.metrics["training/num_rows"] == 2.0
    assert report.metrics["training/skipped"] == 0.0
    assert all("/" in name for name in report.metrics)


def test_a_failed_update_is_raised():
    class Failing(RecordingService):
        def update_actor(self, batch):
            raise TrainingError(f"trainer-1: update_actor: non-finite loss in step {batch.step}")

    with pytest.raises(TrainingError, match="trainer-1: update_actor: non-finite loss in step 4"):
        SelfHostedGrpoTrainer(recipe(), Failing()).train([group("a", [1, 0])], step=4)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("self_hosted_grpo", SelfHostedGrpoTrainer),
        ("self_hosted_cross_entropy", SelfHostedCrossEntropyTrainer),
    ],
)
def test_the_type_says_which_trainer(kind, expected):
    assert type(create_trainer(recipe(kind=kind), RecordingService())) is expected


def test_a_class_of_ones_own(custom):
    service = RecordingService()
    trainer = create_trainer(recipe(custom_class=f"{custom}:RewardAsAdvantage"), service)
    assert isinstance(trainer, SelfHostedTrainer)
    report = trainer.train([group("a", [0.25, 0.75])], step=1)
    assert advantages(service.batches[0]) == {"a/0.0.0": 0.25, "a/1.0.0": 0.75}
    assert report.metrics["critic/own"] == 1.0
    assert report.metrics["rollout/reward_mean"] == 0.5


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Incomplete", "lacks _prepare_batch"),
        ("NoTrainer", "needs a subclass of nexrl.trainers.self_hosted.SelfHostedTrainer"),
        ("Missing", "has no 'Missing'"),
    ],
)
def test_a_class_that_is_no_trainer(custom, name, said):
    with pytest.raises(ConfigError, match=said):
        create_trainer(recipe(custom_class=f"{custom}:{name}"), RecordingService())
