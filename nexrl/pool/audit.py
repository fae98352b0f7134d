"""Reads ledgers: what has become of every prompt."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from nexrl.errors import StoreError
from nexrl.pool.ledger import Entry


class LedgerAudit(msgspec.Struct, frozen=True, kw_only=True):
    """The sum of a run's ledgers."""

    issued: int
    """Accounts opened."""
    trained: int
    dropped: dict[str, int]
    """Reason → prompts."""
    open: tuple[str, ...]
    """Group ids without a terminal entry, in the order of their issue."""
    double_trained: tuple[str, ...]
    """Group ids that were trained in more than one step."""
    strays: tuple[str, ...]
    """Group ids with an entry that no `issued` precedes, or that follows a terminal one."""

    @property
    def is_settled(self) -> bool:
        """Every prompt has reached exactly one terminal state."""
        return not (self.open or self.double_trained or self.strays)


class LedgerReader:
    """The ledgers of a run folder's `ledger/`, while they are written or after."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def entries(self) -> list[Entry]:
        """Entries that count, in order: what a later attempt has superseded is left out, `rewound` included."""
        kept: list[tuple[tuple[int, int], Entry]] = []
        for attempt, path in self._files():
            for offset, entry in _lines(path):
                if entry.event == "rewound":
                    kept = [line for line in kept if line[0] < (entry.attempt, entry.offset)]
                else:
                    kept.append(((attempt, offset), entry))
        return [entry for _, entry in kept]

    def audit(self) -> LedgerAudit:
        """What has become of every prompt."""
        return audit(self.entries())

    def _files(self) -> list[tuple[int, Path]]:
        return sorted((int(path.stem), path) for path in self._folder.glob("*.jsonl") if path.stem.isdigit())


def audit(entries: Iterable[Entry]) -> LedgerAudit:
    """Balance the accounts; entries as `LedgerReader.entries` gives them."""
    issued = 0
    open_accounts: dict[str, None] = {}
    strays: dict[str, None] = {}
    trained: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    for entry in entries:
        name = entry.group_id
        if entry.event == "issued":
            issued += name not in open_accounts
            open_accounts[name] = None
            continue
        if name not in open_accounts:
            strays[name] = None
        if entry.event == "trained":
            trained[name] += 1
        if entry.event == "dropped":
            dropped[entry.reason] += 1
        if entry.event in ("trained", "dropped"):
            open_accounts.pop(name, None)
    return LedgerAudit(
        issued=issued,
        trained=trained.total(),
        dropped=dict(dropped),
        open=tuple(open_accounts),
        double_trained=tuple(name for name, times in trained.items() if times > 1),
        strays=tuple(strays),
    )


def _lines(path: Path) -> list[tuple[int, Entry]]:
    """Entries with their byte offsets in the file; a last line that a crash has cut off is left out."""
    decoder = msgspec.json.Decoder(Entry)
    found, offset = [], 0
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            found.append((offset, decoder.decode(line)))
        except msgspec.DecodeError as error:
            raise StoreError(f"{path}, line {number}: {error}; found {line[:80]!r}") from error
        offset += len(line) + 1
    return found
