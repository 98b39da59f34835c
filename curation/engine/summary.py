"""The numbers of a run: counted from its outcomes, printed as a table, kept as `summary.json`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from curation.core.cache import Work
from curation.core.outcome import Outcome
from curation.engine.worker import unit_of


@dataclass
class Summary:
    """The numbers of a run: what its table shows and its `summary.json` holds.

    Clips that the filter refused, duplicates among them, are counted in `refused_clips` alone.
    """

    task: str
    config: str
    files: int
    engine: str = ""
    clips: int = 0
    source_frames: int = 0
    candidates: int = 0
    accepted: int = 0
    accepted_by_split: dict[str, int] = field(default_factory=dict)
    refused_clips: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    quarantined: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)  # files by suffix that are no videos
    samples: int = 0
    shards: int = 0
    seconds: float = 0.0
    seconds_per_clip: float = 0.0
    work_ms_per_source_frame: float = 0.0
    stages: dict[str, Work] = field(default_factory=dict)
    gpus: dict[str, float] = field(default_factory=dict)  # stage -> share of a GPU that a process of it held

    def add(self, outcome: Outcome) -> None:
        """Count what became of a clip."""
        clip = outcome.clip
        if outcome.error:
            self.quarantined.append(outcome.error)
        elif outcome.refused:
            self.refused_clips[outcome.refused] = self.refused_clips.get(outcome.refused, 0) + 1
        elif clip is not None:
            self.clips += 1
            self.source_frames += clip.frames
            self.candidates += len(outcome.candidates)
            for candidate in outcome.candidates:
                if candidate.error:
                    self.quarantined.append(f"{unit_of(outcome)}: {candidate.error}")
                elif candidate.reason:
                    self.rejected[candidate.reason] = self.rejected.get(candidate.reason, 0) + 1

    def accept(self, split: str) -> None:
        """Count an accepted candidate."""
        self.accepted += 1
        self.accepted_by_split[split] = self.accepted_by_split.get(split, 0) + 1

    @property
    def price(self) -> str:
        """Core-seconds of all stages for each accepted pair, with those of results that were found."""
        works = self.stages.values()
        total = sum(work.cpu_seconds + work.saved_cpu_seconds for work in works)
        unknown = sum(work.unpriced for work in works)
        more = f" and what {unknown} earlier results took, which is not known" if unknown else ""
        return f"{total / max(1, self.accepted):.2f}{more}"

    def finish(self, seconds: float) -> None:
        """Work out what follows from the counts, and put them in order."""
        self.accepted_by_split = dict(sorted(self.accepted_by_split.items()))
        self.refused_clips = dict(sorted(self.refused_clips.items()))
        self.rejected = dict(sorted(Counter(self.rejected).items(), key=lambda item: (-item[1], item[0])))
        self.seconds = round(seconds, 2)
        self.seconds_per_clip = round(seconds / max(1, self.clips), 2)
        cpu = sum(work.cpu_seconds for work in self.stages.values())
        self.work_ms_per_source_frame = round(1000 * cpu / max(1, self.source_frames), 2)
        for work in self.stages.values():
            for name, value in vars(work).items():
                setattr(work, name, round(value, 3))
        self.stages = dict(sorted(self.stages.items()))


def print_table(summary: Summary, out: object) -> None:
    """The table at the end of a run, on stdout; `out` is where its shards are."""
    table = Table(
        title=f"{summary.task}: {summary.files} file(s), {summary.clips} clip(s)", show_header=False
    )
    for reason, count in summary.refused_clips.items():
        table.add_row(f"clips refused: {reason}", str(count))
    table.add_row("candidates", str(summary.candidates))
    split = ", ".join(f"{n} {name}" for name, n in sorted(summary.accepted_by_split.items()))
    table.add_row("accepted", f"{summary.accepted}" + (f"  ({split})" if split else ""))
    for reason, count in summary.rejected.items():
        table.add_row(f"rejected: {reason}", str(count))
    table.add_row("quarantined", str(len(summary.quarantined)))
    for reason in summary.quarantined:
        table.add_row("", reason)
    table.add_row("samples, shards", f"{summary.samples}, {summary.shards}")
    table.add_row("seconds", f"{summary.seconds:.1f}  ({summary.seconds_per_clip:.1f} per clip)")
    table.add_row("work per source frame", f"{summary.work_ms_per_source_frame:.1f} ms")
    if summary.accepted:
        table.add_row("core-seconds per accepted pair", summary.price)
    for name, work in summary.stages.items():
        each = 1000 * work.cpu_seconds / max(1, summary.source_frames)
        table.add_row(f"  {name}", f"{work.computed} computed, {work.reused} reused, {each:.1f} ms")
    Console().print(table)
    if summary.accepted:
        Console().print(f"shards, contact.jpg, gallery.html, summary.json: {out}", soft_wrap=True)
