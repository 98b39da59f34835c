"""Camera change: a clip, and the same seen by a camera that moves.

Offline the movements are cut out of the frame (`VirtualCamera`); those with parallax come from `cg_camera`.
With the paper's models they are generated (`ReCamMaster`), and judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from curation.core.interfaces import CameraMover, Captioner
from curation.core.results import Candidate, CaptionResult
from curation.core.stage import Item, Results, Stage
from curation.core.task import MediaWriter, SampleSpec, Task, key_of, seed_of
from curation.sources.clips import Clip, Cut, load_frames
from curation.text.heuristic_captions import HeuristicCaptioner
from curation.text.templates import draw
from curation.text.vlm_filter import Judge, judge_stage
from shards.sample import Given

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

    def thresholds(self) -> Mapping[str, object]:
        """Of the grades."""
        return {"grades": self.judge.thresholds if self.judge else {}}

    def start(self, clip: Clip) -> list[Item]:
        """The windows of a clip; the movements take turns."""
        names, items = self.mover.movements(), list[Item]()
        for number, span in enumerate(self.windows(clip, self.length, self.most)):
            movement = names[(int(clip.key[:8], 16) + number) % len(names)]
            text = WORDINGS[0].format(movement=movement)
            items.append(Item(values={"span": list(span), "movement": movement, "instruction": text}))
        return items

    def stages(self) -> list[Stage]:
        """Described, moved and, if there is a judge, graded."""
        return [
            Stage(
                name="caption",
                run=self._caption,
                result=CaptionResult,
                annotators=[self.captioner],
                values=("span",),
                decide=self._captioned,
            ),
            Stage(
                name="move",
                run=self._move,
                annotators=[self.mover],
                values=("span", "movement", "caption"),
            ),
            *([judge_stage(self.judge, "move")] if self.judge else []),
        ]

    def _captioned(self, clip: Clip, item: Item, results: Results) -> list[Item | Candidate]:
        return [item.also(caption=results["caption"].caption)]

    def _caption(self, clip: Clip, folder: Path, span: tuple[int, int]) -> CaptionResult:
        return CaptionResult(caption=self.captioner.caption(load_frames(clip)[slice(*span)], None))

    def _move(
        self, clip: Clip, folder: Path, span: tuple[int, int], movement: str, caption: str
    ) -> Candidate:
        frames = load_frames(clip)[slice(*span)]
        seed = seed_of(clip, span, movement)
        source, moved = self.mover.move(frames, movement, clip.fps, caption, seed)
        writer = MediaWriter(folder, clip.fps)
        writer.video("source", source)
        writer.video("target", moved)
        given = {"move": Given(prompt=caption, seed=seed)}
        return writer.done(Movement(movement, caption), first=span[0], stop=span[1], given=given)

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """One sample."""
        key, shown = key_of(clip, self.name, number, ""), candidate.details(Movement)
        movement = shown.movement
        text = draw(WORDINGS, key, "form").format(movement=movement, lower=movement.lower())
        told = {"source": shown.caption, "target": f"{shown.caption} The camera: {movement.lower()}."}
        media = {"video1": "source", "video2": "target"}
        return [SampleSpec("", self.name, f"<video1> {text} <video2>", ("video2",), media, told)]
