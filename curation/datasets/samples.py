"""From a row and its media to samples: keys, splits, texts, provenance, and what is derived from a pair."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curation.datasets.pairs import Medium, Pair, Rules, placed, task_of
from curation.datasets.rows import EditRow
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
    key = key_of(origin.format, row.identity)
    media = placed(pair)
    files = {name: _written(folder / f"{key}.{name}", medium) for name, medium in media.items()}
    *inputs, target = media
    named = [*inputs, target]
    written = {name: _described(name, medium) for name, medium in media.items()}
    masks: dict[str, Path] = {}
    if pair.mask is not None:
        fps = pair.sources[0].fps or 1.0
        masks["mask"] = folder / f"{key}.mask.mkv"
        write_mask(masks["mask"], pair.mask, fps)
        written["mask"] = _described("mask", Medium(pair.mask, fps), "mask")
    provenance = _provenance(row, pair, origin)
    task = task_of(row, pair)
    common = {"split": split_of(row, pair.sha256, rules.heldout), "captions": {**row.captions}}
    tags = " ".join(f"<{name}>" for name in inputs)
    items: list[Item] = [
        (
            Sample.model_validate(
                {
                    **common,
                    "key": key,
                    "task": task,
                    "text": f"{tags} {words} <{target}>".strip(),
                    "targets": [target],
                    "media": written,
                    "scores": {**row.scores},
                    "provenance": provenance,
                }
            ),
            {**files, **masks},
        )
    ]
    is_even = len(inputs) == 1 and row.aligned and pair.sources[0].kind == pair.target.kind
    if "reversal" in rules.derive and is_even:
        back = reversed_instruction(row, words, pair.target.kind)
        if back is not None:
            swapped = dict(zip(named, reversed(named), strict=True))
            sample = Sample.model_validate(
                {
                    **common,
                    "captions": {swapped.get(name, name): text for name, text in row.captions.items()},
                    "key": f"{key}-r",
                    "task": back[0],
                    "text": f"<{named[0]}> {back[1]} <{named[1]}>",
                    "targets": [named[1]],
                    "media": {
                        name: written[swapped.get(name, name)].model_copy(update={"file": medium.file})
                        for name, medium in written.items()
                    },
                    "provenance": _derived(provenance, "reversal", key),
                }
            )
            items.append((sample, {**{n: files[old] for n, old in swapped.items()}, **masks}))
    if "propagation" in rules.derive and named == ["video1", "video2"] and task != "propagation":
        first = Medium(pair.target.frames[:1], None)
        shown = written["video1"], written["video2"]
        frame_of = FrameOf(element="video2", frame=0)
        image = _described("image1", first).model_copy(update={"frame_of": frame_of})
        sample = Sample.model_validate(
            {
                **common,
                "key": f"{key}-p",
                "task": "propagation",
                "text": f"<video1> {PROPAGATION} <image1>. <video2>",
                "targets": ["video2"],
                "media": {"video1": shown[0], "video2": shown[1], "image1": image},
                "provenance": _derived(provenance, "propagation", key),
            }
        )
        items.append((sample, {**files, "image1": _written(folder / f"{key}.image1", first)}))
    return items


def _written(stem: Path, medium: Medium) -> Path:
    path = stem.with_name(stem.name + SUFFIX[medium.kind])
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


def _derived(provenance: Provenance, stage: str, key: str) -> Provenance:
    """The provenance of a sample that is made of the pair of this key."""
    steps = [*provenance.steps, Step(stage=stage, backend="import")]
    return Provenance(clip=provenance.clip, steps=steps, parents=(key,))


def packed_ids(ids: Iterator[str] | list[str]) -> str:
    """Row ids as text for the journal, 8 bytes each."""
    return base64.b64encode(b"".join(bytes.fromhex(one) for one in ids)).decode()


def unpacked_ids(text: str) -> np.ndarray:
    """Inverse of `packed_ids`, as uint64 [rows]."""
    data = base64.b64decode(text)
    if len(data) % 8:
        raise EditVerseError("a journal's row ids are damaged")
    return np.frombuffer(data, ">u8").astype(np.uint64)
