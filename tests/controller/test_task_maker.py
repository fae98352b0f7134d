"""What is asked of rollout workers: names, order, seeds and ways to sample."""

from dataclasses import replace

from controller_parts import HELD_OUT, recipe

from nexrl.config.schema import SamplingOverride, ValidateConfig
from nexrl.controller import TaskMaker
from nexrl.data import create_data_loader
from nexrl.types import SamplingParams


def everything(loader):
    items = []
    while (item := loader.get_next_item()) is not None:
        items.append(item)
    return items


def test_a_training_task():
    config = recipe(samples=3)
    [item, *_] = everything(create_data_loader(config.data))
    task = TaskMaker(config).training(item)
    assert (task.task_id, task.group_id, task.order, task.attempt) == ("mock:1", "mock:1@0", 0, 0)
    assert task.run_ids == (0, 1, 2)
    assert (task.prompt, task.ground_truth, task.data_source) == ("0 + 0 =", "0", "mock")
    assert not task.is_val
    assert task.seed == config.data.seed
    assert task.sampling == SamplingParams(max_tokens=4, temperature=0.7, top_p=0.9, top_k=5, stop=("\n",))


def test_a_row_has_a_name_per_epoch_and_keeps_it_when_it_is_replayed():
    config = recipe(epochs=3)
    maker, loader = TaskMaker(config), create_data_loader(config.data)
    items = everything(loader)
    groups = [maker.training(item).group_id for item in items]
    assert len(set(groups)) == 3 * 32
    assert len({maker.training(item).task_id for item in items}) == 32
    loader.add_item_front(items[40])
    assert maker.training(loader.get_next_item()).group_id == groups[40]


def validation_tasks(step, *, epochs=1):
    sampling = {
        "sampled": SamplingOverride(repeat_n=2, top_k=7),
        "greedy": SamplingOverride(temperature=0.0, top_p=0.5),
    }
    config = recipe(validate=ValidateConfig(data=HELD_OUT, sampling=sampling))
    return TaskMaker(config).validation(create_data_loader(replace(HELD_OUT.loader_config, epochs=epochs)))(step)


def test_a_validation_pass_asks_every_prompt_in_every_way():
    tasks = validation_tasks(7)
    assert {name: len(some) for name, some in tasks.items()} == {"sampled": 16, "greedy": 16}
    first = tasks["sampled"][0]
    assert (first.sampling.temperature, first.sampling.top_k) == (1.0, 7)
    assert (first.group_id, first.run_ids, first.is_val) == ("val/sampled/mock:1@7", (0, 1), True)
    greedy = tasks["greedy"][0]
    assert greedy.run_ids == (0,)
    assert greedy.sampling == SamplingParams(max_tokens=4, temperature=0.0, top_p=0.5, stop=("\n",))


def test_names_of_validation_never_come_twice():
    data = create_data_loader(HELD_OUT.loader_config)
    tasks = TaskMaker(recipe(validate=ValidateConfig(data=HELD_OUT))).validation(data)
    names = [task.group_id for step in (0, 5) for some in tasks(step).values() for task in some]
    assert len(set(names)) == len(names) == 32


def test_a_pass_over_endless_data_is_one_epoch():
    for epochs in (0, 2):
        assert len(validation_tasks(1, epochs=epochs)["sampled"]) == 16
