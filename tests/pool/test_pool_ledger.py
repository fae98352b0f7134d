"""The ledger: what is written, what counts, and what a crash leaves."""

import resource
import threading

import msgspec
import pytest

from nexrl.errors import RunFolderError, StoreError
from nexrl.pool import Ledger, LedgerReader


def test_a_settled_run(tmp_path):
    with Ledger(tmp_path, attempt=1) as ledger:
        for order, name in enumerate(("a", "b", "c")):
            ledger.issued(name, order)
        ledger.finished("a", 2)
        ledger.trained("a", 1)
        ledger.dropped("b", "group timeout", detail="engine gone")
        ledger.finished("c", 1)
        ledger.trained("c", 2)
    audit = LedgerReader(tmp_path).audit()
    assert audit.is_settled
    assert (audit.issued, audit.trained, audit.dropped) == (3, 2, {"group timeout": 1})


def test_lines_are_json_with_what_the_event_needs(tmp_path):
    with Ledger(tmp_path, attempt=1) as ledger:
        ledger.issued("a", 5)
        ledger.trained("a", 3)
    lines = [msgspec.json.decode(line) for line in (tmp_path / "1.jsonl").read_bytes().splitlines()]
    assert all(line.pop("t") > 0 for line in lines)
    assert lines == [
        {"event": "issued", "group_id": "a", "order": 5},
        {"event": "trained", "group_id": "a", "step": 3},
    ]


def test_what_does_not_balance_is_named(tmp_path):
    with Ledger(tmp_path, attempt=1) as ledger:
        ledger.issued("open", 0)
        ledger.issued("twice", 1)
        ledger.trained("twice", 1)
        ledger.trained("twice", 2)
        ledger.dropped("never issued", "x")
    audit = LedgerReader(tmp_path).audit()
    assert not audit.is_settled
    assert audit.open == ("open",)
    assert audit.double_trained == ("twice",)
    assert audit.strays == ("twice", "never issued")


def test_a_dropped_prompt_may_be_issued_again(tmp_path):
    with Ledger(tmp_path, attempt=1) as ledger:
        ledger.issued("a", 0)
        ledger.dropped("a", "stale")
        ledger.issued("a", 0)
        ledger.trained("a", 1)
    audit = LedgerReader(tmp_path).audit()
    assert audit.is_settled
    assert audit.issued == 2


def test_a_rewind_supersedes_what_came_after_the_checkpoint_over_attempts(tmp_path):
    with Ledger(tmp_path, attempt=1) as ledger:
        ledger.issued("a", 0)
        ledger.trained("a", 1)
        first = ledger.offset
        ledger.issued("b", 1)
    with Ledger(tmp_path, attempt=2) as ledger:
        ledger.issued("b", 1)
        second = ledger.offset
        ledger.trained("b", 2)
    with Ledger(tmp_path, attempt=3) as ledger:
        ledger.truncate_after(second, attempt=2)
        assert LedgerReader(tmp_path).audit().open == ("b",)
        ledger.trained("b", 2)
    assert LedgerReader(tmp_path).audit().is_settled
    with Ledger(tmp_path, attempt=4) as ledger:
        ledger.truncate_after(first, attempt=1)
        ledger.issued("b", 1)
        ledger.trained("b", 2)
    audit = LedgerReader(tmp_path).audit()
    assert audit.is_settled
    assert (audit.issued, audit.trained) == (2, 2)
    with Ledger(tmp_path, attempt=10) as ledger:
        ledger.truncate_after(0, attempt=0)
    assert LedgerReader(tmp_path).audit().issued == 0


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path):
    with Ledger(tmp_path, attempt=1) as ledger:
        ledger.issued("a", 0)
    with (tmp_path / "1.jsonl").open("ab") as file:
        file.write(b'{"t":1,"event":"tra')
    with Ledger(tmp_path, attempt=2) as ledger:
        ledger.trained("a", 1)
    assert LedgerReader(tmp_path).audit().is_settled


def test_a_damaged_line_is_named(tmp_path):
    with Ledger(tmp_path, attempt=1) as ledger:
        ledger.issued("a", 0)
    path = tmp_path / "1.jsonl"
    path.write_bytes(path.read_bytes() + b"garbage\n")
    with pytest.raises(StoreError, match=r"1\.jsonl, line 2"):
        LedgerReader(tmp_path).audit()


def test_an_attempt_is_written_once(tmp_path):
    Ledger(tmp_path, attempt=1).close()
    with pytest.raises(RunFolderError, match=r"1\.jsonl exists"):
        Ledger(tmp_path, attempt=1)


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="file"):
        Ledger(tmp_path / "file", attempt=1)


def test_a_full_disk_is_named_and_leaves_no_half_line(tmp_path):
    with Ledger(tmp_path, attempt=1) as ledger:
        ledger.issued("a", 0)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (ledger.offset + 10, hard))
        try:
            with pytest.raises(RunFolderError, match=r"1\.jsonl"):
                ledger.trained("a", 1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert LedgerReader(tmp_path).audit().open == ("a",)
        ledger.trained("a", 1)
    assert LedgerReader(tmp_path).audit().is_settled


def test_threads_do_not_mix_their_lines(tmp_path):
    with Ledger(tmp_path, attempt=1) as ledger:

        def write(thread):
            for number in range(200):
                ledger.issued(f"{thread}-{number}", number)
                ledger.trained(f"{thread}-{number}", 1)

        threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    audit = LedgerReader(tmp_path).audit()
    assert audit.is_settled
    assert audit.trained == 800
