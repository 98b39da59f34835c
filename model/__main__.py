"""`python -m model`; the commands are in `model.cli`.

Thin on purpose.
"""

import sys

from model.cli import main
from shards.command import run_command


def command() -> int:
    """Import the commands, which takes seconds that Ctrl-C may fall into, and run one."""
    return main()


if __name__ == "__main__":
    sys.exit(run_command(command))
