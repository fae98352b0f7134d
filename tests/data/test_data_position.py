"""Order, epochs, replay, and the exact position."""

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexrl.config.schema import DataConfig
from nexrl.data import BaseDataLoader, DataItem, LoaderState, MockDataLoader, TorchDataLoader, create_data_loader
from nexrl.errors import CheckpointError, ConfigError

ROWS = 5


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text("".join(f'{{"prompt": "p{n}", "level": {n}}}\n' for n in range(ROWS)))
    return str(path)


def make(file, **config):
    return TorchDataLoader(DataConfig(data_files=(file,), **config))


def stream(loader, length=1000):
    return list(itertools.islice(iter(loader.get_next_item, None), length))


def rows(loader, length=1000):
    return [item.row for item in stream(loader, length)]


def test_one_epoch_in_the_files_order(file):
    loader = make(file)
    assert rows(loader) == [0, 1, 2, 3, 4]
    assert loader.is_finished()
    assert not loader.can_return_item()
    assert loader.get_next_item() is None


def test_epochs_repeat_the_rows_under_new_orders(file):
    items = stream(make(file, epochs=3))
    assert [item.row for item in items] == [0, 1, 2, 3, 4] * 3
    assert [item.epoch for item in items] == [0] * 5 + [1] * 5 + [2] * 5
    assert [item.order for item in items] == list(range(15))
    assert items[0].task_id == items[5].task_id


def test_no_epochs_means_without_end(file):
    loader = make(file, epochs=0)
    assert len(stream(loader, 123)) == 123
    assert loader.can_return_item()
    assert not loader.is_finished()


def test_shuffling_is_a_permutation_by_seed_and_epoch(file):
    first = rows(make(file, epochs=40, shuffle=True, seed=1))
    assert first == rows(make(file, epochs=40, shuffle=True, seed=1))
    assert first != rows(make(file, epochs=40, shuffle=True, seed=2))
    epochs = [tuple(first[start : start + ROWS]) for start in range(0, len(first), ROWS)]
    assert all(sorted(epoch) == list(range(ROWS)) for epoch in epochs)
    assert len(set(epochs)) > 10


def test_replayed_items_keep_what_they_are(file):
    loader = make(file)
    a, b, c = stream(loader, 3)
    loader.add_item_front(a)
    loader.add_item_front(b)
    loader.add_item_back(c)
    assert stream(loader, 2) == [b, a]
    assert rows(loader) == [3, 4, 2]
    assert loader.is_finished()
    loader.add_item_front(a)
    assert not loader.is_finished()
    assert loader.get_next_item() == a


def test_the_back_queue_comes_before_the_next_epoch(file):
    loader = make(file, epochs=0)
    first = loader.get_next_item()
    loader.add_item_back(first)
    items = stream(loader, 6)
    assert [(item.row, item.epoch) for item in items] == [(1, 0), (2, 0), (3, 0), (4, 0), (0, 0), (0, 1)]


def test_reset_starts_all_over(file):
    loader = make(file, epochs=2, shuffle=True)
    before = stream(loader, 7)
    loader.add_item_front(before[0])
    loader.reset()
    assert stream(loader, 7) == before


@settings(deadline=None, max_examples=60)
@given(
    epochs=st.integers(0, 3),
    shuffle=st.booleans(),
    actions=st.lists(st.sampled_from(["next", "next", "next", "front", "back"]), max_size=25),
)
def test_from_any_position_the_same_stream_follows(file, epochs, shuffle, actions):
    loader = make(file, epochs=epochs, shuffle=shuffle)
    seen = []
    for action in actions:
        if action == "next" and (item := loader.get_next_item()):
            seen.append(item)
        elif action == "front" and seen:
            loader.add_item_front(seen[-1])
        elif action == "back" and seen:
            loader.add_item_back(seen[0])
    saved = msgspec.json.decode(msgspec.json.encode(loader.state()), type=LoaderState)
    resumed = make(file, epochs=epochs, shuffle=shuffle)
    resumed.load_state(saved)
    assert resumed.is_finished() == loader.is_finished()
    assert stream(resumed, 40) == stream(loader, 40)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_rows": 6}, "num_rows 6"),
        ({"seed": 1}, "seed 1"),
        ({"shuffle": True}, "shuffle True"),
        ({"cursor": 9}, "9"),
    ],
)
def test_a_position_in_other_data_is_refused(file, change, words):
    loader = make(file)
    with pytest.raises(CheckpointError, match=words):
        loader.load_state(msgspec.structs.replace(loader.state(), **change))


def test_the_mock_loader_makes_sums(file):
    loader = MockDataLoader(DataConfig(type="mock", batch_size=2))
    items = stream(loader)
    assert len(items) == 32
    assert (items[13].prompt, items[13].ground_truth) == ("1 + 3 =", "4")
    assert len({item.task_id for item in items}) == 32


def test_a_recipe_chooses_the_loader(file):
    assert type(create_data_loader(DataConfig(data_files=(file,)))) is TorchDataLoader
    assert type(create_data_loader(DataConfig(type="mock"))) is MockDataLoader


def test_a_class_of_ones_own_gets_the_config(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from nexrl.data import MockDataLoader\n"
        "class Mine(MockDataLoader):\n"
        "    def get_next_item(self):\n"
        "        return None\n"
    )
    loader = create_data_loader(DataConfig(custom_class=f"{path}:Mine"), count_tokens=len)
    assert isinstance(loader, BaseDataLoader)
    assert loader.get_next_item() is None
    assert loader.count_tokens is len
    path = tmp_path / "other.py"
    path.write_text("class Other: pass")
    with pytest.raises(ConfigError, match="BaseDataLoader"):
        create_data_loader(DataConfig(custom_class=f"{path}:Other"))


def test_items_cross_a_wire(file):
    item = make(file).get_next_item()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(item), type=DataItem) == item
