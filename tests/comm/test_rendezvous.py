import os
import threading

import pytest

from nexrl.comm import announce, find_controller
from nexrl.errors import CommError, RoleError, RunFolderError

LONG = 30.0


def test_a_role_finds_the_controller_of_its_attempt(tmp_path):
    announce(tmp_path, "tcp://127.0.0.1:4000", "key", attempt=1)
    found = find_controller(tmp_path, 0, attempt=1)
    assert (found.address, found.public_key, found.attempt, found.pid) == (
        "tcp://127.0.0.1:4000",
        "key",
        1,
        os.getpid(),
    )
    assert [file.name for file in tmp_path.iterdir()] == ["controller.json"]


def test_a_stale_file_is_waited_out(tmp_path):
    announce(tmp_path, "tcp://127.0.0.1:4000", "old", attempt=1)
    later = threading.Timer(0.1, announce, (tmp_path, "tcp://127.0.0.1:5000", "new"), {"attempt": 2})
    later.start()
    assert find_controller(tmp_path, LONG, attempt=2).address == "tcp://127.0.0.1:5000"
    later.join()


def test_an_absent_controller_is_a_role_error_that_says_what_was_found(tmp_path):
    with pytest.raises(
        RoleError,
        match=r"controller-0 did not announce itself within 0 s \(launch\.start_timeout\): .*json: found no file",
    ):
        find_controller(tmp_path, 0, attempt=2)
    announce(tmp_path, "tcp://127.0.0.1:4000", "old", attempt=1)
    with pytest.raises(RoleError, match="found the file of attempt 1, needed that of attempt 2"):
        find_controller(tmp_path, 0, attempt=2)


def test_a_leftover_process_of_an_earlier_attempt_gives_up_at_once(tmp_path):
    announce(tmp_path, "tcp://127.0.0.1:4000", "new", attempt=3)
    with pytest.raises(CommError, match="attempt 3 runs now, this process belongs to 2"):
        find_controller(tmp_path, LONG, attempt=2)


@pytest.mark.parametrize("content", ["", "[]", '{"address": 1}', "\xff"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "controller.json").write_text(content, encoding="latin-1")
    with pytest.raises(CommError, match=r"controller.json: not a controller's announcement"):
        find_controller(tmp_path, LONG, attempt=1)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(RunFolderError, match=r"gone/controller.json: cannot write"):
        announce(tmp_path / "gone", "tcp://127.0.0.1:4000", "key", attempt=1)
