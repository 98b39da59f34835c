"""What a caller asks for, checked and turned into the plan of an edit.

Whatever is wrong is said here, by name, before anything heavy is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from model.config import MediaConfig, Size, fitted_size
from model.inference.inputs import Clip, load_media
from model.inference.instruction import Instruction, check_instruction
from model.sequence.interleave import SequenceError


@dataclass(frozen=True)
class Request:
    """One edit, ready to be run.

    Attributes:
        instruction: what is to be done; its target is the element to be made.
        clips: the media given, as they are.
        size: (height, width) of the result; work: at which the model makes it.
        length: frames of the result; fps: its rate.
        still: the result is an image.
        source: name of the first video or image in the text that the result takes its looks from, if any.
    """

    instruction: Instruction
    clips: dict[str, Clip]
    size: Size
    work: Size
    length: int
    fps: float
    still: bool
    source: str | None

    @property
    def target(self) -> str:
        """Name of the element to be made."""
        return self.instruction.target


def plan_request(
    text: str | Instruction,
    media: Mapping[str, Any],
    config: MediaConfig,
    multiple: int,
    size: Size | Literal["model"] | None = None,
    frames: int | None = None,
    fps: float | None = None,
    target: str | None = None,
) -> Request:
    """Check what was asked for.

    Args:
        text: instruction with tags, or one that was checked with the names of these media.
        media: values by name, as `inputs.load_media` takes them; None counts as not given.
        config: sizes that the model works at.
        multiple: pixels per token, which the model's sides divide into.
        size, frames, fps, target: see `Editor.__call__`.

    Raises:
        SequenceError: text and media disagree, or a value is out of range.
        shards.media.MediaError: an unreadable file.
    """
    given = {name: value for name, value in media.items() if value is not None}
    instruction = _checked(text, given, target)
    if frames is not None and frames < 1:
        raise SequenceError(f"frames: needs at least 1, got {frames}")
    if fps is not None and not fps > 0:
        raise SequenceError(f"fps: must be above 0, got {fps}")
    asked = None if size == "model" else size
    if asked is not None:
        check_size(asked, multiple)
    clips = {name: load_media(name, value) for name, value in given.items()}
    looks = instruction.sources
    videos = [clips[name] for name in looks if not clips[name].still]
    still = instruction.makes_image
    length = frames or (1 if still else len(videos[0].frames) if videos else config.frames)
    if still and length != 1:
        raise SequenceError(f"frames: <{instruction.target}> is an image, it has one frame, not {length}")
    if not videos and length > config.frames:
        raise SequenceError(
            f"frames: {length} are too many without a video to follow; this model makes {config.frames}"
        )
    for name, clip in clips.items():
        if not clip.still and len(clip.frames) < length:
            raise SequenceError(f"{name}: {len(clip.frames)} frames are too few for a result of {length}")
    natural = asked or (clips[looks[0]].size if looks else None)
    side = int(config.max_area**0.5)
    work = fitted_size(*(natural or (side, side)), config, multiple)
    return Request(
        instruction=instruction,
        clips=clips,
        size=work if size == "model" or natural is None else natural,
        work=work,
        length=length,
        fps=float(fps or next((c.fps for c in videos if c.fps), config.fps)),
        still=still,
        source=looks[0] if looks else None,
    )


def _checked(text: str | Instruction, given: Mapping[str, Any], target: str | None) -> Instruction:
    """The instruction of a text; one that was checked before must be about the same media."""
    if not isinstance(text, Instruction):
        return check_instruction(text, given, target)
    if sorted(text.inputs) != sorted(given) or target not in (None, text.target):
        raise SequenceError(
            f"the instruction was checked for {', '.join(text.inputs) or 'no media'} "
            f"to make <{text.target}>; given are {', '.join(given) or 'no media'}"
            + (f" to make <{target}>" if target else "")
        )
    return text


def check_size(size: Size, multiple: int) -> None:
    """Refuse a size whose sides do not divide into tokens; SequenceError names the nearest that do."""
    if len(size) != 2 or any(int(side) != side or side < multiple or side % multiple for side in size):
        near = [max(multiple, round(side / multiple) * multiple) for side in size]
        raise SequenceError(
            f"size: height and width must divide by {multiple}, got {'x'.join(map(str, size))} (nearest: "
            f"{'x'.join(map(str, near))}); leave it out for the source's own size"
        )


def windows(length: int, most: int) -> list[int]:
    """First frames of the windows that cover `length` frames; the last one ends with the clip.

    Windows are edited one by one; where the last two overlap, the last one's frames are kept.
    """
    if length <= most:
        return [0]
    starts = list(range(0, length - most + 1, most))
    if starts[-1] + most < length:
        starts.append(length - most)
    return starts
