"""A data set for the Hugging Face Hub: the shards as they are, and a card that says what they hold.

The folder is a shard folder still (or a folder of some, each a configuration), so that training reads it from
`hf://` as it is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from curation.datasets.exporters.card import card
from curation.datasets.exporters.census import Census, take_census
from curation.datasets.exporters.exporter import MARK as MARK
from curation.datasets.exporters.exporter import ExportError, Summary, claim, held, put_json
from shards.files import atomic_path
from shards.hashing import digest
from shards.index import index_name
from shards.location import WEB, Location, written_to
from shards.manifest import MANIFEST, read_manifest, write_manifest
from shards.reader import rows_of

VERSION = 1
CARD = "README.md"


def export_huggingface(
    shards: str | Path,
    out: str | Path,
    split: str | None = None,
    name: str = "",
    progress: Callable[[int, int, int], None] = lambda done, total, rows: None,
) -> Summary:
    """Bring shards and a card to a folder or URL; repeating the call goes on.

    Args:
        shards: a shard folder or URL, or a folder of some.
        split: train or heldout; None for both.
        name: of the data set, for the card; the folder's name when "".
        progress: called after each shard with shards done and in all, and samples so far.

    Raises:
        ExportError: `out` holds something else, or there are no shards.
        ShardError: the shards cannot be read, or have no such split.
    """
    sets = _sets(str(shards))
    location = written_to(out)
    manifests = {config: Location(path).read(MANIFEST).decode() for config, (path, _) in sets.items()}
    request = {
        "format": "huggingface",
        "version": VERSION,
        "source": str(shards),
        "manifest": digest(manifests),
        "split": split,
        "name": name,
    }
    with held(location):
        if (finished := claim(location, request)) is not None:
            return finished
        summary = Summary("huggingface", str(shards), split or "all")
        files = [(config, row) for config, (path, _) in sets.items() for row in rows_of(path, split)]
        there = location.sizes()
        for number, (config, row) in enumerate(files):
            path, folder = sets[config]
            for file in (row.shard, index_name(row.shard)):
                _bring(Location(path), file, location, f"{folder}/{file}" if folder else file, there)
            summary.samples += row.samples
            summary.bytes += row.bytes
            progress(number + 1, len(files), summary.samples)
        for config, (path, folder) in sets.items():
            _put_manifest(
                path, split, location, f"{folder}/{MANIFEST}" if folder else MANIFEST, manifests[config]
            )
        counted = {config: take_census(path, split) for config, (path, _) in sets.items()}
        folders = {config: folder for config, (_, folder) in sets.items()}
        title = name or Path(location.folder).name.replace("_", " ")
        location.put(CARD, card(title, counted, folders, _address(location)).encode())
        _count(summary, counted)
        summary.files = [CARD]
        put_json(location, MARK, {"request": request, "summary": vars(summary)})
        return summary


def _sets(shards: str) -> dict[str, tuple[str, str]]:
    """By configuration: the shard folder, and where it goes in the export."""
    location = Location(shards)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        location.read(MANIFEST)
        return {"default": (location.folder, "")}
    if location.protocol in WEB:
        raise ExportError(f"{shards}: no {MANIFEST} here, and the web lists no folders; name a shard folder")
    found = sorted(
        name.partition("/")[0]
        for name in location.sizes()
        if name.count("/") == 1 and name.endswith(f"/{MANIFEST}")
    )
    if not found:
        raise ExportError(f"{shards}: no {MANIFEST} here or in its folders; is this a shard folder?")
    return {name: (location.path(name), name) for name in found}


def _bring(source: Location, name: str, to: Location, as_name: str, there: dict[str, int]) -> None:
    """A file by a hard link where one can be, else by a copy; one of the right size is there already."""
    if not source.remote:
        path = Path(source.path(name))
        if there.get(as_name) == path.stat().st_size:
            return
        if to.remote:
            to.put(as_name, path)
            return
        with atomic_path(to.path(as_name)) as temporary:
            try:
                os.link(path, temporary)
            except OSError:  # another disk, or one that knows no links
                shutil.copyfile(path, temporary)
        return
    if as_name in there:  # it appeared whole, and the request names its manifest
        return
    if not to.remote:
        source.fetch(name, Path(to.path(as_name)))
        return
    with tempfile.TemporaryDirectory(prefix="export-") as scratch:
        source.fetch(name, Path(scratch) / "file")
        to.put(as_name, Path(scratch) / "file")


def _put_manifest(source: str, split: str | None, to: Location, name: str, text: str) -> None:
    """The manifest as it is, or of one split."""
    if split is None:
        to.put(name, text.encode())
        return
    kept = {row.shard for row in rows_of(source, split)}
    with tempfile.TemporaryDirectory(prefix="export-") as scratch:
        write_manifest(Path(scratch), [row for row in read_manifest(source) if row.shard in kept])
        to.put(name, Path(scratch) / MANIFEST)


def _address(location: Location) -> str:
    """By what `load_dataset` finds it: the name of a repository, else the folder."""
    return location.folder.removeprefix("hf://datasets/") if location.remote else location.folder


def _count(summary: Summary, sets: dict[str, Census]) -> None:
    tasks: dict[str, Any] = {}
    licenses: dict[str, int] = {}
    for census in sets.values():
        for task, count in census.tasks.items():
            tasks[task] = tasks.get(task, 0) + sum(count.splits.values())
        for text, number in census.licenses.items():
            licenses[text] = licenses.get(text, 0) + number
    summary.rows = summary.samples
    summary.tasks, summary.licenses = dict(sorted(tasks.items())), dict(sorted(licenses.items()))
