"""`python -m launch.submit RECIPE [key=value …]`: start a run and watch it."""

import os
import sys

from nexrl.errors import EXIT_INTERRUPT, NexRLError


def main() -> None:
    """The command line: one message and a documented exit code for every error of ours (NEXRL_DEBUG=1: a traceback)."""
    try:
        from launch.command import app  # here, so that Ctrl-C while it is imported ends quietly, too

        app(prog_name="python -m launch.submit")
    except NexRLError as error:
        if os.environ.get("NEXRL_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPT)


if __name__ == "__main__":
    main()
