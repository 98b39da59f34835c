"""What is compared: an editor that runs on the items, or a folder of results that somebody made before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmark.core.fingerprint import content_of
from benchmark.core.item import (
    MODEL,
    MODEL_RAW,
    SOURCE,
    TARGET,
    BenchmarkError,
    Geometry,
    Item,
    Loaded,
    Unscored,
)
from benchmark.core.media import IMAGES, geometry_of, locate, reading_mode
from shards.errors import first_line
from shards.files import OutsideError


@dataclass(frozen=True)
class Result:
    """An item's result.

    Attributes:
        files: with their sha256, by row.
        seconds: that an editor took to make it.
        peak_bytes: the most memory that it took, of the GPU where it used one, else of the process.
        source: the source that it was made of, with its sha256, where that lies beside it.
    """

    files: dict[str, tuple[Path, str]]
    geometry: Geometry
    seconds: float | None = None
    peak_bytes: int | None = None
    source: tuple[Path, str] | None = None


class System(Protocol):
    """Fills one row of the table, or several.

    One that has a false `needs_source` is asked about an item whose source cannot be used, too.
    """

    @property
    def rows(self) -> list[str]: ...

    def result(self, item: Item, load: Callable[[], Loaded]) -> Result | Unscored:
        """What it made of an item, whose media `load` gives if they are needed; or why there is nothing."""
        ...


class PrecomputedResults:
    """A folder of finished results, one per item at `Item.result`.

    Args:
        name: of the row.
        folder: see above.
    """

    needs_source = False

    def __init__(self, name: str, folder: Path) -> None:
        self.rows, self.folder, self.mode = [name], folder, reading_mode()
        if name in (SOURCE, MODEL, MODEL_RAW, TARGET):
            raise BenchmarkError(
                f"--results {name}: the table has a row of this name already; choose another"
            )
        if not folder.is_dir():
            raise BenchmarkError(f"--results {name}: {folder} is no folder")

    def result(self, item: Item, load: Callable[[], Loaded]) -> Result | Unscored:
        """Its file and geometry; pictures have the source's rate."""
        try:
            path = self.path(item)
        except (OutsideError, OSError) as error:
            return Unscored(f"no result: {first_line(error)}")
        if path is None:
            return Unscored(f"no result: {self.folder / item.result} is missing")
        try:
            geometry = geometry_of(path, item.native.fps if item.native else 1.0, self.mode)
            digest, source = content_of(str(path)), self.source(item)
        except (ValueError, OSError) as error:
            return Unscored(f"the result cannot be read: {first_line(error)}")
        assert digest is not None  # it exists
        return Result({self.rows[0]: (path, digest)}, geometry, source=source)

    def source(self, item: Item) -> tuple[Path, str] | None:
        """The source beside the item's result, and its sha256; OutsideError for one that leads elsewhere."""
        path = locate(self.folder, item.beside) if item.beside else None
        digest = content_of(str(path)) if path is not None and path.is_file() else None
        return None if path is None or digest is None else (path, digest)

    def path(self, item: Item) -> Path | None:
        """Where the item's result lies: at its name, or, for an .mp4, as a .gif or a folder of pictures.

        Raises OutsideError for a name that leads out of the folder of results.
        """
        named = locate(self.folder, item.result)
        forms = [named, named.with_suffix(".gif")] if named.suffix == ".mp4" else [named]
        for place in forms:
            if place.is_file():
                return place
        folder = locate(self.folder, str(Path(item.result).with_suffix("")))
        return folder if folder.is_dir() and any(p.suffix in IMAGES for p in folder.iterdir()) else None

    def extra(self, items: list[Item]) -> list[str]:
        """Results that belong to no item: entries beside those that items name."""
        known = {part for item in items for part in Path(item.result).parts[:1]}
        known |= {Path(name).stem for name in known}
        odd = sorted(p.name for p in self.folder.iterdir() if p.name not in known and p.stem not in known)
        return [f"{self.rows[0]}: {name} in {self.folder} belongs to no item" for name in odd]
