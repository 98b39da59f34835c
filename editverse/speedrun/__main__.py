"""`python -m editverse.speedrun`; see `cli`."""

from __future__ import annotations

import sys

from editverse.speedrun.cli import main

if __name__ == "__main__":
    sys.exit(main())
