"""Grades the samples of a folder: a task whose units are samples and whose stages are graders.

Every grader is a stage with results of its own in the workspace, so that a new one computes nothing anew and
a run that was killed goes on. What comes out are columns of scores beside the shards (`shards.scores`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from curation.core.cache import Workspace
from curation.core.results import Candidate, StageResult
from curation.core.stage import Item, Results, Stage
from curation.core.task import Task
from curation.quality.pairs import Pair, read_pair
from curation.quality.signals import Grader
from curation.sources.clips import Clip
from curation.sources.listing import Sources
from shards.errors import SettingError
from shards.hashing import digest
from shards.manifest import read_manifest
from shards.reader import ShardSet
from shards.sample import Sample


@dataclass(frozen=True, kw_only=True)
class Measured(StageResult):
    """What a grader measured of a sample; `marks` are for the comparison with others."""

    values: dict[str, float | None]
    marks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Graded:
    """All that was measured of a sample: signal -> value, and grader -> marks."""

    values: dict[str, float | None]
    marks: dict[str, list[str]]


class Grading(Task):
    """Every sample of a folder, graded.

    Args:
        graders: what measures.
        shards: folder or URL of the samples.
        signals: names of those that are wanted; all when empty. Graders of none of them are left out.
    """

    name = "grade"
    from_files = False

    def __init__(self, graders: list[Grader], shards: str = "", signals: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.shards = shards
        if not graders:
            raise SettingError("graders: name at least one")
        known = [signal.name for grader in graders for signal in grader.signals]
        if twice := sorted({name for name in known if known.count(name) > 1}):
            raise SettingError(f"graders: two measure {twice[0]!r}")
        if unknown := sorted(set(signals) - set(known)):
            raise SettingError(f"--signals {unknown[0]}: no such signal; there are: {', '.join(known)}")
        self.wanted = tuple(name for name in known if not signals or name in signals)
        self.graders = [one for one in graders if any(signal.name in self.wanted for signal in one.signals)]

    def find(self, clips: str = "") -> Sources:
        """The shards of the folder; ShardError where there are none."""
        return Sources(tuple(f"{self.shards}/{row.shard}" for row in read_manifest(self.shards)))

    def units(self, source: str, space: Workspace) -> list[Clip]:
        """The samples of a shard; what is measured of one is kept by its content, wherever it lies."""
        opened, shard = _opened(self.shards), source.rpartition("/")[2]
        numbers = opened.shards.tolist()
        place = [opened.columns.names[number].decode() for number in numbers].index(shard)
        first, count = opened.first(place), opened.counts()[place]
        return [self._unit(opened.sample(number)) for number in range(first, first + count)]

    def _unit(self, sample: Sample) -> Clip:
        """A sample as a clip whose key is a digest of all that its signals depend on."""
        media = {name: one.sha256 for name, one in sample.media.items()}
        key = digest([sample.key, sample.task, sample.text, sample.targets, media])
        shape = sample.media[sample.targets[0]]
        size = shape.frames, 1.0, shape.height, shape.width
        return Clip(f"{self.shards}#{sample.key}", key, sample.key, 0, *size, sample.split)

    def stages(self) -> list[Stage]:
        """A stage for each grader; what they found is put together after the last."""
        last = len(self.graders) - 1
        return [
            Stage(
                name=grader.name,
                run=functools.partial(_measure, grader),
                result=Measured,
                annotators=[grader],
                recipe=Measured,  # so that a result depends on its own grader's code alone
                decide=self._together if number == last else None,
            )
            for number, grader in enumerate(self.graders)
        ]

    def _together(self, clip: Clip, item: Item, results: Results) -> list[Item | Candidate]:
        values: dict[str, JsonValue] = {}
        marks: dict[str, JsonValue] = {}
        for name in results:
            found: Measured = results[name]
            values |= found.values
            marks[name] = [*found.marks]
        return [Candidate(about={"values": values, "marks": marks})]


def _measure(grader: Grader, clip: Clip, folder: Path) -> Measured:
    """The result of a grader for a sample."""
    pair = _pair(clip.source)
    values = {name: _number(value) for name, value in grader.measure(pair).items()}
    marks: Callable[[Pair], list[str]] = getattr(grader, "marks", lambda pair: [])
    return Measured(values=values, marks=marks(pair))


def _number(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)


@functools.lru_cache(maxsize=1)
def _pair(source: str) -> Pair:
    """The pair of a sample; kept for the next grader."""
    shards, _, key = source.rpartition("#")
    return read_pair(_opened(shards)[key])


@functools.lru_cache(maxsize=2)
def _opened(shards: str) -> ShardSet:
    return ShardSet(shards)


def graded(candidates: Sequence[Candidate]) -> Graded | None:
    """What was measured of a sample, by its outcome's candidates; None where a grader failed."""
    done = [one for one in candidates if not one.error]
    return done[0].details(Graded) if done else None
