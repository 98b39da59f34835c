"""What a candidate is written as: its media files, and the samples that they become."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from curation.core.results import GIVEN, Candidate, MediaFile
from curation.sources.clips import Clip
from shards.media import write_image, write_mask, write_video
from shards.sample import FrameOf, Given, Media


@dataclass(frozen=True)
class SampleSpec:
    """A sample to be.

    Attributes:
        ending: of its key, unique among a candidate's samples.
        media: names of elements (video1, image1, mask) -> what was written under which name (`MediaWriter`).
        frame_of: of each image that is a frame of one of the sample's videos, that video and the frame.
    """

    ending: str
    task: str
    text: str
    targets: tuple[str, ...]
    media: dict[str, str]
    captions: dict[str, str] = field(default_factory=dict)
    frame_of: dict[str, tuple[str, int]] = field(default_factory=dict)

    def as_image(self, files: Mapping[str, MediaFile]) -> SampleSpec:
        """The same with `image1` for a `video1` that was written as a picture."""
        new = {
            name: name.replace("video", "image") if files[file].kind == "image" else name
            for name, file in self.media.items()
        }
        text = re.sub(r"<(\w+)>", lambda tag: f"<{new.get(tag[1], tag[1])}>", self.text)
        if list(new) != list(new.values()):
            text = text.replace("the video", "the picture")
        media = {new[name]: file for name, file in self.media.items()}
        return replace(self, text=text, targets=tuple(new[t] for t in self.targets), media=media)


class MediaWriter:
    """Writes a candidate's media into its folder and remembers their shapes."""

    def __init__(self, folder: Path, fps: float, crf: int = 18, preset: str = "ultrafast") -> None:
        self.folder, self.fps, self.crf, self.preset = folder, fps, crf, preset
        self.files: dict[str, MediaFile] = {}

    def video(self, name: str, frames: np.ndarray) -> None:
        """uint8 RGB [T, H, W, 3] as H.264."""
        write_video(self.folder / f"{name}.mp4", frames, self.fps, self.crf, self.preset)
        self.files[name] = MediaFile(f"{name}.mp4", "video", len(frames), self.fps, *frames.shape[1:3])

    def mask(self, name: str, mask: np.ndarray) -> None:
        """Bool [T, H, W], losslessly."""
        write_mask(self.folder / f"{name}.mkv", mask, self.fps)
        self.files[name] = MediaFile(f"{name}.mkv", "mask", len(mask), self.fps, *mask.shape[1:])

    def image(self, name: str, picture: np.ndarray) -> None:
        """uint8 RGB [H, W, 3] as PNG."""
        write_image(self.folder / f"{name}.png", picture)
        self.files[name] = MediaFile(f"{name}.png", "image", 1, None, *picture.shape[:2])

    def frames(self, name: str, frames: np.ndarray) -> None:
        """uint8 RGB [T, H, W, 3] as a video, one frame as a picture."""
        if len(frames) > 1:
            self.video(name, frames)
        else:
            self.image(name, frames[0])

    def copy(self, name: str, data: bytes, shape: Media) -> None:
        """The encoded bytes of another sample's element, as they are."""
        file = f"{name}{Path(shape.file).suffix}"
        (self.folder / file).write_bytes(data)
        self.files[name] = MediaFile(file, shape.kind, shape.frames, shape.fps, shape.height, shape.width)

    def take(self, name: str, other: Candidate, written: str) -> None:
        """What was written for another candidate, as it is, under a new name."""
        medium = other.files[written]
        file = f"{name}{Path(medium.file).suffix}"
        (self.folder / file).write_bytes((other.folder / medium.file).read_bytes())
        self.files[name] = medium._replace(file=file)

    def done(
        self,
        details: Any = None,
        *,
        first: int | None = None,
        stop: int | None = None,
        scores: Mapping[str, float] | None = None,
        given: Mapping[str, Given] | None = None,
    ) -> Candidate:
        """The accepted candidate: what was written, and what is to be known of it.

        Args:
            details: a dataclass of the task, to be read again with `Candidate.details`.
            first, stop: the frames of the clip that it shows; the whole clip when left out.
            scores: what gates measured.
            given: stage -> the prompt and seed that its model was given.
        """
        about = {} if details is None else asdict(details)
        if given:
            about[GIVEN] = {stage: one.model_dump(mode="json") for stage, one in given.items()}
        return Candidate(files=self.files, scores=scores or {}, first=first, stop=stop, about=about)


def key_of(clip: Clip, task: str, number: int, ending: str) -> str:
    """The key of a sample."""
    return f"{task}-{clip.key[:8]}-{number:04d}" + (f"-{ending}" if ending else "")


def media_of(name: str, medium: MediaFile, frame_of: tuple[str, int] | None) -> Media:
    """A written medium as an element of a sample."""
    values = medium._asdict() | {"file": name + Path(medium.file).suffix}
    if frame_of is not None:
        values["frame_of"] = FrameOf(element=frame_of[0], frame=frame_of[1])
    return Media.model_validate(values)
