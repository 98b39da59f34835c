"""`python -m tests.parity`: the published programs and ours on the same files, and by how much they differ.

    pip install --no-deps --target DIR decord einops simple-aesthetics-predictor  # what theirs import besides
    EDITVERSE_REPO=... V2VBENCH_REPO=... IMGEDIT_REPO=... PYTHONPATH=DIR make parity

EDITVERSE_REPO: adobe-research/EditVerse; V2VBENCH_REPO: wenhao728/awesome-diffusion-v2v; IMGEDIT_REPO:
PKU-YuanGroup/ImgEdit. Nothing is fetched; networks are tiny and random, of the published architectures;
videos are decoded by decord on their side, by PyAV on ours. Exit status 1 where a difference is above its
tolerance, 2 where no checkout is named or something that it imports is missing.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import json
import sys
import tempfile
from pathlib import Path

import rich
from rich.table import Table

from tests.parity.compare import Line, editverse, imgedit, v2vbench

PROGRAMS = {"EDITVERSE_REPO": editverse, "V2VBENCH_REPO": v2vbench, "IMGEDIT_REPO": imgedit}


def main() -> int:
    """Run the programs whose checkouts are named, print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="file for the values as JSON")
    out = parser.parse_args().out
    named = {name: Path(os.environ[name]) for name in PROGRAMS if os.environ.get(name)}
    if not named:
        print(f"error: name a checkout by one of {', '.join(PROGRAMS)}; see {__file__}", file=sys.stderr)
        return 2
    for name, repo in named.items():
        if not repo.is_dir():
            print(f"error: {name}={repo}: no folder", file=sys.stderr)
            return 2
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, repo in named.items():
            try:
                lines += PROGRAMS[name](repo, Path(scratch) / name)
            except ImportError as error:
                print(
                    f"error: {name}: its code asks for {error.name or error}: see {__file__}", file=sys.stderr
                )
                return 2
    rich.reconfigure(width=110)
    table = Table("program", "clip", "value", title="the mode official beside the published classes")
    for column in ("published", "ours", "apart", "at most"):
        table.add_column(column, justify="right")
    for line in lines:
        mark = "" if line.fits else "[red] above[/red]"
        values = (
            f"{line.published:.6f}",
            f"{line.ours:.6f}",
            f"{line.apart:.1e}",
            f"{line.tolerance:g}{mark}",
        )
        table.add_row(line.program, line.clip, line.name, *values)
    rich.print(table)
    missing = sorted(set(PROGRAMS) - set(named))
    print(f"{sum(line.fits for line in lines)} of {len(lines)} within tolerance", end="")
    print(f"; not run: {', '.join(missing)}" if missing else "")
    if out:
        Path(out).write_text(json.dumps([line._asdict() for line in lines], indent=1))
    return 0 if all(line.fits for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
