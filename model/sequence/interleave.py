"""A sample's text and media as one interleaved token sequence with four-dimensional positions.

Paper sections 3.1 (order, start- and end-of-vision tokens) and 3.2 (positions).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from shards.errors import EditVerseError
from shards.limits import MAX_PATCH, in_range
from shards.sample import Part

TEXT, VISION, START, END, PAD = range(5)  # kinds of token


class SequenceError(EditVerseError, ValueError):
    """Text and media that do not agree; the message names the element."""


@dataclass(frozen=True)
class SequenceConfig:
    """How latents become tokens and what their positions count.

    Attributes:
        patch: latent positions per token along height and width; time is never patched (1x2x2 in the paper).
        pixel_positions: True counts height and width in pixels, "the increment values reflect the number of
            pixels" (section 3.2): neighbouring tokens differ by patch x the codec's reduction. False counts
            tokens.
        interleaved: False moves all vision behind all text, each in its order (the ablation of section 5.4).
        sequential: False leaves the sequence axis at 0 (the other ablation of section 5.4).
        text: `inline`: among the tokens, as in the paper. `cross_attention`: apart, as the sequence's
            `prompt`; media then have no start and end tokens (Wan, Bernini). `both`: the prompt, and among
            the tokens as in the paper, see `WanConfig.words`.
        first_axis: what the first axis counts. `sequence`: as in section 3.2. `source`: 0 for all of the
            target, 1, 2, ... for the other media in their order, evenly from 1 to `max_sources` where there
            are more (Bernini, which was trained with so many).
        image_to_video: what a picture is to a video that is made of it and words alone: a `source` as any
            other, or the video's `first_frame`, given clean (Wan 2.2 TI2V).
        system_prompt: what goes before a prompt, see `model.sequence.prompts`.
    """

    patch: int = 2
    pixel_positions: bool = True
    interleaved: bool = True
    sequential: bool = True
    text: Literal["inline", "cross_attention", "both"] = "inline"
    first_axis: Literal["sequence", "source"] = "sequence"
    max_sources: int = 5
    image_to_video: Literal["source", "first_frame"] = "source"
    system_prompt: Literal["none", "bernini"] = "none"

    @property
    def has_prompt(self) -> bool:
        """Whether a sequence has a prompt apart from its tokens."""
        return self.text != "inline"

    @property
    def has_words(self) -> bool:
        """Whether the text is among the tokens, and media have start and end tokens."""
        return self.text != "cross_attention"

    def __post_init__(self) -> None:
        in_range("sequence.patch", self.patch, 1, MAX_PATCH)
        in_range("sequence.max_sources", self.max_sources, 1, 1000)


@dataclass(frozen=True)
class TextElement:
    """Token states float [tokens, width] of one piece of text, or of a prompt that stands apart.

    Where no text is among the tokens, every piece is part of the prompt.
    """

    states: Tensor
    prompt: bool = False


@dataclass(frozen=True)
class VisionElement:
    """Clean latents float [t, h, w, channels] of an image (t = 1), a video or a mask.

    Attributes:
        first_frame: these are the target's first latent frames, which are given; the target's own latents
            are then those after them.
    """

    name: str
    latents: Tensor
    target: bool = False
    first_frame: bool = False


Element = TextElement | VisionElement


@dataclass(frozen=True)
class Segment:
    """A run of tokens that belong to one element; `start:stop` includes a vision element's two bounds."""

    kind: Literal["text", "vision"]
    name: str
    start: int
    stop: int
    size: tuple[int, int, int] = (0, 0, 0)  # token grid (frames, rows, columns)
    target: bool = False
    first_frame: bool = False


@dataclass(frozen=True)
class TokenSequence:
    """N tokens of one sample.

    Attributes:
        text: float [text tokens, text width], in order.
        vision: float [vision tokens, patch * patch * channels], clean, in order: frame, row, column.
        kind: int64 [N], TEXT, VISION, START or END.
        positions: int64 [N, 4]: sequence, time, height, width; float32 where the first axis counts sources,
            or tokens are means of several.
        segment: int64 [N], index into `segments`.
        segments: what the tokens belong to.
        prompt: float [prompt tokens, text width], where the text comes apart from the tokens (too).
        weight: float32 [N], as how many keys each token counts; None where all are one.
    """

    text: Tensor
    vision: Tensor
    kind: Tensor
    positions: Tensor
    segment: Tensor
    segments: tuple[Segment, ...]
    prompt: Tensor | None = None
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def target(self) -> Segment:
        """The segment to be generated."""
        return next(s for s in self.segments if s.target)

    def part(self, start: int, stop: int) -> TokenSequence:
        """Tokens start:stop; `segments` stay those of the whole."""
        rows = {}
        for name, code in (("text", TEXT), ("vision", VISION)):
            first, last = (int((self.kind[:place] == code).sum()) for place in (start, stop))
            rows[name] = getattr(self, name)[first:last]
        kind, positions, segment = (x[start:stop] for x in (self.kind, self.positions, self.segment))
        weight = None if self.weight is None else self.weight[start:stop]
        return replace(self, kind=kind, positions=positions, segment=segment, weight=weight, **rows)


def patchify(latents: Tensor, patch: int) -> Tensor:
    """[t, h, w, C] -> tokens [t * h/patch * w/patch, patch * patch * C]; refuses sides that do not divide."""
    t, h, w, c = latents.shape
    if h % patch or w % patch:
        raise SequenceError(f"latents of {h}x{w} do not divide into patches of {patch}x{patch}")
    grid = latents.reshape(t, h // patch, patch, w // patch, patch, c)
    return grid.permute(0, 1, 3, 2, 4, 5).reshape(-1, patch * patch * c)


def unpatchify(tokens: Tensor, size: tuple[int, int, int], patch: int) -> Tensor:
    """The inverse of `patchify` for a token grid `size` (frames, rows, columns)."""
    t, rows, columns = size
    grid = tokens.reshape(t, rows, columns, patch, patch, -1)
    return grid.permute(0, 1, 3, 2, 4, 5).reshape(t, rows * patch, columns * patch, -1)


def interleave(
    parts: Sequence[Part],
    latents: Mapping[str, Tensor],
    target: str,
    encode_text: Callable[[str], Tensor],
    carried: Collection[str] = (),
    drop_text: bool = False,
    prompt: Tensor | None = None,
    has_words: bool = True,
    first_frame: str | None = None,
) -> list[Element]:
    """Order a sample's elements as its text does.

    Args:
        parts: of a text that places every vision element by its tag, as `shards.sample.split_text` cuts it.
        latents: of every element named by the text, [t, h, w, C] each; the target's are what is to be learned
            (or only its size, when generating).
        target: name of the element to generate.
        encode_text: text -> float [tokens, width].
        carried: names that may be in `latents` without a tag (a mask that is only carried along).
        drop_text: leave the text's tokens out (unconditional branch of guidance); the media stay.
        prompt: token states [tokens, width] of the prompt that stands apart, if there is one; where the text
            is dropped, the caller's of the empty text.
        has_words: the text is among the tokens; else `encode_text` is not called. See `SequenceConfig`.
        first_frame: name of the image that is the target's first frame, see `VisionElement.first_frame`.

    Raises:
        SequenceError: a tag without media, media without a tag, a repeated tag, or a target without a tag.
    """
    tags = [name for kind, name in parts if kind == "media"]
    for name in tags:
        if name not in latents:
            raise SequenceError(f"the text names <{name}> but no such media is given")
        if tags.count(name) > 1:
            raise SequenceError(f"the text names <{name}> more than once")
    for name in latents:
        if name not in tags and name not in carried:
            raise SequenceError(f"media {name!r} is given but the text does not name <{name}>")
    if target not in tags:
        raise SequenceError(f"the target {target!r} is not named by the text")
    elements: list[Element] = []
    if prompt is not None:
        elements.append(TextElement(prompt, prompt=True))
    for kind, part in parts:
        if kind == "media":
            elements.append(VisionElement(part, latents[part], part == target, part == first_frame))
        elif has_words and not drop_text:
            elements.append(TextElement(encode_text(part)))
    return elements


def texts_of(parts: Sequence[Part]) -> list[str]:
    """The pieces of text among a sample's parts, whose states `interleave` asks for."""
    return [part for kind, part in parts if kind == "text"]


def build_sequence(elements: list[Element], config: SequenceConfig, spatial: int = 1) -> TokenSequence:
    """Lay the elements out as tokens.

    Positions are those of section 3.2. The sequence axis starts at 0 and grows by 1 per text token and per
    latent frame, whose tokens share it, and by nothing else: the start-of-vision token stands at the first
    frame's count, the end-of-vision token at the last one's. The time axis counts the latent frames of an
    element from 0, a target's from the first frames on that are given. Height and width are the top-left
    corner's, see `SequenceConfig.pixel_positions`. Text, start and end tokens have time, height and width 0.

    Where the first axis counts sources, text is at 0 on it and a medium's start and end token at the
    medium's number; text, start and end tokens then have on the time axis what they would have on the
    sequence axis, so that their order is known.

    Args:
        elements: in order; exactly one vision element is the target.
        spatial: pixels per latent position (the codec's reduction).

    Raises:
        SequenceError: no or several targets, empty or odd-shaped latents, latents of different channels.
    """
    targets = [e.name for e in elements if isinstance(e, VisionElement) and e.target]
    if len(targets) != 1:
        raise SequenceError(f"a sequence has exactly one target, got {targets or 'none'}")
    if not config.interleaved:
        elements = sorted(elements, key=lambda e: isinstance(e, VisionElement))
    step = config.patch * spatial if config.pixel_positions else 1
    text: list[Tensor] = []
    prompts: list[Tensor] = []
    vision: list[Tensor] = []
    kinds, positions, counts = [], [], []
    segments: list[Segment] = []
    given = sum(len(e.latents) for e in elements if isinstance(e, VisionElement) and e.first_frame)
    place = start = 0  # on the sequence axis, and among the tokens
    for element in elements:
        if isinstance(element, TextElement):
            n = len(element.states)
            if not n:
                continue
            if element.prompt or not config.has_words:
                prompts.append(element.states)
                continue
            text.append(element.states)
            kind, rows, segment = _text_rows(n, place, start)
            place += n
        else:
            vision.append(_vision_tokens(element, config.patch, vision[0].shape[1] if vision else None))
            kind, rows, segment = _vision_rows(element, config.patch, step, place, start, config.has_words)
            if element.target:
                rows[kind == VISION, 1] += given
            place += element.latents.shape[0]
        kinds.append(kind)
        positions.append(rows)
        segments.append(segment)
        counts.append(len(kind))
        start += len(kind)
    all_positions = torch.cat(positions)
    if not config.sequential:
        all_positions[:, 0] = 0
    of_token = torch.repeat_interleave(torch.arange(len(segments)), torch.tensor(counts))
    if config.first_axis == "source":
        all_positions = all_positions.float()
        is_word = torch.cat(kinds) != VISION
        all_positions[is_word, 1] = all_positions[is_word, 0]
        all_positions[:, 0] = _source_numbers(segments, config.max_sources)[of_token]
    width = next((e.states.shape[1] for e in elements if isinstance(e, TextElement)), 0)
    return TokenSequence(
        text=torch.cat(text) if text else torch.zeros(0, 0),
        vision=torch.cat(vision),
        kind=torch.cat(kinds),
        positions=all_positions,
        segment=of_token,
        segments=tuple(segments),
        prompt=torch.cat([torch.zeros(0, width), *prompts]) if config.has_prompt else None,
    )


def _source_numbers(segments: list[Segment], most: int) -> Tensor:
    """float32 [segments]: 0 for the target, 1, 2, ... for sources, evenly from 1 to `most` if more."""
    numbers = torch.zeros(len(segments))
    sources = [i for i, s in enumerate(segments) if s.kind == "vision" and not (s.target or s.first_frame)]
    last = min(len(sources), most)
    numbers[sources] = torch.linspace(1, last, len(sources))
    return numbers


def _text_rows(n: int, place: int, start: int) -> tuple[Tensor, Tensor, Segment]:
    """Kinds, positions and segment of `n` text tokens, which advance on the sequence axis alone."""
    rows = torch.zeros(n, 4, dtype=torch.long)
    rows[:, 0] = torch.arange(place, place + n)
    return torch.full((n,), TEXT), rows, Segment("text", "", start, start + n)


def _vision_tokens(element: VisionElement, patch: int, width: int | None) -> Tensor:
    """Its patches; SequenceError for odd-shaped latents, or other than `width` numbers per token."""
    if element.latents.ndim != 4 or not element.latents.numel():
        raise SequenceError(f"{element.name}: latents {list(element.latents.shape)} are not [t, h, w, C]")
    tokens = patchify(element.latents, patch)
    if width is not None and width != tokens.shape[1]:
        raise SequenceError(f"{element.name}: {tokens.shape[1]} numbers per token, not {width}")
    return tokens


def _vision_rows(
    element: VisionElement, patch: int, step: int, place: int, start: int, bounded: bool
) -> tuple[Tensor, Tensor, Segment]:
    """Kinds, positions and segment of a medium's tokens; if `bounded`, between its start and end token."""
    frames, height, width = element.latents.shape[:3]
    size = (frames, height // patch, width // patch)
    grid = torch.cartesian_prod(*(torch.arange(side) for side in size)).reshape(-1, 3)
    n = len(grid) + 2
    rows = torch.zeros(n, 4, dtype=torch.long)
    rows[0, 0], rows[-1, 0] = place, place + frames - 1
    rows[1:-1, 0] = place + grid[:, 0]
    rows[1:-1, 1] = grid[:, 0]
    rows[1:-1, 2:] = grid[:, 1:] * step
    kind = torch.full((n,), VISION)
    kind[0], kind[-1] = START, END
    if not bounded:
        kind, rows, n = kind[1:-1], rows[1:-1], n - 2
    segment = Segment("vision", element.name, start, start + n, size, element.target, element.first_frame)
    return kind, rows, segment


def vision_tokens(size: tuple[int, int, int], patch: int, bounded: bool = True) -> int:
    """Tokens of a vision element with latents of `size` (t, h, w); if `bounded`, with its start and end."""
    t, h, w = size
    return t * (h // patch) * (w // patch) + 2 * bounded
