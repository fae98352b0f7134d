"""How far a run is, and what a checkpoint says of it."""

from typing import Self

import msgspec

from nexrl.data import LoaderState

FORMAT = 1


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of a run. `step` training steps are done; the policy's weight version is the same number."""

    step: int = 0
    tokens: int = 0
    """Tokens trained on (loss mask 1)."""
    trajectories: int = 0

    @property
    def version(self) -> int:
        """Weight version of the policy."""
        return self.step

    def advanced(self, *, tokens: int, trajectories: int) -> Self:
        """After one more training step."""
        return msgspec.structs.replace(
            self, step=self.step + 1, tokens=self.tokens + tokens, trajectories=self.trajectories + trajectories
        )


class ControllerState(msgspec.Struct, frozen=True, kw_only=True):
    """`state.json` of a checkpoint: everything that is not weights or optimizer."""

    format: int
    progress: Progress
    loader: LoaderState
    """Position in the data; prompts that were issued but not trained stand in its replay queue."""
    open_groups: tuple[str, ...]
    """Prompts that the ledger has issued, but neither trained nor dropped."""
    ledger_offset: int
    attempt: int
