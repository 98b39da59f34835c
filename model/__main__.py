"""`python -m model`; the commands are in `model.cli`.

Thin on purpose.
"""

import gc
import os
import sys

from shards.command import run_command


def command() -> int:
    """Import the commands and run one."""
    # what modules are made of stays: looking for garbage in it takes a fifth of their import
    gc.disable()
    try:
        from model.cli import main  # takes seconds that Ctrl-C may fall into
    finally:
        gc.enable()
    return main()


def main() -> int:
    """Entry point of a process; returns the exit status."""
    edits = sys.argv[1:2] == ["edit"]
    if edits:
        # Decoding, sampling and encoding share the cores: a thread that spins until its next piece of work,
        # as OpenMP's do, takes one from the others. It is read when PyTorch is loaded.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    status = run_command(command)
    if edits:
        # Garbage is not looked for on the way out, which takes half a second; training's Triton wants it.
        gc.freeze()
    return status


if __name__ == "__main__":
    sys.exit(main())
