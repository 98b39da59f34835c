"""`python -m benchmark study ...`: a human study from its definition to its ranking."""

from __future__ import annotations

from pathlib import Path

from benchmark.study.definition import read_definition


def create(definition: str = "study.yaml", out: str = "runs/mystudy", database: str | None = None) -> None:
    """Make a study: its videos, who compares what, and an empty database for the votes.

    Args:
        definition: YAML file of the study
        out: a new folder
        database: postgresql://USER@HOST/NAME; if not given, SQLite in the folder
    """
    from benchmark.study.creation import create_study  # SQLAlchemy, which other commands need not

    made = create_study(read_definition(Path(definition)), Path(out), database)
    trials = [len(seat) for seat in made.design.seats]
    print(f"{made.items} items, {len(trials)} raters with {max(trials)} pairs each")
    print(f"study: {made.folder}")
