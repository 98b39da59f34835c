"""What an accepted pair of the reference preset would cost in GPU seconds, by what others have published.

Nothing here was measured by this project: every number names its source and card, and those that are put
together from several are called assumed. Cards differ, so the sum is an order of magnitude and no promise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from curation.core.stage import Stage, gpus_of
from curation.core.task import Task
from shards.terminal import print_table

LENGTH = 81  # frames of a window, where a task does not say
# Shares of candidates that were accepted: pairs kept of those that were made.
SHARES = (
    ("EditVerse's share, 231,792 of 1.3 M", 231_792 / 1_300_000),
    ("Señorita-2M's share in it, 55,711 of 2 M", 55_711 / 2_000_000),
)
STEP1X = {512: 5.0, 786: 11.0, 1024: 22.0}  # seconds a picture of about this many pixels squared


@dataclass(frozen=True)
class Speed:
    """GPU seconds of an annotator: for each frame or for each window, and where that is from."""

    seconds: float
    per_frame: bool
    source: str


def published_speed(annotator: Any) -> Speed | None:
    """What is published of an annotator's speed, by its class and settings; None where nothing is."""
    name = type(annotator).__name__
    if name == "WanVace" and "14B" in annotator.checkpoint:
        return Speed(
            480 * 1.3 / 81,
            True,
            "assumed: 8 minutes for 81 frames of 480p by Wan 2.1 14B (ATI's authors, issue 7, no card "
            "named), 20 to 40 % more for VACE (its authors, issue 105)",
        )
    if name == "WanVace" and "1.3B" in annotator.checkpoint:
        return Speed(
            240 * 1.3 / 81,
            True,
            "assumed: 4 minutes for 5 s of 480p by Wan 2.1 1.3B on an RTX 4090 (its README), 20 to 40 % more "
            "for VACE (its authors, issue 105)",
        )
    if name == "ReCamMaster":
        return Speed(
            480 / 81,
            True,
            "assumed: twice Wan 2.1 1.3B's 4 minutes on an RTX 4090 (its README), since the source's tokens "
            "are as many again",
        )
    if name == "Step1XEdit" and annotator.size_level in STEP1X:
        return Speed(STEP1X[annotator.size_level], False, "published: one H800, 28 steps (its README)")
    if name == "DiffuEraser":
        return Speed(175 / 250, True, "published: one L20, 250 frames of 960x540 (its README)")
    if name == "VideoDepthAnything" and annotator.encoder in ("vits", "vitl"):
        seconds = {"vits": 0.0075, "vitl": 0.014}[annotator.encoder]
        return Speed(seconds, True, "published: one A100, 518x518, fp16 (its README)")
    if name in ("Sam2Hub", "Sam2Package"):
        return Speed(1 / 24.2, True, "published: SAM 2.1 large, 24.2 frames a second (its README)")
    return None


@dataclass(frozen=True)
class Part:
    """An annotator that wants a GPU: its stage, its class, its seconds for a candidate (None: not known)."""

    stage: str
    name: str
    seconds: float | None
    source: str


def parts_on_gpu(task: Task) -> list[Part]:
    """The annotators of a task that want a GPU, each with what is published of it."""
    length = int(getattr(task, "length", LENGTH))
    made: list[Part] = []
    for stage in task.graph:
        for annotator in _leaves(stage):
            if gpus_of(annotator):
                speed = published_speed(annotator)
                seconds = None if speed is None else speed.seconds * (length if speed.per_frame else 1)
                made.append(
                    Part(stage.name, type(annotator).__name__, seconds, speed.source if speed else "")
                )
    return made


def _leaves(stage: Stage) -> Iterator[Any]:
    """The annotators of a stage, those inside others in their place."""
    waiting: list[Any] = list(stage.annotators)
    while waiting:
        annotator = waiting.pop(0)
        parts = list(getattr(annotator, "parts", {}).values())
        if parts:
            waiting = parts + waiting
        else:
            yield annotator


def print_estimate(task: Task) -> None:
    """A table on stdout, and what an accepted pair costs at the published shares; nothing without a GPU."""
    parts = parts_on_gpu(task)
    if not parts:
        return
    length = int(getattr(task, "length", LENGTH))
    title = f"estimate, by what others publish: GPU-seconds of a candidate of {length} frames"
    table = Table("stage", "annotator", "GPU-s", "from", title=title)
    for part in parts:
        told = "not known" if part.seconds is None else f"{part.seconds:.1f}"
        table.add_row(part.stage, part.name, told, part.source)
    print_table(table)
    total = sum(part.seconds or 0.0 for part in parts)
    unknown = list(dict.fromkeys(part.name for part in parts if part.seconds is None))
    console = Console()
    for words, share in SHARES if total else ():
        line = (
            f"GPU-seconds of an accepted pair: {'at least ' if unknown else ''}{total / share:,.0f} ({words})"
        )
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    if unknown:
        console.print(f"not counted: {', '.join(unknown)}", highlight=False, soft_wrap=True, markup=False)
    if total:
        print("Every candidate is taken to pass all stages, on the cards named; nobody has measured it here.")
