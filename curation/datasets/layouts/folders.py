"""Pairs by their files' names: `a.mp4, a_edited.mp4, a.txt` in one folder, or ai-toolkit's folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from curation.datasets.layouts.rows import (
    PART_ROWS,
    BadRow,
    Blob,
    EditRow,
    LayoutOptions,
    Part,
    Refused,
    place_in,
)
from curation.sources.clips import VIDEO_SUFFIXES, printable
from shards.errors import SettingError
from shards.location import Location, ShardError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
MEDIA = VIDEO_SUFFIXES | IMAGE_SUFFIXES
MAX_TEXT = 64 << 10  # bytes of an instruction's file


def media_by_stem(source: str) -> dict[str, list[str]]:
    """Every image and video below a folder or URL by its path without suffix, sorted.

    Raises:
        SettingError: there is no such folder, or it holds none.
    """
    location = Location(source)
    found: dict[str, list[str]] = {}
    for name in sorted(location.sizes()):
        path = PurePosixPath(name)
        if path.suffix.lower() in MEDIA and not path.name.startswith("."):
            found.setdefault(str(path.with_suffix("")), []).append(name)
    if not found:
        raise SettingError(f"{printable(source)}: no such folder, or no images and videos in it")
    return found


def read_words(source: str, name: str) -> str:
    """The text of a file beside the media.

    Raises:
        Refused: it is missing, too long or not UTF-8.
    """
    try:
        return Location(source).read(name, limit=MAX_TEXT).decode("utf-8-sig").strip()
    except (FileNotFoundError, NotADirectoryError):
        raise Refused("no instruction", f"{printable(name)}: no such file") from None
    except UnicodeDecodeError:
        raise Refused("not UTF-8", printable(name)) from None
    except ShardError as error:
        raise Refused("no instruction", str(error)) from None


class _Names:
    """A layout that lists the names of its pairs first; a part is some hundred of them."""

    name, license = "", "unknown"

    def __init__(self, options: LayoutOptions) -> None:
        self.task = options.task
        self.source = ""
        self.read_options(options)

    def read_options(self, options: LayoutOptions) -> None:
        """Take what the mapping says; SettingError for what it may not say."""
        for role in options.mapping:
            raise SettingError(f"mapping {role}: {self.name} has no columns")

    def entries(self, source: str) -> Iterator[dict[str, list[str]]]:
        """The files of every pair by role."""
        raise NotImplementedError

    def parts(self, source: str) -> Iterator[Part]:
        """Some hundred pairs each."""
        entries = list(self.entries(source))
        for start in range(0, len(entries), PART_ROWS):
            some = entries[start : start + PART_ROWS]
            yield Part(f"{start}", source, start, start + len(some), {"entries": some})

    def rows(self, part: Part) -> Iterator[EditRow | BadRow]:
        """One pair an entry."""
        for entry in part.about["entries"]:
            yield self.pair(part.path, entry)

    def pair(self, source: str, entry: dict[str, list[str]]) -> EditRow | BadRow:
        """The row of one entry."""
        (identity,) = entry["identity"]
        for role in ("target", "sources"):
            if not entry[role]:
                return BadRow(identity, "file missing", f"there is no {role.removesuffix('s')} of it")
        try:
            text = read_words(source, entry["text"][0])
            reverse = entry.get("reverse")
            return EditRow(
                identity,
                text,
                Blob.at(place_in(source, entry["target"][0]), entry["target"][0]),
                tuple(Blob.at(place_in(source, name), name) for name in entry["sources"]),
                next((Blob.at(place_in(source, name), name) for name in entry.get("mask", [])), None),
                task=self.task,
                reverse_instruction=read_words(source, reverse[0]) if reverse else None,
            )
        except Refused as error:
            return BadRow(identity, error.reason, error.detail)


class Folder(_Names):
    """`a.mp4`, `a_edited.mp4`, `a.txt`; also images, `a_mask.png`, and `a_reverse.txt` for the way back."""

    name = "folder"

    def entries(self, source: str) -> Iterator[dict[str, list[str]]]:
        """Every medium that is no edit or mask of another is a source."""
        media = media_by_stem(source)
        texts = {name for name in Location(source).sizes() if name.endswith("_reverse.txt")}
        for stem in media:
            owner = stem.rpartition("_")[0]
            if stem.endswith(("_edited", "_mask")) and owner in media:
                continue
            target = stem if stem.endswith("_edited") else f"{stem}_edited"
            stem = stem.removesuffix("_edited")
            yield {
                "identity": [stem],
                "sources": media.get(stem, [])[:1],
                "target": media.get(target, [])[:1],
                "mask": media.get(f"{stem}_mask", [])[:1],
                "text": [f"{stem}.txt"],
                "reverse": [f"{stem}_reverse.txt"] if f"{stem}_reverse.txt" in texts else [],
            }


class AiToolkit(_Names):
    """ai-toolkit's folders: `target/a.jpg` with `target/a.txt`, and `control/a.jpg` of the same name.

    The mapping may name other folders: `target`, and `control` (one, or a list for several inputs).
    """

    name = "ai_toolkit"

    def read_options(self, options: LayoutOptions) -> None:
        """Names of the folders."""
        mapping = {"target": "target", "control": "control", **options.mapping}
        for role in mapping.keys() - {"target", "control"}:
            raise SettingError(f"mapping {role}: ai_toolkit has folders target and control alone")
        self.target = str(mapping["target"])
        controls = mapping["control"]
        self.controls = [str(name) for name in (controls if isinstance(controls, list) else [controls])]

    def entries(self, source: str) -> Iterator[dict[str, list[str]]]:
        """Every medium of the target's folder."""
        media = media_by_stem(source)
        stems = [stem for stem in media if stem.startswith(f"{self.target}/")]
        if not stems:
            raise SettingError(
                f"{printable(source)}: no images and videos in {self.target}/; name the folders: "
                "--columns target=FOLDER,control=FOLDER"
            )
        for stem in stems:
            name = stem.removeprefix(f"{self.target}/")
            found = [media[f"{folder}/{name}"][0] for folder in self.controls if f"{folder}/{name}" in media]
            yield {
                "identity": [name],
                "target": media[stem][:1],
                "sources": found if len(found) == len(self.controls) else [],
                "text": [f"{stem}.txt"],
            }
