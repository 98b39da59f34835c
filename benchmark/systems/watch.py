"""Runs a program and ends with it, or kills it and all that it started when standard input ends.

`python watch.py words...`, started as the leader of a session whose standard input is a pipe: the pipe ends
with who holds its other side, however that ends, so no program is left behind to hold a GPU. Imports the
standard library alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def main() -> int:
    """The program's status; 128 + the number of the signal that killed it."""
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)

    def watch() -> None:
        os.read(0, 1)
        os.killpg(0, signal.SIGKILL)  # this process too

    threading.Thread(target=watch, daemon=True).start()
    status = process.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the thread still reads
