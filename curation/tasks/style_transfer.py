"""Style transfer: a window of a clip, and the same in another style; steady ones only."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from curation.core.cache import Workspace
from curation.core.interfaces import Stylizer
from curation.core.results import Candidate
from curation.core.task import MediaWriter, SampleSpec, Task, attempt, key_of
from curation.ops import flicker
from curation.ops.flicker import flicker_of
from curation.sources.clips import Clip, Cut, load_frames
from curation.text.templates import draw
from curation.text.vlm_filter import Judge, judged
from curation.vlm.interface import Annotator

FLICKERS = "flickers more than its source"
WORDINGS = ("Turn it into {style}.", "Make it look like {style}.", "Render the video as {style}.")


@dataclass(frozen=True)
class Styled:
    """Details of a candidate: the name of its style."""

    style: str


class StyleTransfer(Task):
    """The task; the result may flicker `flicker` times as much as the source, and a judge may grade it."""

    name = "style_transfer"
    code = (flicker,)

    def __init__(
        self,
        stylizer: Stylizer,
        cut: Cut | None = None,
        length: int = 33,
        most: int = 2,
        flicker: float = 1.3,
        judge: Judge | None = None,
    ) -> None:
        super().__init__(cut)
        self.judge = judge
        self.stylizer, self.length, self.most, self.flicker = stylizer, length, most, flicker

    def annotators(self) -> dict[str, Annotator]:
        """The stylizer and, if there is one, the judge."""
        return {"stylize": self.stylizer, **({"judge": self.judge} if self.judge else {})}

    def thresholds(self) -> Mapping[str, object]:
        """The gates."""
        return {"flicker": self.flicker, "grades": self.judge.thresholds if self.judge else {}}

    def process(self, clip: Clip, space: Workspace) -> list[Candidate]:
        """One candidate per window and style; the styles take turns."""
        styles, candidates = list(self.stylizer.styles()), list[Candidate]()
        for number, span in enumerate(self.windows(clip, self.length, self.most)):
            style = styles[(int(clip.key[:8], 16) + number) % len(styles)]
            candidates.append(attempt(functools.partial(self._pair, clip, space, span, style)))
        return candidates

    def _pair(self, clip: Clip, space: Workspace, span: tuple[int, int], style: str) -> Candidate:
        pair = self.cached(space, "style", clip, self._style, [self.stylizer], span=span, style=style)
        if pair.scores["flicker"] > self.flicker:
            return replace(pair, reason=FLICKERS)
        text = WORDINGS[0].format(style=self.stylizer.styles()[style])
        return judged(self, space, clip, self.judge, pair, text)

    def _style(self, clip: Clip, folder: Path, span: tuple[int, int], style: str) -> Candidate:
        frames = load_frames(clip)[slice(*span)]
        painted = self.stylizer.stylize(frames, style)
        before, after = flicker_of(frames, frames), flicker_of(painted, frames)
        writer = MediaWriter(folder, clip.fps)
        writer.video("source", frames)
        writer.video("target", painted)
        scores = {"flicker": round(after / max(before, 1e-6), 4)}
        return writer.done(Styled(style), first=span[0], stop=span[1], scores=scores)

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """One sample."""
        key = key_of(clip, self.name, number, "")
        text = draw(WORDINGS, key, "form").format(
            style=self.stylizer.styles()[candidate.details(Styled).style]
        )
        return [
            SampleSpec(
                "",
                self.name,
                f"<video1> {text} <video2>",
                ("video2",),
                {"video1": "source", "video2": "target"},
            )
        ]
