"""`python -m tests.mutants`: apply each small wrong change to a copy of the tree and see that a test fails.

Exit status 1 if a mutant survives that is not argued to be equivalent, does not apply, or cannot be tried.
"""

from __future__ import annotations

import argparse
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from tests.mutants.mutant import ROOT, Mutant, all_mutants
from tests.mutants.run import Result, copies, prepare, run_tests, try_all


def table_of(mutants: list[Mutant]) -> str:
    """The mutants as a Markdown table, as docs/testing.md has it."""
    lines = ["| mutant | wrong because | caught by |", "|---|---|---|"]
    for mutant in mutants:
        tests = ", ".join(f"`{test.removeprefix('tests/')}`" for test in mutant.tests)
        note = f" (may survive: {mutant.equivalent})" if mutant.equivalent else ""
        lines.append(f"| `{mutant.file}` {mutant.name} | {mutant.wrong}{note} | {tests} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Parse the command line, try the mutants, print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="try only mutants with one of these in name or file")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time, each in its own copy (2)")
    parser.add_argument("--list", action="store_true", help="print the table for docs/testing.md and leave")
    arguments = parser.parse_args()
    words = arguments.names or [""]
    mutants = [m for m in all_mutants() if any(word in f"{m.file} {m.name}" for word in words)]
    if not mutants:
        parser.error(f"no mutant has {' or '.join(words)} in its name or file")
    if arguments.jobs < 1:
        parser.error(f"--jobs: needs at least 1, got {arguments.jobs}")
    if arguments.list:
        print(table_of(mutants), end="")
        return 0

    console = Console()
    console.width = max(console.width, 110)
    prepare()
    with copies(ROOT, min(arguments.jobs, len(mutants))) as trees:
        # a test that fails anyway catches nothing
        status, output = run_tests(trees[0], sorted({test for m in mutants for test in m.tests}))
        if status != 0:
            print(f"{output}\nerror: the tests fail, or do not run, without any mutant", file=sys.stderr)
            return 1
        results: list[Result] = []
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            bar = progress.add_task("mutants", total=len(mutants))
            for result in try_all(mutants, trees):
                results.append(result)
                progress.advance(bar)
    results.sort(key=lambda r: mutants.index(r.mutant))
    table = Table("mutant", "tests", "outcome", "seconds")
    table.columns[3].justify = "right"
    for result in results:
        mutant, marked = result.mutant, result.outcome if result.good else f"[red]{result.outcome}[/red]"
        table.add_row(
            f"{mutant.file}\n  {mutant.name}", "\n".join(mutant.tests), marked, f"{result.seconds:.1f}"
        )
    console.print(table)
    bad = [r for r in results if not r.good]
    for result in bad:
        print(f"{result.mutant.name}: {result.outcome}: {result.mutant.wrong}", file=sys.stderr)
        if result.outcome != "survived":
            print(result.output, file=sys.stderr)
    seconds = sum(r.seconds for r in results)
    console.print(
        f"{len(results) - len(bad)} of {len(results)} as they should be, {seconds:.0f} seconds of tests"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
