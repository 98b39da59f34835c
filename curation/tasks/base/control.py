"""Control signals as videos: depth, edges and poses, and the samples that go to and from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from curation.core.interfaces import Captioner
from curation.core.results import Candidate, Captioned, CaptionResult, refused
from curation.core.stage import Item, Results, Stage
from curation.core.task import MediaWriter, SampleSpec, Task
from curation.sources.clips import Clip, Cut, load_frames
from curation.tasks.base.derived import DerivedTask
from curation.text.heuristic_captions import HeuristicCaptioner
from curation.vlm.interface import Annotator


def to_video(control: str, caption: str) -> SampleSpec:
    """From the control (written as "control") to the video (as "video") by its caption."""
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


Points = list[list[list[list[float]]]]  # frames, people, points, (x, y in pixels, visibility 0 to 1)


@dataclass(frozen=True)
class Drawn:
    """A control signal, uint8 [T, H, W, 3]; or why there is none.

    `covered` is the share of its pixels that are drawn on, where a gate goes by it.
    """

    video: np.ndarray | None
    reason: str = ""
    covered: float | None = None


@dataclass(frozen=True)
class Counted:
    """Details of a candidate: the number of people, where they were counted."""

    people: int | None


@dataclass(frozen=True)
class Covered(Counted):
    """Details of a candidate: the share of its pixels that are drawn on, where a gate goes by it."""

    covered: float | None


@dataclass(frozen=True)
class Posed(Counted):
    """Details of a candidate that was drawn from points."""

    points: Points


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

    # ---- of the task --------------------------------------------------------------------------------------

    def draw(self, frames: np.ndarray) -> Drawn:
        """The control of frames [T, H, W, 3]."""
        raise NotImplementedError

    def drawers(self) -> list[Annotator]:
        """The annotators of `draw`."""
        raise NotImplementedError

    def refusal(self, drawn: Candidate) -> str:
        """Why what was drawn is not taken; "" when it is."""
        return ""

    # ---- the recipe ---------------------------------------------------------------------------------------

    def start(self, clip: Clip) -> list[Item]:
        """The windows of a clip."""
        return [Item(values={"span": list(span)}) for span in self.windows(clip, self.length, self.most)]

    def stages(self) -> list[Stage]:
        """Drawn, then described."""
        return [
            *self.drawing(),
            Stage(
                name="caption",
                run=self._caption,
                result=CaptionResult,
                annotators=[self.captioner],
                values=("span", "people"),
                decide=self._captioned,
            ),
        ]

    def drawing(self) -> list[Stage]:
        """The stages up to the drawn control; the last is named for it."""
        return [
            Stage(
                name=self.control,
                run=self._draw,
                annotators=self.drawers(),
                values=("span",),
                decide=self.accept_drawn,
            )
        ]

    def accept_drawn(self, clip: Clip, item: Item, results: Results) -> list[Item | Candidate]:
        """Refuse what cannot be taken; hand on how many people were counted."""
        drawn: Candidate = results[self.control]
        if reason := drawn.reason or self.refusal(drawn):
            return [replace(drawn, reason=reason)]
        return [item.also(people=drawn.details(Counted).people)]

    def _captioned(self, clip: Clip, item: Item, results: Results) -> list[Item | Candidate]:
        return [results[self.control].also(caption=results["caption"].caption)]

    def _draw(self, clip: Clip, folder: Path, span: tuple[int, int]) -> Candidate:
        frames = load_frames(clip)[slice(*span)]
        drawn = self.draw(frames)
        if drawn.video is None:
            return refused(drawn.reason)
        details = Covered(None, drawn.covered)
        return self.written(clip, folder, drawn.video, details, span)

    def written(
        self, clip: Clip, folder: Path, control: np.ndarray, details: Counted, span: tuple[int, int]
    ) -> Candidate:
        """The candidate of a window [first, stop) and its control uint8 [T, H, W, 3]."""
        writer = MediaWriter(folder, clip.fps)
        writer.video("control", control)
        writer.video("video", load_frames(clip)[slice(*span)])
        return writer.done(details, first=span[0], stop=span[1])

    def _caption(self, clip: Clip, folder: Path, span: tuple[int, int], people: int | None) -> CaptionResult:
        return CaptionResult(caption=self.captioner.caption(load_frames(clip)[slice(*span)], people))

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """One sample; the way back is another task."""
        return [to_video(self.control, candidate.details(Captioned).caption)]


class ToVideo(DerivedTask):
    """A task from a control to the video, of samples that another task made."""

    control: ClassVar[str]
    order = (("control", "video1"), ("video", "video2"))  # what is given comes first, for the preview

    def __init__(self, parents: tuple[str, ...]) -> None:
        super().__init__(parents, (f"{self.control}_to_video",))

    def stages(self) -> list[Stage]:
        """One candidate per sample."""
        return [Stage(name="take", run=self._take)]

    def _take(self, clip: Clip, folder: Path) -> Candidate:
        record = self.record(clip)
        media = record.sample.media
        writer = MediaWriter(folder, media["video1"].fps or 1.0)
        for name, element in self.order:
            writer.copy(name, record.bytes(element), media[element])
        return writer.done(Captioned(record.sample.captions["target"]))

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """One sample."""
        return [to_video(self.control, candidate.details(Captioned).caption)]


class BackToControl(ToVideo):
    """A task from the video to the control."""

    order = (("video", "video2"), ("control", "video1"))

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """One sample."""
        return [from_video(self.control, candidate.details(Captioned).caption)]
