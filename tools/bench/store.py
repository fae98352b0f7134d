"""Writing trajectories: the store against h5py's own gzip, on the same records."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import h5py
import numpy as np

from nexrl.store import TrajectoryWriter
from nexrl.types import Trajectory, TrajectoryHeader, Turn, VersionSpan
from tools.bench.facts import make_record
from tools.bench.rows import Detail, Record, Row, text_of

TOKENS = 2048
PROMPT = 256
_LETTERS = 4
"""Bytes of text per token."""
_BYTES = TOKENS * (4 + 1 + 4 + _LETTERS)
"""Token ids, loss mask, log-probs and text of one trajectory."""
_GROUP = 4 * 2**20 // _BYTES
"""Trajectories per commit: 4 MiB, the writer's own default."""
_CHUNK = 32768
_REPETITIONS = 3
_VOCABULARY = 150_000

Writer = Callable[[Path, Sequence[Trajectory]], None]


def measure(*, megabytes: int, folder: Path) -> Record:
    """Write `megabytes` MB of token ids, masks, log-probs and texts in each way, in turn, three times, each to a new
    file. The store writes headers, spans and turns too, and syncs to disk; h5py only flushes."""
    trajectories = sample(max(1, megabytes * 1_000_000 // _BYTES))
    size = len(trajectories) * _BYTES
    ways: dict[str, Writer] = {
        "store": write_store,
        "h5py, gzip 1": lambda path, rows: write_h5py(path, rows, level=1),
        "h5py, gzip 4": lambda path, rows: write_h5py(path, rows, level=4),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    shares: dict[str, float] = {}
    for _ in range(_REPETITIONS):
        for name, write in ways.items():
            path = folder / "written.h5"
            started = time.perf_counter()
            write(path, trajectories)
            seconds[name].append(time.perf_counter() - started)
            shares[name] = path.stat().st_size / size
            path.unlink()
    rates = {name: [size / 1e6 / each for each in values] for name, values in seconds.items()}
    return make_record("store", figures(rates), details=[detail(rates, shares)])


def figures(rates: dict[str, list[float]]) -> list[Row]:
    """Median speeds, and the store's as a multiple of h5py's at its default level. MB: 10⁶ bytes in memory."""
    medians = {name: median(values) for name, values in rates.items()}
    return [
        *(Row(figure=f"{name}, writing", value=value, unit="MB/s") for name, value in medians.items()),
        Row(figure="store ÷ h5py, gzip 4", value=medians["store"] / medians["h5py, gzip 4"], note="ratio of medians"),
    ]


def detail(rates: dict[str, list[float]], shares: dict[str, float]) -> Detail:
    """Every repetition, and what is left on disk of the size in memory."""
    lines = tuple((name, " ".join(text_of(rate) for rate in rates[name]), f"{shares[name]:.2f}") for name in rates)
    return Detail(title="By repetition", columns=("way", "MB/s", "size on disk ÷ in memory"), lines=lines)


def sample(count: int) -> list[Trajectory]:
    """So many trajectories of 2048 tokens: ids as frequent as words are (Zipf), log-probs as spread as a sampler's,
    text of the same length."""
    rng = np.random.default_rng(0)
    mask = (np.arange(TOKENS) >= PROMPT).astype(np.uint8)
    alphabet = np.frombuffer(b"etaoinshrdlu etaoin", dtype=np.uint8)
    return [_trajectory(number, mask, rng, alphabet) for number in range(count)]


def write_store(path: Path, trajectories: Sequence[Trajectory]) -> None:
    """As a recorder does: appended group by group, durable at the end."""
    with TrajectoryWriter(path, node="bench", attempt=1, run_id="bench") as writer:
        for start in range(0, len(trajectories), _GROUP):
            writer.append(trajectories[start : start + _GROUP])


def write_h5py(path: Path, trajectories: Sequence[Trajectory], *, level: int) -> None:
    """As h5py's guide shows it: resizable, chunked, compressed datasets, and an assignment per group."""
    with h5py.File(path, "w", libver="latest") as file:
        datasets = {
            name: file.create_dataset(
                name, (0,), maxshape=(None,), chunks=(_CHUNK,), dtype=dtype, compression="gzip", compression_opts=level
            )
            for name, dtype in (("tokens", "i4"), ("loss_mask", "u1"), ("logprobs", "f4"), ("text", "u1"))
        }
        for start in range(0, len(trajectories), _GROUP):
            group = trajectories[start : start + _GROUP]
            for name, dataset in datasets.items():
                values = _text(group) if name == "text" else np.concatenate([getattr(one, name) for one in group])
                length = dataset.shape[0]
                dataset.resize((length + len(values),))
                dataset[length:] = values
            file.flush()


def _text(group: Sequence[Trajectory]) -> np.ndarray:
    """Prompts and responses as bytes."""
    return np.frombuffer("".join(one.prompt + one.response for one in group).encode(), dtype=np.uint8)


def _trajectory(number: int, mask: np.ndarray, rng: np.random.Generator, alphabet: np.ndarray) -> Trajectory:
    text = rng.choice(alphabet, _LETTERS * TOKENS).tobytes().decode()
    header = TrajectoryHeader(
        trajectory_id=f"0:{number // 8}/{number % 8}.0.0",
        group_id=f"0:{number // 8}",
        task_id=f"row-{number // 8}",
        order=number // 8,
        run_id=number % 8,
        attempt=0,
        sequence=0,
        model_tag="default",
        is_val=False,
        num_tokens=TOKENS,
        num_trained=TOKENS - PROMPT,
        reward=float(rng.integers(0, 2)),
        score={},
        finish_reason="stop",
        version_min=0,
        version_max=0,
        data_source="bench",
        worker="rollout-0@bench",
        seed=number,
        temperature=1.0,
        started=0.0,
        finished=1.0,
        recorder="recorder-0",
    )
    return Trajectory(
        header=header,
        tokens=np.minimum(rng.zipf(1.2, TOKENS), _VOCABULARY - 1).astype(np.int32),
        loss_mask=mask,
        logprobs=(-rng.exponential(0.4, TOKENS) * mask).astype(np.float32),
        spans=(VersionSpan(PROMPT, TOKENS, 0),),
        turns=(Turn(0, PROMPT, "prompt"), Turn(PROMPT, TOKENS, "assistant")),
        prompt=text[: _LETTERS * PROMPT],
        response=text[_LETTERS * PROMPT :],
    )
