"""What a task is made of: where its units come from, what is computed of each, which samples that gives.

A task is one class in one file of `curation/tasks`, a subclass of one of the recipes here or in
`curation.tasks.base.derived`; it writes `process` and `drafts` and says which annotators it uses.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from curation.core import cache, preview
from curation.core.cache import Workspace
from curation.sources import clip_filter
from curation.sources import clips as clips_module
from curation.sources.assets import license_of
from curation.sources.clips import Clip, Cut, cut, find_videos, load_frames
from curation.vlm.interface import Annotator, AnnotatorError
from shards import media
from shards.files import sha256_of
from shards.hashing import digest
from shards.media import write_image, write_mask, write_video
from shards.sample import ClipRef, Media, Provenance, Sample, Step

Shape = tuple[str, str, int, float | None, int, int]  # file, kind, frames, fps, height, width


@dataclass(frozen=True)
class SampleSpec:
    """A sample to be.

    Attributes:
        ending: of its key, unique among a candidate's samples.
        media: names of elements (video1, image1, mask) -> what was written under which name (`MediaWriter`).
    """

    ending: str
    task: str
    text: str
    targets: tuple[str, ...]
    media: dict[str, str]
    captions: dict[str, str] = field(default_factory=dict)

    def as_image(self, files: dict[str, Shape]) -> SampleSpec:
        """The same with `image1` for a `video1` that is a picture on the shelf."""
        new = {
            name: name.replace("video", "image") if files[file][1] == "image" else name
            for name, file in self.media.items()
        }
        text = re.sub(r"<(\w+)>", lambda tag: f"<{new.get(tag[1], tag[1])}>", self.text)
        if list(new) != list(new.values()):
            text = text.replace("the video", "the picture")
        media = {new[name]: file for name, file in self.media.items()}
        return replace(self, text=text, targets=tuple(new[t] for t in self.targets), media=media)


class MediaWriter:
    """Writes a candidate's media into its folder and remembers their shapes."""

    def __init__(self, folder: Path, fps: float, crf: int = 18, preset: str = "ultrafast") -> None:
        self.folder, self.fps, self.crf, self.preset = folder, fps, crf, preset
        self.files: dict[str, Shape] = {}

    def video(self, name: str, frames: np.ndarray) -> None:
        """uint8 RGB [T, H, W, 3] as H.264."""
        write_video(self.folder / f"{name}.mp4", frames, self.fps, self.crf, self.preset)
        self.files[name] = (f"{name}.mp4", "video", len(frames), self.fps, *frames.shape[1:3])

    def mask(self, name: str, mask: np.ndarray) -> None:
        """Bool [T, H, W], losslessly."""
        write_mask(self.folder / f"{name}.mkv", mask, self.fps)
        self.files[name] = (f"{name}.mkv", "mask", len(mask), self.fps, *mask.shape[1:])

    def image(self, name: str, picture: np.ndarray) -> None:
        """uint8 RGB [H, W, 3] as PNG."""
        write_image(self.folder / f"{name}.png", picture)
        self.files[name] = (f"{name}.png", "image", 1, None, *picture.shape[:2])

    def frames(self, name: str, frames: np.ndarray) -> None:
        """uint8 RGB [T, H, W, 3] as a video, one frame as a picture."""
        if len(frames) > 1:
            self.video(name, frames)
        else:
            self.image(name, frames[0])

    def copy(self, name: str, data: bytes, shape: Media) -> None:
        """The encoded bytes of another sample's element, as they are."""
        file = f"{name}{Path(shape.file).suffix}"
        (self.folder / file).write_bytes(data)
        self.files[name] = (file, shape.kind, shape.frames, shape.fps, shape.height, shape.width)

    def take(self, name: str, result: dict[str, Any], other: str) -> None:
        """What another result has on its shelf, as it is, under a new name."""
        file, *shape = result["files"][other]
        (self.folder / f"{name}{Path(file).suffix}").write_bytes((Path(result["folder"]) / file).read_bytes())
        self.files[name] = (f"{name}{Path(file).suffix}", *shape)

    def done(self, **about: Any) -> dict[str, Any]:
        """The result of an accepted candidate: what was written, and what is to be known of it."""
        return {"reason": "", "files": self.files, "scores": {}, **about}


def refused(reason: str, **about: Any) -> dict[str, Any]:
    """The result of a candidate that a gate refused."""
    return {"reason": reason, **about}


def attempt(make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `make` gives; a candidate for quarantine when a backend could not do its work.

    Nothing of it is stored, so that the next run tries again.
    """
    try:
        return make()
    except AnnotatorError as error:
        return {"reason": "quarantined", "error": str(error)}


class Task:
    """A task over video files. Subclasses write `process`, `drafts` and `used`."""

    name: ClassVar[str]
    from_files: ClassVar[bool] = True  # whether units are cut out of video files, and screened
    note: ClassVar[str] = ""  # told at the start of a run
    code: ClassVar[tuple[Any, ...]] = ()  # modules that `process` calls, for the workspace key

    def __init__(self, cut: Cut | None = None) -> None:
        self.cut = cut or Cut()

    # ---- where units come from ----------------------------------------------------------------------------

    def find(self, clips: Path) -> list[str]:
        """The sources, each cut by one worker; by default the video files of a folder."""
        return [str(path) for path in find_videos(clips)]

    def units(self, source: str, space: Workspace) -> list[Clip]:
        """The clips of a source."""
        path = Path(source)
        how = {name: value for name, value in asdict(self.cut).items() if name != "screen"}
        depends = {"file": sha256_of(path), "cut": how, "code": cache.code_of(clips_module)}
        _, found = space.once("cut", depends, lambda _: {"clips": [asdict(c) for c in cut(path, self.cut)]})
        # the same bytes may lie under another name now
        return [replace(Clip(**c), source=source, name=path.name) for c in found["clips"]]

    def looked_at(self, clip: Clip, space: Workspace) -> dict[str, Any]:
        """What `screening` measures of a clip; {} for units that are not cut out of files."""
        if not self.from_files:
            return {}
        depends = {"clip": clip.key, "code": cache.code_of(clips_module, clip_filter)}
        _, found = space.once("screen", depends, lambda _: clip_filter.measure(load_frames(clip), clip.fps))
        return {**found, "seconds": clip.frames / clip.fps, "side": min(clip.height, clip.width)}

    # ---- what is computed, and what it gives ---------------------------------------------------------------

    def process(self, clip: Clip, space: Workspace) -> dict[str, Any]:
        """All candidates of a clip: {"candidates": [...]}, results with their "folder", as `once` gives."""
        raise NotImplementedError

    def drafts(self, clip: Clip, result: dict[str, Any], number: int) -> list[SampleSpec]:
        """The samples of accepted candidate `number` of a clip."""
        raise NotImplementedError

    def used(self) -> dict[str, Annotator]:
        """The annotators by stage, in the order of the recipe."""
        return {}

    def settings(self) -> dict[str, Any]:
        """Numbers of the recipe that belong to no annotator and change its results, as plain values."""
        return {}

    def thresholds(self) -> dict[str, Any]:
        """Numbers that accept or refuse finished results; a change of theirs computes nothing anew."""
        return {}

    def preview(self, folder: Path, result: dict[str, Any]) -> None:
        """Write preview.png of a new result; by default moments of the first two media on the shelf."""
        shown = [f for f in result["files"].values() if f[1] != "mask"][:2]
        preview.write_strips(folder / "preview.png", [folder / file for file, *_ in shown])

    @staticmethod
    def windows(clip: Clip, length: int, most: int) -> list[tuple[int, int]]:
        """Up to `most` disjoint spans (first, stop) of `length` frames, spread over a clip."""
        count = min(most, max(1, clip.frames // length))
        length = min(length, clip.frames)
        last = clip.frames - length
        starts = [round(i * last / max(1, count - 1)) for i in range(count)] if count > 1 else [last // 2]
        return [(start, start + length) for start in starts]

    # ---- for subclasses ----------------------------------------------------------------------------------

    def once(
        self,
        space: Workspace,
        stage: str,
        clip: Clip,
        make: Callable[..., dict[str, Any]],
        uses: Sequence[Annotator] = (),
        **values: Any,
    ) -> dict[str, Any]:
        """The result of `make(clip, folder, **values)`, computed once; with its folder under "folder"."""
        depends = {
            "clip": clip.key,
            "uses": [a.describe() for a in uses],
            "values": values,
            "settings": self.settings(),
            "code": _code(type(self), *classes_of(uses)),  # type: ignore[arg-type]  # classes hash
        }

        def made(folder: Path) -> dict[str, Any]:
            result = make(clip, folder, **values)
            if not result.get("reason") and "files" in result:
                self.preview(folder, result)
            return result

        folder, result = space.once(stage, depends, made)
        return {**result, "folder": str(folder)}

    def steps(self) -> list[Step]:
        """Provenance of an accepted candidate."""
        steps = []
        for stage, annotator in self.used().items():
            backend = annotator.describe()
            made = {"backend": backend.backend, "model": backend.model, "revision": backend.revision}
            config = "sha256:" + digest(backend.settings)
            steps.append(Step(stage=stage, **made, config=config))
        config = "sha256:" + digest({**self.settings(), **self.thresholds()})
        return [*steps, Step(stage=self.name, backend="recipe", config=config)]

    def provenance(self, clip: Clip, result: dict[str, Any], steps: list[Step]) -> Provenance:
        """Where a candidate comes from."""
        first, stop = result.get("first", 0), result.get("stop", clip.frames)
        span = ((clip.start + first) / clip.fps, (clip.start + stop) / clip.fps)
        reference = ClipRef(
            sha256=clip.sha256,
            name=clip.name,
            span=(round(span[0], 4), round(span[1], 4)),
            license=self.license(clip),
        )
        return Provenance(clip=reference, steps=steps)

    def license(self, clip: Clip) -> str:
        """Licence of the source clip."""
        return license_of(clip.sha256)

    def samples(
        self, clip: Clip, result: dict[str, Any], number: int, steps: list[Step]
    ) -> list[tuple[Sample, dict[str, Path]]]:
        """The samples of accepted candidate `number` of a clip, and their media files."""
        provenance, folder = self.provenance(clip, result, steps), Path(result["folder"])
        made = []
        for draft in self.drafts(clip, result, number):
            shapes = {name: result["files"][file] for name, file in draft.media.items()}
            sample = Sample(
                schema=1,
                key=key_of(clip, draft.task, number, draft.ending),
                split="heldout" if clip.split == "heldout" else "train",
                task=draft.task,
                text=draft.text,
                targets=list(draft.targets),
                media={name: _media(name, shape) for name, shape in shapes.items()},
                captions=draft.captions,
                scores=result.get("scores", {}),
                provenance=provenance,
            )
            made.append((sample, {name: folder / shape[0] for name, shape in shapes.items()}))
        return made


def key_of(clip: Clip, task: str, number: int, ending: str) -> str:
    """The key of a sample."""
    return f"{task}-{clip.key[:8]}-{number:04d}" + (f"-{ending}" if ending else "")


def _media(name: str, shape: Iterable[Any]) -> Media:
    file, kind, frames, fps, height, width = shape
    return Media(file=name + Path(file).suffix, kind=kind, frames=frames, fps=fps, height=height, width=width)


def classes_of(annotators: Iterable[Any]) -> list[type]:
    """Their classes and those of their `parts`, for the version of their code."""
    found: list[type] = []
    for annotator in annotators:
        found += [type(annotator), *classes_of(getattr(annotator, "parts", {}).values())]
    return found


@functools.cache
def _code(recipe: type[Task], *classes: type) -> str:
    """Code version of a recipe: its classes up to `Task`, what it calls, and the annotators' classes."""
    own = [c for c in recipe.__mro__ if issubclass(c, Task) and c is not Task]
    modules = [inspect.getmodule(c) for c in (*own, *classes)]
    called = [thing for c in (*own, *classes) for thing in c.__dict__.get("code", ())]
    return cache.code_of(*dict.fromkeys(modules), *dict.fromkeys(called), clips_module, media, preview)
