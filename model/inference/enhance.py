"""A short instruction rewritten in detail by a language model that sees the media, before it is carried out.

Published models were trained on long prompts, which people do not write. Which language model is asked is
the caller's choice: nothing here knows any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from model.inference.instruction import Instruction, compose_instruction
from model.inference.request import Request
from model.sequence.interleave import SequenceError
from model.sequence.prompts import SUBJECTS, image_names, prompt_of, task_of
from shards.errors import SettingError
from shards.frames import evenly_spaced
from shards.sample import tags_of

# media uint8 [H, W, 3] or [T, H, W, 3] and a question in; the rewritten instruction out
Enhancer = Callable[[Sequence[np.ndarray], str], str]
FRAMES = 3  # of a video that are shown
MAX_CHARACTERS = 1500  # some 350 tokens: a prompt has room for 511
QUESTION = """You write instructions for a model that does {subject}. {seen}
The instruction is: {words}
Rewrite it in English, as one paragraph of at most 150 words. First say in detail what is to change or to be \
made: looks, place, size, light, motion. Then say what of the given media stays as it is. Keep all that is \
asked, and claim nothing of the media that you do not see. {names}Use no tags, lists or parentheses."""


def enhance_request(plan: Request, enhancer: Enhancer, system_prompt: str) -> Request:
    """The request with its words rewritten.

    What stood before all words stays before them, the other media follow them: they are named in the words.

    Args:
        system_prompt: `SequenceConfig.system_prompt`, which says what pictures are called.

    Raises:
        SequenceError: the answer is empty, too long or holds tags.
    """
    instruction = plan.instruction
    parts, target = instruction.parts, instruction.target
    media = [_shown(plan, name) for name in instruction.inputs]
    text = " ".join(enhancer(media, question(instruction, system_prompt)).split())
    if not text or len(text) > MAX_CHARACTERS or tags_of(text):
        raise SequenceError(
            f"enhance: needs 1 to {MAX_CHARACTERS} characters without tags, got {len(text)}: {text[:80]!r}"
        )
    if text[-1] not in ".!?":
        text += "."  # the media that follow do not go on with the sentence
    words = next(i for i, (kind, _) in enumerate(parts) if kind == "text")
    after = [part for part in parts[words:] if part[0] == "media" and part[1] != target]
    before = [part for part in parts[:words] if part[1] != target]
    ordered = (*before, ("text", text), *after, ("media", target))
    return replace(plan, instruction=compose_instruction(*ordered, target=target), rewritten=text)


def question(instruction: Instruction, system_prompt: str) -> str:
    """What the language model is asked, of an instruction and its media in the order of its text."""
    parts, target = instruction.parts, instruction.target
    called = image_names(parts, target, system_prompt)
    seen = []
    for name in instruction.inputs:
        what = f"a picture ({called[name]})" if name in called else f"{FRAMES} frames of a video"
        seen.append("a mask, white where the edit belongs" if name.startswith("mask") else what)
    names = f"Call the pictures {', '.join(called.values())}. " if called else ""
    return QUESTION.format(
        subject=SUBJECTS[task_of(parts, target)],
        seen=f"You see, in this order: {'; '.join(seen)}." if seen else "There are no media.",
        words=prompt_of(parts, target, system_prompt, sentence=False),
        names=names,
    )


def _shown(plan: Request, name: str) -> np.ndarray:
    clip = plan.clips[name]
    if clip.still:
        return clip.frames[0]
    frames: np.ndarray = clip.frames[np.unique(evenly_spaced(len(clip.frames), FRAMES))]
    return frames


_makers: list[Callable[[str, str | None], Enhancer]] = []


def provide_enhancer(maker: Callable[[str, str | None], Enhancer]) -> None:
    """Say how `find_enhancer` makes one: of a checkpoint or URL, and a model's name at the URL."""
    _makers[:] = [maker]


def find_enhancer(where: str, model: str | None) -> Enhancer:
    """The enhancer that a command line names; SettingError where nothing was provided."""
    if not _makers:
        raise SettingError("--enhance: the command with language models is `editverse edit`")
    return _makers[0](where, model)
