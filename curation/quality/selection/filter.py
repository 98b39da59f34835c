"""Filters a shard folder by stored scores: nothing is measured, members are copied as they are.

The shards of the result follow from the samples that are kept and what is written of them, and so do their
names: a run that was killed goes on, and other rules write anew only what they change.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curation.quality.selection.attributes import Attributes
from curation.quality.selection.retention import Retention, retention_of, write_retention
from curation.quality.selection.rules import Rules, Verdicts, judge
from shards.column_writer import open_columns
from shards.errors import EditVerseError, SettingError
from shards.files import atomic_path, exclusive, sha256_of, sweep_temporaries, write_json
from shards.hashing import digest
from shards.index import ShardIndex, index_path
from shards.manifest import ManifestRow, write_manifest
from shards.reader import ShardSet
from shards.sample import Sample, Step
from shards.scores import OWN, Scores, open_scores, write_all_scores
from shards.writer import write_shard

MAX_SAMPLES = 512  # of a shard
MAX_BYTES = 1 << 30  # of a shard with more than one sample
REJECTED, SETTINGS = "rejected.jsonl", "filter.json"
EXTRA = 4096  # bytes that scores and the step may add to a sample


class NothingKeptError(EditVerseError):
    """A filter whose rules no sample passes."""


def filter_shards(
    directory: str | Path,
    rules: Rules,
    out: str | Path,
    max_samples: int = MAX_SAMPLES,
    max_bytes: int = MAX_BYTES,
    report_only: bool = False,
) -> Retention:
    """Write the samples that pass the rules as new shards, what was rejected and why, and the report.

    Args:
        directory: a shard folder or URL. out: another folder; a filter's earlier result there is replaced.
        report_only: write the report and what is rejected, and no shards.

    Raises:
        ShardError: the folder cannot be read, or a score of the rules is not stored.
        SettingError: `out` is the folder itself, or holds shards of something else.
        NothingKeptError: no sample passes; the report is written.
    """
    out = Path(out)
    if out.resolve() == Path(str(directory)).resolve():
        raise SettingError(f"--out {out}: is the folder that is filtered; choose another")
    if not (out / SETTINGS).exists() and any(out.glob("*.tar")):
        raise SettingError(f"--out {out}: holds shards that no filter made; choose another folder")
    samples, scores = ShardSet(directory), open_scores(directory)
    attributes = Attributes.of(samples)
    used = {name: scores.column(name) for name in rules.scores}
    verdicts = judge(rules, attributes.tasks, used)
    kept = verdicts.kept
    with exclusive(out, "--out"):
        sweep_temporaries(out)
        write_json(out / SETTINGS, {"source": str(directory), "rules": rules.model_dump(mode="json")})
        sources = _sources(samples, out)
        retention = retention_of(
            str(directory),
            rules.config,
            verdicts,
            attributes.media,
            attributes.tasks,
            attributes.splits,
            sources,
        )
        if kept.any() and not report_only:
            merged = _merged(scores, rules)
            chosen = {
                split: np.flatnonzero(kept & (attributes.splits == split)).tolist()
                for split in np.unique(attributes.splits[kept]).tolist()
            }
            order = _write(samples, chosen, merged, out, (max_samples, max_bytes))
            stored = {n: (c[order], scores.about(n)) for n, c in merged.columns.items()}
            write_all_scores(out, stored)
        _write_rejected(out / REJECTED, samples, attributes, verdicts, used)
        write_retention(out, retention)
    if not kept.any():
        raise NothingKeptError(f"{directory}: no sample passes the rules; {out / REJECTED} says why")
    return retention


def source_of(sample: Sample) -> str:
    """Where a sample comes from: the format that it was imported from, else the name of its clip."""
    for step in sample.provenance.steps:
        if step.stage in ("import", "render"):
            return step.backend
    return sample.provenance.clip.name or "unknown"


def _sources(samples: ShardSet, out: Path) -> NDArray[np.str_]:
    """`source_of` every sample, str [samples]; read once and kept for other rules."""
    path = out / f"sources-{samples.columns.manifest[:16]}.npz"
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as kept:
                found: NDArray[np.str_] = kept["names"][kept["sources"]]
            if len(found) == len(samples):
                return found
        except (OSError, ValueError, KeyError, IndexError, EOFError):
            path.unlink()
    sources = np.array([source_of(samples.sample(number)) for number in range(len(samples))])
    names, inverse = np.unique(sources, return_inverse=True)
    for older in out.glob("sources-*.npz"):
        older.unlink()
    with atomic_path(path) as temporary:
        np.savez(temporary, names=names, sources=inverse.astype(np.uint32))
    return sources


def _write_rejected(
    path: Path,
    samples: ShardSet,
    attributes: Attributes,
    verdicts: Verdicts,
    used: Mapping[str, NDArray[np.float32]],
) -> None:
    """A line of JSON for each sample that is not kept: the first rule that it fails, and the others."""
    words = [rule.words(score) for score, rule in verdicts.criteria]
    key_of = _keys(samples)
    with atomic_path(path) as temporary, temporary.open("w") as out:
        for number in np.flatnonzero(~verdicts.kept).tolist():
            first, *others = np.flatnonzero(verdicts.failed[:, number]).tolist()
            value = used[verdicts.criteria[first][0]][number]
            line = {
                "key": key_of(number),
                "task": str(attributes.tasks[number]),
                "split": str(attributes.splits[number]),
                "rule": words[first],
                "value": None if np.isnan(value) else float(f"{value:.7g}"),
                "also": [words[other] for other in others],
            }
            out.write(json.dumps(line, ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class Merged:
    """What is added to the samples that are kept: scores measured of them, and the filter's step."""

    columns: Mapping[str, NDArray[np.float32]]
    measured: tuple[str, ...]  # of the columns, those that are not the samples' own
    step: Step

    def added(self, number: int) -> dict[str, float | None]:
        """The measured scores of a sample, to the digits that float32 has."""
        values = {name: float(self.columns[name][number]) for name in self.measured}
        return {name: None if np.isnan(value) else float(f"{value:.7g}") for name, value in values.items()}

    def apply(self, sample: Sample, number: int) -> Sample:
        """The sample with them."""
        provenance = sample.provenance
        steps = [*provenance.steps, self.step]
        return sample.model_copy(
            update={
                "scores": {**sample.scores, **self.added(number)},
                "provenance": provenance.model_copy(update={"steps": steps}),
            }
        )


def _merged(scores: Scores, rules: Rules) -> Merged:
    names = scores.stored  # the samples' own are in the samples
    return Merged(
        {name: scores.column(name) for name in names},
        tuple(name for name in names if scores.about(name).made_by != OWN),
        Step(stage="filter", backend="scores", config=rules.config),
    )


def _write(
    samples: ShardSet, chosen: Mapping[str, list[int]], merged: Merged, out: Path, most: tuple[int, int]
) -> list[int]:
    """Write shards, manifest and columns; returns the numbers of the kept samples, in their new order.

    Args:
        chosen: by split, numbers of the samples that are kept. most: samples and bytes of a shard.
    """
    rows: list[ManifestRow] = []
    order: list[int] = []
    key_of = _keys(samples)
    for split, kept in sorted(chosen.items()):
        for number, batch in enumerate(_batches(samples, kept, *most)):
            content = [[key_of(n), merged.added(n)] for n in batch]
            about = [samples.columns.manifest, merged.step.model_dump(), content]
            shard = f"{split}-{number:06d}.{digest(about)[:12]}.tar"
            rows.append(_row_of(out, shard) or write_shard(out, shard, _records(samples, batch, merged)))
            order += batch
    write_manifest(out, rows)
    there = {row.shard for row in rows}
    for path in out.glob("*.tar"):  # of other rules, or of a run that was killed
        if path.name not in there:
            path.unlink()
            index_path(out, path.name).unlink(missing_ok=True)
    open_columns(out)  # makes them
    return order


def _keys(samples: ShardSet) -> Callable[[int], str]:
    """Gives the key of a sample by its number; fast where numbers come in order."""
    ends = np.cumsum(samples.counts())
    of_shard = functools.lru_cache(maxsize=4)(samples.columns.keys)

    def key_of(number: int) -> str:
        shard = int(np.searchsorted(ends, number, side="right"))
        return of_shard(int(samples.shards[shard]))[number - samples.first(shard)]

    return key_of


def _batches(samples: ShardSet, chosen: list[int], max_samples: int, max_bytes: int) -> Iterator[list[int]]:
    batch: list[int] = []
    size = 0
    for number in chosen:
        grows = samples.size(number) + EXTRA
        if batch and (len(batch) >= max_samples or size + grows > max_bytes):
            yield batch
            batch, size = [], 0
        batch.append(number)
        size += grows
    if batch:
        yield batch


def _records(
    samples: ShardSet, batch: list[int], merged: Merged
) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    for number in batch:
        record = samples[number]
        yield merged.apply(record.sample, number), {n: record.bytes(n) for n in record.sample.media}


def _row_of(out: Path, shard: str) -> ManifestRow | None:
    """The manifest's row of a shard that an earlier run finished; its name says what is in it."""
    path, index = out / shard, index_path(out, shard)
    if not path.is_file() or not index.is_file():  # the index is written last
        return None
    size, digits = path.stat().st_size, sha256_of(index)
    found = ShardIndex.model_validate_json(index.read_bytes())
    return ManifestRow(
        shard=shard, sha256=found.sha256, samples=len(found.samples), bytes=size, index_sha256=digits
    )
