"""Who this process is, as its launcher said: read once from the environment, never guessed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from nexrl.cluster.roles import Role
from nexrl.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One process of a run; `environment()` of a launcher and `from_env()` of a role agree on the variables."""

    role: Role
    """NEXRL_ROLE."""
    group: str
    """NEXRL_GROUP: the rank group that this process was placed with."""
    rank: int
    """NEXRL_RANK, among the processes of this role."""
    world_size: int
    """NEXRL_WORLD_SIZE: processes of this role."""
    local_rank: int
    """NEXRL_LOCAL_RANK, among the processes of this group on this host: which of its GPUs is mine."""
    attempt: int
    """NEXRL_ATTEMPT: 1 for a new run folder, +1 for each resume."""
    threads: int
    """NEXRL_THREADS: compute threads."""
    run_dir: Path
    """NEXRL_RUN_DIR."""
    host_address: str = "127.0.0.1"
    """NEXRL_HOST_ADDRESS: the address at which other roles reach this host; sockets bind to it."""

    def __post_init__(self) -> None:
        _require(bool(self.group), "NEXRL_GROUP", self.group, "a name")
        _require(self.world_size >= 1, "NEXRL_WORLD_SIZE", self.world_size, "at least 1")
        _require(0 <= self.rank < self.world_size, "NEXRL_RANK", self.rank, f"0 to {self.world_size - 1}")
        _require(self.local_rank >= 0, "NEXRL_LOCAL_RANK", self.local_rank, "0 or more")
        _require(self.attempt >= 1, "NEXRL_ATTEMPT", self.attempt, "at least 1")
        _require(self.threads >= 1, "NEXRL_THREADS", self.threads, "at least 1")
        _require(bool(self.host_address), "NEXRL_HOST_ADDRESS", self.host_address, "an address")

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """The identity in `environ`; raises ConfigError naming the variable that is missing or malformed."""
        role, roles = _text(environ, "NEXRL_ROLE"), [str(role) for role in Role]
        _require(role in roles, "NEXRL_ROLE", role, "one of " + ", ".join(roles))
        return cls(
            role=Role(role),
            group=_text(environ, "NEXRL_GROUP"),
            rank=_number(environ, "NEXRL_RANK"),
            world_size=_number(environ, "NEXRL_WORLD_SIZE"),
            local_rank=_number(environ, "NEXRL_LOCAL_RANK"),
            attempt=_number(environ, "NEXRL_ATTEMPT"),
            threads=_number(environ, "NEXRL_THREADS"),
            run_dir=Path(_text(environ, "NEXRL_RUN_DIR")),
            host_address=environ.get("NEXRL_HOST_ADDRESS", "127.0.0.1"),
        )

    def environment(self) -> dict[str, str]:
        """The variables that `from_env` reads."""
        return {
            "NEXRL_ROLE": str(self.role),
            "NEXRL_GROUP": self.group,
            "NEXRL_RANK": str(self.rank),
            "NEXRL_WORLD_SIZE": str(self.world_size),
            "NEXRL_LOCAL_RANK": str(self.local_rank),
            "NEXRL_ATTEMPT": str(self.attempt),
            "NEXRL_THREADS": str(self.threads),
            "NEXRL_RUN_DIR": str(self.run_dir),
            "NEXRL_HOST_ADDRESS": self.host_address,
        }

    @property
    def name(self) -> str:
        """`<role>-<rank>`: in messages, log files and on sockets."""
        return f"{self.role}-{self.rank}"


def _require(ok: bool, variable: str, found: object, needed: str) -> None:
    if not ok:
        raise ConfigError(f"found {found!r}, needed {needed}", key=variable)


def _text(environ: Mapping[str, str], variable: str) -> str:
    value = environ.get(variable, "")
    _require(bool(value), variable, value, "a value: roles are started by a launcher (python -m launch.submit)")
    return value


def _number(environ: Mapping[str, str], variable: str) -> int:
    text = _text(environ, variable)
    _require(text.isascii() and text.isdigit(), variable, text, "a whole number")
    return int(text)
