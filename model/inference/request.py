"""What a caller asks for, checked and turned into the plan of an edit.

Whatever is wrong is said here, by name, before anything heavy is done.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from model.config import InferenceConfig, MediaConfig, ModelConfig, Size, fitted_size
from model.encoders import Codec
from model.inference.inputs import Clip, load_media
from model.inference.instruction import Instruction, check_instruction
from model.output.video_file import SAME_RATE, Origin
from model.sequence.interleave import SequenceError
from model.streaming.cuts import find_cuts, thumbnail_size
from model.streaming.frames import PickedFrames, Video
from model.streaming.windows import Span, plan_windows
from shards.media import iter_frames


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
        first_video: name of the first video in the text, which sets the result's length and rate; if any.
        notes: what was done to media so that they fit the result, in words.
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
    first_video: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        """Name of the element to be made."""
        return self.instruction.target

    @property
    def origin(self) -> Origin | None:
        """The file whose sound and tags a video keeps: that of the first video in the text."""
        clip = None if self.first_video is None else self.clips[self.first_video]
        return None if self.still or clip is None or clip.file is None else Origin(clip.file, clip.start)

    @property
    def edited(self) -> Video | None:
        """Frames of what the result is an edit of, uint8 RGB; None where it is no edit of one medium."""
        clip = None if self.source is None else self.clips[self.source]
        fits = clip is not None and clip.still == self.still and len(clip.frames) >= self.length
        return clip.frames if clip is not None and fits else None


def plan_request(
    text: str | Instruction,
    media: Mapping[str, Any],
    config: ModelConfig,
    vae: Codec,
    size: Size | Literal["model"] | None = None,
    frames: int | tuple[int, int] | None = None,
    fps: float | None = None,
    target: str | None = None,
) -> Request:
    """Check what was asked for.

    Videos and masks beside the first one are fitted to it: shown at its rate, as a player shows them, their
    last frame held where they are shorter, the rest left out where they are longer.

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
    first = next((name for name in instruction.sources if name.startswith("video")), None)
    span: tuple[int, int | None] = (0, None)
    if isinstance(frames, tuple):
        start, stop = span = _span(frames, first)
        frames = stop - start
    if frames is not None and frames < 1:
        raise SequenceError(f"frames: needs at least 1, got {frames}")
    if fps is not None and not fps > 0:
        raise SequenceError(f"fps: must be above 0, got {fps}")
    asked = None if size == "model" else size
    if asked is not None:
        check_size(asked, multiple)
    clips = {name: load_media(name, value, *(span if name == first else ())) for name, value in given.items()}
    if span[1] is not None:
        clips = _cut_masks(clips, span[0], span[1])
    looks = instruction.sources
    videos = [clips[name] for name in looks if not clips[name].still]
    still = instruction.makes_image
    length = _length(instruction, clips, first, frames, preset)
    clips, notes = _fit_videos(clips, first, length)
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
        first_video=first,
        notes=notes,
    )


def _span(frames: tuple[int, int], first: str | None) -> tuple[int, int]:
    """Frames start:stop of the first video; SequenceError where there are none."""
    start, stop = frames
    if first is None:
        raise SequenceError(f"frames: {start}:{stop} needs a video that it is of")
    if not 0 <= start < stop:
        raise SequenceError(
            f"frames: {start}:{stop} holds no frames; the first counts as 0, the last is left out"
        )
    return start, stop


def _cut_masks(clips: Mapping[str, Clip], start: int, stop: int) -> dict[str, Clip]:
    """Masks of the whole video, cut as it was; those that are of the stretch alone stay."""
    return {
        name: replace(clip, frames=_stretch(clip.frames, start, stop))
        if name.startswith("mask") and not clip.still and len(clip.frames) >= stop
        else clip
        for name, clip in clips.items()
    }


def _stretch(frames: Video, start: int, stop: int) -> Video:
    return frames[start:stop] if isinstance(frames, np.ndarray) else frames.between(start, stop)


def _fit_videos(
    clips: Mapping[str, Clip], first: str | None, length: int
) -> tuple[dict[str, Clip], tuple[str, ...]]:
    """Videos and masks beside the first one at its rate and as long as the result, and what was done to them.

    Masks have no rate of their own.
    """
    fitted, notes = dict(clips), []
    rate = clips[first].fps if first is not None else None
    for name, clip in clips.items():
        if clip.still or name == first:
            continue
        step = clip.fps / rate if clip.fps and rate and abs(clip.fps / rate - 1) > SAME_RATE else 1.0
        shown = (np.arange(length) * step + 1e-6).astype(int)  # what a player shows at the time of each frame
        have = len(clip.frames)
        if step != 1:
            notes.append(f"{name}: from {clip.fps:g} to {rate:g} frames per second")
        if held := int((shown >= have).sum()):
            notes.append(f"{name}: last frame held for {held} frames")
        elif left := have - 1 - int(shown[-1]):
            notes.append(f"{name}: last {left} frames left out")
        if step != 1 or have < length:
            frames = PickedFrames(clip.frames, np.minimum(shown, have - 1))
            fitted[name] = replace(clip, frames=frames, fps=rate or clip.fps)
    return fitted, tuple(notes)


def _length(
    instruction: Instruction,
    clips: Mapping[str, Clip],
    first: str | None,
    frames: int | None,
    preset: MediaConfig,
) -> int:
    """Frames of the result: those asked for, else as the first video has, else the model's own length."""
    still = instruction.makes_image
    length = frames or (1 if still else preset.frames if first is None else len(clips[first].frames))
    if still and length != 1:
        raise SequenceError(f"frames: <{instruction.target}> is an image, it has one frame, not {length}")
    if first is None and length > preset.frames:
        raise SequenceError(
            f"frames: {length} are too many without a video to follow; this model makes {preset.frames}"
        )
    for name, clip in clips.items():
        if name == first and len(clip.frames) < length:  # of the others the last frame is held
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


def check_kept(plans: Sequence[Request]) -> None:
    """Refuse to keep what is not there: SequenceError for a request that is no edit of a video or image."""
    for plan in plans:
        if plan.source is None:
            raise SequenceError(f"keep: <{plan.target}> is made of words alone, there is no source to keep")
        if plan.edited is None:
            raise SequenceError(
                f"keep: <{plan.target}> is no edit of <{plan.source}>, which the text names first and would "
                "be kept; name the video or image that is edited first"
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


def windows_of(plan: Request, config: ModelConfig, vae: Codec, bar: bool = False) -> list[Span]:
    """The windows that a request is edited in, see `plan_windows`.

    Where there are several, the first video is read once for its cuts, shrunk; `bar` shows how far that is.
    """
    most = config.media.frames
    first = None if plan.first_video is None else plan.clips[plan.first_video]
    if plan.length <= most or first is None:
        return plan_windows(plan.length, most, vae.temporal)
    pictures: Iterable[np.ndarray]
    if first.file is not None:
        pictures = iter_frames(first.file, first.start, first.start + plan.length, thumbnail_size(first.size))
    else:
        starts = range(0, plan.length, most)
        blocks = (first.frames[start : min(start + most, plan.length)] for start in starts)
        pictures = itertools.chain.from_iterable(blocks)
    if bar:
        from rich.progress import track

        pictures = track(pictures, "looking for cuts", plan.length, transient=True)
    return plan_windows(plan.length, most, vae.temporal, find_cuts(pictures))


def split_media(count: int, media: dict[str, Any]) -> list[dict[str, Any]]:
    """One dictionary of media for each of `count` texts; SequenceError names a medium of another length."""
    if not count:
        raise SequenceError("text: the list is empty")
    for name, values in media.items():
        if values is not None and (not isinstance(values, list) or len(values) != count):
            given = f"{len(values)} values" if isinstance(values, list) else type(values).__name__
            raise SequenceError(f"{name}: {count} texts need a list of {count} media, got {given}")
    return [{n: v[i] for n, v in media.items() if v is not None} for i in range(count)]
