"""The instruction of an edit, read once: its words, its tags, and which of them is to be made.

`check_instruction` is the only place where the text of a request is taken apart. Everything behind it, from
the request to the token sequence and the files of the result, reads the parts of the `Instruction`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from model.sequence.interleave import SequenceError, texts_of
from shards.sample import MEDIA_NAME, Part, split_text


@dataclass(frozen=True)
class Instruction:
    """A text whose tags agree with the media; `check_instruction` makes one.

    Attributes:
        text: in one piece, with the target's tag.
        parts: of the text, in order, as `shards.sample.split_text` cuts it.
        target: name of the element to be made.
    """

    text: str
    parts: tuple[Part, ...]
    target: str

    @property
    def words(self) -> str:
        """All that is said, on one line and without the tags."""
        return " ".join(" ".join(texts_of(self.parts)).split())

    @property
    def inputs(self) -> list[str]:
        """Names of the media that are given, in the order of the text."""
        return [part for kind, part in self.parts if kind == "media" and part != self.target]

    @property
    def sources(self) -> list[str]:
        """The videos and images among `inputs`."""
        return [name for name in self.inputs if not name.startswith("mask")]

    @property
    def makes_image(self) -> bool:
        """Whether the element to be made is an image."""
        return self.target.startswith("image")


def compose_instruction(*parts: Part, target: str) -> Instruction:
    """The instruction of parts that are known already, and so need no check."""
    text = " ".join(f"<{part}>" if kind == "media" else part for kind, part in parts)
    return Instruction(text, parts, target)


def check_instruction(text: str, given: Collection[str], target: str | None = None) -> Instruction:
    """Read a text and find its target.

    The tag without media that the text ends in is the target. A tag without media anywhere else names a
    medium that was forgotten, unless it is `target`. Where every tag has its media, a new one is appended: an
    image when only images are given, else a video.

    Args:
        text: instruction with tags.
        given: names of the media.
        target: name of the element to be made, where the text does not end in it.

    Raises:
        SequenceError: text, media and target disagree; the message names the element.
    """
    parts = tuple(split_text(text))
    tags = [name for kind, name in parts if kind == "media"]
    _check_names(parts, tags, given)
    if target is not None and (target not in tags or target in given or target.startswith("mask")):
        raise SequenceError(f"target {target!r}: must be a video or image that the text names, without media")
    open_tags = [name for name in tags if name not in given]
    target = target or next((name for name in open_tags if _ends_in(parts, name)), None)
    forgotten = [name for name in open_tags if name != target]
    if forgotten:
        names = ", ".join(f"<{name}>" for name in forgotten)
        options = " ".join(f"--{name} FILE" for name in forgotten)
        raise SequenceError(
            f"the text names {names} but no such media is given ({options}); only the tag that a text ends "
            "in, as in 'A red fox. <video1>', is generated"
        )
    if target is not None:
        return Instruction(text, parts, target)
    target = _new_name(given)
    return Instruction(f"{text.rstrip()} <{target}>", (*parts, ("media", target)), target)


def _check_names(parts: Collection[Part], tags: list[str], given: Collection[str]) -> None:
    """Refuse a text without words, names that are none, and tags and media that do not pair up."""
    phrases = [part for kind, part in parts if kind == "text"]
    if not phrases:
        raise SequenceError("the text is empty: say what to do, e.g. '<video1> Remove the dog.'")
    for unknown in re.findall(r"<(/?\w+)>", "\n".join(phrases)):
        raise SequenceError(f"the text names <{unknown}>: tags are <video1>, <image1>, <mask> and so on")
    for name in given:
        if not MEDIA_NAME.match(name):
            raise SequenceError(f"media {name!r}: names are video1, image1, mask and so on")
        if name not in tags:
            raise SequenceError(f"media {name!r} is given but the text does not name <{name}>")
    for name in tags:
        if tags.count(name) > 1:
            raise SequenceError(f"the text names <{name}> more than once")


def _ends_in(parts: tuple[Part, ...], name: str) -> bool:
    """Whether a text ends in the tag of a video or image.

    Punctuation may follow the tag, but not close the sentence that the tag is part of: "Remove the dog from
    <video1>." speaks of a video that is there.
    """
    if name.startswith("mask"):
        return False
    place = parts.index(("media", name))
    after = parts[place + 1 :]
    if not after:
        return True
    kind, before = parts[place - 1] if place else ("text", "")
    stands_alone = kind == "text" and before.endswith((".", "!", "?"))
    only_marks = len(after) == 1 and after[0][0] == "text" and not after[0][1].strip(" \t\r\n.,;:!?")
    return stands_alone and only_marks


def _new_name(given: Collection[str]) -> str:
    """The name of a result whose text names nothing but the media given."""
    kinds = {name.rstrip("0123456789") for name in given} - {"mask"}
    kind = "image" if kinds == {"image"} else "video"
    number = 1 + max((int(name.removeprefix(kind)) for name in given if name.startswith(kind)), default=0)
    if not MEDIA_NAME.match(f"{kind}{number}"):
        raise SequenceError(f"no number is left for a result after <{kind}{number - 1}>: name it in the text")
    return f"{kind}{number}"
