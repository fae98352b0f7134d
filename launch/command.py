"""What `python -m launch.submit` takes and does."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from launch.plan import Machine, make_plan
from launch.run import RunEnd, run_recipe
from launch.stages import after_stages, find_stages
from nexrl.config import LoadedRecipe, load_recipe

_HELP = """Run RECIPE: start its processes, show their progress, print the result.

Every key of a recipe can be set behind it, with dots: [bold]trainer.total_train_steps=10[/bold].

Examples:

  python -m launch.submit recipes/reverse/grpo.yaml

  python -m launch.submit recipes/reverse/grpo.yaml launch.groups.trainer.tasks=2 data.batch_size=16

  python -m launch.submit recipes/reverse/grpo.yaml --dry-run   (what would be started?)

  python -m launch.submit recipes/reverse/grpo.yaml --launch-mode local   (everything in one process)

  python -m launch.submit recipes/reverse/grpo.yaml --run-dir runs/reverse-grpo/20260101-120000 resume.mode=auto

Ctrl-C saves a checkpoint and ends the run; a second Ctrl-C kills it. Exit codes: 0 finished, 2 recipe, 3 data, 4 run
folder, checkpoint or trajectories, 5 a role died, 6 stalled, 7 training, 8 inference, 9 reward, 10 weights, 130 Ctrl-C,
143 SIGTERM, 1 anything else.
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


class LaunchMode(StrEnum):
    """Ways to start a run."""

    processes = "processes"
    local = "local"


@app.command(help=_HELP)
def submit(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe: recipes/…/….yaml")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Values to set.")] = None,
    *,
    launch_mode: Annotated[LaunchMode | None, typer.Option(help="Instead of the recipe's own.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check, show what would be started, start nothing.")
    ] = False,
    run_dir: Annotated[
        Path | None, typer.Option(help="Run folder; by default a new one under launch.run_root.")
    ] = None,
) -> None:
    """Load, then run or show."""
    console = Console()
    mode = [f"launch_mode={launch_mode.value}"] if launch_mode else []
    loaded = load_recipe(recipe, [*(overrides or []), *mode])
    if dry_run:
        show_plan(loaded, run_dir=run_dir, console=console)
        return
    raise typer.Exit(_run(loaded, run_dir=run_dir, console=console))


def show_plan(loaded: LoadedRecipe, *, run_dir: Path | None, console: Console) -> None:
    """Print the processes that a run would have, one row each, and its stages."""
    recipe = loaded.recipe
    folder = run_dir or Path(recipe.launch.run_root) / recipe.experiment_name / "<run id>"
    machine = Machine.here(recipe)
    plan = make_plan(recipe, run_dir=folder, attempt=1, machine=machine)
    for stage in find_stages(loaded):
        state = "kept, used as it is" if stage.kept else "runs first"
        console.print(f"stage {stage.loaded.recipe.experiment_name}: {state}", markup=False)
    table = Table(title=f"{recipe.experiment_name} → {folder}", title_justify="left")
    for column in ("process", "of", "threads", "command"):
        table.add_column(column, overflow="fold")
    for process in plan.processes:
        said = process.environment
        command = " ".join((Path(process.command[0]).name, *process.command[1:4]))
        table.add_row(process.name, said["NEXRL_WORLD_SIZE"], said["NEXRL_THREADS"], command)
    console.print(table)
    console.print(f"{len(plan.processes)} processes on {machine.cores} cores; nothing was started")


def _run(loaded: LoadedRecipe, *, run_dir: Path | None, console: Console) -> int:
    def run_stage(stage: LoadedRecipe) -> RunEnd:
        return run_recipe(stage, run_dir=None, console=console)

    staged = after_stages(loaded, run=run_stage, say=lambda text: console.print(text, markup=False, soft_wrap=True))
    if staged.exit_code:
        return staged.exit_code
    return run_recipe(staged.loaded, run_dir=run_dir, console=console).exit_code
