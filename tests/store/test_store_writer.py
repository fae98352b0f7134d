"""When trajectories become durable, and what a writer refuses."""

import threading

import pytest
from store_samples import WRITER, same, trajectory

from nexrl.errors import StoreError
from nexrl.store import TrajectoryReader, TrajectoryWriter

NEVER = 3600.0


def test_a_group_is_committed_when_enough_bytes_are_pending(tmp_path):
    with TrajectoryWriter(tmp_path / "n0.0.h5", commit_bytes=5000, commit_seconds=NEVER, **WRITER) as writer:
        number = writer.append([trajectory(i, tokens=200) for i in range(4)])
        writer.wait_durable(number, 20)
        assert writer.durable == number == 4


def test_a_group_is_committed_when_the_oldest_has_waited(tmp_path):
    with TrajectoryWriter(tmp_path / "n0.0.h5", commit_bytes=2**40, commit_seconds=0.05, **WRITER) as writer:
        writer.wait_durable(writer.append([trajectory(0)]), 20)
        assert writer.durable == 1


def test_waiting_is_ended_by_its_deadline_and_flush_commits_at_once(tmp_path):
    with TrajectoryWriter(tmp_path / "n0.0.h5", commit_bytes=2**40, commit_seconds=NEVER, **WRITER) as writer:
        number = writer.append([trajectory(0), trajectory(1)])
        with pytest.raises(StoreError, match=r"n0\.0\.h5: 0 of 2 trajectories durable after 0\.05 s"):
            writer.wait_durable(number, 0.05)
        writer.flush()
        assert writer.durable == 2
        with pytest.raises(StoreError, match="3 trajectories cannot become durable, 2 were appended"):
            writer.wait_durable(3, 1)


def test_close_commits_what_is_pending_and_ends_appending(tmp_path):
    writer = TrajectoryWriter(tmp_path / "n0.0.h5", commit_bytes=2**40, commit_seconds=NEVER, **WRITER)
    writer.append([trajectory(i) for i in range(3)])
    writer.close()
    writer.close()
    assert writer.durable == 3
    with pytest.raises(StoreError, match="the writer is closed"):
        writer.append([trajectory(4)])


def test_an_existing_file_is_left_alone(tmp_path):
    TrajectoryWriter(tmp_path / "n0.0.h5", **WRITER).close()
    before = (tmp_path / "n0.0.h5").read_bytes()
    with pytest.raises(StoreError, match=r"n0\.0\.h5: exists already"):
        TrajectoryWriter(tmp_path / "n0.0.h5", **WRITER)
    assert (tmp_path / "n0.0.h5").read_bytes() == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "trajectories").write_text("in the way")
    with pytest.raises(StoreError, match="cannot create the file: File exists"):
        TrajectoryWriter(tmp_path / "trajectories" / "n0.0.h5", **WRITER)


def test_a_reader_in_the_same_process_sees_commits_after_refresh(tmp_path):
    with TrajectoryWriter(tmp_path / "n0.0.h5", **WRITER) as writer, TrajectoryReader(tmp_path) as reader:
        for i in range(3):
            writer.append([trajectory(i)])
            writer.flush()
            assert len(reader) == i
            assert reader.refresh() == i + 1
            assert same(reader.read(i), trajectory(i))


def test_many_threads_append_and_every_trajectory_is_there_once(tmp_path):
    with TrajectoryWriter(tmp_path / "n0.0.h5", commit_bytes=4000, **WRITER) as writer:
        threads = [
            threading.Thread(target=lambda k=k: [writer.append([trajectory(25 * k + i)]) for i in range(25)])
            for k in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with TrajectoryReader(tmp_path) as reader:
        ids = reader.headers()["trajectory_id"].tolist()
    assert sorted(ids) == sorted(trajectory(i).header.trajectory_id for i in range(100))


def test_small_commits_stay_compact(tmp_path):
    """A commit starts new chunks; their empty rest must not cost what a full chunk would."""
    with TrajectoryWriter(tmp_path / "n0.0.h5", **WRITER) as writer:
        writer.append([trajectory(0)])
        writer.flush()
        before = writer.path.stat().st_size
        for i in range(1, 41):
            writer.append([trajectory(i)])
            writer.flush()
        grown = writer.path.stat().st_size - before
    assert grown < 40 * 4096
