"""Object removal and addition: something is taken out of a clip, and the pair is used in both directions.

Offline, `ObjectRemoval` takes people out by the clean background: `process` is the whole recipe, and every
step is a result in the workspace that is computed once. `GroundedRemoval` is the paper's recipe, with its
models.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curation.core import cache, preview
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
from curation.core.task import MediaWriter, SampleSpec, Task, key_of
from curation.ops import masks
from curation.removal import background_subtraction as foreground
from curation.removal import compositing
from curation.removal import filters as gates
from curation.removal.background_subtraction import ForegroundSettings
from curation.removal.compositing import Rejected
from curation.removal.filters import GateSettings
from curation.sources import clips
from curation.sources.clips import Clip, Cut, load_frames
from curation.tasks.base.grounded import GroundedTask
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


FORMS: tuple[tuple[str, str, bool], ...] = (  # ending of the key, direction, whether the text names the mask
    ("remove", "removal", False),
    ("remove-mask", "removal", True),
    ("add", "addition", False),
    ("add-mask", "addition", True),
)


class ObjectRemoval(Task):
    """The task. Annotators come from the YAML file by class_path."""

    name = "object_removal"
    code = (clips, foreground, gates, media, templates, compositing, preview, masks)
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

    def process(self, clip: Clip, space: Workspace) -> dict[str, Any]:
        """Candidates of one clip: {"candidates": [{"reason" ("" if accepted), "folder", "pair"}, ...]}."""
        found = self._once(space, "detect", clip, self._detect, [self.detector], {})
        tracked = self._once(space, "track", clip, self._track, [self.tracker], {"found": found})
        scene = self._once(space, "scene", clip, self._scene, [self.camera, self.plate, self.detector], {})
        chosen = self._once(
            space, "choose", clip, self._choose, [self.moving], {"tracked": tracked, "scene": scene}
        )
        candidates = [{"reason": reason} for reason in chosen[1]["rejected"]]
        for window in chosen[1]["windows"]:
            uses = [self.segmenter, self.detector, self.moving]
            needs = {"tracked": tracked, "scene": scene}
            folder, pair = self._once(space, "pair", clip, self._pair, uses, needs, window=window)
            candidates.append({**pair, "folder": str(folder)})
        return {"candidates": candidates}

    # ---- its steps --------------------------------------------------------------------------------------

    def _detect(self, clip: Clip, folder: Path) -> dict[str, Any]:
        frames = load_frames(clip)
        looked = sorted({*range(0, len(frames), self.recipe.detect_every), len(frames) - 1})
        return {
            "found": [[t, *(a.round(3).tolist() for a in self.detector.detect(frames[t]))] for t in looked]
        }

    def _track(self, clip: Clip, folder: Path, found: Any) -> dict[str, Any]:
        boxes = {
            t: (np.array(b, np.float32).reshape(-1, 4), np.array(s, np.float32))
            for t, b, s in found[1]["found"]
        }
        tracks = self.tracker.track(load_frames(clip), boxes)
        return {"tracks": [[t.id, t.start, t.boxes.round(2).tolist(), round(t.score, 4)] for t in tracks]}

    def _scene(self, clip: Clip, folder: Path) -> dict[str, Any]:
        frames = load_frames(clip)
        motion = min(self.camera.motion(frames), 1e6)
        if motion > self.recipe.static_motion:
            return {"static": False, "motion": round(motion, 3)}
        plate = self.plate.plate(frames)
        write_image(folder / "plate.png", plate.image)
        levels = np.stack([plate.noise, plate.agreement * 255, plate.noise * 0], axis=-1)
        write_image(folder / "quality.png", levels.round().clip(0, 255).astype(np.uint8))
        people, _ = self.detector.detect(plate.image)
        return {"static": True, "motion": round(motion, 3), "people": people.round(2).tolist()}

    def _choose(self, clip: Clip, folder: Path, tracked: Any, scene: Any) -> dict[str, Any]:
        """Windows in which a track is alone, whole and steady; a reason for each track without any."""
        tracks, rejected, windows = _tracks(tracked), [], []
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

        if not scene[1]["static"]:
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
            windows += [[track.id, track.start + a, track.boxes[a:b].round(2).tolist()] for a, b in spans]
            if not spans:
                rejected.append(gates.main_reason(reasons))
        return {"windows": windows, "rejected": rejected}

    def _extend(
        self, track: Track, tracks: list[Track], frames: int, shape: tuple[int, ...], body: Any
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

    def _pair(self, clip: Clip, folder: Path, window: list[Any], tracked: Any, scene: Any) -> dict[str, Any]:
        """Cut the person out, check the result, write source, target and mask; or say which gate refused."""
        number, first, boxes = window[0], window[1], np.array(window[2], np.float32)
        track, stop = next(t for t in _tracks(tracked) if t.id == number), first + len(boxes)
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
            if scene[1]["static"]:
                people = np.array(scene[1]["people"], np.float32).reshape(-1, 4)
                if gates.overlaps(np.asarray(pair.mask.any(0)), people):
                    raise Rejected(gates.DIRTY_PLATE)
            compositing.check_leftover(pair, self.detector, self.gates)
        except Rejected as refusal:
            return {"reason": str(refusal), "track": number, "first": first, "stop": stop}
        shelf = MediaWriter(folder, clip.fps, self.recipe.crf, self.recipe.preset)
        shelf.video("source", pair.source)
        shelf.video("target", pair.target)
        shelf.mask("mask", pair.mask)
        preview.write_preview(folder / "preview.png", pair.source, pair.target, pair.mask)
        return shelf.done(
            track=number,
            first=first,
            stop=stop,
            scores={"detector_confidence": round(track.score, 4), **pair.scores},
            appearance=asdict(templates.measure(pair.source, pair.body, boxes)),
        )

    def drafts(self, clip: Clip, result: dict[str, Any], number: int) -> list[SampleSpec]:
        """Removal and addition, with and without the mask in the text; all share the same three files."""
        appearance = Appearance(**result["appearance"])
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

    def _plates(self, clip: Clip, scene: Any) -> Callable[[int], Plate | None]:
        """The plate of each frame: one for all under a standing camera, each its own under a moving one."""
        if scene[1]["static"]:
            plate = _plate(scene[0])
            return lambda t: plate
        return _moving_plates(self.moving, clip)  # type: ignore[arg-type]  # hashed by identity

    # ---- what a step depends on, and what goes into the provenance ---------------------------------------

    def _once(
        self,
        space: Workspace,
        stage: str,
        clip: Clip,
        make: Any,
        uses: list[Annotator],
        needs: dict[str, tuple[Path, dict[str, Any]]],
        **values: Any,
    ) -> tuple[Path, dict[str, Any]]:
        depends = {
            "clip": clip.key,
            "uses": [a.describe() for a in uses],
            "needs": {name: folder.name for name, (folder, _) in needs.items()},
            "values": values,
            "settings": self._settings(stage),
            "code": _code(*(type(a) for a in uses)),
        }
        return space.once(stage, depends, lambda folder: make(clip, folder, **values, **needs))

    def _settings(self, stage: str) -> dict[str, Any]:
        if stage == "detect":
            return {"detect_every": self.recipe.detect_every}
        if stage == "track":
            return {}
        if stage == "scene":
            return {"static_motion": self.recipe.static_motion}
        return {
            "foreground": asdict(self.foreground),
            "gates": asdict(self.gates),
            "recipe": asdict(self.recipe),
        }

    def used(self) -> dict[str, Annotator]:
        """The annotators by stage."""
        used = {"detect": self.detector, "track": self.tracker, "camera": self.camera, "remove": self.plate}
        return {**used, "remove_moving": self.moving, "segment": self.segmenter}

    def settings(self) -> dict[str, Any]:
        """Of the gates and the recipe."""
        return self._settings("pair")


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

    def drafts(self, clip: Clip, result: dict[str, Any], number: int) -> list[SampleSpec]:
        """Removal and addition, with and without the mask in the text; all share the same three files."""
        words, made = result["words"], []
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


@functools.cache
def _code(*classes: type) -> str:
    """Code version of a stage: the task, what it calls, and the annotators' classes."""
    import inspect

    modules = [inspect.getmodule(c) for c in (ObjectRemoval, *classes)]
    return cache.code_of(*modules, *ObjectRemoval.code)


def _tracks(tracked: tuple[Path, dict[str, Any]]) -> list[Track]:
    return [Track(i, a, np.array(b, np.float32), s) for i, a, b, s in tracked[1]["tracks"]]


@functools.lru_cache(maxsize=1)
def _moving_plates(maker: MovingPlates, clip: Clip) -> Callable[[int], Plate | None]:
    return maker.plates(load_frames(clip))


@functools.lru_cache(maxsize=2)
def _plate(folder: Path) -> Plate:
    quality = read_image(folder / "quality.png").astype(np.float32)
    return Plate(read_image(folder / "plate.png"), quality[..., 0].copy(), quality[..., 1] / 255)
