"""Style transfer: a window of a clip, and the same in another style; steady ones only.

Offline, `StyleTransfer` takes any stylizer, and `SampleStyleTransfer` the videos of finished samples.
`PropagatedStyleTransfer` is the paper's recipe: the first frame is edited, and depth carries its style
through the window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from curation.core.interfaces import DepthEstimator, ImageEditor, Stylizer, VideoGenerator
from curation.core.results import Candidate, StageResult
from curation.core.stage import Item, Results, Stage
from curation.core.task import MediaWriter, SampleSpec, Task, key_of, seed_of
from curation.ops import control_signals, flicker
from curation.ops.control_signals import grey_video
from curation.ops.flicker import flicker_of
from curation.sources.clips import Clip, Cut, load_frames
from curation.tasks.base.derived import DerivedTask
from curation.text.templates import draw
from curation.text.vlm_filter import Judge, judge_stage
from shards.errors import SettingError
from shards.media import read_image, read_video, write_image
from shards.sample import Given, tags_of
from shards.video_writer import write_lossless

FLICKERS = "flickers more than its source"
HARDLY_VISIBLE = "style is hardly visible"
STYLES = {
    "watercolor": "a watercolor painting with soft bleeding edges",
    "oil": "an oil painting with thick brush strokes",
    "pencil": "a pencil drawing",
    "anime": "an anime film",
    "pixel": "pixel art of an old video game",
    "clay": "a clay stop-motion film",
    "cyberpunk": "a cyberpunk scene in neon light",
    "ukiyo-e": "a Japanese woodblock print",
    "lego": "a scene built of plastic bricks",
    "noir": "a black-and-white film noir",
}
WORDINGS = ("Turn it into {style}.", "Make it look like {style}.", "Render the video as {style}.")


@dataclass(frozen=True)
class Styled:
    """Details of a candidate: the name of its style."""

    style: str


@dataclass(frozen=True, kw_only=True)
class Painted(StageResult):
    """A first frame in the style; first.png in its folder."""


@dataclass(frozen=True, kw_only=True)
class WindowDepth(StageResult):
    """The depth of a window in grey, one scale for all of it; depth.mkv in its folder, lossless."""


class StyledTask(Task):
    """The recipe up to the style and after it; subclasses write `styles` and `painting`.

    Args:
        length: frames of a window; most: windows of a clip.
        flicker: times that the result may flicker as much as the source.
        judge: grades pairs; nobody when left out.
        change: least mean difference of source and result in CIELAB; a style below it is hardly seen.
    """

    name = "style_transfer"
    code: ClassVar[tuple[Any, ...]] = (flicker,)

    def __init__(
        self, cut: Cut | None, length: int, most: int, flicker: float, judge: Judge | None, change: float
    ) -> None:
        super().__init__(cut)
        self.length, self.most, self.judge = length, most, judge
        self.flicker, self.change = flicker, change

    def styles(self) -> dict[str, str]:
        """Names of the styles, and each in words that follow "turn it into"."""
        raise NotImplementedError

    def painting(self) -> list[Stage]:
        """The stages up to the pair; the last one is "style"."""
        raise NotImplementedError

    def thresholds(self) -> Mapping[str, object]:
        """The gates."""
        return {
            "flicker": self.flicker,
            "change": self.change,
            "grades": self.judge.thresholds if self.judge else {},
        }

    def start(self, clip: Clip) -> list[Item]:
        """The windows of a clip; the styles take turns."""
        styles, items = self.styles(), list[Item]()
        names = list(styles)
        for number, span in enumerate(self.windows(clip, self.length, self.most)):
            style = names[(int(clip.key[:8], 16) + number) % len(names)]
            look = styles[style]
            values = {"style": style, "look": look, "instruction": WORDINGS[0].format(style=look)}
            items.append(Item(values={"span": list(span), **values}))
        return items

    def stages(self) -> list[Stage]:
        """Painted and, if there is a judge, graded."""
        return [*self.painting(), *([judge_stage(self.judge, "style")] if self.judge else [])]

    def accept_steady(self, clip: Clip, item: Item, results: Results) -> list[Item | Candidate]:
        """Refuse what flickers, and what nobody would call another style."""
        pair: Candidate = results["style"]
        if pair.scores["change"] < self.change:
            return [replace(pair, reason=HARDLY_VISIBLE)]
        return [replace(pair, reason=FLICKERS) if pair.scores["flicker"] > self.flicker else item]

    def written(
        self,
        clip: Clip,
        folder: Path,
        painted: np.ndarray,
        span: tuple[int, int],
        style: str,
        given: Mapping[str, Given] | None = None,
    ) -> Candidate:
        """The pair of a window and the same painted, uint8 [T, H, W, 3], with its flicker and change.

        Args:
            given: stage -> the prompt and seed that its model was given.
        """
        frames = load_frames(clip)[slice(*span)]
        before, after = flicker_of(frames, frames), flicker_of(painted, frames)
        writer = MediaWriter(folder, clip.fps)
        writer.video("source", frames)
        writer.video("target", painted)
        change = float(np.mean([_difference(*both) for both in zip(frames[::4], painted[::4], strict=True)]))
        scores = {"flicker": round(after / max(before, 1e-6), 4), "change": round(change, 3)}
        return writer.done(Styled(style), first=span[0], stop=span[1], scores=scores, given=given)

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """One sample."""
        key = key_of(clip, self.name, number, "")
        text = draw(WORDINGS, key, "form").format(style=self.styles()[candidate.details(Styled).style])
        return [
            SampleSpec(
                "",
                self.name,
                f"<video1> {text} <video2>",
                ("video2",),
                {"video1": "source", "video2": "target"},
            )
        ]


class StyleTransfer(StyledTask):
    """The task with a stylizer."""

    def __init__(
        self,
        stylizer: Stylizer,
        cut: Cut | None = None,
        length: int = 33,
        most: int = 2,
        flicker: float = 1.3,
        judge: Judge | None = None,
        change: float = 9.0,
    ) -> None:
        super().__init__(cut, length, most, flicker, judge, change)
        self.stylizer = stylizer

    def styles(self) -> dict[str, str]:
        """The stylizer's."""
        return self.stylizer.styles()

    def painting(self) -> list[Stage]:
        """All at once."""
        return [
            Stage(
                name="style",
                run=self._style,
                annotators=[self.stylizer],
                values=("span", "style"),
                decide=self.accept_steady,
            )
        ]

    def _style(self, clip: Clip, folder: Path, span: tuple[int, int], style: str) -> Candidate:
        painted = self.stylizer.stylize(load_frames(clip)[slice(*span)], style)
        return self.written(clip, folder, painted, span, style)


class PropagatedStyleTransfer(StyledTask):
    """The task with the paper's models, each in a stage of its own.

    Args:
        editor: of the first frame.
        generator: of the others, from the first frame and the depth of all.
        depth: of the source, on one scale for the window.
        looks: name -> words that follow "turn it into"; `STYLES` when left out.
    """

    code = (flicker, control_signals)

    def __init__(
        self,
        editor: ImageEditor,
        generator: VideoGenerator,
        depth: DepthEstimator,
        looks: dict[str, str] | None = None,
        cut: Cut | None = None,
        length: int = 81,
        most: int = 2,
        flicker: float = 1.3,
        judge: Judge | None = None,
        change: float = 9.0,
    ) -> None:
        super().__init__(cut, length, most, flicker, judge, change)
        self.editor, self.generator, self.depth, self.looks = editor, generator, depth, looks or STYLES

    def styles(self) -> dict[str, str]:
        """Names, and each in words."""
        return self.looks

    def painting(self) -> list[Stage]:
        """The first frame, the depth, and the window by both."""
        return [
            Stage(
                name="first_frame",
                run=self._edit,
                result=Painted,
                annotators=[self.editor],
                values=("span", "look"),
            ),
            Stage(
                name="depth",
                run=self._depth,
                result=WindowDepth,
                annotators=[self.depth],
                values=("span",),
            ),
            Stage(
                name="style",
                run=self._generate,
                annotators=[self.generator],
                values=("span", "style", "look"),
                inputs=("first_frame", "depth"),
                decide=self.accept_steady,
            ),
        ]

    def _edit(self, clip: Clip, folder: Path, span: tuple[int, int], look: str) -> Painted:
        first = load_frames(clip)[span[0]]
        asked = self._asked(clip, span, look)["first_frame"]
        edited = self.editor.edit(first, asked.prompt, asked.seed or 0)
        write_image(folder / "first.png", edited)
        return Painted()

    def _depth(self, clip: Clip, folder: Path, span: tuple[int, int]) -> WindowDepth:
        inverse = self.depth.inverse_depth(load_frames(clip)[slice(*span)])
        write_lossless(folder / "depth.mkv", grey_video(inverse), clip.fps)
        return WindowDepth()

    def _generate(
        self,
        clip: Clip,
        folder: Path,
        span: tuple[int, int],
        style: str,
        look: str,
        first_frame: Painted,
        depth: WindowDepth,
    ) -> Candidate:
        control = read_video(depth.folder / "depth.mkv")[0]
        control[0] = read_image(first_frame.folder / "first.png")
        mask = np.ones(control.shape[:3], bool)
        mask[0] = False
        given = self._asked(clip, span, look)
        asked = given["style"]
        painted = self.generator.generate(control, mask, asked.prompt, asked.seed or 0)
        return self.written(clip, folder, painted, span, style, given)

    @staticmethod
    def _asked(clip: Clip, span: tuple[int, int], look: str) -> dict[str, Given]:
        """What the editor of the first frame and the generator are given."""
        seed = seed_of(clip, span, look)
        return {
            "first_frame": Given(prompt=f"Turn it into {look}. Keep the composition.", seed=seed),
            "style": Given(prompt=f"The scene as {look}.", seed=seed),
        }


class SampleStyleTransfer(DerivedTask):
    """The task over the source videos of finished samples, such as rendered scenes; one style for each.

    Args:
        styles: names of the stylizer's that are used; all of them when left out.
        change: least mean difference of source and result in CIELAB, as for `StyleTransfer`.

    Raises:
        SettingError: a style that the stylizer does not have.
    """

    name = "style_transfer"

    def __init__(
        self,
        parents: tuple[str, ...],
        stylizer: Stylizer,
        tasks: tuple[str, ...] = ("object_removal",),
        endings: tuple[str, ...] = ("-remove",),
        styles: tuple[str, ...] = (),
        change: float = 9.0,
    ) -> None:
        super().__init__(parents, tasks, endings)
        self.stylizer, self.change = stylizer, change
        self.styles = tuple(styles) or tuple(stylizer.styles())
        if unknown := [name for name in self.styles if name not in stylizer.styles()]:
            known = ", ".join(stylizer.styles())
            raise SettingError(f"styles: {unknown[0]!r} is none of the stylizer's: {known}")

    def thresholds(self) -> Mapping[str, object]:
        """The gate."""
        return {"change": self.change}

    def start(self, clip: Clip) -> list[Item]:
        """The source, and a style by its key, so that the samples of one scene differ in it."""
        return [Item(values={"style": draw(list(self.styles), clip.key, "style")})]

    def stages(self) -> list[Stage]:
        """All at once."""
        return [
            Stage(
                name="style",
                run=self._style,
                annotators=[self.stylizer],
                values=("style",),
                decide=self._accept_visible,
            )
        ]

    def _style(self, clip: Clip, folder: Path, style: str) -> Candidate:
        record = self.record(clip)
        (source,) = [
            n for n in tags_of(record.sample.text) if n not in record.sample.targets and "video" in n
        ]
        frames, shape = record.pixels(source), record.sample.media[source]
        painted = self.stylizer.stylize(frames, style)
        writer = MediaWriter(folder, shape.fps or 1.0)
        writer.copy("source", record.bytes(source), shape)
        writer.video("target", painted)
        change = float(np.mean([_difference(*both) for both in zip(frames[::4], painted[::4], strict=True)]))
        return writer.done(Styled(style), scores={"change": round(change, 3)})

    def _accept_visible(self, clip: Clip, item: Item, results: Results) -> list[Item | Candidate]:
        """Refuse what nobody would call another style."""
        pair: Candidate = results["style"]
        return [replace(pair, reason=HARDLY_VISIBLE) if pair.scores["change"] < self.change else item]

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """One sample."""
        key = key_of(clip, self.name, number, "")
        look = self.stylizer.styles()[candidate.details(Styled).style]
        text = f"<video1> {draw(WORDINGS, key, 'form').format(style=look)} <video2>"
        return [SampleSpec("", self.name, text, ("video2",), {"video1": "source", "video2": "target"})]


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean distance in CIELAB of two frames uint8 RGB [H, W, 3]."""
    a, b = (cv2.cvtColor(f.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for f in (one, other))
    return float(np.linalg.norm(a - b, axis=-1).mean())
