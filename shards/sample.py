"""The sample: an interleaved sequence of text and vision elements, some of which may be generated.

Strict pydantic models; a sample whose text, media and targets disagree is refused by name.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shards.errors import EditVerseError
from shards.limits import MAX_FRAMES, MAX_SIDE

Kind = Literal["video", "image", "mask"]
Split = Literal["train", "heldout"]
Part = tuple[Literal["text", "media"], str]  # of a text: words, or the name of the element placed here

KEY_PATTERN = r"^[a-z0-9_-]{1,100}$"
MEDIA_NAME = re.compile(r"(video|image)[1-9][0-9]?\Z|mask[0-9]{0,2}\Z")
TAG = re.compile(r"<((?:video|image)[1-9][0-9]?|mask[0-9]{0,2})>")
SUFFIX = {"video": ".mp4", "image": ".png", "mask": ".mkv"}

Frames = Annotated[int, Field(ge=1, le=MAX_FRAMES)]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SampleError(EditVerseError, ValueError):
    """A sample that cannot be used; the message names the sample and the field."""


class Strict(BaseModel):
    """Base of every model of the contract: unknown fields and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class FrameOf(Strict):
    """Which frame of which video of the sample an image is; frames count from 0."""

    element: str
    frame: Annotated[int, Field(ge=0, lt=MAX_FRAMES)]


class Media(Strict):
    """One vision element. `height` and `width` in pixels, `fps` in frames per second, null for an image.

    `frame_of` of an image says which frame of one of the sample's videos it is; None where it is none, or
    where nobody says.
    """

    file: str
    kind: Kind
    frames: Frames
    fps: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    height: Side
    width: Side
    sha256: Sha256 | None = None  # of the member's bytes; the shard writer fills it in
    frame_of: FrameOf | None = None

    @model_validator(mode="after")
    def _image_has_one_frame(self) -> Self:
        if self.kind == "image" and (self.frames != 1 or self.fps is not None):
            raise ValueError(f"{self.file}: an image has frames=1 and fps=null")
        if self.kind != "image" and self.fps is None:
            raise ValueError(f"{self.file}: a {self.kind} needs fps")
        if self.kind != "image" and self.frame_of is not None:
            raise ValueError(f"{self.file}: frame_of is for images, not for a {self.kind}")
        return self


class ClipRef(Strict):
    """The source clip: sha256 of the whole source file, its name, and the time span used, in seconds.

    `mended` says in words what was done to its pictures and times before anything else.
    """

    sha256: Sha256
    name: str
    span: tuple[float, float]
    license: str = "unknown"
    mended: tuple[str, ...] = ()


class Step(Strict):
    """What one stage of the pipeline used; `config` is `sha256:` of its settings.

    `license` is that of the model, or of the code where no model is; "" where nobody says.
    """

    stage: str
    backend: str
    model: str = ""
    revision: str = ""
    config: str = ""
    license: str = ""


class Given(Strict):
    """What a stage was given for this sample alone: a prompt, and the seed of its noise."""

    prompt: str = ""
    seed: int | None = None


class Provenance(Strict):
    """Where a sample comes from: the clip and the steps that made it.

    Attributes:
        given: stage -> the prompt and seed that it was given.
        parents: keys of the samples that it was made from.
    """

    clip: ClipRef
    steps: list[Step] = []
    given: dict[str, Given] = {}
    parents: tuple[str, ...] = ()


class Sample(Strict):
    """One training or evaluation sample (schema 1). See docs/format.md."""

    schema_version: Literal[1] = Field(1, alias="schema")
    key: Annotated[str, Field(pattern=KEY_PATTERN)]
    split: Split = "train"
    task: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$")]
    text: str
    targets: Annotated[list[str], Field(min_length=1)]
    media: Annotated[dict[str, Media], Field(min_length=1)]
    captions: dict[str, str] = {}
    scores: dict[str, float | None] = {}
    provenance: Provenance

    @model_validator(mode="after")
    def _text_media_targets_agree(self) -> Self:
        for name, media in self.media.items():
            if not MEDIA_NAME.match(name) or not name.startswith(media.kind):
                raise ValueError(
                    f"media {name!r} is not a name of kind {media.kind} (video1, image1, mask ...)"
                )
            if media.file != name + SUFFIX[media.kind]:
                raise ValueError(
                    f"media {name!r}: file must be {name + SUFFIX[media.kind]!r}, not {media.file!r}"
                )
            if media.frame_of is not None:
                self._check_frame_of(name, media.frame_of)
        tags = tags_of(self.text)
        for name in tags:
            if name not in self.media:
                raise ValueError(f"text names <{name}> but media has no such element")
            if tags.count(name) > 1:
                raise ValueError(f"text names <{name}> more than once")
        for name in self.targets:
            if name not in tags:
                raise ValueError(f"target {name!r} is not named by the text")
            if self.media[name].kind == "mask":
                raise ValueError(f"target {name!r} is a mask; a mask to be generated is a video")
        if len(set(self.targets)) != len(self.targets):
            raise ValueError("targets are repeated")
        return self

    def _check_frame_of(self, name: str, frame_of: FrameOf) -> None:
        """Raise ValueError where an image's `frame_of` names no video of the sample, or no frame of it."""
        video = self.media.get(frame_of.element)
        if video is None or video.kind != "video":
            raise ValueError(f"media {name!r}: frame_of names {frame_of.element!r}, which is no video of it")
        if frame_of.frame >= video.frames:
            raise ValueError(
                f"media {name!r}: frame_of is frame {frame_of.frame} of {frame_of.element!r}, which has "
                f"{video.frames}, counted from 0"
            )

    def to_json(self) -> bytes:
        """Canonical JSON: sorted keys, UTF-8, one trailing newline; equal samples give equal bytes."""
        value = self.model_dump(mode="json", by_alias=True)
        for media in value["media"].values():
            if media["frame_of"] is None:  # left out, so that samples without are the bytes that they were
                del media["frame_of"]
        provenance = value["provenance"]
        if not self.provenance.clip.mended:
            del provenance["clip"]["mended"]
        for name in ("given", "parents"):
            if not provenance[name]:
                del provenance[name]
        for step in provenance["steps"]:
            if not step["license"]:
                del step["license"]
        return (json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1) + "\n").encode()

    def member(self, name: str) -> str:
        """The tar member that holds the media element `name`."""
        return f"{self.key}.{self.media[name].file}"


def split_text(text: str) -> list[Part]:
    """Cut a text at its tags.

    `"<video1> Remove the dog."` gives `[("media", "video1"), ("text", "Remove the dog.")]`.
    Text parts are stripped; empty ones are left out. What is not a tag of the contract stays text.
    """
    parts: list[Part] = []
    for i, part in enumerate(TAG.split(text)):
        if i % 2:
            parts.append(("media", part))
        elif part.strip():
            parts.append(("text", part.strip()))
    return parts


def tags_of(text: str) -> list[str]:
    """Names of the vision elements in the order in which the text places them."""
    return TAG.findall(text)


def parse_sample(data: bytes | str, where: str) -> Sample:
    """Read a sample from JSON; raises SampleError naming `where` and the first field at fault."""
    try:
        return Sample.model_validate_json(data)
    except ValidationError as error:
        raise SampleError(f"{where}: {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """The first fault of a pydantic error in one line of at most 300 characters: field, what is wrong."""
    first: Any = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    words = f"{field}: {message}" if field else message
    # Field names come from the file: they may be long, or hold line breaks.
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in words[:300])
