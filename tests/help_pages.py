"""`python -m tests.help_pages model`: print all pages of a package's help, as they come in this terminal.

In one process, since each page takes seconds to import what its package needs. Every page follows a line
that names the words that ask for it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
from collections.abc import Iterator

MARK = "@@ "
COMMANDS = re.compile(r"^    (\w+)(?:  |$)", re.MULTILINE)
CLASSES = re.compile(r"^  (--[\w.]+\.help)  ", re.MULTILINE)


def page(package: str, words: list[str]) -> str:
    """What the package's entry point prints for these words, which must end well."""
    sys.argv = [f"python -m {package}", *words]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            status = importlib.import_module(f"{package}.__main__").main()
        except SystemExit as error:
            status = error.code
    assert not status, (words, status)
    return printed.getvalue()


def sections(text: str) -> list[str]:
    """The sections that a page names."""
    _, _, listed = text.partition("\nsections, ")
    return re.findall(r"^  (\S+)", listed, re.MULTILINE)


def pages(package: str, command: list[str]) -> Iterator[tuple[list[str], str]]:
    """The pages of a command, of its sections and of its subcommands."""
    queue = [[*command, "--help"]]
    while queue:
        words = queue.pop(0)
        text = page(package, words)
        yield words, text
        queue += [[*command, f"--help={name}"] for name in sections(text)]
        if "Available subcommands:" not in text:  # classes of settings, as jsonargparse shows them
            queue += [[*command, option] for option in CLASSES.findall(text)]
    if "Available subcommands:" in text:
        for name in COMMANDS.findall(text.partition("Available subcommands:")[2]):
            yield from pages(package, [*command, name])
    else:
        yield (words := [*command, "--help=all"]), page(package, words)


def main() -> None:
    """Print the pages, the package being the first word of the command line."""
    package, *command = sys.argv[1:]
    if package == "editverse":
        found: Iterator[tuple[list[str], str]] = (
            (words, page(package, words)) for words in (["--help"], *([name, "--help"] for name in command))
        )
    else:
        found = pages(package, command)
    for words, text in found:
        print(f"{MARK}{package} {' '.join(words)}\n{text}")


if __name__ == "__main__":
    main()
