"""What a task is made of: where its units come from, what is computed of each, which samples that gives.

A task is one class in one file of `curation/tasks`, a subclass of `Task` or of a recipe in
`curation.tasks.base`; it writes `stages` and `samples`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from curation.core import cache, preview
from curation.core.cache import StoredResult, Workspace
from curation.core.outcome import Outcome
from curation.core.results import Candidate
from curation.core.samples import MediaWriter as MediaWriter  # these three are public here
from curation.core.samples import SampleSpec as SampleSpec
from curation.core.samples import key_of as key_of
from curation.core.samples import media_of
from curation.core.stage import Item, Results, Stage, checked
from curation.sources import clip_filter, normalize, scenes, timeline, tone_mapping
from curation.sources import clips as clips_module
from curation.sources.assets import license_of
from curation.sources.clip_filter import ClipStats
from curation.sources.clips import Clip, Cut, cut, load_frames
from curation.sources.listing import SourceFile, Sources, find_sources, local_copy
from curation.vlm.errors import is_out_of_memory
from curation.vlm.interface import Annotator, AnnotatorError
from curation.vlm.interface import license_of as terms_of
from shards import media
from shards.hashing import digest
from shards.sample import ClipRef, Provenance, Sample, Step

# What the frames of a clip depend on, beside its key; which clips there are also depends on `scenes`.
FRAMES_CODE = (clips_module, normalize, timeline, tone_mapping, media)


class Task:
    """A task over video files. Subclasses write `stages` and `samples`."""

    name: ClassVar[str]
    from_files: ClassVar[bool] = True  # whether units are cut out of video files, and screened
    note: ClassVar[str] = ""  # told at the start of a run
    code: ClassVar[tuple[Any, ...]] = ()  # modules that its stages call, for the workspace key
    licenses: Mapping[str, str] = MappingProxyType({})  # source -> what the list of `find` says it is under

    def __init__(self, cut: Cut | None = None) -> None:
        self.cut = cut or Cut()

    # ---- where units come from ----------------------------------------------------------------------------

    def find(self, clips: str) -> Sources:
        """The sources, each cut by one worker; by default the videos of a folder, URL or list."""
        found = find_sources(clips)
        self.licenses = found.licenses
        return found

    def units(self, source: str, space: Workspace) -> list[Clip]:
        """The clips of a source."""
        how = {name: value for name, value in asdict(self.cut).items() if name != "screen"}
        with local_copy(source) as file:
            code = cache.code_of(*FRAMES_CODE, scenes)
            depends = {"file": _digest_of(file, space), "cut": how, "code": code}

            def make(folder: Path) -> StoredResult:
                made = cut(file.path, self.cut, folder)
                # The same bytes may lie under another name elsewhere, or later.
                return {"clips": [asdict(replace(clip, source="", name="")) for clip in made]}

            folder, found = space.cached("cut", depends, make, files=False)
        about, reference = {"source": source, "name": file.name}, space.reference(folder)
        return [Clip(**{**c, **about, "file": f"{reference}/{c['file']}"}) for c in found["clips"]]

    def clip_stats(self, clip: Clip, space: Workspace) -> ClipStats | None:
        """What the clip filter goes by; None for units that are not cut out of files."""
        if not self.from_files:
            return None
        depends = {"clip": clip.key, "code": cache.code_of(*FRAMES_CODE, clip_filter)}

        def measure(_: Path) -> StoredResult:
            return asdict(clip_filter.measure(load_frames(located(clip, space)), clip.fps))

        _, found = space.cached("screen", depends, measure)
        measures = clip_filter.Measures(**found)
        return ClipStats(measures, clip.frames / clip.fps, min(clip.height, clip.width))

    # ---- what is computed, and what it gives ---------------------------------------------------------------

    def stages(self) -> Sequence[Stage]:
        """The recipe: the stages that a clip passes, in order."""
        raise NotImplementedError

    def start(self, clip: Clip) -> list[Item]:
        """What the first stage is given of a clip; the clip itself by default."""
        return [Item()]

    @functools.cached_property
    def graph(self) -> tuple[Stage, ...]:
        """The stages, checked, and made once."""
        return checked(self.stages())

    def process(self, clip: Clip, space: Workspace) -> list[Candidate]:
        """All candidates of a clip, stage after stage in this process."""
        outcome = Outcome(clip.source, clip, items=self.start(clip))
        for stage in self.graph:
            self.advance(stage, outcome, space)
        return outcome.candidates

    def advance(self, stage: Stage, outcome: Outcome, space: Workspace) -> None:
        """Run one stage for all items of a clip that are still on their way, and take its decisions.

        What a backend could not do becomes a candidate for quarantine; nothing of it is stored, so that the
        next run tries again.
        """
        clip, last = outcome.clip, stage is self.graph[-1]
        assert clip is not None
        if stage is self.graph[0]:
            outcome.items = [replace(item, number=(n,)) for n, item in enumerate(outcome.items)]
        kinds = {each.name: each.result for each in self.graph}
        going: list[Item] = []
        for item in outcome.items:
            following: Sequence[Item | Candidate]
            try:
                reference = self.compute(stage, clip, item, Results(item, kinds, space), space)
            except AnnotatorError as error:
                if is_out_of_memory(error):
                    raise  # the same awaits every other item and clip
                following = [Candidate(reason="quarantined", error=str(error))]
            else:
                item = replace(item, results={**item.results, stage.name: reference})
                following = stage.following(clip, item, Results(item, kinds, space))
            for place, one in enumerate(following):
                number = (*item.number, place)
                if isinstance(one, Candidate):
                    outcome.candidates.append(replace(one, number=number))
                elif last:
                    finished = Results(one, kinds, space)[stage.name]
                    outcome.candidates.append(replace(finished, number=number))
                else:
                    going.append(replace(one, number=number))
        outcome.items = going
        outcome.candidates.sort(key=lambda candidate: candidate.number)

    def compute(self, stage: Stage, clip: Clip, item: Item, results: Results, space: Workspace) -> str:
        """The reference of a stage's result for an item, computed unless the workspace has it."""
        values = stage.values_of(item)
        depends = {
            "clip": clip.key,
            "uses": stage.backends,
            "values": values,
            "settings": stage.settings,
            "code": self.code_version(stage),
            "inputs": {name: item.results[name] for name in stage.inputs},
        }

        def make(folder: Path) -> StoredResult:
            for name in stage.inputs:
                space.folder(item.results[name])  # fetches its files
            inputs = {name: results[name] for name in stage.inputs}
            result = stage.run(located(clip, space), folder, **values, **inputs)
            if isinstance(result, Candidate) and not result.reason:
                self.preview(folder, result)
            return result.to_json()

        folder, _ = space.cached(stage.name, depends, make, files=False)
        return space.reference(folder)

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """The samples of accepted candidate `number` of a clip."""
        raise NotImplementedError

    def annotators(self) -> dict[str, Annotator]:
        """The annotators by stage; those of a stage with several by their class too."""
        return {
            stage.name if len(stage.annotators) == 1 else f"{stage.name}: {type(one).__name__}": one
            for stage in self.graph
            for one in stage.annotators
        }

    def settings(self) -> Mapping[str, object]:
        """Numbers of the recipe that belong to no annotator and change its results, by stage."""
        return {stage.name: dict(stage.settings) for stage in self.graph if stage.settings}

    def thresholds(self) -> Mapping[str, object]:
        """Numbers by which stages decide, as the task's arguments name them; no part of any result's key."""
        return {}

    def code_version(self, stage: Stage) -> str:
        """The version of the code that a stage's results depend on."""
        return code_of_task(stage.recipe or type(self), stage.annotators)

    def preview(self, folder: Path, candidate: Candidate) -> None:
        """Write preview.png of a new candidate; by default moments of the first two media but masks."""
        shown = [medium for medium in candidate.files.values() if medium.kind != "mask"][:2]
        if shown:
            preview.write_strips(folder / "preview.png", [folder / medium.file for medium in shown])

    @staticmethod
    def windows(clip: Clip, length: int, most: int) -> list[tuple[int, int]]:
        """Up to `most` disjoint spans (first, stop) of `length` frames, spread over a clip."""
        count = min(most, max(1, clip.frames // length))
        length = min(length, clip.frames)
        last = clip.frames - length
        starts = [round(i * last / max(1, count - 1)) for i in range(count)] if count > 1 else [last // 2]
        return [(start, start + length) for start in starts]

    # ---- where samples come from ------------------------------------------------------------------------

    def steps(self) -> list[Step]:
        """Provenance of an accepted candidate: a step for each stage and annotator, then the recipe."""
        steps = []
        for stage in self.graph:
            for annotator, backend in zip(stage.annotators, stage.backends, strict=True):
                made = {"backend": backend.backend, "model": backend.model, "revision": backend.revision}
                config, license = "sha256:" + digest(backend.settings), terms_of(annotator)
                steps.append(Step(stage=stage.name, **made, config=config, license=license))
        config = "sha256:" + digest({**self.settings(), **self.thresholds()})
        return [*steps, Step(stage=self.name, backend="recipe", config=config)]

    def provenance(self, clip: Clip, candidate: Candidate, steps: list[Step]) -> Provenance:
        """Where a candidate comes from."""
        first, stop = candidate.span(clip.frames)
        span = (clip.time + first / clip.fps, clip.time + stop / clip.fps)
        reference = ClipRef(
            sha256=clip.sha256,
            name=clip.name,
            span=(round(span[0], 4), round(span[1], 4)),
            license=self.license(clip),
            mended=clip.mended,
        )
        return Provenance(clip=reference, steps=steps, given=dict(candidate.given))

    def license(self, clip: Clip) -> str:
        """Licence of the source clip: what its list says, else that of a sample clip, else "unknown"."""
        return self.licenses.get(clip.source) or license_of(clip.sha256)

    def build_samples(
        self, clip: Clip, candidate: Candidate, number: int, steps: list[Step]
    ) -> list[tuple[Sample, dict[str, Path]]]:
        """The samples of accepted candidate `number` of a clip, and their media files."""
        provenance, built = self.provenance(clip, candidate, steps), []
        for spec in self.samples(clip, candidate, number):
            media = {name: candidate.files[written] for name, written in spec.media.items()}
            sample = Sample(
                schema=1,
                key=key_of(clip, spec.task, number, spec.ending),
                split="heldout" if clip.split == "heldout" else "train",
                task=spec.task,
                text=spec.text,
                targets=list(spec.targets),
                media={
                    name: media_of(name, medium, spec.frame_of.get(name)) for name, medium in media.items()
                },
                captions=spec.captions,
                scores=dict(candidate.scores),
                provenance=provenance,
            )
            built.append((sample, {name: candidate.folder / medium.file for name, medium in media.items()}))
        return built


def located(clip: Clip, space: Workspace) -> Clip:
    """The clip with where its own file lies on this machine."""
    return replace(clip, path=str(space.path(clip.file))) if clip.file else clip


def seed_of(clip: Clip, *values: object) -> int:
    """The seed of a candidate's noise: 31 bits of the clip's key and the values that tell it from others.

    It is the same in every run and on every machine, so a result that is computed again is the same one.
    """
    return int(digest([clip.key, *values])[:8], 16) & 0x7FFFFFFF


def _digest_of(file: SourceFile, space: Workspace) -> str:
    """The sha256 of a source; of a remote one that has not changed since, without fetching it again."""
    if not (version := file.version):
        return file.sha256
    depends = {"url": file.source, "version": version}
    return str(space.cached("source", depends, lambda _: {"sha256": file.sha256})[1]["sha256"])


def classes_of(annotators: Iterable[Any]) -> list[type]:
    """Their classes and those of their `parts`, for the version of their code."""
    found: list[type] = []
    for annotator in annotators:
        found += [type(annotator), *classes_of(getattr(annotator, "parts", {}).values())]
    return found


def code_of_task(task: type, uses: Iterable[Annotator]) -> str:
    """Code version of a task: its classes up to `Task`, what it calls, and the annotators' classes."""
    return _code(task, *classes_of(uses))


@functools.cache
def _code(task: type, *classes: type) -> str:
    own = [c for c in task.__mro__ if issubclass(c, Task) and c is not Task]
    modules = [inspect.getmodule(c) for c in (*own, *classes)]
    called = [thing for c in (*own, *classes) for thing in c.__dict__.get("code", ())]
    return cache.code_of(*dict.fromkeys(modules), *dict.fromkeys(called), *FRAMES_CODE, preview)
