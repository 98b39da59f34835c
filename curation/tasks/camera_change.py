"""Camera change: a clip, and the same seen by a camera that moves.

Offline the movements are cut out of the frame (`VirtualCamera`); those with parallax come from `cg_camera`.
With the paper's models they are generated (`ReCamMaster`), and judged.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from curation.core.cache import Workspace
from curation.core.interfaces import CameraMover, Captioner
from curation.core.task import MediaWriter, SampleSpec, Task, attempt, key_of
from curation.sources.clips import Clip, Cut, load_frames
from curation.text.heuristic_captions import HeuristicCaptioner
from curation.text.templates import draw
from curation.text.vlm_filter import Judge, judged
from curation.vlm.interface import Annotator

WORDINGS = ("Change the camera to {movement}.", "Move the camera: {lower}.", "Make it a {lower} shot.")


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

    def used(self) -> dict[str, Annotator]:
        """The camera, who describes the clip and, if there is one, the judge."""
        judge = {"judge": self.judge} if self.judge else {}
        return {"caption": self.captioner, "move": self.mover, **judge}

    def thresholds(self) -> dict[str, Any]:
        """Of the grades."""
        return {"grades": self.judge.thresholds if self.judge else {}}

    def process(self, clip: Clip, space: Workspace) -> dict[str, Any]:
        """One candidate per window; the movements take turns."""
        names, candidates = self.mover.movements(), []
        for number, span in enumerate(self.windows(clip, self.length, self.most)):
            movement = names[(int(clip.key[:8], 16) + number) % len(names)]
            candidates.append(attempt(functools.partial(self._pair, clip, space, span, movement)))
        return {"candidates": candidates}

    def _pair(self, clip: Clip, space: Workspace, span: tuple[int, int], movement: str) -> dict[str, Any]:
        told = self.once(space, "caption", clip, self._caption, [self.captioner], span=span)["caption"]
        uses, values = [self.mover], {"span": span, "movement": movement, "caption": told}
        pair = self.once(space, "move", clip, self._move, uses, **values)
        return judged(self, space, clip, self.judge, pair, WORDINGS[0].format(movement=movement))

    def _caption(self, clip: Clip, folder: Path, span: tuple[int, int]) -> dict[str, Any]:
        return {"caption": self.captioner.caption(load_frames(clip)[slice(*span)], None)}

    def _move(
        self, clip: Clip, folder: Path, span: tuple[int, int], movement: str, caption: str
    ) -> dict[str, Any]:
        frames = load_frames(clip)[slice(*span)]
        source, moved = self.mover.move(frames, movement, clip.fps, caption)
        shelf = MediaWriter(folder, clip.fps)
        shelf.video("source", source)
        shelf.video("target", moved)
        return shelf.done(first=span[0], stop=span[1], movement=movement, caption=caption)

    def drafts(self, clip: Clip, result: dict[str, Any], number: int) -> list[SampleSpec]:
        """One sample."""
        key, movement = key_of(clip, self.name, number, ""), result["movement"]
        text = draw(WORDINGS, key, "form").format(movement=movement, lower=movement.lower())
        told = {"source": result["caption"], "target": f"{result['caption']} The camera: {movement.lower()}."}
        media = {"video1": "source", "video2": "target"}
        return [SampleSpec("", self.name, f"<video1> {text} <video2>", ("video2",), media, told)]
