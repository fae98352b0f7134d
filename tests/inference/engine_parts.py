"""Tiny models on disk, and what the engine tests share."""

import threading
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from nexrl.inference.embedded import EmbeddedEngine, GenerationRequest
from nexrl.types import SamplingParams

TOKEN = "engine-token"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if tools %}tools: {{ tools | length }}\n{% endif %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_model(folder: Path, architecture: str, *, chat_template: str | None = TEMPLATE) -> Path:
    """A random model with byte-level BPE; 'qwen3' has grouped queries and tied embeddings, 'llama' neither."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the answer is user assistant system"] * 5, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|im_end|>")
    fast.chat_template = chat_template
    sizes = {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2 if architecture == "qwen3" else 4,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "tie_word_embeddings": architecture == "qwen3",
        "eos_token_id": fast.eos_token_id,
        "pad_token_id": fast.pad_token_id,
        "bos_token_id": None,
    }
    torch.manual_seed(0)
    model = (
        Qwen3ForCausalLM(Qwen3Config(**sizes)) if architecture == "qwen3" else LlamaForCausalLM(LlamaConfig(**sizes))
    )
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(4.0)  # a distribution with preferences
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def ask(prompt_ids, *, seeds=(0,), max_tokens=8, temperature=1.0, top_p=1.0, top_k=0, stop=(), **fields):
    """A request; ignores end-of-sequence unless told otherwise, so that lengths are known."""
    sampling = SamplingParams(max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, stop=stop)
    fields.setdefault("ignore_eos", True)
    return GenerationRequest(prompt_ids=list(prompt_ids), sampling=sampling, seeds=tuple(seeds), **fields)


def prompt(number, length=10):
    """Token ids that differ by `number`."""
    generator = torch.Generator().manual_seed(number)
    return torch.randint(3, 300, (length,), generator=generator).tolist()


def forward_logprobs(model, prompt_ids, token_ids, *, temperature=1.0):
    """float32 [len(token_ids)]: what a plain forward of the whole sequence gives."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt_ids, *token_ids]])).logits[0].float() / temperature
    rows = logits[len(prompt_ids) - 1 : -1].log_softmax(-1)
    return rows.gather(1, torch.tensor(token_ids)[:, None])[:, 0].numpy()


def break_model(engine):
    """Give the model a weight that no forward can use."""
    engine.parameters()["model.norm.weight"].data = torch.ones(3)


class Listener:
    """Keeps a request's events; `wait` for the first that satisfies a condition."""

    def __init__(self):
        self.events = []
        self._changed = threading.Condition()

    def __call__(self, event):
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait(self, condition, timeout=60.0):
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.events), timeout), self.events
        return self.events


class FakeReceiver:
    """A WeightReceiver that adds `shift` to every weight, or fails."""

    def __init__(self, engine: EmbeddedEngine, *, shift: float = 0.02) -> None:
        self._engine = engine
        self._shift = shift
        self.joined = []
        self.error: Exception | None = None

    def join(self, **where):
        self.joined.append(where)

    def receive(self, *, version):
        if self.error is not None:
            raise self.error
        generator = torch.Generator().manual_seed(version)
        with torch.no_grad():
            for weight in self._engine.parameters().values():
                weight.add_(torch.randn(weight.shape, generator=generator) * self._shift)
        self._engine.commit(version)
