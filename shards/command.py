"""What every command of ours has in common: its parser, and how it ends.

A user's fault is one line on stderr and exit status 2; a fault of ours keeps its traceback; Ctrl-C is one
line and status 130; a reader that goes away (`| head`) is no error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import jsonargparse

from shards.errors import EditVerseError


class Parser(jsonargparse.ArgumentParser):
    """jsonargparse's parser, whose errors are one line without the usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the error as one line and exit with status 2."""
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        words = "; ".join(line.strip() for line in message.splitlines() if line.strip())
        print(f"error: {words} (see {parser.prog.replace(' [options]', '')} --help)", file=sys.stderr)
        raise SystemExit(2)


def run_command(command: Callable[[], Any], resumes: bool = True) -> int:
    """Run a command to its end and return its exit status.

    Args:
        command: parses the command line and does the work; returns a status or None.
        resumes: the same command goes on after Ctrl-C, and the line says so.
    """
    try:
        status = int(command() or 0)
        sys.stdout.flush()
        return status
    except EditVerseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read our output has left. Python would say so once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted" + ("; run the same command again to go on" if resumes else ""), file=sys.stderr)
        return 130
