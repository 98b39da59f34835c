"""What a study is made of: the items of its suite, and a result of every method for each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.fingerprint import content_of
from benchmark.core.item import Geometry, Item
from benchmark.study.definition import StudyDefinition
from benchmark.study.design import Subject
from benchmark.study.media import Clip, common_geometry, is_stretched, result_clip, source_clip
from benchmark.study.records import StudyError
from benchmark.suites import open_suite
from benchmark.systems.results_folder import PrecomputedResults

Tell = Callable[[str, int, int], None]  # what is going on, how many are done, of how many
SOURCE = ""  # stands for the source among names of methods, none of which is empty


@dataclass(frozen=True)
class Material:
    """Items that every method has a result of.

    Attributes:
        items: by id.
        clips: by item and method; the source's under `SOURCE`.
        shown: by item, how its clips are shown.
        remarks: what the author of the study should know.
    """

    items: Mapping[str, Item]
    clips: Mapping[str, Mapping[str, Clip]]
    shown: Mapping[str, Geometry]
    remarks: tuple[str, ...]

    @property
    def subjects(self) -> list[Subject]:
        """The items, as the design sees them."""
        return [_subject(item, self.shown[item.id]) for item in self.items.values()]


def _subject(item: Item, shown: Geometry) -> Subject:
    shape = "horizontal" if shown.width >= shown.height else "vertical"
    return Subject(item.id, item.task, item.facets.get("orientation", shape), item.clip)


def read_material(definition: StudyDefinition, allow_missing: bool, cut: bool, tell: Tell) -> Material:
    """Find and measure everything that a study shows.

    Args:
        allow_missing: leave out items that cannot be used or that a method has no result of.
        cut: cut results of other lengths than their source.
        tell: is called as the work goes on.

    Raises:
        StudyError: anything else that is missing; two methods with one file; lengths that differ.
        MediaError: a file that cannot be read.
    """
    items = open_suite(definition.suite, Path(definition.data)).items
    results = {name: _results(name, folder) for name, folder in definition.methods.items()}
    paths: dict[str, dict[str, Path]] = defaultdict(dict)
    missing: dict[str, list[str]] = defaultdict(list)  # by method
    faults = [item for item in items if item.fault is not None or item.native is None]
    for item in items:
        for name, found in results.items():
            path = found.path(item)
            if path is None:
                missing[name].append(str(found.folder / item.result))
            else:
                paths[item.id][name] = path
    remarks = [
        f"{name}: results of {len(lost)} of {len(items)} items are missing, the first is {lost[0]}"
        for name, lost in missing.items()
    ]
    if faults:
        remarks.insert(0, f"{len(faults)} of {len(items)} items cannot be used, the first: {faults[0].fault}")
    if remarks and not allow_missing:
        raise StudyError(f"{remarks[0]}; --allow-missing leaves such items out")
    left = [i for i in items if i not in faults and len(paths[i.id]) == len(results)]
    if not left:
        raise StudyError(f"{definition.data}: no item has a result of every method")
    if len(left) < len(items):
        remarks.append(f"{len(items) - len(left)} of {len(items)} items are left out")
    clips: dict[str, dict[str, Clip]] = {}
    shown: dict[str, Geometry] = {}
    bars: dict[str, int] = defaultdict(int)
    for number, item in enumerate(left):
        tell("reading", number, len(left))
        _refuse_same(item, paths[item.id])
        clips[item.id], shown[item.id] = _measure(definition, item, paths[item.id], cut)
        for name, clip in clips[item.id].items():
            bars[name] += not is_stretched(clip.geometry, shown[item.id])
    tell("reading", len(left), len(left))
    remarks += [
        f"{name}: {count} results have another aspect than their source and get black bars, which raters see"
        for name, count in bars.items()
        if count
    ]
    return Material({item.id: item for item in left}, clips, shown, tuple(remarks))


def _results(name: str, folder: str) -> PrecomputedResults:
    if not Path(folder).is_dir():
        raise StudyError(f"methods.{name}: {folder} is no folder")
    return PrecomputedResults(f"methods.{name}", Path(folder))


def _measure(
    definition: StudyDefinition, item: Item, paths: Mapping[str, Path], cut: bool
) -> tuple[dict[str, Clip], Geometry]:
    """An item's clips, and how they are shown; a file that cannot be read is named."""
    assert item.native is not None  # as for all that are left
    clips = {SOURCE: source_clip(item)}
    for name, path in paths.items():
        clips[name] = result_clip(path, item.native.fps)
    seconds = definition.max_seconds
    return clips, common_geometry(list(clips.values()), definition.height, definition.fps, seconds, cut)


def _refuse_same(item: Item, paths: Mapping[str, Path]) -> None:
    """Raise StudyError where two methods have the same bytes: a folder was given twice, or copied."""
    by_size: dict[int, list[str]] = defaultdict(list)
    for name, path in paths.items():
        by_size[-1 if path.is_dir() else path.stat().st_size].append(name)
    for names in by_size.values():
        known: dict[str | None, str] = {}
        for name in names if len(names) > 1 else []:
            digest = content_of(str(paths[name]))
            if digest in known:
                other = known[digest]
                raise StudyError(
                    f"item {item.id}: {other} and {name} have the same file ({paths[other]} and "
                    f"{paths[name]}); a method has results of its own"
                )
            known[digest] = name
