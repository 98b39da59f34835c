"""From a row and its media to samples: keys, splits, texts, provenance, and what is derived from a pair."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curation.datasets.layouts.rows import EditRow
from curation.datasets.pairs import Medium, Pair, Rules, placed, task_of
from curation.datasets.wording import reversed_instruction
from shards.errors import EditVerseError
from shards.media import encode_image, write_mask, write_video
from shards.sample import SUFFIX, ClipRef, FrameOf, Media, Provenance, Sample, Step
from shards.writer import Item

PROPAGATION = "edit the video following the first frame"  # the wording of `curation.tasks.propagation`


@dataclass(frozen=True)
class Origin:
    """What all samples of an import have in common.

    Attributes:
        format: the layout's name.
        config: "sha256:" of mapping and rules.
        license: of the data set.
    """

    format: str
    config: str
    license: str


def row_id(format: str, identity: str) -> str:
    """16 hexadecimal digits that stand for a row; the same wherever its files lie."""
    return hashlib.sha256(f"{format}/{identity}".encode()).hexdigest()[:16]


def key_of(format: str, identity: str) -> str:
    """The key of a row's sample."""
    return f"{format}-{row_id(format, identity)}"


def split_of(row: EditRow, sha256: str, heldout: float) -> str:
    """The split of a row, by a hash of what was edited: all edits of one source are in one.

    Args:
        sha256: of the source's file, which counts where the row names no group.
        heldout: part of the sources that is held out.
    """
    digest = hashlib.sha256(f"split:{row.group or sha256}".encode()).digest()
    return "heldout" if int.from_bytes(digest[:8]) < heldout * 2**64 else "train"


def samples_of(
    row: EditRow, words: str, pair: Pair, rules: Rules, origin: Origin, folder: Path
) -> list[Item]:
    """The samples of a row, with their media written into `folder`.

    Args:
        words: the instruction, cleaned.

    Raises:
        ValidationError: a task that is no name, or a caption that is no text.
    """
    made = _Made(row, pair, rules, origin, folder)
    items = [made.forward(words)]
    if "reversal" in rules.derive:
        items += made.reversal(words)
    if "propagation" in rules.derive:
        items += made.propagation()
    return items


class _Made:
    """A row whose media are written once, and the samples that share them."""

    def __init__(self, row: EditRow, pair: Pair, rules: Rules, origin: Origin, folder: Path) -> None:
        self.row, self.pair, self.folder = row, pair, folder
        self.key = key_of(origin.format, row.identity)
        self.task = task_of(row, pair)
        self.split = split_of(row, pair.sha256, rules.heldout)
        self.provenance = _provenance(row, pair, origin)
        media = placed(pair)
        *self.inputs, self.target = media
        self.media = {name: _described(name, medium) for name, medium in media.items()}
        self.files = {name: self._write(name, medium) for name, medium in media.items()}
        if pair.mask is not None:
            fps = pair.sources[0].fps or 1.0
            self.media["mask"] = _described("mask", Medium(pair.mask, fps), "mask")
            self.files["mask"] = folder / f"{self.key}.mask.mkv"
            write_mask(self.files["mask"], pair.mask, fps)

    def forward(self, words: str) -> Item:
        """The pair as it is given."""
        tags = "".join(f"<{name}> " for name in self.inputs)
        text = f"{tags}{words} <{self.target}>"
        values = {"captions": {**self.row.captions}, "scores": {**self.row.scores}}
        return self._sample("", self.task, text, self.media, self.provenance, **values), self.files

    def reversal(self, words: str) -> list[Item]:
        """The way back, where there is one: source and target change places, the mask stays."""
        pair = self.pair
        if len(self.inputs) != 1 or not self.row.aligned or pair.sources[0].kind != pair.target.kind:
            return []
        back = reversed_instruction(self.row, words, pair.target.kind)
        if back is None:
            return []
        task, text = back
        first, last = self.inputs[0], self.target
        other = {first: last, last: first}
        media = {
            name: self.media[other.get(name, name)].model_copy(update={"file": medium.file})
            for name, medium in self.media.items()
        }
        files = {name: self.files[other.get(name, name)] for name in self.files}
        roles = other | {"source": "target", "target": "source"}  # captions are named by element or by role
        captions = {roles.get(name, name): caption for name, caption in self.row.captions.items()}
        text, came = f"<{first}> {text} <{last}>", self._derived("reversal")
        return [(self._sample("-r", task, text, media, came, captions=captions), files)]

    def propagation(self) -> list[Item]:
        """A video and its first frame after the edit, to the edited video."""
        if [*self.inputs, self.target] != ["video1", "video2"] or self.task == "propagation":
            return []
        first = Medium(self.pair.target.frames[:1], None)
        image = _described("image1", first).model_copy(
            update={"frame_of": FrameOf(element="video2", frame=0)}
        )
        media = {"video1": self.media["video1"], "video2": self.media["video2"], "image1": image}
        files = {name: self.files[name] for name in ("video1", "video2")}
        files["image1"] = self._write("image1", first)
        text = f"<video1> {PROPAGATION} <image1>. <video2>"
        return [(self._sample("-p", "propagation", text, media, self._derived("propagation")), files)]

    def _sample(
        self, ending: str, task: str, text: str, media: dict[str, Media], came: Provenance, **more: Any
    ) -> Sample:
        values = {"key": self.key + ending, "split": self.split, "task": task, "text": text, **more}
        return Sample.model_validate({**values, "targets": [self.target], "media": media, "provenance": came})

    def _derived(self, stage: str) -> Provenance:
        """The provenance of a sample that is made of the pair."""
        steps = [*self.provenance.steps, Step(stage=stage, backend="import")]
        return self.provenance.model_copy(update={"steps": steps, "parents": (self.key,)})

    def _write(self, name: str, medium: Medium) -> Path:
        path = self.folder / f"{self.key}.{name}{SUFFIX[medium.kind]}"
        if medium.fps is None:
            path.write_bytes(encode_image(medium.frames[0]))
        else:
            write_video(path, medium.frames, medium.fps, preset="ultrafast")
        return path


def _described(name: str, medium: Medium, kind: str = "") -> Media:
    kind = kind or medium.kind
    frames, height, width = medium.frames.shape[:3]
    return Media.model_validate(
        {
            "file": name + SUFFIX[kind],
            "kind": kind,
            "frames": frames,
            "fps": medium.fps,
            "height": height,
            "width": width,
        }
    )


def _provenance(row: EditRow, pair: Pair, origin: Origin) -> Provenance:
    first = pair.sources[0] if pair.sources else pair.target
    steps = [Step(stage="origin", backend=row.origin)] if row.origin else []
    steps.append(Step(stage="import", backend=origin.format, config=origin.config))
    parents = () if row.parent is None else (key_of(origin.format, row.parent),)
    clip = ClipRef(
        sha256=pair.sha256,
        name=f"{origin.format}/{row.identity}",
        span=(0.0, round(len(first.frames) / first.fps, 6) if first.fps else 0.0),
        license=row.license or origin.license,
        mended=pair.mended,
    )
    return Provenance(clip=clip, steps=steps, parents=parents)


def packed_ids(ids: Iterator[str] | list[str]) -> str:
    """Row ids as text for the journal, 8 bytes each."""
    return base64.b64encode(b"".join(bytes.fromhex(one) for one in ids)).decode()


def unpacked_ids(text: str) -> np.ndarray:
    """Inverse of `packed_ids`, as uint64 [rows]."""
    data = base64.b64decode(text)
    if len(data) % 8:
        raise EditVerseError("a journal's row ids are damaged")
    return np.frombuffer(data, ">u8").astype(np.uint64)
