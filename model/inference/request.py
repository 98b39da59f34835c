"""What a caller asks for, checked and turned into the plan of an edit.

Whatever is wrong is said here, by name, before anything heavy is done.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from model.config import MediaConfig, Size, fitted_size
from model.inference.inputs import Clip, load_media
from model.sequence.interleave import SequenceError

TAG = re.compile(r"<((?:video|image)[1-9][0-9]?|mask[0-9]{0,2})>")


@dataclass(frozen=True)
class Request:
    """One edit, ready to be run.

    Attributes:
        text: with the target's tag; target: name of the element to be made.
        clips: the media given, as they are.
        size: (height, width) of the result; work: at which the model makes it.
        length: frames of the result; fps: its rate.
        still: the result is an image.
        source: name of the first video or image in the text that the result takes its looks from, if any.
    """

    text: str
    target: str
    clips: dict[str, Clip]
    size: Size
    work: Size
    length: int
    fps: float
    still: bool
    source: str | None


def plan_request(
    text: str,
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
        text: instruction with tags.
        media: values by name, as `inputs.load_media` takes them; None counts as not given.
        config: sizes that the model works at.
        multiple: pixels per token, which the model's sides divide into.
        size, frames, fps, target: see `Editor.__call__`.

    Raises:
        SequenceError: text and media disagree, or a value is out of range.
        shards.media.MediaError: an unreadable file.
    """
    given = {name: value for name, value in media.items() if value is not None}
    text, target = name_target(text, given, target)
    if frames is not None and frames < 1:
        raise SequenceError(f"frames: needs at least 1, got {frames}")
    if fps is not None and not fps > 0:
        raise SequenceError(f"fps: must be above 0, got {fps}")
    asked = None if size == "model" else size
    if asked is not None:
        check_size(asked, multiple)
    clips = {name: load_media(name, value) for name, value in given.items()}
    looks = [name for name in TAG.findall(text) if name in clips and not name.startswith("mask")]
    videos = [clips[name] for name in looks if not clips[name].still]
    still = target.startswith("image")
    length = frames or (1 if still else len(videos[0].frames) if videos else config.frames)
    if still and length != 1:
        raise SequenceError(f"frames: <{target}> is an image, it has one frame, not {length}")
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
        text=text,
        target=target,
        clips=clips,
        size=work if size == "model" or natural is None else natural,
        work=work,
        length=length,
        fps=float(fps or next((c.fps for c in videos if c.fps), config.fps)),
        still=still,
        source=looks[0] if looks else None,
    )


def check_size(size: Size, multiple: int) -> None:
    """Refuse a size whose sides do not divide into tokens; SequenceError names the nearest that do."""
    if len(size) != 2 or any(int(side) != side or side < multiple or side % multiple for side in size):
        near = [max(multiple, round(side / multiple) * multiple) for side in size]
        raise SequenceError(
            f"size: height and width must divide by {multiple}, got {'x'.join(map(str, size))} (nearest: "
            f"{'x'.join(map(str, near))}); leave it out for the source's own size"
        )


def name_target(text: str, given: Mapping[str, Any], target: str | None = None) -> tuple[str, str]:
    """(text with the target's tag, name of the target).

    The tag without media that the text ends in is the target. A tag without media anywhere else names a
    medium that was forgotten, unless it is `target`. Where every tag has its media, a new one is appended: an
    image when only images are given, else a video.

    Raises:
        SequenceError: text, media and target disagree; the message names the element.
    """
    if not TAG.sub("", text).strip():
        raise SequenceError("the text is empty: say what to do, e.g. '<video1> Remove the dog.'")
    tags = TAG.findall(text)
    for unknown in re.findall(r"<(/?\w+)>", text):
        if not TAG.fullmatch(f"<{unknown}>"):
            raise SequenceError(f"the text names <{unknown}>: tags are <video1>, <image1>, <mask> and so on")
    for name in given:
        if not TAG.fullmatch(f"<{name}>"):
            raise SequenceError(f"media {name!r}: names are video1, image1, mask and so on")
        if name not in tags:
            raise SequenceError(f"media {name!r} is given but the text does not name <{name}>")
    for name in tags:
        if tags.count(name) > 1:
            raise SequenceError(f"the text names <{name}> more than once")
    if target is not None and (target not in tags or target in given or target.startswith("mask")):
        raise SequenceError(f"target {target!r}: must be a video or image that the text names, without media")
    open_tags = [name for name in tags if name not in given]
    target = target or next((name for name in open_tags if _ends_in(text, name)), None)
    forgotten = [name for name in open_tags if name != target]
    if forgotten:
        names = ", ".join(f"<{name}>" for name in forgotten)
        options = " ".join(f"--{name} FILE" for name in forgotten)
        raise SequenceError(
            f"the text names {names} but no such media is given ({options}); only the tag that a text ends "
            "in, as in 'A red fox. <video1>', is generated"
        )
    if target is not None:
        return text, target
    kinds = {name.rstrip("0123456789") for name in given} - {"mask"}
    kind = "image" if kinds == {"image"} else "video"
    number = 1 + max((int(n.removeprefix(kind)) for n in given if n.startswith(kind)), default=0)
    return f"{text.rstrip()} <{kind}{number}>", f"{kind}{number}"


def _ends_in(text: str, name: str) -> bool:
    """Whether a text ends in the tag of a video or image.

    Punctuation may follow the tag, but not close the sentence that the tag is part of: "Remove the dog from
    <video1>." speaks of a video that is there.
    """
    before, _, after = text.partition(f"<{name}>")
    if name.startswith("mask") or after.strip(" \t\r\n.,;:!?"):
        return False
    return not after.strip() or before.rstrip().endswith((".", "!", "?"))


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
