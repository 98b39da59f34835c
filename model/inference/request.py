"""What a caller asks for, checked and turned into the plan of an edit.

Whatever is wrong is said here, by name, before anything heavy is done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from model.config import InferenceConfig, MediaConfig, ModelConfig, Size, fitted_size
from model.encoders import Codec
from model.inference.inputs import Clip, load_media
from model.inference.instruction import Instruction, check_instruction
from model.output.video_file import Origin
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
        first_frame: name of the image that is the result's first frame, if any.
        rewritten: the words, where a language model rewrote them.
    """

    instruction: Instruction
    clips: dict[str, Clip]
    size: Size
    work: Size
    length: int
    fps: float
    still: bool
    source: str | None
    first_frame: str | None = None
    rewritten: str | None = None

    @property
    def target(self) -> str:
        """Name of the element to be made."""
        return self.instruction.target

    @property
    def origin(self) -> Origin | None:
        """The file whose sound and tags the result keeps: that of the first video in the text."""
        videos = [clip for name in self.instruction.sources if not (clip := self.clips[name]).still]
        return Origin(videos[0].file) if not self.still and videos and videos[0].file is not None else None


def plan_request(
    text: str | Instruction,
    media: Mapping[str, Any],
    config: ModelConfig,
    vae: Codec,
    size: Size | Literal["model"] | None = None,
    frames: int | None = None,
    fps: float | None = None,
    target: str | None = None,
) -> Request:
    """Check what was asked for.

    Args:
        text: instruction with tags, or one that was checked with the names of these media.
        media: values by name, as `inputs.load_media` takes them; None counts as not given.
        config: of the model: the sizes that it works at, and what a picture is to a video.
        vae: whose latents it works on.
        size, frames, fps, target: see `Editor.__call__`.

    Raises:
        SequenceError: text and media disagree, or a value is out of range.
        shards.media.MediaError: an unreadable file.
    """
    preset, multiple = config.media, pixels_per_token(config, vae)
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
    length = _length(instruction, clips, frames, preset)
    if config.transformer is not None and length not in [len(clip.frames) for clip in videos]:
        check_length(length, vae.temporal)
    natural = asked or (clips[looks[0]].size if looks else None)
    side = int(preset.max_area**0.5)
    work = fitted_size(*(natural or (side, side)), preset, multiple)
    return Request(
        instruction=instruction,
        clips=clips,
        size=work if size == "model" or natural is None else natural,
        work=work,
        length=length,
        fps=float(fps or next((c.fps for c in videos if c.fps), preset.fps)),
        still=still,
        source=looks[0] if looks else None,
        first_frame=_first_frame(instruction, config, length, vae),
    )


def _length(
    instruction: Instruction, clips: Mapping[str, Clip], frames: int | None, preset: MediaConfig
) -> int:
    """Frames of the result: those asked for, else as the first video has, else the model's own length."""
    still = instruction.makes_image
    videos = [clips[name] for name in instruction.sources if not clips[name].still]
    length = frames or (1 if still else len(videos[0].frames) if videos else preset.frames)
    if still and length != 1:
        raise SequenceError(f"frames: <{instruction.target}> is an image, it has one frame, not {length}")
    if not videos and length > preset.frames:
        raise SequenceError(
            f"frames: {length} are too many without a video to follow; this model makes {preset.frames}"
        )
    for name, clip in clips.items():
        if not clip.still and len(clip.frames) < length:
            raise SequenceError(f"{name}: {len(clip.frames)} frames are too few for a result of {length}")
    return length


def pixels_per_token(config: ModelConfig, vae: Codec) -> int:
    """Pixels per token along height and width, which the model's sides divide into."""
    return vae.spatial * config.sequence.patch


def check_length(length: int, temporal: int) -> None:
    """Refuse a length that is not 1 + temporal k frames; SequenceError names the nearest that are."""
    if rest := (length - 1) % temporal:
        less = length - rest
        raise SequenceError(
            f"frames: published weights make 1 + {temporal} k frames, not {length}; the nearest are {less} "
            f"and {less + temporal}"
        )


def _first_frame(instruction: Instruction, config: ModelConfig, length: int, vae: Codec) -> str | None:
    """The only source, where it is an image and the model takes it as its video's first frame."""
    inputs = instruction.inputs
    if config.sequence.image_to_video == "source" or instruction.makes_image or len(inputs) != 1:
        return None
    if not inputs[0].startswith("image"):
        return None
    if length == 1:
        raise SequenceError(
            f"frames: <{inputs[0]}> is the first frame, so at least {1 + vae.temporal} are made, not 1"
        )
    return inputs[0]


def check_guidance(plans: Sequence[Request], inference: InferenceConfig, config: ModelConfig) -> None:
    """Refuse guidance that a model or a request has no branch for; SequenceError names it."""
    if inference.negative and not config.sequence.has_prompt:
        raise SequenceError("negative: this model has no text to put a negative prompt in place of")
    opening = next((plan.first_frame for plan in plans if plan.first_frame), None)
    if opening and inference.image_guidance != 1:
        raise SequenceError(
            f"image_guidance: <{opening}> is the first frame here and cannot be left out; leave it at 1"
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
