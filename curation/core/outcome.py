"""What became of a clip so far: the row that goes from stage to stage, with references and never pixels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter

from curation.core.cache import Work
from curation.core.results import Candidate
from curation.core.stage import Item
from curation.sources.clip_filter import ClipStats
from curation.sources.clips import Clip


@dataclass
class Outcome:
    """What became of one clip (or of a file that gave none: then `clip` is None).

    Attributes:
        number: the place of its file among the run's sources and its own in the file, to sort by.
        siblings: clips that its file gave.
        error: why the clip is quarantined; fault: why the run cannot go on; refused: by the clip filter.
        items: what is still on its way through the stages.
        candidates: what is finished, in order.
        work: what each stage cost.
    """

    file: str
    clip: Clip | None = None
    number: tuple[int, int] = (0, 0)
    siblings: int = 0
    error: str = ""
    fault: str = ""
    refused: str = ""
    clip_stats: ClipStats | None = None
    items: list[Item] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    work: dict[str, Work] = field(default_factory=dict)

    @property
    def goes_on(self) -> bool:
        """Whether there is a clip that further stages work on."""
        return self.clip is not None and not (self.error or self.fault or self.refused)

    def to_row(self, root: Path) -> dict[str, str]:
        """As a row: one JSON column keeps the schema the same for every row.

        Args:
            root: `Workspace.local` here; folders are told relative to it, since another machine has its own.
        """
        told = [replace(c, folder=c.folder.relative_to(root)) if c.is_stored else c for c in self.candidates]
        row = asdict(replace(self, candidates=told))
        return {"outcome": json.dumps(row, default=str)}  # folders are paths

    @staticmethod
    def from_row(row: Mapping[str, str], root: Path) -> Outcome:
        """Inverse of `to_row`."""
        outcome = ROWS.validate_python(json.loads(row["outcome"]))
        outcome.candidates = [
            replace(c, folder=root / c.folder) if c.is_stored else c for c in outcome.candidates
        ]
        return outcome


ROWS = TypeAdapter(Outcome)
