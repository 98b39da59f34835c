"""What a mutant is, and where the tables of them are."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("model", "benchmark", "shards", "curation")


@dataclass(frozen=True)
class Mutant:
    """One wrong change of one line, and the tests that are nearest to it.

    Attributes:
        name: unique.
        file: from the repository's root.
        old, new: text that is in the file exactly once, and what stands there instead.
        tests: files or node ids; at least one of them must fail.
        wrong: why the change is wrong.
        equivalent: why no test can notice it; empty for nearly all. Such a mutant may survive.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    wrong: str
    equivalent: str = ""

    def source(self, root: Path) -> str:
        """The file's text with the change in it; raises ValueError where `old` is not there exactly once."""
        path = root / self.file
        if not path.is_file():
            raise ValueError(f"{self.name}: {self.file}: no such file")
        text = path.read_text()
        if text.count(self.old) != 1:
            raise ValueError(
                f"{self.name}: {self.file} has {self.old!r} {text.count(self.old)} times, not once"
            )
        return text.replace(self.old, self.new)


def all_mutants() -> list[Mutant]:
    """Of all packages; the table of a package is the module of its name in this folder."""
    tables = [importlib.import_module(f"tests.mutants.{package}").MUTANTS for package in PACKAGES]
    return [mutant for table in tables for mutant in table]
