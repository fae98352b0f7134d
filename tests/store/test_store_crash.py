"""Reading while another process writes, after it was killed, and after its disk was full."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest
from store_samples import WRITER, same, trajectory

from nexrl.errors import StoreError
from nexrl.store import TrajectoryReader, TrajectoryWriter, clear_flags, inspect_file, inspect_run
from nexrl.store.superblock import is_closed, lookup3

CHILD = Path(__file__).with_name("store_child.py")
ROOT = Path(__file__).parents[2]
KILLS = 20


def start_child(path, mode, *arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(CHILD), str(path), mode, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def expected(number):
    """What the child wrote as trajectory `number`."""
    block = number // 7 * 7
    return trajectory(block % 390 + number % 7, tokens=200)


def test_another_process_reads_while_one_writes(tmp_path):
    path = tmp_path / "n0.0.h5"
    child = start_child(path, "endless")
    try:
        child.stdout.readline()
        with TrajectoryReader(path) as reader:
            counts = [len(reader)]
            for _ in range(50):
                told = int(child.stdout.readline())
                counts.append(reader.refresh())
                assert counts[-1] >= told
                if counts[-1]:
                    assert same(reader.read(counts[-1] - 1), expected(counts[-1] - 1))
                    assert reader.column("reward").shape == (counts[-1],)
            assert reader.headers()["reward"].shape == (counts[-1],)
            assert counts == sorted(counts)
            assert counts[-1] > counts[0]
    finally:
        child.kill()
        child.communicate()


@pytest.mark.slow
def test_all_that_was_durable_is_there_after_a_kill_at_any_moment(tmp_path):
    rng = random.Random(0)
    for kill in range(KILLS):
        path = tmp_path / f"n{kill}.0.h5"
        child = start_child(path, "endless")
        child.stdout.readline()
        time.sleep(rng.random() * 0.5)
        child.send_signal(signal.SIGKILL)
        output, _ = child.communicate()
        told = int(output.split()[-1]) if output.split() else 0
        report = inspect_file(path)
        assert (report.ok, report.closed, report.damaged) == (True, False, 0), report
        assert report.intact >= told
        with TrajectoryReader(path) as reader:
            assert len(reader) == report.intact
            assert all(same(item, expected(i)) for i, item in enumerate(reader))
    assert len(inspect_run(tmp_path)) == KILLS


def test_flags_of_a_killed_writer_are_cleared_and_any_program_opens_the_file(tmp_path):
    path = tmp_path / "n0.0.h5"
    child = start_child(path, "endless")
    for _ in range(30):
        child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    with pytest.raises(OSError, match="already open for write"):
        h5py.File(path, "r")
    before = inspect_file(path)
    clear_flags(path)
    after = inspect_file(path)
    assert (before.closed, after.closed, after.intact, after.ok) == (False, True, before.intact, True)
    with h5py.File(path, "r") as file:
        file.visititems(lambda _, item: item[:] if isinstance(item, h5py.Dataset) else None)
        assert file["commits/rows"][:].max() == after.intact


def test_the_checksum_is_the_one_of_its_author():
    # From the self-test in Bob Jenkins' lookup3.c (driver5): hashlittle("", 0, 0) and of "Four score …".
    assert lookup3(b"") == 0xDEADBEEF
    assert lookup3(b"Four score and seven years ago") == 0x17770551


def check_full_disk(path, output, returncode, words):
    *marks, message = output.splitlines()
    durable = int(marks[-1]) if marks else 0
    assert returncode == 4, output[-500:]
    assert f"{path}: writing failed" in message
    assert words in message
    report = inspect_file(path)
    assert report.ok, report
    assert report.intact >= durable
    with TrajectoryReader(path) as reader:
        assert all(same(item, expected(i)) for i, item in enumerate(reader))


@pytest.mark.parametrize("kibibytes", [520, 777, 1111])
def test_a_file_that_may_not_grow_stays_readable_up_to_its_last_commit(tmp_path, kibibytes):
    path = tmp_path / "n0.0.h5"
    child = start_child(path, "until-full", kibibytes * 1024)
    output, _ = child.communicate(timeout=60)
    check_full_disk(path, output, child.returncode, "File too large")


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a file system of so many KiB."""
    mounted = []

    def mount(kibibytes):
        folder = tmp_path / f"disk{kibibytes}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small tmpfs needs root")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("kibibytes", [700, 900, 1777])
def test_a_full_disk_is_named_and_costs_only_what_was_not_durable(small_disk, kibibytes):
    path = small_disk(kibibytes) / "n0.0.h5"
    child = start_child(path, "until-full")
    output, _ = child.communicate(timeout=60)
    check_full_disk(path, output, child.returncode, "No space left on device")


def test_a_disk_without_room_for_a_new_file_is_named_and_left_clean(small_disk):
    folder = small_disk(8)
    with pytest.raises(StoreError, match=r"n0\.0\.h5: cannot create the file: No space left on device"):
        TrajectoryWriter(folder / "n0.0.h5", **WRITER)
    assert list(folder.iterdir()) == []


def test_a_file_that_was_cut_off_is_reported_not_raised(tmp_path):
    path = tmp_path / "n0.0.h5"
    with TrajectoryWriter(path, **WRITER) as writer:
        for block in range(3):
            writer.append([trajectory(4 * block + i, tokens=20_000) for i in range(4)])
            writer.flush()
    size = path.stat().st_size
    whole = inspect_file(path)
    assert (whole.closed, whole.intact, whole.damaged, whole.truncated, whole.ok) == (True, 12, 0, 0, True)
    os.truncate(path, size // 2)
    cut = inspect_file(path)
    assert not cut.ok
    assert str(path) in cut.problem
    assert cut.intact < 12
    os.truncate(path, 20)
    assert "cut off within its first 48 bytes" in inspect_file(path).problem
    with pytest.raises(StoreError, match="cut off within"):
        is_closed(path)


def test_one_damaged_chunk_costs_only_its_trajectories(tmp_path):
    path = tmp_path / "n0.0.h5"
    with TrajectoryWriter(path, **WRITER) as writer:
        for block in range(3):
            writer.append([trajectory(4 * block + i, tokens=2000) for i in range(4)])
            writer.flush()
    with h5py.File(path) as file:
        chunk = file["tokens/ids"].id.get_chunk_info(1)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * chunk.size)
    report = inspect_file(path)
    assert (report.intact, report.damaged) == (8, 4)
    assert "tokens/ids" in report.problem
