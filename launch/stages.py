"""`initial_stage`: a recipe that runs first, whose model is kept by the content of all that it was made from."""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import msgspec

from launch.run import RunEnd
from nexrl import __version__
from nexrl.config import FoundPath, LoadedRecipe, Recipe, changed_paths, load_recipe
from nexrl.errors import EXIT_OK, ConfigError, RunFolderError

_NO_CONTENT = (
    "project_name", "experiment_name", "launch_mode", "launch", "logger", "comm", "runtime_monitor", "resume",
    "initial_stage",
)  # fmt: skip
"""Sections that don't change what a recipe learns, and the stage, which counts by its own content."""

RunStage = Callable[[LoadedRecipe], RunEnd]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A recipe that runs before another."""

    loaded: LoadedRecipe
    model: Path
    """Folder in which its model is kept, or will be: `<cache>/<content key>/hf`."""

    @property
    def kept(self) -> bool:
        """Whether it need not run."""
        return self.model.is_dir()


@dataclass(frozen=True, kw_only=True)
class Staged:
    """A recipe whose stages are done, or the code with which one failed."""

    loaded: LoadedRecipe
    exit_code: int = EXIT_OK


def find_stages(loaded: LoadedRecipe) -> list[Stage]:
    """The stages of a recipe, first to run first. Raises ConfigError for one that leads back to itself or exports no
    model, whatever load_recipe raises, and RunFolderError for a file that cannot be read."""
    chain = [loaded]
    while chain[-1].recipe.initial_stage.recipe:
        chain.append(_load_stage(chain[-1], above=[above.path for above in chain]))
    stages: list[Stage] = []
    key = ""
    for user, stage in zip(reversed(chain[:-1]), reversed(chain[1:]), strict=True):
        key = content_key(stage, before=key)
        stages.append(Stage(loaded=stage, model=_cache(user.recipe) / key / "hf"))
    return stages


def after_stages(loaded: LoadedRecipe, *, run: RunStage, say: Callable[[str], None]) -> Staged:
    """The recipe with `actor.model.path` set to its stage's model, which is made with `run` unless it is kept already.

    A recipe without a stage comes back as it is. Raises as find_stages, and RunFolderError for a run without a model or
    a cache that cannot be used.
    """
    stages = find_stages(loaded)
    kept = [index for index, stage in enumerate(stages) if stage.kept]
    model: Path | None = None
    for stage in stages[kept[-1] if kept else 0 :]:
        exit_code = _ensure(stage, model, run, say)
        if exit_code != EXIT_OK:
            return Staged(loaded=loaded, exit_code=exit_code)
        model = stage.model
    return Staged(loaded=_starting_from(loaded, model))


def content_key(loaded: LoadedRecipe, *, before: str) -> str:
    """Name for what a recipe makes: SHA-256 over its values (without those that only say where and how it runs), the
    content of every file that it names, the key `before` of its own stage, and this package's version. Equal on any
    machine."""
    values: dict[str, Any] = msgspec.to_builtins(loaded.recipe)
    with _files_usable():
        values = changed_paths({name: value for name, value in values.items() if name not in _NO_CONTENT}, _content)
    text = json.dumps([__version__, before, values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _ensure(stage: Stage, model: Path | None, run: RunStage, say: Callable[[str], None]) -> int:
    name, folder = stage.loaded.recipe.experiment_name, stage.model.parent
    with _locked(folder, say):
        if stage.kept:
            say(f"stage {name}: kept in {stage.model}")
            return EXIT_OK
        say(f"stage {name}: not kept yet, runs first")
        end = run(_starting_from(stage.loaded, model))
        if end.exit_code == EXIT_OK:
            _publish(end.run_dir / "hf", stage.model)
        return end.exit_code


def _publish(exported: Path, model: Path) -> None:
    if not (exported / "config.json").is_file():
        raise RunFolderError(f"the stage's run ended well, but {exported} holds no model")
    half = model.with_name(".hf")
    with _files_usable():
        shutil.rmtree(half, ignore_errors=True)  # of a launcher that was killed
        shutil.copytree(exported, half)
        half.rename(model)


def _cache(user: Recipe) -> Path:
    folder = user.initial_stage.cache or f"{user.launch.run_root}/.stages"
    return Path(folder).expanduser().absolute()


def _starting_from(loaded: LoadedRecipe, model: Path | None) -> LoadedRecipe:
    if model is None:
        return loaded
    key = f"service.train_service.{loaded.recipe.actor_name}.actor.model.path"
    return loaded.overridden("initial_stage.recipe=", f"{key}={json.dumps(str(model))}")


def _load_stage(loaded: LoadedRecipe, *, above: list[Path]) -> LoadedRecipe:
    recipe = loaded.recipe
    path = Path(recipe.initial_stage.recipe)
    if path in above:
        raise ConfigError(f"{path} leads back to itself", key="initial_stage.recipe")
    mode, root = f"launch_mode={recipe.launch_mode}", f"launch.run_root={json.dumps(recipe.launch.run_root)}"
    stage = load_recipe(path, [mode, root])
    if not stage.recipe.trainer.export_hf:
        raise ConfigError(f"{path} exports no model; needs trainer.export_hf: true", key="initial_stage.recipe")
    return stage


def _content(found: FoundPath) -> str:
    files = [found.path] if found.path.is_file() else sorted(file for file in found.path.rglob("*") if file.is_file())
    digests = [f"{file.relative_to(found.path)}:{_digest(file)}" for file in files]
    return f"{found.text.removeprefix(str(found.path))}|{';'.join(digests)}"


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextmanager
def _locked(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    with _files_usable():
        lock = _opened_lock(folder, say)
    with closing(lock):
        yield


def _opened_lock(folder: Path, say: Callable[[str], None]) -> TextIO:
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"waiting for another launcher that makes {folder}")
        fcntl.flock(lock, fcntl.LOCK_EX)  # freed by the kernel when that launcher ends, however it ends
    return lock


@contextmanager
def _files_usable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        named = f": {error.filename}" if error.filename else ""
        raise RunFolderError(f"cannot use the files of a stage: {error.strerror or error}{named}") from error
