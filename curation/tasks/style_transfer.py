"""Style transfer: a window of a clip, and the same in another style; steady ones only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curation import flicker
from curation.clips import Clip, Cut, load_frames
from curation.flicker import warp_error
from curation.naming import draw
from curation.ports import Annotator, Stylizer
from curation.recipe import Draft, Recipe, Shelf, key_of, refused
from curation.workspace import Workspace

FLICKERS = "flickers more than its source"
WORDINGS = ("Turn it into {style}.", "Make it look like {style}.", "Render the video as {style}.")


class StyleTransfer(Recipe):
    """The task; the flow-warping error may be `flicker` times the source's, and half a level more."""

    name = "style_transfer"
    code = (flicker,)

    def __init__(
        self,
        stylizer: Stylizer,
        cut: Cut | None = None,
        length: int = 33,
        most: int = 2,
        flicker: float = 1.3,
    ) -> None:
        super().__init__(cut)
        self.stylizer, self.length, self.most, self.flicker = stylizer, length, most, flicker

    def used(self) -> dict[str, Annotator]:
        """The stylizer."""
        return {"stylize": self.stylizer}

    def settings(self) -> dict[str, Any]:
        """The gate."""
        return {"flicker": self.flicker}

    def process(self, clip: Clip, space: Workspace) -> dict[str, Any]:
        """One candidate per window and style; the styles take turns."""
        styles, candidates = list(self.stylizer.styles()), []
        for number, span in enumerate(self.windows(clip, self.length, self.most)):
            style = styles[(int(clip.key[:8], 16) + number) % len(styles)]
            uses = [self.stylizer]
            candidates.append(self.once(space, "style", clip, self._style, uses, span=span, style=style))
        return {"candidates": candidates}

    def _style(self, clip: Clip, folder: Path, span: tuple[int, int], style: str) -> dict[str, Any]:
        frames = load_frames(clip)[slice(*span)]
        painted = self.stylizer.stylize(frames, style)
        before, after = warp_error(frames, frames), warp_error(painted, frames)
        if after > self.flicker * before:
            return refused(FLICKERS)
        shelf = Shelf(folder, clip.fps)
        shelf.video("source", frames)
        shelf.video("target", painted)
        ratio = after / max(before, 1e-6)
        return shelf.done(first=span[0], stop=span[1], style=style, scores={"flicker": round(ratio, 4)})

    def drafts(self, clip: Clip, result: dict[str, Any], number: int) -> list[Draft]:
        """One sample."""
        key = key_of(clip, self.name, number, "")
        text = draw(WORDINGS, key, "form").format(style=self.stylizer.styles()[result["style"]])
        return [
            Draft(
                "",
                self.name,
                f"<video1> {text} <video2>",
                ("video2",),
                {"video1": "source", "video2": "target"},
            )
        ]
