"""One row of a data set as pictures and videos that fit each other: the rules of size, rate and length."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from curation.datasets.layouts.rows import Blob, EditRow, Refused
from curation.datasets.pictures import read_mask_picture, read_picture
from curation.sources.clips import VIDEO_SUFFIXES
from curation.sources.scenes import MAX_CLIP_BYTES
from curation.sources.survey import Survey, pictures, survey
from curation.sources.timeline import DIVIDES, RateRule
from shards.errors import MediaError, SettingError
from shards.files import sha256_of
from shards.limits import MAX_FPS, MAX_FRAMES, MAX_PIXELS, in_range
from shards.media import Size, resize

LEAST_SIDE = 16  # pixels
MOST_ASPECT = 4.0  # of the longer side to the shorter: the model's sizes go no further


@dataclass(frozen=True)
class Rules:
    """What pairs are brought to, and how far source and target may differ.

    Attributes:
        max_area: pixels of a picture or frame; a larger one is made smaller, none is enlarged.
        fps: frames a second of videos; None for the source's own, up to 60.
        frames: at most, from the beginning on; None for as many as 512 MiB hold decoded.
        trim: largest difference of length, as a part of the longer, at which the longer is cut.
        aspect: largest relative difference of aspect at which the target is resized to the source.
        heldout: part of the sources that is held out.
        derive: what is made besides: "reversal" of removals and additions, "propagation" of a first frame.
    """

    max_area: int = 1 << 20
    fps: float | None = None
    frames: int | None = None
    trim: float = 0.1
    aspect: float = 0.02
    heldout: float = 0.02
    derive: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        in_range("--max_area", self.max_area, LEAST_SIDE**2, MAX_PIXELS)
        if self.fps is not None:
            in_range("--fps", self.fps, 0.01, MAX_FPS)
        if self.frames is not None:
            in_range("--frames", self.frames, 1, MAX_FRAMES)
        for name in ("trim", "aspect", "heldout"):
            in_range(f"--{name}", getattr(self, name), 0, 1)
        for name in self.derive:
            if name not in ("reversal", "propagation"):
                raise SettingError(f"--derive {name}: there are reversal and propagation")

    @property
    def rate(self) -> RateRule:
        """The constant rate of a source."""
        return RateRule(self.fps, 0.01, 60.0)


@dataclass(frozen=True)
class Medium:
    """Pictures, uint8 RGB [T, H, W, 3]; `fps` in frames a second, None for an image, where T is 1."""

    frames: np.ndarray
    fps: float | None
    mended: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """ "image" or "video"."""
        return "image" if self.fps is None else "video"


@dataclass(frozen=True)
class Pair:
    """The media of a row.

    Attributes:
        mask: bool [T, H, W] of the first source's shape; None where there is none.
        sha256: of the first source's file, or the target's where there is no source.
        mended: all that was done to source, edit and mask, in words.
    """

    sources: tuple[Medium, ...]
    target: Medium
    mask: np.ndarray | None
    sha256: str
    mended: tuple[str, ...]


@dataclass(frozen=True)
class _Video:
    """A video whose times are known and whose pictures are not read yet; `rate` frames a second."""

    source: Path | bytes
    name: str
    survey: Survey
    shown: np.ndarray  # decoded frames in the order in which they are shown
    rate: float

    @property
    def size(self) -> Size:
        """(height, width) as displayed."""
        return self.survey.conversion.displayed_size()

    def read(self, size: Size) -> np.ndarray:
        """The pictures, uint8 RGB [T, H, W, 3]."""
        frames = np.empty((len(self.shown), *size, 3), np.uint8)
        try:
            for number, picture in pictures(self.source, self.survey, np.unique(self.shown), size):
                frames[self.shown == number] = picture
        except MediaError as error:
            raise Refused("video does not decode", _named(error, self.name)) from None
        return frames


def _named(error: MediaError, name: str) -> str:
    return str(error).replace("<bytes>", name)


def kind_of(blob: Blob, head: bytes) -> str:
    """ "video" or "image", by the suffix of a name, else by the first bytes."""
    if blob.suffix in VIDEO_SUFFIXES:
        return "video"
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    is_video = (brand and brand[:3] not in (b"avi", b"hei", b"mif")) or head[:4] == b"\x1aE\xdf\xa3"
    is_video = is_video or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
    return "video" if is_video and blob.suffix == "" else "image"


def _bytes_or_file(blob: Blob) -> tuple[Path | bytes, str, str]:
    """What is decoded, its sha256, and its kind; a local video stays a file."""
    if blob.file is not None and kind_of(blob, b"") == "video":
        if not blob.file.is_file():
            raise Refused("file missing", blob.name)
        if not blob.file.stat().st_size:
            raise Refused("file empty", blob.name)
        return blob.file, sha256_of(blob.file), "video"
    data = blob.read()
    return data, hashlib.sha256(data).hexdigest(), kind_of(blob, data[:16])


def fitted(height: int, width: int, max_area: int) -> Size:
    """The even size of the same aspect and of at most `max_area` pixels; never larger."""
    scale = min(1.0, math.sqrt(max_area / (height * width)))
    return max(2, int(height * scale) // 2 * 2), max(2, int(width * scale) // 2 * 2)


def _checked(size: Size, name: str) -> None:
    if min(size) < LEAST_SIDE:
        raise Refused("picture too small", f"{name}: {size[1]}x{size[0]} pixels")
    if max(size) > MOST_ASPECT * min(size):
        raise Refused("picture too narrow", f"{name}: {size[1]}x{size[0]} pixels")


def _to_size(picture: np.ndarray, size: Size) -> np.ndarray:
    """A picture or mask of a size; one odd row or column is cut off rather than resampled."""
    height, width = picture.shape[:2]
    if (height // 2 * 2, width // 2 * 2) == size:
        return np.ascontiguousarray(picture[: size[0], : size[1]])
    return resize(picture, size)


def normalised(row: EditRow, rules: Rules) -> Pair:
    """The media of a row by the rules.

    Raises:
        Refused: a file is missing, damaged, animated or beyond a limit; or source and target differ by more
            than the rules allow.
        StoreError: the store that they lie in does not answer.
    """
    opened = [_open(blob, rules) for blob in (*row.sources, row.target)]
    media = [item for item, _ in opened]
    sha256 = opened[0][1]
    first, target = media[0], media[-1]
    kinds = {"video" if isinstance(item, _Video) else "image" for item in (first, target)}
    if row.sources and isinstance(first, _Video) and not isinstance(target, _Video):
        raise Refused("source and target of different kinds", f"{row.sources[0].name}, {row.target.name}")
    aligned = row.aligned and bool(row.sources) and len(kinds) == 1
    words: list[str] = []
    if aligned and isinstance(first, _Video) and isinstance(target, _Video):
        media[0], media[-1] = _in_step(first, target, rules, words)
    read: list[Medium] = []
    names = ["source", *(f"reference {n}" for n in range(1, len(row.sources)))]
    names = [*names[: len(row.sources)], "edit"]
    for number, (item, role) in enumerate(zip(media, names, strict=True)):
        fixed = read[0].frames.shape[1:3] if aligned and number == len(media) - 1 else None
        medium = _read(item, (*row.sources, row.target)[number], fixed, rules)
        read.append(medium)
        words += [f"{role}: {word}" for word in medium.mended]
    if aligned and np.array_equal(read[0].frames, read[-1].frames):
        raise Refused("source and target are the same", row.target.name)
    mask = None
    if row.mask is not None and row.sources:
        mask = _mask(row, read[0], rules, words)
    return Pair(tuple(read[:-1]), read[-1], mask, sha256, tuple(words))


def _open(blob: Blob, rules: Rules) -> tuple[_Video | tuple[np.ndarray, tuple[str, ...]], str]:
    source, sha256, kind = _bytes_or_file(blob)
    if kind == "image":
        assert isinstance(source, bytes)
        picture = read_picture(source, blob.name)
        _checked(picture.pixels.shape[:2], blob.name)
        return (picture.pixels, picture.mended), sha256
    try:
        found = survey(source, rules.rate)
    except MediaError as error:
        raise Refused("video does not decode", _named(error, blob.name)) from None
    if len(found.timeline.segments) > 1:
        raise Refused("video with a gap in time", blob.name)
    video = _Video(source, blob.name, found, found.timeline.segments[0].shown, found.timeline.fps)
    _checked(video.size, blob.name)
    return video, sha256


def _in_step(source: _Video, target: _Video, rules: Rules, words: list[str]) -> tuple[_Video, _Video]:
    """Both of the source's rate and of one length."""
    rates = source.rate, target.rate
    count = len(target.shown)
    if abs(rates[0] / rates[1] - 1) > DIVIDES:
        if abs(len(source.shown) - count) <= 1:  # as many frames: a writer that set another rate
            words.append(
                f"edit: its {rates[1]:.6g} frames per second taken as {rates[0]:.6g}, frame by frame"
            )
        else:
            moments = np.arange(max(1, round(count * rates[0] / rates[1]))) / rates[0]
            numbers = np.clip(np.rint(moments * rates[1]).astype(int), 0, count - 1)  # the nearest in time
            target = replace(target, shown=target.shown[numbers])
            words.append(f"edit: {rates[1]:.6g} frames per second brought to {rates[0]:.6g}")
    target = replace(target, rate=source.rate)
    lengths = len(source.shown), len(target.shown)
    if abs(lengths[0] - lengths[1]) > max(1, rules.trim * max(lengths)):
        raise Refused(
            "source and target of different length", f"{source.name}: {lengths[0]} and {lengths[1]} frames"
        )
    count = min(lengths)
    if lengths[0] != lengths[1]:
        words.append(
            f"{'source' if lengths[0] > count else 'edit'}: cut from {max(lengths)} frames to {count}"
        )
    return replace(source, shown=source.shown[:count]), replace(target, shown=target.shown[:count])


def _read(
    item: _Video | tuple[np.ndarray, tuple[str, ...]], blob: Blob, fixed: Size | None, rules: Rules
) -> Medium:
    """The pictures, at the size `fixed` (of the source) or their own by the rules."""
    size = item.size if isinstance(item, _Video) else (item[0].shape[0], item[0].shape[1])
    words = list(item.survey.mended if isinstance(item, _Video) else item[1])
    if fixed is not None and _differ(size, fixed, rules):
        raise Refused(
            "source and target of different aspect",
            f"{blob.name}: {size[1]}x{size[0]} where the source is {fixed[1]}x{fixed[0]}",
        )
    wanted = fixed or fitted(size[0], size[1], rules.max_area)
    if (size[0] // 2 * 2, size[1] // 2 * 2) != wanted:
        words.append(f"resized from {size[1]}x{size[0]}")
    if not isinstance(item, _Video):
        return Medium(_to_size(item[0], wanted)[None], None, tuple(words))
    most = min(rules.frames or MAX_FRAMES, max(1, MAX_CLIP_BYTES // (wanted[0] * wanted[1] * 3)))
    if len(item.shown) > most:
        words.append(f"cut to the first {most} of {len(item.shown)} frames")
        item = replace(item, shown=item.shown[:most])
    return Medium(item.read(wanted), item.rate, tuple(words))


def _differ(one: Size, other: Size, rules: Rules) -> bool:
    """Whether two aspects differ by more than the rule, and by more than two pixels of the shorter side."""
    ratio = one[0] / one[1] * other[1] / other[0]
    return abs(math.log(ratio)) > math.log1p(rules.aspect) + 2.0 / min(other)


def _mask(row: EditRow, source: Medium, rules: Rules, words: list[str]) -> np.ndarray | None:
    """The mask in the source's shape; None, which is noted, for one with nothing inside."""
    blob = row.mask
    assert blob is not None
    count, height, width = source.frames.shape[:3]
    if kind_of(blob, b"") == "video" and source.fps is not None:
        item, _ = _open(blob, rules)
        assert isinstance(item, _Video)
        if abs(len(item.shown) - count) > max(1, rules.trim * count) and len(item.shown) < count:
            raise Refused("mask of another length", f"{blob.name}: {len(item.shown)} and {count} frames")
        shown = item.shown[np.minimum(np.arange(count), len(item.shown) - 1)]
        frames = replace(item, shown=shown).read((height, width))
        mask = frames.mean(axis=-1) >= 128
        mask = ~mask if row.mask_rule == "dark" else mask
    else:
        one = read_mask_picture(blob, row.mask_rule)
        if _differ((one.shape[0], one.shape[1]), (height, width), rules):
            raise Refused("mask of another aspect", f"{blob.name}: {one.shape[1]}x{one.shape[0]}")
        mask = np.repeat(_to_size(one, (height, width))[None], count, axis=0)
    if not mask.any():
        words.append("mask: left out, nothing is inside")
        return None
    return mask


def task_of(row: EditRow, pair: Pair) -> str:
    """The task of a row that does not say."""
    if row.task:
        return row.task
    if not pair.sources:
        return f"text_to_{pair.target.kind}"
    if pair.sources[0].kind == "image" and pair.target.kind == "video":
        return "image_to_video"
    return f"{pair.target.kind}_editing"


def placed(pair: Pair) -> Mapping[str, Medium]:
    """The media by their names in a sample, the target last."""
    found: dict[str, Medium] = {}
    for medium in (*pair.sources, pair.target):
        number = sum(name.startswith(medium.kind) for name in found) + 1
        found[f"{medium.kind}{number}"] = medium
    return found
