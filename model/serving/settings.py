"""What may be asked of an edit: settings, text and media, checked before it waits for a worker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.inference.inputs import IMAGE_SUFFIXES
from model.inference.instruction import check_instruction
from shards.errors import SettingError
from shards.media import probe, read_image

MAX_TEXT = 4000  # characters of an instruction, and of a negative prompt
Side = Annotated[int, Field(ge=8, le=4096)]
Frame = Annotated[int, Field(ge=0, le=10**6)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Scale = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class EditShortcuts(BaseModel):
    """What of an edit's work is left out, see `Shortcuts`; what changes the model is the service's own.

    Attributes:
        step_cache: 0 leaves out no step.
        context_tokens: 1 is all of the sources' tokens.
        beyond: what becomes of the others.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    step_cache: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    context_tokens: Share | None = None
    beyond: Literal["drop", "pool"] | None = None


class EditSettings(BaseModel):
    """Settings of an edit, all of them optional; what each means is said at `Editor.__call__`.

    Attributes:
        size: height and width, or "model" for the size that the model works at.
        frames: of the result; a pair is a stretch of the first video, its end not included.
        fps: frames per second.
        steps, guidance, solver, video_guidance, image_guidance, negative: the checkpoint's when not given.
        interval: times from 0 (noise) to 1 between which the guidance is applied.
        seed: of the noise.
        carry: transfer of the source's details.
        keep: how much of the source is kept outside of the edit; the mask that was used can then be fetched.
        keep_faces: keep all its faces, or none.
        ground: find the region first.
        target: the tag that is generated, where the text does not end in it.
        shortcuts: less work at a loss.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    size: Annotated[list[Side], Field(min_length=2, max_length=2)] | Literal["model"] | None = None
    frames: (
        Annotated[int, Field(ge=1, le=10**6)]
        | Annotated[list[Frame], Field(min_length=2, max_length=2)]
        | None
    ) = None
    fps: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] | None = None
    steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    guidance: Scale | None = None
    solver: Literal["euler", "midpoint", "unipc", "unipc_wan"] | None = None
    video_guidance: Scale | None = None
    image_guidance: Scale | None = None
    negative: Annotated[str, Field(max_length=MAX_TEXT)] | None = None
    interval: Annotated[list[Share], Field(min_length=2, max_length=2)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    carry: bool | None = None
    keep: Share | None = None
    keep_faces: bool | None = None
    ground: bool = False
    target: Annotated[str, Field(pattern="^(video|image)[0-9]{1,3}$")] | None = None
    shortcuts: EditShortcuts | None = None

    def keywords(self) -> dict[str, Any]:
        """What was given, as keywords of `Editor.__call__`."""
        return self.model_dump(exclude_defaults=True, exclude_none=True)

    @property
    def num_frames(self) -> int | None:
        """Length of the result, where it is said."""
        if isinstance(self.frames, list):
            return self.frames[1] - self.frames[0]
        return self.frames


def read_settings(values: Any) -> EditSettings:
    """Settings from JSON.

    Raises:
        SettingError: naming the first that cannot be used, and why.
    """
    try:
        return EditSettings.model_validate(values)
    except ValidationError as error:
        raise SettingError(explain(error, "settings")) from None


def explain(error: ValidationError, where: str) -> str:
    """The first fault of a document in one line; what was sent is not repeated, it may be no text at all."""
    first = error.errors(include_url=False, include_input=False)[0]
    # a union's members stand in the path by their types, which are nobody's words
    path = [where, *(str(part) for part in first["loc"] if str(part).isidentifier() or isinstance(part, int))]
    name = ".".join(path).encode("ascii", "replace").decode()[:80]
    return f"{name}: {first['msg'][0].lower()}{first['msg'][1:]}"


MAGIC = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"BM": ".bmp"}  # how files of pictures begin
SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")


def suffix_of(file: Path, name: str) -> str:
    """The suffix to keep a file under: by its content for pictures, else that of the name it came with."""
    with file.open("rb") as opened:
        head = opened.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return ".webp"
    for magic, suffix in MAGIC.items():
        if head.startswith(magic):
            return suffix
    suffix = Path(name).suffix.lower()
    return suffix if SUFFIX.fullmatch(suffix) and suffix not in IMAGE_SUFFIXES else ".video"


def check_text(text: str, names: list[str], settings: EditSettings) -> str:
    """The suffix of what a text makes of media of these names.

    Raises:
        SettingError: too long a text.
        SequenceError: text and media disagree.
    """
    if len(text) > MAX_TEXT:
        raise SettingError(f"text: {len(text)} characters, it may have {MAX_TEXT}")
    return ".png" if check_instruction(text, names, settings.target).makes_image else ".mp4"


def check_files(files: Mapping[str, Path], settings: EditSettings, max_frames: int) -> None:
    """Refuse what is no image or video, or too long, before anything waits for it.

    Raises:
        SettingError: too long, naming the element.
        MediaError: unreadable, naming the element.
    """
    length = settings.num_frames
    if length is not None and length > max_frames:
        raise SettingError(f"frames: {length} is too long, at most {max_frames} are made")
    stretch = isinstance(settings.frames, list)
    for name, file in files.items():
        if name.startswith("image") or file.suffix in IMAGE_SUFFIXES:
            read_image(file)
            continue
        frames = probe(file).frames
        if frames > max_frames and not stretch:
            raise SettingError(
                f"{name}: {frames} frames is too long, at most {max_frames} are taken; "
                'name a stretch of it, e.g. "frames": [0, 100]'
            )
