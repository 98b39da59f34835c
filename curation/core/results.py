"""What the stages of a task give: candidates, and what is computed on the way to them, as values with types.

The workspace stores them as JSON; `StageResult.to_json` and `from_json` are that format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from pydantic import JsonValue, TypeAdapter

from curation.core.cache import StoredResult
from shards.sample import Given

Details = TypeVar("Details")
GIVEN = "given"  # among what is known of a candidate
ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


class MediaFile(NamedTuple):
    """A medium of a candidate: the file in its folder, and its shape; a list of these values in JSON.

    `kind` is "video", "mask" or "image"; `fps` is None for an image; `height` and `width` are in pixels.
    """

    file: str
    kind: str
    frames: int
    fps: float | None
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What a stage computed of a clip. Subclasses add fields; those that are None are not stored.

    Attributes:
        folder: in the workspace, where the stage's files are; known once the result is stored, no part of it.
    """

    folder: Path = Path()

    @property
    def is_stored(self) -> bool:
        """Whether it is in the workspace, rather than refused or failed before it was computed."""
        return self.folder != Path()

    def to_json(self) -> StoredResult:
        """The result as it is stored."""
        return {k: v for k, v in asdict(self).items() if k != "folder" and v is not None}

    @classmethod
    def from_json(cls, stored: StoredResult, folder: Path) -> Self:
        """The result that was stored in a folder."""
        return replace(_adapter(cls).validate_python(stored), folder=folder)


@dataclass(frozen=True, kw_only=True)
class Candidate(StageResult):
    """A pair, or what would have become one.

    Attributes:
        reason: why it is not accepted, the name of a gate for example; "" when it is.
        error: what a backend said that could not do its work; such a candidate is quarantined, never stored.
        files: name -> medium, as `MediaWriter` wrote them; empty unless accepted.
        scores: what gates and judges measured.
        first, stop: the frames of the clip that it shows, `stop` exclusive; the whole clip when None.
        about: what the task itself knows of it, see `details`.
        number: its place among the candidates of its clip, to sort by; no part of what is stored.
    """

    reason: str = ""
    error: str = ""
    files: Mapping[str, MediaFile] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    first: int | None = None
    stop: int | None = None
    about: Mapping[str, JsonValue] = field(default_factory=dict)
    number: tuple[int, ...] = ()

    def details(self, kind: type[Details]) -> Details:
        """What the task knows of the candidate, as the dataclass that it was stored from."""
        return _adapter(kind).validate_python(self.about)

    @property
    def given(self) -> Mapping[str, Given]:
        """Stage -> the prompt and seed that it was given, as `MediaWriter.done` was told them."""
        stored: Any = self.about.get(GIVEN, {})
        return {stage: Given.model_validate(one) for stage, one in stored.items()}

    def span(self, frames: int) -> tuple[int, int]:
        """The frames (first, stop) that it shows of a clip of so many."""
        return self.first or 0, frames if self.stop is None else self.stop

    def also(self, **more: JsonValue) -> Self:
        """The same with further details."""
        return replace(self, about={**self.about, **more})

    def to_json(self) -> StoredResult:
        """The candidate as it is stored: the details beside its own fields, and no files of a refused one."""
        written = {} if self.reason else {"files": self.files, "scores": self.scores}
        span = {"first": self.first, "stop": self.stop}
        known = {name: frame for name, frame in span.items() if frame is not None}
        return {"reason": self.reason, **written, **known, **self.about}

    @classmethod
    def from_json(cls, stored: StoredResult, folder: Path) -> Self:
        """Inverse of `to_json`."""
        own = ("reason", "files", "scores", "first", "stop")
        about = {name: value for name, value in stored.items() if name not in own}
        fields = {name: stored[name] for name in own if name in stored}
        return replace(_adapter(cls).validate_python(fields), about=about, folder=folder)


@dataclass(frozen=True)
class Captioned:
    """Details of a candidate whose video has a caption."""

    caption: str


@dataclass(frozen=True, kw_only=True)
class CaptionResult(StageResult):
    """The caption of a window."""

    caption: str


def refused(reason: str) -> Candidate:
    """A candidate that a gate refused."""
    return Candidate(reason=reason)


def _adapter(kind: type[Details]) -> TypeAdapter[Details]:
    """Reads values of a class from JSON; made once a class, which takes longer than to read one."""
    if kind not in ADAPTERS:
        ADAPTERS[kind] = TypeAdapter(kind)
    return ADAPTERS[kind]
