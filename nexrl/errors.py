"""Every error that a user can meet, in one tree; each class has the process exit code it ends a run with.

    NexRLError                    1   anything of ours that has no better name
    ├── ConfigError               2   a recipe, an override or a command line is wrong (also a ValueError)
    ├── DataError                 3   a dataset file or row cannot be used
    ├── RunFolderError            4   run folder occupied, not writable, or the disk is full
    ├── CheckpointError           4   a checkpoint is missing, incomplete or does not fit
    ├── StoreError                4   a trajectory file cannot be read or written
    ├── RoleError                 5   a role died, or never came up
    ├── StallError                6   nothing moved for longer than the watchdog allows
    ├── CommError                 6   a peer did not answer by the deadline, or spoke nonsense
    ├── TrainingError             7   non-finite loss, or a trainer rank failed
    ├── InferenceError            8   an engine failed a request for good
    │   └── RefusedRequestError   8   an engine called a request wrong (HTTP 4xx)
    ├── RewardError               9   an evaluator raised, or returned something that is not a finite number
    └── WeightSyncError          10   a weight update failed or did not match its checksum

Exit codes outside the tree: 0 finished; 130 ended by Ctrl-C and 143 by SIGTERM, both after a checkpoint.
A message says what was found, what was needed, and which key, file or role it concerns.
"""

EXIT_OK = 0
EXIT_INTERRUPT = 130
EXIT_TERMINATED = 143


class NexRLError(Exception):
    """Root of the tree."""

    exit_code = 1


class ConfigError(NexRLError, ValueError):
    """A recipe key, an override or a command line is wrong. `key` is its dotted path where one is known."""

    exit_code = 2

    def __init__(self, message: str, *, key: str = "") -> None:
        super().__init__(f"{key}: {message}" if key else message)
        self.key = key
        self.reason = message

    def under(self, prefix: str) -> "ConfigError":
        """The same error with `prefix` put before its key."""
        return ConfigError(self.reason, key=".".join(part for part in (prefix, self.key) if part))


class DataError(NexRLError):
    """A dataset file or row cannot be used."""

    exit_code = 3


class RunFolderError(NexRLError):
    """A run folder is occupied or not writable, or its disk is full."""

    exit_code = 4


class CheckpointError(NexRLError):
    """A checkpoint is missing, incomplete or does not fit this run."""

    exit_code = 4


class StoreError(NexRLError):
    """A trajectory file cannot be read or written."""

    exit_code = 4


class RoleError(NexRLError):
    """A role died, or never came up."""

    exit_code = 5


class StallError(NexRLError):
    """Nothing moved for longer than the watchdog allows."""

    exit_code = 6


class CommError(NexRLError):
    """A peer did not answer by the deadline, or sent something that cannot be understood."""

    exit_code = 6


class TrainingError(NexRLError):
    """A training step cannot be trusted: non-finite loss or gradient, or a rank failed."""

    exit_code = 7


class InferenceError(NexRLError):
    """An engine refused a request, or failed it for good."""

    exit_code = 8


class RefusedRequestError(InferenceError):
    """An engine called a request wrong (HTTP 4xx): no other attempt, and no other engine, will take it."""


class RewardError(NexRLError):
    """An evaluator raised, or returned something that is not a finite number."""

    exit_code = 9


class WeightSyncError(NexRLError):
    """A weight update failed, timed out, or did not match its checksum."""

    exit_code = 10


def error_named(reason: str, *, otherwise: type[NexRLError] = NexRLError, where: str = "") -> NexRLError:
    """The error that `<ErrorClass>: <message>` names, with `where` behind its message; `otherwise`, with the whole
    reason, where the class is none of this tree."""
    name, _, message = reason.partition(": ")
    kind = globals().get(name)
    if isinstance(kind, type) and issubclass(kind, NexRLError):
        return kind(f"{message}{where}")
    return otherwise(f"{reason}{where}")
