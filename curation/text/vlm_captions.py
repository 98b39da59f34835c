"""Instructions and captions by a vision-language model, under prompts with a version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field

from curation.vlm import client as asking
from curation.vlm.client import Answer, Sentence, ask_json, sampled
from curation.vlm.interface import Backend, Vlm
from shards.hashing import digest

VERSION = 2  # of the prompts; their text is part of the provenance too

NAMES = """These are frames of one video. Name up to six kinds of distinct, clearly visible objects \
that could be cut out: people, animals, vehicles, things; no background, no parts. Singular nouns."""

REMOVAL = """The first pictures are frames of a video, the last ones the same frames with one object \
outlined in red. It was found as "{label}".
object: a short noun phrase that fits this object and no other one in the video (colour, place, action).
remove: an instruction to remove it, in one imperative sentence.
add: an instruction to add it to the video without it, in one imperative sentence that says where.
with_object: one sentence that describes the video.
without_object: one sentence that describes the video without the object, not mentioning it."""

REPLACEMENT = """The first pictures are frames of a video, the last ones the same frames with one object \
outlined in red. It was found as "{label}".
object: a short noun phrase that fits this object and no other one in the video.
replacement: a noun phrase for another object that is plausible in its place.
size: smaller, similar, larger or other (of another shape): the replacement, compared with the object.
replace: an instruction to replace the object by the replacement, in one imperative sentence.
source_caption: one sentence that describes the video.
target_caption: one sentence that describes the video with the replacement instead of the object."""

CAPTION = """These are frames of one video. Describe in one or two sentences what it shows: who or what, \
what happens, where, the light. No opinion, no mention of frames or camera."""

PROMPTS = {"names": NAMES, "removal": REMOVAL, "replacement": REPLACEMENT, "caption": CAPTION}


ARTICLES = ("a ", "an ", "the ")


def _name(text: str) -> str:
    """A name as a detector reads it: lower case, no article, no full stop (which would divide it)."""
    text = " ".join(text.lower().replace(".", " ").split())
    text = next((text.removeprefix(article) for article in ARTICLES if text.startswith(article)), text)
    if not any(letter.isalpha() for letter in text) or not text.isascii():
        raise ValueError("is no English noun")
    if len(text) > 40:
        raise ValueError("is longer than 40 characters")
    return text


Name = Annotated[Sentence, AfterValidator(_name)]


class Names(Answer):
    """Kinds of objects in a video; none where it shows none."""

    objects: Annotated[list[Name], Field(max_length=12)]


class RemovalWords(Answer):
    """What a removal pair needs."""

    object: Sentence
    remove: Sentence
    add: Sentence
    with_object: Sentence
    without_object: Sentence


def _size(text: object) -> object:
    """A size as it was asked for, however it is written: "Larger.", "other shape"."""
    return text.lower().strip(" .\"'").removesuffix(" shape") if isinstance(text, str) else text


class ReplacementWords(Answer):
    """What a replacement pair needs; `size` is how the new object's outline compares with the old one's."""

    object: Sentence
    replacement: Sentence
    size: Annotated[Literal["smaller", "similar", "larger", "other"], BeforeValidator(_size)] = "similar"
    replace: Sentence
    source_caption: Sentence
    target_caption: Sentence


class Caption(Answer):
    """One caption."""

    caption: Sentence


class Writer:
    """Asks a model for names, instructions and captions.

    Args:
        attempts: answers that may be unusable before the candidate is quarantined.
        frames: pictures of a clip that are shown.
    """

    code = (asking,)

    def __init__(self, vlm: Vlm, attempts: int = 3, frames: int = 6) -> None:
        self.vlm, self.attempts, self.frames = vlm, attempts, frames

    @property
    def parts(self) -> dict[str, Vlm]:
        """The model."""
        return {"vlm": self.vlm}

    def describe(self) -> Backend:
        """The model and the prompts."""
        prompts = {"prompts": VERSION, "text": digest(PROMPTS)}
        return self.vlm.describe().also(**prompts, frames=self.frames, attempts=self.attempts)

    def names(self, frames: np.ndarray) -> list[str]:
        """Kinds of objects in frames [T, H, W, 3], in the order of the answer; none where it names none."""
        told = ask_json(self.vlm, self._shown(frames), NAMES, Names, self.attempts)
        return list(dict.fromkeys(told.objects))

    def removal(self, frames: np.ndarray, mask: np.ndarray, label: str) -> RemovalWords:
        """Words for a pair without the object in mask [T, H, W]."""
        prompt = REMOVAL.format(label=label)
        return ask_json(self.vlm, self._outlined(frames, mask), prompt, RemovalWords, self.attempts)

    def replacement(self, frames: np.ndarray, mask: np.ndarray, label: str) -> ReplacementWords:
        """Words for a pair with another object in mask [T, H, W]."""
        prompt = REPLACEMENT.format(label=label)
        return ask_json(self.vlm, self._outlined(frames, mask), prompt, ReplacementWords, self.attempts)

    def caption(self, frames: np.ndarray, people: int | None = None) -> str:
        """A caption of frames [T, H, W, 3]; makes the writer a Captioner."""
        return ask_json(self.vlm, self._shown(frames), CAPTION, Caption, self.attempts).caption

    def _shown(self, frames: np.ndarray) -> Sequence[np.ndarray]:
        return list(frames[sampled(len(frames), self.frames)])

    def _outlined(self, frames: np.ndarray, mask: np.ndarray) -> Sequence[np.ndarray]:
        some = sampled(len(frames), self.frames)
        return [*frames[some], *(outlined(frames[t], mask[t]) for t in some)]


def outlined(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A frame [H, W, 3] with a red line around the mask [H, W]."""
    import cv2

    thick = max(1, round(max(mask.shape) / 200))
    edges, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(frame.copy(), edges, -1, (255, 0, 0), thick)
