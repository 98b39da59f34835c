"""What published models were trained to read before an instruction: a sentence that names its task.

Bernini's sentences are those of Bernini's training and inference (bernini/training/data.py and
bernini/prompt_enhancer.py, Apache-2.0), set before the prompt without a space as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from shards.sample import Part

MARKS = ".,;:!?"
# what names a medium itself: "the first frame <image1>"
NOUNS = {"clip", "frame", "image", "mask", "photo", "picture", "reference", "video"}
# what wants a noun after it: "the hat of <image1>"
LEADING = {"as", "by", "following", "from", "in", "into", "like", "of", "on", "than", "to", "with", "within"}
LEADING |= {"and", "change", "edit", "inpaint", "or", "turn", "use", "using"}
Task = Literal["t2i", "i2i", "r2i", "t2v", "i2v", "r2v", "v2v", "rv2v"]

# Wan's own negative prompt, the default of its scripts and of Bernini's, where diffusers' is empty
NEGATIVE = (
    "色调艳丽, 过曝, 静态, 细节模糊不清, 字幕, 风格, 作品, 画作, 画面, 静止, 整体发灰, 最差质量, 低质量, "
    "JPEG压缩残留, 丑陋的, 残缺的, 多余的手指, 画得不好的手部, 画得不好的脸部, 畸形的, 毁容的, "
    "形态畸形的肢体, 手指融合, 静止不动的画面, 杂乱的背景, 三条腿, 背景人很多, 倒着走"
).replace(", ", "\N{FULLWIDTH COMMA}")
SUBJECTS: dict[Task, str] = {
    "t2i": "text-to-image generation",
    "i2i": "image editing",
    "r2i": "subject-to-image generation",
    "t2v": "text-to-video generation",
    "i2v": "image-to-video generation",
    "r2v": "subject-to-video generation",
    "v2v": "video editing",
    "rv2v": "video editing with reference",
}


def task_of(parts: Sequence[Part], target: str) -> Task:
    """The task of an instruction, by the kinds of its media and the place of a single picture.

    One picture before all words is what a video begins with or an image is made of (`i2v`, `i2i`); amid the
    words, or beside others, it is a reference (`r2v`, `r2i`). A mask counts as a video.

    Args:
        parts: of the text, as `shards.sample.split_text` cuts it.
        target: name of the element to be made.
    """
    sources = [part for kind, part in parts if kind == "media" and part != target]
    images = [name for name in sources if name.startswith("image")]
    to_image = target.startswith("image")
    if len(images) < len(sources):
        return "rv2v" if images else "v2v"
    if not images:
        return "t2i" if to_image else "t2v"
    leads = len(images) == 1 and parts[0] == ("media", images[0])
    if to_image:
        return "i2i" if len(images) == 1 else "r2i"
    return "i2v" if leads else "r2v"


def prompt_of(parts: Sequence[Part], target: str, system_prompt: str = "none", sentence: bool = True) -> str:
    """What the text encoder reads of an instruction whose text stands apart from its media, on one line.

    Models that take a prompt know no tags. One that begins the text, stands between sentences or is the
    target's says nothing; one amid a sentence is named in words, unless the noun before it does that:
    "Put the hat of <image1> on the man." becomes "Put the hat of the image on the man."; Bernini counts
    pictures from 0, "image0".

    Args:
        parts, target: see `task_of`.
        system_prompt: `SequenceConfig.system_prompt`.
        sentence: the sentence of the task goes before the prompt, where there are such.
    """
    said, images = "", image_names(parts, target, system_prompt)
    for kind, part in parts:
        if kind == "text":
            said += ("" if part[0] in MARKS or not said else " ") + part
        elif part != target and said and said[-1] not in ".!?":
            said += _named(part, said.split()[-1].lower(), images)
    prompt = " ".join(said.split())
    if system_prompt == "none" or not sentence:
        return prompt
    return f"You are a helpful assistant specialized in {SUBJECTS[task_of(parts, target)]}.{prompt}"


def _named(name: str, before: str, images: dict[str, str]) -> str:
    """A tag in words that go on after `before`, with the space; nothing where that word names it."""
    if before in NOUNS:
        return ""
    if name in images:
        return f" {images[name]}" if before in LEADING else f" from {images[name]}"
    what = "the mask" if name.startswith("mask") else "the video"
    return f" {what}" if before in LEADING else ""


def image_names(parts: Sequence[Part], target: str, system_prompt: str) -> dict[str, str]:
    """What the pictures of an instruction are called, as in Bernini's examples where that is asked for."""
    images = [part for kind, part in parts if kind == "media" and part.startswith("image") and part != target]
    bernini = system_prompt == "bernini"
    if len(images) == 1 and not (bernini and task_of(parts, target) != "rv2v"):
        return {images[0]: "the reference image" if bernini else "the image"}
    return {name: f"image{i}" if bernini else f"image {i + 1}" for i, name in enumerate(images)}
