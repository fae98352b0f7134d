"""TRL's GRPOTrainer on the demo's task. Runs in TRL's environment, where nothing of ours is installed:

    .venv-trl/bin/python tools/bench/trl_run.py --weights DIR --data TRAIN.parquet --heldout HELDOUT.parquet --out FILE

Writes one JSON object: `points`, each with `step`, `score` (sampled exact match on the held-out words), `seconds`
(training before it, evaluations excluded), and `step_seconds`, one per step.
"""

import argparse
import importlib
import json
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback

EVALUATION_SEED = 99


class Clock(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Counts the seconds of training, and evaluates every so many steps with the clock stopped.

    The clock starts at TRL's `on_train_begin`, so its set-up is free, as our start-up is.
    """

    def __init__(self, evaluate: Any, *, every: int, goal: float) -> None:
        self._evaluate = evaluate
        self._every = every
        self._goal = goal
        self._last = 0.0
        self.step_seconds: list[float] = []
        self.points: list[dict[str, float]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start."""
        self._last = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take the time; evaluate when due; stop at the goal."""
        self.step_seconds.append(time.perf_counter() - self._last)
        if state.global_step % self._every == 0:
            score = self._evaluate()
            self.points.append({"step": state.global_step, "score": score, "seconds": sum(self.step_seconds)})
            print(f"step {state.global_step}: {score:.3f} after {sum(self.step_seconds):.1f} s", flush=True)
            control.should_training_stop = control.should_training_stop or score >= self._goal
        self._last = time.perf_counter()


def exact_match(completions: list[str], ground_truth: list[str], **_: Any) -> list[float]:
    """TRL's reward function: 1 for the right answer, 0 for anything else."""
    return [float(said == right) for said, right in zip(completions, ground_truth, strict=True)]


@torch.no_grad()
def heldout_score(model: Any, tokenizer: Any, rows: dict[str, list[str]], *, max_tokens: int) -> float:
    """Share of held-out prompts answered exactly, each sampled once at temperature 1."""
    training = model.training
    model.eval()
    prompts = tokenizer(rows["prompt"], return_tensors="pt", padding=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(EVALUATION_SEED)
        out = model.generate(
            input_ids=prompts["input_ids"],
            attention_mask=prompts["attention_mask"],
            max_new_tokens=max_tokens,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
        )
    model.train(training)
    answers = tokenizer.batch_decode(out[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
    return sum(exact_match(answers, rows["ground_truth"])) / len(answers)


def configuration(options: argparse.Namespace, folder: Path) -> Any:
    """One optimizer step per batch of prompts x samples, as the demo's recipe has it."""
    batch = options.prompts * options.samples
    # No import statement: the project neither declares nor installs TRL.
    return importlib.import_module("trl").GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=batch,
        generation_batch_size=batch,
        num_generations=options.samples,
        gradient_accumulation_steps=1,
        num_iterations=1,
        max_steps=options.steps,
        learning_rate=options.lr,
        lr_scheduler_type="constant",
        warmup_steps=0,
        optim="adamw_torch",
        weight_decay=0.0,
        max_grad_norm=1.0,
        beta=0.0,
        temperature=1.0,
        max_completion_length=options.max_tokens,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        dataloader_num_workers=0,
        logging_steps=25,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        log_completions=False,
        seed=options.seed,
    )


def parsed() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("weights", "data", "heldout", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("seed", "steps", "every", "threads", "prompts", "samples", "max-tokens"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("lr", "goal"):
        parser.add_argument(f"--{name}", type=float, required=True)
    return parser.parse_args()


def main() -> None:
    """Train until the goal or the last step."""
    options = parsed()
    torch.set_num_threads(options.threads)
    model = AutoModelForCausalLM.from_pretrained(options.weights, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(options.weights, padding_side="left")
    columns = ["prompt", "ground_truth"]
    heldout = pq.read_table(options.heldout, columns=columns).to_pydict()
    data = importlib.import_module("datasets").Dataset(pq.read_table(options.data, columns=columns))
    # TRL trains the very object that it is given.
    clock = Clock(
        lambda: heldout_score(model, tokenizer, heldout, max_tokens=options.max_tokens),
        every=options.every,
        goal=options.goal,
    )
    trainer = importlib.import_module("trl").GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=exact_match,
        args=configuration(options, options.out.parent / "trl"),
        train_dataset=data,
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    options.out.write_text(json.dumps({"points": clock.points, "step_seconds": clock.step_seconds}))


if __name__ == "__main__":
    main()
