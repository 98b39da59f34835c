"""Plants defects of known kinds in clean pairs, for whatever is to find them or to train in spite of them.

Takes finished shards of pairs and writes shards in which chosen samples have one defect each, and
`OUT.labels.jsonl` with a line for every sample. Targets of clean samples are encoded anew like those of the
others, so that nothing but the defect tells them apart. Where a defect hardly shows in a sample (a frozen
picture of a still scene), it is planted in another one.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from curation.quality.defects import (
    ALONE,
    AS_IT_IS,
    KINDS,
    WITH_OTHERS,
    Pair,
    Planted,
    Shrink,
    names_of,
    read_pair,
)
from curation.quality.selection.labels import Label as Vote
from shards.errors import SettingError
from shards.files import write_bytes
from shards.media import write_image, write_mask, write_video
from shards.reader import Record, ShardSet
from shards.writer import Item, write_shards

__all__ = [
    "CLEAN",
    "KINDS",
    "Label",
    "Shrink",
    "labels_of",
    "names_of",
    "plant",
    "read_labels",
    "write_votes",
]
CLEAN, BY = "clean", "plant"


@dataclass(frozen=True)
class Label:
    """What was planted in a sample.

    Attributes:
        kind: of `KINDS`, or "clean"; how: its variant, "" where there is one only.
        clip: the source clip and where in it the pair begins: pairs that share it show the same scene.
    """

    key: str
    kind: str
    task: str
    clip: str
    how: str = ""


def plant(
    folders: Sequence[str | Path],
    out: str | Path,
    counts: Mapping[str, int],
    clean: int | None = None,
    seed: int = 0,
    once: bool = True,
    shrink: Shrink = AS_IT_IS,
    tasks: Sequence[str] = (),
) -> list[Label]:
    """Write the samples of some folders of shards anew, some of them with a defect; keys stay what they are.

    Args:
        counts: kind -> how many samples get it; as many as can where it applies to fewer.
        clean: how many others are written as they are; all when None.
        once: take one sample only of those that share a target (with and without the mask in the text).
        shrink: makes pairs small first; what else a sample holds stays as it is.
        tasks: of the samples that are taken; all where none is named.

    Returns:
        A label for each sample that was written, by key; also in `<out>.labels.jsonl`.

    Raises:
        SettingError: a kind that there is not.
    """
    if unknown := sorted(set(counts) - set(KINDS)):
        raise SettingError(f"{unknown[0]!r} is none of {', '.join(KINDS)}")
    records, shuffled = list(_records(folders, once, tasks)), random.Random(seed)
    shuffled.shuffle(records)
    left = {kind: count for kind, count in counts.items() if count}
    labels: list[Label] = []
    with tempfile.TemporaryDirectory() as scratch:
        items: list[Item] = []
        wanted = len(records) if clean is None else clean
        kept = 0
        by_task: defaultdict[str, list[Record]] = defaultdict(list)
        for record in records:
            by_task[record.sample.task].append(record)
        total = sum(left.values()) + wanted
        for place, record in enumerate(records):
            draw = random.Random(f"{seed} {record.key}")
            made, kind = None, CLEAN
            share = sum(left.values()) / max(1, min(total - len(labels), len(records) - place))
            pair = read_pair(record, shrink)
            if left and (draw.random() < share or kept >= wanted):
                # what is wanted most first: those that apply to few samples are then not left without any
                for kind in sorted(left, key=lambda one: (-left[one] / counts[one], KINDS.index(one))):
                    if (made := _attempt(kind, pair, draw, by_task[record.sample.task])) is not None:
                        break
            if made is None:
                if kept >= wanted:
                    continue
                kept, kind = kept + 1, CLEAN
                made = Planted(pair.target, record.sample.text)
            else:
                left[kind] -= 1
                left = {name: count for name, count in left.items() if count}
            items.append(_write(Path(scratch), pair, made))
            origin = record.sample.provenance.clip
            clip = f"{origin.name} {origin.span[0]:.1f}"
            labels.append(Label(record.key, kind, record.sample.task, clip, made.how))
        write_shards(out, items)
    labels.sort(key=lambda label: label.key)
    lines = (json.dumps(asdict(label)) + "\n" for label in labels)
    write_bytes(labels_of(out), "".join(lines).encode())
    return labels


def labels_of(out: str | Path) -> Path:
    """Where the labels of a folder lie: beside it."""
    return Path(f"{str(out).rstrip('/')}.labels.jsonl")


def read_labels(out: str | Path) -> list[Label]:
    """The labels of a folder that `plant` wrote."""
    return [Label(**json.loads(line)) for line in labels_of(out).read_text().splitlines()]


def write_votes(labels: Sequence[Label], path: str | Path, share: float = 1.0, seed: int = 0) -> int:
    """Write what a person would have said of a share of the samples, for `calibrate`; returns of how many.

    Args:
        path: a JSONL file of `curation.quality.selection.labels.Label`, which is replaced.
        share: above 0, at most 1; which samples these are is drawn by `seed`.
    """
    chosen = random.Random(seed).sample(list(labels), max(1, round(share * len(labels))))
    votes = [
        Vote(key=one.key, keep=one.kind == CLEAN, reasons=() if one.kind == CLEAN else (one.kind,), by=BY)
        for one in sorted(chosen, key=lambda label: label.key)
    ]
    write_bytes(path, "".join(vote.model_dump_json() + "\n" for vote in votes).encode())
    return len(votes)


def count_pairs(folders: Sequence[str | Path], once: bool = True, tasks: Sequence[str] = ()) -> int:
    """How many samples `plant` takes of some folders."""
    return sum(1 for _ in _records(folders, once, tasks))


def _records(folders: Sequence[str | Path], once: bool, tasks: Sequence[str]) -> Iterator[Record]:
    """The pairs of some folders; one of those that share their media, without the mask in its text."""
    seen: set[str | None] = set()
    for folder in folders:
        opened = ShardSet(folder)
        for key in sorted(opened.keys, key=lambda key: ("mask" in key.rsplit("-", 1)[-1], key)):
            sample = opened.sample(key)
            if (names := names_of(sample)) is None or (tasks and sample.task not in tasks):
                continue
            shown = "".join(str(sample.media[name].sha256) for name in sorted(names))
            if once and shown in seen:
                continue
            seen.add(shown)
            yield opened[key]


def _attempt(kind: str, pair: Pair, draw: random.Random, others: Sequence[Record]) -> Planted | None:
    if kind in ALONE:
        return ALONE[kind](pair, draw)
    mixed = [other for other in others if other.key != pair.record.key]
    draw.shuffle(mixed)
    return WITH_OTHERS[kind](pair, draw, mixed)


def _write(scratch: Path, pair: Pair, made: Planted) -> Item:
    """The sample with its files, those that stay as they are to the byte."""
    sample, (source, target) = pair.sample, names_of(pair.sample) or ("", "")
    folder = scratch / sample.key
    folder.mkdir()
    files, media = {}, dict(sample.media)
    small = {source: pair.source, "mask": pair.mask, target: made.target}
    for name, shape in sample.media.items():
        files[name] = folder / shape.file
        pixels = small.get(name)
        if pixels is None or (name != target and pair.shrink == AS_IT_IS):
            files[name].write_bytes(pair.record.bytes(name))
            continue
        fps = None if shape.fps is None else shape.fps / pair.shrink.step(shape.frames)
        about = {"frames": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2], "fps": fps}
        media[name] = shape.model_copy(update=about)
        if shape.kind == "mask":
            write_mask(files[name], pixels, fps or 1.0)
        elif shape.kind == "image":
            write_image(files[name], pixels[0])
        else:
            write_video(files[name], pixels, fps or 1.0, preset="ultrafast")
    if made.swapped:
        spare = folder / "spare"
        files[source].rename(spare)
        files[target].rename(files[source])
        spare.rename(files[target])
    return sample.model_copy(update={"text": made.text, "media": media}), files
