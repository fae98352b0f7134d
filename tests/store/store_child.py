"""A process that writes trajectories until it is told or made to stop: `store_child.py FILE MODE [LIMIT]`.

`endless`: appends until killed, printing the watermark. `until-full`: appends until the store fails, prints the message
too, and ends as a role does; LIMIT is the largest size of a file in bytes (0 = none).
"""

import resource
import sys
from pathlib import Path

from store_samples import WRITER, trajectory

from nexrl.errors import StoreError
from nexrl.store import TrajectoryWriter


def main() -> None:
    path, mode, limit = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    samples = [trajectory(i, tokens=200) for i in range(400)]
    writer = TrajectoryWriter(path, commit_bytes=20_000, commit_seconds=0.005, **WRITER)
    number = 0
    try:
        while True:
            appended = writer.append(samples[number % 390 : number % 390 + 7])
            number += 7
            if mode == "until-full":
                writer.wait_durable(appended, 30)
            elif appended > 100:
                writer.wait_durable(appended - 100, 30)
            sys.stdout.write(f"{writer.durable}\n")
            sys.stdout.flush()
    except StoreError as error:
        sys.stdout.write(f"{error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
