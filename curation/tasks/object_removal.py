"""Object removal and addition: something is taken out of a clip, and the pair is used in both directions.

Offline, `ObjectRemoval` takes people out by the clean background: `stages` is the whole recipe. Its stages
measure, and the gates decide on what they measured. `GroundedRemoval` is the paper's recipe, with its models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from curation.core import preview
from curation.core.interfaces import (
    CameraMotion,
    Detector,
    MovingPlates,
    PlateMaker,
    Segmenter,
    Tracker,
)
from curation.core.results import Candidate, refused
from curation.core.stage import Item, Results, Stage
from curation.core.task import MediaWriter, SampleSpec, Task, code_of_task, key_of
from curation.ops import appearance, masks
from curation.removal import background_subtraction as foreground
from curation.removal import bystanders, compositing, decisions, measuring, plates, stages
from curation.removal import filters as gates
from curation.removal.background_subtraction import ForegroundSettings
from curation.removal.filters import GateSettings
from curation.removal.measuring import measure_tracks
from curation.removal.plates import plates_of, write_plate
from curation.removal.stages import (
    BodyResult,
    CameraResult,
    CutOut,
    DetectionResult,
    FrameDetections,
    LeftoverResult,
    PlateResult,
    StoredTrack,
    TrackResult,
)
from curation.sources import clips
from curation.sources.clips import Clip, Cut, load_frames
from curation.tasks.base.grounded import GroundedTask, Worded
from curation.text import heuristic_captions, templates
from curation.text.heuristic_captions import setting
from curation.text.people import Description, captions, describe_person, instruction
from shards import media
from shards.media import read_mask
from shards.video_writer import write_mask


@dataclass(frozen=True)
class RemovalSettings:
    """Numbers of the recipe that belong to no annotator."""

    detect_every: int = 4  # frames
    follow: int = 24  # frames that a track is followed beyond its detections
    static_motion: float = 0.7  # pixels that a picture corner may move in a clip of a standing camera
    grow: int = 3  # pixels that the mask is grown by
    feather: int = 3  # pixels over which the plate fades in, inside the stored mask
    crf: int = 18  # H.264 quality
    preset: str = "ultrafast"  # of x264; slower ones take most of the time of a pair


FORMS: tuple[tuple[str, str, bool], ...] = (  # ending of the key, direction, whether the text names the mask
    ("remove", "removal", False),
    ("remove-mask", "removal", True),
    ("add", "addition", False),
    ("add-mask", "addition", True),
)


class PlainWindow(TypedDict):
    """A window as an item's value: its first frame, and the person's boxes [T, 4] from there on."""

    first: int
    boxes: list[list[float]]


@dataclass(frozen=True)
class PairSettings:
    """What source and target show beside people, as the beginnings of their captions."""

    source: str
    target: str


@dataclass(frozen=True)
class RemovedPerson(PairSettings):
    """Details of a candidate: also the number of its track, and words for the person."""

    track: int
    words: Description


class ObjectRemoval(Task):
    """The task. Annotators come from the YAML file by class_path."""

    name = "object_removal"
    code = (
        *(clips, foreground, media, templates, heuristic_captions, appearance),
        *(compositing, measuring, plates, preview, masks, stages),
    )
    forms = FORMS

    def __init__(
        self,
        detector: Detector,
        tracker: Tracker,
        camera: CameraMotion,
        plate: PlateMaker,
        moving: MovingPlates,
        segmenter: Segmenter,
        cut: Cut | None = None,
        foreground: ForegroundSettings | None = None,
        gates: GateSettings | None = None,
        recipe: RemovalSettings | None = None,
    ) -> None:
        self.detector, self.tracker, self.camera = detector, tracker, camera
        self.plate, self.moving, self.segmenter = plate, moving, segmenter
        super().__init__(cut)
        self.foreground = foreground or ForegroundSettings()
        self.gates = gates or GateSettings()
        self.recipe = recipe or RemovalSettings()

    # ---- the recipe -------------------------------------------------------------------------------------

    def stages(self) -> list[Stage]:
        """People are found and measured, decided on, cut out, looked for again, and written."""
        foreground, recipe = self.foreground.measuring(), self.recipe
        cutting = {"grow": recipe.grow, "feather": recipe.feather, **self.gates.measuring(gates.MEASURING)}
        return [
            Stage(
                name="detect",
                run=self._detect,
                result=DetectionResult,
                annotators=[self.detector],
                settings={"detect_every": recipe.detect_every},
            ),
            Stage(
                name="track",
                run=self._track,
                result=TrackResult,
                annotators=[self.tracker],
                inputs=("detect",),
            ),
            Stage(
                name="camera",
                run=self._camera,
                result=CameraResult,
                annotators=[self.camera],
                decide=lambda clip, item, results: [
                    item.also(static=results["camera"].motion <= recipe.static_motion)
                ],
            ),
            Stage(
                name="plate",
                run=self._plate,
                result=PlateResult,
                annotators=[self.plate, self.detector],
                values=("static",),
            ),
            Stage(
                name="bodies",
                run=self._bodies,
                result=BodyResult,
                annotators=[self.moving],
                values=("static",),
                inputs=("track", "plate"),
                settings={"foreground": foreground, "follow": recipe.follow},
                decide=self._choose,
            ),
            Stage(
                name="cut_out",
                run=self._cut_out,
                result=CutOut,
                annotators=[self.segmenter, self.moving],
                values=("static", "window"),
                inputs=("plate",),
                settings={"foreground": foreground, **cutting},
                decide=self._check,
            ),
            Stage(
                name="leftover",
                run=self._look_again,
                result=LeftoverResult,
                annotators=[self.detector],
                values=("window",),
                inputs=("cut_out",),
                settings=self.gates.measuring(gates.CHECKING),
                decide=lambda clip, item, results: [
                    self._refused(item, gates.LEFTOVER) if results["leftover"].found else item
                ],
            ),
            Stage(
                name="pair",
                run=self._pair,
                values=("window",),
                inputs=("cut_out",),
                settings={"crf": recipe.crf, "preset": recipe.preset},
                decide=self._accept,
            ),
        ]

    # ---- what the stages compute ------------------------------------------------------------------------

    def _detect(self, clip: Clip, folder: Path) -> DetectionResult:
        frames = load_frames(clip)
        looked = sorted({*range(0, len(frames), self.recipe.detect_every), len(frames) - 1})
        found = []
        for t in looked:
            boxes, scores = self.detector.detect(frames[t])
            found.append(FrameDetections(t, boxes.round(3).tolist(), scores.round(3).tolist()))
        return DetectionResult(found=found)

    def _track(self, clip: Clip, folder: Path, detect: DetectionResult) -> TrackResult:
        boxes = {
            seen.frame: (np.array(seen.boxes, np.float32).reshape(-1, 4), np.array(seen.scores, np.float32))
            for seen in detect.found
        }
        tracks = self.tracker.track(load_frames(clip), boxes)
        stored = [StoredTrack(t.id, t.start, t.boxes.round(2).tolist(), round(t.score, 4)) for t in tracks]
        return TrackResult(tracks=stored)

    def _camera(self, clip: Clip, folder: Path) -> CameraResult:
        return CameraResult(motion=float(min(self.camera.motion(load_frames(clip)), 1e6)))

    def _plate(self, clip: Clip, folder: Path, static: bool) -> PlateResult:
        if not static:
            return PlateResult()
        plate = self.plate.plate(load_frames(clip))
        write_plate(folder, plate)
        people, _ = self.detector.detect(plate.image)
        return PlateResult(people=people.round(2).tolist())

    def _bodies(
        self, clip: Clip, folder: Path, static: bool, track: TrackResult, plate: PlateResult
    ) -> BodyResult:
        tracks, frames = track.as_tracks(), load_frames(clip)
        plate_of = plates_of(clip, static, plate.folder, self.moving)
        if not static:
            tracks = [foreground.regroup(t, len(frames), plate_of) for t in tracks]
        return BodyResult(
            tracks=measure_tracks(frames, tracks, plate_of, self.foreground, self.recipe.follow)
        )

    def _cut_out(
        self, clip: Clip, folder: Path, static: bool, window: PlainWindow, plate: PlateResult
    ) -> CutOut:
        """The person of a window: mask, pixels that the target has there, and the measures of both."""
        first, boxes = window["first"], np.array(window["boxes"], np.float32)
        span, plate_of = range(first, first + len(boxes)), plates_of(clip, static, plate.folder, self.moving)
        shown = [p for p in map(plate_of, span) if p is not None]
        assert len(shown) == len(boxes)  # a frame without a plate is in no window
        recipe = self.recipe
        frames = load_frames(clip)[first : span.stop]
        pair = compositing.make_pair(
            *(frames, boxes, shown, self.segmenter, self.foreground, self.gates),
            recipe.grow,
            recipe.feather,
        )
        if len(pair.frames) < len(boxes) or pair.frames[-1].body.bounds is None:
            return CutOut(frames=pair.frames)  # nothing stands out in one of them
        write_mask(folder / "mask.mkv", pair.mask, clip.fps)
        np.save(folder / "patch.npy", pair.target[pair.mask])
        people = np.array(plate.people or [], np.float32).reshape(-1, 4)
        return CutOut(
            frames=pair.frames,
            outside=pair.outside,
            mask_share=float(pair.mask.mean()),
            in_plate=compositing.overlaps(np.asarray(pair.mask.any(0)), people),
        )

    def _look_again(self, clip: Clip, folder: Path, window: PlainWindow, cut_out: CutOut) -> LeftoverResult:
        _, target, mask = composed(clip, window, cut_out)
        return LeftoverResult(found=compositing.has_leftover(target, mask, self.detector, self.gates))

    def _pair(self, clip: Clip, folder: Path, window: PlainWindow, cut_out: CutOut) -> Candidate:
        """Write source, target and mask."""
        source, target, mask = composed(clip, window, cut_out)
        writer = MediaWriter(folder, clip.fps, self.recipe.crf, self.recipe.preset)
        writer.video("source", source)
        writer.video("target", target)
        writer.mask("mask", mask)
        preview.write_preview(folder / "preview.png", source, target, mask)
        settings = PairSettings(setting(source), setting(target))
        return writer.done(settings, first=window["first"], stop=window["first"] + len(mask))

    def preview(self, folder: Path, candidate: Candidate) -> None:
        """Nothing: `_pair` writes it, of frames before they are encoded, with the mask's outline."""

    # ---- what is decided on it --------------------------------------------------------------------------

    def _choose(self, clip: Clip, item: Item, results: Results) -> list[Item | Candidate]:
        """A reason for each track without a window, and the windows of the others."""
        tracks, size = results["bodies"].tracks, (clip.height, clip.width)
        windows, rejected = decisions.choose_windows(tracks, size, self.gates, self.foreground)
        items = [
            item.also(
                window={"first": window.first, "boxes": window.boxes},  # type: ignore[dict-item]  # of floats
                track=window.track,
                score=window.score,
            )
            for window in windows
        ]
        return [*map(refused, rejected), *items]

    def _check(self, clip: Clip, item: Item, results: Results) -> list[Item | Candidate]:
        reason = decisions.cut_out_reason(results["cut_out"], self.gates, self.foreground)
        return [self._refused(item, reason) if reason else item]

    def _accept(self, clip: Clip, item: Item, results: Results) -> list[Item | Candidate]:
        pair, cut_out, score = results["pair"], results["cut_out"], item.values["score"]
        scores = {"detector_confidence": round(float(score), 4), **decisions.scores_of(cut_out)}  # type: ignore[arg-type]  # a float
        track: Any = item.values["track"]
        window: Any = item.values["window"]
        person, others = bystanders.people_in(
            results["bodies"].tracks, results["detect"].found, track, window["first"], window["boxes"]
        )
        words = describe_person(person, others, (clip.height, clip.width), len(window["boxes"]))
        about = {**pair.about, "track": track, "words": asdict(words)}
        return [replace(pair, scores=scores, about=about)]

    @staticmethod
    def _refused(item: Item, reason: str) -> Candidate:
        """A window that a gate refused."""
        window: Any = item.values["window"]
        first, about = window["first"], {"track": item.values["track"]}
        return Candidate(reason=reason, first=first, stop=first + len(window["boxes"]), about=about)

    # ---- samples, and what the results depend on --------------------------------------------------------

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """Removal and addition, with and without the mask in the text; all share the same three files."""
        details = candidate.details(RemovedPerson)
        words, made = details.words, []
        with_person, without = captions(details.source, details.target, words)
        for ending, direction, masked in self.forms:
            removes = direction == "removal"
            source, target = ("source", "target") if removes else ("target", "source")
            key = key_of(clip, f"object_{direction}", number, ending)
            text = instruction(key, words, direction, masked)
            if not text:  # nothing but the mask says who is meant
                continue
            told = {"source": with_person, "target": without, "object": words.name(key)}
            made.append(
                SampleSpec(
                    ending,
                    f"object_{direction}",
                    f"<video1> {text} <video2>",
                    ("video2",),
                    {"video1": source, "video2": target, "mask": "mask"},
                    told if removes else {**told, "source": without, "target": with_person},
                )
            )
        return made

    def code_version(self, stage: Stage) -> str:
        """That of removal for its subclass too, so that addition finds the results of removal."""
        return code_of_task(ObjectRemoval, stage.annotators)

    def thresholds(self) -> Mapping[str, object]:
        """What is compared with stored measures."""
        return {
            "foreground": self.foreground.thresholds(),
            "gates": self.gates.thresholds(),
            "recipe": {"static_motion": self.recipe.static_motion},
        }


class GroundedRemoval(GroundedTask):
    """The task with the paper's models: objects of any name, and an inpainter for the background."""

    name, stage = "object_removal", "inpaint"
    forms = FORMS

    def code_version(self, stage: Stage) -> str:
        """That of removal for its subclass too, so that addition finds the results of removal."""
        return code_of_task(GroundedRemoval, stage.annotators)

    def words(self, frames: np.ndarray, mask: np.ndarray, label: str) -> dict[str, str]:
        """The words of removal, and of the same pair read as an addition."""
        told = self.writer.removal(frames, mask, label).model_dump()
        return {**told, "instruction": told["remove"]}

    def prompt(self, words: dict[str, str]) -> str:
        """The scene without the object."""
        return words["without_object"]

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """Removal and addition, with and without the mask in the text; all share the same files.

        `mask` is all that differs, `mask2` the object alone.
        """
        words, made = candidate.details(Worded).words, []
        for ending, direction, masked in self.forms:
            removes = direction == "removal"
            told = [words["with_object"], words["without_object"]]
            source, target = ("source", "target") if removes else ("target", "source")
            text = words["remove" if removes else "add"] + (
                " The place is marked in <mask>." if masked else ""
            )
            captions = dict(zip(("source", "target"), told if removes else told[::-1], strict=True))
            media = {"video1": source, "video2": target, "mask": "mask", "mask2": "object"}
            captions["object"] = words["object"]
            made.append(
                SampleSpec(
                    ending, f"object_{direction}", f"<video1> {text} <video2>", ("video2",), media, captions
                )
            )
        return made


def composed(clip: Clip, window: PlainWindow, cut_out: CutOut) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source and target uint8 [T, H, W, 3] and the mask bool [T, H, W] of a person who was cut out."""
    mask = read_mask(cut_out.folder / "mask.mkv")
    source = load_frames(clip)[window["first"] : window["first"] + len(mask)]
    target = source.copy()
    target[mask] = np.load(cut_out.folder / "patch.npy", allow_pickle=False)
    return source, target, mask
