"""Control signals as videos: depth, edges and poses, and the samples that go to and from them."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from curation.core.cache import Workspace
from curation.core.interfaces import Captioner
from curation.core.task import MediaWriter, SampleSpec, Task, attempt, refused
from curation.sources.clips import Clip, Cut, load_frames
from curation.tasks.base.derived import DerivedTask
from curation.text.heuristic_captions import HeuristicCaptioner
from curation.vlm.interface import Annotator


def to_video(control: str, caption: str) -> SampleSpec:
    """From the control ("control" on the shelf) to the video ("video") by its caption."""
    return SampleSpec(
        "",
        f"{control}_to_video",
        f"<video1> {caption} <video2>",
        ("video2",),
        {"video1": "control", "video2": "video"},
        {"target": caption},
    )


def from_video(control: str, caption: str) -> SampleSpec:
    """From the video to the control."""
    return SampleSpec(
        "",
        f"video_to_{control}",
        f"<video1> Detect the {control}. <video2>",
        ("video2",),
        {"video1": "video", "video2": "control"},
        {"source": caption},
    )


@dataclass(frozen=True)
class Drawn:
    """A control signal, uint8 [T, H, W, 3]; or why there is none. `people` where they were counted."""

    video: np.ndarray | None
    reason: str = ""
    people: int | None = None
    about: dict[str, Any] = field(default_factory=dict)


class ClipsToVideo(Task):
    """A task from a control signal to the video, over the windows of clips; subclasses write `draw`.

    Args:
        captioner: says what a window shows; measures it when left out.
        length: frames of a window; most: windows of a clip.
    """

    control: ClassVar[str]

    def __init__(
        self,
        cut: Cut | None = None,
        length: int = 33,
        most: int = 2,
        captioner: Captioner | None = None,
    ) -> None:
        super().__init__(cut)
        self.length, self.most, self.captioner = length, most, captioner or HeuristicCaptioner()

    def draw(self, frames: np.ndarray) -> Drawn:
        """The control of frames [T, H, W, 3]."""
        raise NotImplementedError

    def drawers(self) -> dict[str, Annotator]:
        """The annotators of `draw`."""
        raise NotImplementedError

    def used(self) -> dict[str, Annotator]:
        """The annotators by stage."""
        return {**self.drawers(), "caption": self.captioner}

    def process(self, clip: Clip, space: Workspace) -> dict[str, Any]:
        """One candidate per window."""
        spans = self.windows(clip, self.length, self.most)
        return {"candidates": [attempt(functools.partial(self._pair, clip, space, s)) for s in spans]}

    def _pair(self, clip: Clip, space: Workspace, span: tuple[int, int]) -> dict[str, Any]:
        drawn = self.once(space, self.control, clip, self._draw, [*self.drawers().values()], span=span)
        if drawn["reason"]:
            return drawn
        people, uses = drawn["people"], [self.captioner]
        told = self.once(space, "caption", clip, self._caption, uses, span=span, people=people)
        return {**drawn, "caption": told["caption"]}

    def _draw(self, clip: Clip, folder: Path, span: tuple[int, int]) -> dict[str, Any]:
        frames = load_frames(clip)[slice(*span)]
        drawn = self.draw(frames)
        if drawn.video is None:
            return refused(drawn.reason)
        shelf = MediaWriter(folder, clip.fps)
        shelf.video("control", drawn.video)
        shelf.video("video", frames)
        return shelf.done(first=span[0], stop=span[1], people=drawn.people, **drawn.about)

    def _caption(self, clip: Clip, folder: Path, span: tuple[int, int], people: int | None) -> dict[str, Any]:
        return {"caption": self.captioner.caption(load_frames(clip)[slice(*span)], people)}

    def drafts(self, clip: Clip, result: dict[str, Any], number: int) -> list[SampleSpec]:
        """One sample; the way back is another task."""
        return [to_video(self.control, result["caption"])]


class ToVideo(DerivedTask):
    """A task from a control to the video, of samples that another task made."""

    control: ClassVar[str]
    order = (("control", "video1"), ("video", "video2"))  # what is given comes first, for the preview

    def __init__(self, parents: tuple[str, ...]) -> None:
        super().__init__(parents, (f"{self.control}_to_video",))

    def process(self, clip: Clip, space: Workspace) -> dict[str, Any]:
        """One candidate per sample."""
        return {"candidates": [self.once(space, "take", clip, self._take)]}

    def _take(self, clip: Clip, folder: Path) -> dict[str, Any]:
        record = self.record(clip)
        media = record.sample.media
        shelf = MediaWriter(folder, media["video1"].fps or 1.0)
        for name, element in self.order:
            shelf.copy(name, record.bytes(element), media[element])
        return shelf.done(caption=record.sample.captions["target"])

    def drafts(self, clip: Clip, result: dict[str, Any], number: int) -> list[SampleSpec]:
        """One sample."""
        return [to_video(self.control, result["caption"])]


class BackToControl(ToVideo):
    """A task from the video to the control."""

    order = (("video", "video2"), ("control", "video1"))

    def drafts(self, clip: Clip, result: dict[str, Any], number: int) -> list[SampleSpec]:
        """One sample."""
        return [from_video(self.control, result["caption"])]
