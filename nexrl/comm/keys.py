"""The secrets of one run: made once, kept in one file that only its owner reads, never printed."""

import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import msgspec
import zmq

from nexrl.errors import RunFolderError


@dataclass(frozen=True, kw_only=True)
class KeyPair:
    """A CURVE key pair; both keys are 40 characters of Z85."""

    public: str
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        for name in ("public", "secret"):
            key = getattr(self, name)
            if len(key) != 40:
                raise ValueError(f"{name}: found {len(key)} characters, needed 40 (a Z85 key)")
        if zmq.curve_public(self.secret.encode()) != self.public.encode():
            raise ValueError("public: not the public key of this secret key")

    @classmethod
    def generate(cls) -> Self:
        """A new pair."""
        public, secret = zmq.curve_keypair()
        return cls(public=public.decode(), secret=secret.decode())


@dataclass(frozen=True, kw_only=True)
class RunKeys:
    """Everything that opens a door of the run."""

    controller: KeyPair
    """Of every CURVE server of the run."""
    clients: KeyPair
    """Of every client of the run: servers admit this key only."""
    http_token: str = field(repr=False)
    """Bearer token of the run's HTTP servers."""

    @classmethod
    def generate(cls) -> Self:
        """New keys for a new run."""
        return cls(controller=KeyPair.generate(), clients=KeyPair.generate(), http_token=secrets.token_urlsafe(32))

    def save(self, path: Path) -> None:
        """Write JSON with mode 0600, by rename; raises RunFolderError where the folder is not writable."""
        partial = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(self)))
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise RunFolderError(f"{path}: cannot write the run's keys: {error.strerror}") from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """What `save` wrote; raises RunFolderError when it is missing, damaged, or readable by others."""
        try:
            with path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                text = file.read()
        except OSError as error:
            raise RunFolderError(f"{path}: cannot read the run's keys: {error.strerror}") from error
        if mode & 0o077:
            raise RunFolderError(f"{path}: mode {mode:04o}, needed 0600: others may have read the run's keys")
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.MsgspecError, ValueError) as error:
            raise RunFolderError(f"{path}: not the keys of a run: {error}") from error
