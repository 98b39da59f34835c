"""Recipes whose units are no video files: scenes of computer graphics, and samples that another task made."""

from __future__ import annotations

import functools
from pathlib import Path

from curation.core.cache import Workspace
from curation.core.results import Candidate
from curation.core.task import Task
from curation.sources.clips import Clip
from curation.sources.listing import Sources
from shards.hashing import digest
from shards.index import IndexEntry
from shards.location import ShardError, StoreError
from shards.manifest import read_manifest
from shards.reader import Record, ShardSet
from shards.sample import Provenance, Step


class DerivedTask(Task):
    """A task over finished samples of other tasks, whose media it uses again.

    Args:
        parents: folders or URLs of shards of those tasks.
        tasks: of the samples that are taken; subclasses have their own default.
        endings: of the keys of those samples; all where there are none.
    """

    from_files = False
    note = "made from the samples of other tasks; --clips is not looked at"

    def __init__(
        self, parents: tuple[str, ...], tasks: tuple[str, ...], endings: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.parents, self.tasks, self.endings = tuple(parents), tuple(tasks), tuple(endings)

    def find(self, clips: str) -> Sources:
        """The parents' shards; ShardError for a parent that is not there."""
        found: list[str] = []
        for folder in self.parents:
            try:
                found += [f"{folder}/{row.shard}" for row in read_manifest(folder)]
            except StoreError:
                raise
            except ShardError as error:
                raise ShardError(f"{error} `make curate TASK={Path(folder).name}` makes it") from None
        return Sources(tuple(found))

    def units(self, source: str, space: Workspace) -> list[Clip]:
        """The samples of a shard that are taken, as clips."""
        folder, _, shard = source.rpartition("/")
        made = []
        opened = _open(folder)
        digests = {row.shard: row.sha256 for row in opened.rows}
        split = shard.rpartition("-")[0]
        for key in opened.keys:
            entry = opened.entry(key)
            if entry.split == split and self.takes(entry) and opened.shard_of(key) == shard:
                _, frames, height, width = next(iter(entry.media.values()))
                unit = digest([digests[shard], key])
                made.append(Clip(f"{folder}#{key}", unit, key, 0, frames, 1.0, height, width, split))
        return made

    def takes(self, entry: IndexEntry) -> bool:
        """Whether a parent's sample is taken."""
        return entry.task in self.tasks and (not self.endings or entry.key.endswith(self.endings))

    def record(self, clip: Clip) -> Record:
        """The parent's sample."""
        folder, _, key = clip.source.rpartition("#")
        return _open(folder)[key]

    def is_named(self, clip: Clip) -> bool:
        """Whether words alone say what the parent's sample is about: its sibling has no mask in its text."""
        folder, _, key = clip.source.rpartition("#")
        return key.removesuffix("-mask") in _open(folder).keys

    def provenance(self, clip: Clip, candidate: Candidate, steps: list[Step]) -> Provenance:
        """The parent's, and our own steps after its."""
        parent = self.record(clip).sample
        return Provenance(
            clip=parent.provenance.clip,
            steps=[*parent.provenance.steps, *steps],
            given={**parent.provenance.given, **candidate.given},
            parents=(parent.key,),
        )


@functools.lru_cache(maxsize=8)
def _open(folder: str) -> ShardSet:
    return ShardSet(folder)
