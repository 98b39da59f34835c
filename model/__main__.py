"""`python -m model`; the commands are in `model.cli`.

Thin on purpose.
"""

import sys

from model.cli import main

if __name__ == "__main__":
    sys.exit(main())
