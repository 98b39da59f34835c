"""Which samples belong to a mixture's rows, from the columns of their folders: nothing is held per sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from model.data.mixture import DatasetConfig
from shards.errors import ConfigError
from shards.index import IndexEntry
from shards.location import ShardError
from shards.reader import NoSplitError, Record, ShardSet
from shards.scores import open_scores

Ints = NDArray[np.int64]


class RowSamples:
    """The samples of a row, numbered folder by folder and shard by shard.

    Attributes:
        sizes: int64, samples of each shard that has any.
    """

    def __init__(self, row: DatasetConfig, folders: Sequence[ShardSet]) -> None:
        self._row, self._folders = row, list(folders)
        self._chosen: list[NDArray[np.bool_]] = []  # by folder and label
        self._scores = [self._open_scores(shards) for shards in self._folders]
        self._scored_kinds: list[NDArray[np.bool_]] = []  # by folder and kind: whether a sample has it
        owners, numbers, sizes = [], [], []
        for which, shards in enumerate(self._folders):
            labels = shards.columns.labels
            chosen = np.array([row.holds(label.task, "<mask>" * label.masked) for label in labels], bool)
            self._chosen.append(chosen)
            counts = self._counts(which)
            (some,) = counts.nonzero()
            owners.append(np.full(len(some), which, np.int64))
            numbers.append(some)
            sizes.append(counts[some])
        nothing = [np.zeros(0, np.int64)]
        self._owners, self._numbers = np.concatenate(owners + nothing), np.concatenate(numbers + nothing)
        self.sizes: Ints = np.concatenate(sizes + nothing)
        self._ends = np.cumsum(self.sizes)

    def _open_scores(self, shards: ShardSet) -> dict[str, NDArray[np.float32]]:
        """The columns of the scores that samples are chosen by, mapped."""
        if not self._row.scores:
            return {}
        scores = open_scores(shards.location.folder)
        return {name: scores.column(name) for name in self._row.scores}

    def _counts(self, which: int) -> Ints:
        """Samples of each shard of a folder that belong to the row, int64."""
        shards, chosen = self._folders[which], self._chosen[which]
        of_label = shards.columns.counts[shards.shards]
        if not self._row.scores:
            return of_label[:, chosen].sum(1, dtype=np.int64)
        counts = np.zeros(len(shards.shards), np.int64)
        has = np.zeros(len(shards.columns.label_of_kind), bool)
        for number in np.flatnonzero(of_label[:, chosen].any(1)).tolist():
            kinds = shards.columns.kinds(int(shards.shards[number]))
            belongs = self._belongs(which, number, kinds)
            counts[number] = belongs.sum()
            has[kinds[belongs]] = True
        self._scored_kinds.append(has)
        return counts

    def _belongs(self, which: int, number: int, kinds: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Which samples of a shard belong to the row, whose kinds are given; bool [samples of the shard]."""
        shards = self._folders[which]
        belongs = self._chosen[which][shards.columns.label_of_kind[kinds]]
        first = shards.columns.first(int(shards.shards[number]))
        for name, column in self._scores[which].items():
            values = column[first : first + len(kinds)]  # a null score is NaN, which passes no bound
            if name in self._row.min_scores:
                belongs = belongs & (values >= np.float32(self._row.min_scores[name]))
            if name in self._row.max_scores:
                belongs = belongs & (values <= np.float32(self._row.max_scores[name]))
        return belongs

    def __len__(self) -> int:
        return int(self.sizes.sum())

    def locate(self, index: int) -> tuple[ShardSet, int]:
        """The folder of sample `index` of the row, and its number there."""
        at = int(np.searchsorted(self._ends, index, side="right"))
        which, number = int(self._owners[at]), int(self._numbers[at])
        shards = self._folders[which]
        place = index - int(self._ends[at] - self.sizes[at])
        if not self._chosen[which].all() or self._scores[which]:
            kinds = shards.columns.kinds(int(shards.shards[number]))
            place = int(np.flatnonzero(self._belongs(which, number, kinds))[place])
        return shards, shards.first(number) + place

    def tasks(self) -> set[str]:
        """Tasks that its samples have."""
        return {
            shards.columns.labels[label].task
            for shards, kinds in self.kinds()
            for label in np.unique(shards.columns.label_of_kind[kinds]).tolist()
        }

    def kinds(self) -> Iterator[tuple[ShardSet, Ints]]:
        """Of each folder the kinds that its samples have, int64."""
        for which, shards in enumerate(self._folders):
            if self._row.scores:
                yield shards, np.flatnonzero(self._scored_kinds[which])
            else:
                there = shards.columns.counts[shards.shards].sum(0) > 0
                yield shards, np.flatnonzero((self._chosen[which] & there)[shards.columns.label_of_kind])

    def first_of(self, shards: ShardSet, kind: int) -> int:
        """The first sample of a kind, by its number in the row."""
        which, begin = self._folders.index(shards), 0
        for owner, number, size in zip(
            self._owners.tolist(), self._numbers.tolist(), self.sizes.tolist(), strict=True
        ):
            if owner == which:
                kinds = shards.columns.kinds(int(shards.shards[number]))
                kinds = kinds[self._belongs(which, number, kinds)]
                if (here := np.flatnonzero(kinds == kind)).size:
                    return begin + int(here[0])
            begin += size
        raise ValueError(f"no sample of kind {kind}")


class MixtureSamples:
    """The samples of one split of a mixture's rows, numbered row by row.

    Raises:
        ConfigError: a row without training samples; shards.location.ShardError: no such shards.
    """

    def __init__(self, rows: Mapping[str, DatasetConfig], split: str) -> None:
        self.rows = dict(rows)
        folders = dict.fromkeys(folder for row in rows.values() for folder in row.shards)
        opened = {folder: self._open(folder, split) for folder in folders}
        self._samples: list[RowSamples] = []
        for name, row in rows.items():
            samples = RowSamples(row, [s for folder in row.shards if (s := opened[folder]) is not None])
            if not len(samples) and split == "train":
                tasks = f" of the tasks {', '.join(row.tasks)}" if row.tasks else ""
                marked = {None: "", True: " with a mask", False: " without a mask"}[row.masked]
                scored = f" whose scores pass ({', '.join(row.scores)})" if row.scores else ""
                raise ConfigError(
                    f"data: row {name}: {', '.join(row.shards)}: no {split} samples{tasks}{marked}{scored}"
                )
            self._samples.append(samples)
        self._names = list(self.rows)
        self._ends = np.cumsum([len(samples) for samples in self._samples])
        if not len(self):
            raise ShardError(f"{', '.join(folders)}: no {split} shards")

    @property
    def sizes(self) -> list[Ints]:
        """Samples of each shard that has any, by row, int64."""
        return [samples.sizes for samples in self._samples]

    @staticmethod
    def _open(folder: str, split: str) -> ShardSet | None:
        """A folder's samples of a split; a folder need not have any that are held out."""
        try:
            return ShardSet(folder, split)
        except NoSplitError:
            if split == "heldout":
                return None
            raise

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _locate(self, index: int) -> tuple[ShardSet, int]:
        """The folder of a sample, and its number there."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        row = int(np.searchsorted(self._ends, index, side="right"))
        samples = self._samples[row]
        return samples.locate(index - (int(self._ends[row]) - len(samples)))

    def row_of(self, index: int) -> str:
        """The name of the row that a sample is visited in."""
        return self._names[int(np.searchsorted(self._ends, index, side="right"))]

    def name(self, index: int) -> str:
        """Where a sample lies and its key."""
        shards, number = self._locate(index)
        return f"{shards.location}: {shards.entry(number).key}"

    @property
    def shards(self) -> list[ShardSet]:
        """The folders that samples are from, in order."""
        found = [shards for samples in self._samples for shards, kinds in samples.kinds() if len(kinds)]
        return list(dict.fromkeys(found))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of all samples, sorted."""
        return tuple(sorted(set().union(*(samples.tasks() for samples in self._samples))))

    def entry(self, index: int) -> IndexEntry:
        """What the shard's index says of a sample."""
        shards, number = self._locate(index)
        return shards.entry(number)

    def record(self, index: int) -> Record:
        """The sample as it lies in the shard."""
        shards, number = self._locate(index)
        return shards[number]
