"""`python -m model`; the commands are in `model.cli`.

Thin on purpose.
"""

import sys

from shards.command import run_command


def command() -> int:
    """Import the commands and run one."""
    from model.cli import main  # takes seconds that Ctrl-C may fall into

    return main()


def main() -> int:
    """Entry point; returns the exit status."""
    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
