import pytest
from launch_recipe import write_files

from launch.run import RunEnd
from launch.stages import after_stages, find_stages
from nexrl.config import load_recipe
from nexrl.errors import ConfigError, RunFolderError


class Runs:
    """Stands for the launcher: notes what it was asked to run, and exports a model."""

    def __init__(self, folder, exit_code=0, exports=True):
        self.folder = folder
        self.exit_code = exit_code
        self.exports = exports
        self.recipes = []

    def __call__(self, loaded):
        self.recipes.append(loaded.recipe)
        run_dir = self.folder / f"run{len(self.recipes)}"
        (run_dir / "hf").mkdir(parents=True)
        if self.exports:
            (run_dir / "hf" / "config.json").write_text(loaded.recipe.experiment_name)
            (run_dir / "hf" / "model.safetensors").write_text("weights")
        return RunEnd(run_dir=run_dir, exit_code=self.exit_code)


def load_main(folder, *overrides):
    if not (folder / "main.yaml").exists():
        write_files(folder)
    return load_recipe(folder / "main.yaml", [f"initial_stage.cache={folder}/kept", *overrides])


def stage(loaded, runs):
    said = []
    staged = after_stages(loaded, run=runs, say=said.append)
    return staged, said


def test_stage_runs_once_and_gives_the_model(tmp_path):
    runs = Runs(tmp_path)
    for _ in range(2):
        staged, said = stage(load_main(tmp_path), runs)
        recipe = staged.loaded.recipe
        model = recipe.service.actor_service.actor.model.path
        assert recipe.experiment_name == "main"
        assert recipe.initial_stage.recipe == ""
        assert model.startswith(f"{tmp_path}/kept/")
        assert (tmp_path / "kept" / model / "config.json").read_text() == "small"
    assert [recipe.experiment_name for recipe in runs.recipes] == ["small"]
    assert said == [f"stage small: kept in {model}"]


def test_recipe_without_stage_is_left_alone(tmp_path):
    loaded = load_recipe(write_files(tmp_path))
    staged, said = stage(loaded, Runs(tmp_path))
    assert (staged.loaded, staged.exit_code, said) == (loaded, 0, [])


@pytest.mark.parametrize("change", ["data", "model", "recipe"])
def test_changed_content_runs_again(tmp_path, change):
    runs = Runs(tmp_path)
    stage(load_main(tmp_path), runs)
    if change == "data":
        (tmp_path / "train.jsonl").write_text('{"prompt": "xy", "ground_truth": "yx"}\n')
    elif change == "model":
        (tmp_path / "model" / "model.safetensors").write_bytes(b"other")
    else:
        small = tmp_path / "small.yaml"
        small.write_text(small.read_text() + "trainer: {total_train_steps: 7}\n")
    stage(load_main(tmp_path), runs)
    assert len(runs.recipes) == 2


def test_place_name_and_way_of_running_do_not_count(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    write_files(here)
    write_files(there)
    small = there / "small.yaml"
    small.write_text(
        small.read_text().replace("experiment_name: small", "experiment_name: other") + "logger: {backend: []}\n"
    )
    keys = {
        find_stages(load_recipe(folder / "main.yaml", [f"launch_mode={mode}"]))[0].model.parent.name
        for folder, mode in ((here, "processes"), (there, "local"))
    }
    assert len(keys) == 1


def test_stage_runs_the_way_of_the_main_recipe(tmp_path):
    runs = Runs(tmp_path)
    stage(load_main(tmp_path, "launch_mode=local", f"launch.run_root={tmp_path}/mine"), runs)
    assert (runs.recipes[0].launch_mode, runs.recipes[0].launch.run_root) == ("local", f"{tmp_path}/mine")


def test_failed_stage_ends_the_launch_and_is_not_kept(tmp_path):
    staged, _ = stage(load_main(tmp_path), Runs(tmp_path, exit_code=7))
    assert staged.exit_code == 7
    assert not find_stages(load_main(tmp_path))[0].kept


def test_run_that_exported_nothing(tmp_path):
    with pytest.raises(RunFolderError, match="holds no model"):
        stage(load_main(tmp_path), Runs(tmp_path, exports=False))


def test_stages_of_stages_run_in_order(tmp_path):
    main = load_main(tmp_path)
    (tmp_path / "last.yaml").write_text(
        main.path.read_text().replace("small.yaml", "main.yaml").replace("name: main", "name: last")
    )
    runs = Runs(tmp_path)
    last = load_recipe(tmp_path / "last.yaml", [f"initial_stage.cache={tmp_path}/kept"])
    (tmp_path / "main.yaml").write_text(main.path.read_text().replace("}", f", cache: {tmp_path}/kept}}", 1))
    staged, _ = stage(last, runs)
    assert [recipe.experiment_name for recipe in runs.recipes] == ["small", "main"]
    small, main_stage = find_stages(last)
    assert runs.recipes[1].service.actor_service.actor.model.path == str(small.model)
    assert staged.loaded.recipe.service.actor_service.actor.model.path == str(main_stage.model)
    (small.model / "config.json").unlink()
    (small.model / "model.safetensors").unlink()
    small.model.rmdir()
    stage(last, runs)
    assert len(runs.recipes) == 2


def test_results_are_kept_beside_the_runs_unless_said_otherwise(tmp_path):
    write_files(tmp_path)
    loaded = load_recipe(tmp_path / "main.yaml", [f"launch.run_root={tmp_path}/mine"])
    assert find_stages(loaded)[0].model.parents[1] == tmp_path / "mine" / ".stages"


def test_cache_that_cannot_be_used(tmp_path):
    (tmp_path / "kept").write_text("a file")
    with pytest.raises(RunFolderError, match=r"cannot use the files of a stage: .*kept"):
        stage(load_main(tmp_path), Runs(tmp_path))


def test_result_that_cannot_be_kept(tmp_path):
    loaded = load_main(tmp_path)
    model = find_stages(loaded)[0].model
    model.parent.mkdir(parents=True)
    (model.parent / ".hf").write_text("in the way")
    with pytest.raises(RunFolderError, match=r"cannot use the files of a stage: .*\.hf"):
        stage(loaded, Runs(tmp_path))
    assert not find_stages(loaded)[0].kept


def test_stage_that_leads_back_to_itself(tmp_path):
    write_files(tmp_path)
    main = tmp_path / "main.yaml"
    main.write_text(main.read_text().replace("small.yaml", "main.yaml"))
    with pytest.raises(ConfigError, match=r"initial_stage\.recipe: .*leads back to itself"):
        find_stages(load_main(tmp_path))


def test_stage_that_exports_nothing_is_refused_at_once(tmp_path):
    small = write_files(tmp_path)
    small.write_text(small.read_text() + "trainer: {export_hf: false}\n")
    with pytest.raises(ConfigError, match="exports no model"):
        find_stages(load_main(tmp_path))
