"""Editing in two passes: the model first marks the region that the words are about, then edits within it.

Both passes are forms of the paper: mask detection (section 4, item 5) and the edit with a mask (Figure 4).
The chain of the two is ours: a small model follows a mask better than a name.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from model.inference.inputs import Clip
from model.inference.instruction import compose_instruction
from model.inference.request import Request
from model.sequence.interleave import SequenceError
from model.streaming.frames import Video

MASK = "mask"


def region_request(plan: Request) -> Request:
    """The request for the region, black and white, that the edit of `plan` is about.

    Raises:
        SequenceError: the request is no edit of one video or image by words.
    """
    source, words = _source_and_words(plan)
    instruction = compose_instruction(
        ("media", source),
        ("text", f"I want to {words}. Detect the region that needs to be edited"),
        ("media", plan.target),
        target=plan.target,
    )
    # nothing of the source's looks belongs into a mask
    return replace(plan, instruction=instruction, source=None)


def masked_request(plan: Request, region: Video) -> Request:
    """The edit of `plan` within a region, uint8 RGB [T, H, W, 3], white where it is."""
    clip = Clip(region, None if plan.still else plan.fps, plan.still)
    source, words = _source_and_words(plan)
    instruction = compose_instruction(
        ("media", source),
        ("text", "Use"),
        ("media", MASK),
        ("text", f"to {words}."),
        ("media", plan.target),
        target=plan.target,
    )
    return replace(plan, instruction=instruction, clips=plan.clips | {MASK: clip})


def region_of(frames: np.ndarray) -> np.ndarray:
    """The region bool [T, H, W] of a generated mask, uint8 RGB [T, H, W, 3]."""
    marked: np.ndarray = frames.astype(np.float32).mean(-1) > 127.5
    return marked


def _source_and_words(plan: Request) -> tuple[str, str]:
    """The video or image to edit, and the instruction as it goes on after "I want to"."""
    source = plan.source
    if source is None or len(plan.clips) != 1 or plan.clips[source].still != plan.still:
        raise SequenceError(
            "ground: finds the region of an edit of one video or image by words; here are "
            f"{', '.join(f'<{name}>' for name in plan.clips) or 'no media'} to make <{plan.target}> of"
        )
    return source, as_clause(plan.instruction.words.rstrip(".!"))


def as_clause(words: str) -> str:
    """An instruction as it goes on after "I want to"; a first word in capitals stays."""
    first = words.split(" ", 1)[0]
    return words if first.isupper() else words[:1].lower() + words[1:]
