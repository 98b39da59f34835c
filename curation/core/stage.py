"""Stages: what a task declares of itself. One list runs in one process, in a pool, and on a cluster.

A stage computes one result of one item with its own annotators. What is decided on results (gates,
thresholds, which windows or objects come next) lies in `decide`, which is never stored: a changed gate
computes nothing.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import JsonValue

from curation.core.cache import Workspace
from curation.core.results import Candidate, StageResult
from curation.sources.clips import Clip
from curation.vlm.interface import Annotator, Backend
from shards.errors import SettingError


@dataclass(frozen=True)
class Resources:
    """What one process of a stage takes.

    Attributes:
        cpus: cores; gpus: of the GPUs, a part of one where several processes share it.
        memory_gib: main memory, GiB; 0 when it needs no mention.
        batch: clips that are handed over to it at once.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory_gib: float = 0.0
    batch: int = 8


@dataclass(frozen=True)
class Item:
    """A unit of a clip on its way through the stages: all of it at first, later a window or an object.

    Attributes:
        number: its place among the clip's items, to sort by.
        values: what was decided of it so far, as plain values (its span, a style, a prompt).
        results: stage -> reference of its result in the workspace.
    """

    number: tuple[int, ...] = ()
    values: Mapping[str, JsonValue] = field(default_factory=dict)
    results: Mapping[str, str] = field(default_factory=dict)

    def also(self, **values: JsonValue) -> Item:
        """The same with further values."""
        return replace(self, values={**self.values, **values})


class Results(Mapping[str, Any]):
    """The results of an item by stage, as the values that they were stored from; read when asked for.

    Their `folder` says where their files are, or will be once a stage names them as its inputs.
    """

    def __init__(self, item: Item, kinds: Mapping[str, type[StageResult]], space: Workspace) -> None:
        self._item, self._kinds, self._space = item, kinds, space

    def __getitem__(self, stage: str) -> Any:
        if stage not in self._item.results:
            raise SettingError(f"stage {stage!r}: its result was asked for before it ran")
        reference = self._item.results[stage]
        stored = self._space.read(reference)
        return self._kinds[stage].from_json(stored, self._space.local / reference)

    def __iter__(self) -> Iterator[str]:
        return iter(self._item.results)

    def __len__(self) -> int:
        return len(self._item.results)


Decision = Callable[[Clip, Item, Results], Sequence[Item | Candidate]]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a task's recipe.

    Attributes:
        name: unique in the task, and the folder of its results in the workspace.
        run: `run(clip, folder, **values, **inputs)` computes the result and writes its files into `folder`.
        result: the class of what it returns.
        annotators: that `run` calls; a process of this stage loads these and no others.
        values: names of the item's values that `run` takes.
        inputs: earlier stages whose results `run` takes, under their names.
        settings: numbers that change the result and belong to no annotator.
        decide: what follows from the results: further items, or finished candidates. Without it a candidate
            with a reason is finished and everything else goes on.
        resources: of one process; by what the annotators ask for when None.
        recipe: the class that `run` belongs to, where several tasks share a stage and so its results; the
            task's own class when None.

    The key of a result is made of all of them but `decide` and `resources`.
    """

    name: str
    run: Callable[..., StageResult]
    result: type[StageResult] = Candidate
    annotators: Sequence[Annotator] = ()
    values: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    decide: Decision | None = None
    resources: Resources | None = None
    recipe: type | None = None

    @property
    def needs(self) -> Resources:
        """The resources of one process: its own, or a core and the largest share of a GPU of a part."""
        return self.resources or Resources(gpus=max(map(gpus_of, self.annotators), default=0.0))

    @functools.cached_property
    def backends(self) -> list[Backend]:
        """What the annotators say of themselves, asked once: some hash their weights for it."""
        return [annotator.describe() for annotator in self.annotators]

    def values_of(self, item: Item) -> dict[str, JsonValue]:
        """The values that `run` takes of an item. Raises SettingError for one that nobody decided."""
        if missing := [name for name in self.values if name not in item.values]:
            raise SettingError(f"stage {self.name!r}: no earlier stage gave its value {missing[0]!r}")
        return {name: item.values[name] for name in self.values}

    def following(self, clip: Clip, item: Item, results: Results) -> Sequence[Item | Candidate]:
        """What follows from an item's results."""
        if self.decide is not None:
            return self.decide(clip, item, results)
        result = results[self.name]
        return [result if isinstance(result, Candidate) and result.reason else item]


def gpus_of(annotator: Any) -> float:
    """The share of a GPU that an annotator asks for (its attribute `gpus`), or the largest of its parts'."""
    parts = getattr(annotator, "parts", {}).values()
    return max([float(getattr(annotator, "gpus", 0.0)), *map(gpus_of, parts)])


def checked(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages of a task.

    Raises SettingError for a name used twice, an input that comes later, and a function that takes what its
    stage does not declare: such a thing would be no part of its results' keys.
    """
    known: set[str] = set()
    for stage in stages:
        if stage.name in known:
            raise SettingError(f"stage {stage.name!r}: two stages have this name")
        if missing := sorted(set(stage.inputs) - known):
            raise SettingError(f"stage {stage.name!r}: its input {missing[0]!r} is no earlier stage")
        known.add(stage.name)
        _check_arguments(stage)
    return tuple(stages)


def _check_arguments(stage: Stage) -> None:
    """Raise SettingError unless the stage's function takes its values and inputs, and nothing else."""
    declared = [*stage.values, *stage.inputs]
    if twice := sorted(name for name in set(declared) if declared.count(name) > 1):
        raise SettingError(f"stage {stage.name!r}: {twice[0]!r} is a value and an input, or named twice")
    _, _, *taken = inspect.signature(stage.run).parameters.values()  # after the clip and the folder
    named = {one.name for one in taken if one.kind is not inspect.Parameter.VAR_KEYWORD}
    if unknown := sorted(named - set(declared)):
        raise SettingError(
            f"stage {stage.name!r}: its function takes {unknown[0]!r}; add it to its `values` or `inputs`"
        )
    if len(named) == len(taken) and (spare := sorted(set(declared) - named)):
        raise SettingError(f"stage {stage.name!r}: its function does not take {spare[0]!r}")
