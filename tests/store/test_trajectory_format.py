"""The files are what docs/trajectory-format.md says, and its code runs."""

import re
from pathlib import Path

import h5py
import pytest
from store_samples import WRITER, trajectory

from nexrl.store import FORMAT_VERSION, StepsWriter, TrajectoryWriter, trajectory_path
from nexrl.store.layout import STEPS, TRAJECTORIES
from nexrl.types import Batch, BatchRow, MicroBatch, MiniBatch, Shard

DOCUMENT = (Path(__file__).parents[2] / "docs" / "trajectory-format.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL)


@pytest.fixture
def run(tmp_path):
    path = trajectory_path(tmp_path, node="n0", attempt=0)
    with TrajectoryWriter(path, **WRITER) as writer:
        for start in (0, 4):
            writer.append([trajectory(i, version=start, reward=float(i)) for i in range(start, start + 4)])
            writer.flush()
    ids = [trajectory(i).header.trajectory_id for i in range(4)]
    rows = tuple(
        BatchRow(trajectory_id=name, recorder="r", num_tokens=12, num_trained=8, advantage=1.0) for name in ids
    )
    mini = MiniBatch(micro_batches=(MicroBatch(rows=rows),), global_tokens=32, global_sequences=4)
    batch = Batch(step=1, shards=(Shard(step=1, mini_batches=(mini,), temperature=1.0),), group_ids=("0:0",))
    with StepsWriter(tmp_path, attempt=0, run_id="run") as writer:
        writer.append(batch, weight_version=2)
    return tmp_path


@pytest.mark.parametrize(
    ("layout", "heading", "name"), [(TRAJECTORIES, "## Trajectories", "n0.0.h5"), (STEPS, "## Steps", "steps.h5")]
)
def test_document_and_file_agree_on_every_dataset(run, layout, heading, name):
    section = DOCUMENT[DOCUMENT.index(heading) :]
    section = section[: section.index("\n## ", 1)]
    documented = dict(re.findall(r"^\| `([^`]+)` \| (\w+)", section, flags=re.MULTILINE))
    found = {}
    with h5py.File(run / "trajectories" / name, "r") as file:

        def visit(path, item):
            if isinstance(item, h5py.Dataset):
                found[path] = str(item.dtype)
                assert item.attrs["meaning"]
                assert len(item[:]) == item.shape[0]

        file.visititems(visit)
        assert (file.attrs["format"], file.attrs["version"]) == (layout.kind, FORMAT_VERSION)
    assert found == documented
    assert f"# Trajectory format, version {FORMAT_VERSION}\n" in DOCUMENT


def test_a_closed_file_has_columns_of_exactly_the_committed_length(run):
    with h5py.File(run / "trajectories" / "n0.0.h5", "r") as file:
        rows = file["commits/rows"][:]
        assert rows.tolist() == [4, 8]
        assert {file[column.path].shape[0] for column in TRAJECTORIES.columns if "/" not in column.path} == {8}


def test_the_code_for_plain_h5py(run):
    names = {"path": run / "trajectories" / "n0.0.h5"}
    exec(CODE[0], names)
    assert names["reward"].tolist() == [float(i) for i in range(8)]
    assert names["group"].tolist() == ["0:0"] * 4 + ["0:1"] * 4
    assert names["first_tokens"].tolist() == trajectory(0).tokens.tolist()
    assert names["first_response"] == trajectory(0).response


def test_the_code_for_pandas_and_duckdb(run):
    names = {"run": run}
    exec(CODE[1], names)
    assert names["by_version"]["mean"].tolist() == [1.5, 5.5]
    assert names["by_step"].to_dict("records") == [{"step": 1, "reward": 1.5, "staleness": 2}]
