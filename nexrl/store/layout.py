"""The datasets of a trajectory file and of a steps file, as data: docs/trajectory-format.md says the same in words.

Two kinds of dataset, both one-dimensional and created before SWMR writing starts:

- a *packed* dataset has one element per row and no filter: its last chunk grows in place, so row i is row i;
- a *stream* is compressed and only ever appended to, whole chunks at a time: every commit starts on a new chunk, so a
  chunk that was written once is never touched again. What belongs to row i is `first[i] : first[i] + count[i]`.

Text is UTF-8 in a stream of bytes; a column that refers to it holds the number of the text. Variable-length strings are
not used: their heap is not safe under SWMR.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nexrl.errors import StoreError

FORMAT_VERSION = 1
PACKED_CHUNK = 1024
"""Elements per chunk of a packed dataset."""
STREAM_CHUNK = 32768
"""Elements per chunk of a stream: 128 KiB of token ids."""
FOLDER = "trajectories"
STEPS_STEM = "steps"

TextTable = Literal["names", "texts"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One dataset."""

    path: str
    dtype: str
    """NumPy's name of the element type."""
    meaning: str
    """Becomes the dataset's `meaning` attribute."""
    unit: str = ""
    refers: TextTable | None = None
    """The elements are numbers of texts in this table."""
    stream: bool = False
    shuffle: bool = False
    """Bytes of one significance are stored together before deflate (HDF5's shuffle filter)."""


@dataclass(frozen=True, kw_only=True)
class FileLayout:
    """All datasets of one kind of file."""

    kind: str
    """The file's `format` attribute."""
    rows: str
    """A dataset that has one element per committed row."""
    columns: tuple[Column, ...]

    @property
    def by_path(self) -> dict[str, Column]:
        """Columns by dataset path."""
        return {column.path: column for column in self.columns}

    @property
    def text_tables(self) -> tuple[str, ...]:
        """Groups that hold texts."""
        return tuple(dict.fromkeys(column.refers for column in self.columns if column.refers))


def _ragged(path: str, of: str, *, count: bool = True) -> tuple[Column, ...]:
    first = Column(path=f"{path}/first", dtype="int64", meaning=f"position of the first of the row's {of}")
    many = Column(path=f"{path}/count", dtype="int64", meaning=f"number of the row's {of}")
    return (first, many) if count else (first,)


def _text_table(name: TextTable, of: str) -> tuple[Column, ...]:
    return (
        Column(path=f"{name}/first", dtype="int64", meaning=f"position of the first byte of text number i ({of})"),
        Column(path=f"{name}/count", dtype="int64", meaning="length of text number i", unit="bytes"),
        Column(path=f"{name}/bytes", dtype="uint8", meaning="UTF-8", stream=True),
    )


_COMMITS = (
    Column(path="commits/rows", dtype="int64", meaning="rows that were durable after commit i; the largest counts"),
    Column(path="commits/time", dtype="float64", meaning="when commit i began", unit="seconds since 1970 (UTC)"),
)

_HEADER = (
    Column(path="trajectory_id", dtype="uint32", meaning="unique in a run", refers="names"),
    Column(path="group_id", dtype="uint32", meaning="the prompt as issued; its samples share it", refers="names"),
    Column(path="task_id", dtype="uint32", meaning="the data row", refers="names"),
    Column(path="order", dtype="int64", meaning="place of the prompt in the stream of issued prompts"),
    Column(path="run_id", dtype="int64", meaning="number of the sample within its group"),
    Column(path="attempt", dtype="int64", meaning="0 for the first issue of the prompt, +1 for every reissue"),
    Column(path="sequence", dtype="int64", meaning="number of the sequence within its rollout"),
    Column(path="model_tag", dtype="uint32", meaning="which policy was asked", refers="names"),
    Column(path="is_val", dtype="uint8", meaning="1 = made for validation"),
    Column(path="num_tokens", dtype="int64", meaning="tokens of prompt and response"),
    Column(path="num_trained", dtype="int64", meaning="tokens whose loss mask is 1"),
    Column(path="reward", dtype="float64", meaning="what the evaluator gave"),
    Column(path="finish_reason", dtype="uint32", meaning="stop, length, truncated, or an error's name", refers="names"),
    Column(path="version_min", dtype="int64", meaning="oldest weight version of a trained token; -1 = no engine asked"),
    Column(path="version_max", dtype="int64", meaning="newest weight version of a trained token; -1 = no engine asked"),
    Column(path="data_source", dtype="uint32", meaning="which data set the row came from", refers="names"),
    Column(path="worker", dtype="uint32", meaning="<role>-<rank>@<host> that made it", refers="names"),
    Column(path="seed", dtype="int64", meaning="seed of the first random draw"),
    Column(path="temperature", dtype="float64", meaning="sampling temperature"),
    Column(path="started", dtype="float64", meaning="when the rollout began", unit="seconds since 1970 (UTC)"),
    Column(path="finished", dtype="float64", meaning="when the rollout ended", unit="seconds since 1970 (UTC)"),
    Column(path="recorder", dtype="uint32", meaning="process that wrote this row", refers="names"),
    Column(path="extra", dtype="uint32", meaning="further fields as one JSON object", refers="names"),
)

_BODY = (
    Column(path="prompt", dtype="uint32", meaning="prompt as text", refers="texts"),
    Column(path="response", dtype="uint32", meaning="response as text", refers="texts"),
    Column(path="ground_truth", dtype="uint32", meaning="expected answer as text", refers="texts"),
    *_ragged("tokens", "tokens (num_tokens of them)", count=False),
    Column(path="tokens/ids", dtype="int32", meaning="token ids, prompt and response", stream=True, shuffle=True),
    Column(path="tokens/loss_mask", dtype="uint8", meaning="1 = sampled by the policy and trained on", stream=True),
    Column(
        path="tokens/logprobs",
        dtype="float32",
        meaning="the sampler's log-probability under softmax(logits / temperature); 0 where the loss mask is 0",
        unit="nats",
        stream=True,
    ),
    *_ragged("spans", "weight-version spans"),
    Column(path="spans/start", dtype="int64", meaning="first token of the span, counted from the row's first token"),
    Column(path="spans/end", dtype="int64", meaning="one past the last token of the span"),
    Column(path="spans/version", dtype="int64", meaning="weight version that sampled these tokens"),
    *_ragged("turns", "turns"),
    Column(path="turns/start", dtype="int64", meaning="first token of the message, counted from the row's first token"),
    Column(path="turns/end", dtype="int64", meaning="one past the last token of the message"),
    Column(path="turns/role", dtype="uint32", meaning="prompt, assistant, tool or user", refers="names"),
    *_ragged("score", "named figures"),
    Column(path="score/name", dtype="uint32", meaning="name of the evaluator's figure", refers="names"),
    Column(path="score/value", dtype="float64", meaning="value of the evaluator's figure"),
)

TRAJECTORIES = FileLayout(
    kind="nexrl-trajectories",
    rows="reward",
    columns=(
        *_HEADER,
        *_BODY,
        *_text_table("names", "identifiers and other short text"),
        *_text_table("texts", "prompts, responses, ground truths"),
        *_COMMITS,
    ),
)

STEPS = FileLayout(
    kind="nexrl-steps",
    rows="step",
    columns=(
        Column(path="step", dtype="int64", meaning="training step, counted from 1"),
        Column(path="position", dtype="int64", meaning="place in the step's batch, counted from 0"),
        Column(path="rank", dtype="int64", meaning="data-parallel rank that trained on the row"),
        Column(path="mini_batch", dtype="int64", meaning="optimizer step within the training step, counted from 0"),
        Column(path="micro_batch", dtype="int64", meaning="forward pass within the mini-batch, counted from 0"),
        Column(path="trajectory_id", dtype="uint32", meaning="the row's trajectory", refers="names"),
        Column(path="group_id", dtype="uint32", meaning="the row's group", refers="names"),
        Column(path="advantage", dtype="float64", meaning="weight of the row's trained tokens in the loss"),
        Column(path="weight_version", dtype="int64", meaning="weights that the step started from"),
        *_text_table("names", "ids"),
        *_COMMITS,
    ),
)


def trajectory_path(run_dir: Path, *, node: str, attempt: int) -> Path:
    """The file that `node` writes in this attempt of the run; raises StoreError for a name that is no file name."""
    if not node or "/" in node or node == STEPS_STEM:
        raise StoreError(f"node name {node!r}: needs a non-empty name without '/', other than {STEPS_STEM!r}")
    return run_dir / FOLDER / f"{node}.{attempt}.h5"


def steps_path(run_dir: Path, *, attempt: int) -> Path:
    """The steps file of this attempt of the run: `steps.h5` for the first one, then `steps.2.h5`, `steps.3.h5`, …"""
    return run_dir / FOLDER / (f"{STEPS_STEM}.h5" if attempt <= 1 else f"{STEPS_STEM}.{attempt}.h5")


def files_of(path: Path, layout: FileLayout) -> list[Path]:
    """Files of this layout under a run folder or its `trajectories` folder, or `path` itself where it is a file.

    Sorted by name. A folder without any gives an empty list; raises StoreError where `path` does not exist.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise StoreError(f"{path}: no such run folder or trajectory file")
    folder = path / FOLDER if (path / FOLDER).is_dir() else path
    return sorted(file for file in folder.glob("*.h5") if is_steps_file(file) == (layout is STEPS))


def is_steps_file(path: Path) -> bool:
    """Whether the name is that of a steps file."""
    return path.name == f"{STEPS_STEM}.h5" or path.name.startswith(f"{STEPS_STEM}.")
