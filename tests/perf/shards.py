"""Shards: writing, streaming and random access, in samples and megabytes per second.

Samples are real removal pairs of 17 frames at 320x240, repeated under other keys.
"""

from __future__ import annotations

import random
import statistics
from pathlib import Path

from shards.media import write_mask, write_video
from shards.reader import ShardSet, stream
from shards.sample import ClipRef, Media, Provenance, Sample
from shards.verify import verify
from shards.writer import Item, write_shards
from tests.perf.measure import Figure, per, scene, timed

FRAMES, HEIGHT, WIDTH = 17, 240, 320


def make_items(
    folder: Path, count: int, heldout: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH), distinct: int = 4
) -> list[Item]:
    """`count` removal samples over `distinct` pairs; the last `heldout` are held out."""
    folder.mkdir(parents=True, exist_ok=True)
    height, width = size
    shape = {"frames": FRAMES, "fps": 10.0, "height": height, "width": width}
    media = {
        "video1": Media(file="video1.mp4", kind="video", **shape),
        "video2": Media(file="video2.mp4", kind="video", **shape),
        "mask": Media(file="mask.mkv", kind="mask", **shape),
    }
    pairs = []
    for number in range(min(distinct, count)):
        source, target, mask = scene(FRAMES, height, width, seed=number)
        files = {name: folder / f"{number}.{media[name].file}" for name in media}
        write_video(files["video1"], source, 10)
        write_video(files["video2"], target, 10)
        write_mask(files["mask"], mask, 10)
        pairs.append(files)
    items: list[Item] = []
    for number in range(count):
        clip = ClipRef(sha256=f"{number:064x}", name=f"{number}.mp4", span=(0.0, FRAMES / 10))
        sample = Sample(
            key=f"perf-{number:06d}",
            split="heldout" if number >= count - heldout else "train",
            task="object_removal",
            text="<video1> Remove the disc. <video2>",
            targets=["video2"],
            media=media,
            provenance=Provenance(clip=clip),
        )
        items.append((sample, pairs[number % len(pairs)]))
    return items


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """Time the writer and both readers on one folder."""
    count = 8 if quick else 200
    items = make_items(scratch / "media", count)
    out = scratch / "shards"

    def write() -> None:
        write_shards(out, items, max_samples=64)

    def read_stream() -> None:
        for record in stream(out, "train"):
            for name in record.sample.media:
                record.bytes(name)

    def moved(what: str, seconds: list[float]) -> Figure:
        megabytes = sum(path.stat().st_size for path in out.glob("*.tar")) / 1e6
        speed = megabytes / statistics.median(seconds)
        return per(what, seconds, count, "sample", f"{{}} samples/s, {speed:.3g} MB/s")

    figures = [moved("write_shards", timed(write, quick))]
    figures.append(moved("stream, all bytes", timed(read_stream, quick)))
    shards = ShardSet(out, "train")
    order = list(range(count))
    random.Random(0).shuffle(order)

    def read_random() -> None:
        for number in order:
            record = shards[number]
            for name in record.sample.media:
                record.bytes(name)

    figures.append(moved("random access, all bytes", timed(read_random, quick)))
    figures.append(per("open ShardSet", timed(lambda: ShardSet(out, "train"), quick), 1, "folder"))

    def decode() -> None:
        for number in order[:4]:
            record = shards[number]
            record.video("video1")
            record.video("video2")
            record.mask()

    rate = f"{{}} samples/s ({FRAMES} frames of {WIDTH}x{HEIGHT} twice, and the mask)"
    figures.append(per("random access, decoded", timed(decode, quick), 4, "sample", rate))
    figures.append(
        per("verify, checksums only", timed(lambda: verify(out, decode=False), quick), count, "sample")
    )
    return figures
