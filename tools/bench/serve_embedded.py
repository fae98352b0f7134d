"""The embedded engine behind its HTTP server, alone in a process, as the inference role runs it.

    python -m tools.bench.serve_embedded MODEL --threads 2 --sequences 64 --length 1024 [--deterministic]

Prints `{"url": …, "token": …}` when it takes requests; ends when its standard input is closed.
"""

import argparse
import secrets
import sys
from pathlib import Path

import msgspec
import torch

from nexrl.inference.embedded import EmbeddedEngine, EngineServer, load_engine_model


def main() -> None:
    """Command line. Consumes nothing; waits for the end of standard input, which its owner's end brings about too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    for name in ("threads", "sequences", "length"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--deterministic", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    engine = EmbeddedEngine(
        load_engine_model(arguments.model),
        max_num_seqs=arguments.sequences,
        max_model_len=arguments.length,
        deterministic=arguments.deterministic,
    )
    token = secrets.token_hex(16)
    server = EngineServer(engine, token=token).start()
    sys.stdout.write(msgspec.json.encode({"url": server.url, "token": token}).decode() + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
