"""The store and weights benchmarks."""

import h5py
import numpy as np
import pytest

from nexrl.store import TrajectoryReader
from tools.bench import store, weights


def test_a_small_measurement_has_all_ways_and_leaves_nothing_behind(tmp_path):
    record = store.measure(megabytes=1, folder=tmp_path)
    assert record.benchmark == "store"
    rows = {row.figure: row.value for row in record.rows}
    assert rows["store ÷ h5py, gzip 4"] == pytest.approx(rows["store, writing"] / rows["h5py, gzip 4, writing"])
    assert min(rows.values()) > 0
    assert [line[0] for line in record.details[0].lines] == ["store", "h5py, gzip 1", "h5py, gzip 4"]
    assert all(0 < float(line[2]) < 1 for line in record.details[0].lines)
    assert list(tmp_path.iterdir()) == []


def test_both_ways_write_the_same_arrays(tmp_path):
    trajectories = store.sample(3)
    store.write_store(tmp_path / "ours.h5", trajectories)
    store.write_h5py(tmp_path / "theirs.h5", trajectories, level=1)
    with TrajectoryReader(tmp_path / "ours.h5") as reader, h5py.File(tmp_path / "theirs.h5") as file:
        for name in ("tokens", "loss_mask", "logprobs"):
            ours = np.concatenate([getattr(reader.read(number), name) for number in range(3)])
            assert np.array_equal(ours, file[name][:])
        text = "".join(reader.read(number).prompt + reader.read(number).response for number in range(3))
        assert bytes(file["text"][:]).decode() == text


def test_speeds_are_medians():
    rates = {"store": [300.0, 100.0, 200.0], "h5py, gzip 1": [70.0, 60.0, 50.0], "h5py, gzip 4": [40.0, 50.0, 60.0]}
    rows = {row.figure: row.value for row in store.figures(rates)}
    assert rows["store, writing"] == 200
    assert rows["h5py, gzip 1, writing"] == 60
    assert rows["store ÷ h5py, gzip 4"] == 4


def test_the_pause_is_a_median_in_milliseconds():
    rows = weights.figures([0.02, 0.01, 0.9, 0.03, 0.02], mebibytes=3.03)
    assert rows[0].value == 20
    assert rows[0].note == "5 steps, weights of 3.0 MiB, one trainer rank to one engine"
    assert rows[1].value > 100
