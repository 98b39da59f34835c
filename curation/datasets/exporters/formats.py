"""What a format of pairs is to the exporter, and how its rows are made.

A format says which pairs it holds (`Format.refuse`), what of a sample it has no room for (`Format.left_out`),
and makes one row of a pair. Where bytes go is a *store*'s affair: files beside a table, cells of a parquet,
members of a tar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from curation.datasets.exporters.pairs import Pair, Role
from shards.sample import Sample

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]
StoreName = Literal["files", "parquet", "tar"]
TableName = Literal["csv", "json", "jsonl", "parquet", "none"]
# What a row may hold beside source, target and instruction.
Extra = Literal["mask", "task", "license", "origin", "captions", "scores"]


class Store(Protocol):
    """Where the files of a row go.

    Attributes:
        folder: the export's, an absolute path or URL.
    """

    folder: str

    def put(self, pair: Pair, element: str, stem: str) -> Any:
        """Store an element of a pair under `stem` and its suffix.

        Returns:
            a path relative to the folder (files, tar), or a struct of `bytes` and `path` (parquet).
        """
        ...

    def put_bytes(self, name: str, data: bytes) -> Any:
        """Store a file of this name; returns what `put` does."""
        ...


@dataclass(frozen=True)
class Format:
    """One format that pairs are written in.

    Attributes:
        name: as `export` and `import` take it.
        about: one line for the list of formats.
        row: makes a row of a pair, and stores its files.
        kinds: kinds of targets that it holds.
        shape: names the table that a pair's row goes to; rows of a table have the same columns.
        references: how many sources beyond the first it holds.
        extras: what else it holds.
        mask_kinds: kinds of targets with which it holds a mask, where it does.
        task_words: its words for our tasks; it holds no others.
        tasks: those that it knows; all where empty.
        with_sources: whether pairs have a source; False for text to image.
        table: what the table is written as. `table_name` is its name without suffix; `{shape}` in it stands
            for the shape; elsewhere that is put behind it where there is more than one.
        tar_name: of the tars, with `{stem}` for the shard that each is made from.
        captions, scores: names of those that it holds, where it does not hold all of them by `extras`.
        files: further files of a finished export, from the folder's path and the tables.
        prepare: makes of it the format for these very samples, where its columns depend on them.
    """

    name: str
    about: str
    row: Callable[[Pair, Store], Row]
    kinds: frozenset[str] = frozenset({"video", "image"})
    store: StoreName = "files"
    table: TableName = "jsonl"
    table_name: str = "metadata"
    shape: Callable[[Pair], str] = field(default=lambda pair: "")
    tar_name: str = "{stem}.tar"
    schema: Callable[[], pa.Schema] | None = None
    references: int = 0
    extras: frozenset[Extra] = frozenset()
    mask_kinds: frozenset[str] = frozenset({"video", "image"})
    task_words: Mapping[str, str] = field(default_factory=dict)
    captions: frozenset[str] = frozenset()
    scores: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()
    with_sources: bool = True
    files: Callable[[str, list[Table]], Mapping[str, str]] = field(default=lambda folder, tables: {})
    prepare: Callable[[Format, Iterable[Sample]], Format] = field(default=lambda format, samples: format)

    def refuse(self, pair: Pair, masks: bool = True) -> str | None:
        """Why a pair cannot be a row, in words that are counted; None where it can.

        Args:
            masks: whether masks are written.
        """
        target = pair.kind(pair.target)
        if target not in self.kinds:
            return f"{target} as target"
        if self.with_sources and not pair.sources:
            return "no source"
        if not self.with_sources and pair.sources:
            return "has a source"
        if pair.sources and pair.kind(pair.sources[0]) != target:
            return f"{pair.kind(pair.sources[0])} to {target}"
        if len(pair.sources) - 1 > self.references:
            return "more than one source"
        if self.tasks and pair.sample.task not in self.tasks:
            return f"task {pair.sample.task}"
        if pair.mask_in_text and not (masks and self.holds_mask(pair)):
            return "text speaks of the mask"
        if not pair.instruction:
            return "no instruction"
        return None

    def holds_mask(self, pair: Pair) -> bool:
        """Whether it holds masks of such pairs."""
        return "mask" in self.extras and pair.kind(pair.target) in self.mask_kinds

    def left_out(self, pair: Pair, masks: bool = True) -> list[str]:
        """What of a pair's sample a row of this format does not say."""
        sample = pair.sample
        has: dict[Extra, bool] = {
            "mask": pair.mask is not None,
            "task": sample.task not in self.task_words,
            "license": sample.provenance.clip.license != "unknown",
            "origin": True,
            "captions": bool(set(sample.captions) - self.captions),
            "scores": bool(set(sample.scores) - self.scores),
        }
        held = self.extras if masks and self.holds_mask(pair) else self.extras - {"mask"}
        return [name for name, there in has.items() if there and name not in held]


@dataclass(frozen=True)
class Table:
    """A table of a finished export: its file, and how many rows it has of which shape."""

    file: str
    shape: str
    rows: int


def known(formats: Iterable[Format]) -> dict[str, Format]:
    """Formats by name."""
    return {format.name: format for format in formats}


def put_all(pair: Pair, store: Store, roles: Mapping[Role, str]) -> dict[Role, Any]:
    """Store the elements that play these roles; what a row says of each, without roles that nothing plays.

    Args:
        roles: the stem of each role's file.
    """
    found = {role: pair.element(role) for role in roles}
    return {role: store.put(pair, name, roles[role]) for role, name in found.items() if name is not None}
