"""One run from beginning to end."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from launch.closing import print_closing
from launch.display import create_display
from launch.plan import Machine, make_plan
from launch.run_folder import claimed_run_folder, write_atomically
from launch.supervisor import Supervisor
from nexrl.config import LoadedRecipe


@dataclass(frozen=True, kw_only=True)
class RunEnd:
    """How a run ended."""

    run_dir: Path
    exit_code: int
    """As documented in nexrl.errors."""


def run_recipe(loaded: LoadedRecipe, *, run_dir: Path | None, console: Console) -> RunEnd:
    """Claim a run folder, start the recipe's processes, show their progress and the result.

    Raises RunFolderError, ConfigError or RoleError where they cannot be started; what goes wrong later is said on the
    console and in the exit code.
    """
    recipe = loaded.recipe
    machine = Machine.here(recipe)
    with claimed_run_folder(recipe, run_dir=run_dir) as folder:
        plan = make_plan(recipe, run_dir=folder.path, attempt=folder.attempt, machine=machine)
        write_atomically(folder.path / "launch" / "plan.json", plan.to_json())
        console.print(
            f"{recipe.experiment_name}: {folder.path}, attempt {folder.attempt}", soft_wrap=True, markup=False
        )
        if recipe.resume.mode == "auto":
            nothing = f"nothing to continue under {run_dir or folder.path.parent}: beginning anew"
            console.print(f"resume.mode=auto: {folder.continues or nothing}", soft_wrap=True, markup=False)
        with create_display(folder.path, total_steps=recipe.trainer.total_train_steps, console=console) as display:
            exit_code = Supervisor(plan, log_dir=folder.log_dir, say=display.say).run(display.update)
        print_closing(folder, exit_code=exit_code, recipe=recipe, console=console)
        return RunEnd(run_dir=folder.path, exit_code=exit_code)
