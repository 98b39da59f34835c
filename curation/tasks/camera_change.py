"""Camera change: a clip, and the same seen by a camera that moves.

Offline the movements are cut out of the frame (`VirtualCamera`); those with parallax come from `cg_camera`.
With the paper's models they are generated (`ReCamMaster`), and judged.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from curation.core.cache import Workspace
from curation.core.interfaces import CameraMover, Captioner
from curation.core.results import Candidate, CaptionResult
from curation.core.task import MediaWriter, SampleSpec, Task, attempt, key_of
from curation.sources.clips import Clip, Cut, load_frames
from curation.text.heuristic_captions import HeuristicCaptioner
from curation.text.templates import draw
from curation.text.vlm_filter import Judge, judged
from curation.vlm.interface import Annotator

WORDINGS = ("Change the camera to {movement}.", "Move the camera: {lower}.", "Make it a {lower} shot.")


@dataclass(frozen=True)
class Movement:
    """Details of a candidate: how the camera moves, and what the clip shows."""

    movement: str
    caption: str


class CameraChange(Task):
    """The task; windows take turns at the movements."""

    name = "camera_change"

    def __init__(
        self,
        mover: CameraMover,
        cut: Cut | None = None,
        length: int = 33,
        most: int = 3,
        captioner: Captioner | None = None,
        judge: Judge | None = None,
    ) -> None:
        super().__init__(cut)
        self.mover, self.length, self.most = mover, length, most
        self.captioner, self.judge = captioner or HeuristicCaptioner(), judge

    def annotators(self) -> dict[str, Annotator]:
        """The camera, who describes the clip and, if there is one, the judge."""
        judge = {"judge": self.judge} if self.judge else {}
        return {"caption": self.captioner, "move": self.mover, **judge}

    def thresholds(self) -> Mapping[str, object]:
        """Of the grades."""
        return {"grades": self.judge.thresholds if self.judge else {}}

    def process(self, clip: Clip, space: Workspace) -> list[Candidate]:
        """One candidate per window; the movements take turns."""
        names, candidates = self.mover.movements(), list[Candidate]()
        for number, span in enumerate(self.windows(clip, self.length, self.most)):
            movement = names[(int(clip.key[:8], 16) + number) % len(names)]
            candidates.append(attempt(functools.partial(self._pair, clip, space, span, movement)))
        return candidates

    def _pair(self, clip: Clip, space: Workspace, span: tuple[int, int], movement: str) -> Candidate:
        told = self.cached(
            space, "caption", clip, self._caption, [self.captioner], kind=CaptionResult, span=span
        )
        caption, uses = told.caption, [self.mover]
        pair = self.cached(
            space, "move", clip, self._move, uses, span=span, movement=movement, caption=caption
        )
        return judged(self, space, clip, self.judge, pair, WORDINGS[0].format(movement=movement))

    def _caption(self, clip: Clip, folder: Path, span: tuple[int, int]) -> CaptionResult:
        return CaptionResult(caption=self.captioner.caption(load_frames(clip)[slice(*span)], None))

    def _move(
        self, clip: Clip, folder: Path, span: tuple[int, int], movement: str, caption: str
    ) -> Candidate:
        frames = load_frames(clip)[slice(*span)]
        source, moved = self.mover.move(frames, movement, clip.fps, caption)
        writer = MediaWriter(folder, clip.fps)
        writer.video("source", source)
        writer.video("target", moved)
        return writer.done(Movement(movement, caption), first=span[0], stop=span[1])

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """One sample."""
        key, shown = key_of(clip, self.name, number, ""), candidate.details(Movement)
        movement = shown.movement
        text = draw(WORDINGS, key, "form").format(movement=movement, lower=movement.lower())
        told = {"source": shown.caption, "target": f"{shown.caption} The camera: {movement.lower()}."}
        media = {"video1": "source", "video2": "target"}
        return [SampleSpec("", self.name, f"<video1> {text} <video2>", ("video2",), media, told)]
