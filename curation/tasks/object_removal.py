"""Object removal and addition: something is taken out of a clip, and the pair is used in both directions.

Offline, `ObjectRemoval` takes people out by the clean background: `process` is the whole recipe, and every
step is a result in the workspace that is computed once. `GroundedRemoval` is the paper's recipe, with its
models.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from curation.core import preview
from curation.core.cache import Workspace
from curation.core.interfaces import (
    CameraMotion,
    Detector,
    MovingPlates,
    Plate,
    PlateMaker,
    Segmenter,
    Track,
    Tracker,
)
from curation.core.results import Candidate, refused
from curation.core.task import MediaWriter, SampleSpec, Task, code_of_task, key_of
from curation.ops import masks
from curation.removal import background_subtraction as foreground
from curation.removal import compositing, stages
from curation.removal import filters as gates
from curation.removal.background_subtraction import ForegroundSettings
from curation.removal.compositing import Rejected
from curation.removal.filters import GateSettings
from curation.removal.stages import (
    DetectionResult,
    FrameDetections,
    SceneResult,
    StoredTrack,
    TrackResult,
    Window,
    WindowResult,
)
from curation.sources import clips
from curation.sources.clips import Clip, Cut, load_frames
from curation.tasks.base.grounded import GroundedTask, Worded
from curation.text import templates
from curation.text.templates import Appearance, captions, instruction
from curation.vlm.interface import Annotator
from shards import media
from shards.media import read_image, write_image


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


# the mask of the person in a box [4] of a frame, bool over a window of it, and the gate that refuses it
BodyAt = Callable[[int, np.ndarray], tuple[np.ndarray, str]]

FORMS: tuple[tuple[str, str, bool], ...] = (  # ending of the key, direction, whether the text names the mask
    ("remove", "removal", False),
    ("remove-mask", "removal", True),
    ("add", "addition", False),
    ("add-mask", "addition", True),
)


@dataclass(frozen=True)
class OfTrack:
    """Details of a refused candidate: the number of its track."""

    track: int


@dataclass(frozen=True)
class RemovedPerson:
    """Details of a candidate: the number of its track, and what the person looks like."""

    track: int
    appearance: Appearance


class ObjectRemoval(Task):
    """The task. Annotators come from the YAML file by class_path."""

    name = "object_removal"
    code = (clips, foreground, gates, media, templates, compositing, preview, masks, stages)
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

    def process(self, clip: Clip, space: Workspace) -> list[Candidate]:
        """All candidates of a clip: each track without a window, and each window of the others."""
        annotators = [self.camera, self.plate, self.detector]
        found = self.cached(
            space, "detect", clip, self._detect, [self.detector], kind=DetectionResult, needs={}
        )
        tracked = self.cached(
            space, "track", clip, self._track, [self.tracker], kind=TrackResult, needs={"found": found}
        )
        scene = self.cached(space, "scene", clip, self._scene, annotators, kind=SceneResult, needs={})
        needs = {"tracked": tracked, "scene": scene}
        chosen = self.cached(
            space, "choose", clip, self._choose, [self.moving], kind=WindowResult, needs=needs
        )
        candidates = [refused(reason) for reason in chosen.rejected]
        annotators = [self.segmenter, self.detector, self.moving]
        for window in chosen.windows:
            candidates.append(
                self.cached(space, "pair", clip, self._pair, annotators, needs=needs, window=window)
            )
        return candidates

    # ---- its steps --------------------------------------------------------------------------------------

    def _detect(self, clip: Clip, folder: Path) -> DetectionResult:
        frames = load_frames(clip)
        looked = sorted({*range(0, len(frames), self.recipe.detect_every), len(frames) - 1})
        found = []
        for t in looked:
            boxes, scores = self.detector.detect(frames[t])
            found.append(FrameDetections(t, boxes.round(3).tolist(), scores.round(3).tolist()))
        return DetectionResult(found=found)

    def _track(self, clip: Clip, folder: Path, found: DetectionResult) -> TrackResult:
        boxes = {
            seen.frame: (np.array(seen.boxes, np.float32).reshape(-1, 4), np.array(seen.scores, np.float32))
            for seen in found.found
        }
        tracks = self.tracker.track(load_frames(clip), boxes)
        stored = [StoredTrack(t.id, t.start, t.boxes.round(2).tolist(), round(t.score, 4)) for t in tracks]
        return TrackResult(tracks=stored)

    def _scene(self, clip: Clip, folder: Path) -> SceneResult:
        frames = load_frames(clip)
        motion = min(self.camera.motion(frames), 1e6)
        if motion > self.recipe.static_motion:
            return SceneResult(static=False, motion=round(motion, 3))
        plate = self.plate.plate(frames)
        write_image(folder / "plate.png", plate.image)
        levels = np.stack([plate.noise, plate.agreement * 255, plate.noise * 0], axis=-1)
        write_image(folder / "quality.png", levels.round().clip(0, 255).astype(np.uint8))
        people, _ = self.detector.detect(plate.image)
        return SceneResult(static=True, motion=round(motion, 3), people=people.round(2).tolist())

    def _choose(self, clip: Clip, folder: Path, tracked: TrackResult, scene: SceneResult) -> WindowResult:
        """Windows in which a track is alone, whole and steady; a reason for each track without any."""
        tracks, rejected, windows = tracked.as_tracks(), list[str](), list[Window]()
        frames, plate_of = load_frames(clip), self._plates(clip, scene)

        @functools.cache
        def light(t: int) -> np.ndarray:
            plate = plate_of(t)
            assert plate is not None  # asked only for frames that have one
            return foreground.light_change(frames[t], plate)

        def body(t: int, box: np.ndarray) -> tuple[np.ndarray, str]:
            plate = plate_of(t)
            if plate is None:
                return np.zeros(frames.shape[1:3], bool), gates.CAMERA
            window = foreground.window_of(box, frames.shape[1:3], 0.5)
            seen = foreground.subtract_background(frames[t], plate, light(t), window, self.foreground)
            return foreground.body_of(seen, box, None, self.foreground)

        if not scene.static:
            tracks = [foreground.regroup(t, len(frames), plate_of) for t in tracks]
        tracks = [self._extend(t, tracks, len(frames), frames.shape[1:3], body) for t in tracks]
        for track in tracks:
            reasons, areas = [], []
            for t, box in enumerate(track.boxes, start=track.start):
                reason, area = gates.box_reason(track, t, tracks, frames.shape[1:3], self.gates), 0
                if not reason:
                    mask, reason = body(t, box)
                    area = int(mask.sum())
                reasons.append(reason)
                areas.append(area)
            reasons = gates.spread_two(gates.mark_jumps(reasons, areas, self.gates), self.gates)
            spans = gates.windows(reasons, self.gates)
            windows += [
                Window(track.id, track.start + a, track.boxes[a:b].round(2).tolist()) for a, b in spans
            ]
            if not spans:
                rejected.append(gates.main_reason(reasons))
        return WindowResult(windows=windows, rejected=rejected)

    def _extend(
        self, track: Track, tracks: list[Track], frames: int, shape: tuple[int, ...], body: BodyAt
    ) -> Track:
        """The track, followed by what stands out from the plate at both ends beyond the detections."""

        def body_at(t: int, box: np.ndarray) -> tuple[np.ndarray | None, str]:
            alone = Track(track.id, t, box[None], track.score)
            reason = gates.box_reason(alone, t, tracks, shape, self.gates)
            if reason:
                return None, reason
            mask, reason = body(t, box)
            window = foreground.window_of(box, shape, 0.5)
            found = masks.bounds(mask)
            return None if found is None else found + np.tile([window[1].start, window[0].start], 2), reason

        reach = self.recipe.follow
        before = foreground.follow(track.boxes[0], body_at, track.start, -1, max(-1, track.start - reach - 1))
        after = foreground.follow(
            track.boxes[-1], body_at, track.stop - 1, 1, min(frames, track.stop + reach)
        )
        boxes = np.concatenate(
            [np.array(p, np.float32).reshape(-1, 4) for p in (before[::-1], track.boxes, after)]
        )
        return Track(track.id, track.start - len(before), boxes, track.score)

    def _pair(
        self, clip: Clip, folder: Path, window: Window, tracked: TrackResult, scene: SceneResult
    ) -> Candidate:
        """Cut the person out, check the result, write source, target and mask; or say which gate refused."""
        number, first, boxes = window.track, window.first, np.array(window.boxes, np.float32)
        track, stop = next(t for t in tracked.as_tracks() if t.id == number), first + len(boxes)
        frames, plate_of = load_frames(clip)[first:stop], self._plates(clip, scene)
        plates = [p for p in map(plate_of, range(first, stop)) if p is not None]
        assert len(plates) == len(boxes)  # a frame without a plate is in no window
        try:
            pair = compositing.make_pair(
                frames,
                boxes,
                plates,
                self.segmenter,
                self.foreground,
                self.gates,
                self.recipe.grow,
                self.recipe.feather,
            )
            if scene.static:
                people = np.array(scene.people, np.float32).reshape(-1, 4)
                if gates.overlaps(np.asarray(pair.mask.any(0)), people):
                    raise Rejected(gates.DIRTY_PLATE)
            compositing.check_leftover(pair, self.detector, self.gates)
        except Rejected as refusal:
            return Candidate(reason=str(refusal), first=first, stop=stop, about=asdict(OfTrack(number)))
        writer = MediaWriter(folder, clip.fps, self.recipe.crf, self.recipe.preset)
        writer.video("source", pair.source)
        writer.video("target", pair.target)
        writer.mask("mask", pair.mask)
        preview.write_preview(folder / "preview.png", pair.source, pair.target, pair.mask)
        return writer.done(
            RemovedPerson(number, templates.measure(pair.source, pair.body, boxes)),
            first=first,
            stop=stop,
            scores={"detector_confidence": round(track.score, 4), **pair.scores},
        )

    def preview(self, folder: Path, candidate: Candidate) -> None:
        """Nothing: `_pair` writes it, of frames before they are encoded, with the mask's outline."""

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """Removal and addition, with and without the mask in the text; all share the same three files."""
        appearance = candidate.details(RemovedPerson).appearance
        with_person, without = captions(appearance)
        made = []
        for ending, direction, masked in self.forms:
            removes = direction == "removal"
            source, target = ("source", "target") if removes else ("target", "source")
            key = key_of(clip, f"object_{direction}", number, ending)
            told = {"source": with_person, "target": without, "object": appearance.phrases()[-1]}
            made.append(
                SampleSpec(
                    ending,
                    f"object_{direction}",
                    f"<video1> {instruction(key, appearance, direction, masked)} <video2>",
                    ("video2",),
                    {"video1": source, "video2": target, "mask": "mask"},
                    told if removes else {**told, "source": without, "target": with_person},
                )
            )
        return made

    def _plates(self, clip: Clip, scene: SceneResult) -> Callable[[int], Plate | None]:
        """The plate of each frame: one for all under a standing camera, each its own under a moving one."""
        if scene.static:
            plate = _plate(scene.folder)
            return lambda t: plate
        return _moving_plates(self.moving, clip)  # type: ignore[arg-type]  # hashed by identity

    # ---- what a step depends on, and what goes into the provenance ---------------------------------------

    def settings_of(self, stage: str) -> Mapping[str, object]:
        """A changed gate detects and tracks nothing again."""
        if stage == "detect":
            return {"detect_every": self.recipe.detect_every}
        if stage == "track":
            return {}
        if stage == "scene":
            return {"static_motion": self.recipe.static_motion}
        return self.settings()

    def code_version(self, uses: Sequence[Annotator]) -> str:
        """That of removal for its subclass too, so that addition finds the results of removal."""
        return code_of_task(ObjectRemoval, uses)

    def annotators(self) -> dict[str, Annotator]:
        """The annotators by stage."""
        used = {"detect": self.detector, "track": self.tracker, "camera": self.camera, "remove": self.plate}
        return {**used, "remove_moving": self.moving, "segment": self.segmenter}

    def settings(self) -> Mapping[str, object]:
        """Of the gates and the recipe."""
        return {
            "foreground": asdict(self.foreground),
            "gates": asdict(self.gates),
            "recipe": asdict(self.recipe),
        }


class GroundedRemoval(GroundedTask):
    """The task with the paper's models: objects of any name, and an inpainter for the background."""

    name, stage = "object_removal", "inpaint"
    forms = FORMS

    def words(self, frames: np.ndarray, mask: np.ndarray, label: str) -> dict[str, str]:
        """The words of removal, and of the same pair read as an addition."""
        told = self.writer.removal(frames, mask, label).model_dump()
        return {**told, "instruction": told["remove"]}

    def prompt(self, words: dict[str, str]) -> str:
        """The scene without the object."""
        return words["without_object"]

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """Removal and addition, with and without the mask in the text; all share the same three files."""
        words, made = candidate.details(Worded).words, []
        for ending, direction, masked in self.forms:
            removes = direction == "removal"
            told = [words["with_object"], words["without_object"]]
            source, target = ("source", "target") if removes else ("target", "source")
            text = words["remove" if removes else "add"] + (
                " The place is marked in <mask>." if masked else ""
            )
            captions = dict(zip(("source", "target"), told if removes else told[::-1], strict=True))
            media = {"video1": source, "video2": target, "mask": "mask"}
            captions["object"] = words["object"]
            made.append(
                SampleSpec(
                    ending, f"object_{direction}", f"<video1> {text} <video2>", ("video2",), media, captions
                )
            )
        return made


@functools.lru_cache(maxsize=1)
def _moving_plates(maker: MovingPlates, clip: Clip) -> Callable[[int], Plate | None]:
    return maker.plates(load_frames(clip))


@functools.lru_cache(maxsize=2)
def _plate(folder: Path) -> Plate:
    quality = read_image(folder / "quality.png").astype(np.float32)
    return Plate(read_image(folder / "plate.png"), quality[..., 0].copy(), quality[..., 1] / 255)
