"""`controller.json`: how a role that was started finds its controller, through the run folder."""

import os
import secrets
import socket
import time
from pathlib import Path

import msgspec

from nexrl.errors import CommError, RoleError, RunFolderError

FILE = "controller.json"
_LOOK_EVERY_SECONDS = 0.02
"""A shared file system tells nobody of a rename, so waiting means looking."""


class ControllerAddress(msgspec.Struct, frozen=True, kw_only=True):
    """What the controller says of itself. Controller → all other roles."""

    address: str
    """Of its command socket."""
    public_key: str
    """CURVE key that this socket owns."""
    attempt: int
    """A file of an earlier attempt leads nowhere."""
    host: str
    pid: int


def announce(run_dir: Path, address: str, public_key: str, *, attempt: int) -> None:
    """Publish `controller.json` by rename; raises RunFolderError where the run folder is not writable."""
    entry = ControllerAddress(
        address=address, public_key=public_key, attempt=attempt, host=socket.gethostname(), pid=os.getpid()
    )
    path = run_dir / FILE
    partial = run_dir / f".{FILE}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(entry)))
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunFolderError(f"{path}: cannot write: {error.strerror}") from error


def find_controller(run_dir: Path, timeout: float, *, attempt: int) -> ControllerAddress:
    """The controller of `attempt`; waits for its announcement.

    Raises RoleError, naming what was found, when it has not come within `timeout` seconds (`launch.start_timeout`), and
    CommError at once when a later attempt has announced itself or the file is damaged.
    """
    path, found = run_dir / FILE, "no file"
    deadline = time.monotonic() + timeout
    while True:
        entry = _read(path)
        if entry is not None:
            if entry.attempt == attempt:
                return entry
            if entry.attempt > attempt:
                raise CommError(f"{path}: attempt {entry.attempt} runs now, this process belongs to {attempt}")
            found = f"the file of attempt {entry.attempt}"
        if time.monotonic() >= deadline:
            raise RoleError(
                f"controller-0 did not announce itself within {timeout:g} s (launch.start_timeout): {path}: found "
                f"{found}, needed that of attempt {attempt}"
            )
        time.sleep(_LOOK_EVERY_SECONDS)


def _read(path: Path) -> ControllerAddress | None:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CommError(f"{path}: cannot read: {error.strerror}") from error
    try:
        return msgspec.json.decode(text, type=ControllerAddress)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CommError(f"{path}: not a controller's announcement: {error}") from error
