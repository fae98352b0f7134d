"""`launch`, `comm`, `logger`, `runtime_monitor`: the run as a program."""

from dataclasses import dataclass, field
from typing import Literal

from nexrl.config.checks import require


@dataclass(frozen=True, kw_only=True)
class GroupConfig:
    """One rank group."""

    tasks: int = 1
    """Processes."""
    threads: int = 0
    """Compute threads of each (OMP_NUM_THREADS); 0 = the machine's cores shared out evenly over `tasks`."""

    def __post_init__(self) -> None:
        require(1 <= self.tasks <= 512, "tasks", found=self.tasks, needed="1 to 512")
        require(self.threads >= 0, "threads", found=self.threads, needed="0 (automatic) or more")


@dataclass(frozen=True, kw_only=True)
class GroupsConfig:
    """The rank groups; the controller and the recorder of each node come with `rollout`."""

    rollout: GroupConfig = field(default_factory=GroupConfig)
    inference: GroupConfig = field(default_factory=GroupConfig)
    trainer: GroupConfig = field(default_factory=GroupConfig)


@dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """How the run is started."""

    run_root: str = "runs"
    """Run folders are `<run_root>/<experiment_name>/<run id>`; relative to the working folder."""
    groups: GroupsConfig = field(default_factory=GroupsConfig)
    start_timeout: float = 180.0
    """Seconds within which every role must have registered."""
    stop_timeout: float = 30.0
    """Seconds for a clean end (a checkpoint included) before processes are killed."""

    def __post_init__(self) -> None:
        for key in ("start_timeout", "stop_timeout"):
            require(getattr(self, key) > 0, key, found=getattr(self, key), needed="seconds above 0")


@dataclass(frozen=True, kw_only=True)
class CommConfig:
    """Sockets between roles."""

    encrypt: Literal["commands", "all"] = "commands"
    """CURVE on command sockets, or on bulk sockets (trajectories) too, which costs 4 to 5 times."""
    interface: str = ""
    """IPv4 address of this machine that sockets bind to, or the name of the network interface that has it; empty =
    127.0.0.1 with `processes` and `local`."""
    call_timeout: float = 600.0
    """Seconds for a command to be answered."""

    def __post_init__(self) -> None:
        require(self.call_timeout > 0, "call_timeout", found=self.call_timeout, needed="seconds above 0")


@dataclass(frozen=True, kw_only=True)
class LoggerConfig:
    """Where metrics go besides `metrics.jsonl`."""

    backend: tuple[Literal["console", "wandb", "tensorboard"], ...] = ("console",)
    """`wandb` runs offline where there is no key."""


@dataclass(frozen=True, kw_only=True)
class ExceptionHandlingConfig:
    """What an error in a module does to the run."""

    policy: Literal["stop_on_error", "stop_on_critical", "continue"] = "stop_on_critical"
    """`stop_on_error`: any error ends the run; `stop_on_critical`: only one that the run cannot work around (a failed
    episode is retried); `continue`: report, and go on as long as anything can."""


@dataclass(frozen=True, kw_only=True)
class HealthCheckConfig:
    """Heartbeats."""

    check_interval: float = 2.0
    """Seconds between heartbeats."""
    timeout: float = 60.0
    """Seconds without one after which a role counts as hung."""

    def __post_init__(self) -> None:
        require(self.check_interval > 0, "check_interval", found=self.check_interval, needed="seconds above 0")
        needed = f"above check_interval = {self.check_interval}"
        require(self.timeout > self.check_interval, "timeout", found=self.timeout, needed=needed)


@dataclass(frozen=True, kw_only=True)
class RuntimeMonitorConfig:
    """Who watches the run."""

    exception_handling: ExceptionHandlingConfig = field(default_factory=ExceptionHandlingConfig)
    health_check: HealthCheckConfig = field(default_factory=HealthCheckConfig)
    stall_timeout: float = 900.0
    """Seconds without any progress after which the run ends with a diagnosis."""

    def __post_init__(self) -> None:
        require(self.stall_timeout > 0, "stall_timeout", found=self.stall_timeout, needed="seconds above 0")
