"""Engines behind HTTP, each in processes of its own, for as long as a `with` block lasts."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from nexrl.errors import ConfigError, RoleError

_SEQUENCES, _LENGTH = "64", "1024"
"""Sequences at once and tokens of each, at most; the same for every engine."""
_START_SECONDS = 300.0
"""vLLM's first start on a machine took 95 s on two busy cores."""
_STOP_SECONDS = 20.0
_VLLM = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "600",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
}
"""1 GiB of cache is 60 times what 64 sequences of the tiny model fill. Its server stands still for some seconds now and
then, and would close connections over that after 5. Threads and cores are vLLM's own choice: of two
cores one for the model, one for its scheduler. Both for the model, bound or not, was slower (3,000 and 5,000 tokens/s
against 7,000 at 64 requests at once)."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """A server that takes requests."""

    name: str
    url: str
    token: str
    """Bearer token; empty = none."""
    model: str


@contextmanager
def embedded(model: Path, *, threads: int, log: Path, deterministic: bool = False) -> Iterator[Served]:
    """Our engine, on so many threads. Raises RoleError where it does not come up."""
    command = [sys.executable, "-m", "tools.bench.serve_embedded", str(model), "--threads", str(threads)]
    command += ["--sequences", _SEQUENCES, "--length", _LENGTH]
    if deterministic:
        command.append("--deterministic")
    quiet = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    with log.open("wb") as errors, _process(command, quiet, subprocess.PIPE, errors.fileno()) as process:
        line = process.stdout.readline() if process.stdout else b""
        if not line:
            raise RoleError(f"the embedded engine ended before it took requests; see {log}")
        said = msgspec.json.decode(line, type=dict[str, str])
        name = "embedded, deterministic" if deterministic else "embedded"
        yield Served(name=name, url=said["url"], token=said["token"], model="policy")


@contextmanager
def vllm(model: Path, *, environment: Path, log: Path) -> Iterator[Served]:
    """The vllm-cpu of a virtual environment. Raises ConfigError where that has none, RoleError where it does not come
    up."""
    program = environment / "bin" / "vllm"
    if not program.exists():
        raise ConfigError(f"found no {program}; `make engines` makes it")
    port, served = _free_port(), f"bench-{os.getpid()}"
    command = [str(program), "serve", str(model), "--served-model-name", served]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"]
    command += ["--max-model-len", _LENGTH, "--max-num-seqs", _SEQUENCES]
    with log.open("wb") as output, _process(command, _VLLM, output.fileno(), output.fileno()) as process:
        url = f"http://127.0.0.1:{port}"
        _wait_until_served(f"{url}/v1/models", served, process, log)
        yield Served(name="vllm-cpu", url=url, token="", model=served)


@contextmanager
def _process(
    command: Sequence[str], said: Mapping[str, str], output: int, errors: int
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that leads a session of its own; all of that is gone when the block ends."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **said},
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=errors,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_served(url: str, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until `url` lists the model `name`, which no stranger on that port would; ended by the process's end and by a
    deadline, both RoleError."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if name.encode() in answer.read():
                return
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(0.5)
            raise RoleError(f"vllm ended with exit code {code} before it took requests; see {log}")
    raise RoleError(f"vllm took no requests within {_START_SECONDS:g} s; see {log}")


def _free_port() -> int:
    """A port that is free now: vLLM cannot be told to take any and to say which."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
