"""The index of a folder as columns, mapped into memory: no process holds anything per sample.

A folder `columns-<16 digits of the manifest's sha256>` beside the shards, which `shards.column_writer` writes
from the indexes. Its files are plain `.npy`, since every column is of fixed width and numpy alone maps them;
Arrow would be a dependency for nothing. `columns.json` is the header: version, names, checksums of the files.

| file | rows | what |
|---|---|---|
| shards | shard | where its samples, texts and tar end; checksums of its kinds, and of places and texts |
| names | shard | its file name |
| counts | shard | samples per label |
| kind | sample | u32, number of its row in `kinds`: all that a plan must know |
| kinds | kind | its label (task, split, whether the text gives a mask), and where its elements end |
| elements | element | name, kind, frames, height, width, rate, place in the text and among the targets |
| place | sample | where it begins in the tar (in blocks), its text in `text`, 64 bits of its JSON's sha256 |
| text | byte | key, line break, text |

Planning maps `kind` alone; `place` and `text` are read where a sample is visited.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.errors import EditVerseError, first_line
from shards.files import atomic_path
from shards.hashing import digest
from shards.index import IndexEntry
from shards.limits import MAX_JSON_BYTES, parse_json
from shards.location import Location, ShardError
from shards.sample import Kind

VERSION = 1
HEADER = "columns.json"
NONE = 0xFFFF  # no place, no target, no frame of another element
KINDS: tuple[Kind, ...] = ("video", "image", "mask")
SHARD = np.dtype(
    [("samples", "<u8"), ("texts", "<u8"), ("blocks", "<u8"), ("planned", "<u8"), ("stored", "<u8")]
)
KIND = np.dtype([("label", "<u4"), ("elements", "<u4")])
PLACE = np.dtype([("json", "<u8"), ("start", "<u4"), ("text", "<u4")])
ELEMENT = np.dtype(
    [
        ("fps", "<f8"),
        ("frames", "<u4"),
        ("frame", "<u4"),
        ("height", "<u2"),
        ("width", "<u2"),
        ("name", "<u2"),
        ("kind", "<u2"),
        ("place", "<u2"),
        ("target", "<u2"),
        ("of", "<u2"),
        ("unused", "<u2"),
    ]
)
U32, U64 = np.dtype("<u4"), np.dtype("<u8")
DTYPES = {"shards": SHARD, "counts": U32, "kinds": KIND, "elements": ELEMENT, "kind": U32, "place": PLACE}
DTYPES["text"] = np.dtype("u1")
# what numpy raises of a file that is no array
NO_ARRAY = (
    OSError,
    ValueError,
    EOFError,
    SyntaxError,
    TypeError,
    KeyError,
    OverflowError,
    MemoryError,
    TokenError,
)
SMALL = ("shards", "names", "counts", "kinds", "elements")  # compared with their checksums on opening
# by shard, when first looked at; and the bytes before their data
LARGE = {"kind": 128, "place": 192, "text": 128}
Ints = NDArray[np.int64]


class ColumnsError(ShardError):
    """Columns that are damaged, or of another version or folder; they can be made again from the indexes."""


@dataclass(frozen=True)
class Label:
    """What rows of a mixture choose samples by."""

    task: str
    split: str
    masked: bool  # the text gives a mask


@dataclass(frozen=True)
class Element:
    """A medium of a sample; `fps` is None for an image, and where the index does not say it."""

    name: str
    kind: Kind
    frames: int
    height: int
    width: int
    fps: float | None = None
    frame_of: tuple[str, int] | None = None  # element and frame that an image is


@dataclass(frozen=True)
class SampleKind:
    """What samples can have in common: label, elements by name, their names in the text's order, targets."""

    label: Label
    elements: tuple[Element, ...]
    order: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True)
class TextCounts:
    """Tokens of texts by one tokenizer: u32 by sample, checksums and which were compared by shard."""

    name: str
    tokens: NDArray[np.uint32]
    checksums: NDArray[np.uint64]
    checked: NDArray[np.bool_]


def checksum(*parts: Any) -> int:
    """First 16 hexadecimal digits of the sha256 of some bytes or arrays, one after the other, as a number."""
    running = hashlib.sha256()
    for part in parts:
        running.update(part)
    return int.from_bytes(running.digest()[:8], "big")


def header_seal(header: dict[str, Any]) -> str:
    """What a header's own checksum should be: sha256 of it without that field."""
    rest = {name: value for name, value in header.items() if name != "header_sha256"}
    return digest(rest)


def write_text_counts(columns: Columns, tokenizer: str, tokens: Iterable[NDArray[np.uint32]]) -> None:
    """Write the tokens of all texts beside the other columns.

    Args:
        tokenizer: hash of what counted them. tokens: u32 [samples of a shard], shard by shard.
    """
    parts = [np.ascontiguousarray(part, "<u4") for part in tokens]
    name = text_counts_name(tokenizer)
    checksums = np.array([checksum(part) for part in parts], "<u8")
    with atomic_path(columns.folder / f"{name}-checksums.npy") as temporary:
        np.save(temporary, checksums)
    with atomic_path(columns.folder / f"{name}.npy") as temporary:  # the last: where it is, both are
        np.save(temporary, np.concatenate([*parts, np.zeros(0, "<u4")]))


def text_counts_name(tokenizer: str) -> str:
    """Of the file of the counts by a tokenizer of this hash."""
    return f"tokens-{tokenizer[:16]}"


class Columns:
    """The columns of a folder, opened. Numbers are those of the manifest's order, over all splits.

    What is mapped is compared with its checksums: the tables on opening, the rest shard by shard.

    Args:
        folder: that holds the columns.
        manifest: sha256 of the manifest that they must be of.

    Raises:
        ColumnsError: damaged, truncated, or of another version or manifest.
    """

    def __init__(self, folder: Path, manifest: str) -> None:
        self.folder, self.manifest, self._location = folder, manifest, Location(folder)
        header = self._read_header(manifest)
        self._sha256: dict[str, str] = header["sha256"]
        self.samples: int = header["samples"]
        self.repeated: str | None = header["repeated"]  # a key that two splits have
        self.labels = tuple(Label(*label) for label in header["labels"])
        self._element_names: list[str] = header["names"]
        tables = {name: self._map(name) for name in SMALL}
        for name, table in tables.items():
            if hashlib.sha256(table.data).hexdigest() != self._sha256[name]:
                raise ColumnsError(f"{folder}/{name}.npy: damaged, its sha256 is not the header's")
        self.shards, self.names, self.counts = tables["shards"], tables["names"], tables["counts"]
        self._kinds, self._elements = tables["kinds"], tables["elements"]
        self._kind = self._map("kind")
        for name in ("place", "text"):
            self._map(name)  # only to see that it is whole
        if len(self._kind) != self.samples or len(self.counts) != len(self.shards):
            raise ColumnsError(f"{folder}: damaged, its files have other lengths than its header says")
        self._checked = np.zeros((2, len(self.shards)), bool)
        self.kind = functools.lru_cache(maxsize=128)(self._read_kind)
        self._text_counts = functools.lru_cache(maxsize=4)(self._open_text_counts)

    def _read_header(self, manifest: str) -> dict[str, Any]:
        path = self.folder / HEADER
        try:
            header = parse_json(self._location.read(HEADER, limit=MAX_JSON_BYTES), str(path))
        except FileNotFoundError:
            raise ColumnsError(f"{path}: missing") from None
        except EditVerseError as error:
            raise ColumnsError(str(error)) from None
        if not isinstance(header, dict) or header.get("header_sha256") != header_seal(header):
            raise ColumnsError(f"{path}: damaged, its sha256 is not its own")
        if header["version"] != VERSION:
            raise ColumnsError(f"{path}: of version {header['version']}, this is {VERSION}")
        if header["manifest"] != manifest:
            raise ColumnsError(f"{path}: is of another manifest")
        return header

    def _map(self, name: str) -> NDArray[Any]:
        path = self.folder / f"{name}.npy"
        if not path.is_file():  # a pipe would be waited for
            raise ColumnsError(f"{path}: missing, or no file")
        try:
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except NO_ARRAY as error:
            raise ColumnsError(f"{path}: damaged ({first_line(error)})") from None
        if array.dtype.kind != "S" and array.dtype != DTYPES.get(name, U64 if name.endswith("s") else U32):
            raise ColumnsError(f"{path}: damaged, it holds {array.dtype}")
        if not array.flags.c_contiguous or array.ndim != 1 + (name == "counts"):
            raise ColumnsError(f"{path}: damaged, its rows are not one after the other")
        return array

    def faults(self) -> Iterator[str]:
        """One line for each file whose sha256 is not the header's; reads them all."""
        for name in (*SMALL, *LARGE):
            if hashlib.sha256(self._map(name).data).hexdigest() != self._sha256[name]:
                yield f"{self.folder}/{name}.npy: damaged, its sha256 is not the header's; remove the folder"

    def _rows(self, name: str, first: int, count: int, size: int) -> bytes:
        """Rows of a file that is not mapped, so that what was visited does not stay in memory."""
        return self._location.read(f"{name}.npy", LARGE[name] + first * size, count * size)

    def first(self, shard: int) -> int:
        """Number of a shard's first sample."""
        return int(self.shards["samples"][shard - 1]) if shard else 0

    def kinds(self, shard: int) -> NDArray[np.uint32]:
        """u32 [samples of the shard]: their kinds.

        Raises:
            ColumnsError: the file is damaged here.
        """
        kinds = self._kind[self.first(shard) : int(self.shards["samples"][shard])]
        if not self._checked[0, shard]:
            self._compare(shard, "kind", int(self.shards["planned"][shard]), checksum(kinds))
            self._checked[0, shard] = True
        return kinds

    def _compare(self, shard: int, files: str, expected: int, found: int) -> None:
        if found != expected:
            raise ColumnsError(
                f"{self.folder}: {files} damaged where {self.names[shard].decode()} is; remove the folder, "
                "it is made again"
            )

    @functools.cached_property
    def label_of_kind(self) -> NDArray[np.uint32]:
        """u32 [kinds]: the label of each, a view of the mapped table."""
        return self._kinds["label"]

    def pixels_of_kinds(self) -> NDArray[np.float64]:
        """float64 [kinds]: pixels of all frames of the elements of each."""
        rows = self._elements
        pixels = rows["frames"].astype(np.float64) * rows["height"] * rows["width"]
        return np.diff(np.concatenate([[0.0], np.cumsum(pixels)])[self._kinds["elements"]], prepend=0.0)

    def _read_kind(self, number: int) -> SampleKind:
        """A row of `kinds` with its elements; `kind` is this with the last ones remembered."""
        first = int(self._kinds["elements"][number - 1]) if number else 0
        rows = self._elements[first : int(self._kinds["elements"][number])].tolist()
        names = self._element_names
        placed: dict[int, str] = {}
        targets: dict[int, str] = {}
        elements = []
        for fps, frames, frame, height, width, name, kind, place, target, of, _ in rows:
            frame_of = None if of == NONE else (names[of], frame)
            elements.append(Element(names[name], KINDS[kind], frames, height, width, fps or None, frame_of))
            if place != NONE:
                placed[place] = names[name]
            if target != NONE:
                targets[target] = names[name]
        order, chosen = (tuple(found[i] for i in sorted(found)) for found in (placed, targets))
        return SampleKind(self.labels[int(self._kinds["label"][number])], tuple(elements), order, chosen)

    def _open_text_counts(self, tokenizer: str) -> TextCounts | None:
        name = text_counts_name(tokenizer)
        if not (self.folder / f"{name}.npy").exists():
            return None
        tokens, checksums = self._map(name), self._map(f"{name}-checksums")
        if (len(tokens), len(checksums)) != (self.samples, len(self.shards)):
            raise ColumnsError(f"{self.folder}/{name}.npy: is of another folder; remove it")
        return TextCounts(name, tokens, checksums, np.zeros(len(checksums), bool))

    def has_text_counts(self, tokenizer: str) -> bool:
        """Whether texts were counted with a tokenizer of this hash."""
        return self._text_counts(tokenizer) is not None

    def text_count(self, tokenizer: str, shard: int, place: int) -> int | None:
        """Tokens of a sample's text as `write_text_counts` was given them, None for no such tokenizer.

        Raises:
            ColumnsError: the file is damaged here.
        """
        counts = self._text_counts(tokenizer)
        if counts is None:
            return None
        here = counts.tokens[self.first(shard) : int(self.shards["samples"][shard])]
        if not counts.checked[shard]:
            self._compare(shard, counts.name, int(counts.checksums[shard]), checksum(here))
            counts.checked[shard] = True
        return int(here[place])

    def _stored(self, shard: int, place: int) -> tuple[NDArray[Any], bytes]:
        """`place` of a sample and of the one after it (the shard's end after the last); its key and text."""
        first, count = self.first(shard), int(self.shards["samples"][shard]) - self.first(shard)
        base = int(self.shards["texts"][shard - 1]) if shard else 0
        if not self._checked[1, shard]:
            places = self._rows("place", first, count, PLACE.itemsize)
            texts = self._rows("text", base, int(self.shards["texts"][shard]) - base, 1)
            expected = int(self.shards["stored"][shard])
            self._compare(shard, "place and text", expected, checksum(places, texts))
            self._checked[1, shard] = True
        end = np.zeros(1, PLACE)
        end["start"], end["text"] = self.shards["blocks"][shard], int(self.shards["texts"][shard]) - base
        read = np.frombuffer(self._rows("place", first + place, min(2, count - place), PLACE.itemsize), PLACE)
        both = np.concatenate([read, end])[:2]
        start, stop = (int(at) for at in both["text"])
        return both, self._rows("text", base + start, stop - start, 1)

    def stored(self, shard: int, place: int) -> tuple[int, int, int]:
        """First and last block of a sample in its tar, and the 64 bits of its JSON's sha256, 0 if unknown.

        Raises:
            ColumnsError: the files are damaged here.
        """
        both, _ = self._stored(shard, place)
        return int(both["start"][0]), int(both["start"][1]), int(both["json"][0])

    def key_and_text(self, shard: int, place: int) -> tuple[str, str]:
        """Of a sample; raises ColumnsError as `stored`."""
        key, _, text = self._stored(shard, place)[1].decode().partition("\n")
        return key, text

    def keys_and_texts(self, shard: int) -> list[tuple[str, str]]:
        """Of all samples of a shard; raises ColumnsError as `stored`."""
        first, count = self.first(shard), int(self.shards["samples"][shard]) - self.first(shard)
        if not count:
            return []
        self._stored(shard, 0)  # compares the checksum
        base = int(self.shards["texts"][shard - 1]) if shard else 0
        texts = self._rows("text", base, int(self.shards["texts"][shard]) - base, 1)
        starts = np.frombuffer(self._rows("place", first, count, PLACE.itemsize), PLACE)["text"].tolist()
        parts = (texts[a:b].decode().partition("\n") for a, b in itertools.pairwise([*starts, len(texts)]))
        return [(key, text) for key, _, text in parts]

    def keys(self, shard: int) -> list[str]:
        """Of all samples of a shard; raises ColumnsError as `stored`."""
        return [key for key, _ in self.keys_and_texts(shard)]

    def entry(self, shard: int, place: int) -> IndexEntry:
        """What the index says of a sample; raises ColumnsError as `kinds` and `stored`."""
        kind = self.kind(int(self.kinds(shard)[place]))
        key, text = self.key_and_text(shard, place)
        return entry_of_kind(kind, key, text)


def entry_of_kind(kind: SampleKind, key: str, text: str) -> IndexEntry:
    """A sample of a kind as the index has it."""
    return IndexEntry(
        key=key,
        split=kind.label.split,
        task=kind.label.task,
        text=text,
        targets=list(kind.targets),
        media={e.name: (e.kind, e.frames, e.height, e.width) for e in kind.elements},
        frame_of={e.name: e.frame_of for e in kind.elements if e.frame_of is not None},
        fps={e.name: e.fps for e in kind.elements if e.fps is not None},
    )
