"""A tokenizer of single characters, an engine that answers from a script, and tasks."""

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from nexrl.config.schema import RolloutWorkerConfig
from nexrl.evaluators import EvaluationRunResult, Evaluator
from nexrl.rollout import RolloutContext
from nexrl.types import Completion, SamplingParams, Task, VersionSpan

PAD, EOS = 0, 1
MARKS = ["<pad>", "<eos>", "<s>", "<u>", "<a>", "<t>", "<?>"]
TEMPLATE = (
    "{% if tools %}<s>{% for tool in tools %}{{ tool['function']['name'] }};{% endfor %}<eos>{% endif %}"
    "{% for message in messages %}<{{ message['role'][0] }}>{{ message['content'] }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)
"""`<u>question<eos><a>reply<eos><t>result<eos><a>`"""
FORGETFUL = TEMPLATE.replace("message['content']", "message['content'].split('|')[-1]")
"""Leaves what stands before a bar out of the history, as templates of reasoning models do."""


def make_tokenizer(template=TEMPLATE):
    letters = [chr(code) for code in range(32, 127)]
    vocabulary = {token: index for index, token in enumerate([*MARKS, *letters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<?>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(MARKS)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
    fast.chat_template = template
    return fast


class ScriptedEngine:
    """Says `replies` one after the other, each ended by the end-of-sequence token where there is room for it.

    Token i of a reply has log-prob -(i + 1) and weight version `version`.
    """

    def __init__(self, tokenizer, replies, version=3):
        self._tokenizer = tokenizer
        self._replies = iter(replies)
        self.version = version
        self.prompts = []
        self.samplings = []
        self.seeds = []

    def generate(self, prompt_ids, *, sampling, seeds):
        self.prompts.append(self._tokenizer.decode(prompt_ids))
        self.samplings.append(sampling)
        self.seeds.append(list(seeds))
        return [self._complete(tuple(prompt_ids), next(self._replies), sampling) for _ in seeds]

    def _complete(self, prompt_ids, reply, sampling):
        ids = (*self._tokenizer.encode(reply, add_special_tokens=False), EOS)[: sampling.max_tokens]
        return Completion(
            prompt_ids=prompt_ids,
            token_ids=ids,
            logprobs=tuple(-float(i + 1) for i in range(len(ids))),
            spans=(VersionSpan(0, len(ids), self.version),),
            text=self._tokenizer.decode(ids, skip_special_tokens=True),
            finish_reason="stop" if ids[-1] == EOS else "length",
        )


class Length(Evaluator):
    """Reward: letters of the answer."""

    def __init__(self):
        self.targets = []

    def evaluate(self, data, evaluation_target):
        self.targets.append(evaluation_target)
        return EvaluationRunResult(reward=len(evaluation_target.final_answer), metrics={"half": 0.5})


def context(tokenizer, client, *, evaluator=None, **config):
    """`config` are keys of RolloutWorkerConfig."""
    return RolloutContext(
        config=RolloutWorkerConfig(**config),
        tokenizer=tokenizer,
        evaluator=evaluator or Length(),
        client=client,
        name="rollout-0@here",
    )


def task(prompt="ab", *, name="a", samples=1, attempt=0, max_tokens=40, fields=None, **others):
    return Task(
        task_id=name,
        group_id=f"{name}@0",
        order=5,
        run_ids=tuple(range(samples)),
        attempt=attempt,
        is_val=others.pop("is_val", False),
        prompt=prompt,
        ground_truth=others.pop("ground_truth", "ba"),
        data_source="words",
        seed=7,
        sampling=SamplingParams(max_tokens=max_tokens, temperature=0.7),
        fields=fields or {},
        **others,
    )


def pieces(trajectory, tokenizer):
    """(role, text, whether it is trained) of every turn."""
    found = []
    for turn in trajectory.turns:
        mask = set(trajectory.loss_mask[turn.start : turn.end].tolist())
        assert len(mask) == 1, "a turn is trained as a whole or not at all"
        found.append((turn.role, tokenizer.decode(trajectory.tokens[turn.start : turn.end].tolist()), mask == {1}))
    return found
