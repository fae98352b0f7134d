"""From a recipe file to plain values: the files it builds on, overrides of the command line, interpolation."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from nexrl.config.marks import Marks, shown
from nexrl.config.secrets import keep_references
from nexrl.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def compose(path: Path, overrides: Sequence[str], marks: Marks) -> dict[str, Any]:
    """The values that `path` gives with its `defaults:` (Hydra's, searched from the file's folder), then `key=value`
    overrides with dotted keys (a mapping replaces what stood there), then OmegaConf interpolation (`${a.b}`,
    `${oc.env:NAME}`).

    Fills `marks` with the place of every key. Secrets stay references. Raises ConfigError.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    config = _composed(path, marks)
    for text in overrides:
        config = _overridden(config, text, marks)
    try:
        resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        written = OmegaConf.to_container(config, resolve=False)
    except OmegaConfBaseException as error:
        message = str(error.msg or error).splitlines()[0]
        raise ConfigError(message, key=error.full_key or "") from error
    return cast("dict[str, Any]", keep_references(resolved, written))


def _composed(path: Path, marks: Marks) -> "DictConfig":
    if not path.is_file():
        raise ConfigError(f"no such recipe: {shown(path)}")
    if path.suffix != ".yaml":
        raise ConfigError(f"a recipe's name ends in .yaml, found {shown(path)}")
    marks.add_file(path)
    _check_interpolations(marks)
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(str(path.parent), version_base="1.3"):
            _mark_bases(path, marks, GlobalHydra.instance().config_loader())
            config = hydra_compose(path.stem)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"cannot be composed: {str(error).splitlines()[0]}", key="defaults") from error
    OmegaConf.set_struct(config, False)
    return config


def _check_interpolations(marks: Marks) -> None:
    if not marks.interpolations:
        return
    from omegaconf.errors import GrammarParseError
    from omegaconf.grammar_parser import parse

    for key, text in marks.interpolations.items():
        try:
            parse(text)
        except GrammarParseError as error:
            raise ConfigError(
                f"found {text!r}, needs an interpolation such as ${{data.batch_size}}", key=key
            ) from error


def _mark_bases(path: Path, marks: Marks, loader: Any) -> None:
    from hydra.types import RunMode

    listed = loader.compute_defaults_list(config_name=path.stem, overrides=[], run_mode=RunMode.RUN)
    for part in listed.defaults:
        if part.config_path is None or part.config_path.startswith("hydra/"):
            continue
        source = path.parent / f"{part.config_path}.yaml"
        if source.is_file():
            marks.add_file(source, under=part.package if part.package != "_global_" else "")


def _overridden(config: "DictConfig", text: str, marks: Marks) -> "DictConfig":
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    key, equals, _ = text.partition("=")
    if not equals or not key or key.startswith((".", "-")) or key.endswith("."):
        raise ConfigError(f"found {text!r}, needs key=value, such as trainer.total_train_steps=10 (command line)")
    try:
        change = OmegaConf.from_dotlist([text if text != f"{key}=" else f'{key}=""'])
        if _is_mapping(OmegaConf.to_container(change, resolve=False), key):
            OmegaConf.update(config, key, {}, merge=False, force_add=True)  # replaced as a whole, like any other value
        merged = OmegaConf.merge(config, change)
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"{str(error).splitlines()[0]} (command line: {text})", key=key) from error
    marks.add_override(key, text)
    return cast("DictConfig", merged)


def _is_mapping(change: Any, key: str) -> bool:
    for name in key.split("."):
        if not isinstance(change, dict) or name not in change:
            return False
        change = change[name]
    return isinstance(change, dict)
