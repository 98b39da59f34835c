"""What a sample is as rows of pairs: an instruction in plain words, what goes in, what comes out, a mask."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from shards.errors import MediaError
from shards.reader import Record
from shards.sample import Sample, split_text

Role = Literal["source", "target", "mask", "reference"]

# What precedes an element in "this video <video1>" or "the first frame <image1>" names it already.
NAMED = re.compile(r"\b(?:video|clip|image|picture|photo|frame|mask)s?$", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """One row: a sample with one of its targets.

    Attributes:
        key: the sample's, with `-TARGET` where the sample has several targets.
        sources: elements that go in, the edited one first; none for text to image or video.
        target: the element that comes out.
        mask: an element that marks where the edit is, None where there is none.
        mask_in_text: whether the instruction speaks of the mask.
        instruction: the text without tags, see `instruction_of`.
        as_imported: whether a table of pairs keeps the text: `<source> INSTRUCTION <target>` is all of it.
    """

    key: str
    record: Record
    sources: tuple[str, ...]
    target: str
    mask: str | None
    mask_in_text: bool
    instruction: str
    as_imported: bool

    @property
    def sample(self) -> Sample:
        """What the sample says."""
        return self.record.sample

    def kind(self, name: str) -> str:
        """Kind of an element: video, image or mask."""
        return self.sample.media[name].kind

    def element(self, role: Role, number: int = 0) -> str | None:
        """The element that plays a role; `number` counts references from 0; None where none does."""
        if role == "target":
            return self.target
        if role == "mask":
            return self.mask
        place = 0 if role == "source" else 1 + number
        return self.sources[place] if place < len(self.sources) else None

    @functools.cached_property
    def origin(self) -> str:
        """The source clip's name, as the provenance has it."""
        return self.sample.provenance.clip.name


def pairs_of(record: Record) -> list[Pair]:
    """The rows of a sample, one for each of its targets, in their order."""
    sample = record.sample
    several = len(sample.targets) > 1
    return [
        _pair(record, target, f"{sample.key}-{target}" if several else sample.key)
        for target in sample.targets
    ]


def _pair(record: Record, target: str, key: str) -> Pair:
    sample = record.sample
    named = [name for what, name in split_text(sample.text) if what == "media"]
    inside = [name for name in named if sample.media[name].kind != "mask" and name != target]
    # The edited element is of the target's kind; pictures beside a video are references.
    sources = sorted(inside, key=lambda name: sample.media[name].kind != sample.media[target].kind)
    masks = [name for name in named if sample.media[name].kind == "mask"]
    carried = sorted(name for name, media in sample.media.items() if media.kind == "mask")
    instruction = instruction_of(sample, target, sources[0] if sources else None)
    tags = [f"<{name}>" for name in (*sources[:1], target)]
    return Pair(
        key=key,
        record=record,
        sources=tuple(sources),
        target=target,
        mask=next(iter((*masks, *carried)), None),
        mask_in_text=bool(masks),
        instruction=instruction,
        as_imported=sample.text == " ".join([*tags[:-1], instruction, tags[-1]]),
    )


def instruction_of(sample: Sample, target: str, source: str | None) -> str:
    """The text in plain words, for trainers that know no tags.

    The tags of `target` and of `source` go, since a row names them in columns. Any other becomes "the mask",
    "the image" or "the video", unless the word before it says so already: "with mask <mask>".
    """
    words = ""
    for what, part in split_text(sample.text):
        if what == "text":
            joint = "" if not words or part[0] in ".,;:!?)" else " "
            words += joint + part
        elif part not in (target, source) and not NAMED.search(words):
            words += f"{' ' if words else ''}the {sample.media[part].kind}"
    return " ".join(words.split())


def file_of(pair: Pair, name: str) -> tuple[str, bytes]:
    """Suffix and bytes of an element's file, as the sample has it; a mask of one frame becomes a PNG.

    Raises:
        ShardError: the element is damaged.
    """
    media = pair.sample.media[name]
    if media.kind == "mask" and pair.kind(pair.target) == "image":
        return ".png", mask_png(pair.record, name)
    return f".{media.file.rpartition('.')[2]}", pair.record.bytes(name)


def mask_png(record: Record, name: str) -> bytes:
    """The first frame of a mask as a grey PNG, 255 inside and 0 outside."""
    import cv2

    grey = np.where(record.mask(name)[0], np.uint8(255), np.uint8(0))
    done, data = cv2.imencode(".png", grey)
    if not done:
        raise MediaError(f"{record.key}: {name}: OpenCV could not encode the mask")
    return bytes(data.tobytes())
