"""Changing thresholds of a task one by one, and what is computed then."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.core.cache import Workspace
from curation.core.task import Task
from curation.engine.task_config import RunError, build
from curation.sources.clips import Clip

Place = tuple[str, ...]


def leaves(thresholds: Mapping[str, Any], place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """The numbers of nested thresholds and where they are."""
    for name, value in thresholds.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*place, name))
        elif not isinstance(value, bool):
            yield (*place, name), value


def scaled(value: Any, factor: float) -> Any:
    """A threshold made larger or smaller; whole numbers stay whole."""
    if isinstance(value, list | tuple):
        return [scaled(one, factor) for one in value]
    return max(1, round(value * factor)) if isinstance(value, int) else value * factor


def with_threshold(config: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    """A task's configuration with another threshold."""
    made = copy.deepcopy(config)
    if place[0] == "grades":  # as `thresholds` calls the judge's
        place = ("judge", "init_args", "thresholds", *place[1:])
    into = made["init_args"]
    for name in place[:-1]:
        into = into.setdefault(name, {})
    into[place[-1]] = value
    return made


def units(task: Task, sources: Iterable[str], space: Workspace) -> list[Clip]:
    """The units of some sources."""
    return [unit for source in sources for unit in task.units(source, space)]


@dataclass(frozen=True)
class Processed:
    """What came of all units: results asked for and computed, by stage, and the candidates' reasons."""

    asked: Counter[str]
    computed: Counter[str]
    reasons: list[str]


def processed(config: dict[str, Any], clips: Path, root: Path) -> Processed:
    """Process all units in the workspace `root`."""
    task, space = build(config), Workspace(root)
    found = units(task, task.find(str(clips)).files, space)
    reasons = [candidate.reason for unit in found for candidate in task.process(unit, space)]
    stages = {stage.name for stage in task.graph}
    work = {name: work for name, work in space.work.items() if name in stages}
    asked = Counter({name: one.computed + one.reused for name, one in work.items()})
    return Processed(asked, Counter({name: one.computed for name, one in work.items()}), reasons)


def check_thresholds(
    config: dict[str, Any], clips: Path, root: Path, choosing: Mapping[str, tuple[Place, ...]] | None = None
) -> int:
    """Assert that no change of a threshold computes anything of a unit that was there; how many changed much.

    Each is made eight times smaller and larger, where the task takes it so.

    Args:
        choosing: stage -> thresholds that may choose other units after it; later stages may compute those.
    """
    first = processed(config, clips, root)
    assert set(first.computed) == set(first.asked)  # in an empty workspace
    task, asked = build(config), Counter(first.asked)
    names = [stage.name for stage in task.graph]
    changed = 0
    for place, value in leaves(task.thresholds()):
        chooses = [stage for stage, places in (choosing or {}).items() if place in places]
        for factor in (1 / 8, 8.0):
            try:
                now = processed(with_threshold(config, place, scaled(value, factor)), clips, root)
            except RunError:  # no such threshold
                continue
            changed += now.reasons != first.reasons
            for stage in names[: names.index(chooses[0]) + 1] if chooses else names:
                assert now.computed[stage] <= max(0, now.asked[stage] - asked[stage]), (place, factor, stage)
            asked |= now.asked  # the largest number of each
    return changed
