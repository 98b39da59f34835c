"""The tiny study that tests make, in one place: one pair of each kind beside those that count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmark.study.definition import StudyDefinition


def tiny(name: str, root: Path, results: dict[str, Path], **changes: Any) -> StudyDefinition:
    """A definition over the benchmark in `root`/data and folders of results by method."""
    return StudyDefinition(
        name=name,
        data=str(root / "data"),
        methods={method: str(folder) for method, folder in results.items()},
        practice=1,
        gold_ties=1,
        gold_losses=1,
        repeats=1,
        **{"height": 32, **changes},
    )
