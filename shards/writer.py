"""Writes samples as WebDataset shards: deterministic, atomic, the manifest last.

The same samples give the same bytes: sorted by key, fixed tar headers, canonical JSON.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from shards import hashing
from shards.column_writer import open_columns
from shards.files import atomic_path, sha256_of
from shards.index import (
    ShardIndex,
    StoredEntry,
    TokenGeometry,
    entry_of,
    index_path,
    write_index,
)
from shards.manifest import MANIFEST, ManifestRow, read_manifest, write_manifest
from shards.sample import Sample, SampleError

Item = tuple[Sample, dict[str, Path]]  # a sample and the file of each of its media elements


def write_shards(
    out_dir: str | Path,
    items: Iterable[Item],
    *,
    max_samples: int = 512,
    max_bytes: int = 1 << 30,
    by_content: bool = False,
    in_order: bool = False,
) -> list[ManifestRow]:
    """Write samples as `{split}-{number:06d}.tar` with an index each, then `manifest.jsonl`, then columns.

    A shard is closed when it holds `max_samples` samples or the next sample would take it past `max_bytes`
    (a single larger sample gets its own shard). Each media file's sha256 is written into the sample. Shards
    named by an older manifest and no longer written are removed after the new manifest is in place.

    Args:
        by_content: name them `{split}-{number:06d}.{12 digits of a hash}.tar`, so that shards of other
            content have other names: two sets can lie in one folder while one takes the other's place.
        in_order: the items come sorted by split and key, and are taken one after the other: then no more
            than a shard's samples are in memory.

    Raises SampleError for a repeated key, a media element without file, or a file that is missing or empty.
    """
    out_dir = Path(out_dir)
    ordered: Iterable[Item]
    if in_order:
        ordered = _checked(items)
    else:
        ordered = list(_checked(sorted(items, key=lambda item: (item[0].split, item[0].key))))
    older = read_manifest(out_dir) if (out_dir / MANIFEST).is_file() else []

    rows: list[ManifestRow] = []
    for split, group in itertools.groupby(ordered, key=lambda item: item[0].split):
        for number, batch in enumerate(batches(group, max_samples, max_bytes)):
            rows.append(_write_shard(out_dir, f"{split}-{number:06d}", batch, by_content))
    write_manifest(out_dir, rows)
    for row in older:
        if row.shard not in {r.shard for r in rows}:
            (out_dir / row.shard).unlink(missing_ok=True)
            index_path(out_dir, row.shard).unlink(missing_ok=True)
    open_columns(out_dir)  # makes them
    return rows


def _checked(items: Iterable[Item]) -> Iterator[Item]:
    """The items as they come; SampleError for one that is out of order, repeated or without its files."""
    before = ("", "")
    for sample, files in items:
        place = (sample.split, sample.key)
        if place <= before:
            what = "two samples have this key" if place == before else f"comes after {before[1]}"
            raise SampleError(f"{sample.key}: {what}")
        before = place
        _check_files(sample, files)
        yield sample, files


def _check_files(sample: Sample, files: dict[str, Path]) -> None:
    if set(files) != set(sample.media):
        odd = ", ".join(sorted(set(files) ^ set(sample.media)))
        raise SampleError(f"{sample.key}: the files given and the sample's media disagree about {odd}")
    for name, path in files.items():
        if not Path(path).is_file() or Path(path).stat().st_size == 0:
            raise SampleError(f"{sample.key}: {name}: {path} is missing or empty")


def batches(items: Iterable[Item], max_samples: int = 512, max_bytes: int = 1 << 30) -> Iterator[list[Item]]:
    """The items in the groups that become shards, see `write_shards`."""
    batch: list[Item] = []
    size = 0
    for sample, files in items:
        grows = sum(Path(p).stat().st_size + 1024 for p in files.values()) + 8192
        if batch and (len(batch) >= max_samples or size + grows > max_bytes):
            yield batch
            batch, size = [], 0
        batch.append((sample, files))
        size += grows
    if batch:
        yield batch


def loaded(batch: Iterable[Item]) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    """The items with the bytes of their files, one at a time."""
    for sample, files in batch:
        yield sample, {name: Path(path).read_bytes() for name, path in sorted(files.items())}


def _write_shard(out_dir: Path, stem: str, batch: list[Item], by_content: bool) -> ManifestRow:
    shard = f"{stem}.tar"
    entries, size, digest = _write_tar(out_dir / shard, loaded(batch))
    if by_content:  # of the index too, which another version may write otherwise
        entry_values = [entry.model_dump(mode="json") for entry in entries]
        shard = f"{stem}.{hashing.digest([digest, entry_values])[:12]}.tar"
        (out_dir / f"{stem}.tar").replace(out_dir / shard)
    return _indexed(out_dir, shard, entries, size, digest)


def write_shard(
    out_dir: str | Path, shard: str, samples: Iterable[tuple[Sample, Mapping[str, bytes]]]
) -> ManifestRow:
    """Write one shard and its index, atomically, and no manifest; returns the row that it should have there.

    Args:
        shard: its file name, `{split}-...tar`.
        samples: of one split, each with the file of every media element; taken one at a time, in this order.
    """
    out_dir = Path(out_dir)
    return _indexed(out_dir, shard, *_write_tar(out_dir / shard, samples))


def _write_tar(
    path: Path, samples: Iterable[tuple[Sample, Mapping[str, bytes]]]
) -> tuple[list[StoredEntry], int, str]:
    """Its index entries, bytes and sha256."""
    entries: list[StoredEntry] = []
    geometry = TokenGeometry()
    with atomic_path(path) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as tar:
            for sample, data in samples:
                media = {
                    name: m.model_copy(update={"sha256": hashlib.sha256(data[name]).hexdigest()})
                    for name, m in sample.media.items()
                }
                sealed = sample.model_copy(update={"media": media})
                document = sealed.to_json()
                members = {"json": add_member(tar, f"{sample.key}.json", document)}
                for name in sorted(data):
                    members[media[name].file] = add_member(tar, sealed.member(name), data[name])
                entries.append(entry_of(sealed, members, geometry, document))
        return entries, temporary.stat().st_size, sha256_of(temporary)


def _indexed(out_dir: Path, shard: str, entries: list[StoredEntry], size: int, digest: str) -> ManifestRow:
    sealed_index = write_index(out_dir, ShardIndex(shard=shard, sha256=digest, samples=entries))
    return ManifestRow(
        shard=shard, sha256=digest, samples=len(entries), bytes=size, index_sha256=sealed_index
    )


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> tuple[int, int]:
    """Append a member with a fixed header; returns its data's byte offset and size."""
    info = tarfile.TarInfo(name)  # mtime 0, uid and gid 0, no names
    info.size, info.mode = len(data), 0o644
    tar.addfile(info, io.BytesIO(data))
    padded = -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return tar.offset - padded, len(data)
