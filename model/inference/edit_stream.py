"""An edit that is made while it is taken: finished windows one after the other, in constant memory."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import numpy as np
from torch import nn

from model.acceleration.step_cache import Evaluations
from model.config import ModelConfig
from model.extras.faces import FacePolicy
from model.extras.keeping import Keep
from model.inference.edit import Edit, describe_edit, mask_path
from model.inference.inputs import Clip
from model.inference.request import Request
from model.output.preservation import Meter
from model.output.video_file import write_like
from model.sequence.interleave import SequenceError
from model.streaming.journal import Journal
from model.streaming.prefetch import consume
from model.streaming.windows import Span
from shards.files import sha256_of
from shards.hashing import digest
from shards.limits import MAX_DECODED_BYTES
from shards.media import open_mask_file, write_video
from shards.serialization import to_dict
from shards.video_writer import even_sides

STAGED_BYTES = 64 << 20  # of a window's source, up to which stages work ahead; each holds one or two
HASHED_FRAMES = 16  # that are read at once


@dataclass(frozen=True)
class FinishedWindow:
    """Frames start:stop of a result, those of the window before left out.

    Attributes:
        frames: uint8 RGB [T, H, W, 3].
        raw: the decoded edit before detail carry-over, where that was on; else `frames`.
        change: bool [T, H, W], where pixels are the edit's own, where the source's details were carried over;
            None elsewhere.
        source: uint8 RGB [T, h, w, 3], what it is an edit of; None where it is none.
        region: bool [T, H, W], where the model meant to edit, if it was asked; None otherwise.
        mask: uint8 [T, H, W], the edit's share of each pixel, where the source is kept; None elsewhere.
        faces: in how many frames faces of the source were kept.
    """

    start: int
    frames: np.ndarray
    raw: np.ndarray
    change: np.ndarray | None = None
    source: np.ndarray | None = None
    region: np.ndarray | None = None
    mask: np.ndarray | None = None
    faces: int = 0

    @property
    def stop(self) -> int:
        """The frame after the last one."""
        return self.start + len(self.frames)


@dataclass(frozen=True)
class PlannedEdit:
    """A request with the windows that it is edited in, and the request for its region where that is asked.

    `faces` are those that are kept; `evaluations` counts how often the network was run for it.
    """

    plan: Request
    region: Request | None
    spans: list[Span]
    faces: FacePolicy = FacePolicy.NONE
    evaluations: Evaluations = field(default_factory=Evaluations)

    @property
    def passes(self) -> int:
        """How many windows are sampled."""
        return len(self.spans) * (1 if self.region is None else 2)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to media and left out of the sampling so far, in words."""
        return (*self.plan.notes, *filter(None, [self.evaluations.describe()]))


class EditStream:
    """The windows of an edit, which is made as they are taken, once.

    A context manager: while it is open, nobody else can go on with the same result; when it is left, the
    stages that work ahead have ended.

    Attributes:
        plan: the request that is carried out; spans: its windows.
        total: windows that are sampled in all; restored: how many of them were found finished.
        meter: of what the windows so far kept of their source.
        marked: pixels of the region in the windows so far, and all; None where none was asked for.
        faces: frames of the windows so far in which faces were kept; None where there are none and they were
            not asked for.
    """

    def __init__(
        self,
        job: PlannedEdit,
        windows: Iterator[FinishedWindow],
        journal: Journal | None,
        keep: Keep | None = None,
    ) -> None:
        self._job, self.plan, self.total, self.restored = job, job.plan, job.passes, 0
        self.spans, self._ahead = job.spans, stages_ahead(job.plan, job.spans)
        self.meter = Meter()
        self.marked: tuple[int, int] | None = None
        self.faces = 0 if job.faces is FacePolicy.ALL else None
        self._masked = keep is not None
        self._windows, self._journal = windows, journal

    def __enter__(self) -> Self:
        """Take the folder of finished windows; its errors are those of `Journal`."""
        if self._journal is not None:
            self.restored = self._journal.__enter__().found
        return self

    def __exit__(self, *error: Any) -> None:
        """End the stages that work ahead; windows that are finished by then are kept if the edit is not."""
        if isinstance(self._windows, Generator):
            self._windows.close()
        if self._journal is not None:
            self._journal.__exit__(*error)

    def __iter__(self) -> Iterator[FinishedWindow]:
        """Windows in order; what a stage raises is raised here."""
        for window in self._windows:
            if window.source is not None:
                self.meter.add(window.frames, window.source, window.change)
            if window.region is not None:
                inside, pixels = self.marked or (0, 0)
                self.marked = inside + int(window.region.sum()), pixels + window.region.size
            if window.faces:
                self.faces = (self.faces or 0) + window.faces
            yield window

    def write(self, path: str | Path) -> str:
        """Make the whole edit and write it as `Edit.write` does; memory does not grow with its length.

        Windows that were kept for going on are removed when the file is there.

        Returns:
            What became of the source's sound, and where the mask is, in words; "" where there is neither.
        """
        sound = consume(self, lambda windows: self._write(Path(path), windows), self._ahead)
        if self._journal is not None:
            self._journal.remove()
        return sound

    def _write(self, path: Path, windows: Iterator[FinishedWindow]) -> str:
        """The video, and beside it the masks of the same windows."""
        if not self._masked:
            return self._write_video(path, (picture for window in windows for picture in window.frames))
        beside = mask_path(path, still=False)
        with open_mask_file(beside, self.plan.fps) as write:

            def frames() -> Iterator[np.ndarray]:
                for window in windows:
                    for number, picture in enumerate(window.frames):
                        if window.mask is not None:  # all have one
                            write(window.mask[number])
                        yield picture

            sound = self._write_video(path, frames())
        return " · ".join(filter(None, (sound, f"mask: {beside}")))

    def _write_video(self, path: Path, frames: Iterator[np.ndarray]) -> str:
        if self.plan.origin is not None:
            return write_like(path, frames, self.plan.fps, self.plan.origin)
        write_video(path, map(even_sides, frames), self.plan.fps)
        return ""

    def describe(self) -> str:
        """As `Edit.describe`, of the windows so far."""
        plan = self.plan
        kept = self.meter.result() if plan.edited is not None else None
        region = None if self.marked is None else self.marked[0] / max(1, self.marked[1])
        shape = (plan.length, *plan.size)
        return describe_edit(shape, plan.fps, plan.still, self._job.notes, kept, region, self.faces)


def check_held(plan: Request) -> None:
    """Refuse a result of more than `MAX_DECODED_BYTES` that would be held whole; SequenceError says so."""
    height, width = plan.size
    if (size := plan.length * height * width * 3) > MAX_DECODED_BYTES:
        raise SequenceError(
            f"the result of {plan.length} frames of {width}x{height} is {size / 2**30:.1f} GiB, at most "
            f"{MAX_DECODED_BYTES / 2**30:g} are held at once; stream it into a file instead"
        )


def collect(job: PlannedEdit, windows: Iterator[FinishedWindow]) -> Edit:
    """All windows as one edit in memory."""
    plan = job.plan
    whole: dict[str, np.ndarray] = {}
    faces = 0
    for window in windows:
        faces += window.faces
        parts = {
            "frames": window.frames,
            "raw": None if window.raw is window.frames else window.raw,
            "change": window.change,
            "region": window.region,
            "mask": window.mask,
        }
        for name, part in parts.items():
            if part is None:
                continue
            if len(part) == plan.length:
                whole[name] = part
                continue
            if name not in whole:
                whole[name] = np.zeros((plan.length, *part.shape[1:]), part.dtype)
            whole[name][window.start : window.stop] = part
    return Edit(
        whole["frames"],
        plan.fps,
        plan.still,
        whole.get("raw", whole["frames"]),
        region=whole.get("region"),
        rewritten=plan.rewritten,
        origin=plan.origin,
        notes=job.notes,
        change=whole.get("change"),
        source=plan.edited,
        mask=whole.get("mask"),
        faces=faces if faces or job.faces is FacePolicy.ALL else None,
    )


def stages_ahead(plan: Request, spans: list[Span]) -> int:
    """How many windows a stage may be ahead of the next one; 0 does one after the other.

    With one window there is nothing to overlap, and windows that are large are held one at a time.
    """
    sizes = [plan.size, *(clip.size for clip in plan.clips.values())]
    height, width = max(sizes, key=math.prod)
    each = max(span.frames for span in spans) * height * width * 3
    return 1 if len(spans) > 1 and each <= STAGED_BYTES else 0


def settings_of(
    job: PlannedEdit, network: nn.Module, config: ModelConfig, choices: Mapping[str, Any]
) -> dict[str, Any]:
    """What the windows of an edit depend on, as JSON with a name per part.

    Weights count by a few values of each tensor, so that adapters count and large models take no time; media
    by their bytes.
    """
    plan = job.plan
    weights = [
        [name, list(p.shape), p.detach().flatten()[:: max(1, p.numel() // 64)].double().tolist()]
        for name, p in network.named_parameters()
    ]
    return {
        "checkpoint": digest([to_dict(config), weights]),
        "text": digest([plan.instruction.parts, plan.target]),
        "media": digest({name: [_content(clip), clip.start] for name, clip in plan.clips.items()}),
        "size": [*plan.size, *plan.work],
        "frames": [[span.start, span.stop] for span in job.spans],
        "ground": job.region is not None,
        **{name: to_dict(v) if is_dataclass(v) else v for name, v in choices.items()},
    }


def _content(clip: Clip) -> str:
    """A hash of what a clip shows."""
    if isinstance(clip.file, bytes):
        return sha256(clip.file).hexdigest()
    if clip.file is not None:
        return sha256_of(clip.file)
    digester = sha256()
    for start in range(0, len(clip.frames), HASHED_FRAMES):
        digester.update(clip.frames[start : start + HASHED_FRAMES].tobytes())
    return digester.hexdigest()
