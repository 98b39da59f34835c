"""Every task form of the paper becomes the sequence that its text says.

Media are dummies: an image has one latent frame, a video three.
"""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from model.inference.templates import FIGURE_4, FORMS, Form
from model.sequence.interleave import END, START, TEXT, VISION, SequenceConfig, build_sequence, interleave
from shards.sample import split_text

FRAMES = {"image": 1, "video": 3, "mask": 3}
PIECE = re.compile(r"<(\w+)>|(\S+)")


class Words:
    """A text encoder of one token per word; a token holds the number of its word in order of appearance."""

    def __init__(self) -> None:
        self.known: list[str] = []

    def __call__(self, text: str) -> Tensor:
        numbers = []
        for word in text.split():
            if word not in self.known:
                self.known.append(word)
            numbers.append(float(self.known.index(word)))
        return torch.tensor(numbers)[:, None].expand(-1, 2)


def frames_of(tag: str) -> int:
    return FRAMES[tag.rstrip("0123456789")]


@pytest.mark.parametrize("form", FORMS, ids=[form.name for form in FORMS])
def test_the_sequence_is_what_the_text_says(form: Form) -> None:
    # element i is filled with i + 1, two tokens per frame
    latents = {tag: torch.full((frames_of(tag), 2, 4, 1), i + 1.0) for i, tag in enumerate(form.tags)}
    words = Words()
    sequence = build_sequence(
        interleave(split_text(form.filled), latents, form.target, words), SequenceConfig(patch=2), spatial=8
    )
    kinds, counts, said, shown, place = [], [], [], [], 0
    for tag, word in PIECE.findall(form.filled):  # read the text by hand, word by word
        if word:
            kinds.append(TEXT)
            said.append(word)
            counts.append([place])
            place += 1
            continue
        frames = frames_of(tag)
        kinds += [START, *[VISION] * (2 * frames), END]
        shown += [float(form.tags.index(tag) + 1)] * (2 * frames)
        inner = [place + frame for frame in range(frames) for _ in range(2)]
        counts.append([place, *inner, place + frames - 1])
        place += frames
    assert sequence.kind.tolist() == kinds
    assert [words.known[int(number)] for number in sequence.text[:, 0]] == said
    assert sequence.vision[:, 0].tolist() == shown
    # the sequence axis grows by one per text token and per frame, and by nothing else
    assert sequence.positions[:, 0].tolist() == [count for part in counts for count in part]
    assert int(sequence.positions[:, 0].max()) + 1 == len(said) + sum(map(frames_of, form.tags))
    vision = [s for s in sequence.segments if s.kind == "vision"]
    assert [s.name for s in vision] == form.tags
    for segment in vision:
        inside = sequence.kind[segment.start : segment.stop].tolist()
        assert inside == [START, *[VISION] * (2 * frames_of(segment.name)), END]
    assert sequence.target is vision[-1]
    assert sequence.target.name == form.target == form.tags[-1]


def test_figure_4_has_twenty_forms_and_names_are_unique() -> None:
    assert len(FIGURE_4) == 20
    assert all(form.source == "Figure 4" for form in FIGURE_4)
    assert FORMS[:20] == FIGURE_4
    assert not any(form.source == "Figure 4" for form in FORMS[20:])
    assert len({form.name for form in FORMS}) == len(FORMS)


@pytest.mark.parametrize("form", FORMS, ids=[form.name for form in FORMS])
def test_a_form_describes_its_sources_and_has_an_example(form: Form) -> None:
    assert list(form.media) == form.sources
    assert all(form.media.values())
    assert not re.search(r"[{}]", form.filled)
    assert form.filled.endswith(f"<{form.target}>")
    # an edit keeps what it is given apart from what it makes: no tag twice
    assert len(set(form.tags)) == len(form.tags)


@pytest.mark.parametrize("form", [f for f in FORMS if f.example], ids=[f.name for f in FORMS if f.example])
def test_fields_that_are_missing_unknown_empty_or_tags_are_refused(form: Form) -> None:
    for name in form.example:
        others = {key: value for key, value in form.example.items() if key != name}
        with pytest.raises(ValueError, match=f"form {form.name}: field '{name}' is missing"):
            form.fill(**others)
        for value in ("", "  \n", "like <video1>", "<image2>", "under <mask>", "<mask01> there"):
            with pytest.raises(ValueError, match=f"field '{name}' needs text without tags"):
                form.fill(**{**form.example, name: value})
    with pytest.raises(ValueError, match="field 'tone' is unknown"):
        form.fill(**form.example, tone="warm")


def test_a_form_without_fields_takes_none() -> None:
    plain = next(form for form in FORMS if not form.example)
    assert plain.fill() == plain.text
    with pytest.raises(ValueError, match="field 'prompt' is unknown; it has \\[\\]"):
        plain.fill(prompt="Make it night.")


def test_values_are_text_and_nothing_else() -> None:
    form = next(form for form in FORMS if form.name == "add object")
    assert form.fill(prompt="Write {prompt} <here>") == "<video1> Write {prompt} <here> <video2>"
