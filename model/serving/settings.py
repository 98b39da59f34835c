"""What a client may ask of an edit beside its text and media, checked before anything is stored."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shards.errors import SettingError

MAX_TEXT = 4000  # characters of an instruction, and of a negative prompt
Side = Annotated[int, Field(ge=8, le=4096)]
Frame = Annotated[int, Field(ge=0, le=10**6)]
Scale = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class EditSettings(BaseModel):
    """Settings of an edit, all of them optional; what each means is said at `Editor.__call__`.

    Attributes:
        size: height and width, or "model" for the size that the model works at.
        frames: of the result; a pair is a stretch of the first video, its end not included.
        fps: frames per second.
        steps, guidance, solver, video_guidance, image_guidance, negative: the checkpoint's when not given.
        seed: of the noise.
        carry: transfer of the source's details.
        ground: find the region first.
        target: the tag that is generated, where the text does not end in it.
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
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    carry: bool | None = None
    ground: bool = False
    target: Annotated[str, Field(pattern="^(video|image)[0-9]{1,3}$")] | None = None

    def keywords(self) -> dict[str, Any]:
        """What was given, as keywords of `Editor.__call__`."""
        return self.model_dump(exclude_defaults=True)

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
