"""What a data set of pairs is read as: parts that can be read alone, and the rows of each.

A `Layout` knows how one format lies on disk, and nothing of samples, sizes or shards: `importer` knows those.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from curation.sources.clips import printable
from shards.errors import MediaError, SettingError
from shards.files import OutsideError, inside
from shards.location import URL, Location, ShardError

MAX_BLOB_BYTES = 1 << 30  # of one image or video; `shards.limits` bounds what they decode to
PART_ROWS = 512  # of a part at most: some hundred rows become a shard of a convenient size
MaskRule = Literal["bright", "dark", "transparent"]  # which pixels of a mask's picture are inside


class Refused(MediaError):
    """A row that cannot be used.

    Attributes:
        reason: what kind of fault, in a few words that are counted.
        detail: of this one row; names the file.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


class Piece(NamedTuple):
    """A stretch of a file: path or URL, the first byte, and how many; None: to the end."""

    path: str
    offset: int = 0
    size: int | None = None


@dataclass(frozen=True)
class Blob:
    """Where the bytes of an image or video are.

    Attributes:
        name: how messages call it; its suffix says what it is, where it has one.
        data: the bytes themselves, where the table holds them.
        pieces: else where they lie, to be joined: a file, a member of a tar, or one that begins in one volume
            of a split archive and ends in the next.
    """

    name: str
    data: bytes | None = field(default=None, repr=False)
    pieces: tuple[Piece, ...] = ()

    @classmethod
    def of(cls, data: bytes, name: str = "<bytes>") -> Blob:
        """Bytes that a table holds."""
        return cls(printable(name), data)

    @classmethod
    def at(cls, path: str | Path, name: str = "") -> Blob:
        """A whole file, at a path or URL."""
        return cls(printable(name or str(path)), None, (Piece(str(path)),))

    @classmethod
    def within(cls, path: str, offset: int, size: int, name: str) -> Blob:
        """A stretch of a file, such as a tar's member."""
        return cls(printable(name), None, (Piece(path, offset, size),))

    @property
    def suffix(self) -> str:
        """The suffix of its name in lower case, ".png"; "" where it has none."""
        return Path(self.name.partition("?")[0]).suffix.lower()

    @property
    def file(self) -> Path | None:
        """The local file that it is the whole of; None for anything else."""
        if self.data is not None or len(self.pieces) != 1:
            return None
        path, offset, size = self.pieces[0]
        return Path(path) if not (offset or size is not None or URL.match(path)) else None

    def read(self) -> bytes:
        """All bytes.

        Raises:
            Refused: there is no such file, it ends too early, it is empty, or has over `MAX_BLOB_BYTES`.
            StoreError: the store that it lies in does not answer.
        """
        data = self.data
        if data is None:
            data = b"".join(self._piece(piece) for piece in self.pieces)
        if not data:
            raise Refused("file empty", self.name)
        if len(data) > MAX_BLOB_BYTES:
            raise Refused("file too large", f"{self.name}: {len(data)} bytes, at most {MAX_BLOB_BYTES}")
        return data

    def _piece(self, piece: Piece) -> bytes:
        folder, _, rest = piece.path.rpartition("/")
        location = Location(folder or ("/" if piece.path.startswith("/") else "."))
        if (piece.size or 0) > MAX_BLOB_BYTES:
            raise Refused("file too large", f"{self.name}: {piece.size} bytes, at most {MAX_BLOB_BYTES}")
        try:
            return location.read(rest, piece.offset, piece.size, MAX_BLOB_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            raise Refused("file missing", self.name) from None
        except IsADirectoryError:
            raise Refused("file missing", f"{self.name}: is a folder") from None
        except ShardError as error:
            if location.remote:
                raise
            raise Refused("file cannot be read", str(error)) from None


def place_in(root: str, name: str, anywhere: bool = False) -> str:
    """The path or URL of a file that a table names, relative to `root` (a folder or URL).

    Args:
        anywhere: absolute paths and URLs are taken too: for a table of one's own, not for one from elsewhere.

    Raises:
        Refused: no name, or one that leads out of the folder.
    """
    name = name.strip()
    if not name:
        raise Refused("no file named")
    if URL.match(name):
        if anywhere:
            return name.removeprefix("file://")
        raise Refused("path leads out of the data set", f"{printable(name)}: a URL")
    if URL.match(root):
        if name.startswith("/") or ".." in name.split("/"):
            raise Refused("path leads out of the data set", printable(name))
        return f"{root.rstrip('/')}/{name}"
    if anywhere:
        return str(Path(root) / name)
    try:
        return str(inside(root, name))
    except OutsideError as error:
        raise Refused("path leads out of the data set", str(error)) from None


@dataclass(frozen=True)
class EditRow:
    """One pair as a data set has it, before anything is looked at.

    Attributes:
        identity: of the row in the data set, the same wherever the files lie; the key of the sample follows
            from it.
        instruction: what is to be done, or for a row without sources the caption.
        target: what comes out.
        sources: what goes in: the edited picture or video first, further ones are references; none for text
            to image or video.
        mask: where the edit is, in pixels of the first source; `mask_rule` says which pixels are inside:
            "bright" (luma from 128 on), "dark", or "transparent" (alpha below 128).
        task: as `Sample.task`; "" for image_editing, video_editing, text_to_image or text_to_video.
        license: of this row, where it differs from the data set's.
        origin: in words, who or what made the pair; goes into the provenance.
        captions, scores: as in `Sample`; a score that is not known is None.
        reverse_instruction: turns the target into the source; None where nobody has said.
        group: what was edited; rows of one group are in one split. "": the bytes of the first source.
        parent: identity of the turn before, whose target is this source; None for a first turn.
        turn: from 1 on.
        aligned: whether source and target show the same place; False where the source is a reference only:
            then sizes, rates and lengths need not agree.
    """

    identity: str
    instruction: str
    target: Blob
    sources: tuple[Blob, ...] = ()
    mask: Blob | None = None
    mask_rule: MaskRule = "bright"
    task: str = ""
    license: str = ""
    origin: str = ""
    captions: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, float | None] = field(default_factory=dict)
    reverse_instruction: str | None = None
    group: str = ""
    parent: str | None = None
    turn: int = 1
    aligned: bool = True


@dataclass(frozen=True)
class BadRow:
    """A row, or a whole part, that cannot be used.

    Attributes:
        reason: what kind of fault, in a few words that are counted: "no instruction", "file missing".
        detail: of this one row, for quarantine; "" for none.
        rows: how many rows it stands for, where that is known.
    """

    identity: str
    reason: str
    detail: str = ""
    rows: int = 1


@dataclass(frozen=True)
class Part:
    """What is read in one go, at most about `PART_ROWS` rows: a row group, lines of a file, a tar.

    Attributes:
        name: unique in the data set.
        path: the file or folder, at a path or URL.
        start, stop: of what the layout counts (rows, bytes, files), `stop` exclusive.
        about: what else the layout must know to read it: plain JSON, since it crosses processes.
        fault: why it cannot be read at all (a parquet without its footer, a missing volume); it is
            quarantined and the others go on.
    """

    name: str
    path: str = ""
    start: int = 0
    stop: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""


@dataclass(frozen=True)
class LayoutOptions:
    """What a user says of a data set beside where it is.

    Attributes:
        mapping: names of columns and whatever else the layout asks for, from a YAML file and `--columns`.
        task: of all rows that do not say otherwise; "" for the layout's own.
    """

    mapping: Mapping[str, Any] = field(default_factory=dict)
    task: str = ""


class Layout(Protocol):
    """How a data set lies on disk. Built anew in every process from its name and `LayoutOptions`.

    Attributes:
        name: of the format; part of every key.
        license: of the data set as published, "unknown" where that is not known.
    """

    name: str
    license: str

    def parts(self, source: str) -> Iterable[Part]:
        """The parts of the data set at a path or URL, in an order that does not change.

        Raises:
            SettingError: nothing of this layout is there, or its columns are not those of the mapping.
        """
        ...

    def rows(self, part: Part) -> Iterator[EditRow | BadRow]:
        """The rows of a part, in order, one at a time; what is wrong with one is a BadRow and no exception.

        A ShardError (damage in the middle of a file) ends the part; the rows before it are kept.
        """
        ...


def need_columns(found: Iterable[str], wanted: Mapping[str, str], where: str) -> None:
    """Raise SettingError unless a table has the columns that a mapping names.

    Args:
        wanted: role ("source", "instruction") -> name of the column.
    """
    have = list(found)
    for role, column in wanted.items():
        if column not in have:
            raise SettingError(
                f"{where}: has no column {column!r}, which the mapping names for {role}, but "
                f"{', '.join(have) or 'none'}; say --columns {role}=NAME, or write a mapping"
            )
